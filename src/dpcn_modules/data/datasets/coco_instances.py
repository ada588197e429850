"""Reads and checks COCO's instances file, and draws its instances as masks of class ids."""

import contextlib
import io
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dpcn_modules._checks import VOID, require, some
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.errors import InputError

Overlap = Literal["smaller_on_top", "annotation_order"]

_LISTS = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "segmentation"},
    "categories": {"id", "name"},
}
_OTHER_KINDS = {"caption": "captions", "keypoints": "keypoints", "segments_info": "panoptic masks"}


class Drawing(NamedTuple):
    """The objects to paint on the background of a mask, in this order: mask value and compressed run lengths."""

    size: tuple[int, int]
    objects: list[tuple[int, bytes]]


def draw(drawing: Drawing) -> NDArray[np.uint8]:
    """The mask of class ids, ``(H, W)`` uint8 with 255 as void."""
    mask = np.zeros(drawing.size, dtype=np.uint8)
    for value, counts in drawing.objects:
        mask[_decoded({"size": list(drawing.size), "counts": counts}) == 1] = value
    return mask


def _decoded(encoded: dict[str, Any]) -> NDArray[np.uint8]:
    from pycocotools import mask as runs

    with warnings.catch_warnings():
        # pycocotools 2.0.11 uses an interface that numpy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(runs.decode(encoded))


class Instances:
    """The annotated images of an instances file, and the drawing of each mask."""

    def __init__(self, path: Path, overlap: Overlap) -> None:
        require("pycocotools", extra="coco")
        from pycocotools.coco import COCO

        self._path = path
        self._overlap = overlap
        self._coco = COCO()
        self._coco.dataset = read_instances(path)
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco.createIndex()
        self._numbers = {each: number for number, each in enumerate(sorted(self._coco.cats), start=1)}
        # File name to id, in the order of the ids. An image without annotations can never be part of an episode.
        self.ids = {str(self._coco.imgs[each]["file_name"]): int(each) for each in sorted(self._coco.imgToAnns)}

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of an image according to the file."""
        image = self._coco.imgs[self.ids[name]]
        return image["height"], image["width"]

    def drawing(self, name: str) -> Drawing:
        """The drawing of an image: crowds as void, with the instances on top."""
        from pycocotools import mask as runs

        size = self.size(name)
        crowds, instances = [], []
        for annotation in self._coco.imgToAnns[self.ids[name]]:
            encoded = self._encoded(annotation, size)
            if annotation.get("iscrowd", 0):
                crowds.append((VOID, encoded["counts"]))
            else:
                instances.append((self._numbers[annotation["category_id"]], encoded))
        if self._overlap == "smaller_on_top":
            instances.sort(key=lambda instance: -int(runs.area(instance[1])))
        return Drawing(size, [*crowds, *((value, encoded["counts"]) for value, encoded in instances)])

    def _encoded(self, annotation: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """The run lengths of an annotation, ``{"size": [H, W], "counts": bytes}``."""
        from pycocotools import mask as runs

        shape = annotation["segmentation"]
        if isinstance(shape, list) and all(isinstance(each, list) and len(each) % 2 == 0 for each in shape):
            # pycocotools reads four numbers as a box, but a polygon of two points covers nothing.
            polygons = [each for each in shape if len(each) >= 6]
            if not polygons:
                return dict(runs.encode(np.zeros(size, dtype=np.uint8, order="F")))
            return dict(self._coco.annToRLE({**annotation, "segmentation": polygons}))
        if isinstance(shape, dict) and shape.get("size") == list(size) and "counts" in shape:
            encoded = dict(self._coco.annToRLE(annotation))
            if isinstance(encoded["counts"], str):
                encoded["counts"] = encoded["counts"].encode()
            # pycocotools leaves the pixels after the last run uninitialised, so an incomplete mask must be refused.
            with contextlib.suppress(ValueError):
                if int(_decoded(encoded).sum()) == int(runs.area(encoded)):
                    return encoded
        raise InputError(
            f"{self._path}: annotation {annotation['id']}: expected polygons [[x, y, x, y, ...], ...] or run lengths "
            f"of all {size[0]} x {size[1]} (height x width) pixels as its segmentation, got {str(shape)[:60]}; "
            f"repair it or fetch the file again."
        )


def read_instances(path: Path) -> dict[str, Any]:
    """The content of COCO's instances json; ValueError if it is damaged, of another kind or of other categories, or
    inconsistent. Only the shapes of its objects are not checked."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: is not a json file ({error}); it may be truncated: fetch it again.") from error
    _check_kind(path, content)
    categories = [each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])]
    if tuple(categories) != COCO_CLASSES:
        odd = [name for name in categories if name not in COCO_CLASSES]
        got = f"{len(categories)} categories" + (f", not COCO's: {some(odd)}" if odd else "")
        raise InputError(
            f"{path}: expected COCO's 80 categories (person, bicycle, ..., toothbrush) in the order of their ids, got "
            f"{got}; COCO-20i is defined on them: name COCO's own instances file."
        )
    images, annotations = content["images"], content["annotations"]
    for key in ("id", "file_name"):
        repeated = [str(value) for value, times in Counter(each[key] for each in images).items() if times > 1]
        if repeated:
            raise InputError(
                f"{path}: {len(repeated)} images are listed twice, so that a query could be its own support: "
                f"{key} {some(repeated)}; remove one of the two."
            )
    ids = {each["id"] for each in images}
    if not all(isinstance(each, int) for each in ids):
        raise InputError(f"{path}: expected whole numbers as the ids of images, as COCO's own files have them.")
    if not annotations:
        raise InputError(f"{path}: there are no annotations in it; name another file.")
    known = {each["id"] for each in content["categories"]}
    for key, kind, allowed in (("image_id", "an image", ids), ("category_id", "a category", known)):
        odd = [f"annotation {each['id']} ({key} {each[key]})" for each in annotations if each[key] not in allowed]
        if odd:
            raise InputError(
                f"{path}: {len(odd)} of its {len(annotations)} annotations name {kind} that the file does not "
                f"list: {some(odd)}; remove them, or fetch the file again."
            )
    return dict(content)


def _check_kind(path: Path, content: Any) -> None:
    """Raise ValueError unless a json has the lists and keys of an instances file."""
    lists = "images, annotations and categories"
    expected = f"{path}: expected COCO's instances file (instances_train2014.json), with {lists}"
    advice = "name another file with ``train_annotations`` or ``test_annotations``."
    if not isinstance(content, dict) or not all(isinstance(content.get(key, []), list) for key in _LISTS):
        raise InputError(f"{expected}; got no such lists: {advice}")
    entries = [*content.get("annotations", [])[:1], *content.get("categories", [])[:1]]
    for key, kind in _OTHER_KINDS.items():
        if any(isinstance(entry, dict) and key in entry for entry in entries):
            raise InputError(f"{expected}; got a file of {kind}: {advice}")
    for name, keys in _LISTS.items():
        if name not in content:
            raise InputError(f"{expected}; it has no {name}: {advice}")
        for number, entry in enumerate(content[name]):
            if not isinstance(entry, dict) or not keys <= entry.keys():
                lacking = sorted(keys - entry.keys()) if isinstance(entry, dict) else "all"
                raise InputError(f"{expected}; entry {number} of its {name} lacks {lacking}: {advice}")
