"""Images and masks from files, PIL, numpy or tensors, as uint8 tensors."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dpcn_modules._checks import some
from dpcn_modules.data.decoding import Encoded, decode, decode_mask, is_encoded, orientation, rgb_tensor, source_name
from dpcn_modules.data.mask_decoding import mask_ids
from dpcn_modules.data.palettes import Palette
from dpcn_modules.errors import InputError, InputTypeError

ImageLike = Encoded | NDArray[Any] | Tensor

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def load_image(path: Encoded) -> Tensor:
    """Read an image as 8-bit RGB and rotate it by its EXIF orientation.

    Palette, greyscale, CMYK and 16-bit images are converted (16 bits are scaled to 8, not clipped). An alpha
    channel is dropped. Only the first frame of an animation is read.

    Args:
        path: a file in any format that PIL reads: its path, its bytes, an open file or a PIL image.

    Returns:
        ``(3, H, W)``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or not an image, or has floating-point or over 16-bit pixels.
    """
    return as_image(path)


def load_mask(path: Encoded, *, palette: Palette = "ids") -> Tensor:
    """Read a mask with one class id per pixel.

    The ids are the values of a greyscale image of 1 to 16 bits, or the indices of a palette; black and white alone are
    0 and 1 in any palette. A colour image is accepted only if its channels are equal. Transparent pixels must be 0.

    Args:
        path: a file without lossy compression, best a PNG: its path, its bytes, an open file or a PIL image.
        palette: what the indices of a palette mean where its colours say otherwise: "ids" refuses what is ambiguous,
            "object" accepts one colour beside black, "voc" reads PASCAL VOC's colours, "index" takes the indices; see
            docs/data.md.

    Returns:
        ``(H, W)``, uint8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be decoded, is lossy (JPEG) or has several frames; the classes are colours; the
            object is in the alpha channel, or white is stored as 0 or transparent, so that it is ambiguous what the
            object is; indices and colours of a palette disagree; or values are above 255.
    """
    return as_mask(path, palette=palette)


def as_image(image: ImageLike, name: str = "image") -> Tensor:
    """Convert an image to an 8-bit RGB tensor.

    Args:
        image: a numpy array ``(H, W, 3)`` or ``(H, W)`` (grey), a tensor ``(3, H, W)``, or a file as in `load_image`.
            Arrays and tensors are uint8, or floating point in [0, 1] (not normalised).
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
    if is_encoded(image):
        name = source_name(image, name)
        return rgb_tensor(decode(image, name), name)  # type: ignore[arg-type]
    tensor = _as_tensor(image, name)
    if isinstance(image, Tensor):
        if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
            raise InputError(
                f"``{name}``: expected a tensor (3, H, W), got shape {tuple(tensor.shape)}; move the channels "
                f"first (image.permute(2, 0, 1)), drop alpha (image[:3]) and pass images one by one."
            )
        return eight_bit(tensor, name).contiguous()
    tensor = torch.stack([tensor] * 3, dim=-1) if tensor.ndim == 2 else tensor
    if tensor.ndim != 3 or tensor.shape[2] != 3 or 0 in tensor.shape:
        raise InputError(
            f"``{name}``: expected an array (H, W, 3) or (H, W), got shape {tuple(tensor.shape)}; "
            f"move the channels last (image.transpose(1, 2, 0)) and drop alpha (image[..., :3])."
        )
    return eight_bit(tensor.permute(2, 0, 1), name).contiguous()


