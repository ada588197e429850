"""What the pixels of a mask file mean: class ids from grey levels, palettes, bit depths and alpha channels."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dpcn_modules._checks import some
from dpcn_modules.data.decoding import Stored
from dpcn_modules.data.palettes import Palette, palette_ids
from dpcn_modules.errors import InputError

_AS_PNG = "save it as a greyscale or palette PNG whose values are class ids"


def mask_ids(image: Image.Image, stored: Stored, name: str, palette: Palette) -> Tensor:
    """The class ids of a decoded mask, ``(H, W)`` uint8.

    Args:
        image: the decoded image.
        stored: how its file stores the pixels.
        name: the name of the mask in error messages.
        palette: see `palette_ids`.

    Raises:
        ValueError: the pixels hold no class ids, or ids above 255, or it is ambiguous which.
    """
    if stored.lossy:
        raise InputError(
            f"{name}: a mask must be stored without loss, and this file is a {stored.lossy}, which changes the values "
            f"around the object; export the mask again as PNG (converting this file would keep the damage)."
        )
    if stored.frames > 1:
        raise InputError(f"{name}: expected one mask, got a file of {stored.frames} frames; save each as a PNG.")
    pixels: NDArray[Any] = np.array(image)
    if image.mode == "P":
        colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        ids = palette_ids(pixels, colours, name, palette)
    elif image.mode in ("LA", "RGB", "RGBA"):
        ids = _equal_channels(pixels, image.mode, name)
    elif image.mode in ("1", "L") or image.mode.startswith("I"):
        ids = _grey_ids(pixels, stored, name)
    else:
        raise InputError(f"{name}: a mask in PIL's mode {image.mode!r} holds no class ids; {_AS_PNG}.")
    _check_hidden(ids, _transparent(image, pixels), name)
    if ids.min() < 0 or ids.max() > 255:
        odd = np.unique(ids[(ids < 0) | (ids > 255)]).tolist()
        raise InputError(f"{name}: expected class ids from 0 to 255, got {some(odd)}; {_AS_PNG}.")
    return torch.from_numpy(ids.astype(np.uint8))


def _equal_channels(pixels: NDArray[Any], mode: str, name: str) -> NDArray[Any]:
    """One of the colour channels of a mask; ValueError if they differ or if only the alpha channel varies."""
    has_alpha = mode in ("LA", "RGBA")
    colours = pixels[..., :-1] if has_alpha else pixels
    grey: NDArray[Any] = colours[..., 0]
    if not (colours == grey[..., None]).all():
        raise InputError(
            f"{name}: a mask holds one class id per pixel, but its red, green and blue differ (classes as colours); "
            f"{_AS_PNG}."
        )
    if has_alpha and np.ptp(pixels[..., -1]) > 0 and np.ptp(grey) == 0:
        raise InputError(
            f"{name}: the colours of this mask are all {grey.flat[0]}, and only its alpha channel varies; "
            f"save the alpha channel as a greyscale PNG."
        )
    return grey


def _grey_ids(values: NDArray[Any], stored: Stored, name: str) -> NDArray[Any]:
    """Undo what PIL does to grey levels: it stretches few bits to 0..255, and inverts those whose 0 is white."""
    if stored.white_is_zero and not (values.dtype == np.bool_ and stored.software.startswith("tifffile")):
        shown = ", ".join(f"{np.sum(values == value)} as {value}" for value in np.unique(values)[:5])
        raise InputError(
            f"{name}: this TIFF declares 0 to be white (MINISWHITE), and programs disagree on what is the object then; "
            f"its pixels are shown like this: {shown}. Save it as a PNG, with the object in white."
        )
    if stored.white_is_zero:
        return ~values  # tifffile and imageio store True as 1, and declare it black
    if stored.levels:
        full = 255 if values.dtype == np.uint8 else 65535
        return (values.astype(np.int64) * stored.levels + full // 2) // full
    return values


def _transparent(image: Image.Image, pixels: NDArray[Any]) -> NDArray[Any]:
    """Where a mask is fully transparent, by its alpha channel or by its transparent colour."""
    key = image.info.get("transparency")
    hidden: NDArray[Any] = np.zeros(pixels.shape[:2], dtype=bool)
    if image.mode in ("LA", "RGBA"):
        hidden = pixels[..., -1] == 0
    elif isinstance(key, bytes):
        alpha = np.frombuffer(key.ljust(256, b"\xff"), dtype=np.uint8)
        hidden = alpha[pixels] == 0
    elif key is not None:
        hidden = (pixels == key).reshape(*pixels.shape[:2], -1).all(-1)
    return hidden


def _check_hidden(ids: NDArray[Any], hidden: NDArray[Any], name: str) -> None:
    """Raise ValueError if transparent pixels are foreground by their value: the object is what is seen."""
    odd = np.unique(ids[hidden]) if hidden.any() else np.zeros(0)
    if odd.any():
        raise InputError(
            f"{name}: {int((ids[hidden] != 0).sum())} transparent pixels have the values {some(odd.tolist())} and "
            f"{int((~hidden).sum())} pixels are opaque: it is ambiguous which are the object; save the mask without "
            f"transparency, with the object in white on black."
        )
