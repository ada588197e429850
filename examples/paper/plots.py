"""Curves of trainings and sweeps over a setting, from the files that `dpcn fit` and `dpcn test` leave behind."""

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpcn_modules.viz import line_style, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEP_LOSS, EPOCH_LOSS, MIOU = "train/loss_step", "train/loss_epoch", "val/miou"
PANELS = {EPOCH_LOSS: ("training loss", "upper right"), MIOU: ("validation mIoU (%)", "lower right")}
Value = float | str
Log = dict[str, tuple[list[int], list[float]]]  # steps and values, by column
Files = Mapping[str, str | Path]


class Point(NamedTuple):
    """One tested network: its value of the setting, its mIoU, and the standard deviation over seeds (both 0-1)."""

    x: Value
    miou: float
    spread: float = 0.0


class Line(NamedTuple):
    """Networks that differ in the setting alone; lines of one group are folds of the same thing."""

    label: str
    points: list[Point]
    group: str = ""

    def means(self) -> dict[Value, float]:
        """The mean mIoU at each value."""
        values = dict.fromkeys(point.x for point in self.points)
        return {value: statistics.fmean(point.miou for point in self.points if point.x == value) for value in values}


def training_curves(files: Files, path: str | Path) -> "Figure":
    """Draw loss and validation mIoU over the training steps side by side, one colour per training.

    The loss is thin for single steps and thick for the mean of an epoch; the mIoU is that on held-out classes, with the
    best value of each training in the legend. A panel for which no file has values is left out.

    Args:
        files: by label, the ``metrics.csv`` of a training.
        path: the file to write; its suffix decides the format (.png, .pdf, ...).

    Raises:
        FileNotFoundError, ModuleNotFoundError: a file or matplotlib is missing.
        ValueError: no files, one without values, or an unknown suffix.
    """
    if not files:
        raise ValueError("``files``: expected at least one metrics.csv by its label, got none.")
    return _draw_curves({"": files}, path, side_by_side=True)


def fold_curves(folds: Mapping[str, Files], path: str | Path) -> "Figure":
    """Draw loss (above) and validation mIoU (below) over the training steps, one column a fold, on one scale.

    ``folds`` has the trainings of each column by its title. A label has one colour in all columns. Everything else is
    as in `training_curves`.

    Reference: Liu et al., CVPR 2022, supplement, fig. A1.
    """
    if not folds or not all(folds.values()):
        raise ValueError(f"``folds``: expected at least one metrics.csv in every panel, got {dict(folds)}.")
    return _draw_curves(folds, path, side_by_side=False)


def _draw_curves(folds: Mapping[str, Files], path: str | Path, *, side_by_side: bool) -> "Figure":
    logs = {title: {label: _read_log(Path(file)) for label, file in files.items()} for title, files in folds.items()}
    labels = list(dict.fromkeys(label for of_fold in logs.values() for label in of_fold))
    panels = [column for column in PANELS if any(column in log for fold in logs.values() for log in fold.values())]
    if side_by_side:
        figure = new_figure(4.8 * len(panels), 3.4)
        axes = figure.subplots(1, len(panels), sharex=True, squeeze=False).T
    else:
        figure = new_figure(0.6 + 3.0 * max(len(logs), 2), 0.4 + 2.4 * len(panels))
        axes = figure.subplots(len(panels), len(logs), sharex=True, sharey="row", squeeze=False)
    for (title, of_fold), column in zip(logs.items(), axes.T, strict=True):
        column[0].set_title(title, fontsize=10)
        for axis, panel in zip(column, panels, strict=True):
            _draw_panel(axis, panel, of_fold, labels)
            if not side_by_side:
                axis.label_outer()
    # Only now: a limit set before the last column is drawn would cut that one off.
    for axis in axes[:, 0]:
        axis.set_ylim(bottom=0)
    save_figure(figure, path)
    return figure


