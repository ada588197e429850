"""The numbers of every network, by name."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from dpcn_modules._checks import check_choice
from dpcn_modules.models.backbones import build_backbone
from dpcn_modules.models.dpcn import DPCN
from dpcn_modules.modules import (
    Decoder,
    DynamicConvolutionModule,
    FeatureFilteringModule,
    SupportActivationModule,
)
from dpcn_modules.modules.decoder import init_for_relu
from dpcn_modules.modules.dynamic_convolution import BRANCHES


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPCNSettings:
    """What can be changed about a DPCN, and the paper's choice of it.

    Attributes:
        backbone: a name that :func:`build_backbone` knows.
        weights: of the backbone: None, a torchvision name ("imagenet", "IMAGENET1K_V2", ...) or a local file.
        trainable: "all", "layer4" or "none" of the backbone; None: "layer4" with weights, "all" without.
        frozen_norm: norm statistics of the backbone stay as they are; None: with weights.
        channels: C.
        sam, ffm, dcm: which of the three modules are there (Table 3); none of them is the baseline.
        windows: of SAM (Eq. 1); without SAM, FFM takes the prior mask.
        chunk_size: support positions that SAM matches at a time.
        kernel_size: S of DCM (Table 4).
        branches: kernels of DCM (Table 5).
        generation: "serial" (5->25) or "parallel" (5/25) (Table A1).
        backend: of the dynamic convolution.
        rates: dilations in the decoder.
        reduction_dropout, classifier_dropout: probabilities.
        query_to_support: the second branch in training (Eq. 13).
    """

    backbone: str = "resnet50"
    weights: str | None = None
    trainable: str | None = None
    frozen_norm: bool | None = None
    channels: int = 256
    sam: bool = True
    ffm: bool = True
    dcm: bool = True
    windows: Sequence[tuple[int, int]] = ((5, 1), (3, 3), (1, 5))
    chunk_size: int | None = None
    kernel_size: int = 5
    branches: Sequence[str] = BRANCHES
    generation: str = "serial"
    backend: str = "auto"
    rates: Sequence[int] = (6, 12, 18)
    reduction_dropout: float = 0.5
    classifier_dropout: float = 0.1
    query_to_support: bool = True


_SMALL = DPCNSettings(backbone="small", channels=32, rates=(2, 4, 6), reduction_dropout=0.0)
_BACKBONES = {
    "resnet50": DPCNSettings(),
    "resnet101": DPCNSettings(backbone="resnet101"),
    "vgg16": DPCNSettings(backbone="vgg16"),
    "vgg16_bn": DPCNSettings(backbone="vgg16_bn"),
    "small": _SMALL,
}

MODELS: dict[str, DPCNSettings] = {
    **{f"dpcn_{name}": settings for name, settings in _BACKBONES.items()},
    **{
        f"baseline_{name}": dataclasses.replace(settings, sam=False, ffm=False, dcm=False)
        for name, settings in _BACKBONES.items()
    },
}
"""Settings by the name of the network."""


def build_model(name: str, **changes: Any) -> DPCN:
    """Build a network by its name.

    Args:
        name: a key of ``MODELS``: ``dpcn_*`` or ``baseline_*`` with resnet50, resnet101, vgg16, vgg16_bn or small.
        changes: fields of :class:`DPCNSettings` to be set otherwise.

    Returns:
        The network, in training mode. Its ``recipe`` holds the name and the changes, so that a checkpoint can build
        it again.

    Raises:
        ValueError: an unknown name, an unknown field, or a value that a part does not take.

    Example:
        >>> from dpcn_modules.models import build_model
        >>> build_model("dpcn_small", kernel_size=3).dynamic_convolution.kernel_size
        3
    """
    check_choice("name", name, MODELS)
    for field in changes:
        check_choice(f"changes to {name}", field, [f.name for f in dataclasses.fields(DPCNSettings)])
    model = _build_dpcn(dataclasses.replace(MODELS[name], **changes))
    model.recipe = {"name": name, **changes}
    return model


def _build_dpcn(settings: DPCNSettings) -> DPCN:
    backbone = build_backbone(
        settings.backbone,
        weights=settings.weights,
        trainable=settings.trainable,
        frozen_norm=settings.frozen_norm,
    )
    if not (settings.sam or settings.ffm):
        backbone.drop_layer4()  # only SAM and the prior mask look at it, and DDP stops at parameters without a gradient
    C = settings.channels
    sam, ffm, dcm = None, None, None
    if settings.sam or settings.ffm:
        windows = tuple((d_h, d_w) for d_h, d_w in settings.windows) if settings.sam else ((1, 1),)
        sam = SupportActivationModule(windows, chunk_size=settings.chunk_size)
    if settings.ffm:
        ffm = FeatureFilteringModule(C)
    if settings.dcm:
        dcm = DynamicConvolutionModule(
            C, settings.kernel_size, settings.generation, settings.branches, backend=settings.backend
        )
    query_channels = dcm.out_channels if dcm else C
    in_channels = query_channels + C + (len(sam.windows) if sam else 0) + (1 if ffm else 0)
    reduction = nn.Sequential(
        nn.Conv2d(backbone.channels[0] + backbone.channels[1], C, 1),
        nn.ReLU(inplace=True),
        nn.Dropout2d(settings.reduction_dropout),
    )
    init_for_relu(reduction)
    return DPCN(
        backbone,
        reduction=reduction,
        decoder=Decoder(in_channels, C, rates=settings.rates, dropout=settings.classifier_dropout),
        support_activation=sam,
        feature_filtering=ffm,
        dynamic_convolution=dcm,
        query_to_support=settings.query_to_support,
    )
