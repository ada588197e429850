"""Argument checks and the text of their errors: what was expected, what was given, and what to do about it."""

import difflib
import importlib.util
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpcn_modules.errors import InputError, InputTypeError, MissingPackageError

VOID = 255
"""The value of mask pixels that belong neither to the foreground nor to the background."""


def check_shapes(**arguments: tuple[Tensor, str]) -> dict[str, int]:
    """Bind the letters of several shapes, such as ``"B C H W"``, to one another, and return them.

    A letter means one length in all tensors; a number means itself. TypeError for an argument that is not a tensor, and
    ValueError for another number of axes or a letter with two lengths, which names both tensors, and where K, the
    number of shots, is 0.

    Example:
        >>> import torch
        >>> check_shapes(query_feat=(torch.zeros(2, 8, 5, 5), "B C H W"), prototype=(torch.zeros(2, 8), "B C"))
        {'B': 2, 'C': 8, 'H': 5, 'W': 5}
    """
    lengths: dict[str, int] = {}
    owners: dict[str, str] = {}
    for name, (tensor, letters) in arguments.items():
        if not isinstance(tensor, Tensor):
            raise InputTypeError(f"``{name}``: expected a tensor ({letters}), got {type(tensor).__name__}.")
        axes = letters.split(" ")
        if tensor.ndim != len(axes):
            raise InputError(f"``{name}``: expected {len(axes)} axes ({letters}), got shape {tuple(tensor.shape)}.")
        for axis, length in zip(axes, tensor.shape, strict=True):
            expected = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
            owner = owners.setdefault(axis, name)
            if length != expected:
                binding = f"{axis}={expected}"
                bound = f"; {binding} comes from ``{owner}`` {tuple(arguments[owner][0].shape)}"
                wanted, source = axis if axis.isdigit() else binding, "" if owner == name else bound
                raise InputError(f"``{name}``: expected {wanted} ({letters}), got shape {tuple(tensor.shape)}{source}.")
        if "K" in axes and lengths["K"] == 0:
            raise InputError(f"``{name}``: expected one shot or more ({letters}), got K=0.")
    return lengths


def check_values(*, masks: Mapping[str, Tensor] | None = None, features: Mapping[str, Tensor] | None = None) -> None:
    """Raise ValueError, by argument name, where a mask holds other values than 0, 1 and 255 or a feature is not finite.

    All of them together wait for the device once. What `has_values` denies is not checked. A mask that holds 255 and no
    1 anywhere in the batch gets a warning: it acts like an empty one, and is more often an object in white than void.
    """
    masks = {name: mask for name, mask in (masks or {}).items() if mask.dtype != torch.bool and has_values(mask)}
    features = {name: feat for name, feat in (features or {}).items() if has_values(feat)}
    found = {name: (mask == 0, mask == 1, _is_void(mask)) for name, mask in masks.items()}
    fine = [(zero | one | void).all() for zero, one, void in found.values()]
    fine += [one.any() | ~void.any() for _, one, void in found.values()]
    # A sum is finite unless an element is not, or unless it overflows: one pass, and no tensor of booleans.
    fine += [torch.isfinite(feat.detach().sum()) for feat in features.values()]
    if not fine or bool(torch.stack([each.to(fine[0].device) for each in fine]).all()):
        return
    for name, mask in masks.items():
        check_mask_values(name, mask)
        _, one, void = found[name]
        if bool(void.any()) and not bool(one.any()):
            warnings.warn(
                f"``{name}``: holds 255 (void) and no 1 (foreground), and so acts like an empty mask. If 255 is the "
                f"object, give (mask == 255).",
                stacklevel=2,
            )
    for name, feat in features.items():
        if not bool(torch.isfinite(feat).all()):
            raise InputError(
                f"``{name}``: expected finite values, got NaN or infinity; look at the learning rate, the "
                f"precision (fp16 overflows above 65504; bf16 does not) or the weights that made it."
            )


def check_mask_values(name: str, mask: Tensor) -> None:
    """Raise ValueError unless every value of a mask is 0 (background), 1 (foreground) or 255 (void)."""
    if mask.dtype == torch.bool or not has_values(mask):
        return
    valid = (mask == 0) | (mask == 1) | _is_void(mask)
    if not bool(valid.all()):
        raise InputError(
            f"``{name}``: expected only the values 0 (background), 1 (foreground) and 255 (void), got "
            f"{torch.unique(mask[~valid])[:5].tolist()}; compare with the class id first: (mask == class_id)."
        )


