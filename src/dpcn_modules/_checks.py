"""The one place that checks arguments and words the errors: the rule, the value, the way out."""

import difflib
import importlib.util
from collections.abc import Iterable

import torch
from torch import Tensor


def check_shapes(**arguments: tuple[Tensor, str]) -> dict[str, int]:
    """Bind the letters of several shapes to one another, and return them.

    Args:
        arguments: by argument name, the tensor and its shape in letters (``"B C H W"``). A letter means
            one length in all of them; a number means itself.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: a tensor has another number of axes, or a letter stands for two lengths. The message
            names both tensors.

    Example:
        >>> import torch
        >>> check_shapes(query_feat=(torch.zeros(2, 8, 5, 5), "B C H W"), prototype=(torch.zeros(2, 8), "B C"))
        {'B': 2, 'C': 8, 'H': 5, 'W': 5}
    """
    lengths: dict[str, int] = {}
    owners: dict[str, str] = {}
    for name, (tensor, letters) in arguments.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"``{name}``: expected a tensor ({letters}), got {type(tensor).__name__}.")
        axes = letters.split(" ")
        if tensor.ndim != len(axes):
            raise ValueError(f"``{name}``: expected {len(axes)} axes ({letters}), got shape {tuple(tensor.shape)}.")
        for axis, length in zip(axes, tensor.shape, strict=True):
            expected = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
            owner = owners.setdefault(axis, name)
            if length != expected:
                source = "" if owner == name else f"; {axis}={expected} comes from ``{owner}`` "
                source += "" if owner == name else str(tuple(arguments[owner][0].shape))
                wanted = f"{expected}" if axis.isdigit() else f"{axis}={expected}"
                raise ValueError(f"``{name}``: expected {wanted} ({letters}), got shape {tuple(tensor.shape)}{source}.")
    return lengths


def check_mask_values(name: str, mask: Tensor) -> None:
    """Raise ValueError unless every value of a mask is 0 (background), 1 (foreground) or 255 (void).

    Values are read in eager mode only: a compiled or exported graph cannot branch on them.
    """
    if torch.compiler.is_compiling() or mask.dtype == torch.bool or mask.numel() == 0:
        return
    valid = (mask == 0) | (mask == 1) | (mask == 255)
    if not bool(valid.all()):
        odd = torch.unique(mask[~valid])[:5].tolist()
        raise ValueError(
            f"``{name}``: expected only the values 0 (background), 1 (foreground) and 255 (void), got {odd}; "
            f"compare with the class id first: (mask == class_id)."
        )


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ValueError if a feature holds NaN or infinity (eager mode only, as above)."""
    if torch.compiler.is_compiling():
        return
    # One pass and one number: a sum is finite unless an element is not, or it overflows, which it cannot in float64.
    values = tensor.detach()
    if not (torch.isfinite(values.sum()) or torch.isfinite(values.sum(dtype=torch.float64))):
        raise ValueError(
            f"``{name}``: expected finite values, got NaN or infinity; look at the learning rate, the "
            f"precision (fp16 overflows above 65504; bf16 does not) or the weights that made it."
        )


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Raise ValueError if a name is not a known one; the message lists them and names the nearest."""
    known = list(known)
    if value not in known:
        nearest = difflib.get_close_matches(str(value), known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"``{name}``: expected one of {', '.join(known)}, got {value!r}.{hint}")


def check_odd(name: str, value: int) -> None:
    """Raise ValueError unless a window or kernel side is a positive odd number."""
    if value < 1 or value % 2 == 0:
        raise ValueError(
            f"``{name}``: expected a positive odd number, so that the window has a centre, got {value}; "
            f"try {value + 1 if value > 0 else 1}."
        )


def with_shot_axis(feat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Give support features and masks their shot axis K where the caller left it out.

    Args:
        feat: ``(B, K, C, H, W)`` or ``(B, C, H, W)``.
        mask: ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)``.

    Returns:
        ``(B, K, C, H, W)`` and ``(B, K, Hi, Wi)``.
    """
    if isinstance(feat, Tensor) and feat.ndim == 4:
        feat = feat.unsqueeze(1)
    if isinstance(mask, Tensor) and mask.ndim == 3:
        mask = mask.unsqueeze(1)
    return feat, mask


def require(*packages: str, extra: str) -> None:
    """Raise ModuleNotFoundError, with the pip command, unless the packages of an extra are installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(f"needs {', '.join(missing)}: pip install 'dpcn_modules[{extra}]'", name=missing[0])
