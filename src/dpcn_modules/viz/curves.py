"""Training curves from the logs that Lightning's CSVLogger writes."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcn_modules.viz.figure import line_style, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEP_LOSS, _EPOCH_LOSS, _MIOU = "train/loss_step", "train/loss_epoch", "val/miou"
_LOSSES = (_STEP_LOSS, _EPOCH_LOSS)
Curve = tuple[list[int], list[float]]
Run = dict[str, Curve]
Styles = Mapping[str, Mapping[str, str]]


def training_curves(files: Mapping[str, str | Path], path: str | Path) -> "Figure":
    """Draw loss and validation mIoU over the training steps, one colour per training, and write the figure.

    Args:
        files: by label, the ``metrics.csv`` of a training.
        path: the file; its suffix decides the format (.png, .pdf, ...).

    Returns:
        The figure: the loss (thin: of single steps; thick: mean of an epoch) and the mIoU on held-out classes in
        percent, with the best value of each training in the legend. A panel for which no file has values is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: matplotlib is missing.
        ValueError: no files, one that has none of the columns, or an unknown suffix.
    """
    if not files:
        raise ValueError("``files``: expected at least one metrics.csv by its label, got none.")
    runs = {label: _read(Path(file)) for label, file in files.items()}
    draws = _draws(list(runs.values()))
    figure = new_figure(4.8 * len(draws), 3.4)
    axes = list(figure.subplots(1, len(draws), sharex=True, squeeze=False)[0])
    for axis, draw in zip(axes, draws, strict=True):
        axis.set_xlabel("training step")
        draw(axis, runs, _styles([runs]))
        axis.set_ylim(bottom=0)
    save_figure(figure, path)
    return figure


def fold_curves(folds: Mapping[str, Mapping[str, str | Path]], path: str | Path) -> "Figure":
    """Draw loss and validation mIoU over the training steps, one panel a fold, and write the figure.

    Args:
        folds: by the title of the panel, the trainings in it: by label, their ``metrics.csv``. A label has one colour
            in all panels.
        path: the file; its suffix decides the format (.png, .pdf, ...).

    Returns:
        The figure: a column for each fold, the loss above and the mIoU below, each on one scale over all folds;
        otherwise as :func:`training_curves`.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as :func:`training_curves`.

    Reference: Liu et al., CVPR 2022, supplement, fig. A1.
    """
    if not folds or not all(folds.values()):
        raise ValueError(f"``folds``: expected at least one metrics.csv in every panel, got {dict(folds)}.")
    runs = {title: {label: _read(Path(file)) for label, file in files.items()} for title, files in folds.items()}
    draws = _draws([run for of_fold in runs.values() for run in of_fold.values()])
    figure = new_figure(0.6 + 3.0 * max(len(runs), 2), 0.4 + 2.4 * len(draws))
    axes = figure.subplots(len(draws), len(runs), sharex=True, sharey="row", squeeze=False)
    for (title, of_fold), column in zip(runs.items(), axes.T, strict=True):
        column[0].set_title(title, fontsize=10)
        column[-1].set_xlabel("training step")
        for axis, draw in zip(column, draws, strict=True):
            draw(axis, of_fold, _styles(list(runs.values())))
            axis.label_outer()
    # Only now: a limit set before the last panel is drawn would cut that one off.
    for axis in axes[:, 0]:
        axis.set_ylim(bottom=0)
    save_figure(figure, path)
    return figure


def _draws(runs: list[Run]) -> list[Any]:
    """What draws the panels for which some run has values."""
    kinds = ((_draw_loss, _LOSSES), (_draw_miou, (_MIOU,)))
    return [draw for draw, columns in kinds if any(column in run for run in runs for column in columns)]


def _styles(panels: list[dict[str, Run]]) -> Styles:
    labels = dict.fromkeys(label for runs in panels for label in runs)
    return {label: line_style(i) for i, label in enumerate(labels)}


def _draw_loss(axis: Any, runs: Mapping[str, Run], styles: Styles) -> None:
    for label, run in runs.items():
        if _STEP_LOSS in run:
            axis.plot(*run[_STEP_LOSS], color=styles[label]["color"], linewidth=0.6, alpha=0.4)
        if any(column in run for column in _LOSSES):
            steps, losses = run.get(_EPOCH_LOSS, ([], []))
            axis.plot(steps, losses, linewidth=1.8, label=label, **styles[label], **_marker(steps))
    axis.set_ylabel("training loss")
    _finish(axis, "upper right")


def _draw_miou(axis: Any, runs: Mapping[str, Run], styles: Styles) -> None:
    for label, run in runs.items():
        if _MIOU not in run:
            continue
        steps, values = run[_MIOU][0], [100 * value for value in run[_MIOU][1]]
        legend = f"{label}: best {max(values):.1f}"
        axis.plot(steps, values, linewidth=1.8, label=legend, **styles[label], **_marker(steps))
    axis.set_ylabel("validation mIoU (%)")
    _finish(axis, "lower right")


def _finish(axis: Any, place: str) -> None:
    axis.grid(alpha=0.3)
    axis.locator_params(axis="x", nbins=5)
    if axis.lines:
        axis.legend(fontsize=8, loc=place)
    else:
        axis.text(0.5, 0.5, "none logged", ha="center", va="center", color="0.4", transform=axis.transAxes)


def _marker(steps: list[int]) -> dict[str, Any]:
    """Few points are shown as such; a line alone would hide a single one."""
    return {"marker": "o", "markersize": 4} if len(steps) <= 20 else {}


def _read(path: Path) -> dict[str, Curve]:
    """The curves that a file has values for, by column."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; expected the metrics.csv of Lightning's CSVLogger.")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or [])
    curves: dict[str, Curve] = {}
    for column in (*_LOSSES, _MIOU):
        filled = [row for row in rows if row.get(column)]
        if filled:
            curves[column] = [int(row["step"]) for row in filled], [float(row[column]) for row in filled]
    if not curves:
        raise ValueError(
            f"{path}: expected values in one of the columns {_STEP_LOSS}, {_EPOCH_LOSS} and {_MIOU}, got the columns "
            f"{', '.join(columns) or '(none)'} and {len(rows)} rows; log with Lightning's CSVLogger."
        )
    return curves
