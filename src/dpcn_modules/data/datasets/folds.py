"""Which classes a fold holds out, and the rules that the data sets with folds share."""

from collections.abc import Mapping, Sequence
from typing import Literal

from dpcn_modules._checks import check_choice
from dpcn_modules.data.source import Split

FoldRule = Literal["interleaved", "contiguous"]

PASCAL_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# In the order of COCO's category ids, which leave out ten of the numbers 1 to 90.
COCO_CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard"),
    *("cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase"),
    *("scissors", "teddy bear", "hair drier", "toothbrush"),
)
FOLDS = 4


def check_fold(fold: int) -> None:
    """Raise ValueError unless a fold is 0, 1, 2 or 3."""
    if fold not in range(FOLDS):
        raise ValueError(f"``fold``: expected 0, 1, 2 or 3, got {fold!r}; papers that count from 1 mean one more.")


def pascal_classes(fold: int, split: Split) -> dict[int, str]:
    """PASCAL-5i's classes of one split.

    The classes have the ids 1 to 20 in VOC's order; fold ``i`` tests ``5 i + 1`` to ``5 i + 5`` and trains on
    the other fifteen.

    Args:
        fold: 0 to 3.
        split: "train", or "test" for the held-out classes.

    Returns:
        Class id to name, in the order of the ids.

    Raises:
        ValueError: an unknown fold or split.

    Example:
        >>> pascal_classes(0, "test")
        {1: 'aeroplane', 2: 'bicycle', 3: 'bird', 4: 'boat', 5: 'bottle'}
    """
    check_fold(fold)
    check_choice("split", split, ("train", "test"))
    per_fold = len(PASCAL_CLASSES) // FOLDS
    held_out = range(per_fold * fold + 1, per_fold * (fold + 1) + 1)
    names = dict(enumerate(PASCAL_CLASSES, start=1))
    return {class_id: name for class_id, name in names.items() if (class_id in held_out) == (split == "test")}


def coco_classes(fold: int, split: Split, folds: FoldRule = "interleaved") -> dict[int, str]:
    """COCO-20i's classes of one split.

    The classes have the ids 1 to 80 in the order of COCO's category ids (not those ids themselves).

    Args:
        fold: 0 to 3.
        split: "train", or "test" for the held-out classes.
        folds: "interleaved" tests ``i + 1``, ``i + 5``, ..., ``i + 77`` in fold ``i`` (PFENet, HSNet, BAM);
            "contiguous" tests ``20 i + 1`` to ``20 i + 20`` (PANet).

    Returns:
        Class id to name, in the order of the ids.

    Raises:
        ValueError: an unknown fold, split or rule.

    Example:
        >>> list(coco_classes(0, "test"))[:4]
        [1, 5, 9, 13]
        >>> coco_classes(3, "test", "contiguous")[80]
        'toothbrush'
    """
    check_fold(fold)
    check_choice("split", split, ("train", "test"))
    check_choice("folds", folds, ("interleaved", "contiguous"))
    per_fold = len(COCO_CLASSES) // FOLDS
    fold_of = {
        class_id: (class_id - 1) % FOLDS if folds == "interleaved" else (class_id - 1) // per_fold
        for class_id in range(1, len(COCO_CLASSES) + 1)
    }
    names = dict(enumerate(COCO_CLASSES, start=1))
    return {class_id: name for class_id, name in names.items() if (fold_of[class_id] == fold) == (split == "test")}


def check_rules(known: Sequence[str], *, fold: int, novel: str, classes: Sequence[str] | None, min_area: int) -> None:
    """Raise ValueError unless the rules of a data set with folds are usable; ``known`` are all its class names."""
    check_fold(fold)
    check_choice("novel", novel, ("keep", "drop"))
    for name in classes or ():
        check_choice("classes", name, known)
    if min_area < 1:
        raise ValueError(f"``min_area``: expected at least 1 pixel, got {min_area}; 1 counts every class.")


def chosen_classes(
    class_names: Mapping[int, str], classes: Sequence[str] | None, *, fold: int, split: Split
) -> Mapping[int, str]:
    """Of the classes of one split, those that were asked for (None: all); ValueError if none is left."""
    if classes is None:
        return class_names
    chosen = {value: name for value, name in class_names.items() if name in classes}
    if not chosen:
        raise ValueError(
            f"``classes``: none of {', '.join(classes) or '()'} is a {split} class of fold "
            f"{fold}; these are: {', '.join(class_names.values())}."
        )
    return chosen
