"""PFENet's training augmentation and test transform, based on torchvision's transforms v2."""

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from dpcn_modules._checks import VOID, check_integer, check_shapes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_MEAN_COLOUR = [round(255 * mean) for mean in IMAGENET_MEAN]
_BLUR_SIGMA = 1.1  # OpenCV's default for a 5 x 5 window, which PFENet uses


class TrainTransform:
    """PFENet's training augmentation.

    The steps are a random scale (bilinear for the image, nearest for the mask), a random rotation, a Gaussian blur
    of 5 x 5 (image only), a random horizontal flip, a random crop and ImageNet normalisation. Rotation and crop pad
    the image with the mean colour and the mask with 255. A crop that keeps too little of the target is repeated; if
    none keeps enough, the best one is used. All random numbers come from torch's global generator.

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

    Raises:
        TypeError, ValueError: ``size`` is not a positive whole number, or ``scale`` not a positive, ordered pair.

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
    ) -> None:
        check_integer("size", size, otherwise="; the published size is 473")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"``scale``: expected 0 < lowest <= highest, got {tuple(scale)}.")
        self.size = size
        self.scale = scale
        self.long_side = long_side
        self.min_kept = min_kept
        self.redraws = redraws
        fill = {tv_tensors.Image: _MEAN_COLOUR, tv_tensors.Mask: VOID}
        rotation = v2.RandomRotation(degrees, interpolation=v2.InterpolationMode.BILINEAR, fill=fill)
        self._augment = v2.Compose(
            [
                v2.RandomApply([rotation], p=rotation_p),
                v2.RandomApply([v2.GaussianBlur(5, sigma=_BLUR_SIGMA)], p=blur_p),
                v2.RandomHorizontalFlip(flip_p),
            ]
        )

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Augment an image and its mask together."""
        check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
        image, mask = tv_tensors.Image(image), tv_tensors.Mask(mask)
        factor = float(torch.empty(()).uniform_(*self.scale))
        if self.long_side is not None:
            factor *= self.long_side / max(mask.shape)
        image, mask = _resize(image, mask, factor)
        image, mask = self._augment(image, mask)
        image, mask = self._crop(image, mask)
        return _finished(image, mask)

    def _crop(self, image: Any, mask: Any) -> tuple[Any, Any]:
        height, width = mask.shape
        spare_height, spare_width = max(0, self.size - height), max(0, self.size - width)
        top, left = spare_height // 2, spare_width // 2
        image, mask = _pad(image, mask, [left, top, spare_width - left, spare_height - top])
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
        return best


class TestTransform:
    """The whole image on a square canvas, without random choices.

    The long side is resized to ``size`` and the aspect ratio kept (bilinear for the image, nearest for the mask). The
    image is placed at the top left of a canvas of the mean colour, the mask on one of 255. ImageNet normalisation
    follows.

    Args:
        size: side of the canvas.

    Shape:
        as in `TrainTransform`.

    Raises:
        TypeError, ValueError: ``size`` is not a positive whole number.

    Example:
        >>> image = torch.zeros(3, 20, 40, dtype=torch.uint8)
        >>> image, mask = TestTransform(size=10)(image, image[0])
        >>> mask[:, 0]
        tensor([  0,   0,   0,   0,   0, 255, 255, 255, 255, 255])
    """

    __test__ = False  # tells pytest that this is no test class

    def __init__(self, size: int = 473) -> None:
        check_integer("size", size, otherwise="; the published size is 473")
        self.size = size

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Place an image and its mask on the canvas."""
        check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
        factor = self.size / max(mask.shape)
        image, mask = _resize(tv_tensors.Image(image), tv_tensors.Mask(mask), factor)
        height, width = mask.shape
        image, mask = _pad(image, mask, [0, 0, self.size - width, self.size - height])
        return _finished(image, mask)


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


def _resize(image: Any, mask: Any, factor: float) -> tuple[Any, Any]:
    size = [max(1, round(factor * side)) for side in mask.shape]
    return F.resize(image, size), F.resize(mask, size)


def _pad(image: Any, mask: Any, sides: list[int]) -> tuple[Any, Any]:
    """Pad left, top, right, bottom: the image with the mean colour, the mask with 255."""
    return F.pad(image, sides, fill=_MEAN_COLOUR), F.pad(mask, sides, fill=VOID)


def _finished(image: Any, mask: Any) -> tuple[Tensor, Tensor]:
    """The normalised image, float32, and the mask as int64."""
    scaled = F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)
    return F.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD)), mask.as_subclass(Tensor).to(torch.int64)
