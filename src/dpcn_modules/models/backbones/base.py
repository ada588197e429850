"""The base class of all backbones: which parameters are trained, and which BatchNorm statistics are frozen."""

from pathlib import Path
from typing import Literal, Self, TypeAlias, TypedDict, get_args

import torch
from torch import Tensor, nn

from dpcn_modules._checks import check_choice, check_shapes
from dpcn_modules.interface import IMAGENET_MEAN, IMAGENET_STD
from dpcn_modules.models.weights import load_weights

Features: TypeAlias = tuple[Tensor, Tensor, Tensor]
Trainable: TypeAlias = Literal["all", "layer4", "none"]


class Pretraining(TypedDict, total=False):
    """Keyword arguments of every backbone.

    With pretrained weights only layer4 learns and the normalisation statistics stay as they are, which is how the paper
    trains on PASCAL-5i. Without weights everything learns, since frozen random features are of no use.

    Attributes:
        weights: None, a name of torchvision's, ``"imagenet"`` (its ``"IMAGENET1K_V1"``), or the path of a file with a
            state dict.
        trainable: what learns, ``"all"``, ``"layer4"`` or ``"none"``; None follows the rule above.
        frozen_norm: batch statistics are used as loaded, in training too; None follows the rule above.
    """

    weights: str | Path | None
    trainable: Trainable | None
    frozen_norm: bool | None


class Backbone(nn.Module):
    """An image in, the features of layer2, layer3 and layer4 out; the base class of all backbones.

    Frozen stages build no graph, unless the image asks for a gradient.

    Attributes:
        channels: channels of layer2, layer3 and layer4.
        mean, std: of the images that the network inside was made for, in the range 0 to 1; `forward` converts to them.
        validate: check the shape of each image; False where the caller has done so.

    Shape:
        image: ``(B, 3, Hi, Wi)``, normalised with ImageNet's mean and standard deviation, whatever the backbone. With
        ``high=False`` layer4 is left out, and layer3's feature stands in its place.
        Returns: features of layer2, layer3 and layer4, each ``(B, channels[i], H, W)``; the maps of one
        network can differ in size.
    """

    channels: tuple[int, int, int]
    layer4: nn.Module
    trainable: Trainable
    frozen_norm: bool
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    _scale: Tensor | None
    _shift: Tensor | None
    validate = True
    can_mask_layer3 = True
    """`last` takes a masked feature of layer3, as PFENet needs it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_scale", None, persistent=False)
        self.register_buffer("_shift", None, persistent=False)

    def _load_and_freeze(
        self,
        architecture: str | None,
        weights: str | Path | None = None,
        trainable: Trainable | None = None,
        frozen_norm: bool | None = None,
    ) -> None:
        """Finish the construction, once all layers are there; torchvision may know the architecture by a name."""
        if weights is not None:
            load_weights(self, weights, architecture)
        self._freeze(weights is not None, trainable, frozen_norm)

    def _freeze(self, pretrained: bool, trainable: Trainable | None, frozen_norm: bool | None) -> None:
        if trainable is None:
            trainable = "layer4" if pretrained else "all"
        check_choice("trainable", trainable, get_args(Trainable))
        self.trainable = trainable
        self.frozen_norm = pretrained if frozen_norm is None else frozen_norm
        self.requires_grad_(trainable == "all")
        self._last_stage().requires_grad_(trainable != "none")
        self.train(self.training)

    def forward(self, image: Tensor, *, high: bool = True) -> Features:
        if self.validate:
            check_shapes(image=(image, "B 3 Hi Wi"))
        return self._features(self._converted(image), high)

    def _features(self, image: Tensor, high: bool) -> Features:
        layer2, layer3 = self._middle(image)
        return layer2, layer3, self.last(layer3) if high else layer3

    def _set_normalization(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """State what the network inside expects; an image in ImageNet's normalisation becomes scale * image + shift."""
        self.mean, self.std = tuple(mean), tuple(std)
        if (self.mean, self.std) == (IMAGENET_MEAN, IMAGENET_STD):
            return
        own_mean, own_std, mean_, std_ = map(torch.tensor, (self.mean, self.std, IMAGENET_MEAN, IMAGENET_STD))
        self._scale = (std_ / own_std)[:, None, None]
        self._shift = ((mean_ - own_mean) / own_std)[:, None, None]

    def _converted(self, image: Tensor) -> Tensor:
        """The image in the normalisation of the network inside."""
        return image if self._scale is None or self._shift is None else image * self._scale + self._shift

    def last(self, layer3: Tensor) -> Tensor:
        """layer4 on a feature of layer3; PFENet gives it a masked one."""
        feat: Tensor = self._last_stage()(layer3)
        return feat

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The features of layer2 and layer3."""
        raise NotImplementedError

    def _last_stage(self) -> nn.Module:
        """The layers of layer4."""
        return self.layer4

    def drop_layer4(self) -> None:
        """Leave layer4 out, for a network that does not look at it; layer3's feature then stands in its place."""
        self.layer4 = nn.Identity()
        self.channels = (*self.channels[:2], self.channels[1])

    def delayed_parameters(self) -> list[nn.Parameter]:
        """Parameters that start to learn late: layer4's, where it alone is trained; otherwise none."""
        return list(self._last_stage().parameters()) if self.trainable == "layer4" else []

    def train(self, mode: bool = True) -> Self:
        """Set the mode, and leave frozen normalisation layers in eval mode."""
        super().train(mode)
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                    module.eval()
        return self
