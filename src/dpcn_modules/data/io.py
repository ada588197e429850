"""Images and masks from files, PIL, numpy or tensors, as uint8 tensors."""

from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dpcn_modules._checks import VOID, some
from dpcn_modules.data.decoding import id_tensor, open_upright, rgb_tensor, upright

ImageLike = str | PathLike[str] | Image.Image | NDArray[Any] | Tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def load_image(path: str | PathLike[str]) -> Tensor:
    """Read an image as 8-bit RGB and rotate it by its EXIF orientation.

    Palette, greyscale, CMYK and 16-bit images are converted (16 bits are scaled to 8, not clipped). An alpha
    channel is dropped. Only the first frame of an animation is read.

    Args:
        path: a file in any format that PIL reads.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or not an image, or has floating-point or over 16-bit pixels.
    """
    return rgb_tensor(open_upright(path), str(path))


def load_mask(path: str | PathLike[str]) -> Tensor:
    """Read a mask with one class id per pixel.

    The ids are the indices of a palette image (PASCAL VOC), the values of a greyscale or 16-bit image, or the 0
    and 1 of a 1-bit image. A colour image is accepted only if its channels are equal.

    Args:
        path: a file in any format that PIL reads without loss (PNG).

    Returns:
        ``(H, W)``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, is colour-coded, has the object in its alpha channel only, or has
            values above 255.
    """
    return id_tensor(open_upright(path), str(path))


def as_image(image: ImageLike, name: str = "image") -> Tensor:
    """Convert an image to an 8-bit RGB tensor.

    Args:
        image: a numpy array ``(H, W, 3)`` or ``(H, W)`` (grey), a tensor ``(3, H, W)``, a path or a PIL image. Arrays
            and tensors are uint8, or floating point in [0, 1] (not normalised).
        name: the name of the image in error messages.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        TypeError: not one of these kinds, or neither uint8 nor floating point.
        ValueError: another shape, floating-point values outside [0, 1], or as `load_image`.

    Example:
        >>> as_image(np.full((2, 4, 3), 0.2)).shape
        torch.Size([3, 2, 4])
    """
    if isinstance(image, str | PathLike | Image.Image):
        return rgb_tensor(*_decoded(image, name))
    tensor = _as_tensor(image, name)
    if isinstance(image, Tensor):
        if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
            raise ValueError(
                f"``{name}``: expected a tensor (3, H, W), got shape {tuple(tensor.shape)}; move the channels "
                f"first (image.permute(2, 0, 1)), drop alpha (image[:3]) and pass images one by one."
            )
        return _eight_bit(tensor, name).contiguous()
    tensor = torch.stack([tensor] * 3, dim=-1) if tensor.ndim == 2 else tensor
    if tensor.ndim != 3 or tensor.shape[2] != 3 or 0 in tensor.shape:
        raise ValueError(
            f"``{name}``: expected an array (H, W, 3) or (H, W), got shape {tuple(tensor.shape)}; "
            f"move the channels last (image.transpose(1, 2, 0)) and drop alpha (image[..., :3])."
        )
    return _eight_bit(tensor.permute(2, 0, 1), name).contiguous()


def as_mask(mask: ImageLike, name: str = "mask") -> Tensor:
    """Convert a mask to a tensor of class ids.

    Args:
        mask: an array or tensor ``(H, W)``, a path or a PIL image. Arrays and tensors hold booleans, integers from 0
            to 255, or floating-point numbers that are all 0 or 1.
        name: the name of the mask in error messages.

    Returns:
        ``(H, W)``, uint8.

    Raises:
        TypeError: not one of these kinds.
        ValueError: another shape, values outside the ranges above, or as `load_mask`.

    Example:
        >>> as_mask(np.array([[True, False]]))
        tensor([[1, 0]], dtype=torch.uint8)
    """
    if isinstance(mask, str | PathLike | Image.Image):
        return id_tensor(*_decoded(mask, name))
    values = _as_tensor(mask, name)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"``{name}``: expected one class id per pixel (H, W), got shape {tuple(values.shape)}; "
            f"take one mask and drop axes of length 1 (mask.squeeze())."
        )
    if not values.is_floating_point():
        values = values.to(torch.int64)
    highest = 1 if values.is_floating_point() else 255
    odd = torch.unique(values[(values < 0) | (values > highest) | (values != values.to(torch.int64))]).tolist()
    if odd:
        rule = "0.0 or 1.0 in a floating-point mask" if highest == 1 else "class ids from 0 to 255"
        raise ValueError(f"``{name}``: expected {rule}, got {some(odd)}; threshold it first: (mask > 0.5).")
    return values.to(torch.uint8).contiguous()


