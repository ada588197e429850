"""Reference implementation: plain loops over samples and kernel positions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def why_not(x: Tensor, kernels_list: Sequence[Tensor]) -> None:
    """Runs everything."""


def run(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    return [_convolve(x, kernels) for kernels in kernels_list]


def _convolve(x: Tensor, kernels: Tensor) -> Tensor:
    H, W = x.shape[-2:]
    kh, kw = kernels.shape[-2:]
    padded = F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2))
    samples = []
    for b in range(x.shape[0]):
        out = torch.zeros_like(x[b])
        for i in range(kh):
            for j in range(kw):
                out = out + kernels[b, :, i, j, None, None] * padded[b, :, i : i + H, j : j + W]
        samples.append(out)
    return torch.stack(samples) if samples else x * kernels.sum((-2, -1), keepdim=True)
