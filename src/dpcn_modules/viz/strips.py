"""Episodes as rows of images: supports, query, maps, predictions and ground truth."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcn_modules.errors import InputError
from dpcn_modules.viz.cells import QUERY, TARGET, Cell, EpisodeRow, cells_of, map_columns, support_columns
from dpcn_modules.viz.figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    """Draw one episode per row, write the figure and return it.

    The columns are the supports, the query, the activation maps (titled by their windows), the pseudo masks M0 and Mr,
    one prediction for each network with its IoU (without void pixels), and the ground truth. All maps share a colour
    scale from 0 to 1; their captions give the lowest and highest value. Columns that no row has are left out.

    Args:
        rows: the episodes.
        path: the file; its suffix selects the format (.png, .pdf, ...).
        windows: heights and widths of SAM's windows, in the order of the activation maps.
        note: small print below the rows, such as the protocol of the predictions.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: there are no rows, a row has no prediction, shapes disagree, the number of maps differs from that of
            the windows or the number of support masks from that of the support images, a network has the name of
            another column, or the suffix is unknown.
    """
    if not rows:
        raise InputError("``rows``: expected at least one episode, got none.")
    supports, maps = support_columns(rows), map_columns(windows)
    cells = [cells_of(row, windows, supports) for row in rows]
    used = [title for row in cells for title in row]
    ordered = dict.fromkeys([*supports, QUERY, *maps, *(title for title in used if title != TARGET), TARGET])
    titles = [title for title in ordered if title in used]
    shown_maps = [titles.index(title) for title in maps if title in used]
    shapes = [[cell.content.shape[-2:] for cell in row.values()] for row in cells]
    heights = [min(_TALLEST, max(height / width for height, width in row)) for row in shapes]
    inches = _CELL * sum(heights) + 0.18 * len(rows) + (0.75 if shown_maps else 0.3)
    figure = new_figure(0.4 + _CELL * len(titles), inches)
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(textwrap.fill(title, _LABEL), fontsize=10)
    for row, row_cells, row_axes in zip(rows, cells, axes, strict=True):
        _draw_row(dict(zip(titles, row_axes, strict=True)), row_cells, row.label)
    if shown_maps:
        _draw_scale(figure, axes[:, shown_maps].ravel().tolist())
    save_figure(figure, path, note)
    return figure


def _draw_row(axes: Mapping[str, Any], cells: Mapping[str, Cell], label: str) -> None:
    for title, axis in axes.items():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_anchor("N")  # keeps titles level where an image and its maps differ in shape
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
