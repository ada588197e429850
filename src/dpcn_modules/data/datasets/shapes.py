"""Shapes: generated images of 20 classes that differ only by outline, in 4 folds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpcn_modules._checks import check_integer, check_number
from dpcn_modules.data.datasets.folds import check_fold, held_out_ids, split_classes
from dpcn_modules.data.datasets.shape_outlines import SHAPE_NAMES, place_objects, shape_outlines
from dpcn_modules.data.datasets.shape_textures import Rng, draw_background, random_colour, texture
from dpcn_modules.data.source import ImageSource, Split
from dpcn_modules.errors import InputError

__all__ = ["SHAPE_NAMES", "ShapeImages", "Shapes"]

MAX_DISTRACTORS = 8  # a grid of three by three cells always has room for them and the target
MIN_CONTRAST = 100.0
APPEARANCE = ("image_size", "distractors", "object_size", "rotation", "mirror", "clutter", "texture", "lighter")
# The shares of each channel's range that dark backgrounds and light objects use.
DARKEST, LIGHTEST = np.float32(0.45), np.float32(0.55)


@dataclass(eq=False)
class Shapes:
    """Generated images of 20 shape classes in 4 folds; fold ``i`` holds out classes ``5 i + 1`` to ``5 i + 5``.

    An image shows one object of its target class and some distractors of other classes on a cluttered background.
    Size, place, rotation, mild stretch and shear, colour and texture of every object are random and independent of its
    class, so that only the outline identifies the class. Objects may overlap, but at least 60 % of each is visible,
    and it covers at least 1 % of the image.

    Training images contain training classes only, distractors included, so that held-out classes are never shown. Test
    images have held-out targets and distractors from all 19 other classes.

    The default setting can be learnt from scratch in minutes. A harder one, for studies, is ``image_size=96,
    distractors=(2, 4), rotation=180, mirror=True, clutter=1.0, texture=0.6, lighter=False``.

    Args:
        fold: 0 to 3; which five classes are held out.
        image_size: side of the square images in pixels, at least 32.
        images_per_class: number of images of each target class, in either split. Images are generated when they are
            loaded, so a large number costs nothing.
        distractors: least and greatest number of objects of other classes in an image, 0 to 8.
        object_size: least and greatest diameter of an object, as a share of the image's side, 0.2 to 1. With more
            than three objects in an image, all of them are smaller, so that they fit.
        rotation: largest rotation of an object in either direction, in degrees, 0 to 180.
        mirror: mirror half of the objects.
        clutter: strength of the patterns in the background, 0 (one plain colour) to 1.
        texture: contrast of the patterns on objects (stripes, checks, noise, gradient, none), 0 to 1.
        lighter: objects are light and the background is dark, of any hue. Otherwise both have any colour, and objects
            may be lighter or darker than the background.
        seed: 0 or more; different seeds give entirely different images.

    Raises:
        TypeError: a number is of another type.
        ValueError: an argument is outside the range given above.

    Example:
        >>> images = Shapes(fold=0).split("test")
        >>> images.class_names
        {1: 'ring', 2: 'letter_E', 3: 'gear', 4: 'key', 5: 'crescent'}
        >>> image, mask = images.load(0)
        >>> image.shape, mask.shape, 1 in mask
        (torch.Size([3, 64, 64]), torch.Size([64, 64]), True)
    """

    fold: int
    _: KW_ONLY
    image_size: int = 64
    images_per_class: int = 2000
    distractors: tuple[int, int] = (1, 1)
    object_size: tuple[float, float] = (0.45, 0.7)
    rotation: float = 30.0
    mirror: bool = False
    clutter: float = 0.2
    texture: float = 0.2
    lighter: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_fold(self.fold)
        check_integer("images_per_class", self.images_per_class, otherwise="; an episode needs shots + 1 of them")
        check_integer("seed", self.seed, lowest=0)
        check_integer("image_size", self.image_size, lowest=32, otherwise="; holes close in smaller images")
        (least, most), (small, large) = self.distractors, self.object_size
        if not 0 <= least <= most <= MAX_DISTRACTORS:
            accepted = f"the least and the most, 0 to {MAX_DISTRACTORS}"
            raise InputError(f"``distractors``: expected {accepted}, got ({least}, {most}).")
        if not 0.2 <= small <= large <= 1:
            raise InputError(f"``object_size``: expected the least and the greatest, 0.2 to 1, got ({small}, {large}).")
        check_number("rotation", self.rotation, lowest=0, highest=180)
        check_number("clutter", self.clutter, lowest=0, highest=1)
        check_number("texture", self.texture, lowest=0, highest=1)

    def split(self, split: Split) -> ImageSource:
        """The images whose targets are the training or the held-out classes; ValueError for an unknown split."""
        return ShapeImages(self, split)


class ShapeImages:
    """The `ImageSource` of one split; each image depends only on the settings, the split and its own id.

    Image ids count from 0, class by class, with ``images_per_class`` ids for each target class. Unknown splits, classes
    and ids raise ValueError.
    """

    def __init__(self, shapes: Shapes, split: Split) -> None:
        held_out = held_out_ids(len(SHAPE_NAMES), shapes.fold)
        self.class_names: Mapping[int, str] = split_classes(SHAPE_NAMES, held_out, split)
        self._targets = list(self.class_names)
        self._distractors = self._targets if split == "train" else list(range(1, len(SHAPE_NAMES) + 1))
        self.images: Sequence[int] = range(len(self._targets) * shapes.images_per_class)
        look = ", ".join(f"{name} {getattr(shapes, name)}" for name in APPEARANCE)
        self.name = f"shapes fold {shapes.fold} {split} ({look}, seed {shapes.seed}, {len(self.images)} images)"
        self._shapes = shapes
        self._split = split

    def images_of(self, class_id: int) -> Sequence[int]:
        """Ids of the images that have a class as their target (not as a distractor), in a fixed order."""
        if class_id not in self.class_names:
            raise InputError(f"``class_id``: expected one of {self._targets} ({self.name}), got {class_id!r}.")
        first = self._targets.index(class_id) * self._shapes.images_per_class
        return range(first, first + self._shapes.images_per_class)

    def classes_of(self, image_id: int) -> Sequence[int]:
        """As in `ImageSource`, the target first; the image is not generated."""
        classes, _ = self._compose(image_id)
        return [class_id for class_id in classes if class_id in self.class_names]

    def image_name(self, image_id: int) -> str:
        target = SHAPE_NAMES[self._target(image_id) - 1]
        return f"{target}_fold{self._shapes.fold}_{self._split}_seed{self._shapes.seed}_{image_id:06d}"

    def load(self, image_id: int) -> tuple[Tensor, Tensor]:
        """The image, ``(3, S, S)`` uint8, and its mask of class ids, ``(S, S)`` uint8 with 0 as background.

        The mask contains every object, distractors included, and has no void.
        """
        classes, rng = self._compose(image_id)
        image, labels = _render(rng, [SHAPE_NAMES[class_id - 1] for class_id in classes], self._shapes)
        mask = np.array([0, *classes], dtype=np.uint8)[labels]
        return torch.from_numpy(image), torch.from_numpy(mask)

    def _target(self, image_id: int) -> int:
        if image_id not in self.images:
            raise InputError(f"``image_id``: expected 0 to {len(self.images) - 1} ({self.name}), got {image_id!r}.")
        return self._targets[image_id // self._shapes.images_per_class]

    def _compose(self, image_id: int) -> tuple[list[int], Rng]:
        """The classes in an image, the target first, and the generator with which to draw them."""
        target = self._target(image_id)
        rng = np.random.default_rng((self._shapes.seed, self._shapes.fold, self._split == "test", image_id))
        least, most = self._shapes.distractors
        others = [class_id for class_id in self._distractors if class_id != target]
        distractors = rng.permutation(others)[: rng.integers(least, most + 1)]
        return [target, *distractors.tolist()], rng


def _render(rng: Rng, names: Sequence[str], settings: Shapes) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """An image ``(3, S, S)``, and a map ``(S, S)`` of the visible objects: index in ``names`` from 1, or 0."""
    size = settings.image_size
    outlines = [shape_outlines()[name] for name in names]
    turning = (settings.rotation, settings.mirror)
    masks, order, labels = place_objects(rng, outlines, settings.object_size, size, turning)
    background = random_colour(rng) * (DARKEST if settings.lighter else np.float32(1))
    image = draw_background(rng, background, size, settings.clutter)
    for index in order:
        colour = random_colour(rng)
        if settings.lighter:
            colour = np.float32(255) - colour * LIGHTEST
        elif math.dist(colour, background) < MIN_CONTRAST:
            # Half the range further in every channel: at least 128 * sqrt(3) - MIN_CONTRAST from the background.
            colour = (colour + 128) % 256
        image += masks[index] * (texture(rng, size, colour, settings.texture) - image)
    grain = rng.integers(0, 256, size=image.shape, dtype=np.uint8) - np.float32(128)
    image += grain * np.float32(0.15 * settings.clutter)
    return np.clip(image, 0, 255).astype(np.uint8), labels