def as_mask(mask: ImageLike, name: str = "mask", *, palette: Palette = "ids") -> Tensor:
    """Convert a mask to a tensor of class ids.

    Args:
        mask: an array or tensor ``(H, W)``, or a file as in `load_mask`. Arrays and tensors hold booleans, integers
            from 0 to 255, or floating-point numbers that are all 0 or 1.
        name: the name of the mask in error messages.
        palette: as in `load_mask`.

    Returns:
        ``(H, W)``, uint8.

    Raises:
        TypeError: not one of these kinds.
        ValueError: another shape, values outside the ranges above, or as `load_mask`.

    Example:
        >>> as_mask(np.array([[True, False]]))
        tensor([[1, 0]], dtype=torch.uint8)
    """
    if is_encoded(mask):
        name = source_name(mask, name)
        return mask_ids(*decode_mask(mask, name), name, palette)  # type: ignore[arg-type]
    values = _as_tensor(mask, name)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(
            f"``{name}``: expected one class id per pixel (H, W), got shape {tuple(values.shape)}; "
            f"take one mask and drop axes of length 1 (mask.squeeze())."
        )
    if not values.is_floating_point():
        values = values.to(torch.int64)
    highest = 1 if values.is_floating_point() else 255
    odd = torch.unique(values[(values < 0) | (values > highest) | (values != values.to(torch.int64))]).tolist()
    if odd:
        rule = "0.0 or 1.0 in a floating-point mask" if highest == 1 else "class ids from 0 to 255"
        raise InputError(f"``{name}``: expected {rule}, got {some(odd)}; threshold it first: (mask > 0.5).")
    return values.to(torch.uint8).contiguous()


def check_same_size(
    image_size: tuple[int, ...], mask_size: tuple[int, ...], *, image_name: str, mask_name: str
) -> None:
    """Raise ValueError, with both names, unless an image (after its EXIF rotation) and its mask have the same
    ``(height, width)``."""
    if tuple(image_size) != tuple(mask_size):
        (image_height, image_width), (mask_height, mask_width) = image_size, mask_size
        raise InputError(
            f"{image_name} is {image_width} x {image_height} (width x height), but its mask {mask_name} is "
            f"{mask_width} x {mask_height}: they must be equal. Images are rotated by their EXIF orientation first: "
            f"if the mask belongs to the unrotated image, rotate the mask or remove the EXIF tag; otherwise fetch "
            f"both files again."
        )


def warn_of_orientation(image: ImageLike, mask: ImageLike, *, image_name: str, mask_name: str) -> None:
    """Warn where only the image has an EXIF orientation: a mask that was drawn on the unrotated pixels is misplaced."""
    if not (is_encoded(image) and is_encoded(mask)):
        return
    turned, swapped = orientation(image)  # type: ignore[arg-type]
    # Where height and width change places, the check of the sizes has already told the two apart.
    if turned != 1 and not swapped and orientation(mask)[0] == 1:  # type: ignore[arg-type]
        warnings.warn(
            f"{image_name} is rotated or mirrored by its EXIF orientation ({turned}), and its mask {mask_name} has "
            f"none: right if the mask was drawn on the image as viewers show it; if it was drawn on the stored pixels, "
            f"give the mask the same orientation, or remove the tag from the image.",
            stacklevel=2,
        )


def _as_tensor(values: object, name: str) -> Tensor:
    """A copy of an array, or a tensor on the CPU."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "buif":
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
    if isinstance(values, Tensor) and not values.is_complex():
        return values.detach().cpu()
    if isinstance(values, np.ndarray | Tensor):
        raise InputTypeError(f"``{name}``: expected booleans, integers or floating-point numbers, got {values.dtype}.")
    raise InputTypeError(
        f"``{name}``: expected a path, a PIL image, an array or a tensor, got {type(values).__name__}."
    )


def eight_bit(tensor: Tensor, name: str) -> Tensor:
    """A uint8 tensor as it is, and a floating-point one in [0, 1] scaled to 0..255."""
    if tensor.dtype == torch.uint8:
        return tensor
    if not tensor.is_floating_point():
        raise InputTypeError(
            f"``{name}``: expected uint8 or floating point in [0, 1], got {tensor.dtype}; scale it to 0..255 and "
            f"convert it to uint8."
        )
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(
            f"``{name}``: expected floating-point values in [0, 1], got {float(tensor.min()):.3g} to "
            f"{float(tensor.max()):.3g}; pass the image as it was before it was normalised, or as uint8."
        )
    return (tensor * 255).round().to(torch.uint8)
