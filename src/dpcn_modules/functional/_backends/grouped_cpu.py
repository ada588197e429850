"""The grouped convolution for the CPU: a few samples at a time, and a backward of two more grouped convolutions.

PyTorch's own backward of a convolution with one channel a group takes some ten forwards there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dpcn_modules.functional._backends.grouped import convolve, convolve_padded

Convolution = Callable[[Tensor, Tensor], Tensor]
_LARGE, _AT_A_TIME = 16 * 2**20, 4 * 2**20
"""Bytes of the input from which on samples are taken some at a time, and of how many: what the convolution copies into
its own layout then stays in the caches."""


def why_not(x: Tensor, kernels_list: Sequence[Tensor]) -> str | None:
    """Tensors on the CPU only."""
    device = x.device.type
    return None if device == "cpu" else f"its backward is fast on the CPU only, and the tensors are on {device}"


def run(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        # As a convolution would: a custom function has to do it outside, so that the cast has a gradient.
        dtype = torch.get_autocast_dtype("cpu")
        x, kernels_list = x.to(dtype), [kernels.to(dtype) for kernels in kernels_list]
    # The call of a custom function takes as long as a small convolution.
    convolution = _DynamicConvolution.apply if torch.is_grad_enabled() else _DynamicConvolution.forward
    return [convolution(x, kernels) for kernels in kernels_list]


class _DynamicConvolution(torch.autograd.Function):
    """Both gradients are convolutions of the same kind, and differentiable: a second derivative is available."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernels: Tensor) -> Tensor:
        return _by_samples(convolve, _single(x), _single(kernels)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernels = (_single(saved) for saved in ctx.saved_tensors)
        single = _single(grad)
        grad_x = grad_kernels = None
        if ctx.needs_input_grad[0]:
            grad_x = _by_samples(convolve, single, kernels.flip(-2, -1)).to(grad.dtype)
        if ctx.needs_input_grad[1]:
            correlate = partial(_correlate, kh=kernels.shape[-2], kw=kernels.shape[-1])
            grad_kernels = _by_samples(correlate, x, single).to(grad.dtype)
        return grad_x, grad_kernels


def _by_samples(function: Convolution, x: Tensor, other: Tensor) -> Tensor:
    """``function(x, other)``, where ``x`` is large by so many samples at a time that they stay in the caches."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or x.nbytes < _LARGE:
        return function(x, other)
    count = max(1, _AT_A_TIME // x[:1].nbytes)
    first = function(x[:count], other[:count])
    out = first.new_empty(x.shape[0], *first.shape[1:])
    out[:count] = first
    for start in range(count, x.shape[0], count):
        out[start : start + count] = function(x[start : start + count], other[start : start + count])
    return out


def _correlate(x: Tensor, grad: Tensor, *, kh: int, kw: int) -> Tensor:
    """``out[b, c, i, j] = sum over positions of grad[b, c] times x[b, c] shifted by (i, j)``: ``(B, C, kh, kw)``."""
    if x.shape[0] * x.shape[1] == 0:
        return x.new_zeros(*x.shape[:2], kh, kw)
    return convolve_padded(x, grad, kh // 2, kw // 2)


def _single(x: Tensor) -> Tensor:
    """float16 as float32: convolutions in float16 are slow on CPUs."""
    return x.float() if x.dtype == torch.float16 else x
