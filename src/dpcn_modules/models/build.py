"""Every network by name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import nn

from dpcn_modules._checks import check_choice
from dpcn_modules.models._network import FewShotNetwork
from dpcn_modules.models.backbones import Backbone, build_backbone
from dpcn_modules.models.canet import CANet
from dpcn_modules.models.dpcn import DPCN
from dpcn_modules.models.panet import PANet
from dpcn_modules.models.pfenet import PFENet
from dpcn_modules.models.settings import (
    MODELS,
    BackboneSettings,
    CANetSettings,
    DPCNSettings,
    HostSettings,
    PANetSettings,
    PFENetSettings,
    Settings,
)
from dpcn_modules.modules import (
    DCMInteraction,
    Decoder,
    DynamicConvolutionModule,
    FeatureFilteringModule,
    SupportActivationModule,
)
from dpcn_modules.modules.decoder import init_for_relu


def build_model(name: str, **changes: Any) -> FewShotNetwork:
    """Build a network by its name.

    Args:
        name: a key of ``MODELS``: ``dpcn_*``, ``baseline_*``, ``pfenet_*``, ``canet_*`` or ``panet_*`` with resnet50,
            resnet101, vgg16, vgg16_bn or small; ``pfenet_*_dcm`` and ``canet_*_dcm`` have the plug in.
        changes: fields of its settings (such as :class:`DPCNSettings`) to be set otherwise.

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
    settings = settings_of(name, **changes)
    model = _BUILDERS[type(settings)](settings)
    model.recipe = {"name": name, **changes}
    return model


def settings_of(name: str, **changes: Any) -> Settings:
    """The settings that `build_model` builds from, checked by name.

    Raises:
        ValueError: an unknown name or an unknown field.
    """
    check_choice("name", name, MODELS)
    for field in changes:
        check_choice(f"changes to {name}", field, [f.name for f in dataclasses.fields(MODELS[name])])
    return dataclasses.replace(MODELS[name], **changes)


def _build_dpcn(settings: DPCNSettings) -> DPCN:
    backbone = _backbone(settings)
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
        dcm = DynamicConvolutionModule(C, **settings.dcm_options())
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


def _build_pfenet(settings: PFENetSettings) -> PFENet:
    host = PFENet(
        _backbone(settings),
        channels=settings.channels,
        sizes=settings.sizes,
        reduction_dropout=settings.reduction_dropout,
        classifier_dropout=settings.classifier_dropout,
    )
    host.interaction = _interaction(settings)
    return host


def _build_canet(settings: CANetSettings) -> CANet:
    host = CANet(
        _backbone(settings),
        channels=settings.channels,
        rates=settings.rates,
        dropout=settings.dropout,
        refinements=settings.refinements,
        history_dropout=settings.history_dropout,
    )
    host.interaction = _interaction(settings)
    return host


def _build_panet(settings: PANetSettings) -> PANet:
    return PANet(_backbone(settings), scale=settings.scale, query_to_support=settings.query_to_support)


_BUILDERS: dict[type[Settings], Callable[[Any], FewShotNetwork]] = {
    DPCNSettings: _build_dpcn,
    PFENetSettings: _build_pfenet,
    CANetSettings: _build_canet,
    PANetSettings: _build_panet,
}


def _backbone(settings: BackboneSettings) -> Backbone:
    settings = settings.decided()
    return build_backbone(
        settings.backbone,
        weights=settings.weights,
        trainable=settings.trainable,
        frozen_norm=settings.frozen_norm,
    )


def _interaction(settings: HostSettings) -> DCMInteraction | None:
    """The plug; made after its host, so that a seed gives the host one start with it and without."""
    return DCMInteraction(settings.channels, **settings.dcm_options()) if settings.dcm else None
