"""The cells of an episode's row: images with masks, and maps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from dpcn_modules._checks import VOID, check_shapes
from dpcn_modules.errors import InputError
from dpcn_modules.viz.overlay import overlay

QUERY, TARGET = "query", "ground truth"
# Blue and orange can be told apart by colour-blind readers.
ANNOTATED = (0, 160, 255)
PREDICTED = (255, 85, 0)
_LEAST_SIDE = 256  # smaller images are enlarged, so that outlines are thin


class EpisodeRow(NamedTuple):
    """One episode to show.

    Attributes:
        support_image: ``(3, H, W)``, uint8; for several shots, a sequence of K.
        support_mask: ``(H, W)`` in {0, 1, 255}; for several shots, a sequence of K.
        query_image: ``(3, Hi, Wi)``, uint8.
        prediction: ``(Hi, Wi)`` in {0, 1}; for several networks, a mapping by name.
        target: the ground truth, ``(Hi, Wi)`` in {0, 1, 255}.
        activation_maps: ``(A, h, w)`` in [0, 1], one map per window; None for a network without them.
        initial_mask: M0, ``(h, w)`` in [0, 1], or None.
        refined_mask: Mr, ``(h, w)`` in [0, 1], or None.
        label: text at the left of the row.
    """

    support_image: Tensor | Sequence[Tensor]
    support_mask: Tensor | Sequence[Tensor]
    query_image: Tensor
    prediction: Tensor | Mapping[str, Tensor]
    target: Tensor
    activation_maps: Tensor | None = None
    initial_mask: Tensor | None = None
    refined_mask: Tensor | None = None
    label: str = ""


class Cell(NamedTuple):
    """An image ``(3, H, W)`` uint8, or a map ``(h, w)``, and the caption below it."""

    content: Tensor
    caption: str = ""


def cells_of(
    episode: EpisodeRow, windows: Sequence[tuple[int, int]], support_columns: Sequence[str]
) -> dict[str, Cell]:
    """Column title to cell of an episode, with the networks' predictions under their names.

    Its errors are those of :func:`dpcn_modules.viz.episode_strip`.
    """
    images, masks = _listed(episode.support_image), _listed(episode.support_mask)
    if len(images) != len(masks) or not images:
        raise InputError(
            f"``support_mask``: expected one for each support image, got {len(masks)} masks and {len(images)} images."
        )
    predictions = episode.prediction if isinstance(episode.prediction, Mapping) else {"prediction": episode.prediction}
    columns = [*support_columns, QUERY, *map_columns(windows), TARGET]
    if not predictions or any(name in columns for name in predictions):
        raise InputError(
            f"``prediction``: expected one or several by names other than those of the columns {', '.join(columns)}, "
            f"got {', '.join(predictions) or 'none'}."
        )
    shots = zip(support_columns, images, masks, strict=False)
    cells = {title: Cell(_painted(image, mask, ANNOTATED)) for title, image, mask in shots}
    cells[QUERY] = Cell(_enlarged(episode.query_image))
    cells |= _maps(episode, windows)
    for name, mask in predictions.items():
        cells[name] = Cell(_painted(episode.query_image, mask, PREDICTED), f"IoU {iou(mask, episode.target):.2f}")
    cells[TARGET] = Cell(_painted(episode.query_image, episode.target, ANNOTATED))
    return cells


def support_columns(rows: Sequence[EpisodeRow]) -> list[str]:
    """The columns of the supports, as many as the largest episode has."""
    shot = max(len(_listed(row.support_image)) for row in rows)
    return ["support"] if shot == 1 else [f"support {k}" for k in range(1, shot + 1)]


def map_columns(windows: Sequence[tuple[int, int]]) -> list[str]:
    """The columns of the activation maps and the pseudo masks."""
    return [*(f"{height}x{width}" for height, width in windows), "$M_0$", "$M_r$"]


def iou(prediction: Tensor, target: Tensor) -> float:
    """Intersection over union of the foreground without void pixels; 1 if both are empty."""
    check_shapes(prediction=(prediction, "H W"), target=(target, "H W"))
    predicted, annotated = (prediction == 1) & (target != VOID), target == 1
    union = int((predicted | annotated).sum())
    return int((predicted & annotated).sum()) / union if union else 1.0


def _maps(episode: EpisodeRow, windows: Sequence[tuple[int, int]]) -> dict[str, Cell]:
    *window_columns, initial_column, refined_column = map_columns(windows)
    maps: dict[str, Tensor] = {}
    if episode.activation_maps is not None:
        check_shapes(activation_maps=(episode.activation_maps, f"{len(windows)} h w"))
        maps.update(zip(window_columns, episode.activation_maps, strict=True))
    for name, column in (("initial_mask", initial_column), ("refined_mask", refined_column)):
        mask = getattr(episode, name)
        if mask is not None:
            check_shapes(**{name: (mask, "h w")})
            maps[column] = mask
    # The caption gives the range, because a map that uses little of the colour scale looks empty.
    return {column: Cell(each, f"{each.min():.2f} to {each.max():.2f}") for column, each in maps.items()}


def _listed(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _painted(image: Tensor, mask: Tensor, colour: tuple[int, int, int]) -> Tensor:
    check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
    image, mask = _enlarged(image), _enlarged(mask)
    return overlay(image, mask, colour=colour, width=max(1, round(max(mask.shape) / 100)))


def _enlarged(image: Tensor) -> Tensor:
    """A small image with repeated pixels, because an outline at its own size would hide it."""
    factor = max(1, _LEAST_SIDE // max(image.shape[-2:]))
    return image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
