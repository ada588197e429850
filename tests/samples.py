"""Random support sets and the small acts that several testers share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def features(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Normal numbers, the same ones in every dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)


def masks(*shape: int, seed: int = 0, foreground: float = 0.5) -> Tensor:
    """Random 0, 1 and, for a tenth of the positions, 255; the first position of each mask is foreground."""
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(shape, generator=generator)
    mask = (chance < foreground).long()
    mask[chance > 0.9] = 255
    mask[..., 0, 0] = 1
    return mask


def non_contiguous(tensor: Tensor) -> Tensor:
    """The same values, every second element of a larger storage."""
    spread = torch.stack([tensor.detach(), torch.zeros_like(tensor)], dim=-1)[..., 0]
    return spread.requires_grad_(tensor.requires_grad)


def channels_last(tensor: Tensor) -> Tensor:
    """The same values with the channels innermost in memory: ``(B, C, H, W)`` or ``(B, K, C, H, W)``."""
    moved = tensor.detach().movedim(-3, -1).contiguous().movedim(-1, -3)
    return moved.requires_grad_(tensor.requires_grad)


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """One output or several, as several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def with_gradient(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copies of the inputs; the floating ones want a gradient."""
    return tuple(x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs)


def gradients(
    function: Callable[..., Tensor | Sequence[Tensor]], inputs: Sequence[Tensor], parameters: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """Gradients of a fixed random weighting of the outputs with respect to the floating inputs and parameters."""
    outputs = as_tuple(function(*inputs))
    weighted = sum((out * features(*out.shape, dtype=out.dtype, seed=9)).sum() for out in outputs)
    wanted = [x for x in inputs if x.requires_grad] + list(parameters)
    return torch.autograd.grad(weighted, wanted)
