"""The best match of every query position over all support positions, for several windows at once.

Both pictures lie in raster order with a zero border between rows, so the window offset (y, x) is one step ``y *
width + x`` along both axes of the cosine matrix, and a window's mean is a sum along its diagonals.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Windows = tuple[tuple[int, int], ...]
_DENSE = 0.75
"""Share of occupied positions above which picking them out costs more than it saves."""
_IN_CACHE = 2 * 2**20
"""Bytes of the cosine matrix that are summed at a time on the CPU."""


class BestMatch(torch.autograd.Function):
    """``out[n, a, q] = max over p of mean over offsets o of <s[n, :, p + o], q[n, :, q + o]>``.

    Shapes: s ``(N, C, P)``, q ``(N, C, Q)`` to ``(N, A, Q)``. Only the winning pairs carry gradient, so the
    backward touches A Q window pairs instead of P Q, and needs no cosine matrix.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s: Tensor,
        q: Tensor,
        occupied: Tensor | None,
        width: int,
        support_width: int,
        windows: Windows,
        chunk_size: int | None,
    ) -> Tensor:
        """Match all of the support, or with ``occupied`` (N, P) only where it is not zero."""
        chunk_rows = s.shape[2] // width if chunk_size is None else -(-chunk_size // support_width)
        grid = _Grid(width, support_width, windows, chunk_rows)
        if occupied is None:
            best, winner = _match(s, q, grid)
        else:
            samples = [_match_occupied(s[n : n + 1], q[n : n + 1], occupied[n], grid) for n in range(s.shape[0])]
            best = torch.cat([sample for sample, _ in samples]) if samples else s.new_zeros(0, len(windows), q.shape[2])
            winner = torch.cat([sample for _, sample in samples]) if samples else torch.zeros_like(best).long()
        ctx.save_for_backward(s, q, winner)
        ctx.windows, ctx.width = windows, width
        return best / best.new_tensor([d_h * d_w for d_h, d_w in windows]).unsqueeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Send the gradient of each maximum to the window pairs that won it."""
        s, q, winner = ctx.saved_tensors
        partner, weight = _winning_pairs(grad, winner, s.shape[2], ctx.width, ctx.windows)
        grad_s = grad_q = None
        if ctx.needs_input_grad[0]:
            grad_s = _sum_by_partner(q.transpose(1, 2), partner, weight, s.shape[2]).transpose(1, 2)
        if ctx.needs_input_grad[1]:
            grad_q = _sum_of_partners(s.transpose(1, 2), partner, weight).transpose(1, 2)
        return grad_s, grad_q, None, None, None, None, None


class _Grid(NamedTuple):
    """How positions lie: rows of ``width``, ``support_width`` of each in the support, some rows matched at a time."""

    width: int
    support_width: int
    windows: Windows
    chunk_rows: int


def _match(s: Tensor, q: Tensor, grid: _Grid, occupied: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The greatest sum of each query position and window, and where: ``(N, A, Q)`` each, chunk by chunk of rows."""
    N, P, Q, width = s.shape[0], s.shape[2], q.shape[2], grid.width
    halo = max(_step(d_h // 2, d_w // 2, width) for d_h, d_w in grid.windows)
    best = s.new_full((N, len(grid.windows), Q), -torch.inf)
    winner = torch.zeros_like(best, dtype=torch.long)
    for start in range(0, P, grid.chunk_rows * width):
        end = min(start + grid.chunk_rows * width, P)
        low, high = max(0, start - halo), min(P, end + halo)
        cosine = _cosine(s[:, :, low:high], q, None if occupied is None else occupied[low:high])
        step = _rows_at_a_time(cosine, width) * width
        for first in range(start, end, step):
            last = min(first + step, end)
            for a, window in enumerate(grid.windows):
                total = _diagonal_sum(cosine, window, width, first - low, last - first)
                # A window may not be centred on the border between rows.
                total.view(N, (last - first) // width, width, Q)[:, :, grid.support_width :] = -torch.inf
                value, index = total.max(1)
                better = value > best[:, a]
                best[:, a] = torch.where(better, value, best[:, a])
                winner[:, a] = torch.where(better, index + first, winner[:, a])
    return best, winner


def _rows_at_a_time(cosine: Tensor, width: int) -> int:
    """Rows of the support whose sums are taken together: on the CPU so many as stay in its caches."""
    height = -(-cosine.shape[1] // width)
    if cosine.device.type != "cpu" or torch.compiler.is_compiling():
        return height
    return max(1, _IN_CACHE * height // max(1, cosine.nbytes))


def _match_occupied(s: Tensor, q: Tensor, occupied: Tensor, grid: _Grid) -> tuple[Tensor, Tensor]:
    """`_match` for one sample whose support is zero outside ``occupied`` (P,), which leaves most of the work out.

    A window that sees no foreground sums to zero, so the rows that no window with foreground is centred on count as
    one more candidate, zero. It carries no gradient, whichever of them is called the winner.
    """
    height = occupied.shape[0] // grid.width
    rows = occupied.view(height, grid.width).any(1).nonzero().flatten().tolist()
    if not rows:
        zero = s.new_zeros(1, len(grid.windows), q.shape[2])
        return zero, zero.long()
    reach = max(d_h // 2 for d_h, _ in grid.windows)
    top, bottom = max(0, rows[0] - reach), min(height, rows[-1] + 1 + reach)
    first, end = top * grid.width, bottom * grid.width
    best, winner = _match(s[:, :, first:end], q, grid, occupied[first:end])
    winner += first
    if (top, bottom) != (0, height):
        outside = 0 if top > 0 else end
        winner = torch.where(best < 0, outside, winner)
        best = best.clamp(min=0)
    return best, winner


def _cosine(s: Tensor, q: Tensor, occupied: Tensor | None) -> Tensor:
    """``s^T @ q``, ``(N, P, Q)``; where few of the positions of one sample's ``s`` are occupied, of those alone."""
    if occupied is None or occupied.float().mean() > _DENSE:
        return (s.transpose(1, 2) @ q).to(s.dtype)  # autocast may have made it half
    cosine = s.new_zeros(1, s.shape[2], q.shape[2])
    places = occupied.nonzero().flatten()
    return cosine.index_copy_(1, places, (s[:, :, places].transpose(1, 2) @ q).to(s.dtype))


def _step(y: int, x: int, width: int) -> int:
    return y * width + x


def _steps(window: tuple[int, int], width: int) -> list[int]:
    (up, left) = (window[0] // 2, window[1] // 2)
    return [_step(y, x, width) for y in range(-up, up + 1) for x in range(-left, left + 1)]


def _diagonal_sum(cosine: Tensor, window: tuple[int, int], width: int, first: int, count: int) -> Tensor:
    """Sum ``cosine[:, p + step, q + step]`` over a window's steps, for ``count`` support positions from ``first``."""
    height, Q = cosine.shape[1:]
    total = cosine[:, first : first + count].clone()
    for step in _steps(window, width):
        top, bottom = max(0, -step - first), min(count, height - first - step)
        left, right = max(0, -step), min(Q, Q - step)
        if step == 0 or top >= bottom or left >= right:
            continue
        shifted = cosine[:, first + top + step : first + bottom + step, left + step : right + step]
        total[:, top:bottom, left:right] += shifted
    return total


def _winning_pairs(grad: Tensor, winner: Tensor, P: int, width: int, windows: Windows) -> tuple[Tensor, Tensor]:
    """List, for every query position, the support positions it was matched with and the gradient of each product.

    Returns:
        partner (N, Q, T) into P, and weight (N, Q, T), T the number of offsets of all windows. Pairs outside a
        picture have weight 0.
    """
    partners, weights = [], []
    for a, window in enumerate(windows):
        steps = _steps(window, width)
        for step in steps:
            if abs(step) >= grad.shape[-1]:  # the picture is lower than the window
                continue
            # The product at q belongs to the window centred at q - step.
            partner = F.pad(winner[:, a] + step, (step, -step), value=-1)
            weight = F.pad(grad[:, a] / len(steps), (step, -step))
            inside = (partner >= 0) & (partner < P)
            partners.append(torch.where(inside, partner, 0))
            weights.append(torch.where(inside, weight, 0))
    return torch.stack(partners, -1), torch.stack(weights, -1)


def _sum_of_partners(s: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """``out[n, q] = sum over t of weight[n, q, t] * s[n, partner[n, q, t]]``, without gathering ``(N, Q, T, C)``."""
    rows = (partner + _batch_start(partner, s.shape[1])).flatten(0, 1)
    summed = F.embedding_bag(
        rows, s.reshape(-1, s.shape[-1]), per_sample_weights=weight.flatten(0, 1).to(s.dtype), mode="sum"
    )
    return summed.reshape(*partner.shape[:2], s.shape[-1])


def _sum_by_partner(q: Tensor, partner: Tensor, weight: Tensor, P: int) -> Tensor:
    """``out[n, p] = sum of weight[n, q, t] * q[n, q] over the (q, t) whose partner is p``."""
    N, _, T = partner.shape
    rows, order = (partner + _batch_start(partner, P)).flatten().sort()
    starts = torch.searchsorted(rows, torch.arange(N * P, device=rows.device))
    summed = F.embedding_bag(
        order // T,
        q.reshape(-1, q.shape[-1]),
        starts,
        per_sample_weights=weight.flatten()[order].to(q.dtype),
        mode="sum",
    )
    return summed.reshape(N, P, q.shape[-1])


def _batch_start(partner: Tensor, length: int) -> Tensor:
    return (torch.arange(partner.shape[0], device=partner.device) * length).reshape(-1, 1, 1)
