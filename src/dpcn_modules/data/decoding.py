"""Decoding image files with PIL: every kind of pixel to 8 bits, every error with the file's name."""

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

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
# What PIL raises for a broken file depends on the format and on where the file breaks.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_TURNED = (5, 6, 7, 8)  # the values of the EXIF orientation tag that swap height and width


def _existing(path: str | PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; check the name and the working folder.")
    return path


def open_upright(path: str | PathLike[str]) -> Image.Image:
    """Read a whole image file and turn it by its EXIF orientation; errors name the file."""
    # The file is opened outside `_named`, so that "permission denied" keeps its own words.
    with _existing(path).open("rb") as file:
        with _named(str(path)):
            image = Image.open(file)
        return upright(image, str(path))


def upright(image: Image.Image, name: str) -> Image.Image:
    """Decode an image that PIL opened, and turn it by its EXIF orientation."""
    with _named(name):
        image.load()
        return ImageOps.exif_transpose(image)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Word PIL's errors as one that names the file."""
    try:
        yield
    except _DECODE_ERRORS as error:
        raise ValueError(
            f"{name}: cannot be decoded ({error}); the file is truncated, damaged or not an image: "
            f"copy or save it again."
        ) from error


def rgb_tensor(image: Image.Image, name: str) -> Tensor:
    """The pixels of a decoded image, ``(3, H, W)`` uint8; ValueError if they have no 8-bit form."""
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{name}: expected at most 16 bits per pixel, got values from {values.min()} to "
                f"{values.max()}; save the image with 8 bits per channel."
            )
        grey = np.round(values / 257).astype(np.uint8)  # 65535 / 257 = 255
        pixels = np.stack([grey] * 3, axis=-1)
    elif image.mode in _EIGHT_BIT_MODES:
        # A palette with transparency cannot go to RGB in one step without a warning.
        image = image.convert("RGBA") if image.mode in ("P", "PA") else image
        pixels = np.array(image.convert("RGB"))
    else:
        raise ValueError(
            f"{name}: images in PIL's mode {image.mode!r} have no defined 8-bit form; "
            f"save the image with 8 bits per channel."
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


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
        odd = np.unique(values[(values < 0) | (values > 255)])
        raise ValueError(
            f"{name}: expected class ids from 0 to 255, got {few(odd)}; save it as an 8-bit PNG whose "
            f"values are class ids."
        )
    return torch.from_numpy(values.astype(np.uint8))


def _equal_channels(pixels: NDArray[Any], mode: str, name: str) -> NDArray[Any]:
    colours = pixels[..., :-1] if mode in ("LA", "RGBA") else pixels
    grey = colours[..., 0]
    if not (colours == grey[..., None]).all():
        raise ValueError(
            f"{name}: a mask holds one class id per pixel, but its red, green and blue differ (classes as "
            f"colours); save it as a greyscale or palette PNG whose values are class ids."
        )
    alpha_varies = mode in ("LA", "RGBA") and np.ptp(pixels[..., -1]) > 0
    if alpha_varies and np.ptp(grey) == 0:
        raise ValueError(
            f"{name}: the colours of this mask are all {grey.flat[0]}, and only its alpha channel varies; "
            f"save the alpha channel as a greyscale PNG."
        )
    return grey


def image_size(path: str | PathLike[str]) -> tuple[int, int]:
    """Height and width of an image once turned by its EXIF orientation; reads the header only."""
    with _existing(path).open("rb") as file, _named(str(path)):
        image = Image.open(file)
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


def few(values: Tensor | NDArray[Any]) -> str:
    """The first values, and how many more there are."""
    more = len(values) - 5
    return ", ".join(str(value) for value in values[:5].tolist()) + (f" and {more} more" if more > 0 else "")
