"""The decoder and its pyramid."""

import torch
import torch.nn.functional as F
from samples import features
from tolerances import assert_close
from torch import Tensor

from dpcn_modules.modules import ASPP, Decoder

from .base import ModuleContract


class TestASPP(ModuleContract):
    def make(self) -> ASPP:
        return ASPP(4, rates=(2, 3))

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        return (features(batch, 4, 7, 6, seed=seed),)

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, 16, 7, 6)]

    def test_equals_the_views_side_by_side(self) -> None:
        aspp, (feat,) = self.made(), self.inputs()
        pooled = F.conv2d(feat.mean((2, 3), keepdim=True), aspp.pooled[0].weight, aspp.pooled[0].bias)
        pointwise = F.conv2d(feat, aspp.pointwise[0].weight, aspp.pointwise[0].bias)
        dilated = [
            F.conv2d(feat, view[0].weight, view[0].bias, padding=rate, dilation=rate)
            for view, rate in zip(aspp.dilated, (2, 3), strict=True)
        ]
        expected = torch.cat([pooled.expand(-1, -1, 7, 6), pointwise, *dilated], 1).relu()
        assert_close(aspp(feat), expected)


class TestDecoder(ModuleContract):
    def make(self) -> Decoder:
        return Decoder(7, 4, rates=(2, 3))

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        return (features(batch, 7, 7, 6, seed=seed),)

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, 2, 7, 6)]


def test_decoder_drops_channels_in_training_only() -> None:
    decoder, feat = Decoder(7, 16, dropout=0.5), features(1, 7, 7, 6).float()
    torch.manual_seed(0)
    assert not torch.equal(decoder(feat), decoder(feat))
    decoder.eval()
    assert torch.equal(decoder(feat), decoder(feat))
