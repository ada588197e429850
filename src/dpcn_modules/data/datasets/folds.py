"""The classes that each fold holds out, and the checks that data sets with folds share."""

from collections.abc import Collection, Sequence
from typing import Literal, get_args

from dpcn_modules._checks import check_choice, check_integer
from dpcn_modules.data.source import Split
from dpcn_modules.errors import InputError

FoldRule = Literal["interleaved", "contiguous"]

PASCAL_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# In the order of COCO's category ids, which skip ten of the numbers 1 to 90.
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
        advice = "subtract 1 from the folds of papers that count from 1"
        raise InputError(f"``fold``: expected 0, 1, 2 or 3, got {fold!r}; {advice}.")


def held_out_ids(count: int, fold: int, folds: FoldRule = "contiguous") -> range:
    """The class ids, of 1 to ``count``, that a fold holds out; ValueError for an unknown fold or rule."""
    check_fold(fold)
    check_choice("folds", folds, get_args(FoldRule))
    if folds == "interleaved":
        return range(fold + 1, count + 1, FOLDS)
    return range(count // FOLDS * fold + 1, count // FOLDS * (fold + 1) + 1)


def split_classes(names: Sequence[str], held_out: Collection[int], split: Split) -> dict[int, str]:
    """Class id, from 1, to name of one split; ValueError for an unknown split."""
    check_choice("split", split, get_args(Split))
    known = dict(enumerate(names, start=1))
    return {class_id: name for class_id, name in known.items() if (class_id in held_out) == (split == "test")}


def pascal_classes(fold: int, split: Split) -> dict[int, str]:
    """Class id to name, in the order of the ids, of one split of PASCAL-5i ("test": the held-out classes).

    The classes have the ids 1 to 20 in VOC's order. Fold ``i``, 0 to 3, holds out ``5 i + 1`` to ``5 i + 5``. Another
    fold or split raises ValueError.

    Example:
        >>> pascal_classes(0, "test")
        {1: 'aeroplane', 2: 'bicycle', 3: 'bird', 4: 'boat', 5: 'bottle'}
    """
    return split_classes(PASCAL_CLASSES, held_out_ids(len(PASCAL_CLASSES), fold), split)


def coco_classes(fold: int, split: Split, folds: FoldRule = "interleaved") -> dict[int, str]:
    """The classes of one split of COCO-20i, as `pascal_classes` returns them.

    The classes have the ids 1 to 80 in the order of COCO's category ids (not those ids themselves).

    Args:
        fold: 0 to 3.
        split: "train", or "test" for the held-out classes.
        folds: "interleaved" holds out ``i + 1``, ``i + 5``, ..., ``i + 77`` in fold ``i`` (PFENet, HSNet, BAM);
            "contiguous" holds out ``20 i + 1`` to ``20 i + 20`` (PANet). Another rule raises ValueError.

    Example:
        >>> list(coco_classes(0, "test"))[:4]
        [1, 5, 9, 13]
        >>> coco_classes(3, "test", "contiguous")[80]
        'toothbrush'
    """
    return split_classes(COCO_CLASSES, held_out_ids(len(COCO_CLASSES), fold, folds), split)


def check_rules(known: Sequence[str], *, fold: int, novel: str, classes: Sequence[str] | None, min_area: int) -> None:
    """Raise ValueError unless the arguments of a data set are valid; ``known`` are the names of all its classes."""
    check_fold(fold)
    check_choice("novel", novel, ("keep", "drop"))
    for name in classes or ():
        check_choice("classes", name, known)
    check_integer("min_area", min_area, otherwise="; 1 counts every class")


def chosen_classes(
    class_names: dict[int, str], classes: Sequence[str] | None, *, fold: int, split: Split
) -> dict[int, str]:
    """The requested classes of one split (None: all of them); ValueError if none is left."""
    if classes is None:
        return class_names
    chosen = {value: name for value, name in class_names.items() if name in classes}
    if not chosen:
        names = ", ".join(classes) or "()"
        known = ", ".join(class_names.values())
        raise InputError(f"``classes``: none of {names} is a {split} class of fold {fold}; these are: {known}.")
    return chosen
