"""examples/paper/plots.py: what a log or a sweep says is what is drawn."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
plots = importlib.import_module("paper.plots")
Line, Point = plots.Line, plots.Point
fold_curves, sweep_curve, training_curves = plots.fold_curves, plots.sweep_curve, plots.training_curves

LOG = """epoch,step,train/loss_epoch,train/loss_step,val/fb_iou,val/miou
0,9,,1.5,,
0,19,,1.0,,
0,19,,,0.6,0.25
0,19,1.25,,,
1,39,,0.5,,
1,39,,,0.7,0.5
1,39,0.75,,,
"""


def write(path: Path, text: str = LOG) -> Path:
    path.write_text(text)
    return path


def curves(axis) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines]


def legend(axis) -> list[str]:
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_curves_are_the_values_of_the_log_over_the_steps(tmp_path: Path) -> None:
    figure = training_curves({"DPCN": write(tmp_path / "metrics.csv")}, tmp_path / "curves.png")
    loss, miou = figure.axes
    assert curves(loss) == [([9, 19, 39], [1.5, 1.0, 0.5]), ([19, 39], [1.25, 0.75])]
    assert curves(miou) == [([19, 39], [25, 50])]
    assert [loss.get_ylabel(), miou.get_ylabel()] == ["training loss", "validation mIoU (%)"]
    assert [loss.get_xlabel(), miou.get_xlabel()] == ["training step"] * 2
    assert [legend(loss), legend(miou)] == [["DPCN"], ["DPCN: best 50.0"]]


@pytest.mark.parametrize(("name", "start"), [("curves.png", b"\x89PNG"), ("new/curves.pdf", b"%PDF")])
def test_curves_are_written_in_the_format_of_the_suffix(tmp_path: Path, name: str, start: bytes) -> None:
    training_curves({"DPCN": str(write(tmp_path / "metrics.csv"))}, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


def test_each_training_has_one_colour_in_both_panels(tmp_path: Path) -> None:
    files = {"DPCN": write(tmp_path / "a.csv"), "baseline": write(tmp_path / "b.csv", LOG.replace("0.5\n", "0.4\n"))}
    loss, miou = training_curves(files, tmp_path / "curves.png").axes
    colours = [line.get_color() for line in miou.lines]
    assert [line.get_color() for line in loss.lines] == [colours[0]] * 2 + [colours[1]] * 2
    assert colours[0] != colours[1]
    assert legend(miou) == ["DPCN: best 50.0", "baseline: best 40.0"]


def test_single_epoch_is_visible_as_a_point(tmp_path: Path) -> None:
    file = write(tmp_path / "metrics.csv", "".join(LOG.splitlines(keepends=True)[:5]))
    _, miou = training_curves({"DPCN": file}, tmp_path / "curves.png").axes
    assert miou.lines[0].get_marker() == "o"


def test_panel_without_values_is_left_out(tmp_path: Path) -> None:
    only_loss = write(tmp_path / "a.csv", "epoch,step,train/loss_step\n0,9,1.5\n0,19,1.0\n")
    only_miou = write(tmp_path / "b.csv", "epoch,step,val/miou\n0,19,0.25\n")
    (loss,) = training_curves({"DPCN": only_loss}, tmp_path / "curves.png").axes
    assert curves(loss)[0] == ([9, 19], [1.5, 1.0])
    (miou,) = training_curves({"DPCN": only_miou}, tmp_path / "curves.png").axes
    assert curves(miou) == [([19], [25])]
    loss, miou = training_curves({"one": only_loss, "other": only_miou}, tmp_path / "curves.png").axes
    assert legend(miou) == ["other: best 25.0"]


def test_log_as_lightning_writes_it_can_be_read(tmp_path: Path) -> None:
    logger = pytest.importorskip("lightning.pytorch.loggers").CSVLogger(tmp_path)
    logger.log_metrics({"train/loss_step": 1.5, "epoch": 0}, step=9)
    logger.save()
    logger.log_metrics({"train/loss_epoch": 1.25, "epoch": 0}, step=19)
    logger.log_metrics({"val/miou": 0.25, "epoch": 0}, step=19)
    logger.save()
    loss, miou = training_curves({"DPCN": Path(logger.log_dir) / "metrics.csv"}, tmp_path / "curves.png").axes
    assert curves(loss) == [([9], [1.5]), ([19], [1.25])]
    assert curves(miou) == [([19], [25])]


@pytest.mark.parametrize("folds", [0, 1, 4])
def test_nothing_is_cut_off(tmp_path: Path, folds: int) -> None:
    files = {"a training with a long name": write(tmp_path / "metrics.csv")}
    if folds:
        figure = fold_curves({f"fold {i}": files for i in range(folds)}, tmp_path / "curves.png")
    else:
        figure = training_curves(files, tmp_path / "curves.png")
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


def test_folds_have_a_panel_each_with_loss_above_and_miou_below(tmp_path: Path) -> None:
    log = write(tmp_path / "metrics.csv")
    figure = fold_curves(
        {"fold 0": {"DPCN": log}, "fold 1": {"DPCN": log}, "fold 2": {"DPCN": log}}, tmp_path / "a.png"
    )
    losses, mious = figure.axes[:3], figure.axes[3:]
    assert [axis.get_title() for axis in figure.axes] == ["fold 0", "fold 1", "fold 2", "", "", ""]
    assert [curves(axis)[1] for axis in losses] == [([19, 39], [1.25, 0.75])] * 3
    assert [curves(axis) for axis in mious] == [[([19, 39], [25, 50])]] * 3
    assert [axis.get_ylabel() for axis in (losses[0], mious[0])] == ["training loss", "validation mIoU (%)"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_later_fold_with_higher_values_is_not_cut_off(tmp_path: Path) -> None:
    low, high = write(tmp_path / "a.csv"), write(tmp_path / "b.csv", LOG.replace("0.5\n", "0.9\n"))
    figure = fold_curves({"fold 0": {"DPCN": low}, "fold 1": {"DPCN": high}}, tmp_path / "curves.png")
    first, second = figure.axes[2:]
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] == 0
    assert first.get_ylim()[1] > 90


def test_a_network_has_one_colour_in_all_folds(tmp_path: Path) -> None:
    log = write(tmp_path / "metrics.csv")
    folds = {"fold 0": {"DPCN": log, "baseline": log}, "fold 1": {"baseline": log}}
    first, second = fold_curves(folds, tmp_path / "curves.png").axes[2:]
    assert second.lines[0].get_color() == first.lines[1].get_color() != first.lines[0].get_color()
    assert legend(second) == ["baseline: best 50.0"]


def test_fold_without_validation_says_so_beside_one_with(tmp_path: Path) -> None:
    only_loss = write(tmp_path / "a.csv", "epoch,step,train/loss_step\n0,9,1.5\n0,19,1.0\n")
    folds = {"fold 0": {"DPCN": write(tmp_path / "b.csv")}, "fold 1": {"DPCN": only_loss}}
    *_, first, second = fold_curves(folds, tmp_path / "curves.png").axes
    assert [text.get_text() for text in first.texts] == []
    assert [text.get_text() for text in second.texts] == ["none logged"]


@pytest.mark.parametrize("folds", [{}, {"fold 0": {}}])
def test_fold_without_log_is_an_error(tmp_path: Path, folds: dict) -> None:
    with pytest.raises(ValueError, match=r"``folds``: expected at least one metrics.csv in every panel, got \{"):
        fold_curves(folds, tmp_path / "curves.png")


def test_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.csv: there is no such file; expected the metrics.csv"):
        training_curves({"DPCN": tmp_path / "nowhere.csv"}, tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("epoch,step,lr\n0,9,0.1\n", "columns epoch, step, lr and 1 rows"),
        ("epoch,step,val/miou\n", "columns epoch, step, val/miou and 0 rows"),
        ("", r"columns \(none\) and 0 rows"),
    ],
)
def test_log_without_values_is_named_with_what_it_has(tmp_path: Path, text: str, found: str) -> None:
    file = write(tmp_path / "metrics.csv", text)
    with pytest.raises(
        ValueError, match=rf"metrics.csv: expected values in one of .*train/loss_step.* got the {found}"
    ):
        training_curves({"DPCN": file}, tmp_path / "curves.png")


def test_no_log_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"``files``: expected at least one metrics.csv by its label, got none"):
        training_curves({}, tmp_path / "curves.png")


def test_curves_without_matplotlib_give_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'dpcn_modules\[viz\]'"):
        training_curves({"DPCN": write(tmp_path / "metrics.csv")}, tmp_path / "curves.png")


def line(label: str, values: dict, group: str = "DPCN") -> Line:
    return Line(label, [Point(x, miou) for x, miou in values.items()], group)


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
    points = [Point(0, 0.25), Point(0, 0.75), Point(1, 0.5)]
    figure = sweep_curve([Line("fold 0", points)], tmp_path / "sweep.png", x_label="lambda")
    assert drawn(figure)["fold 0"] == ([0, 1], [50, 50])
    (bars,) = figure.axes[0].containers
    assert list(bars.lines[0].get_ydata()) == [25, 75, 50]


def test_spread_over_seeds_is_drawn(tmp_path: Path) -> None:
    points = [Point(0, 0.25, 0.0625), Point(1, 0.5, 0.125)]
    figure = sweep_curve([Line("fold 0", points)], tmp_path / "sweep.png", x_label="lambda")
    (bars,) = figure.axes[0].containers
    ends = [[float(y) for _, y in segment] for segment in bars.lines[2][0].get_segments()]
    assert ends == [[18.75, 31.25], [37.5, 62.5]]


@pytest.mark.parametrize(
    ("lines", "found"),
    [([], r"\(none\)"), ([line("a", {0.5: 0.5})], "0.5"), ([line("a", {0: 0.5, 1: 0.5}), line("b", {})], "0, 1")],
)
def test_sweep_of_nothing_is_an_error(tmp_path: Path, lines: list[Line], found: str) -> None:
    with pytest.raises(ValueError, match=f"``lines``: expected points at two values of lambda .* values {found}."):
        sweep_curve(lines, tmp_path / "sweep.png", x_label="lambda")


def test_nothing_of_a_sweep_is_cut_off(tmp_path: Path) -> None:
    lines = [line(f"a network with a long name, fold {i}", {i: 0.5 + i / 10 for i in range(4)}) for i in range(4)]
    figure = sweep_curve(lines, tmp_path / "sweep.png", x_label="reverse_weight")
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height
