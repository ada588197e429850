"""The outlines of COCO's objects, polygons or run lengths, as pycocotools' compressed run lengths."""

from typing import Any

from dpcn_modules.data.datasets.coco_file import whole
from dpcn_modules.errors import InputError

_REACH = 10  # sides of the image; pycocotools' memory grows with the length of an outline


def encode(segmentation: object, size: tuple[int, int]) -> dict[str, Any]:
    """The pixels of a segmentation.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, of which those with fewer than three points cover nothing,
            or ``{"size": [H, W], "counts": ...}`` with run lengths as a list or in COCO's compressed form.
        size: height and width of the image.

    Returns:
        ``{"size": [H, W], "counts": bytes}``.

    Raises:
        ValueError: it is something else, or does not fit the image; the text starts with what was expected.
    """
    from pycocotools import mask as runs

    height, width = size
    if isinstance(segmentation, dict):
        lengths = _run_lengths(segmentation, size)
        return dict(runs.frPyObjects({"size": [height, width], "counts": lengths}, height, width))
    return dict(runs.merge(runs.frPyObjects(_polygons(segmentation, size), height, width)))


def _malformed(segmentation: object, size: tuple[int, int]) -> InputError:
    return InputError(
        f"expected polygons [[x, y, x, y, ...], ...] or run lengths of all {size[0]} x {size[1]} (height x width) "
        f"pixels as its segmentation, got {str(segmentation)[:60]}; repair it or fetch the file again."
    )


def _polygons(segmentation: object, size: tuple[int, int]) -> list[list[float]]:
    if not isinstance(segmentation, list) or not all(_is_polygon(each) for each in segmentation):
        raise _malformed(segmentation, size)
    # pycocotools reads four numbers as a box; beside polygons, they are what remains of thin parts.
    polygons = [each for each in segmentation if len(each) >= 6]
    if not polygons:
        raise InputError(
            f"expected at least one polygon of three or more points [[x, y, x, y, x, y, ...]], got "
            f"{str(segmentation)[:60]}; points in pairs [[x, y], ...] belong into one list, and a box is no outline."
        )
    (height, width), points = size, [value for each in polygons for value in each]
    # This comparison also refuses infinite numbers and NaN, which Python's JSON reader accepts.
    if not all(abs(value) <= _REACH * max(size) for value in points):
        raise InputError(
            f"expected points in its image of {width} x {height} (width x height), got others far outside."
        )
    x, y = points[::2], points[1::2]
    left, right, top, bottom = min(x), max(x), min(y), max(y)
    if right < -1 or left > width + 1 or bottom < -1 or top > height + 1:
        raise InputError(
            f"expected an outline in its image of {width} x {height} (width x height), got one wholly outside, at x "
            f"{left:g} to {right:g} and y {top:g} to {bottom:g}; take the image for which it was drawn."
        )
    if min(left, top) >= 0 and max(right, bottom) <= 1 and right > left and bottom > top:
        raise InputError(
            f"expected coordinates in pixels, got 0 to 1 only, which covers one pixel: if they are parts of the sides, "
            f"multiply x by {width} and y by {height}."
        )
    return polygons


def _is_polygon(values: object) -> bool:
    return isinstance(values, list) and len(values) % 2 == 0 and all(type(value) in (int, float) for value in values)


def _run_lengths(segmentation: dict[str, Any], size: tuple[int, int]) -> list[int]:
    """Run lengths down the columns, background first; pycocotools would not notice that they do not cover the image."""
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        lengths = _decompressed(counts)
    else:
        lengths = [whole(each) for each in counts] if isinstance(counts, list) else [None]
    known = [each for each in lengths if each is not None and each >= 0]
    if segmentation.get("size") != list(size) or len(known) < len(lengths) or sum(known) != size[0] * size[1]:
        raise _malformed(segmentation, size)
    return known


def _decompressed(text: str) -> list[int | None]:
    """COCO's compressed run lengths: five bits a character, and from the fourth on the difference to the last but one.

    None stands for what is none. Reference: pycocotools' ``rleFrString``, which does not check its input.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return [None]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= 1 << shift if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return [None] if shift else list(lengths)
