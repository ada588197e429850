"""A small residual network that trains from scratch on a CPU."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from dpcn_modules.errors import InputError
from dpcn_modules.models.backbones.base import Backbone, Pretraining

# Convolutions that keep the size, but for their stride.
_conv_norm = partial(Conv2dNormActivation, norm_layer=partial(nn.GroupNorm, 8), activation_layer=None)


class SmallBackbone(Backbone):
    """Small residual network that trains from scratch on a CPU in minutes; layer2 to layer4 have stride 4.

    One block a stage, dilation 2 in layer3 and layer4. Group normalisation does not depend on the batch, so
    an image has the same features alone and among others, and there are no statistics to freeze.

    Args:
        widths: channels of layer1 to layer4, multiples of 8 (the groups of the normalisation).
        pretraining: torchvision has no weights; without batch statistics, both values of ``frozen_norm`` mean the same.

    Shape:
        ``(B, 3, Hi, Wi)`` to ``(B, widths[i], H, W)`` for i of 1, 2, 3, with ``H = ceil(Hi / 4)``.

    Example:
        >>> import torch
        >>> [tuple(feat.shape) for feat in SmallBackbone((8, 16, 24, 32))(torch.zeros(1, 3, 64, 64))]
        [(1, 16, 16, 16), (1, 24, 16, 16), (1, 32, 16, 16)]
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 64, 64), **pretraining: Unpack[Pretraining]) -> None:
        super().__init__()
        if len(widths) != 4 or any(width < 1 or width % 8 for width in widths):
            raise InputError(
                f"``widths``: expected four positive multiples of 8, one for each of layer1 to layer4, got "
                f"{tuple(widths)}; try (32, 64, 64, 64)."
            )
        first, second, third, fourth = widths
        self.channels = (second, third, fourth)
        self.stem = _conv_norm(3, first, 3, stride=2)
        self.layer1 = _ResidualBlock(first, first, stride=2)
        self.layer2 = _ResidualBlock(first, second)
        self.layer3 = _ResidualBlock(second, third, dilation=2)
        self.layer4 = _ResidualBlock(third, fourth, dilation=2)
        self._load_and_freeze(None, **pretraining)

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        layer2 = self.layer2(self.layer1(F.relu(self.stem(image))))
        return layer2, self.layer3(layer2)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``(B, in, H, W)`` to ``(B, out, H / stride, W / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv_norm(in_channels, out_channels, 3, stride, dilation=dilation)
        self.conv2 = _conv_norm(out_channels, out_channels, 3, dilation=dilation)
        same_shape = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same_shape else _conv_norm(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))
