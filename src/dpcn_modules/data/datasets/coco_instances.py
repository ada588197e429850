"""Draws the instances of COCO's instances file as masks of class ids."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpcn_modules._checks import VOID, require, some
from dpcn_modules.data.datasets.coco_file import read_instances
from dpcn_modules.data.datasets.coco_outlines import encode
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.errors import InputError

Overlap = Literal["smaller_on_top", "annotation_order"]
Crowd = Literal["void", "object"]


class Drawing(NamedTuple):
    """The objects to paint on the background of a mask, in this order: mask value and compressed run lengths."""

    size: tuple[int, int]
    objects: list[tuple[int, bytes]]


def draw(drawing: Drawing) -> NDArray[np.uint8]:
    """The mask of class ids, ``(H, W)`` uint8 with 255 as void."""
    from pycocotools import mask as runs

    mask = np.zeros(drawing.size, dtype=np.uint8)
    with warnings.catch_warnings():
        # pycocotools 2.0.11 uses an interface that numpy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        for value, counts in drawing.objects:
            mask[np.asarray(runs.decode({"size": list(drawing.size), "counts": counts})) == 1] = value
    return mask


class Instances:
    """The annotated images of an instances file, and the drawing of each mask.

    Attributes:
        ids: name of each annotated image to its id, in the order of the ids. An image without annotations can never be
            part of an episode.
        crowds: for each class id, the number of its annotations, and of those marked as crowds.
    """

    def __init__(self, path: Path, overlap: Overlap, crowd: Crowd) -> None:
        require("pycocotools", extra="coco")
        self._path, self._overlap, self._crowd = path, overlap, crowd
        content = read_instances(path)
        categories = sorted(each["id"] for each in content["categories"])
        self._numbers = {each: number for number, each in enumerate(categories, start=1)}
        self._annotations: dict[int, list[dict[str, Any]]] = {}
        self.crowds: dict[int, list[int]] = {}
        for each in content["annotations"]:
            self._annotations.setdefault(each["image_id"], []).append(each)
            counts = self.crowds.setdefault(self._numbers[each["category_id"]], [0, 0])
            counts[0] += 1
            counts[1] += int(each.get("iscrowd", 0))
        images = {each["id"]: each for each in content["images"]}
        self._images = {str(images[each]["file_name"]): images[each] for each in sorted(self._annotations)}
        self.ids = {name: int(image["id"]) for name, image in self._images.items()}

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of an image according to the file."""
        return int(self._images[name]["height"]), int(self._images[name]["width"])

    def drawing(self, name: str) -> Drawing:
        """The drawing of an image: crowds as void, with the instances on top.

        Raises:
            ValueError: the outline of an annotation, which is named, is malformed or does not fit the image.
        """
        from pycocotools import mask as runs

        size = self.size(name)
        crowds, instances = [], []
        for annotation in self._annotations[self.ids[name]]:
            try:
                encoded = encode(annotation["segmentation"], size)
            except ValueError as error:
                raise InputError(f"{self._path}: annotation {annotation['id']}: {error}") from None
            if annotation.get("iscrowd", 0) and self._crowd == "void":
                crowds.append((VOID, encoded["counts"]))
            else:
                instances.append((self._numbers[annotation["category_id"]], encoded))
        if self._overlap == "smaller_on_top":
            instances.sort(key=lambda instance: -int(runs.area(instance[1])))
        return Drawing(size, [*crowds, *((value, encoded["counts"]) for value, encoded in instances)])


def check_crowds(path: Path, crowds: Mapping[int, Sequence[int]]) -> None:
    """Warn where crowds, as void, hide over a quarter of a class or a sixth of all (a hundredth in COCO's own files).

    Args:
        path: the instances file.
        crowds: as in `Instances`.

    Raises:
        ValueError: all annotations are crowds.
    """
    total, marked = (sum(counts) for counts in zip(*crowds.values(), strict=True))
    if 6 * marked <= total and all(4 * crowd <= count for count, crowd in crowds.values()):
        return
    by_share = sorted(crowds.items(), key=lambda each: -each[1][1] / each[1][0])
    classes = [f"{COCO_CLASSES[value - 1]} ({crowd} of {count})" for value, (count, crowd) in by_share if crowd]
    text = (
        f"{path}: {marked} of its {total} annotations are marked as crowds (iscrowd = 1), so that their pixels are void"
        f" and their classes disappear there: {some(classes)}. Labelling tools mark masks with holes or of several "
        f'parts so: if these are single objects, pass crowd="object".'
    )
    if marked == total:
        raise InputError(text)
    warnings.warn(text, stacklevel=2)
