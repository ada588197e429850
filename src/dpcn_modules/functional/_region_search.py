"""The best match of every query position over all support positions, for several windows at once.

Both images lie in raster order with a zero border between rows, so the window offset (y, x) is one step ``y *
width + x`` along both axes of the cosine matrix, and a window's mean is a sum along its diagonals.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dpcn_modules._checks import has_values

Windows = tuple[tuple[int, int], ...]
_DENSE = 0.75
"""Share of occupied positions above which picking them out costs more than it saves."""
_IN_CACHE = 2 * 2**20
"""Bytes of the cosine matrix that are summed at a time on the CPU."""


class Grid(NamedTuple):
    """How positions lie: rows of ``width``, ``support_width`` of each in the support, some rows matched at a time."""

    width: int
    support_width: int
    windows: Windows
    chunk_rows: int


def search(s: Tensor, q: Tensor, occupied: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The greatest sum of each query position and window, and where: ``(N, A, Q)`` each."""
    # A look at the mask would make a GPU wait, and an exported graph cannot look.
    exported = torch.compiler.is_exporting() or (
        torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    )
    if s.device.type != "cpu" or exported:
        return _match(s, q, grid)
    if not has_values(s):
        sides = [side for window in grid.windows for side in window]
        best, winner = _search_on_cpu(s, q, occupied, grid.width, grid.support_width, sides, grid.chunk_rows)
        return best, winner
    return _search_occupied(s, q, occupied, grid)


def _search_occupied(s: Tensor, q: Tensor, occupied: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Sample by sample, leaving out what is not occupied."""
    best = s.new_zeros(s.shape[0], len(grid.windows), q.shape[2])
    winner = torch.zeros_like(best, dtype=torch.long)
    for n in range(s.shape[0]):
        best[n : n + 1], winner[n : n + 1] = _match_occupied(s[n : n + 1], q[n : n + 1], occupied[n], grid)
    return best, winner


@torch.library.custom_op(
    "dpcn_modules::best_match",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor s, Tensor q, Tensor occupied, int width, int support_width, int[] sides, int chunk_rows) "
    "-> (Tensor, Tensor)",
)
def _search_on_cpu(
    s: Tensor, q: Tensor, occupied: Tensor, width: int, support_width: int, sides: list[int], chunk_rows: int
) -> tuple[Tensor, Tensor]:
    """What a compiled graph calls: the loop that the compiler makes of the sums and maxima takes many times as long."""
    windows = tuple(zip(sides[::2], sides[1::2], strict=True))
    return _search_occupied(s, q, occupied, Grid(width, support_width, windows, chunk_rows))


@_search_on_cpu.register_fake
def _(
    s: Tensor, q: Tensor, occupied: Tensor, width: int, support_width: int, sides: list[int], chunk_rows: int
) -> tuple[Tensor, Tensor]:
    best = s.new_empty(s.shape[0], len(sides) // 2, q.shape[2])
    return best, torch.empty_like(best, dtype=torch.long)


def _match(s: Tensor, q: Tensor, grid: Grid, occupied: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The greatest sum of each query position and window, and where: ``(N, A, Q)`` each, chunk by chunk of rows."""
    N, P, Q, width = s.shape[0], s.shape[2], q.shape[2], grid.width
    halo = max(d_h // 2 * width + d_w // 2 for d_h, d_w in grid.windows)
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
                if grid.support_width < width:  # a window may not be centred on the border between rows
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


def _match_occupied(s: Tensor, q: Tensor, occupied: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
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


def steps_of(window: tuple[int, int], width: int) -> list[int]:
    """The steps from the centre of a window to each of its offsets."""
    up, left = window[0] // 2, window[1] // 2
    return [y * width + x for y in range(-up, up + 1) for x in range(-left, left + 1)]


def _diagonal_sum(cosine: Tensor, window: tuple[int, int], width: int, first: int, count: int) -> Tensor:
    """Sum ``cosine[:, p + step, q + step]`` over a window's steps, for ``count`` support positions from ``first``."""
    height, Q = cosine.shape[1:]
    total = cosine[:, first : first + count].clone()
    for step in steps_of(window, width):
        top, bottom = max(0, -step - first), min(count, height - first - step)
        left, right = max(0, -step), min(Q, Q - step)
        if step == 0 or top >= bottom or left >= right:
            continue
        shifted = cosine[:, first + top + step : first + bottom + step, left + step : right + step]
        total[:, top:bottom, left:right] += shifted
    return total
