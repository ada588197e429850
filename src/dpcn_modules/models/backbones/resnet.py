"""ResNet: torchvision's, dilated, and the variants that PFENet and CANet were published with."""

from typing import Unpack

from torch import Tensor, nn
from torchvision import models

from dpcn_modules._checks import check_choice
from dpcn_modules.models.backbones.base import Backbone, Pretraining


class ResNetBackbone(Backbone):
    """Dilated ResNet of torchvision: layer2 to layer4 keep one resolution, 60 x 60 for a 473 x 473 image.

    The 3x3 convolutions of layer3 have dilation 2 and those of layer4 dilation 4, all with stride 1. The
    parameters have torchvision's names, so that its state dicts load as they are.

    Args:
        depth: 50 or 101.
        deep_stem: PFENet's published ResNet: three 3x3 convolutions (``conv1`` to ``conv3``) in place of the 7x7
            one. It has pretrained weights of its own, to be given as a file; torchvision's do not fit.
        early_stride: CANet's published ResNet: layer2 has its stride in the first 1x1 convolution instead of the
            3x3 one, and the stem's max-pool rounds its size up. torchvision's weights fit, and were used for it.
        pretraining: torchvision has the weights ``"IMAGENET1K_V1"``, ``"IMAGENET1K_V2"`` and ``"DEFAULT"``. False as
            ``frozen_norm`` with frozen stages moves their statistics, as PFENet's published training does.

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
        self, depth: int, *, deep_stem: bool = False, early_stride: bool = False, **pretraining: Unpack[Pretraining]
    ) -> None:
        super().__init__()
        check_choice("depth", str(depth), ("50", "101"))
        net = models.get_model(f"resnet{depth}", weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
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
        self._load_and_freeze(None if deep_stem else f"resnet{depth}", **pretraining)

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
