"""PFENet's augmentation and the test canvas: geometry, padding, the crop rule, and random numbers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcn_modules.data.io import load_image, load_mask
from dpcn_modules.data.resizing import IMAGENET_MEAN, IMAGENET_STD, denormalise
from dpcn_modules.data.transforms import TestTransform, TrainTransform

STILL = {"scale": (1.0, 1.0), "rotation_p": 0.0, "blur_p": 0.0, "flip_p": 0.0}
MEAN_COLOUR = torch.tensor([124, 116, 104], dtype=torch.uint8)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def square(height: int, width: int, top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def colour_of(mask: torch.Tensor) -> torch.Tensor:
    """An image that is white where its mask is 1 and black elsewhere."""
    return ((mask == 1) * 255).to(torch.uint8).expand(3, -1, -1)


@pytest.mark.parametrize("size", [(500, 375), (31, 47), (64, 64), (9, 200)])
def test_train_transform_gives_square_float_image_and_int_mask(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for _ in range(4):
        image, mask = TrainTransform(size=64)(noise(*size), square(*size, 2, 3, 5))
        assert (type(image), type(mask)) == (torch.Tensor, torch.Tensor)
        assert (image.dtype, mask.dtype) == (torch.float32, torch.int64)
        assert (image.shape, mask.shape) == ((3, 64, 64), (64, 64))
        assert set(torch.unique(mask).tolist()) <= {0, 1, 255}


def test_train_transform_does_nothing_but_normalise_when_all_is_switched_off() -> None:
    original, target = noise(40, 40), square(40, 40, 5, 9, 12)
    image, mask = TrainTransform(size=40, **STILL)(original, target)
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(image, (original / 255 - mean) / std)
    assert torch.equal(mask, target.to(torch.int64))


def test_train_transform_leaves_its_inputs_alone() -> None:
    original, target = noise(40, 50), square(40, 50, 5, 9, 12)
    kept = original.clone(), target.clone()
    TrainTransform(size=32)(original, target)
    assert torch.equal(original, kept[0])
    assert torch.equal(target, kept[1])


def test_train_transform_moves_image_and_mask_together() -> None:
    target = square(120, 160, 30, 50, 50)
    for seed in range(12):
        torch.manual_seed(seed)
        image, mask = TrainTransform(size=100, degrees=10, blur_p=0)(colour_of(target), target)
        white = denormalise(image)[0] > 127
        inside = mask != 255
        agreement = (white == (mask == 1))[inside].float().mean()
        assert agreement > 0.98


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.25])
def test_scale_changes_the_area_by_one_factor(factor: float) -> None:
    target = square(100, 80, 20, 20, 40)
    _, mask = TrainTransform(size=130, **{**STILL, "scale": (factor, factor)})(noise(100, 80), target)
    rows, columns = (mask == 1).any(dim=1).sum().item(), (mask == 1).any(dim=0).sum().item()
    assert rows == columns == round(40 * factor)


def test_rotation_pads_image_with_mean_colour_and_mask_with_void() -> None:
    torch.manual_seed(1)
    white = torch.full((3, 80, 80), 255, dtype=torch.uint8)
    transform = TrainTransform(size=80, **{**STILL, "rotation_p": 1.0})
    image, mask = transform(white, torch.zeros(80, 80, dtype=torch.uint8))
    restored = denormalise(image)
    assert mask[0, 0] == 255
    assert torch.equal(restored[:, 0, 0], MEAN_COLOUR)
    assert mask[40, 40] == 0
    assert torch.equal(restored[:, 40, 40], white[:, 40, 40])


def test_rotation_stays_within_its_degrees() -> None:
    bar = torch.zeros(101, 101, dtype=torch.uint8)
    bar[50] = 1
    transform = TrainTransform(size=101, **{**STILL, "rotation_p": 1.0})
    rises = []
    for seed in range(40):
        torch.manual_seed(seed)
        _, mask = transform(noise(101, 101), bar)
        rows, columns = (mask == 1).nonzero().double().T
        rises.append(float(torch.corrcoef(torch.stack([rows, columns]))[0, 1].sign() * (rows.max() - rows.min())))
    highest = 100 * np.sin(np.deg2rad(10)) + 2
    assert max(map(abs, rises)) <= highest
    assert min(rises) < -5
    assert max(rises) > 5


def test_blur_touches_the_image_only() -> None:
    original, target = noise(40, 40), square(40, 40, 5, 9, 12)
    image, mask = TrainTransform(size=40, **{**STILL, "blur_p": 1.0})(original, target)
    assert torch.equal(mask, target.to(torch.int64))
    assert denormalise(image).float().std() < 0.5 * original.float().std()


def test_flip_mirrors_both() -> None:
    original, target = noise(40, 40), square(40, 40, 5, 9, 12)
    image, mask = TrainTransform(size=40, **{**STILL, "flip_p": 1.0})(original, target)
    assert torch.equal(denormalise(image), original.flip(-1))
    assert torch.equal(mask, target.flip(-1).to(torch.int64))


def test_crop_pads_smaller_images_on_all_sides() -> None:
    original, target = noise(10, 21), torch.zeros(10, 21, dtype=torch.uint8)
    image, mask = TrainTransform(size=30, **STILL)(original, target)
    inside = torch.zeros(30, 30, dtype=torch.bool)
    inside[10:20, 4:25] = True
    restored = denormalise(image)
    assert torch.equal(mask, torch.where(inside, 0, 255))
    assert torch.equal(restored[:, 10:20, 4:25], original)
    assert bool((restored[:, ~inside] == MEAN_COLOUR[:, None]).all())


def test_crop_keeps_the_target_share_asked_for() -> None:
    target = square(120, 120, 60, 60, 30)
    kept = []
    for seed in range(60):
        torch.manual_seed(seed)
        _, mask = TrainTransform(size=80, **STILL)(noise(120, 120), target)
        kept.append(int((mask == 1).sum()) / 900)
    assert min(kept) >= 0.85
    assert min(kept) < 1  # the rule is a share, not all of the target


def test_crop_is_drawn_once_without_redraws() -> None:
    target = square(120, 120, 0, 0, 30)
    transform = TrainTransform(size=40, **STILL, redraws=0)
    kept = []
    for seed in range(30):
        torch.manual_seed(seed)
        kept.append(int((transform(noise(120, 120), target)[1] == 1).sum()))
    assert 0 < min(kept) < 0.85 * 30 * 30


def test_crop_that_shows_nothing_of_the_target_is_replaced_by_one_around_it() -> None:
    target = square(120, 120, 50, 100, 3)
    torch.manual_seed(0)
    for _ in range(30):
        _, mask = TrainTransform(size=10, **STILL, redraws=0)(noise(120, 120), target)
        assert int((mask == 1).sum()) >= 1


def test_crop_takes_the_fullest_draw_when_the_target_is_larger_than_the_crop() -> None:
    target = square(120, 120, 20, 20, 80)
    torch.manual_seed(0)
    _, mask = TrainTransform(size=40, **STILL)(noise(120, 120), target)
    assert int((mask == 1).sum()) == 40 * 40


def test_train_transform_draws_from_torch_global_generator_only() -> None:
    original, target = noise(90, 70), square(90, 70, 20, 20, 20)
    transform = TrainTransform(size=48)
    results = []
    for numpy_seed in (0, 1):
        np.random.seed(numpy_seed)
        torch.manual_seed(5)
        results.append(transform(original, target))
    torch.manual_seed(6)
    other = transform(original, target)
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], other[0])


def test_train_transform_gives_the_same_bits_for_any_number_of_threads() -> None:
    """Loader workers run with one thread, the main process with several."""
    original, target = noise(375, 500), square(375, 500, 100, 100, 99)
    transform = TrainTransform(size=321, rotation_p=1.0, blur_p=1.0)
    before = torch.get_num_threads()
    images = []
    for threads in (1, 2):
        try:
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            images.append(transform(original, target)[0])
        finally:
            torch.set_num_threads(before)
    assert torch.equal(images[0], images[1])


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (30, 30), (300, 7)])
def test_test_transform_keeps_aspect_and_lies_top_left(height: int, width: int) -> None:
    original = torch.full((3, height, width), 255, dtype=torch.uint8)
    image, mask = TestTransform(size=60)(original, torch.ones(height, width, dtype=torch.uint8))
    scale = 60 / max(height, width)
    inside = torch.zeros(60, 60, dtype=torch.bool)
    inside[: round(scale * height), : round(scale * width)] = True
    assert torch.equal(mask, torch.where(inside, 1, 255))
    restored = denormalise(image)
    assert bool((restored[:, inside] == 255).all())
    assert bool((restored[:, ~inside] == MEAN_COLOUR[:, None]).all())


def test_test_transform_is_the_same_every_time() -> None:
    transform = pickle.loads(pickle.dumps(TestTransform(size=50)))
    original, target = noise(70, 90), square(70, 90, 10, 10, 30)
    torch.manual_seed(0)
    first = transform(original, target)
    torch.manual_seed(1)
    second = transform(original, target)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_denormalise_restores_every_value() -> None:
    original = noise(64, 64)
    image, _ = TestTransform(size=64)(original, torch.zeros(64, 64, dtype=torch.uint8))
    assert torch.equal(denormalise(image), original)
    assert torch.equal(denormalise(torch.stack([image, image])), torch.stack([original, original]))


def test_denormalise_clamps_what_no_image_can_hold() -> None:
    assert denormalise(torch.full((3, 1, 1), 99.0)).tolist() == [[[255]]] * 3
    assert denormalise(torch.full((3, 1, 1), -99.0)).tolist() == [[[0]]] * 3


@pytest.mark.parametrize("transform", [TrainTransform(size=8), TestTransform(size=8)])
def test_transforms_reject_image_and_mask_of_different_size(
    transform: TrainTransform | TestTransform,
) -> None:
    with pytest.raises(ValueError, match=r"``mask``: expected H=10 \(H W\), got shape \(9, 12\).*``image``"):
        transform(noise(10, 12), torch.zeros(9, 12, dtype=torch.uint8))


def test_transforms_reject_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"``size``: expected at least 1, got 0"):
        TrainTransform(size=0)
    with pytest.raises(ValueError, match=r"``size``: expected at least 1, got -1"):
        TestTransform(size=-1)
    with pytest.raises(ValueError, match=r"``scale``: expected 0 < lowest <= highest, got \(1\.1, 0\.9\)"):
        TrainTransform(scale=(1.1, 0.9))


@pytest.mark.real_data
def test_transforms_take_a_real_image(real_data: Path) -> None:
    folder = real_data / "voc2012_subset"
    image = load_image(folder / "JPEGImages" / "2007_000063.jpg")
    mask = load_mask(folder / "SegmentationClassAug" / "2007_000063.png")
    target = (mask == 12).to(torch.uint8).masked_fill(mask == 255, 255)
    for transform in (TrainTransform(), TestTransform()):
        torch.manual_seed(0)
        transformed, labels = transform(image, target)
        assert transformed.shape == (3, 473, 473)
        share = (labels == 1).sum() / (target == 1).sum()
        assert 0.5 < share < 1.5
