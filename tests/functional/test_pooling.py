"""Masks to feature size, the prototype, and the foreground vectors."""

from functools import partial

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_contract import RejectsNonFinite
from samples import features, gradients, masks, with_gradient
from tolerances import assert_close
from torch import Tensor

from dpcn_modules.functional import foreground_pool, masked_average_pool, resize_mask
from dpcn_modules.functional.pooling import resize

POOLS = [masked_average_pool, partial(foreground_pool, bins=4)]


class SupportInputs(RejectsNonFinite):
    """Both pools read a support set of two shots, each sample with another number of foreground positions."""

    def inputs(self, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
        return features(batch, 2, 3, 4, 5, dtype=dtype, seed=seed), masks(batch, 2, 4, 5, seed=seed)


class TestMaskedAveragePool(SupportInputs):
    def operation(self, *inputs: Tensor) -> Tensor:
        return masked_average_pool(*inputs)

    def oracle(self, *inputs: Tensor) -> Tensor:
        return oracles.masked_average_pool(*inputs)


class TestForegroundPool(SupportInputs):
    def operation(self, *inputs: Tensor) -> Tensor:
        return foreground_pool(*inputs, bins=4)

    def oracle(self, *inputs: Tensor) -> Tensor:
        return oracles.foreground_pool(*inputs, bins=4)


@pytest.mark.parametrize("bins", [1, 3, 5, 25])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 24, 25, 30])
def test_foreground_pool_matches_adaptive_pooling_for_fewer_and_more_vectors_than_bins(count: int, bins: int) -> None:
    feat, mask = features(1, 1, 3, 5, 6), torch.zeros(1, 1, 5, 6)
    mask.view(-1)[torch.randperm(30, generator=torch.Generator().manual_seed(count))[:count]] = 1
    assert_close(foreground_pool(feat, mask, bins), oracles.foreground_pool(feat, mask, bins))


def test_foreground_pool_takes_vectors_in_raster_order_shot_after_shot() -> None:
    feat = torch.arange(12.0).reshape(1, 2, 1, 2, 3)
    mask = torch.tensor([[[[0, 1, 0], [1, 0, 1]], [[1, 0, 0], [0, 0, 1]]]])
    assert foreground_pool(feat, mask, bins=5).flatten().tolist() == [1, 3, 5, 6, 11]


@pytest.mark.parametrize("pool", POOLS)
def test_pools_take_support_without_shot_axis(pool: partial[Tensor]) -> None:
    feat, mask = features(2, 3, 4, 5), masks(2, 4, 5)
    assert torch.equal(pool(feat, mask), pool(feat[:, None], mask[:, None]))


@pytest.mark.parametrize("pool", POOLS)
def test_pools_resize_masks_and_count_void_as_not_foreground(pool: partial[Tensor]) -> None:
    feat, mask = features(2, 3, 4, 5), masks(2, 13, 17)
    without_void = mask.masked_fill(mask == 255, 0)
    at_size = torch.stack([oracles.resize_mask(m, (4, 5)) for m in without_void])
    assert torch.equal(pool(feat, mask), pool(feat, at_size))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("pool", POOLS)
def test_pools_give_zero_and_finite_gradients_for_a_mask_without_foreground(pool: partial[Tensor], value: int) -> None:
    feat, mask = features(2, 2, 3, 4, 5), masks(2, 2, 4, 5)
    mask[1] = value
    inputs = with_gradient([feat, mask])
    pooled = pool(*inputs)
    assert pooled[0].abs().max() > 0
    assert pooled[1].abs().max() == 0
    (gradient,) = gradients(pool, inputs)
    assert gradient.isfinite().all()
    assert gradient[1].abs().max() == 0


def test_masked_average_pool_leaves_out_shots_without_foreground() -> None:
    feat, mask = features(1, 2, 3, 4, 5), masks(1, 2, 4, 5)
    mask[0, 1] = 0
    assert_close(masked_average_pool(feat, mask), masked_average_pool(feat[:, 0], mask[:, 0]))


@pytest.mark.parametrize("pool", [masked_average_pool, partial(foreground_pool, bins=1)])
def test_pools_hold_large_objects_in_half_precision(pool: partial[Tensor]) -> None:
    feat, mask = torch.full((1, 1, 2, 300, 300), 1000.0, dtype=torch.float16), torch.ones(1, 1, 300, 300)
    pooled = pool(feat, mask)  # neither the sum, 9e7, nor the count, 9e4, is a half
    assert_close(pooled, torch.full_like(pooled, 1000.0))


@pytest.mark.parametrize("size", [(4, 5), (5, 3), (1, 1), (1, 6), (6, 7), (10, 13)])
def test_resize_mask_matches_loops(size: tuple[int, int]) -> None:
    mask = masks(3, 6, 7, foreground=0.4)
    expected = torch.stack([oracles.resize_mask(m, size) for m in mask])
    assert torch.equal(resize_mask(mask, size), expected)
    assert torch.equal(resize_mask(mask[:, None], size), expected[:, None])


def test_resize_mask_keeps_a_tiny_object_between_the_sampling_points() -> None:
    mask = torch.zeros(1, 64, 64)
    mask[0, 18, 37] = 1  # sampled rows and columns are 0, 9, 18, ...: one axis hits, the other does not
    resized = resize_mask(mask, (8, 8))
    assert resized.nonzero().tolist() == [[0, 2, 4]]


def test_resize_mask_keeps_every_single_pixel_object() -> None:
    mask = torch.eye(15 * 15).reshape(225, 15, 15)
    assert (resize_mask(mask, (4, 4)).sum((1, 2)) >= 1).all()


