"""The grouped convolution for the CPU: a few samples at a time, and a backward of two more grouped convolutions.

PyTorch's own backward of a convolution with one channel a group takes some ten forwards there.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules.functional._backends.grouped import convolve

Convolution = Callable[[Tensor, Tensor], Tensor]
_LARGE, _AT_A_TIME = 16 * 2**20, 4 * 2**20
"""Bytes of the input from which on samples are taken some at a time, and of how many: what the convolution copies into
its own layout then stays in the caches."""


def why_not(x: Tensor, kernels_list: Sequence[Tensor]) -> str | None:
    """Tensors on the CPU only."""
    if x.device.type != "cpu":
        return f"its backward is fast on the CPU only, and the tensors are on {x.device.type}"
    return None


def run(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    """One ``(B, C, H, W)`` for each of the ``(B, C, kh, kw)``."""
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        # As a convolution would: a custom function has to do it outside, so that the cast has a gradient.
        dtype = torch.get_autocast_dtype("cpu")
        x, kernels_list = x.to(dtype), [kernels.to(dtype) for kernels in kernels_list]
    # The call of a custom function takes as long as a small convolution.
    convolution = _DynamicConvolution.apply if torch.is_grad_enabled() else _DynamicConvolution.forward
    return [convolution(x, kernels) for kernels in kernels_list]


class _DynamicConvolution(torch.autograd.Function):
    """``out[b, c] = x[b, c] * kernels[b, c]``; both gradients are convolutions of the same kind.

    The backward consists of differentiable operations, so that a second derivative is available.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, kernels: Tensor) -> Tensor:
        """The grouped convolution."""
        return _by_samples(convolve, _single(x), _single(kernels)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep both inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Convolve the gradient with the turned kernels, and the input with the gradient."""
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
    B, C, H, W = x.shape
    if B * C == 0:
        return x.new_zeros(B, C, kh, kw)
    out = F.conv2d(
        x.reshape(1, B * C, H, W),
        grad.reshape(B * C, 1, H, W),
        padding=(kh // 2, kw // 2),
        groups=B * C,
    )
    return out.reshape(B, C, kh, kw)


def _single(x: Tensor) -> Tensor:
    """float16 as float32: convolutions in float16 are slow on CPUs."""
    return x.float() if x.dtype == torch.float16 else x
