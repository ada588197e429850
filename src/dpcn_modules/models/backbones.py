"""Backbones: a picture in, the features of layer2, layer3 and layer4 out."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vgg import cfgs, make_layers

from dpcn_modules._checks import check_choice
from dpcn_modules.models._backbone import Backbone, Features, Trainable

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


class ResNetBackbone(Backbone):
    """Dilated ResNet of torchvision: layer2 to layer4 keep one resolution, 60 x 60 for a 473 x 473 picture.

    The 3x3 convolutions of layer3 have dilation 2 and those of layer4 dilation 4, all with stride 1. The
    parameters have torchvision's names, so that its state dicts load as they are.

    Args:
        depth: 50 or 101.
        weights: None, a name of torchvision's (``"IMAGENET1K_V1"``, ``"IMAGENET1K_V2"``, ``"DEFAULT"``; also
            ``"imagenet"``, which means ``"IMAGENET1K_V1"``), or the path of a file with a state dict.
        trainable: what learns; None follows the rule of `Backbone`.
        frozen_norm: keep the batch statistics; None follows the rule of `Backbone`. False with frozen
            stages moves their statistics, as PFENet's published training does.
        deep_stem: PFENet's published ResNet: three 3x3 convolutions (``conv1`` to ``conv3``) in place of the 7x7
            one. It has pretrained weights of its own, to be given as a file; torchvision's do not fit.
        early_stride: CANet's published ResNet: layer2 has its stride in the first 1x1 convolution instead of the
            3x3 one, and the stem's max-pool rounds its size up. torchvision's weights fit, and were used for it.

    Shape:
        ``(B, 3, Hi, Wi)`` to ``(B, 512, H, W)``, ``(B, 1024, H, W)``, ``(B, 2048, H, W)`` with ``H = ceil(Hi / 8)``
        (one more for some sizes with ``early_stride``).

    Example:
        >>> import torch
        >>> layer2, layer3, layer4 = ResNetBackbone(50)(torch.zeros(2, 3, 33, 33))
        >>> layer4.shape
        torch.Size([2, 2048, 5, 5])
    """

    channels = (512, 1024, 2048)

    def __init__(
        self,
        depth: int,
        *,
        weights: str | Path | None = None,
        trainable: Trainable | None = None,
        frozen_norm: bool | None = None,
        deep_stem: bool = False,
        early_stride: bool = False,
    ) -> None:
        super().__init__()
        check_choice("depth", str(depth), ("50", "101"))
        net = models.get_model(f"resnet{depth}", weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3
        self.layer4: nn.Module = net.layer4
        _dilate(self.layer3, 2)
        _dilate(self.layer4, 4)
        self.deep_stem = deep_stem
        if deep_stem:
            self.conv1, self.conv2, self.conv3 = _conv(3, 64, 3, stride=2), _conv(64, 64, 3), _conv(64, 128, 3)
            self.bn2, self.bn3 = nn.BatchNorm2d(64), nn.BatchNorm2d(128)
            self.layer1[0].conv1, self.layer1[0].downsample[0] = _conv(128, 64, 1), _conv(128, 256, 1)
        if early_stride:
            self.maxpool.ceil_mode = True
            block = self.layer2[0]
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
        self._load_and_freeze(weights, None if deep_stem else f"resnet{depth}", trainable, frozen_norm)

    def _last_stage(self) -> nn.Module:
        return self.layer4

    def drop_layer4(self) -> None:
        """Leave layer4 out; see `Backbone`."""
        self.layer4 = nn.Identity()
        self.channels = (*self.channels[:2], self.channels[1])

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.relu(self.bn1(self.conv1(image)))
        if self.deep_stem:
            x = self.relu(self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x))))))
        layer2 = self.layer2(self.layer1(self.maxpool(x)))
        return layer2, self.layer3(layer2)


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that starts as torchvision's do."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _dilate(stage: nn.Module, dilation: int) -> None:
    """Trade the stride of a ResNet stage for dilation.

    torchvision's ``replace_stride_with_dilation`` leaves the first block at the dilation of the stage
    before; here every 3x3 convolution of the stage has the same.
    """
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
            if module.kernel_size == (3, 3):
                module.dilation = module.padding = (dilation, dilation)


class VGGBackbone(Backbone):
    """VGG-16 of torchvision, cut where PFENet cuts it; the three maps differ in size.

    layer2 ends with the third max-pool, layer3 with the fourth, and layer4 before the fifth. layer2 is thus
    twice as large as the others (59 x 59 and 29 x 29 for a 473 x 473 picture); to bring them to one size is
    left to the network. The parameters have torchvision's names (``features.0.weight``).

    Args:
        batch_norm: VGG-16 with batch normalisation.
        dilated: PANet's published VGG-16: max-pools of 3x3, the fourth with stride 1, layer4 with dilation 2 and
            without its last ReLU, so that all three maps have one size, 60 x 60 for a 473 x 473 picture.
        weights: None, ``"IMAGENET1K_V1"`` (also ``"imagenet"`` and ``"DEFAULT"``), or the path of a file
            with a state dict.
        trainable: what learns; None follows the rule of `Backbone`.
        frozen_norm: keep the batch statistics; None follows the rule of `Backbone`. VGG-16 without batch
            normalisation has none to keep.

    Shape:
        ``(B, 3, Hi, Wi)`` to ``(B, 256, Hi // 8, Wi // 8)`` and twice ``(B, 512, Hi // 16, Wi // 16)``; dilated, all
        three with ``H = ceil(Hi / 8)``.

    Example:
        >>> import torch
        >>> [tuple(feat.shape) for feat in VGGBackbone()(torch.zeros(1, 3, 33, 33))]
        [(1, 256, 4, 4), (1, 512, 2, 2), (1, 512, 2, 2)]
    """

    channels = (256, 512, 512)

    def __init__(
        self,
        batch_norm: bool = False,
        *,
        dilated: bool = False,
        weights: str | Path | None = None,
        trainable: Trainable | None = None,
        frozen_norm: bool | None = None,
    ) -> None:
        super().__init__()
        architecture = "vgg16_bn" if batch_norm else "vgg16"
        # Index of the layer after the last one of layer2, layer3 and layer4.
        self._ends = (24, 34, 43) if batch_norm else (17, 24, 30)
        # Not torchvision's whole network: its classifier, 120 million random numbers, would be thrown away.
        self.features: nn.Sequential = make_layers(cfgs["D"], batch_norm)[: self._ends[-1]]
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if dilated:
            _dilate_vgg(self.features, self._ends[1])
            self._ends = (*self._ends[:2], self._ends[2] - 1)
        self._load_and_freeze(weights, architecture, trainable, frozen_norm)

    def _last_stage(self) -> nn.Module:
        return self.features[self._ends[1] :]

    def drop_layer4(self) -> None:
        """Leave layer4 out; see `Backbone`."""
        self.features = self.features[: self._ends[1]]
        self.channels = (*self.channels[:2], self.channels[1])

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        layer2 = self.features[: self._ends[0]](image)
        return layer2, self.features[self._ends[0] : self._ends[1]](layer2)


def _dilate_vgg(features: nn.Sequential, layer4: int) -> None:
    """PANet's changes to VGG-16, in place; ``layer4`` is the index of its first layer."""
    pools = [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
    for pool in pools:
        pool.kernel_size, pool.padding = 3, 1
    pools[-1].stride = 1
    for layer in features[layer4:]:
        if isinstance(layer, nn.Conv2d):
            layer.dilation = layer.padding = (2, 2)
    del features[-1]


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
