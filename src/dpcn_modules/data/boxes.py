"""Box supervision: masks that are filled bounding boxes instead of outlines."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from dpcn_modules._checks import check_choice, check_mask_values, check_shapes, require

Annotation = Literal["mask", "box", "class_box"]
Box = tuple[slice, slice]


def annotate(mask: Tensor, annotation: Annotation) -> Tensor:
    """Convert a mask to the given kind of annotation.

    Args:
        mask: ``(H, W)``, uint8 in {0, 1, 255}.
        annotation: "mask" returns the mask itself; "box" fills the bounding box of every connected object;
            "class_box" fills one box around all of them. See `filled_boxes`.

    Returns:
        ``(H, W)``, uint8 in {0, 1, 255}.

    Raises:
        ValueError: the annotation is unknown, or as in `filled_boxes`.
        ModuleNotFoundError: "box" without scipy.

    Example:
        >>> import torch
        >>> annotate(torch.tensor([[1, 0, 1, 1]], dtype=torch.uint8), "class_box")
        tensor([[1, 1, 1, 1]], dtype=torch.uint8)
    """
    check_choice("annotation", annotation, get_args(Annotation))
    return mask if annotation == "mask" else filled_boxes(mask, one_box=annotation == "class_box")


def filled_boxes(mask: Tensor, *, one_box: bool = False) -> Tensor:
    """Fill the bounding boxes of a mask's objects.

    All pixels inside a box become 1, background and void alike. Pixels outside the boxes keep their value.

    Args:
        mask: ``(H, W)``, uint8 in {0, 1, 255}.
        one_box: fill one box around the whole foreground instead of one around each object.

    Returns:
        ``(H, W)``, of the mask's type, in {0, 1, 255}; a new tensor.

    Raises:
        ValueError: the mask has another shape or other values.
        ModuleNotFoundError: scipy, which finds the objects, is not installed; ``one_box`` does not need it.

    Note:
        A class mask does not separate instances, so an object is an 8-connected component of the foreground: two
        instances that touch share a box, and an instance that is partly hidden may get two. PANet's published code
        uses instance masks: it fills the box of the largest instance, and ignores the boxes of the others.

    Example:
        >>> import torch
        >>> filled_boxes(torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1]], dtype=torch.uint8))
        tensor([[1, 1, 0, 0],
                [1, 1, 0, 1]], dtype=torch.uint8)

    Reference:
        Wang et al., PANet, ICCV 2019 (box annotations); Liu et al., CVPR 2022, supplement, table A2.
    """
    check_shapes(mask=(mask, "H W"))
    check_mask_values("mask", mask)
    foreground = mask == 1
    boxes = mask.clone()
    if not one_box:
        for rows, columns in _object_boxes(foreground):
            boxes[rows, columns] = 1
    elif bool(foreground.any()):
        (top, left), (bottom, right) = (each.tolist() for each in foreground.nonzero().aminmax(dim=0))
        boxes[top : bottom + 1, left : right + 1] = 1
    return boxes


def _object_boxes(foreground: Tensor) -> Sequence[Box]:
    """The box of each 8-connected component."""
    require("scipy", extra="train")
    from scipy.ndimage import find_objects, label

    components, _ = label(foreground.cpu().numpy(), structure=np.ones((3, 3)))
    found: Sequence[Box] = find_objects(components)
    return found