def _read_log(path: Path) -> Log:
    """The columns that a metrics.csv has values for, the mIoU in percent."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; expected the metrics.csv of Lightning's CSVLogger.")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(reader), list(reader.fieldnames or [])
    log: Log = {}
    for column, scale in ((STEP_LOSS, 1), (EPOCH_LOSS, 1), (MIOU, 100)):
        filled = [row for row in rows if row.get(column)]
        if filled:
            log[column] = [int(row["step"]) for row in filled], [scale * float(row[column]) for row in filled]
    if not log:
        raise ValueError(
            f"{path}: expected values in one of the columns {STEP_LOSS}, {EPOCH_LOSS} and {MIOU}, got the columns "
            f"{', '.join(columns) or '(none)'} and {len(rows)} rows; log with Lightning's CSVLogger."
        )
    if STEP_LOSS in log:
        log.setdefault(EPOCH_LOSS, ([], []))  # the legend names the thick line
    return log


def _draw_panel(axis: Any, column: str, logs: Mapping[str, Log], labels: Sequence[str]) -> None:
    for label, log in logs.items():
        if column not in log:
            continue
        style = line_style(labels.index(label))
        steps, values = log[column]
        if column == EPOCH_LOSS and STEP_LOSS in log:
            axis.plot(*log[STEP_LOSS], color=style["color"], linewidth=0.6, alpha=0.4)
        legend = f"{label}: best {max(values):.1f}" if column == MIOU else label
        # Few points are shown as such; a line alone would hide a single one.
        marker = "o" if len(steps) <= 20 else None
        axis.plot(steps, values, label=legend, linewidth=1.8, markersize=4, marker=marker, **style)
    name, place = PANELS[column]
    axis.set(xlabel="training step", ylabel=name)
    axis.grid(alpha=0.3)
    axis.locator_params(axis="x", nbins=5)
    if axis.lines:
        axis.legend(fontsize=8, loc=place)
    else:
        axis.text(0.5, 0.5, "none logged", ha="center", va="center", color="0.4", transform=axis.transAxes)


def sweep_curve(lines: Sequence[Line], path: str | Path, *, x_label: str, note: str = "") -> "Figure":
    """Draw the mIoU over the values of a setting.

    The values stand at even distances, in order (texts: as they come), since sweeps such as 0, 0.1, 0.5, 1, 2 crowd at
    one end of a true axis. The axis of the mIoU does not start at 0; each mean is written at its point. A black line is
    the mean of a group of two lines or more that have the same values.

    Args:
        lines: one for each data set, fold or network. Several points at one value are several trainings: they are
            drawn as bars, with the spread over seeds, and the line goes through their mean.
        path: the file to write.
        x_label: what the setting is called.
        note: small print below the axis, such as the protocols of the points.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        ValueError: no lines, a line without points, fewer than two values, or an unknown suffix.

    Reference: Liu et al., CVPR 2022, supplement, fig. A2.
    """
    values: list[Any] = list(dict.fromkeys(point.x for line in lines for point in line.points))
    if all(isinstance(value, int | float) for value in values):
        values.sort()
    names = [value if isinstance(value, str) else f"{value:g}" for value in values]
    if not all(line.points for line in lines) or len(values) < 2:
        raise ValueError(
            f"``lines``: expected points at two values of {x_label} or more, in every line at least one, got the "
            f"values {', '.join(names) or '(none)'}."
        )
    figure = new_figure(max(4.8, 0.9 * len(values)), 3.6)
    axis = figure.subplots()
    for number, line in enumerate(lines):
        _draw_line(axis, line, values, values_shown=len(lines) == 1, linewidth=1.8, **line_style(number))
    for number, mean in enumerate(_group_means(lines)):
        style = {**line_style(6 * number), "color": "black"}
        _draw_line(axis, mean, values, values_shown=True, linewidth=2.6, **style)
    axis.set_xticks(range(len(values)), names)
    axis.set(xlabel=f"{x_label} (values evenly spaced)", ylabel="mIoU (%)")
    axis.margins(x=0.08, y=0.15)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, path, note)
    return figure


def _draw_line(axis: Any, line: Line, values: Sequence[Value], *, values_shown: bool, **style: Any) -> None:
    means = line.means()
    xs = sorted(values.index(value) for value in means)
    ys = [100 * means[values[x]] for x in xs]
    axis.plot(xs, ys, marker="o", markersize=5, label=line.label, **style)
    if len(line.points) > len(means) or any(point.spread for point in line.points):
        single = [(values.index(point.x), 100 * point.miou, 100 * point.spread) for point in line.points]
        axis.errorbar(*zip(*single, strict=True), fmt="_", color=style["color"], capsize=3, linewidth=1, alpha=0.7)
    if values_shown:
        for x, y in zip(xs, ys, strict=True):
            top = max(100 * (point.miou + point.spread) for point in line.points if point.x == values[x])
            axis.annotate(f"{y:.1f}", (x, top), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)


def _group_means(lines: Sequence[Line]) -> list[Line]:
    """The mean of each group whose lines have the same values; of others it would compare other folds at each value."""
    found = []
    for group in dict.fromkeys(line.group for line in lines if line.group):
        means = [line.means() for line in lines if line.group == group]
        if len(means) > 1 and all(each.keys() == means[0].keys() for each in means):
            points = [Point(value, statistics.fmean(each[value] for each in means)) for value in means[0]]
            found.append(Line(f"{group}, mean of {len(means)}", points))
    return found
