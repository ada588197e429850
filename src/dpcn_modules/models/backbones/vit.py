"""Plain vision transformers of timm: DINOv2, DINOv3, MAE, CLIP's image towers and their like."""

from collections.abc import Sequence
from typing import Any, Unpack

import torch.nn.functional as F
from torch import Tensor, nn

from dpcn_modules._checks import check_integer
from dpcn_modules.errors import InputError
from dpcn_modules.models.backbones.base import Backbone, Features, Pretraining
from dpcn_modules.models.backbones.timm import check_stages, create_timm, read_timm_weights, timm_config

# Where timm defines the transformers that take images of any size.
_FILES = ("vision_transformer", "eva")


class ViTBackbone(Backbone):
    """A vision transformer of timm; layer2, layer3 and layer4 are the outputs of three blocks, after its last norm.

    An image of any size is resized so that the patches are centred on the corner-aligned grid (to half a pixel of the
    resized image), and its border is repeated by half a patch around it.

    Args:
        name: timm's, such as ``"vit_small_patch14_dinov2"``.
        stride: pixels of the image from cell to cell; None is the side of a patch. A smaller one enlarges the image.
        stages: positions of the three blocks, ascending; None takes those after a half, three quarters and all blocks.
        pretraining: as of :class:`TimmBackbone`.

    Shape:
        ``(B, 3, Hi, Wi)`` to three maps ``(B, C, H, W)`` with ``H = round((Hi - 1) / stride) + 1``.

    Raises:
        ModuleNotFoundError, ValueError, FileNotFoundError, ConnectionError: as :class:`TimmBackbone`.
    """

    can_mask_layer3 = False

    def __init__(
        self,
        name: str,
        *,
        stride: int | None = None,
        stages: Sequence[int] | None = None,
        **pretraining: Unpack[Pretraining],
    ) -> None:
        super().__init__()
        weights = pretraining.get("weights")
        state = read_timm_weights(name, weights)
        net: Any = create_timm(name, download=weights == "timm", num_classes=0, dynamic_img_size=True)
        if state is not None:
            net.load_state_dict(state)
        count = len(net.blocks)
        self.stages = check_stages(stages, count, default=(count // 2 - 1, count * 3 // 4 - 1, count - 1))
        net.prune_intermediate_layers(list(self.stages), prune_norm=False, prune_head=True)
        self.net = net
        self.patch = net.patch_embed.patch_size[0]
        self.stride = self.patch if stride is None else stride
        check_integer("stride", self.stride)
        self.channels = (net.embed_dim,) * 3
        config = timm_config(name)
        self._set_normalization(config.mean, config.std)
        self._freeze(weights is not None, pretraining.get("trainable"), pretraining.get("frozen_norm"))

    def _features(self, image: Tensor, high: bool) -> Features:
        stages = self.stages if high else self.stages[:2]
        maps = self.net.forward_intermediates(
            self._resized(image), indices=list(stages), norm=True, stop_early=True, intermediates_only=True
        )
        return maps[0], maps[1], maps[-1]

    def _resized(self, image: Tensor) -> Tensor:
        """The image at ``patch`` pixels from cell to cell, and half a patch of its border around it."""
        cells = [max(round((side - 1) / self.stride), 1) for side in image.shape[-2:]]
        size = [count * self.patch + 1 for count in cells]
        if list(image.shape[-2:]) != size:
            image = F.interpolate(image, size, mode="bilinear", align_corners=True)
        before, after = self.patch // 2, self.patch - 1 - self.patch // 2
        return F.pad(image, (before, after, before, after), mode="replicate")

    def last(self, layer3: Tensor) -> Tensor:
        raise InputError("``layer3``: a vision transformer cannot go on from a feature map; take the map of layer4.")

    def _last_stage(self) -> nn.Module:
        blocks: nn.Module = self.net.blocks[self.stages[1] + 1 :]
        return blocks

    def drop_layer4(self) -> None:
        self.stages = (*self.stages[:2], self.stages[1])
        self.net.blocks = self.net.blocks[: self.stages[1] + 1]


def is_vit(name: str) -> bool:
    """Whether timm builds a name as a plain vision transformer (its VisionTransformer or Eva)."""
    timm_config(name)
    import timm

    return timm.models.model_entrypoint(name.partition(".")[0]).__module__.rpartition(".")[2] in _FILES