def _is_void(mask: Tensor) -> Tensor:
    # int8 has no 255, and the comparison would find its -1.
    return torch.zeros_like(mask, dtype=torch.bool) if mask.dtype == torch.int8 else mask == VOID


def has_values(tensor: Tensor) -> bool:
    """Whether Python can branch on the values of a tensor: not while compiling or exporting, nor of meta and fake
    tensors and those inside vmap."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    inner = tensor
    while torch._C._functorch.is_functorch_wrapped_tensor(inner):
        if torch._C._functorch.is_batchedtensor(inner):
            return False
        inner = torch._C._functorch.get_unwrapped(inner)
    return type(inner).__name__ != "FakeTensor"  # by name: its module takes long to import


def plain(value: Any) -> Any:
    """A setting as plain Python, which every checkpoint can hold: numbers and arrays of NumPy and PyTorch, paths,
    enumerations and sequences become numbers, strings and tuples; anything else stays as it is."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return plain(value.tolist())
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(map(plain, value))
    kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    return value if kind is None else kind(value)


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raise ValueError if a name is not a known one; the message lists them and names the nearest."""
    known = list(known)
    if value not in known:
        raise InputError(f"``{name}``: expected one of {', '.join(known)}, got {value!r}.{did_you_mean(value, known)}")


def did_you_mean(value: object, known: Iterable[str]) -> str:
    """A hint at the nearest known name, with a space in front; empty where none is near."""
    nearest = difflib.get_close_matches(str(value), list(known), n=1)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def check_integer(
    name: str, value: object, *, lowest: int = 1, highest: int | None = None, otherwise: str = ""
) -> None:
    """Raise TypeError unless a value is a whole number, and ValueError, with a remedy, if it is out of its range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"``{name}``: expected a whole number, got {value!r} ({type(value).__name__}).")
    if value < lowest:
        raise InputError(f"``{name}``: expected at least {lowest}, got {value}{otherwise}.")
    if highest is not None and value > highest:
        raise InputError(f"``{name}``: expected {lowest} to {highest}, got {value}{otherwise}.")


def check_number(name: str, value: object, *, lowest: float, highest: float = float("inf")) -> None:
    """Raise TypeError unless a value is a number, and ValueError unless it is from ``lowest`` to ``highest``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"``{name}``: expected a number, got {value!r} ({type(value).__name__}).")
    if not lowest <= float(value) <= highest:
        raise InputError(f"``{name}``: expected {lowest:g} to {highest:g}, got {value}.")


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless a value is True or False."""
    if not isinstance(value, bool):
        raise InputTypeError(f"``{name}``: expected True or False, got {value!r} ({type(value).__name__}).")


def check_odd(name: str, value: object) -> None:
    """Raise unless a window or kernel side is a positive odd number (TypeError for another type)."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"``{name}``: expected an odd whole number, got {value!r} ({type(value).__name__}).")
    if value < 1 or value % 2 == 0:
        raise InputError(
            f"``{name}``: expected a positive odd number, so that the window has a centre, got {value}; "
            f"try {value + 1 if value > 0 else 1}."
        )


def some(items: Collection[object], most: int = 5) -> str:
    """The first items, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in list(items)[:most]) + more


def with_shot_axis(support: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Give support images or features ``(B, C, H, W)``, and masks ``(B, Hi, Wi)``, the shot axis K that they lack.

    Returns ``(B, K, C, H, W)`` and ``(B, K, Hi, Wi)``; masks may also come as ``(B, K, 1, Hi, Wi)``.
    """
    if isinstance(support, Tensor) and support.ndim == 4:
        support = support.unsqueeze(1)
    if isinstance(masks, Tensor) and masks.ndim == 3:
        masks = masks.unsqueeze(1)
    if isinstance(masks, Tensor) and masks.ndim == 5 and masks.shape[2] == 1:
        masks = masks.squeeze(2)
    return support, masks


def require(*packages: str, extra: str) -> None:
    """Raise ModuleNotFoundError, with the pip command, unless the packages of an extra are installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"needs {', '.join(missing)}: pip install 'dpcn_modules[{extra}]'", name=missing[0])
