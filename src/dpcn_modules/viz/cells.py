"""What stands in each column of an episode's row."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from dpcn_modules._checks import check_shapes
from dpcn_modules.viz.overlay import overlay

# Blue and orange stay apart for colour-blind readers too.
GIVEN = (0, 160, 255)  # masks that people drew
PREDICTED = (255, 85, 0)
_SHOWN = 256  # pixels that an image needs so that its outline can be thin


class EpisodeRow(NamedTuple):
    """One episode, ready to be shown.

    Attributes:
        support_image: ``(3, H, W)``, uint8; of several shots, K of them.
        support_mask: ``(H, W)`` in {0, 1, 255}; of several shots, K of them.
        query_image: ``(3, Hi, Wi)``, uint8.
        prediction: ``(Hi, Wi)`` in {0, 1}; of several networks, by name.
        truth: ``(Hi, Wi)`` in {0, 1, 255}.
        activation_maps: one per window, ``(A, h, w)`` in [0, 1]; None for a network without them.
        initial_mask: M0, ``(h, w)`` in [0, 1], or None.
        refined_mask: Mr, ``(h, w)`` in [0, 1], or None.
        label: stands at the left of the row.
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
    """An image ``(3, H, W)`` uint8, or a map ``(h, w)``, and what is written below it."""

    content: Tensor
    caption: str = ""


class Row(NamedTuple):
    """The cells of an episode by the titles of their columns, in the order of the columns."""

    supports: list[Cell]
    maps: dict[str, Cell]
    predictions: dict[str, Cell]
    query: Cell
    target: Cell

    def by_title(self, support_titles: Sequence[str]) -> dict[str, Cell]:
        """All cells; titles of further supports may be left over."""
        supports = dict(zip(support_titles, self.supports, strict=False))
        return {**supports, "query": self.query, **self.maps, **self.predictions, "target": self.target}


def row_of(episode: EpisodeRow, windows: Sequence[tuple[int, int]]) -> Row:
    """Paint the masks of an episode on its images, and name its maps.

    Raises:
        ValueError: shapes disagree, there is another number of maps than of windows or of support masks than of
            support images, no prediction, or one that is called as another column is.
    """
    images, masks = _listed(episode.support_image), _listed(episode.support_mask)
    if len(images) != len(masks) or not images:
        raise ValueError(
            f"``support_mask``: expected one for each support image, got {len(masks)} masks and {len(images)} images."
        )
    predictions = episode.prediction if isinstance(episode.prediction, Mapping) else {"prediction": episode.prediction}
    maps = _maps(episode, windows)
    taken = ["query", "target", *maps, *support_titles(len(images))]
    if not predictions or any(name in taken for name in predictions):
        raise ValueError(
            f"``prediction``: expected one or several by names other than those of the columns {', '.join(taken)}, got "
            f"{', '.join(predictions) or 'none'}."
        )
    return Row(
        supports=[Cell(_painted(image, mask, GIVEN)) for image, mask in zip(images, masks, strict=True)],
        query=Cell(_enlarged(episode.query_image)),
        maps=maps,
        predictions={
            name: Cell(_painted(episode.query_image, mask, PREDICTED), f"IoU {iou(mask, episode.target):.2f}")
            for name, mask in predictions.items()
        },
        target=Cell(_painted(episode.query_image, episode.target, GIVEN)),
    )


def support_titles(shot: int) -> list[str]:
    """The columns of K supports."""
    return ["support"] if shot == 1 else [f"support {k}" for k in range(1, shot + 1)]


def map_titles(windows: Sequence[tuple[int, int]]) -> list[str]:
    """The columns of the activation maps and the pseudo masks."""
    return [*(f"{height}x{width}" for height, width in windows), "$M_0$", "$M_r$"]


def iou(prediction: Tensor, target: Tensor) -> float:
    """Intersection over union of the foreground, void pixels left out; 1 where there is none in either."""
    check_shapes(prediction=(prediction, "H W"), target=(target, "H W"))
    counted = target != 255
    ours, theirs = (prediction == 1) & counted, target == 1
    union = int((ours | theirs).sum())
    return int((ours & theirs).sum()) / union if union else 1.0


def _maps(episode: EpisodeRow, windows: Sequence[tuple[int, int]]) -> dict[str, Cell]:
    """The maps that an episode has, by title."""
    *window_titles, initial_title, refined_title = map_titles(windows)
    maps: dict[str, Tensor] = {}
    if episode.activation_maps is not None:
        check_shapes(activation_maps=(episode.activation_maps, f"{len(windows)} h w"))
        maps.update(zip(window_titles, episode.activation_maps, strict=True))
    if episode.initial_mask is not None:
        check_shapes(initial_mask=(episode.initial_mask, "h w"))
        maps[initial_title] = episode.initial_mask
    if episode.refined_mask is not None:
        check_shapes(refined_mask=(episode.refined_mask, "h w"))
        maps[refined_title] = episode.refined_mask
    # The range is written out, since a map that uses little of the scale looks like none.
    return {title: Cell(each, f"{each.min():.2f} to {each.max():.2f}") for title, each in maps.items()}


def _listed(value: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _painted(image: Tensor, mask: Tensor, colour: tuple[int, int, int]) -> Tensor:
    check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
    image, mask = _enlarged(image), _enlarged(mask)
    return overlay(image, mask, colour=colour, width=max(1, round(max(mask.shape) / 100)))


def _enlarged(image: Tensor) -> Tensor:
    """A small image with every pixel repeated: on the pixels themselves an outline would hide it."""
    factor = max(1, _SHOWN // max(image.shape[-2:]))
    return image.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
