"""VGG-16: torchvision's, cut where PFENet cuts it, and the variant that PANet was published with."""

from typing import Unpack

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from dpcn_modules.models.backbones.base import Backbone, Pretraining


class VGGBackbone(Backbone):
    """VGG-16 of torchvision, cut where PFENet cuts it; the three maps differ in size.

    layer2 ends with the third max-pool, layer3 with the fourth, and layer4 before the fifth. layer2 is thus
    twice as large as the others (59 x 59 and 29 x 29 for a 473 x 473 image, in ceil mode 60 x 60 and 30 x 30); to bring
    them to one size is left to the network. The parameters have torchvision's names (``features.0.weight``).

    Args:
        batch_norm: VGG-16 with batch normalisation.
        ceil_mode: PFENet's published VGG-16: max-pools round their size up.
        dilated: PANet's published VGG-16: max-pools of 3x3, the fourth with stride 1, layer4 with dilation 2 and
            without its last ReLU, so that all three maps have one size, 60 x 60 for a 473 x 473 image.
        pretraining: torchvision has the weights ``"IMAGENET1K_V1"`` and ``"DEFAULT"``; without batch normalisation,
            ``frozen_norm`` means nothing.

    Shape:
        ``(B, 3, Hi, Wi)`` to ``(B, 256, Hi // 8, Wi // 8)`` and twice ``(B, 512, Hi // 16, Wi // 16)``, rounded up in
        ceil mode; dilated, all three with ``H = ceil(Hi / 8)``.

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
        ceil_mode: bool = False,
        dilated: bool = False,
        **pretraining: Unpack[Pretraining],
    ) -> None:
        super().__init__()
        # Index of the layer after the last one of layer2, layer3 and layer4.
        self._ends = (24, 34, 43) if batch_norm else (17, 24, 30)
        # Not torchvision's whole network: its classifier, 120 million random numbers, would be thrown away.
        self.features: nn.Sequential = make_layers(cfgs["D"], batch_norm)[: self._ends[-1]]
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for pool in _max_pools(self.features):
            pool.ceil_mode = ceil_mode
        if dilated:
            _dilate_vgg(self.features, self._ends[1])
            self._ends = (*self._ends[:2], self._ends[2] - 1)
        self._load_and_freeze("vgg16_bn" if batch_norm else "vgg16", **pretraining)

    def _last_stage(self) -> nn.Module:
        return self.features[self._ends[1] :]

    def drop_layer4(self) -> None:
        self.features = self.features[: self._ends[1]]
        self.channels = (*self.channels[:2], self.channels[1])

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        layer2 = self.features[: self._ends[0]](image)
        return layer2, self.features[self._ends[0] : self._ends[1]](layer2)


def _dilate_vgg(features: nn.Sequential, layer4: int) -> None:
    """PANet's changes to VGG-16, in place; ``layer4`` is the index of its first layer."""
    pools = _max_pools(features)
    for pool in pools:
        pool.kernel_size, pool.padding = 3, 1
    pools[-1].stride = 1
    for layer in features[layer4:]:
        if isinstance(layer, nn.Conv2d):
            layer.dilation = layer.padding = (2, 2)
    del features[-1]


def _max_pools(features: nn.Sequential) -> list[nn.MaxPool2d]:
    return [layer for layer in features if isinstance(layer, nn.MaxPool2d)]
