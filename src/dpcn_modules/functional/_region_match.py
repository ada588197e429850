"""The gradient of the best match: :mod:`_region_search` finds the winners, and only they carry gradient."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dpcn_modules.functional._region_search import Grid, search, steps_of


class BestMatch(torch.autograd.Function):
    """``out[n, a, q] = max over p of mean over offsets o of <s[n, :, p + o], q[n, :, q + o]>``, and the winning p.

    Shapes: s ``(N, C, P)``, zero outside of occupied ``(N, P)``, and q ``(N, C, Q)`` to ``(N, A, Q)``. Only the winning
    pairs carry gradient, so the backward touches A Q window pairs instead of P Q, and needs no cosine matrix.
    """

    @staticmethod
    def forward(s: Tensor, q: Tensor, occupied: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        best, winner = search(s, q, occupied, grid)
        return best / best.new_tensor([d_h * d_w for d_h, d_w in grid.windows]).unsqueeze(-1), winner

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Grid], output: tuple[Tensor, Tensor]) -> None:
        s, q, _, ctx.grid = inputs
        winner = output[1]
        ctx.mark_non_differentiable(winner)
        ctx.save_for_backward(s, q, winner)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, int]]:
        """Fold the axis of a vmap into N."""
        tensors = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(inputs[:3], in_dims[:3], strict=True)
        ]
        results = BestMatch.apply(*(tensor.flatten(0, 1) for tensor in tensors), inputs[3])
        return tuple(each.unflatten(0, tensors[0].shape[:2]) for each in results), (0, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        s, q, winner = ctx.saved_tensors
        partner, weight = _winning_pairs(grad, winner, s.shape[2], ctx.grid)
        grad_s = _sum_by_partner(q, partner, weight, s.shape[2]) if ctx.needs_input_grad[0] else None
        grad_q = _sum_of_partners(s, partner, weight) if ctx.needs_input_grad[1] else None
        return grad_s, grad_q, None, None


def _winning_pairs(grad: Tensor, winner: Tensor, P: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """List, for every query position, the support positions it was matched with and the gradient of each product.

    Both are (N, Q, T), T the number of offsets of all windows; partners count on from sample to sample, in N P. Pairs
    outside an image have weight 0.
    """
    partners, weights = [], []
    for a, window in enumerate(grid.windows):
        steps = steps_of(window, grid.width)
        for step in steps:
            if abs(step) >= grad.shape[-1]:  # the image is lower than the window
                continue
            # The product at q belongs to the window centred at q - step.
            partner = F.pad(winner[:, a] + step, (step, -step), value=-1)
            weight = F.pad(grad[:, a] / len(steps), (step, -step))
            inside = (partner >= 0) & (partner < P)
            partners.append(torch.where(inside, partner, 0))
            weights.append(torch.where(inside, weight, 0))
    starts = torch.arange(winner.shape[0], device=winner.device) * P
    return torch.stack(partners, -1) + starts.reshape(-1, 1, 1), torch.stack(weights, -1)


def _sum_of_partners(s: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """``out[n, :, q] = sum over t of weight[n, q, t] * s[partner[n, q, t]]``, without gathering ``(N, Q, T, C)``."""
    weights = weight.flatten(0, 1).to(s.dtype)
    summed = F.embedding_bag(partner.flatten(0, 1), _vectors(s), per_sample_weights=weights, mode="sum")
    return summed.reshape(*partner.shape[:2], s.shape[1]).transpose(1, 2)


def _sum_by_partner(q: Tensor, partner: Tensor, weight: Tensor, P: int) -> Tensor:
    """``out[n, :, p] = sum of weight[n, q, t] * q[n, :, q] over the (q, t) whose partner is p``."""
    N, _, T = partner.shape
    rows, order = partner.flatten().sort()
    starts = torch.searchsorted(rows, torch.arange(N * P, device=rows.device))
    weights = weight.flatten()[order].to(q.dtype)
    summed = F.embedding_bag(order // T, _vectors(q), starts, per_sample_weights=weights, mode="sum")
    return summed.reshape(N, P, q.shape[1]).transpose(1, 2)


def _vectors(feat: Tensor) -> Tensor:
    """``(N, C, P)`` as one list of vectors, each in one piece of memory: else the bags take five times as long."""
    return feat.transpose(1, 2).flatten(0, 1).contiguous()
