"""Resizing, padding and normalisation of an image together with its mask."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from dpcn_modules._checks import VOID, check_mask_values, check_shapes
from dpcn_modules.data.io import eight_bit
from dpcn_modules.interface import IMAGENET_MEAN, IMAGENET_STD

MEAN_COLOUR = [round(255 * mean) for mean in IMAGENET_MEAN]

MaskInterpolation = Literal["nearest-exact", "nearest"]


def checked_pair(image: Tensor, mask: Tensor) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """An image ``(3, H, W)`` and its mask ``(H, W)`` in {0, 1, 255}, both as uint8.

    Raises:
        TypeError: the image is neither uint8 nor floating point.
        ValueError: the shapes disagree, a floating-point image is not in [0, 1], or the mask has other values.
    """
    check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
    check_mask_values("mask", mask)
    return tv_tensors.Image(eight_bit(image, "image")), tv_tensors.Mask(mask.to(torch.uint8))


def resize_pair(image: Any, mask: Any, factor: float, interpolation: MaskInterpolation) -> tuple[Any, Any]:
    """Resize an image (bilinear, with half-pixel centres) and its mask, so that no object is lost."""
    size = [max(1, round(factor * side)) for side in mask.shape]
    resized = F.resize(mask, size, interpolation=InterpolationMode(interpolation))
    return F.resize(image, size), keep_object(resized, mask)


def keep_object(resized: Any, mask: Any) -> Any:
    """Mark an object that resizing stepped over where most of it lies.

    Args:
        resized: ``(h, w)`` in {0, 1, 255}.
        mask: what it was made of, ``(H, W)``.

    Returns:
        ``resized``; where it has lost all foreground of ``mask``, a copy with 1 in the cells that hold at least half of
        the largest share of it.
    """
    if not lost(mask, resized):
        return resized
    share = adaptive_avg_pool2d((mask == 1).as_subclass(Tensor)[None].to(torch.float32), resized.shape)[0]
    return tv_tensors.Mask(resized.masked_fill(share >= share.max() / 2, 1))


def lost(before: Tensor, after: Tensor) -> bool:
    """Whether a mask had foreground and has none any more."""
    return bool((before == 1).any()) and not bool((after == 1).any())


def pad_pair(image: Any, mask: Any, sides: list[int]) -> tuple[Any, Any]:
    """Pad left, top, right, bottom: the image with the mean colour, the mask with 255."""
    return F.pad(image, sides, fill=MEAN_COLOUR), F.pad(mask, sides, fill=VOID)


def finished(image: Any, mask: Any) -> tuple[Tensor, Tensor]:
    """The normalised image, float32, and the mask as int64."""
    scaled = F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)
    return F.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD)), mask.as_subclass(Tensor).to(torch.int64)


def denormalise(image: Tensor) -> Tensor:
    """Convert normalised images back to 8-bit ones for display.

    Args:
        image: ``(..., 3, H, W)``, normalised with the ImageNet mean and standard deviation.

    Returns:
        ``(..., 3, H, W)``, uint8.

    Example:
        >>> denormalise(torch.zeros(3, 1, 1)).flatten()  # the mean colour
        tensor([124, 116, 104], dtype=torch.uint8)
    """
    mean = torch.tensor(IMAGENET_MEAN, device=image.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=image.device)[:, None, None]
    return ((image * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
