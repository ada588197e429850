"""PFENet: a prior mask from high-level features, and feature enrichment over a pyramid of sizes."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from dpcn_modules._checks import check_choice
from dpcn_modules.errors import InputError
from dpcn_modules.functional import prior_mask
from dpcn_modules.functional.pooling import (
    mean_of_shots,
    resize,
    shots_with_foreground,
    soft_average_pool,
    soft_masks,
)
from dpcn_modules.interface import ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone, VGGBackbone
from dpcn_modules.models.host import HostNetwork
from dpcn_modules.models.network import each_shot
from dpcn_modules.models.settings import EmptyShots
from dpcn_modules.modules.decoder import init_for_relu

_conv_relu = partial(Conv2dNormActivation, norm_layer=None, bias=False)
# Where the published code cuts VGG-16-BN into its layer0 to layer4.
_VGG_CUTS = (0, 7, 14, 24, 34, 43)


class FeatureEnrichment(nn.Module):
    """Compare query, prototype and prior mask at several sizes, and pass what is found from size to size.

    At each size: the query pooled to it, the prototype and the prior mask are concatenated and merged (1 x 1); from
    the second size on, the result of the size before is added through a 1 x 1 convolution of both; two 3 x 3
    convolutions refine the sum; a classifier gives logits to train on.

    Args:
        channels: C.
        sizes: sides of the square grids, from large to small.
        dropout: probability in the classifiers.

    Shape:
        - query_feat: ``(B, C, H, W)``
        - prototype: ``(B, C)``
        - prior: ``(B, 1, H, W)`` in [0, 1]
        - output: ``(B, len(sizes) * C, H, W)``, and for each size logits ``(B, 2, size, size)``

    Reference: Tian et al., TPAMI 2020, sec. 4.2.
    """

    def __init__(self, channels: int, sizes: Sequence[int] = (60, 30, 15, 8), *, dropout: float = 0.1) -> None:
        super().__init__()
        C, count = channels, len(sizes)
        if not sizes or min(sizes) < 1:
            raise InputError(f"``sizes``: expected one or more grid sides, each at least 1, got {tuple(sizes)}.")
        self.sizes = tuple(sizes)
        self.merges = nn.ModuleList(_conv_relu(2 * C + 1, C, 1) for _ in range(count))
        self.passes = nn.ModuleList(_conv_relu(2 * C, C, 1) for _ in range(count - 1))
        self.refines = nn.ModuleList(_twice_3x3(C) for _ in range(count))
        self.classifiers = nn.ModuleList(_classifier(C, dropout) for _ in range(count))

    def forward(self, query_feat: Tensor, prototype: Tensor, prior: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the enriched features, concatenated, and the logits of every size."""
        enriched: list[Tensor] = []
        logits = []
        for i, size in enumerate(self.sizes):
            grid = (size, size)
            pooled = F.adaptive_avg_pool2d(query_feat, grid)
            tiled = prototype[:, :, None, None].expand(-1, -1, *grid)
            feat = self.merges[i](torch.cat([pooled, tiled, resize(prior, grid)], dim=1))
            if enriched:
                feat = feat + self.passes[i - 1](torch.cat([feat, resize(enriched[-1], grid)], dim=1))
            feat = feat + self.refines[i](feat)
            logits.append(self.classifiers[i](feat))
            enriched.append(resize(feat, query_feat.shape[-2:]))
        return torch.cat(enriched, dim=1), tuple(logits)


