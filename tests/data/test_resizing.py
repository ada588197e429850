"""Masks lie where the object lies in the image, whatever their size, and no object is lost."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dpcn_modules.data.object_masks import target_mask
from dpcn_modules.data.resizing import denormalise, keep_object
from dpcn_modules.data.transforms import TestTransform, TrainTransform
from dpcn_modules.evaluation import logits_at_original_size

OFF = {"rotation_p": 0.0, "blur_p": 0.0, "flip_p": 0.0}


def centroid(weight: Tensor) -> Tensor:
    """Row and column of the centre of mass, ``(2,)``."""
    weight = weight.double()
    rows, columns = torch.arange(weight.shape[0]), torch.arange(weight.shape[1])
    return torch.stack([(weight.sum(1) * rows).sum(), (weight.sum(0) * columns).sum()]) / weight.sum()


def white_square(height: int, width: int, top: int, left: int, side: int) -> tuple[Tensor, Tensor]:
    """A black image with a white square, and its mask."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[top : top + side, left : left + side] = 1
    return (mask * 255).expand(3, -1, -1), mask


@st.composite
def squares(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    height, width = draw(st.integers(150, 700)), draw(st.integers(150, 700))
    side = draw(st.integers(min(height, width) // 5, min(height, width) // 2))
    top, left = draw(st.integers(0, height - side)), draw(st.integers(0, width - side))
    return white_square(height, width, top, left, side)


def offset(image: Tensor, mask: Tensor) -> Tensor:
    """How far the mask lies from the white of the normalised image, in pixels."""
    white = (denormalise(image)[0].double() - 0) * (mask != 255)
    return centroid(mask == 1) - centroid(white)


@settings(max_examples=60, deadline=None)
@given(pair=squares(), size=st.sampled_from([64, 97, 321, 473]))
def test_the_mask_lies_on_the_image_after_the_test_transform(pair: tuple[Tensor, Tensor], size: int) -> None:
    image, mask = TestTransform(size)(*pair)
    # The outline of a mask is whole cells, so that of one square may be off by up to half a cell on each side.
    assert offset(image, mask).abs().max() < 0.5 + 1e-6


@pytest.mark.parametrize("source", [240, 500, 1000, 2000])
@pytest.mark.parametrize(("interpolation", "expected"), [("nearest-exact", 0.0), ("nearest", 0.5)])
def test_only_the_published_switch_shifts_the_mask(source: int, interpolation: str, expected: float) -> None:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(25):
        side = int(torch.randint(source // 8, source // 3, (), generator=generator))
        top, left = torch.randint(0, source - side, (2,), generator=generator).tolist()
        pair = white_square(source, source, top, left, side)
        found.append(offset(*TestTransform(161, mask_interpolation=interpolation)(*pair)))  # type: ignore[arg-type]
    assert torch.stack(found).mean() == pytest.approx(expected, abs=0.12)


@pytest.mark.parametrize("step", ["scale", "rotation"])
def test_training_keeps_the_mask_on_the_image(step: str) -> None:
    options = {**OFF, "scale": (0.8, 1.3)} if step == "scale" else {**OFF, "scale": (1, 1), "rotation_p": 1.0}
    transform = TrainTransform(300, **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    found = []
    for top in range(60, 100, 2):
        image, mask = transform(*white_square(200, 200, top, 150 - top, 41))
        white = (denormalise(image)[0].double() - 124).clamp(min=0)
        found.append(centroid(mask == 1) - centroid(white))
    assert torch.stack(found).mean(0).abs().max() < 0.1


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([(900, 1200), (300, 1000), (640, 480)]),
    side=st.integers(1, 9),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    small=st.sampled_from([32, 64, 100]),
)
def test_a_tiny_object_keeps_a_cell_near_its_place(
    size: tuple[int, int], side: int, place: tuple[float, float], small: int
) -> None:
    height, width = size
    top, left = int(place[0] * (height - side)), int(place[1] * (width - side))
    pair = white_square(height, width, top, left, side)
    _, mask = TestTransform(small)(*pair)
    assert bool((mask == 1).any())
    scale = small / max(size)
    expected = (torch.tensor([top, left]) + (side - 1) / 2 + 0.5) * scale - 0.5
    assert (centroid(mask == 1) - expected).abs().max() <= 1
    torch.manual_seed(0)
    _, mask = TrainTransform(small, long_side=2 * small)(*pair)
    assert bool((mask == 1).any())


@pytest.mark.parametrize("column", range(2000, 2009))
def test_a_thin_line_stays_a_line(column: int) -> None:
    mask = torch.zeros(1500, 4000, dtype=torch.uint8)
    mask[:, column : column + 3] = 1
    _, small = TestTransform(473)(torch.zeros(3, 1500, 4000, dtype=torch.uint8), mask)
    rows = (small == 1).any(1)
    assert int(rows.sum()) == round(1500 * 473 / 4000)


def test_a_lost_object_is_marked_where_at_least_half_of_the_largest_share_lies() -> None:
    mask = torch.zeros(2, 12, dtype=torch.uint8)
    mask[:, :2], mask[0, 4:6], mask[1, 8] = 1, 1, 1  # shares of 1/2, 1/4 and 1/8
    assert keep_object(torch.zeros(1, 3, dtype=torch.uint8), mask).tolist() == [[1, 1, 0]]
    void = torch.tensor([[0, 1, 255]], dtype=torch.uint8)
    assert keep_object(void, mask).tolist() == [[0, 1, 255]]


def test_a_very_flat_image_keeps_one_row() -> None:
    image, mask = white_square(1, 500, 0, 100, 1)
    _, seen = TestTransform(50)(image, mask)
    assert int((seen != 255).sum()) == 50
    assert bool((seen[0] == 1).any())


def test_a_rotation_that_would_lose_the_object_is_left_out() -> None:
    image, mask = white_square(60, 200, 0, 0, 1)
    torch.manual_seed(0)
    for _ in range(20):
        _, turned = TrainTransform(200, (1, 1), **{**OFF, "rotation_p": 1.0})(image, mask)  # type: ignore[arg-type]
        assert int((turned == 1).sum()) >= 1


def test_a_mask_without_object_stays_without() -> None:
    image, mask = white_square(90, 120, 0, 0, 0)
    mask[3:5] = 255
    for transform in (TestTransform(32), TrainTransform(32)):
        _, small = transform(image, mask)
        assert not bool((small == 1).any())


@pytest.mark.parametrize("transform", [TestTransform(64), TrainTransform(80)], ids=["test", "train"])
def test_transforms_take_every_dtype_that_as_image_takes(transform: TestTransform | TrainTransform) -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(40, 60, dtype=torch.uint8)
    mask[10:20, 10:30] = 1
    torch.manual_seed(1)
    expected = transform(image, mask)
    for kind in (mask.bool(), mask.float(), mask.long()):
        torch.manual_seed(1)
        given_image, given_mask = transform(image.double() / 255, kind)
        assert torch.equal(given_image, expected[0])
        assert torch.equal(given_mask, expected[1])
    with pytest.raises(ValueError, match=r"``image``: expected floating-point values in \[0, 1\].*normalised"):
        transform((image / 255 - 0.45) / 0.22, mask)
    with pytest.raises(TypeError, match=r"``image``: expected uint8 or floating point"):
        transform(image.to(torch.int32), mask)
    with pytest.raises(ValueError, match=r"``mask``: expected only the values 0 .*got \[2\]"):
        transform(image, mask * 2)


def test_target_of_a_boolean_mask_is_class_1() -> None:
    assert target_mask(torch.tensor([[True, False]]), 1).tolist() == [[1, 0]]
    with pytest.raises(TypeError, match=r"``mask``: expected integers or booleans, got torch\.float32"):
        target_mask(torch.tensor([[1.0]]), 1)


def test_an_unknown_interpolation_is_refused() -> None:
    for make in (TestTransform, TrainTransform):
        with pytest.raises(ValueError, match="``mask_interpolation``: expected one of nearest-exact, nearest, got 'n'"):
            make(64, mask_interpolation="n")


@settings(max_examples=40, deadline=None)
@given(pair=squares(), size=st.sampled_from([97, 321, 473]))
def test_the_mask_itself_comes_back_at_its_place_and_size(pair: tuple[Tensor, Tensor], size: int) -> None:
    _, mask = pair
    _, seen = TestTransform(size)(*pair)
    logits = torch.stack([(seen != 1).float(), (seen == 1).float()])
    back = logits_at_original_size(logits, (mask.shape[0], mask.shape[1])).argmax(0)
    assert back.shape == mask.shape
    # Half a cell for the outline, and half a cell since the short side of the canvas is a whole number of cells.
    assert (centroid(back) - centroid(mask)).abs().max() < max(max(mask.shape) / size, 1) + 0.5


@pytest.mark.parametrize(("radius", "least"), [(15, 0.98), (40, 0.99), (100, 0.995)])
def test_a_perfect_prediction_of_a_disc_scores_near_one(radius: int, least: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(375), torch.arange(500), indexing="ij")
    mask = ((rows - 180) ** 2 + (columns - 251) ** 2 <= radius**2).to(torch.uint8)
    _, seen = TestTransform(473)(torch.zeros(3, 375, 500, dtype=torch.uint8), mask)
    logits = torch.stack([(seen != 1).float(), (seen == 1).float()])
    back = logits_at_original_size(logits, (375, 500)).argmax(0)
    iou = ((back == 1) & (mask == 1)).sum() / ((back == 1) | (mask == 1)).sum()
    assert iou > least
