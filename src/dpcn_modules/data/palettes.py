"""What the indices of a palette mask mean: themselves, or the ids that their colours stand for."""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dpcn_modules._checks import VOID, check_choice, some
from dpcn_modules.errors import InputError

Palette = Literal["ids", "object", "voc", "index"]
Colour = tuple[int, ...]

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


# Each group of three bits of an id, from the lowest, sets the next highest bit of R, G and B.
_ID_BITS = (np.arange(256)[:, None, None] >> np.arange(9).reshape(3, 3)) & 1  # (id, group, channel)
VOC_COLOURS: list[Colour] = [tuple(colour) for colour in (_ID_BITS << np.array([[7], [6], [5]])).sum(axis=1).tolist()]
"""The palette of PASCAL VOC's masks: id to red, green and blue."""

_VOC_IDS = {colour: class_id for class_id, colour in enumerate(VOC_COLOURS)}
_GREY_LEVELS = {(level,) * 3: level for level in range(256)}


def palette_ids(indices: NDArray[Any], colours: NDArray[Any], name: str, palette: Palette) -> NDArray[Any]:
    """The class ids of a palette mask.

    Indices are ids where the palette is VOC's or a grey ramp. Black and white alone are 0 and 1, whatever their
    indices. Programs that make PNG files smaller renumber the indices and keep the colours: where all colours are
    VOC's at other indices, they are read by colour if VOC's void is among them, and refused otherwise.

    Args:
        indices: ``(H, W)``, integers.
        colours: ``(N, 3)``, the palette, uint8.
        name: the name of the mask in error messages.
        palette: "ids" as above; "object" also takes one colour beside black, since it is the object by either reading;
            "voc" reads VOC's colours and refuses others; "index" takes the indices as they are.

    Raises:
        ValueError: an unknown ``palette``; indices and colours stand for different ids; or, for "voc", a colour is not
            VOC's.
    """
    check_choice("palette", palette, get_args(Palette))
    used = np.unique(indices).tolist()
    shown = [tuple(colours[index].tolist()) for index in used]
    readings = [[ids[colour] for colour in shown] for ids in (_VOC_IDS, _GREY_LEVELS) if ids.keys() >= set(shown)]
    if palette == "index" or used in readings:
        return indices
    if set(shown) <= {_BLACK, _WHITE}:
        return _renumbered(indices, used, [int(colour == _WHITE) for colour in shown])
    if _VOC_IDS.keys() >= set(shown) and (palette == "voc" or VOID in readings[0]):
        return _renumbered(indices, used, readings[0])
    if palette == "voc":
        raise InputError(
            f"{name}: expected PASCAL VOC's palette, got the colours {some(shown)} at the indices {some(used)}; save "
            f"the mask as a greyscale PNG whose values are class ids."
        )
    if readings and not (palette == "object" and used == [0, 1] and shown[0] == _BLACK):
        raise InputError(
            f"{name}: its pixels have the palette indices {some(used)}, and their colours stand for the ids "
            f"{some(readings[0])}; programs that make PNG files smaller renumber the indices. Say which are right: "
            f"load_mask(path, palette='index'), or palette='voc' for VOC's colours; save grey levels as a greyscale "
            f"PNG."
        )
    return indices


def _renumbered(indices: NDArray[Any], used: list[int], ids: list[int]) -> NDArray[Any]:
    table = np.zeros(256, dtype=np.uint8)
    table[used] = ids
    renumbered: NDArray[Any] = table[indices]
    return renumbered
