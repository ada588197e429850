"""Episodes as rows of pictures: what a network saw, made of it, and should have found."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from dpcn_modules._checks import check_shapes
from dpcn_modules.viz._figure import new_figure, save_figure
from dpcn_modules.viz.overlay import overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GIVEN = (0, 190, 110)  # masks that people drew
_PREDICTED = (255, 85, 0)
_CELL = 1.5  # inches
_LABEL = 14  # letters beside a cell
_SHOWN = 256  # pixels that a picture needs so that its outline can be thin


class EpisodePicture(NamedTuple):
    """One episode, ready to be shown.

    Attributes:
        support_image: ``(3, H, W)``, uint8.
        support_mask: ``(H, W)`` in {0, 1, 255}.
        query_image: ``(3, Hi, Wi)``, uint8.
        prediction: ``(Hi, Wi)`` in {0, 1}.
        truth: ``(Hi, Wi)`` in {0, 1, 255}.
        activation_maps: one per window, ``(A, h, w)`` in [0, 1]; None for a network without them.
        initial_mask: M0, ``(h, w)`` in [0, 1], or None.
        refined_mask: Mr, ``(h, w)`` in [0, 1], or None.
        label: stands at the left of the row.
    """

    support_image: Tensor
    support_mask: Tensor
    query_image: Tensor
    prediction: Tensor
    truth: Tensor
    activation_maps: Tensor | None = None
    initial_mask: Tensor | None = None
    refined_mask: Tensor | None = None
    label: str = ""


def episode_strip(
    rows: Sequence[EpisodePicture],
    path: str | Path,
    *,
    windows: Sequence[tuple[int, int]] = ((5, 1), (3, 3), (1, 5)),
) -> "Figure":
    """Draw episodes, one per row, and write the figure.

    The columns: support and query; the activation maps, named by their windows, and the pseudo masks M0 and Mr, all on
    one colour scale from 0 to 1; prediction (with its IoU, void pixels left out) and truth. Columns that no row has are
    left out.

    Args:
        rows: the episodes.
        path: the file; its suffix decides the format (.png, .pdf, ...).
        windows: heights and widths of SAM's windows, in the order of the activation maps.

    Returns:
        The figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        ValueError: no rows, shapes disagree, another number of maps than of windows, or an unknown suffix.
    """
    if not rows:
        raise ValueError("``rows``: expected at least one episode, got none.")
    all_maps = [_maps(row, windows) for row in rows]
    map_titles = [title for title in _map_titles(windows) if any(title in maps for maps in all_maps)]
    titles = ["support", "query", *map_titles, "prediction", "truth"]
    figure = new_figure(0.4 + _CELL * len(titles), (0.75 if map_titles else 0.3) + 1.12 * _CELL * len(rows))
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title, fontsize=10)
    for row, maps, cells in zip(rows, all_maps, axes, strict=True):
        _draw_row(dict(zip(titles, cells, strict=True)), row, maps)
    scale = next((axis.images[0] for axis in axes[:, 2:-2].flat if axis.images), None)
    if scale is not None:
        below = axes[:, 2:-2].ravel().tolist()
        bar = figure.colorbar(scale, ax=below, location="bottom", shrink=0.5, aspect=40, pad=0.02, panchor=False)
        bar.set_label("activation and pseudo masks", fontsize=9)
        bar.ax.tick_params(labelsize=8)
    save_figure(figure, path)
    return figure


def _map_titles(windows: Sequence[tuple[int, int]]) -> list[str]:
    return [*(f"{height}x{width}" for height, width in windows), "$M_0$", "$M_r$"]


def _maps(row: EpisodePicture, windows: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """The maps that a row has, by title."""
    *window_titles, initial_title, refined_title = _map_titles(windows)
    maps: dict[str, Tensor] = {}
    if row.activation_maps is not None:
        check_shapes(activation_maps=(row.activation_maps, f"{len(windows)} h w"))
        maps.update(zip(window_titles, row.activation_maps, strict=True))
    if row.initial_mask is not None:
        check_shapes(initial_mask=(row.initial_mask, "h w"))
        maps[initial_title] = row.initial_mask
    if row.refined_mask is not None:
        check_shapes(refined_mask=(row.refined_mask, "h w"))
        maps[refined_title] = row.refined_mask
    return maps


def _draw_row(cells: dict[str, Any], row: EpisodePicture, maps: dict[str, Tensor]) -> None:
    pictures = {
        "support": _painted(row.support_image, row.support_mask, _GIVEN),
        "query": _enlarged(row.query_image),
        "prediction": _painted(row.query_image, row.prediction, _PREDICTED),
        "truth": _painted(row.query_image, row.truth, _GIVEN),
    }
    for title, axis in cells.items():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_anchor("N")  # titles stay level where a picture and its maps differ in shape
        if title in pictures:
            axis.imshow(pictures[title].permute(1, 2, 0).cpu().numpy())
        elif title in maps:
            axis.imshow(maps[title].detach().float().cpu().numpy(), vmin=0, vmax=1, cmap="viridis")
        else:
            axis.set_frame_on(False)
            axis.text(0.5, 0.5, "none", ha="center", va="center", color="0.5", fontsize=9, transform=axis.transAxes)
    cells["support"].set_ylabel(textwrap.fill(row.label, _LABEL), fontsize=10)
    cells["prediction"].set_xlabel(f"IoU {_iou(row.prediction, row.truth):.2f}", fontsize=9)


def _painted(image: Tensor, mask: Tensor, colour: tuple[int, int, int]) -> Tensor:
    check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
    image, mask = _enlarged(image), _enlarged(mask)
    return overlay(image, mask, colour=colour, width=max(1, round(max(mask.shape) / 100)))


def _enlarged(picture: Tensor) -> Tensor:
    """A small picture with every pixel repeated: on the pixels themselves an outline would hide it."""
    factor = max(1, _SHOWN // max(picture.shape[-2:]))
    return picture.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def _iou(prediction: Tensor, truth: Tensor) -> float:
    counted = truth != 255
    ours, theirs = (prediction == 1) & counted, truth == 1
    # An empty prediction of an empty truth is right.
    union = int((ours | theirs).sum())
    return int((ours & theirs).sum()) / union if union else 1.0
