"""FFM: the refined pseudo mask and the filtered query feature."""

import pytest
import torch
from samples import features
from tolerances import assert_close
from torch import Tensor

from dpcn_modules.modules import FFM, FeatureFilteringModule

from .base import ModuleContract


class TestFeatureFilteringModule(ModuleContract):
    kernel_size = 3

    def make(self) -> FeatureFilteringModule:
        return FeatureFilteringModule(6, self.kernel_size)

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        pseudo_mask = features(batch, 1, 5, 4, seed=seed + 70).sigmoid()
        return features(batch, 6, 5, 4, seed=seed), features(batch, 6, seed=seed + 50), pseudo_mask

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, 6, 5, 4), (batch, 1, 5, 4)]

    def test_equals_equations_3_and_4_written_out(self) -> None:
        x_q, prototype, M0 = self.inputs()
        ffm = self.made()
        filtered, refined = ffm(x_q, prototype, M0)
        half = self.kernel_size // 2
        for b in range(2):
            for i in range(5):
                for j in range(4):
                    total = ffm.conv.bias[0]
                    for y in range(max(0, i - half), min(5, i + half + 1)):
                        for x in range(max(0, j - half), min(4, j + half + 1)):
                            seen = x_q[b, :, y, x] * M0[b, 0, y, x] + prototype[b]
                            total = total + (ffm.conv.weight[0, :, y - i + half, x - j + half] * seen).sum()
                    Mr = 1 / (1 + torch.exp(-total))
                    assert_close(refined[b, 0, i, j], Mr)
                    assert_close(filtered[b, :, i, j], x_q[b, :, i, j] * Mr + x_q[b, :, i, j])


class TestFeatureFilteringModuleOfOnePixel(TestFeatureFilteringModule):
    kernel_size = 1


def test_ffm_is_the_short_name() -> None:
    assert FFM is FeatureFilteringModule


def test_ffm_refines_to_between_zero_and_one() -> None:
    _, refined = FFM(6)(features(2, 6, 5, 4).float() * 10, features(2, 6).float(), torch.rand(2, 1, 5, 4))
    assert refined.min() >= 0
    assert refined.max() <= 1


@pytest.mark.parametrize(
    ("prototype", "pseudo_mask", "message"),
    [
        ((3, 6), (2, 1, 5, 4), r"``prototype``: expected B=2 .*; B=2 comes from ``query_feat`` \(2, 6, 5, 4\)"),
        ((2, 7), (2, 1, 5, 4), r"``prototype``: expected 6 \(B 6\), got shape \(2, 7\)"),
        ((2, 6), (2, 1, 5, 5), r"``pseudo_mask``: expected W=4 .*; W=4 comes from ``query_feat`` \(2, 6, 5, 4\)"),
        ((2, 6), (2, 3, 5, 4), r"``pseudo_mask``: expected 1 \(B 1 H W\), got shape \(2, 3, 5, 4\)"),
    ],
)
def test_ffm_rejects_shapes_that_do_not_fit(
    prototype: tuple[int, ...], pseudo_mask: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FFM(6)(torch.zeros(2, 6, 5, 4), torch.zeros(prototype), torch.zeros(pseudo_mask))


def test_ffm_rejects_a_feature_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match=r"``query_feat``: expected finite values"):
        FFM(6)(torch.full((2, 6, 5, 4), torch.nan), torch.zeros(2, 6), torch.zeros(2, 1, 5, 4))


def test_ffm_rejects_an_even_kernel() -> None:
    with pytest.raises(ValueError, match=r"``kernel_size``: expected a positive odd number.* got 4; try 5"):
        FFM(6, 4)
