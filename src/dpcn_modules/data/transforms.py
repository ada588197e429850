"""PFENet's training augmentation and test transform, based on torchvision's transforms v2."""

from typing import Any, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from dpcn_modules._checks import VOID, check_choice, check_integer
from dpcn_modules.data.resizing import (
    MEAN_COLOUR,
    MaskInterpolation,
    checked_pair,
    finished,
    lost,
    pad_pair,
    resize_pair,
)
from dpcn_modules.errors import InputError

_BLUR_SIGMA = 1.1  # OpenCV's default for a 5 x 5 window, which PFENet uses


class TrainTransform:
    """PFENet's training augmentation.

    The steps are a random scale (bilinear for the image, nearest for the mask), a random rotation, a Gaussian blur
    of 5 x 5 (image only), a random horizontal flip, a random crop and ImageNet normalisation. Rotation and crop pad
    the image with the mean colour and the mask with 255. A crop that keeps too little of the target is repeated; if
    none keeps enough, the best one is used. The target is never lost: a scale keeps at least one cell of it, a rotation
    that would lose it is left out, and if no crop shows any of it, one around it is used. All random numbers come from
    torch's global generator.

    Args:
        size: side of the square crop; PFENet uses 473 (641 on COCO).
        scale: lowest and highest scale; (0.9, 1.1) on PASCAL, (0.8, 1.25) on COCO.
        long_side: resize the image's long side to this many pixels first. None, as in PFENet, keeps the size; set it
            if the crop is much smaller than the images.
        degrees: largest angle of the rotation in either direction.
        rotation_p: probability of a rotation.
        blur_p: probability of a blur.
        flip_p: probability of a flip.
        min_kept: share of the target's pixels that a crop must keep.
        redraws: how often a crop may be repeated.
        mask_interpolation: "nearest-exact" lays the mask on the image; "nearest", which published code uses (PFENet,
            HSNet), lays it half a pixel beside it, towards the bottom right.

    Raises:
        TypeError, ValueError: ``size`` is not a positive whole number, ``scale`` not a positive, ordered pair, or
            ``mask_interpolation`` unknown; on a call, as in `checked_pair`.

    Shape:
        image ``(3, H, W)`` uint8 and mask ``(H, W)`` uint8 in {0, 1, 255} to image ``(3, size, size)``
        float32 and mask ``(size, size)`` int64 in {0, 1, 255}.

    Example:
        >>> image = torch.zeros(3, 20, 30, dtype=torch.uint8)
        >>> image, mask = TrainTransform(size=16)(image, image[0])
        >>> image.shape, mask.shape
        (torch.Size([3, 16, 16]), torch.Size([16, 16]))
    """

    def __init__(
        self,
        size: int = 473,
        scale: tuple[float, float] = (0.9, 1.1),
        *,
        long_side: int | None = None,
        degrees: float = 10.0,
        rotation_p: float = 0.5,
        blur_p: float = 0.5,
        flip_p: float = 0.5,
        min_kept: float = 0.85,
        redraws: int = 30,
        mask_interpolation: MaskInterpolation = "nearest-exact",
    ) -> None:
        check_integer("size", size, otherwise="; the published size is 473")
        check_choice("mask_interpolation", mask_interpolation, get_args(MaskInterpolation))
        if not 0 < scale[0] <= scale[1]:
            raise InputError(f"``scale``: expected 0 < lowest <= highest, got {tuple(scale)}.")
        self.size = size
        self.scale = scale
        self.long_side = long_side
        self.min_kept = min_kept
        self.redraws = redraws
        self.mask_interpolation: MaskInterpolation = mask_interpolation
        fill = {tv_tensors.Image: MEAN_COLOUR, tv_tensors.Mask: VOID}
        rotation = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
        self._rotate = v2.RandomApply([rotation], p=rotation_p)
        self._blur_and_flip = v2.Compose(
            [
                v2.RandomApply([v2.GaussianBlur(5, sigma=_BLUR_SIGMA)], p=blur_p),
                v2.RandomHorizontalFlip(flip_p),
            ]
        )

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Augment an image and its mask together."""
        image, mask = checked_pair(image, mask)
        factor = float(torch.empty(()).uniform_(*self.scale))
        if self.long_side is not None:
            factor *= self.long_side / max(mask.shape)
        image, mask = resize_pair(image, mask, factor, self.mask_interpolation)
        rotated = self._rotate(image, mask)
        image, mask = (image, mask) if lost(mask, rotated[1]) else rotated
        image, mask = self._blur_and_flip(image, mask)
        return finished(*self._crop(image, mask))

    def _crop(self, image: Any, mask: Any) -> tuple[Any, Any]:
        height, width = mask.shape
        spare_height, spare_width = max(0, self.size - height), max(0, self.size - width)
        top, left = spare_height // 2, spare_width // 2
        image, mask = pad_pair(image, mask, [left, top, spare_width - left, spare_height - top])
        top, left = self._choose_corner((mask == 1).as_subclass(Tensor))
        corner = (top, left, self.size, self.size)
        return F.crop(image, *corner), F.crop(mask, *corner)

    def _choose_corner(self, target: Tensor) -> tuple[int, int]:
        """Top and left of the first crop that keeps enough of the target, or of the one that keeps most."""
        height, width = target.shape
        needed = self.min_kept * int(target.sum())
        most, best = -1, (0, 0)
        for _ in range(1 + self.redraws):
            top = int(torch.randint(height - self.size + 1, ()))
            left = int(torch.randint(width - self.size + 1, ()))
            kept = int(target[top : top + self.size, left : left + self.size].sum())
            if kept > most:
                most, best = kept, (top, left)
            if most >= needed:
                break
        if most == 0 < needed:
            row, column = target.nonzero()[0].tolist()
            best = (min(row, height - self.size), min(column, width - self.size))
        return best


class TestTransform:
    """The whole image on a square canvas, without random choices.

    The long side is resized to ``size`` and the aspect ratio kept (bilinear for the image, nearest for the mask, of
    whose target at least one cell is kept). The image is placed at the top left of a canvas of the mean colour, the
    mask on one of 255. ImageNet normalisation follows.

    Args:
        size: side of the canvas.
        mask_interpolation: as in `TrainTransform`.

    Shape:
        as in `TrainTransform`.

    Raises:
        TypeError, ValueError: as in `TrainTransform`.

    Example:
        >>> image = torch.zeros(3, 20, 40, dtype=torch.uint8)
        >>> image, mask = TestTransform(size=10)(image, image[0])
        >>> mask[:, 0]
        tensor([  0,   0,   0,   0,   0, 255, 255, 255, 255, 255])
    """

    __test__ = False  # tells pytest that this is no test class

    def __init__(self, size: int = 473, *, mask_interpolation: MaskInterpolation = "nearest-exact") -> None:
        check_integer("size", size, otherwise="; the published size is 473")
        check_choice("mask_interpolation", mask_interpolation, get_args(MaskInterpolation))
        self.size = size
        self.mask_interpolation: MaskInterpolation = mask_interpolation

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Place an image and its mask on the canvas."""
        image, mask = checked_pair(image, mask)
        image, mask = resize_pair(image, mask, self.size / max(mask.shape), self.mask_interpolation)
        height, width = mask.shape
        image, mask = pad_pair(image, mask, [0, 0, self.size - width, self.size - height])
        return finished(image, mask)
