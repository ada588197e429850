"""Which classes a fold holds out."""

from dpcn_modules._checks import check_choice
from dpcn_modules.data.source import Split

PASCAL_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
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
