"""Pooling of features under a mask: masks to feature size, the prototype, the foreground vectors."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dpcn_modules._checks import check_integer, check_shapes, check_values, with_shot_axis
from dpcn_modules.errors import InputError

_ROUNDING = 1e-6
"""What counts as equal to 0.5 or to the largest share: rounding must not decide it."""


def resize_mask(mask: Tensor, size: tuple[int, int], *, validate: bool = True) -> Tensor:
    """Bring masks to feature size, so that no object is lost.

    Bilinear with aligned corners, foreground where the result is at least 0.5. Where nothing of a mask reaches
    0.5 although it has foreground, the positions that hold the largest share of it; an empty mask stays empty.
    Void (255) counts as not foreground.

    Args:
        mask: ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}.
        size: ``(H, W)`` of the feature.
        validate: check shapes and values; False where the caller has done so.

    Returns:
        ``(B, K, H, W)`` or ``(B, H, W)`` in {0, 1}, float32.

    Raises:
        ValueError: another number of axes, or a value other than 0, 1 and 255.

    Example:
        >>> import torch
        >>> resize_mask(torch.eye(4).unsqueeze(0), (2, 2))
        tensor([[[1., 0.],
                 [0., 1.]]])

    Reference: Liu et al., CVPR 2022, sec. 3.3 and 3.5 do not specify it; docs/paper_gaps.md explains this rule.
    """
    if validate:
        if not isinstance(mask, Tensor) or mask.ndim not in (3, 4):
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise InputError(f"``mask``: expected a tensor (B K Hi Wi) or (B Hi Wi), got {got}.")
        check_values(masks={"mask": mask})
    foreground = (mask == 1).to(torch.float32)
    if mask.numel() == 0:
        return foreground.new_zeros(*mask.shape[:-2], *size)
    if tuple(mask.shape[-2:]) == tuple(size):
        return foreground
    masks = foreground.reshape(-1, 1, *mask.shape[-2:])
    large = F.interpolate(masks, size, mode="bilinear", align_corners=True) >= 0.5 - _ROUNDING
    # Bilinear samples points and can step over a small object; the area share cannot.
    share = F.adaptive_avg_pool2d(masks, size)
    largest = share.amax((-2, -1), keepdim=True)
    fallback = (share >= largest * (1 - _ROUNDING)) & (largest > 0)
    reached = large.any(-1, keepdim=True).any(-2, keepdim=True)
    resized = large | (fallback & ~reached)  # ONNX Runtime has no torch.where of booleans
    return resized.to(torch.float32).reshape(*mask.shape[:-2], *size)


def masked_average_pool(feat: Tensor, mask: Tensor, *, validate: bool = True) -> Tensor:
    """Average the features of the foreground: the prototype of a class.

    ``p = sum(feat * mask) / sum(mask)`` per shot, then the mean over the shots that have foreground; zero where
    none has.

    Args:
        feat: support feature, ``(B, K, C, H, W)``, or ``(B, C, H, W)`` for one shot.
        mask: support mask at any resolution, ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}.
        validate: check shapes and values; False where the caller has done so.

    Returns:
        ``(B, C)``, the dtype of ``feat``.

    Raises:
        ValueError: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.

    Example:
        >>> import torch
        >>> feat = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> masked_average_pool(feat, torch.tensor([[[0, 0], [1, 1]]]))
        tensor([[2.5000]])

    Reference: Liu et al., CVPR 2022, eq. 2.
    """
    feat, foreground = support_at_feature_size(feat, mask, validate=validate)
    foreground = foreground.to(torch.promote_types(feat.dtype, torch.float32))
    area = foreground.sum((-2, -1), keepdim=True)  # B K 1 1
    shots = (area > 0).sum(1, keepdim=True)  # B 1 1 1
    # Weights first: in half precision the sum over a large object would overflow, its mean does not.
    weight = (foreground / (area.clamp(min=1) * shots.clamp(min=1))).to(feat.dtype)
    return torch.einsum("bkchw,bkhw->bc", feat, weight).to(feat.dtype)


def foreground_pool(feat: Tensor, mask: Tensor, bins: int, *, validate: bool = True) -> Tensor:
    """Pool the foreground vectors of all shots to a fixed number of vectors.

    The ``N`` foreground vectors, in raster order, one shot after the other, go through adaptive average pooling:
    bin ``s`` is the mean of the vectors ``floor(s N / bins) <= rank < ceil((s + 1) N / bins)``. ``N`` differs from
    sample to sample, yet a batch is one product with an averaging matrix, and no shape depends on the data.

    Args:
        feat: as in :func:`masked_average_pool`, like ``mask`` and ``validate``.
        bins: number of vectors, S or S^2.

    Returns:
        ``(B, bins, C)``, the dtype of ``feat``; zero where a sample has no foreground at all.

    Raises:
        ValueError: as :func:`masked_average_pool`, or ``bins`` < 1.

    Example:
        >>> import torch
        >>> feat = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> foreground_pool(feat, torch.tensor([[[1, 0], [1, 1]]]), bins=2).squeeze()
        tensor([1.0000, 2.5000])

    Reference: Liu et al., CVPR 2022, eq. 5 and 6, and eq. 11 for several shots.
    """
    check_integer("bins", bins)
    feat, foreground = support_at_feature_size(feat, mask, validate=validate)
    inside = foreground.flatten(1) > 0  # B KHW
    rank = inside.long().cumsum(1) - 1
    count = inside.long().sum(1, keepdim=True)  # B 1
    edges = torch.arange(bins + 1, device=feat.device) * count  # B bins+1, in units of 1/bins
    first = edges[:, :-1].div(bins, rounding_mode="floor").unsqueeze(-1)
    end = (edges[:, 1:] + bins - 1).div(bins, rounding_mode="floor").unsqueeze(-1)
    position = rank.unsqueeze(1)  # B 1 KHW
    member = (position >= first) & (position < end) & inside.unsqueeze(1)  # B bins KHW
    # Half precision cannot hold the count of a large object.
    average = member.to(torch.promote_types(feat.dtype, torch.float32)) / (end - first).clamp(min=1)
    return average.to(feat.dtype) @ rearrange(feat, "b k c h w -> b (k h w) c")


def support_at_feature_size(feat: Tensor, mask: Tensor, *, validate: bool = True) -> tuple[Tensor, Tensor]:
    """Give a support set, as :func:`masked_average_pool` takes and checks it, its shot axis and masks at feature size.

    Returns features ``(B, K, C, H, W)`` and masks ``(B, K, H, W)`` in {0, 1}, float32.
    """
    feat, mask = with_shot_axis(feat, mask)
    if validate:
        check_shapes(support_feat=(feat, "B K C H W"), support_mask=(mask, "B K Hi Wi"))
        check_values(masks={"support_mask": mask}, features={"support_feat": feat})
    if mask.shape[-2:] == feat.shape[-2:]:
        return feat, (mask == 1).to(torch.float32)
    return feat, resize_mask(mask, (feat.shape[-2], feat.shape[-1]), validate=False)


def soft_masks(support_feat: Tensor, support_masks: Tensor) -> Tensor:
    """Bring masks to feature size as the published host networks do: bilinear, corners aligned, and no threshold.

    ``(B, K, Hi, Wi)`` in {0, 1, 255}, where void counts as not foreground, to ``(B, K, H, W)`` in [0, 1], the dtype of
    the feature, ``(B, K, C, H, W)``.
    """
    return resize((support_masks == 1).to(support_feat.dtype), support_feat.shape[-2:])


def soft_average_pool(feat: Tensor, weight: Tensor) -> Tensor:
    """Average features under a soft mask, divided by its area + 0.0005, as the published host networks do.

    ``(B, K, C, H, W)`` and ``(B, K, H, W)`` in [0, 1] to ``(B, K, C)``, zero where there is no foreground.
    """
    weight = weight.to(torch.promote_types(feat.dtype, torch.float32))
    area = weight.sum((-2, -1), keepdim=True)  # B K 1 1
    # Weights first: in half precision the sum over a large object would overflow, its mean does not.
    return torch.einsum("bkchw,bkhw->bkc", feat, (weight / (area + 0.0005)).to(feat.dtype))


def shots_with_foreground(foreground: Tensor) -> Tensor:
    """Which shots count: ``(B, K, H, W)``, booleans or a mask in [0, 1], to ``(B, K)`` booleans."""
    return (foreground > 0).flatten(2).any(2)


def mean_of_shots(each: Tensor, mask: Tensor) -> Tensor:
    """The mean over the shots ``(B, K, ...)`` that have foreground in ``(B, K, H, W)``; zero where none has."""
    present = shots_with_foreground(mask).to(torch.promote_types(each.dtype, torch.float32))
    present = present.reshape(*present.shape, *[1] * (each.ndim - 2))  # B K 1 ...
    return ((each * present).sum(1) / present.sum(1).clamp(min=1)).to(each.dtype)


def resize(feat: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear with aligned corners, as the field's networks do: exact for stride 8 at 473 = 8 * 59 + 1.

    ``(B, C, H, W)`` to ``(B, C, *size)``; the same tensor where it has that size.
    """
    if tuple(feat.shape[-2:]) == tuple(size):
        return feat
    return F.interpolate(feat, tuple(size), mode="bilinear", align_corners=True)
