"""SAM: region matching with several windows, and the initial pseudo mask."""

import oracles
import pytest
import torch
from samples import features, masks
from tolerances import assert_close
from torch import Tensor

from dpcn_modules import functional
from dpcn_modules.modules import SAM, SupportActivationModule

from .base import ModuleContract

WINDOWS = ((5, 1), (3, 3), (1, 5))


class TestSupportActivationModule(ModuleContract):
    def make(self) -> SupportActivationModule:
        return SupportActivationModule()

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        support = features(batch, 2, 6, 4, 5, seed=seed + 50)
        return features(batch, 6, 5, 4, seed=seed), support, masks(batch, 2, 11, 13, seed=seed)

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, 3, 5, 4), (batch, 1, 5, 4)]

    def test_equals_equation_1_in_loops(self) -> None:
        query, support, mask = self.inputs()
        at_size = functional.resize_mask(mask, (4, 5))
        expected = oracles.region_activation(query, support, at_size, WINDOWS)
        maps, pseudo_mask = self.made()(query, support, mask)
        assert_close(maps, expected)
        assert_close(pseudo_mask, expected.mean(1, keepdim=True))


class TestPriorMaskAsModule(TestSupportActivationModule):
    def make(self) -> SupportActivationModule:
        return SupportActivationModule(windows=((1, 1),))

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, 1, 5, 4), (batch, 1, 5, 4)]

    def test_equals_equation_1_in_loops(self) -> None:
        maps, pseudo_mask = self.made()(*self.inputs())
        assert torch.equal(maps, functional.prior_mask(*self.inputs()))
        assert torch.equal(pseudo_mask, maps)


def test_sam_is_the_short_name() -> None:
    assert SAM is SupportActivationModule


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sam_gives_maps_from_zero_to_one_and_their_mean(dtype: torch.dtype) -> None:
    maps, pseudo_mask = SAM()(
        features(2, 6, 9, 7, dtype=dtype), features(2, 6, 9, 7, dtype=dtype, seed=1), masks(2, 9, 7)
    )
    assert maps.min() == 0
    assert 0.99 < maps.max() <= 1
    assert torch.equal(pseudo_mask, maps.mean(1, keepdim=True))


def test_sam_gives_the_same_in_chunks() -> None:
    inputs = features(2, 6, 5, 4), features(2, 6, 4, 5, seed=1), masks(2, 4, 5)
    for chunked, whole in zip(SAM(chunk_size=7)(*inputs), SAM()(*inputs), strict=True):
        assert_close(chunked, whole)


def test_sam_gives_the_same_for_five_copies_of_one_shot() -> None:
    query, support, mask = features(2, 6, 5, 4), features(2, 6, 5, 4, seed=1), masks(2, 5, 4)
    copies = support[:, None].expand(-1, 5, -1, -1, -1), mask[:, None].expand(-1, 5, -1, -1)
    for one, five in zip(SAM()(query, support, mask), SAM()(query, *copies), strict=True):
        assert_close(five, one)


def test_sam_finds_a_patch_that_was_moved() -> None:
    support, query = features(1, 32, 12, 12), features(1, 32, 12, 12, seed=1)
    query[:, :, 6:10, 1:5] = support[:, :, 2:6, 5:9]
    mask = torch.zeros(1, 12, 12)
    mask[:, 2:6, 5:9] = 1
    _, pseudo_mask = SAM()(query, support, mask)
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[6:10, 1:5] = True
    assert pseudo_mask[0, 0, inside].min() > pseudo_mask[0, 0, ~inside].max()


@pytest.mark.filterwarnings("ignore:.*holds 255")
@pytest.mark.parametrize("value", [0, 255])
def test_sam_gives_zeros_for_a_mask_without_foreground(value: int) -> None:
    maps, pseudo_mask = SAM()(features(1, 6, 5, 4), features(1, 6, 5, 4), torch.full((1, 20, 20), value))
    assert maps.abs().max() == 0
    assert pseudo_mask.abs().max() == 0
