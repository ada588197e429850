"""``shapes``: images made on the fly of 20 classes that only their outline tells apart, in 4 folds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpcn_modules._checks import check_choice
from dpcn_modules.data.datasets.folds import FOLDS
from dpcn_modules.data.datasets.shape_outlines import SHAPE_NAMES, place_objects, shape_outlines
from dpcn_modules.data.datasets.shape_textures import Rng, draw_ground, random_colour, texture
from dpcn_modules.data.source import ImageSource, Split

__all__ = ["SHAPE_NAMES", "ShapeImages", "Shapes"]

CLASSES_PER_FOLD = len(SHAPE_NAMES) // FOLDS
# Three by three cells always hold the target and this many distractors apart from one another.
MAX_DISTRACTORS = 8
MIN_CONTRAST = 100.0
# Shares of the range of each channel in which dark grounds and light objects lie.
DARKEST, LIGHTEST = np.float32(0.45), np.float32(0.55)


class SceneSettings(NamedTuple):
    """What images look like; the arguments of ``Shapes`` explain each."""

    image_size: int
    distractors: tuple[int, int]
    object_size: tuple[float, float]
    rotation: float
    mirror: bool
    clutter: float
    texture: float
    lighter: bool


class Shapes:
    """Generated images of 20 shape classes in 4 folds; fold ``i`` holds out classes ``5i+1`` to ``5i+5``.

    An image shows one object of its target class and some distractors of other classes on cluttered ground.
    Size, place, rotation, mild stretch and shear, colour and texture are drawn independently for every object, so
    that only its outline tells its class. Objects may overlap, but each shows at least 60 %
    of itself and covers at least 1 % of the image.

    Training images hold training classes only, the distractors included: a held-out class is never shown,
    not even as ground. Test images have held-out targets and distractors from all 19 other classes.

    The defaults can be learnt from scratch in minutes. The harder setting, for studies, is ``image_size=96,
    distractors=(2, 4), rotation=180, mirror=True, clutter=1.0, texture=0.6, lighter=False``.

    Args:
        fold: which five classes are held out, 0 to 3.
        image_size: side of the square images in pixels, at least 32.
        images_per_class: how many images have a class as their target, in either split. They are made
            when asked for, so that a large number costs nothing.
        distractors: the least and the most objects of other classes in an image, 0 to 8.
        object_size: the least and the greatest diameter of an object, as a share of the image's side,
            0.2 to 1. With more than three objects in an image they are drawn smaller, so that they fit.
        rotation: the most an object is turned either way, in degrees, 0 to 180.
        mirror: every other object is seen in a mirror.
        clutter: how busy the ground is, 0 (one plain colour) to 1.
        texture: contrast of the patterns on objects (stripes, checks, noise, gradient, none), 0 to 1.
        lighter: objects are light and the ground is dark, of any hue; without it, both have any colour, and an
            outline may be an edge to the light or to the dark.
        seed: from 0; images of two seeds have nothing in common.

    Raises:
        ValueError: an argument is outside the range given above.

    Example:
        >>> images = Shapes(fold=0).split("test")
        >>> images.class_names
        {1: 'ring', 2: 'letter_E', 3: 'gear', 4: 'key', 5: 'crescent'}
        >>> image, mask = images.load(0)
        >>> image.shape, mask.shape, 1 in mask
        (torch.Size([3, 64, 64]), torch.Size([64, 64]), True)
    """

    def __init__(
        self,
        fold: int,
        *,
        image_size: int = 64,
        images_per_class: int = 2000,
        distractors: tuple[int, int] = (1, 1),
        object_size: tuple[float, float] = (0.45, 0.7),
        rotation: float = 30.0,
        mirror: bool = False,
        clutter: float = 0.2,
        texture: float = 0.2,
        lighter: bool = True,
        seed: int = 0,
    ) -> None:
        if fold not in range(FOLDS):
            raise ValueError(f"``fold``: expected 0, 1, 2 or 3, got {fold!r}.")
        if images_per_class < 1:
            raise ValueError(
                f"``images_per_class``: expected at least 1, got {images_per_class}; "
                f"an episode needs one image more than it has shots."
            )
        if seed < 0:
            raise ValueError(f"``seed``: expected 0 or more, got {seed}.")
        self.fold = fold
        self.images_per_class = images_per_class
        self.seed = seed
        self.settings = SceneSettings(image_size, distractors, object_size, rotation, mirror, clutter, texture, lighter)
        _check_settings(self.settings)

    def split(self, split: Split) -> ImageSource:
        """The images whose targets are the fold's training or held-out classes.

        Raises:
            ValueError: ``split`` is neither ``"train"`` nor ``"test"``.
        """
        check_choice("split", split, ("train", "test"))
        return ShapeImages(self, split)


class ShapeImages:
    """The images of one split; each depends only on the settings, the split and its own id.

    Image ids count up from 0, class by class: ``images_per_class`` ids for each target class.

    Args:
        shapes: the data set with its settings.
        split: which side of the fold.
    """

    def __init__(self, shapes: Shapes, split: Split) -> None:
        held_out = range(shapes.fold * CLASSES_PER_FOLD + 1, (shapes.fold + 1) * CLASSES_PER_FOLD + 1)
        every = range(1, len(SHAPE_NAMES) + 1)
        own = [class_id for class_id in every if (class_id in held_out) == (split == "test")]
        self.class_names: Mapping[int, str] = {class_id: SHAPE_NAMES[class_id - 1] for class_id in own}
        self.images: Sequence[int] = range(len(own) * shapes.images_per_class)
        look = ", ".join(f"{name} {value}" for name, value in shapes.settings._asdict().items())
        self.name = f"shapes fold {shapes.fold} {split} ({look}, seed {shapes.seed}, {len(self.images)} images)"
        self._targets = own
        self._distractor_pool = own if split == "train" else list(every)
        self._shapes = shapes
        self._split = split

    def images_of(self, class_id: int) -> Sequence[int]:
        """Ids of the images that have a class as their target, in a fixed order.

        Images where the class is a distractor are not among them.

        Raises:
            ValueError: the class is not one of this split.
        """
        if class_id not in self.class_names:
            raise ValueError(f"``class_id``: expected one of {self._targets} ({self.name}), got {class_id!r}.")
        count = self._shapes.images_per_class
        first = self._targets.index(class_id) * count
        return range(first, first + count)

    def classes_of(self, image_id: int) -> Sequence[int]:
        """This split's classes in an image, the target first; nothing is drawn to find out."""
        classes, _ = self._compose(image_id)
        return [class_id for class_id in classes if class_id in self.class_names]

    def image_name(self, image_id: int) -> str:
        """Target, fold, split, seed and id: what is needed to make the image again."""
        target = SHAPE_NAMES[self._target(image_id) - 1]
        return f"{target}_fold{self._shapes.fold}_{self._split}_seed{self._shapes.seed}_{image_id:06d}"

    def load(self, image_id: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 ``(3, S, S)``, and its mask of class ids, uint8 ``(S, S)``, 0 the ground.

        The mask holds every visible object, distractors too, and has no void.

        Raises:
            ValueError: there is no such image.
        """
        classes, rng = self._compose(image_id)
        image, labels = _render(rng, [SHAPE_NAMES[class_id - 1] for class_id in classes], self._shapes.settings)
        mask = np.array([0, *classes], dtype=np.uint8)[labels]
        return torch.from_numpy(image), torch.from_numpy(mask)

    def _target(self, image_id: int) -> int:
        if image_id not in self.images:
            raise ValueError(f"``image``: expected 0 to {len(self.images) - 1} ({self.name}), got {image_id!r}.")
        return self._targets[image_id // self._shapes.images_per_class]

    def _compose(self, image_id: int) -> tuple[list[int], Rng]:
        """The classes shown, the target first, and the generator that goes on to draw them."""
        target = self._target(image_id)
        rng = np.random.default_rng((self._shapes.seed, self._shapes.fold, self._split == "test", image_id))
        least, most = self._shapes.settings.distractors
        others = [class_id for class_id in self._distractor_pool if class_id != target]
        drawn = rng.permutation(others)[: rng.integers(least, most + 1)]
        return [target, *drawn.tolist()], rng


def _check_settings(settings: SceneSettings) -> None:
    size, (least, most), (small, large), rotation, _, clutter, texture, _ = settings
    if size < 32:
        raise ValueError(f"``image_size``: expected at least 32, so that holes stay open, got {size}.")
    if not 0 <= least <= most <= MAX_DISTRACTORS:
        raise ValueError(
            f"``distractors``: expected the least and the most, 0 to {MAX_DISTRACTORS}, got ({least}, {most})."
        )
    if not 0.2 <= small <= large <= 1:
        raise ValueError(f"``object_size``: expected the least and the greatest, 0.2 to 1, got ({small}, {large}).")
    if not 0 <= rotation <= 180:
        raise ValueError(f"``rotation``: expected 0 to 180 degrees, got {rotation}.")
    for name, strength in (("clutter", clutter), ("texture", texture)):
        if not 0 <= strength <= 1:
            raise ValueError(f"``{name}``: expected 0 (none) to 1 (strong), got {strength}.")


def _render(rng: Rng, names: Sequence[str], settings: SceneSettings) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Draw an image ``(3, S, S)`` and, per pixel, which object shows: its place in ``names`` from 1, or 0."""
    size = settings.image_size
    outlines = [shape_outlines()[name] for name in names]
    turning = (settings.rotation, settings.mirror)
    masks, order, labels = place_objects(rng, outlines, settings.object_size, size, turning)
    ground = random_colour(rng)
    ground = ground * DARKEST if settings.lighter else ground
    image = draw_ground(rng, ground, size, settings.clutter)
    for index in order:
        colour = random_colour(rng)
        if settings.lighter:
            colour = np.float32(255) - colour * LIGHTEST
        elif math.dist(colour, ground) < MIN_CONTRAST:
            # Half way round in every channel: at least 128 * sqrt(3) - MIN_CONTRAST away from the ground.
            colour = (colour + 128) % 256
        image += masks[index] * (texture(rng, size, colour, settings.texture) - image)
    grain = rng.integers(0, 256, size=image.shape, dtype=np.uint8) - np.float32(128)
    image += grain * np.float32(0.15 * settings.clutter)
    return np.clip(image, 0, 255).astype(np.uint8), labels
