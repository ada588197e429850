"""Sweeps: the values in order, the means at their places, and a mean over folds only where it compares the same."""

from pathlib import Path

import pytest

from dpcn_modules.viz import SweepLine, SweepPoint, sweep_curve


def line(label: str, values: dict, group: str = "DPCN") -> SweepLine:
    return SweepLine(label, [SweepPoint(x, miou) for x, miou in values.items()], group)


def drawn(figure) -> dict[str, tuple[list[float], list[float]]]:
    (axis,) = figure.axes
    named = [each for each in axis.lines if not each.get_label().startswith("_")]
    return {
        each.get_label(): (list(each.get_xdata()), [round(float(y), 6) for y in each.get_ydata()]) for each in named
    }


def ticks(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_xticklabels()]


def written(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_points_stand_in_the_order_of_their_values_at_even_distances(tmp_path: Path) -> None:
    points = line("fold 0", {2.0: 0.5, 0: 0.25, 0.1: 0.375})
    figure = sweep_curve([points], tmp_path / "new" / "sweep.pdf", x_label="lambda")
    assert drawn(figure) == {"fold 0": ([0, 1, 2], [25, 37.5, 50])}
    assert ticks(figure) == ["0", "0.1", "2"]
    assert written(figure) == ["25.0", "37.5", "50.0"]
    assert figure.axes[0].get_xlabel() == "lambda (values evenly spaced)"
    assert figure.axes[0].get_ylabel() == "mIoU (%)"
    assert (tmp_path / "new" / "sweep.pdf").read_bytes().startswith(b"%PDF")


def test_texts_stand_as_they_come(tmp_path: Path) -> None:
    figure = sweep_curve([line("a", {"serial": 0.5, "parallel": 0.25})], tmp_path / "a.png", x_label="generation")
    assert ticks(figure) == ["serial", "parallel"]


def test_folds_of_the_same_values_get_their_mean(tmp_path: Path) -> None:
    lines = [line("fold 0", {0: 0.25, 1: 0.5}), line("fold 1", {1: 0.75, 0: 0.375})]
    figure = sweep_curve(lines, tmp_path / "sweep.png", x_label="lambda")
    assert drawn(figure)["DPCN, mean of 2"] == ([0, 1], [31.25, 62.5])
    assert written(figure) == ["31.2", "62.5"]


def test_folds_of_other_values_and_other_networks_get_no_mean(tmp_path: Path) -> None:
    lines = [line("fold 0", {0: 0.25, 1: 0.5}), line("fold 1", {1: 0.75}), line("fold 0 of it", {0: 0.5}, "baseline")]
    assert list(drawn(sweep_curve(lines, tmp_path / "sweep.png", x_label="lambda"))) == [each.label for each in lines]


def test_several_trainings_of_a_value_are_drawn_around_their_mean(tmp_path: Path) -> None:
    points = [SweepPoint(0, 0.25), SweepPoint(0, 0.75), SweepPoint(1, 0.5)]
    figure = sweep_curve([SweepLine("fold 0", points)], tmp_path / "sweep.png", x_label="lambda")
    assert drawn(figure)["fold 0"] == ([0, 1], [50, 50])
    (bars,) = figure.axes[0].containers
    assert list(bars.lines[0].get_ydata()) == [25, 75, 50]


def test_spread_over_seeds_is_drawn(tmp_path: Path) -> None:
    points = [SweepPoint(0, 0.25, 0.0625), SweepPoint(1, 0.5, 0.125)]
    figure = sweep_curve([SweepLine("fold 0", points)], tmp_path / "sweep.png", x_label="lambda")
    (bars,) = figure.axes[0].containers
    ends = [[float(y) for _, y in segment] for segment in bars.lines[2][0].get_segments()]
    assert ends == [[18.75, 31.25], [37.5, 62.5]]


@pytest.mark.parametrize(
    ("lines", "found"),
    [([], r"\(none\)"), ([line("a", {0.5: 0.5})], "0.5"), ([line("a", {0: 0.5, 1: 0.5}), line("b", {})], "0, 1")],
)
def test_sweep_of_nothing_is_an_error(tmp_path: Path, lines: list[SweepLine], found: str) -> None:
    with pytest.raises(ValueError, match=f"``lines``: expected points at two values of lambda .* values {found}."):
        sweep_curve(lines, tmp_path / "sweep.png", x_label="lambda")


def test_nothing_is_cut_off(tmp_path: Path) -> None:
    lines = [line(f"a network with a long name, fold {i}", {i: 0.5 + i / 10 for i in range(4)}) for i in range(4)]
    figure = sweep_curve(lines, tmp_path / "sweep.png", x_label="reverse_weight")
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height
