"""Region-to-region matching of a query with a masked support: SAM's activation maps and the prior mask."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules._checks import check_integer, check_odd, check_shapes, check_values, with_shot_axis
from dpcn_modules.errors import InputError
from dpcn_modules.functional._region_match import BestMatch
from dpcn_modules.functional._region_search import Grid
from dpcn_modules.functional.pooling import mean_of_shots, support_at_feature_size

Windows = Sequence[tuple[int, int]]
_MIN_NORM = 1e-12
"""Lower bound on the norm of a feature vector that is divided by it."""


def region_activation(
    query_feat: Tensor,
    support_feat: Tensor,
    support_mask: Tensor,
    windows: Windows,
    *,
    chunk_size: int | None = None,
    eps: float = 1e-7,
    validate: bool = True,
) -> Tensor:
    """Say, for every query position, how well its region matches the best region of the masked support.

    For each window ``(d_h, d_w)``, with ``s`` the support feature times its mask,

    ``act[q] = max over p of mean over offsets o of cos(s[p + o], query[q + o])``

    where offsets outside an image count 0; then min-max over the positions, and the mean over the shots that have
    foreground. All windows share one matrix of pixel cosines.

    Args:
        query_feat: ``(B, C, H, W)``.
        support_feat: ``(B, K, C, H, W)``, or ``(B, C, H, W)`` for one shot; its ``H W`` may differ from the query's.
        support_mask: at any resolution, ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}.
        windows: sides ``(d_h, d_w)`` of each window, odd.
        chunk_size: how many support positions are matched at a time (rounded up to whole feature rows, plus the
            ``d_h - 1`` rows that a window reaches beyond them). Extra memory is about that many times ``H * W``
            numbers per sample and shot instead of ``(H W)^2``. None: all.
        eps: keeps the min-max normalisation from dividing by 0.
        validate: check shapes and values; False where the caller has done so.

    Returns:
        ``(B, len(windows), H, W)`` in [0, 1], the dtype of ``query_feat``. All 0 for an empty support mask.
        Differentiable with respect to both features; a second derivative is not available.

    Raises:
        ValueError: shapes disagree, a window side is even, ``windows`` is empty, ``chunk_size`` < 1, a mask value
            is not 0, 1 or 255, or a feature is not finite.

    Example:
        >>> import torch
        >>> feat = torch.randn(1, 8, 6, 6)
        >>> mask = torch.zeros(1, 6, 6).index_fill_(2, torch.tensor([2, 3]), 1)
        >>> region_activation(feat, feat, mask, [(5, 1), (3, 3), (1, 5)]).shape
        torch.Size([1, 3, 6, 6])

    Reference: Liu et al., CVPR 2022, sec. 3.3, eq. 1.
    """
    support_feat, support_mask = with_shot_axis(support_feat, support_mask)
    if validate:
        check_windows(windows, chunk_size)
        check_shapes(
            query_feat=(query_feat, "B C H W"),
            support_feat=(support_feat, "B K C Hs Ws"),
            support_mask=(support_mask, "B K Hi Wi"),
        )
        features = {"query_feat": query_feat, "support_feat": support_feat}
        check_values(masks={"support_mask": support_mask}, features=features)
    _, foreground = support_at_feature_size(support_feat, support_mask, validate=False)
    B, K, _, support_height, support_width = support_feat.shape
    H, W = query_feat.shape[-2:]

    # A masked unit vector is the unit vector of the masked feature, but its gradient holds no division by 0.
    s_hat = _unit(support_feat, foreground.unsqueeze(2))  # B K C Hs Ws
    q_hat = _unit(query_feat, 1.0).unsqueeze(1).expand(-1, K, -1, -1, -1)
    width = max(W, support_width) + max(d_w // 2 for _, d_w in windows)
    s_columns, q_columns = _columns(s_hat, width), _columns(q_hat, width)  # BK, C, rows * width
    occupied = _columns(foreground.unsqueeze(2), width)[:, 0] > 0  # BK, rows * width
    chunk_rows = support_height if chunk_size is None else -(-chunk_size // support_width)
    grid = Grid(width, support_width, tuple(windows), chunk_rows)
    match, _ = BestMatch.apply(s_columns, q_columns, occupied, grid)
    match = match.reshape(B, K, len(windows), H, width)[..., :W]
    return mean_of_shots(_min_max(match, eps), foreground).to(query_feat.dtype)


def prior_mask(
    query_feat: Tensor,
    support_feat: Tensor,
    support_mask: Tensor,
    *,
    chunk_size: int | None = None,
    eps: float = 1e-7,
    validate: bool = True,
) -> Tensor:
    """Say how well each query pixel matches its best pixel of the masked support.

    Region activation with the one window ``(1, 1)``: PFENet's prior mask, and DPCN's initial pseudo mask on
    COCO-20i. Arguments and errors are those of :func:`region_activation`.

    Returns:
        ``(B, 1, H, W)`` in [0, 1], the dtype of ``query_feat``.

    Example:
        >>> import torch
        >>> feat = torch.randn(1, 8, 6, 6)
        >>> prior_mask(feat, feat, torch.ones(1, 6, 6)).shape
        torch.Size([1, 1, 6, 6])

    Reference: Tian et al., TPAMI 2020 (PFENet); Liu et al., CVPR 2022, sec. 4.1.
    """
    return region_activation(
        query_feat, support_feat, support_mask, ((1, 1),), chunk_size=chunk_size, eps=eps, validate=validate
    )


def check_windows(windows: Windows, chunk_size: int | None) -> None:
    """Raise unless windows and chunk size are what :func:`region_activation` takes."""
    if not windows:
        raise InputError("``windows``: expected at least one (d_h, d_w), got none; (1, 1) is the prior mask.")
    for d_h, d_w in windows:
        check_odd("windows", d_h)
        check_odd("windows", d_w)
    if chunk_size is not None:
        check_integer("chunk_size", chunk_size, otherwise="; None matches all positions at once")


def _unit(feat: Tensor, weight: Tensor | float) -> Tensor:
    """Unit vectors along the channels times a weight, in single precision at least."""
    # Half precision cannot hold the sum of 2048 squares.
    feat = feat.float() if feat.dtype in (torch.float16, torch.bfloat16) else feat
    length = torch.linalg.vector_norm(feat, dim=-3, keepdim=True).clamp_min(_MIN_NORM)
    unit: Tensor = feat * (weight / length)
    return unit


def _columns(feat: Tensor, width: int) -> Tensor:
    """Vectors in raster order over rows padded with zero vectors to ``width``: ``(BK, C, H * width)``.

    With that border a step of (y, x) is the step y * width + x, and leaves a row only into zeros.
    """
    return F.pad(feat.flatten(0, 1), (0, width - feat.shape[-1])).flatten(2)


def _min_max(match: Tensor, eps: float) -> Tensor:
    low = match.amin((-2, -1), keepdim=True)
    high = match.amax((-2, -1), keepdim=True)
    return (match - low) / (high - low + eps)
