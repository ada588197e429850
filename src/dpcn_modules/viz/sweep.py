"""A score over the values of one setting."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpcn_modules.viz.figure import line_style, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = float | str


class SweepPoint(NamedTuple):
    """One tested network.

    Attributes:
        x: its value of the setting.
        miou: 0-1.
        spread: standard deviation over the seeds of the test's episodes, 0-1; 0 with one seed.
    """

    x: Value
    miou: float
    spread: float = 0.0


class SweepLine(NamedTuple):
    """Networks that differ in the setting alone, all tested alike.

    Attributes:
        label: of the line.
        points: in any order; several at one value are several trainings, and the line goes through their mean.
        group: lines of one group are folds of the same thing, and are averaged.
    """

    label: str
    points: Sequence[SweepPoint]
    group: str = ""


def sweep_curve(lines: Sequence[SweepLine], path: str | Path, *, x_label: str, note: str = "") -> "Figure":
    """Draw the mIoU over the values of a setting, and write the figure.

    The values stand at even distances, in order (texts: as they come), since sweeps such as 0, 0.1, 0.5, 1, 2 crowd at
    one end of a true axis. The axis of the mIoU does not start at 0; each mean is written at its point.

    Args:
        lines: one for each data set, fold or network.
        path: the file; its suffix decides the format (.png, .pdf, ...).
        x_label: what the setting is called.
        note: small print below the axis, such as the protocols of the points.

    Returns:
        The figure: a line for each of ``lines``, and a black one for the mean of every group of two lines or more that
        have the same values.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        ValueError: no lines, a line without points, fewer than two values, or an unknown suffix.

    Reference: Liu et al., CVPR 2022, supplement, fig. A2.
    """
    values = _values([point.x for line in lines for point in line.points])
    if not all(line.points for line in lines) or len(values) < 2:
        raise ValueError(
            f"``lines``: expected points at two values of {x_label} or more, in every line at least one, got the "
            f"values {', '.join(map(_text, values)) or '(none)'}."
        )
    groups = [line.group for line in lines]
    means = {
        group: _mean_line([line for line in lines if line.group == group])
        for group in dict.fromkeys(groups)
        if group and groups.count(group) > 1
    }
    figure = new_figure(max(4.8, 0.9 * len(values)), 3.6)
    axis = figure.subplots()
    places = {value: i for i, value in enumerate(values)}
    for number, line in enumerate(lines):
        _draw(axis, line, places, values_shown=len(lines) == 1, linewidth=1.8, **line_style(number))
    for number, line in enumerate(line for line in means.values() if line is not None):
        dashes = line_style(6 * number)["linestyle"]
        _draw(axis, line, places, values_shown=True, linewidth=2.6, color="black", linestyle=dashes)
    axis.set_xticks(range(len(values)), [_text(value) for value in values])
    axis.set_xlabel(f"{x_label} (values evenly spaced)")
    axis.set_ylabel("mIoU (%)")
    axis.margins(x=0.08, y=0.15)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, path, note)
    return figure


def _draw(axis: Any, line: SweepLine, places: dict[Value, int], *, values_shown: bool, **style: Any) -> None:
    """The line through the mean of each value; where a value was trained or tested several times, those too."""
    means = _means(line)
    xs, ys = [places[value] for value in means], [100 * miou for miou in means.values()]
    order = sorted(range(len(xs)), key=xs.__getitem__)
    xs, ys = [xs[i] for i in order], [ys[i] for i in order]
    axis.plot(xs, ys, marker="o", markersize=5, label=line.label, **style)
    colour = style["color"]
    if len(line.points) > len(means) or any(point.spread for point in line.points):
        single = [(places[point.x], 100 * point.miou, 100 * point.spread) for point in line.points]
        axis.errorbar(*zip(*single, strict=True), fmt="_", color=colour, capsize=3, linewidth=1, alpha=0.7)
    if values_shown:
        tops = [max(100 * (point.miou + point.spread) for point in line.points if places[point.x] == x) for x in xs]
        for x, y, top in zip(xs, ys, tops, strict=True):
            axis.annotate(f"{y:.1f}", (x, top), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)


def _means(line: SweepLine) -> dict[Value, float]:
    values = dict.fromkeys(point.x for point in line.points)
    return {value: statistics.fmean(point.miou for point in line.points if point.x == value) for value in values}


def _mean_line(lines: Sequence[SweepLine]) -> SweepLine | None:
    """The mean over lines that have the same values, else None: it would compare other folds at each value."""
    means = [_means(line) for line in lines]
    if any(each.keys() != means[0].keys() for each in means):
        return None
    points = [SweepPoint(value, statistics.fmean(each[value] for each in means)) for value in means[0]]
    return SweepLine(f"{lines[0].group}, mean of {len(lines)}", points)


def _values(values: Sequence[Value]) -> list[Value]:
    unique = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in unique):
        return sorted(unique)
    return unique


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"
