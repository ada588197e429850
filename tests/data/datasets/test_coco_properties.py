"""Random annotations of COCO: read to the right pixels, by an oracle of its own, or refused by name."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpcn_modules.data.datasets.coco_instances import Crowd, Instances, Overlap, draw
from dpcn_modules.data.datasets.folds import COCO_CLASSES

Mask = np.ndarray
SIZES = st.tuples(st.integers(2, 30), st.integers(2, 30))
FEW = settings(deadline=None, max_examples=60)


def read(
    annotations: list[dict[str, Any]], image: dict[str, Any], overlap: Overlap = "smaller_on_top", crowd: Crowd = "void"
) -> Mask:
    """The mask that the library draws for an image with these annotations."""
    categories = [{"id": number, "name": name} for number, name in enumerate(COCO_CLASSES, start=1)]
    content = {"images": [{"file_name": "a.jpg", **image}], "annotations": annotations, "categories": categories}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return draw(Instances(path, overlap, crowd).drawing("a.jpg"))


def read_one(segmentation: object, size: tuple[int, int], **image_and_annotation: dict[str, Any]) -> Mask | str:
    """The mask of one annotation of the class 3, whose id is 77, or the text of the error."""
    image = {"id": 5, "height": size[0], "width": size[1]} | image_and_annotation.get("image", {})
    annotation = {"id": 77, "image_id": 5, "category_id": 3, "segmentation": segmentation}
    try:
        return read([annotation | image_and_annotation.get("annotation", {})], image)
    except ValueError as error:
        return str(error)


def polygon_pixels(polygon: list[float], size: tuple[int, int]) -> tuple[Mask, Mask]:
    """Whether the centre of each pixel is inside a polygon by the even-odd rule, and its distance to the outline."""
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    y, x = (np.indices(size) + 0.5).astype(np.float64)
    inside, distance = np.zeros(size, dtype=bool), np.full(size, np.inf)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length, 0, 1) if length else 0 * x
        distance = np.minimum(distance, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
        if y0 != y1:
            crosses = (y0 <= y) != (y1 <= y)
            inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside, distance


def lengths_of(mask: Mask) -> list[int]:
    """Run lengths down the columns, background first, counted one by one."""
    lengths, current = [0], 0
    for value in mask.T.ravel().tolist():
        if value != current:
            lengths.append(0)
            current = value
        lengths[-1] += 1
    return lengths


def compressed(mask: Mask) -> dict[str, Any]:
    from pycocotools import mask as runs

    encoded = runs.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [float(each) for each in mask.shape], "counts": encoded["counts"].decode()}


@st.composite
def polygons(draw: st.DrawFn) -> tuple[list[list[float]], tuple[int, int]]:
    """One to three polygons, also self-intersecting and partly or wholly outside, and the size of their image."""
    size = draw(SIZES)
    reach = 1 if draw(st.booleans()) else max(size) + 12
    lowest = 0 if reach == 1 else -12
    number = st.integers(lowest, reach) | st.floats(lowest, reach, allow_nan=False, width=32)
    polygon = st.integers(3, 7).flatmap(lambda count: st.lists(number, min_size=2 * count, max_size=2 * count))
    return draw(st.lists(polygon, min_size=1, max_size=3)), size


@FEW
@given(polygons())
def test_polygons_are_drawn_within_a_pixel_of_their_outlines_or_named(
    case: tuple[list[list[float]], tuple[int, int]],
) -> None:
    shape, size = case
    pixels = [polygon_pixels(each, size) for each in shape]
    inside = np.any([each for each, _ in pixels], axis=0)
    far = np.min([distance for _, distance in pixels], axis=0) > 1
    mask = read_one(shape, size)
    if isinstance(mask, str):
        # Refused are outlines in the first pixel and outside the image alone.
        assert "annotation 77: expected" in mask
        assert int((inside & far).sum()) == 0
        return
    assert set(np.unique(mask)) <= {0, 3}
    np.testing.assert_array_equal((mask == 3)[far], inside[far])


MASKS = SIZES.flatmap(lambda size: arrays(np.bool_, size))


@FEW
@given(MASKS, st.sampled_from(["list", "floats", "compressed"]))
def test_run_lengths_are_drawn_exactly(mask: Mask, form: str) -> None:
    lengths: list[Any] = lengths_of(mask)
    lengths = list(map(float, lengths)) if form == "floats" else lengths
    shape = compressed(mask) if form == "compressed" else {"size": list(mask.shape), "counts": lengths}
    np.testing.assert_array_equal(read_one(shape, mask.shape), np.where(mask, 3, 0))


@FEW
@given(MASKS, st.data())
def test_damaged_run_lengths_are_never_drawn(mask: Mask, data: st.DataObject) -> None:
    """A compressed text with one character changed, dropped or added is another valid mask, or refused."""
    shape = compressed(mask)
    text, at = shape["counts"], data.draw(st.integers(0, len(shape["counts"])))
    character = data.draw(st.sampled_from(["", *map(chr, range(40, 120)), "é"]))
    shape["counts"] = text[:at] + character + text[at + data.draw(st.integers(0, 1)) :]
    drawn = read_one(shape, mask.shape)
    if isinstance(drawn, str):
        assert "annotation 77: expected" in drawn
        assert shape["counts"] != text
        return
    if shape["counts"] == text:
        np.testing.assert_array_equal(drawn == 3, mask)
    assert set(np.unique(drawn)) <= {0, 3}


def written(value: int) -> st.SearchStrategy[Any]:
    return st.sampled_from([value, float(value), str(value), f"{value}.0", None, value + 0.5])


@FEW
@given(MASKS, st.data())
def test_numbers_are_read_or_named_in_whatever_form_they_are_written(mask: Mask, data: st.DataObject) -> None:
    height, width = mask.shape
    image = {key: data.draw(written(value)) for key, value in (("id", 5), ("height", height), ("width", width))}
    values = {key: data.draw(written(value)) for key, value in (("image_id", 5), ("category_id", 3), ("iscrowd", 0))}
    size = [data.draw(written(side)) for side in mask.shape]
    shape = {"size": size, "counts": lengths_of(mask)}
    numbers = [*image.values(), *values.values(), *size]
    right = all(type(each) in (int, float) and each == int(each) for each in numbers)
    drawn = read_one(shape, mask.shape, image=image, annotation=values)
    assert right == (not isinstance(drawn, str))
    if isinstance(drawn, str):
        assert f"image {image['id']!r}: " in drawn or "annotation 77" in drawn
        return
    np.testing.assert_array_equal(drawn, np.where(mask, 3, 0))


NUMBERS = st.integers(-3, 40) | st.floats() | st.sampled_from(["3", None, True, 10**400])
SHAPES = st.recursive(
    NUMBERS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.fixed_dictionaries({}, optional={"size": st.just([20, 30]) | inner, "counts": inner})
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(SHAPES)
def test_any_other_json_as_a_segmentation_is_named(shape: object) -> None:
    """Whatever is read instead is a list of polygons or complete run lengths."""
    drawn = read_one(shape, (20, 30))
    if isinstance(drawn, str):
        assert "annotation 77" in drawn
        return
    if isinstance(shape, dict):
        assert isinstance(shape["counts"], str) or sum(shape["counts"]) == 600
        return
    assert isinstance(shape, list)
    pixels = [polygon_pixels(each, (20, 30)) for each in shape if len(each) >= 6]
    far = np.min([distance for _, distance in pixels], axis=0) > 1
    np.testing.assert_array_equal((drawn == 3)[far], np.any([inside for inside, _ in pixels], axis=0)[far])


OBJECTS = st.lists(st.tuples(arrays(np.bool_, (6, 7)), st.integers(1, 80), st.booleans()), min_size=1, max_size=5)


@FEW
@given(OBJECTS, st.sampled_from(["smaller_on_top", "annotation_order"]), st.sampled_from(["void", "object"]))
def test_overlapping_instances_and_crowds_are_painted_in_order(
    objects: list[tuple[Mask, int, bool]], overlap: Overlap, crowd: Crowd
) -> None:
    annotations = [
        {"id": number, "image_id": 5, "category_id": class_id, "iscrowd": int(marked), "segmentation": compressed(mask)}
        for number, (mask, class_id, marked) in enumerate(objects)
    ]
    expected = np.zeros((6, 7), dtype=np.int64)
    for row, column in np.ndindex(6, 7):
        here = [
            (mask.sum(), -number, value)
            for number, (mask, value, marked) in enumerate(objects)
            if mask[row, column] and not (marked and crowd == "void")
        ]
        if here:
            expected[row, column] = min(here, key=lambda each: each if overlap == "smaller_on_top" else each[1])[2]
        elif any(mask[row, column] for mask, _, _ in objects):
            expected[row, column] = 255
    np.testing.assert_array_equal(read(annotations, {"id": 5, "height": 6, "width": 7}, overlap, crowd), expected)


@pytest.mark.parametrize("size", [(480, 640), (473, 1)])
def test_a_run_that_needs_many_bits_is_decompressed(size: tuple[int, int]) -> None:
    mask = np.zeros(size, dtype=bool)
    mask[-1, -1] = True
    np.testing.assert_array_equal(read_one(compressed(mask), size) == 3, mask)
