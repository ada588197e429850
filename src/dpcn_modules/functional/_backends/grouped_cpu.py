"""The grouped convolution with a backward made for the CPU: two more grouped convolutions.

PyTorch's own backward of a convolution with one channel a group takes about 12 times its forward there.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules.functional._backends.grouped import convolve


def why_not(x: Tensor, kernels_list: Sequence[Tensor]) -> str | None:
    """Tensors on the CPU only."""
    if x.device.type != "cpu":
        return f"its backward is fast on the CPU only, and the tensors are on {x.device.type}"
    return None


def run(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    """One ``(B, C, H, W)`` for each of the ``(B, C, kh, kw)``."""
    if torch.is_autocast_enabled("cpu"):
        # As a convolution would: a custom function has to do it outside, so that the cast has a gradient.
        dtype = torch.get_autocast_dtype("cpu")
        x, kernels_list = x.to(dtype), [kernels.to(dtype) for kernels in kernels_list]
    return [_DynamicConvolution.apply(x, kernels) for kernels in kernels_list]


class _DynamicConvolution(torch.autograd.Function):
    """``out[b, c] = x[b, c] * kernels[b, c]``; both gradients are convolutions of the same kind.

    The backward consists of differentiable operations, so that a second derivative is available.
    """

    @staticmethod
    def forward(x: Tensor, kernels: Tensor) -> Tensor:
        """The grouped convolution."""
        return convolve(_single(x), _single(kernels)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Keep both inputs."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Convolve the gradient with the turned kernels, and the input with the gradient."""
        x, kernels = (_single(saved) for saved in ctx.saved_tensors)
        single = _single(grad)
        grad_x = convolve(single, kernels.flip(-2, -1)).to(grad.dtype) if ctx.needs_input_grad[0] else None
        sides = (kernels.shape[-2], kernels.shape[-1])
        grad_kernels = _correlate(x, single, sides).to(grad.dtype) if ctx.needs_input_grad[1] else None
        return grad_x, grad_kernels


def _correlate(x: Tensor, grad: Tensor, sides: tuple[int, int]) -> Tensor:
    """``out[b, c, i, j] = sum over positions of grad[b, c] times x[b, c] shifted by (i, j)``: ``(B, C, kh, kw)``."""
    B, C, H, W = x.shape
    kh, kw = sides
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
    """Half as single precision: processors have no half convolution worth the name."""
    return x.float() if x.dtype == torch.float16 else x
