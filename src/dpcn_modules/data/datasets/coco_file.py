"""Reads COCO's instances file and checks everything in it but the outlines."""

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dpcn_modules._checks import some
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.errors import InputError

_LISTS = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id"},
    "categories": {"id", "name"},
}
_OTHER_KINDS = {"caption": "captions", "keypoints": "keypoints", "segments_info": "panoptic masks"}
# The word for an entry of each list, and its whole numbers.
_NUMBERS = {
    "images": ("image", ("id", "width", "height")),
    "annotations": ("annotation", ("image_id", "category_id")),
    "categories": ("category", ("id",)),
}


def whole(value: object) -> int | None:
    """A whole number of a JSON file, which some tools write as 1.0; None for everything else, such as text."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def read_instances(path: Path) -> dict[str, Any]:
    """The content of COCO's instances json, in UTF-8 or UTF-16; ValueError if it is damaged, of another kind or of
    other categories, or inconsistent. Only the outlines of its objects are not checked."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: is not a json file ({error}); it may be truncated: fetch it again.") from error
    _check_kind(path, content)
    _check_values(path, content)
    categories = [each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])]
    if tuple(categories) != COCO_CLASSES:
        odd = [name for name in categories if name not in COCO_CLASSES]
        got = f"{len(categories)} categories" + (f", not COCO's: {some(odd)}" if odd else "")
        raise InputError(
            f"{path}: expected COCO's 80 categories (person, bicycle, ..., toothbrush) in the order of their ids, got "
            f"{got}; COCO-20i is defined on them: name COCO's own instances file."
        )
    _check_unique(path, content)
    annotations = content["annotations"]
    if not annotations:
        raise InputError(f"{path}: there are no annotations in it; name another file.")
    ids, known = ({each["id"] for each in content[name]} for name in ("images", "categories"))
    for key, kind, allowed in (("image_id", "an image", ids), ("category_id", "a category", known)):
        odd = [f"annotation {each['id']} ({key} {each[key]})" for each in annotations if each[key] not in allowed]
        _refuse(
            path, odd, annotations, f"name {kind} that the file does not list", "remove them, or fetch the file again"
        )
    return dict(content)


def _refuse(path: Path, odd: Collection[str], among: Collection[object], fault: str, remedy: str) -> None:
    """Raise one ValueError that counts the entries with a fault and names the first few, if there are any."""
    if odd:
        raise InputError(f"{path}: {len(odd)} of its {len(among)} annotations {fault}: {some(odd)}; {remedy}.")


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


def _check_values(path: Path, content: dict[str, Any]) -> None:
    """Raise ValueError for numbers as text, crowd marks other than 0 and 1, and objects without an outline."""
    for name, (word, keys) in _NUMBERS.items():
        for entry in content[name]:
            odd = [f"{key} {entry[key]!r}" for key in keys if whole(entry[key]) is None]
            if odd:
                raise InputError(
                    f"{path}: {word} {entry['id']!r}: expected whole numbers as its {' and '.join(keys)}, got "
                    f"{', '.join(odd)}; write them as numbers, without quotes."
                )
    for entry in content["images"]:
        if not isinstance(entry["file_name"], str):
            raise InputError(f"{path}: image {entry['id']}: expected text as file_name, got {entry['file_name']!r}.")
    annotations = content["annotations"]
    odd = [
        f"annotation {each['id']} ({each['iscrowd']!r})" for each in annotations if each.get("iscrowd", 0) not in (0, 1)
    ]
    _refuse(path, odd, annotations, "have another iscrowd than the numbers 0 and 1", "write numbers, without quotes")
    odd = [f"annotation {each['id']}" for each in annotations if not each.get("segmentation")]
    _refuse(
        path,
        odd,
        annotations,
        "have no segmentation, and a box alone is no mask",
        "export polygons or masks, or remove them",
    )


def _check_unique(path: Path, content: dict[str, Any]) -> None:
    for key in ("id", "file_name"):
        repeated = [
            str(value) for value, times in Counter(each[key] for each in content["images"]).items() if times > 1
        ]
        if repeated:
            raise InputError(
                f"{path}: {len(repeated)} images are listed twice, so that a query could be its own support: "
                f"{key} {some(repeated)}; remove one of the two."
            )
    categories = content["categories"]
    if len({each["id"] for each in categories}) < len(categories):
        raise InputError(f"{path}: several of its categories have the same id; number them, or fetch the file again.")
