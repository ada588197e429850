"""``shapes``: pictures made on the fly of 20 classes that only their outline tells apart, in 4 folds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpcn_modules._checks import check_choice
from dpcn_modules.data._shape_outlines import SHAPE_NAMES, place_objects, shape_outlines
from dpcn_modules.data._shape_textures import Rng, draw_ground, random_colour, texture
from dpcn_modules.data.source import PictureSource, Split

__all__ = ["SHAPE_NAMES", "ShapePictures", "Shapes"]

FOLDS = 4
CLASSES_PER_FOLD = len(SHAPE_NAMES) // FOLDS
# Three by three cells always hold the target and this many distractors apart from one another.
MAX_DISTRACTORS = 8
MIN_CONTRAST = 100.0
# Shares of the range of each channel in which dark grounds and light objects lie.
DARKEST, LIGHTEST = np.float32(0.45), np.float32(0.55)


class SceneSettings(NamedTuple):
    """What pictures look like; the arguments of ``Shapes`` explain each."""

    picture_size: int
    distractors: tuple[int, int]
    object_size: tuple[float, float]
    rotation: float
    mirror: bool
    clutter: float
    texture: float
    lighter: bool


class Shapes:
    """Generated pictures of 20 shape classes in 4 folds; fold ``i`` holds out classes ``5i+1`` to ``5i+5``.

    A picture shows one object of its target class and some distractors of other classes on cluttered ground.
    Size, place, rotation, mild stretch and shear, colour and texture are drawn independently for every object, so
    that only its outline tells its class. Objects may overlap, but each shows at least 60 %
    of itself and covers at least 1 % of the picture.

    Training pictures hold training classes only, the distractors included: a held-out class is never shown,
    not even as ground. Test pictures have held-out targets and distractors from all 19 other classes.

    The defaults can be learnt from scratch in minutes. The harder setting, for studies, is ``picture_size=96,
    distractors=(2, 4), rotation=180, mirror=True, clutter=1.0, texture=0.6, lighter=False``.

    Args:
        fold: which five classes are held out, 0 to 3.
        picture_size: side of the square pictures in pixels, at least 32.
        pictures_per_class: how many pictures have a class as their target, in either split. They are made
            when asked for, so that a large number costs nothing.
        distractors: the least and the most objects of other classes in a picture, 0 to 8.
        object_size: the least and the greatest diameter of an object, as a share of the picture's side,
            0.2 to 1. With more than three objects in a picture they are drawn smaller, so that they fit.
        rotation: the most an object is turned either way, in degrees, 0 to 180.
        mirror: every other object is seen in a mirror.
        clutter: how busy the ground is, 0 (one plain colour) to 1.
        texture: contrast of the patterns on objects (stripes, checks, noise, gradient, none), 0 to 1.
        lighter: objects are light and the ground is dark, of any hue; without it, both have any colour, and an
            outline may be an edge to the light or to the dark.
        seed: from 0; pictures of two seeds have nothing in common.

    Raises:
        ValueError: an argument is outside the range given above.

    Example:
        >>> pictures = Shapes(fold=0).split("test")
        >>> pictures.class_names
        {1: 'ring', 2: 'letter_E', 3: 'gear', 4: 'key', 5: 'crescent'}
        >>> image, mask = pictures.load(0)
        >>> image.shape, mask.shape, 1 in mask
        (torch.Size([3, 64, 64]), torch.Size([64, 64]), True)
    """

    def __init__(
        self,
        fold: int,
        *,
        picture_size: int = 64,
        pictures_per_class: int = 2000,
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
        if pictures_per_class < 1:
            raise ValueError(
                f"``pictures_per_class``: expected at least 1, got {pictures_per_class}; "
                f"an episode needs one picture more than it has shots."
            )
        if seed < 0:
            raise ValueError(f"``seed``: expected 0 or more, got {seed}.")
        self.fold = fold
        self.pictures_per_class = pictures_per_class
        self.seed = seed
        self.settings = SceneSettings(
            picture_size, distractors, object_size, rotation, mirror, clutter, texture, lighter
        )
        _check_settings(self.settings)

    def split(self, split: Split) -> PictureSource:
        """The pictures whose targets are the fold's training or held-out classes.

        Raises:
            ValueError: ``split`` is neither ``"train"`` nor ``"test"``.
        """
        check_choice("split", split, ("train", "test"))
        return ShapePictures(self, split)


class ShapePictures:
    """The pictures of one split; each depends only on the settings, the split and its own id.

    Picture ids count up from 0, class by class: ``pictures_per_class`` ids for each target class.

    Args:
        shapes: the data set with its settings.
        split: which side of the fold.
    """

    def __init__(self, shapes: Shapes, split: Split) -> None:
        held_out = range(shapes.fold * CLASSES_PER_FOLD + 1, (shapes.fold + 1) * CLASSES_PER_FOLD + 1)
        every = range(1, len(SHAPE_NAMES) + 1)
        own = [class_id for class_id in every if (class_id in held_out) == (split == "test")]
        self.class_names: Mapping[int, str] = {class_id: SHAPE_NAMES[class_id - 1] for class_id in own}
        self.pictures: Sequence[int] = range(len(own) * shapes.pictures_per_class)
        look = ", ".join(f"{name} {value}" for name, value in shapes.settings._asdict().items())
        self.name = f"shapes fold {shapes.fold} {split} ({look}, seed {shapes.seed}, {len(self.pictures)} pictures)"
        self._targets = own
        self._distractor_pool = own if split == "train" else list(every)
        self._shapes = shapes
        self._split = split

    def pictures_of(self, class_id: int) -> Sequence[int]:
        """Ids of the pictures that have a class as their target, in a fixed order.

        Pictures where the class is a distractor are not among them.

        Raises:
            ValueError: the class is not one of this split.
        """
        if class_id not in self.class_names:
            raise ValueError(f"``class_id``: expected one of {self._targets} ({self.name}), got {class_id!r}.")
        count = self._shapes.pictures_per_class
        first = self._targets.index(class_id) * count
        return range(first, first + count)

    def classes_of(self, picture: int) -> Sequence[int]:
        """This split's classes in a picture, the target first; nothing is drawn to find out."""
        classes, _ = self._compose(picture)
        return [class_id for class_id in classes if class_id in self.class_names]

    def picture_name(self, picture: int) -> str:
        """Target, fold, split, seed and id: what is needed to make the picture again."""
        target = SHAPE_NAMES[self._target(picture) - 1]
        return f"{target}_fold{self._shapes.fold}_{self._split}_seed{self._shapes.seed}_{picture:06d}"

    def load(self, picture: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 ``(3, S, S)``, and its mask of class ids, uint8 ``(S, S)``, 0 the ground.

        The mask holds every visible object, distractors too, and has no void.

        Raises:
            ValueError: there is no such picture.
        """
        classes, rng = self._compose(picture)
        image, labels = _render(rng, [SHAPE_NAMES[class_id - 1] for class_id in classes], self._shapes.settings)
        mask = np.array([0, *classes], dtype=np.uint8)[labels]
        return torch.from_numpy(image), torch.from_numpy(mask)

    def _target(self, picture: int) -> int:
        if picture not in self.pictures:
            raise ValueError(f"``picture``: expected 0 to {len(self.pictures) - 1} ({self.name}), got {picture!r}.")
        return self._targets[picture // self._shapes.pictures_per_class]

    def _compose(self, picture: int) -> tuple[list[int], Rng]:
        """The classes shown, the target first, and the generator that goes on to draw them."""
        target = self._target(picture)
        rng = np.random.default_rng((self._shapes.seed, self._shapes.fold, self._split == "test", picture))
        least, most = self._shapes.settings.distractors
        others = [class_id for class_id in self._distractor_pool if class_id != target]
        drawn = rng.permutation(others)[: rng.integers(least, most + 1)]
        return [target, *drawn.tolist()], rng


def _check_settings(settings: SceneSettings) -> None:
    size, (least, most), (small, large), rotation, _, clutter, texture, _ = settings
    if size < 32:
        raise ValueError(f"``picture_size``: expected at least 32, so that holes stay open, got {size}.")
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
    """Draw a picture ``(3, S, S)`` and, per pixel, which object shows: its place in ``names`` from 1, or 0."""
    size = settings.picture_size
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
