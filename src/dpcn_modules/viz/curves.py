"""Training curves from the logs that Lightning's CSVLogger writes."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcn_modules.viz._figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEP_LOSS, _EPOCH_LOSS, _MIOU = "train/loss_step", "train/loss_epoch", "val/miou"
Curve = tuple[list[int], list[float]]


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
    has_loss = any(_STEP_LOSS in run or _EPOCH_LOSS in run for run in runs.values())
    has_miou = any(_MIOU in run for run in runs.values())
    panels = has_loss + has_miou
    figure = new_figure(4.8 * panels, 3.4)
    axes = list(figure.subplots(1, panels, sharex=True, squeeze=False)[0])
    for axis in axes:
        axis.set_xlabel("training step")
        axis.grid(alpha=0.3)
    if has_loss:
        _draw_loss(axes[0], runs)
    if has_miou:
        _draw_miou(axes[-1], runs)
    save_figure(figure, path)
    return figure


def _draw_loss(axis: Any, runs: Mapping[str, Mapping[str, Curve]]) -> None:
    for i, (label, run) in enumerate(runs.items()):
        colour = f"C{i % 10}"
        if _STEP_LOSS in run:
            axis.plot(*run[_STEP_LOSS], color=colour, linewidth=0.6, alpha=0.4)
        steps, losses = run.get(_EPOCH_LOSS, ([], []))
        axis.plot(steps, losses, color=colour, linewidth=1.8, label=label, **_marker(steps))
    axis.set_ylabel("training loss")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)


def _draw_miou(axis: Any, runs: Mapping[str, Mapping[str, Curve]]) -> None:
    for i, (label, run) in enumerate(runs.items()):
        if _MIOU not in run:
            continue
        steps, values = run[_MIOU][0], [100 * value for value in run[_MIOU][1]]
        legend = f"{label}: best {max(values):.1f}"
        axis.plot(steps, values, color=f"C{i % 10}", linewidth=1.8, label=legend, **_marker(steps))
    axis.set_ylabel("validation mIoU (%)")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, loc="lower right")


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
    for column in (_STEP_LOSS, _EPOCH_LOSS, _MIOU):
        filled = [row for row in rows if row.get(column)]
        if filled:
            curves[column] = [int(row["step"]) for row in filled], [float(row[column]) for row in filled]
    if not curves:
        raise ValueError(
            f"{path}: expected values in one of the columns {_STEP_LOSS}, {_EPOCH_LOSS} and {_MIOU}, got the columns "
            f"{', '.join(columns) or '(none)'} and {len(rows)} rows; log with Lightning's CSVLogger."
        )
    return curves