def binary_mask(mask: Tensor, name: str) -> Tensor:
    """Convert the mask of one object to foreground 1, background 0 and void 255.

    The value 255 means void if the mask has a pixel of value 1, and foreground otherwise (a black and white image).

    Args:
        mask: ``(H, W)``, uint8 in {0, 1, 255}.
        name: the name of the mask in error messages, usually its file.

    Returns:
        ``(H, W)``, uint8 in {0, 1, 255}.

    Raises:
        ValueError: the mask has other values.

    Example:
        >>> binary_mask(torch.tensor([[0, 255]], dtype=torch.uint8), "cup_mask.png")
        tensor([[0, 1]], dtype=torch.uint8)
    """
    is_one, is_white = mask == 1, mask == VOID
    odd = torch.unique(mask[~(is_one | is_white | (mask == 0))]).tolist()
    if odd:
        raise ValueError(
            f"{name}: expected the mask of one object, with the values 0 (background) and 1 or 255 (foreground; 255 "
            f"is void where 1 is present), got {some(odd)}. In a mask with several classes, choose one: "
            f"(mask == class_id), ``class_id`` or --class-id; save a JPEG mask as PNG: JPEG blurs values."
        )
    return mask if bool(is_one.any()) else is_white.to(torch.uint8)


def check_same_size(
    image_size: tuple[int, ...], mask_size: tuple[int, ...], *, image_name: str, mask_name: str
) -> None:
    """Raise ValueError, with both names, unless an image (after its EXIF rotation) and its mask have the same
    ``(height, width)``."""
    if tuple(image_size) != tuple(mask_size):
        (image_height, image_width), (mask_height, mask_width) = image_size, mask_size
        raise ValueError(
            f"{image_name} is {image_width} x {image_height} (width x height), but its mask {mask_name} is "
            f"{mask_width} x {mask_height}: they must be equal. Images are rotated by their EXIF orientation first: "
            f"if the mask belongs to the unrotated image, rotate the mask or remove the EXIF tag; otherwise fetch "
            f"both files again."
        )


def _decoded(image: str | PathLike[str] | Image.Image, name: str) -> tuple[Image.Image, str]:
    """A file or a PIL image, decoded and rotated, and its file name (``name`` if it has none)."""
    if not isinstance(image, Image.Image):
        return open_upright(image), str(image)
    name = str(getattr(image, "filename", "") or name)
    return upright(image, name), name


def _as_tensor(values: object, name: str) -> Tensor:
    """A copy of an array, or a tensor on the CPU."""
    if isinstance(values, np.ndarray):
        return torch.from_numpy(np.array(values))
    if isinstance(values, Tensor):
        return values.detach().cpu()
    raise TypeError(f"``{name}``: expected a path, a PIL image, an array or a tensor, got {type(values).__name__}.")


def _eight_bit(tensor: Tensor, name: str) -> Tensor:
    """A uint8 tensor as it is, and a floating-point one in [0, 1] scaled to 0..255."""
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise TypeError(
            f"``{name}``: expected uint8 or floating point in [0, 1], got {tensor.dtype}; scale it to 0..255 and "
            f"convert it to uint8."
        )
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise ValueError(
            f"``{name}``: expected floating-point values in [0, 1], got {float(tensor.min()):.3g} to "
            f"{float(tensor.max()):.3g}; pass the image as it was before it was normalised, or as uint8."
        )
    return (tensor * 255).round().to(torch.uint8)
