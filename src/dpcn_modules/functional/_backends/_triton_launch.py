"""Starting the kernels of the backend "triton": what they need, how the work is divided, what comes back."""

import functools
import importlib.util
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

# By what the compiled kernels need (Hopper, sides 5x1, 5x5, 1x5): 94 registers forward, 213 backward, none spilled.
# With more rows more of a window is shared; with fewer, more taps fit into the registers.
_LANES = 32  # one warp
_FEW_TAPS = 64  # above, a launch for each of the two gradients: together they would spill
_ROWS, _ROWS_MANY_TAPS = {"forward": 8, "backward": 4}, {"forward": 4, "backward": 2}
_PROGRAMS = 2048  # 16 warps for each of 132 processors; fewer planes than that are divided among several programs


def why_not_here(device: str) -> str | None:
    """What this process lacks to start a kernel on tensors of such a device, or None."""
    if importlib.util.find_spec("triton") is None:
        return "needs Triton: pip install triton"
    if device == "cuda" or _is_interpreted():
        return None
    return f"runs on GPUs, and the tensors are on {device} (for tests, TRITON_INTERPRET=1 has it interpreted there)"


def convolve(x: Tensor, kernels: list[Tensor]) -> list[Tensor]:
    """Every result over one read of ``x``."""
    outs = [x.new_empty(x.shape) for _ in kernels]
    if x.numel():
        x = _with_whole_planes(x)
        rows, parts = _divide("forward", x, kernels)
        _launch("forward", x, kernels, (tuple(outs), x.stride(0)), parts, ROWS=rows)
    return outs


def gradients(
    x: Tensor, kernels: list[Tensor], grads: list[Tensor], need_x: bool, need_kernels: bool
) -> tuple[Tensor, Tensor]:
    """The gradient of ``x``, and those of all kernels' taps side by side, ``(B, C, taps)``; empty where not needed."""
    grad_x, grad_taps = new_gradients(x, kernels, grads, need_x, need_kernels)
    if not x.numel():
        return grad_x, grad_taps.zero_()
    x, grads = _with_whole_planes(x), [_with_whole_planes(grad) for grad in grads]
    rows, parts = _divide("backward", x, kernels)
    sums = grad_taps
    if need_kernels and parts > 1:  # of each part of a plane, added up below in a fixed order
        sums = x.new_empty((parts, *grad_taps.shape), dtype=torch.promote_types(x.dtype, torch.float32))
    strides = tuple(grad.stride(0) for grad in grads)
    arguments = (tuple(grads), grad_x, sums, x.stride(0), strides)
    together = count_taps(kernels) <= _FEW_TAPS
    for now_x, now_taps in [(need_x, need_kernels)] if together else [(need_x, False), (False, need_kernels)]:
        if now_x or now_taps:
            sides = _sides(kernels) if now_x else ((1, 1),) * len(kernels)
            constants = {"GRAD_SIDES": sides, "TAPS": count_taps(kernels), "NEED_X": now_x, "NEED_TAPS": now_taps}
            _launch("backward", x, kernels, arguments, parts, ROWS=rows, **constants)
    return grad_x, grad_taps if sums is grad_taps else sums.sum(0).to(x.dtype)


def new_gradients(
    x: Tensor, kernels: list[Tensor], grads: list[Tensor], need_x: bool, need_kernels: bool
) -> tuple[Tensor, Tensor]:
    """What :func:`gradients` returns, not filled."""
    taps_shape = (*x.shape[:2], count_taps(kernels))
    return x.new_empty(x.shape if need_x else (0,)), x.new_empty(taps_shape if need_kernels else (0,))


def count_taps(kernels: Sequence[Tensor]) -> int:
    """Of all kernels of one sample and channel."""
    return sum(kh * kw for kh, kw in _sides(kernels))


def _launch(
    name: str, x: Tensor, kernels: list[Tensor], arguments: tuple[Any, ...], parts: int, **constants: Any
) -> None:
    """Start a kernel, ``parts`` programs for each plane of ``x``."""
    reason = why_not_here(x.device.type)
    if reason is not None:  # a graph gets here unchecked
        raise RuntimeError(f"``backend``: 'triton' cannot run here: it {reason}; backend='auto' picks one that can.")
    module = _kernels(_is_interpreted())
    B, C, H, W = x.shape
    sides, dtype = _sides(kernels), module.FLOAT64 if x.dtype == torch.float64 else module.FLOAT32
    reach = (max(kh for kh, _ in sides), max(kw for _, kw in sides))
    constants |= {"SIDES": sides, "REACH": reach, "LANES": _LANES, "DTYPE": dtype}
    # The fusion is no longer the default from Triton 3.10 on.
    options = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": True}
    taps = tuple(each.contiguous() for each in kernels)
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        getattr(module, name)[(B * C, parts)](x, taps, *arguments, C, H, W, **constants, **options)


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _kernels(interpreted: bool) -> ModuleType:
    """The kernels, a module for each way: Triton looks at TRITON_INTERPRET when a kernel is defined."""
    spec = importlib.util.find_spec("dpcn_modules.functional._backends._triton_kernels")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("_triton_kernels.py is missing: install dpcn_modules again.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _divide(direction: str, x: Tensor, kernels: Sequence[Tensor]) -> tuple[int, int]:
    """Rows of a strip, and how many programs share a plane: one, or where planes are few, up to one for each tile."""
    rows = (_ROWS if count_taps(kernels) <= _FEW_TAPS else _ROWS_MANY_TAPS)[direction]
    B, C, H, W = x.shape
    tiles = _ceil_div(_ceil_div(H, rows) * W, _LANES)
    return rows, min(tiles, _ceil_div(_PROGRAMS, B * C))


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _with_whole_planes(tensor: Tensor) -> Tensor:
    """Itself where each sample is contiguous, as in a part of a concatenation along C; else a contiguous copy."""
    return tensor if tensor.is_contiguous() or tensor[:1].is_contiguous() else tensor.contiguous()


def _sides(kernels: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((taps.shape[-2], taps.shape[-1]) for taps in kernels)
