"""Episodes as rows of images: what a network saw, made of it, and should have found."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcn_modules.viz.cells import Cell, EpisodeRow, map_titles, row_of, support_titles
from dpcn_modules.viz.figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EpisodeImage", "episode_strip"]

_CELL = 1.5  # inches
_LABEL = 14  # letters beside or above a cell
_TALLEST = 1.4  # height over width of a cell; a taller image becomes narrower


def episode_strip(
    rows: Sequence[EpisodeRow],
    path: str | Path,
    *,
    windows: Sequence[tuple[int, int]] = ((5, 1), (3, 3), (1, 5)),
    note: str = "",
) -> "Figure":
    """Draw episodes, one per row, and write the figure.

    The columns: supports and query; the activation maps, named by their windows, and the pseudo masks M0 and Mr, all on
    one colour scale from 0 to 1, with their lowest and highest value; the predictions (with their IoU, void pixels left
    out), one for each network, and the ground truth. Columns that no row has are left out.

    Args:
        rows: the episodes.
        path: the file; its suffix decides the format (.png, .pdf, ...).
        windows: heights and widths of SAM's windows, in the order of the activation maps.
        note: small print below the rows, such as the protocol of the predictions.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        ValueError: no rows, shapes disagree, another number of maps than of windows or of support masks than of
            images, a network called as another column is, or an unknown suffix.
    """
    if not rows:
        raise ValueError("``rows``: expected at least one episode, got none.")
    parts = [row_of(row, windows) for row in rows]
    supports = support_titles(max(len(part.supports) for part in parts))
    maps = [title for title in map_titles(windows) if any(title in part.maps for part in parts)]
    networks = list(dict.fromkeys(name for part in parts for name in part.predictions))
    titles = [*supports, "query", *maps, *networks, "target"]
    cells = [part.by_title(supports) for part in parts]
    heights = [max(_height(cell) for cell in row.values()) for row in cells]
    inches = _CELL * sum(heights) + 0.18 * len(rows) + (0.75 if maps else 0.3)
    figure = new_figure(0.4 + _CELL * len(titles), inches)
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(textwrap.fill(title, _LABEL), fontsize=10)
    for row, found, drawn in zip(rows, cells, axes, strict=True):
        _draw_row(dict(zip(titles, drawn, strict=True)), found, row.label)
    if maps:
        first = len(supports) + 1
        _draw_scale(figure, axes[:, first : first + len(maps)].ravel().tolist())
    save_figure(figure, path, note)
    return figure


def _height(cell: Cell) -> float:
    """Height over width, as far as a cell goes."""
    height, width = cell.content.shape[-2:]
    return min(_TALLEST, height / width)


def _draw_row(axes: Mapping[str, Any], cells: Mapping[str, Cell], label: str) -> None:
    for title, axis in axes.items():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_anchor("N")  # titles stay level where an image and its maps differ in shape
        if title not in cells:
            axis.set_frame_on(False)
            axis.text(0.5, 0.5, "none", ha="center", va="center", color="0.5", fontsize=9, transform=axis.transAxes)
            continue
        content, caption = cells[title]
        axis.set_xlabel(caption, fontsize=9)
        if content.ndim == 2:
            axis.imshow(content.detach().float().cpu().numpy(), vmin=0, vmax=1, cmap="viridis")
        else:
            axis.imshow(content.permute(1, 2, 0).cpu().numpy())
    lines = [textwrap.fill(line, _LABEL) for line in label.splitlines()]
    next(iter(axes.values())).set_ylabel("\n".join(lines), fontsize=10)


def _draw_scale(figure: "Figure", axes: list[Any]) -> None:
    shown = next(axis.images[0] for axis in axes if axis.images)
    bar = figure.colorbar(shown, ax=axes, location="bottom", shrink=0.5, aspect=40, pad=0.02, panchor=False)
    bar.set_label("activation and pseudo masks", fontsize=9)
    bar.ax.tick_params(labelsize=8)
