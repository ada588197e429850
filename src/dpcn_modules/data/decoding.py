"""Decoding of image files with PIL: every pixel format becomes 8 bits, and every error names the file."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from dpcn_modules.errors import InputError, InputFileError

Encoded = str | PathLike[str] | bytes | IO[bytes] | Image.Image

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
# What PIL raises for a broken file depends on the format and on where the file breaks.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_SWAPPING_ORIENTATIONS = (5, 6, 7, 8)  # values of the EXIF tag that swap height and width
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF")
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _SOFTWARE = 258, 259, 262, 305  # TIFF's tags
_FAX_COMPRESSIONS = (2, 3, 4)


class Stored(NamedTuple):
    """How a file stores its pixels, as far as PIL forgets it in decoding.

    Attributes:
        lossy: the name of a lossy format; empty for others.
        levels: the highest grey level, where PIL stretches it to 255 (or to 65535).
        white_is_zero: PIL inverted the grey levels, since the file declares 0 to be white.
        software: the program that wrote a TIFF.
        frames: number of images in the file.
    """

    lossy: str = ""
    levels: int | None = None
    white_is_zero: bool = False
    software: str = ""
    frames: int = 1


def is_encoded(source: object) -> bool:
    """Whether a source is a path, the bytes of a file, an open file or a PIL image."""
    return isinstance(source, str | PathLike | bytes | Image.Image) or hasattr(source, "read")


def source_name(source: object, otherwise: str) -> str:
    """The name of a source's file, or another where it has none."""
    if isinstance(source, str | PathLike):
        return str(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return name if isinstance(name, str) else otherwise


def decode(source: Encoded, name: str) -> Image.Image:
    """Decode an image completely and rotate it by its EXIF orientation; errors name it."""
    with _opened(source, name) as image:
        return _upright(image)


def decode_mask(source: Encoded, name: str) -> tuple[Image.Image, Stored]:
    """Decode a mask like an image, and tell how it was stored.

    The file is read once more for its checksums, which PIL does not look at in decoding.
    """
    if not isinstance(source, Image.Image):
        with _opened(source, name) as image:
            image.verify()
    with _opened(source, name) as image:
        stored = _stored(image)
        return _upright(image), stored


def image_size(source: Encoded) -> tuple[int, int]:
    """Height and width of an image after its EXIF rotation; reads the header only."""
    with _opened(source, str(source)) as image:
        swapped = _orientation(image) in _SWAPPING_ORIENTATIONS
        return (image.width, image.height) if swapped else (image.height, image.width)


def orientation(source: Encoded) -> tuple[int, bool]:
    """The EXIF orientation, 1 (upright) to 8, and whether it changes height and width; reads the header only."""
    with _opened(source, str(source)) as image:
        value = _orientation(image)
        return value, value in _SWAPPING_ORIENTATIONS and image.width != image.height


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    return ImageOps.exif_transpose(image)


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


@contextmanager
def _opened(source: Encoded, name: str) -> Iterator[Image.Image]:
    if isinstance(source, str | PathLike):
        path = Path(source)
        if not path.is_file():
            raise InputFileError(f"{path}: there is no such file; check the name and the working folder.")
        # Opened before `_decode_errors`, so that "permission denied" is not reported as a damaged file.
        with path.open("rb") as file, _decode_errors(name):
            yield Image.open(file)
    else:
        with _decode_errors(name):
            source = BytesIO(source) if isinstance(source, bytes) else source
            yield source if isinstance(source, Image.Image) else Image.open(source)


@contextmanager
def _decode_errors(name: str) -> Iterator[None]:
    """Turn PIL's errors into one that names the file."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name}: {error}; if the file is yours, raise Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS = None), or make "
            f"the image smaller or cut it into tiles."
        ) from error
    except _DECODE_ERRORS as error:
        reason = "the file is truncated, damaged or not an image: copy or save it again"
        raise InputError(f"{name}: cannot be decoded ({error}); {reason}.") from error


def _stored(image: Image.Image) -> Stored:
    kind = str(image.format or "")
    tags: dict[int, Any] = dict(getattr(image, "tag_v2", {}))
    lossy = kind if kind in _LOSSY_FORMATS else ""
    if "jpeg" in str(image.info.get("compression", "")):
        lossy = "TIFF with JPEG compression"
    return Stored(
        lossy=lossy,
        levels=_grey_levels(image, tags.get(_BITS_PER_SAMPLE, (8,))),
        white_is_zero=tags.get(_PHOTOMETRIC) == 0 and tags.get(_COMPRESSION, 1) not in _FAX_COMPRESSIONS,
        software=str(tags.get(_SOFTWARE, "")),
        frames=int(getattr(image, "n_frames", 1)),
    )


def _grey_levels(image: Image.Image, bits: tuple[int, ...]) -> int | None:
    """The highest grey level of a PNG, TIFF or PGM whose levels PIL stretches."""
    if image.mode not in ("L", "I"):
        return None
    if image.format == "TIFF":
        return 2 ** bits[0] - 1 if bits[0] < 8 else None
    tile: list[Any] = getattr(image, "tile", [])
    path = getattr(image, "filename", "")
    if not tile and path:
        with Image.open(path) as again:  # decoding forgets it
            tile = again.tile
    mode = tile[0].args if tile else ""
    if image.format == "PPM" and isinstance(mode, tuple):
        return int(mode[1])
    return {"L;2": 3, "L;4": 15}.get(mode) if isinstance(mode, str) else None


def rgb_tensor(image: Image.Image, name: str) -> Tensor:
    """The pixels of a decoded image, ``(3, H, W)`` uint8; ValueError if they have no 8-bit form."""
    if image.mode.startswith("I"):
        values = np.array(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{name}: expected at most 16 bits per pixel, got values from {values.min()} to "
                f"{values.max()}; save the image with 8 bits per channel."
            )
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))  # 65535 / 257 = 255
    if image.mode not in _EIGHT_BIT_MODES:
        advice = "save the image with 8 bits per channel"
        raise InputError(f"{name}: images in PIL's mode {image.mode!r} have no defined 8-bit form; {advice}.")
    # PIL warns when a palette with transparency is converted to RGB in one step.
    image = image.convert("RGBA") if image.mode in ("P", "PA") else image
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