class PFENet(HostNetwork):
    """Prior-guided feature enrichment network, with a place for DCM on the reduced query feature.

    Several shots give the mean of their prototypes and of their prior masks.

    Args:
        backbone: gives the features of three stages; published are ``resnet50_deep_stem`` and ``vgg16_bn_ceil``.
        channels, sizes, reduction_dropout, classifier_dropout, empty_shots: see :class:`PFENetSettings`.

    Shape:
        As :class:`dpcn_modules.models.FewShotNetwork`. ``auxiliary_logits`` holds the logits of every size,
        ``initial_mask`` the prior mask.

    Note:
        With a frozen backbone, as published, the prior mask carries no gradient. Where the backbone learns, it does:
        layer4 would otherwise never learn. Convolutions are initialised by `init_for_relu`, not as published.

    Reference: Tian et al., Prior Guided Feature Enrichment Network for Few-Shot Segmentation, TPAMI 2020.
    """

    reads_support_high = False  # it is made of the masked feature

    def __init__(
        self,
        backbone: Backbone,
        *,
        channels: int = 256,
        sizes: Sequence[int] = (60, 30, 15, 8),
        reduction_dropout: float = 0.5,
        classifier_dropout: float = 0.1,
        empty_shots: EmptyShots = "left_out",
    ) -> None:
        super().__init__(backbone, channels=channels)
        if not backbone.can_mask_layer3:
            raise InputError(
                f"``backbone``: PFENet puts masked features of layer3 through layer4, which {type(backbone).__name__} "
                f"cannot do; take a convolutional backbone, or another network."
            )
        check_choice("empty_shots", empty_shots, get_args(EmptyShots))
        self.empty_shots = empty_shots
        C, wide = channels, sum(backbone.channels[:2])
        self.reduction_query = _conv_relu(wide, C, 1).append(nn.Dropout2d(reduction_dropout))
        self.reduction_support = _conv_relu(wide, C, 1).append(nn.Dropout2d(reduction_dropout))
        self.enrichment = FeatureEnrichment(C, sizes, dropout=classifier_dropout)
        self.merge = _conv_relu(len(sizes) * C, C, 1)
        self.refine = _twice_3x3(C)
        self.classifier = _classifier(C, classifier_dropout)
        for part in (self.reduction_query, self.reduction_support, self.enrichment, self.merge, self.refine):
            init_for_relu(part)
        init_for_relu(self.classifier[0])

    def _encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        weight = soft_masks(support.mid, support_masks)
        feat = each_shot(self.reduction_support, support.mid)
        prototypes = soft_average_pool(feat, weight)
        prototype = prototypes.mean(1) if self.empty_shots == "counted" else mean_of_shots(prototypes, weight)
        layer3 = support.mid[:, :, : self.backbone.channels[1]]
        high = each_shot(self.backbone.last, layer3 * weight.unsqueeze(2))
        touched = (resize(weight, high.shape[-2:]) > 0).to(weight.dtype)
        return SupportFeatures(prototype, self._make_kernels(feat, support_masks), high, touched)

    def _decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        x_q = self._interact(self.reduction_query(query.mid), support.kernels)
        prior = prior_mask(query.high, support.high, support.mask, validate=False)  # type: ignore[arg-type]  # set above
        if self.empty_shots == "counted":  # prior_mask leaves them out
            present = shots_with_foreground(support.mask)  # type: ignore[arg-type]
            prior = prior * present.to(prior.dtype).mean(1)[:, None, None, None]
        prior = resize(prior, x_q.shape[-2:])
        pyramid, auxiliary = self.enrichment(x_q, support.prototype, prior)
        feat = self.merge(pyramid)
        feat = feat + self.refine(feat)
        return Prediction(resize(self.classifier(feat), size), auxiliary_logits=auxiliary, initial_mask=prior)

    def _image_features(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> ImageFeatures:
        # Not reduced yet: query and support have a reduction each, and the masked layer3 goes through layer4.
        return ImageFeatures(torch.cat([layer3, layer2], dim=1), layer4)

    def _renamings(self) -> list[tuple[str, str]]:
        if isinstance(self.backbone, VGGBackbone):
            stages = [
                (f"backbone.features.{i}.", f"layer{stage}.{i - start}.")
                for stage, (start, end) in enumerate(pairwise(_VGG_CUTS))
                for i in range(start, end)
            ]
        else:
            stem = ("conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3")
            stages = [(f"backbone.{part}.", f"layer0.{i}.") for i, part in enumerate(stem)]
            stages += [("backbone.", "")]
        return [
            *stages,
            ("reduction_query.", "down_query."),
            ("reduction_support.", "down_supp."),
            ("enrichment.merges.", "init_merge."),
            ("enrichment.passes.", "alpha_conv."),
            ("enrichment.refines.", "beta_conv."),
            ("enrichment.classifiers.", "inner_cls."),
            ("merge.", "res1."),
            ("refine.", "res2."),
            ("classifier.", "cls."),
        ]


def _classifier(channels: int, dropout: float) -> nn.Sequential:
    """3 x 3, ReLU, dropout, and 1 x 1 to two logits."""
    return nn.Sequential(*_conv_relu(channels, channels, 3), nn.Dropout2d(dropout), nn.Conv2d(channels, 2, 1))


def _twice_3x3(channels: int) -> nn.Sequential:
    return nn.Sequential(*_conv_relu(channels, channels, 3), *_conv_relu(channels, channels, 3))
