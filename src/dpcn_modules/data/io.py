"""Images and masks: from files, PIL, numpy or tensors to uint8 tensors, or an error that names the culprit."""

from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dpcn_modules._checks import VOID
from dpcn_modules.data.decoding import few, id_tensor, open_upright, rgb_tensor, upright

ImageLike = str | PathLike[str] | Image.Image | NDArray[Any] | Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def load_image(path: str | PathLike[str]) -> Tensor:
    """Read an image as 8-bit RGB, turned the way its EXIF orientation says.

    Palette, greyscale, CMYK and 16-bit images are converted (16 bits are scaled to 8, not clipped); an
    alpha channel is dropped and the colours below it are kept; of an animation the first frame is read.

    Args:
        path: a file in any format that PIL reads.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or not an image, or has floating-point pixels.
    """
    return rgb_tensor(open_upright(path), str(path))


def load_mask(path: str | PathLike[str]) -> Tensor:
    """Read a mask: one class id per pixel.

    A palette image gives its indices (PASCAL VOC), a 1-bit one 0 and 1, a greyscale one its values, a
    16-bit one its values where they are below 256. A colour image is accepted only if its channels are equal.

    Args:
        path: a file in any format that PIL reads without loss (PNG).

    Returns:
        ``(H, W)``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, is colour-coded, hides the object in its alpha channel, or
            has values above 255.
    """
    return id_tensor(open_upright(path), str(path))


def as_image(image: ImageLike, name: str = "image") -> Tensor:
    """Turn an image of any usual kind into an 8-bit RGB tensor.

    Args:
        image: a path; a PIL image; a numpy array ``(H, W, 3)`` or ``(H, W)`` (grey); or a tensor
            ``(3, H, W)``. Arrays and tensors are uint8, or floating point in [0, 1] (not normalised).
        name: what errors call it.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        TypeError: not one of these kinds, or neither uint8 nor floating point.
        ValueError: another shape, floating-point values outside [0, 1], or as `load_image`.

    Example:
        >>> as_image(np.full((2, 4, 3), 0.2)).shape
        torch.Size([3, 2, 4])
    """
    if isinstance(image, str | PathLike):
        return load_image(image)
    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or name)
        return rgb_tensor(upright(image, name), name)
    if isinstance(image, np.ndarray):
        if image.ndim == 2:
            image = np.stack([image] * 3, axis=-1)
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(
                f"``{name}``: expected an array (H, W, 3) or (H, W), got shape {image.shape}; "
                f"move the channels last (image.transpose(1, 2, 0)) and drop alpha (image[..., :3])."
            )
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    elif isinstance(image, Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(
                f"``{name}``: expected a tensor (3, H, W), got shape {tuple(image.shape)}; move the channels "
                f"first (image.permute(2, 0, 1)), drop alpha (image[:3]) and pass images one by one."
            )
        tensor = image.detach().cpu()
    else:
        raise TypeError(f"``{name}``: expected a path, a PIL image, an array or a tensor, got {type(image).__name__}.")
    return _eight_bit(tensor, name).contiguous()


def as_mask(mask: ImageLike, name: str = "mask") -> Tensor:
    """Turn a mask of any usual kind into a tensor of class ids.

    Args:
        mask: a path; a PIL image; or an array or tensor ``(H, W)`` of booleans, of integers 0 to 255, or
            of floating-point numbers that are all 0 or 1.
        name: what errors call it.

    Returns:
        ``(H, W)``, uint8.

    Raises:
        TypeError: not one of these kinds.
        ValueError: another shape, values outside the ranges above, or as `load_mask`.

    Example:
        >>> as_mask(np.array([[True, False]]))
        tensor([[1, 0]], dtype=torch.uint8)
    """
    if isinstance(mask, str | PathLike):
        return load_mask(mask)
    if isinstance(mask, Image.Image):
        name = str(getattr(mask, "filename", "") or name)
        return id_tensor(upright(mask, name), name)
    if not isinstance(mask, np.ndarray | Tensor):
        raise TypeError(f"``{name}``: expected a path, a PIL image, an array or a tensor, got {type(mask).__name__}.")
    if mask.ndim != 2 or 0 in mask.shape:
        raise ValueError(
            f"``{name}``: expected one class id per pixel (H, W), got shape {tuple(mask.shape)}; "
            f"take one mask and drop axes of length 1 (mask.squeeze())."
        )
    values = mask.detach().cpu() if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    if not values.is_floating_point():
        values = values.to(torch.int64)
    highest = 1 if values.is_floating_point() else 255
    in_range = (values >= 0) & (values <= highest)
    whole = values == values.to(torch.int64)
    if not bool((in_range & whole).all()):
        odd = torch.unique(values[~(in_range & whole)])[:5].tolist()
        rule = "0.0 or 1.0 in a floating-point mask" if highest == 1 else "class ids from 0 to 255"
        raise ValueError(f"``{name}``: expected {rule}, got {odd}; threshold it first: (mask > 0.5).")
    return values.to(torch.uint8).contiguous()


def binary_mask(mask: Tensor, name: str) -> Tensor:
    """Read a mask of ONE object: foreground 1, background 0, void 255.

    A black and white image is allowed too: where no pixel is 1, the value 255 is the foreground; where some
    pixel is 1, 255 is void.

    Args:
        mask: ``(H, W)``, uint8 in {0, 1, 255}.
        name: what errors call it, usually its file.

    Returns:
        ``(H, W)``, uint8 in {0, 1, 255}.

    Raises:
        ValueError: other values.

    Example:
        >>> binary_mask(torch.tensor([[0, 255]], dtype=torch.uint8), "cup_mask.png")
        tensor([[0, 1]], dtype=torch.uint8)
    """
    is_one, is_white = mask == 1, mask == VOID
    odd = torch.unique(mask[~(is_one | is_white | (mask == 0))])
    if len(odd) > 0:
        raise ValueError(
            f"{name}: expected the mask of one object, with the values 0 (background) and 1 or 255 "
            f"(foreground; 255 is void where 1 is present), got {few(odd)}. Of a mask with several classes, "
            f"choose one: (mask == class_id), ``class_id`` or --class-id; if it was saved as JPEG, save it as PNG: "
            f"JPEG blurs values."
        )
    return mask if bool(is_one.any()) else is_white.to(torch.uint8)


def check_same_size(
    image_size: tuple[int, int], mask_size: tuple[int, int], *, image_name: str, mask_name: str
) -> None:
    """Raise ValueError unless an image and its mask have one size.

    Args:
        image_size: height and width of the image, turned by its EXIF orientation.
        mask_size: height and width of the mask.
        image_name: what errors call the image, usually its file.
        mask_name: what errors call the mask.
    """
    if tuple(image_size) != tuple(mask_size):
        (image_height, image_width), (mask_height, mask_width) = image_size, mask_size
        raise ValueError(
            f"{image_name} is {image_width} x {image_height} (width x height), but its mask {mask_name} is "
            f"{mask_width} x {mask_height}: they must be equal. An image is turned by its EXIF rotation "
            f"first: if the mask was drawn on the unturned image, turn the mask or remove the EXIF tag."
        )


def _eight_bit(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise TypeError(
            f"``{name}``: expected uint8 or floating point in [0, 1], got {tensor.dtype}; scale it to "
            f"0..255 and convert it to uint8."
        )
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise ValueError(
            f"``{name}``: expected floating-point values in [0, 1], got {float(tensor.min()):.3g} to "
            f"{float(tensor.max()):.3g}; pass the image as it was before it was normalised, or as uint8."
        )
    return (tensor * 255).round().to(torch.uint8)