def test_resize_mask_counts_void_as_not_foreground() -> None:
    mask = torch.full((1, 8, 8), 255)
    mask[0, :4] = 1
    assert resize_mask(mask, (2, 2)).tolist() == [[[1, 1], [0, 0]]]
    assert resize_mask(mask, (8, 8)).sum() == 32


@pytest.mark.filterwarnings("ignore:.*holds 255")
@pytest.mark.parametrize("value", [0, 255])
def test_resize_mask_keeps_an_empty_mask_empty(value: int) -> None:
    assert resize_mask(torch.full((2, 3, 16, 16), value), (5, 5)).sum() == 0


@pytest.mark.parametrize("shape", [(0, 8, 8), (2, 0, 8, 8)])
def test_resize_mask_takes_no_masks_at_all(shape: tuple[int, ...]) -> None:
    assert resize_mask(torch.zeros(shape), (3, 4)).shape == (*shape[:-2], 3, 4)


def test_resize_mask_takes_bool_and_uint8() -> None:
    mask = masks(2, 8, 8)
    expected = resize_mask(mask, (3, 3))
    assert torch.equal(resize_mask(mask == 1, (3, 3)), expected)
    assert torch.equal(resize_mask(mask.to(torch.uint8), (3, 3)), expected)


@pytest.mark.parametrize("mask", [torch.zeros(8, 8), torch.zeros(1, 1, 1, 8, 8)])
def test_resize_mask_rejects_other_axes(mask: Tensor) -> None:
    with pytest.raises(ValueError, match=r"``mask``: expected a tensor \(B K Hi Wi\) or \(B Hi Wi\), got \(.*8, 8\)\."):
        resize_mask(mask, (4, 4))


def test_resize_mask_rejects_other_values() -> None:
    with pytest.raises(ValueError, match=r"0 \(background\), 1 \(foreground\) and 255 \(void\), got \[7\]"):
        resize_mask(torch.full((1, 8, 8), 7), (4, 4))


@pytest.mark.parametrize("pool", POOLS)
def test_pools_reject_masks_of_another_batch_and_name_both_tensors(pool: partial[Tensor]) -> None:
    with pytest.raises(
        ValueError,
        match=r"``support_mask``: expected B=2 .* got shape \(3, 1, 4, 5\); B=2 comes from ``support_feat`` \(2, 1, 3",
    ):
        pool(features(2, 3, 4, 5), masks(3, 4, 5))


@pytest.mark.parametrize("pool", POOLS)
def test_pools_reject_masks_of_another_shot_and_name_both_tensors(pool: partial[Tensor]) -> None:
    with pytest.raises(
        ValueError, match=r"``support_mask``: expected K=2 .*; K=2 comes from ``support_feat`` \(1, 2, 3"
    ):
        pool(features(1, 2, 3, 4, 5), masks(1, 5, 4, 5))


@pytest.mark.parametrize("pool", POOLS)
def test_pools_reject_mask_values_that_are_class_ids(pool: partial[Tensor]) -> None:
    with pytest.raises(ValueError, match=r"got \[2, 15\]; compare with the class id first: \(mask == class_id\)"):
        pool(features(1, 3, 2, 2), torch.tensor([[[0, 15], [2, 255]]]))


@pytest.mark.parametrize("bins", [0, -3])
def test_foreground_pool_rejects_less_than_one_bin(bins: int) -> None:
    with pytest.raises(ValueError, match=f"``bins``: expected at least 1, got {bins}"):
        foreground_pool(features(1, 3, 4, 5), masks(1, 4, 5), bins)


@st.composite
def mask_and_size(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    """A mask of up to 9 x 9, often with few pixels of foreground, and another size."""
    height, width, *size = draw(st.tuples(*[st.integers(1, 9)] * 4))
    value = st.sampled_from([0, 0, 0, 1, 255]) if draw(st.booleans()) else st.sampled_from([0, 1, 1])
    values = draw(st.lists(value, min_size=height * width, max_size=height * width))
    return torch.tensor(values).reshape(1, height, width), (size[0], size[1])


@pytest.mark.filterwarnings("ignore:.*holds 255")
@settings(deadline=None, max_examples=300)
@given(mask_and_size())
def test_resize_mask_matches_loops_for_any_mask_and_size(case: tuple[Tensor, tuple[int, int]]) -> None:
    mask, size = case
    resized = resize_mask(mask, size)
    assert torch.equal(resized, oracles.resize_mask(mask[0], size)[None])
    assert bool(resized.any()) == bool((mask == 1).any())


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 30),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_foreground_pool_matches_loops_for_any_support(
    shape: tuple[int, int, int, int, int], bins: int, foreground: float, seed: int
) -> None:
    B, K, _, H, W = shape
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(B, K, H, W, generator=generator) < foreground).long()
    inputs = with_gradient((features(*shape, seed=seed), mask))
    assert_close(foreground_pool(*inputs, bins), oracles.foreground_pool(*inputs, bins))
    actual = gradients(lambda *a: foreground_pool(*a, bins), inputs)
    expected = gradients(lambda *a: oracles.foreground_pool(*a, bins), inputs)
    assert_close(actual[0], expected[0])


def test_resize_aligns_the_corners() -> None:
    ramp = torch.arange(5.0).reshape(1, 1, 1, 5).expand(1, 1, 2, 5)
    wide = resize(ramp, (3, 9))
    torch.testing.assert_close(wide, torch.linspace(0, 4, 9).expand(1, 1, 3, 9))
    assert resize(ramp, (2, 5)) is ramp


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.bool])
@pytest.mark.parametrize("size", [(4, 4), (2, 3), (0, 0)])
def test_resize_mask_gives_float32_of_every_dtype(dtype: torch.dtype, size: tuple[int, int]) -> None:
    mask = torch.ones(1, 0 if size == (0, 0) else 4, 4, dtype=dtype)
    assert resize_mask(mask, size).dtype == torch.float32
