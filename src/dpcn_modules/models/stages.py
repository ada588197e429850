"""The frozen stages of a network's backbone, which a feature store keeps."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpcn_modules.errors import InputError, InputTypeError
from dpcn_modules.models.checkpoint import unwrapped
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.models.weights import plain_name


class FrozenStages:
    """Make what a network can take in the place of images: layer2, layer3 and, if it is frozen and used, layer4.

    Args:
        model: a network of this library whose ``backbone.trainable`` is "none", or "layer4" (which is then not kept).

    Raises:
        TypeError: another network.
        ValueError: layer2 and layer3 are trained, or BatchNorm statistics of the kept stages move.

    Example:
        >>> from dpcn_modules import build_model
        >>> stages = FrozenStages(build_model("dpcn_small", trainable="none"))
        >>> [tuple(each.shape) for each in stages(torch.zeros(1, 3, 33, 33))]
        [(1, 64, 9, 9), (1, 64, 9, 9), (1, 64, 9, 9)]
    """

    def __init__(self, model: nn.Module) -> None:
        network = unwrapped(model)
        if not isinstance(network, FewShotNetwork):
            raise InputTypeError(
                f"``features``: expected a network of dpcn_modules, whose forward takes ImageStages, got "
                f"{type(network).__name__}; train it through its backbone, without a feature store."
            )
        self.backbone = backbone = network.backbone
        self.name = str(getattr(network.settings, "backbone", type(backbone).__name__))
        if backbone.trainable == "all":
            raise InputError(
                "``features``: expected a backbone of which layer2 and layer3 are frozen, got trainable='all'; set "
                "overrides.trainable to 'none' (or 'layer4'), or train without a feature store."
            )
        self._last = {id(module) for module in backbone._last_stage().modules()}
        self.high = backbone.trainable == "none" and not isinstance(backbone._last_stage(), nn.Identity)
        moving = any(isinstance(m, _BatchNorm) and (self.high or id(m) not in self._last) for m in backbone.modules())
        if moving and not backbone.frozen_norm:
            raise InputError(
                "``features``: expected a backbone whose BatchNorm statistics are frozen, got frozen_norm=False; set "
                "overrides.frozen_norm to true, or train without a feature store."
            )

    @torch.no_grad()
    def __call__(self, image: Tensor) -> list[Tensor]:
        """Images ``(B, 3, Hi, Wi)``, normalised, to the stages, each ``(B, C, H, W)``."""
        weight = next(self.backbone.parameters())
        layer2, layer3, layer4 = self.backbone(image.to(weight.device, weight.dtype), high=self.high)
        return [layer2, layer3, layer4] if self.high else [layer2, layer3]

    def key(self) -> dict[str, Any]:
        """What the features depend on beside the images and the library's version: the backbone and its weights."""
        skipped = (
            set() if self.high else {id(p) for p in self.backbone._last_stage().state_dict(keep_vars=True).values()}
        )
        digest = hashlib.sha256()
        for name, value in sorted(self.backbone.state_dict(keep_vars=True).items()):
            if id(value) not in skipped:
                content = value.detach().cpu().contiguous()
                digest.update(f"{plain_name(name)} {content.dtype} {tuple(content.shape)}".encode())
                digest.update(content.reshape(-1).view(torch.uint8).numpy())
        stages = ["layer2", "layer3", "layer4"] if self.high else ["layer2", "layer3"]
        return {"backbone": self.name, "stages": stages, "weights": digest.hexdigest()}
