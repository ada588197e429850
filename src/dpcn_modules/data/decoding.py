"""Decoding of image files with PIL: every pixel format becomes 8 bits, and every error names the file."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from dpcn_modules._checks import some

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
# What PIL raises for a broken file depends on the format and on where the file breaks.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)  # values of the EXIF tag that swap height and width


def open_upright(path: str | PathLike[str]) -> Image.Image:
    """Read a whole image file and rotate it by its EXIF orientation; errors name the file."""
    with _opened(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def upright(image: Image.Image, name: str) -> Image.Image:
    """Decode an image that PIL opened, and rotate it by its EXIF orientation."""
    with _decode_errors(name):
        image.load()
        return ImageOps.exif_transpose(image)


def image_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Height and width of an image after its EXIF rotation; reads the header only."""
    with _opened(path) as image:
        swapped = image.getexif().get(ExifTags.Base.Orientation) in _SWAPPING_ORIENTATIONS
        return (image.width, image.height) if swapped else (image.height, image.width)


@contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[Image.Image]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check the name and the working folder.")
    # Opened before `_decode_errors`, so that "permission denied" is not reported as a damaged file.
    with path.open("rb") as file, _decode_errors(str(path)):
        yield Image.open(file)


@contextmanager
def _decode_errors(name: str) -> Iterator[None]:
    """Turn PIL's errors into one that names the file."""
    try:
        yield
    except _DECODE_ERRORS as error:
        reason = "the file is truncated, damaged or not an image: copy or save it again"
        raise ValueError(f"{name}: cannot be decoded ({error}); {reason}.") from error


def rgb_tensor(image: Image.Image, name: str) -> Tensor:
    """The pixels of a decoded image, ``(3, H, W)`` uint8; ValueError if they have no 8-bit form."""
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{name}: expected at most 16 bits per pixel, got values from {values.min()} to "
                f"{values.max()}; save the image with 8 bits per channel."
            )
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))  # 65535 / 257 = 255
    if image.mode not in _EIGHT_BIT_MODES:
        advice = "save the image with 8 bits per channel"
        raise ValueError(f"{name}: images in PIL's mode {image.mode!r} have no defined 8-bit form; {advice}.")
    # PIL warns when a palette with transparency is converted to RGB in one step.
    image = image.convert("RGBA") if image.mode in ("P", "PA") else image
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def id_tensor(image: Image.Image, name: str) -> Tensor:
    """The class ids of a decoded mask, ``(H, W)`` uint8; ValueError if it holds none, or ids above 255."""
    values: NDArray[Any] = np.array(image)
    if image.mode in ("LA", "RGB", "RGBA"):
        values = _equal_channels(values, image.mode, name)
    elif not (image.mode.startswith("I") or image.mode in ("1", "L", "P")):
        raise ValueError(
            f"{name}: a mask in PIL's mode {image.mode!r} holds no class ids; save it as a greyscale or "
            f"palette PNG whose values are class ids."
        )
    if values.min() < 0 or values.max() > 255:
        odd = np.unique(values[(values < 0) | (values > 255)]).tolist()
        raise ValueError(
            f"{name}: expected class ids from 0 to 255, got {some(odd)}; save it as an 8-bit PNG whose "
            f"values are class ids."
        )
    return torch.from_numpy(values.astype(np.uint8))


def _equal_channels(pixels: NDArray[Any], mode: str, name: str) -> NDArray[Any]:
    """One of the colour channels of a mask; ValueError if they differ or if only the alpha channel varies."""
    has_alpha = mode in ("LA", "RGBA")
    colours = pixels[..., :-1] if has_alpha else pixels
    grey = colours[..., 0]
    if not (colours == grey[..., None]).all():
        raise ValueError(
            f"{name}: a mask holds one class id per pixel, but its red, green and blue differ (classes as "
            f"colours); save it as a greyscale or palette PNG whose values are class ids."
        )
    if has_alpha and np.ptp(pixels[..., -1]) > 0 and np.ptp(grey) == 0:
        raise ValueError(
            f"{name}: the colours of this mask are all {grey.flat[0]}, and only its alpha channel varies; "
            f"save the alpha channel as a greyscale PNG."
        )
    return grey
