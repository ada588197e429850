"""From the values of a mask to one object: foreground 1, background 0 and void 255."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dpcn_modules._checks import VOID, check_integer, some
from dpcn_modules.errors import InputError, InputTypeError


def binary_mask(mask: Tensor, name: str, *, void: int | None = None, object: int | None = None) -> Tensor:
    """Convert the mask of one object to foreground 1, background 0 and void 255.

    The object is 1 or 255 (a black and white image), and 0 is background. Where a mask has both 1 and 255, 255 can be
    void or white: ``void=255`` or ``object=255`` says which.

    Args:
        mask: ``(H, W)``, uint8.
        name: the name of the mask in error messages, usually its file.
        void: the value of pixels that count as neither, 0-255.
        object: the value of the object, 0-255; every other value but ``void`` is background then.

    Returns:
        ``(H, W)``, uint8 in {0, 1, 255}.

    Raises:
        TypeError: ``void`` or ``object`` is not a whole number.
        ValueError: ``void`` or ``object`` is out of its range, or they are equal; without ``object``, the mask has both
            1 and 255, or other values.

    Example:
        >>> binary_mask(torch.tensor([[0, 255]], dtype=torch.uint8), "cup_mask.png")
        tensor([[0, 1]], dtype=torch.uint8)
        >>> binary_mask(torch.tensor([[0, 128, 255]], dtype=torch.uint8), "trimap.png", void=128)
        tensor([[  0, 255,   1]], dtype=torch.uint8)
    """
    for argument, value in (("void", void), ("object", object)):
        if value is not None:
            check_integer(argument, value, lowest=0, highest=VOID)
    if void is not None and void == object:
        raise InputError(f"``object`` and ``void``: expected different values, got {void} twice.")
    is_void = torch.zeros_like(mask, dtype=torch.bool) if void is None else mask == void
    if object is None:
        object = _object_value(mask[~is_void], name)
    return (mask == object).to(torch.uint8).masked_fill_(is_void, VOID)


def target_mask(mask: Tensor, class_id: int | Sequence[int]) -> Tensor:
    """Convert a mask of class ids to target 1, background 0 and void 255.

    Args:
        mask: ``(H, W)``, integers or booleans.
        class_id: the target class, or several that are the target together.

    Returns:
        ``(H, W)``, uint8 in {0, 1, 255}.

    Raises:
        TypeError: the mask is of floating point.

    Example:
        >>> target_mask(torch.tensor([[0, 7, 8, 255]]), 7)
        tensor([[  0,   1,   0, 255]], dtype=torch.uint8)
    """
    if mask.is_floating_point():
        raise InputTypeError(
            f"``mask``: expected integers or booleans, got {mask.dtype}; convert it: mask.to(torch.uint8)."
        )
    mask = mask.to(torch.uint8) if mask.dtype == torch.bool else mask
    ids = torch.as_tensor(class_id, device=mask.device)
    return torch.isin(mask, ids).to(torch.uint8).masked_fill_(mask == VOID, VOID)


def _object_value(values: Tensor, name: str) -> int:
    """The value of the object, 1 or 255."""
    ones, whites = int((values == 1).sum()), int((values == VOID).sum())
    if ones and whites:
        raise InputError(
            f"{name}: {ones} pixels have the value 1 and {whites} the value 255, which can be void (beside an object "
            f"of 1) or the object (in white): say ``void=255`` or ``object=255`` (--void 255, --object 255)."
        )
    odd = torch.unique(values[(values != 0) & (values != 1) & (values != VOID)]).tolist()
    if odd:
        raise InputError(
            f"{name}: expected the mask of one object, with the values 0 (background) and 1 or 255 (the object), got "
            f"{some(odd)}. In a mask with several classes, choose one: (mask == class_id), ``class_id`` or --class-id; "
            f"a grey value that is the object or void: ``object`` or ``void``."
        )
    return VOID if whites else 1
