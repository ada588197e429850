"""Training curves: what Lightning's log says is what is drawn."""

import sys
from pathlib import Path

import pytest

from dpcn_modules.viz import fold_curves, training_curves

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
