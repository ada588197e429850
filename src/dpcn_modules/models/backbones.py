"""Backbones: a picture in, the features of layer2, layer3 and layer4 out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dpcn_modules._checks import check_choice
from dpcn_modules.models._backbone import Backbone, Features, Trainable
from dpcn_modules.models._resnet import ResNetBackbone
from dpcn_modules.models._vgg import VGGBackbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "Features",
    "ResNetBackbone",
    "SmallBackbone",
    "Trainable",
    "VGGBackbone",
    "build_backbone",
]


class SmallBackbone(Backbone):
    """Small residual network that trains from scratch on a CPU in minutes; layer2 to layer4 have stride 4.

    One block a stage, dilation 2 in layer3 and layer4. Group normalisation does not depend on the batch, so
    a picture has the same features alone and among others, and there are no statistics to freeze.

    Args:
        widths: channels of layer1 to layer4, multiples of 8 (the groups of the normalisation).
        weights: None, or the path of a file with a state dict.
        trainable: what learns; None follows the rule of `Backbone`.
        frozen_norm: for the other backbones' sake: without batch statistics, both values mean the same.

    Shape:
        ``(B, 3, Hi, Wi)`` to ``(B, widths[i], H, W)`` for i of 1, 2, 3, with ``H = ceil(Hi / 4)``.

    Example:
        >>> import torch
        >>> [tuple(feat.shape) for feat in SmallBackbone((8, 16, 24, 32))(torch.zeros(1, 3, 64, 64))]
        [(1, 16, 16, 16), (1, 24, 16, 16), (1, 32, 16, 16)]
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 64, 64),
        *,
        weights: str | Path | None = None,
        trainable: Trainable | None = None,
        frozen_norm: bool | None = None,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or any(width < 1 or width % 8 for width in widths):
            raise ValueError(
                f"``widths``: expected four positive multiples of 8, one for each of layer1 to layer4, got "
                f"{tuple(widths)}; try (32, 64, 64, 64)."
            )
        first, second, third, fourth = widths
        self.channels = (second, third, fourth)
        self.stem = _conv_norm(3, first, 3, stride=2)
        self.layer1 = _ResidualBlock(first, first, stride=2)
        self.layer2 = _ResidualBlock(first, second)
        self.layer3 = _ResidualBlock(second, third, dilation=2)
        self.layer4: nn.Module = _ResidualBlock(third, fourth, dilation=2)
        self._load_and_freeze(weights, None, trainable, frozen_norm)

    def _last_stage(self) -> nn.Module:
        return self.layer4

    def drop_layer4(self) -> None:
        """Leave layer4 out; see `Backbone`."""
        self.layer4 = nn.Identity()
        self.channels = (*self.channels[:2], self.channels[1])

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        layer2 = self.layer2(self.layer1(F.relu(self.stem(image))))
        return layer2, self.layer3(layer2)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: ``(B, in, H, W)`` to ``(B, out, H / stride, W / stride)``."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv_norm(in_channels, out_channels, 3, stride, dilation)
        self.conv2 = _conv_norm(out_channels, out_channels, 3, dilation=dilation)
        same_shape = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same_shape else _conv_norm(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """A convolution that keeps the size (but for its stride), and group normalisation."""
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=False),
        nn.GroupNorm(8, out_channels),
    )


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet50": partial(ResNetBackbone, 50),
    "resnet101": partial(ResNetBackbone, 101),
    "resnet50_deep_stem": partial(ResNetBackbone, 50, deep_stem=True),
    "resnet101_deep_stem": partial(ResNetBackbone, 101, deep_stem=True),
    "resnet50_early_stride": partial(ResNetBackbone, 50, early_stride=True),
    "resnet101_early_stride": partial(ResNetBackbone, 101, early_stride=True),
    "vgg16": partial(VGGBackbone, False),
    "vgg16_bn": partial(VGGBackbone, True),
    "vgg16_dilated": partial(VGGBackbone, False, dilated=True),
    "small": SmallBackbone,
}


def build_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone by its name.

    Args:
        name: ``"resnet50"``, ``"resnet101"``, either with ``"_deep_stem"`` (PFENet's) or
            ``"_early_stride"`` (CANet's), ``"vgg16"``, ``"vgg16_bn"``, ``"vgg16_dilated"`` (PANet's) or ``"small"``.
        options: keyword arguments of its class: ``weights``, ``trainable``, ``frozen_norm``, and for
            ``"small"`` also ``widths``.

    Raises:
        ValueError: the name is not a known one.

    Example:
        >>> build_backbone("small", trainable="none").channels
        (64, 64, 64)
    """
    check_choice("name", name, BACKBONES)
    return BACKBONES[name](**options)
