"""Every network by name: its settings, and how its parts are put together."""

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from dpcn_modules._checks import check_choice
from dpcn_modules.models.backbones import Backbone, build_backbone
from dpcn_modules.models.canet import CANet
from dpcn_modules.models.dpcn import DPCN
from dpcn_modules.models.host import HostNetwork
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.models.panet import PANet
from dpcn_modules.models.pfenet import PFENet
from dpcn_modules.models.settings import (
    CANetSettings,
    DPCNSettings,
    HostSettings,
    NetworkSettings,
    PANetSettings,
    PFENetSettings,
    Settings,
)
from dpcn_modules.modules import DCM, FFM, SAM, DCMInteraction, Decoder
from dpcn_modules.modules.decoder import init_for_relu


def build_model(name: str, **overrides: Any) -> FewShotNetwork:
    """Build a network by its name.

    Args:
        name: one that :func:`list_models` lists: ``dpcn_*``, ``baseline_*``, ``pfenet_*``, ``canet_*`` or ``panet_*``
            with resnet50, resnet101, vgg16, vgg16_bn or small; ``pfenet_*_dcm`` and ``canet_*_dcm`` have the adapter.
        overrides: fields of its settings (such as :class:`DPCNSettings`) in place of the defaults of that name.

    Returns:
        The network, in training mode. Its ``name`` and ``settings`` are kept in checkpoints, which build it again.

    Raises:
        TypeError: a field of another type.
        ValueError: an unknown name, an unknown field, or a value out of its range.

    Example:
        >>> from dpcn_modules.models import build_model
        >>> build_model("dpcn_small", kernel_size=3).settings.kernel_size
        3
    """
    settings = settings_of(name, **overrides)
    model = _BUILDERS[type(settings)](settings)
    model.name, model.settings = name, settings
    return model


def settings_of(name: str, **overrides: Any) -> Settings:
    """The settings that :func:`build_model` builds from.

    Raises:
        TypeError, ValueError: as :func:`build_model`.
    """
    check_choice("name", name, MODELS)
    for field in overrides:
        check_choice(f"overrides of {name}", field, [each.name for each in dataclasses.fields(MODELS[name])])
    return dataclasses.replace(MODELS[name], **overrides)


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the networks that match a shell pattern (``*`` is anything, ``?`` one character), sorted.

    Example:
        >>> list_models("dpcn_*")
        ['dpcn_resnet101', 'dpcn_resnet50', 'dpcn_small', 'dpcn_vgg16', 'dpcn_vgg16_bn']
    """
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def _build_dpcn(settings: DPCNSettings) -> DPCN:
    backbone, C = _backbone(settings), settings.channels
    sam = None
    if settings.sam or settings.ffm:
        windows = settings.windows if settings.sam else ((1, 1),)
        sam = SAM(windows, chunk_size=settings.chunk_size, validate=False)
    else:
        backbone.drop_layer4()  # only SAM and the prior mask look at it, and DDP stops at parameters without a gradient
    ffm = FFM(C, validate=False) if settings.ffm else None
    dcm = DCM(C, **settings.dcm_options(), validate=False) if settings.dcm else None
    query_channels = dcm.out_channels if dcm else C
    in_channels = query_channels + C + (len(sam.windows) if sam else 0) + (1 if ffm else 0)
    reduction = nn.Sequential(
        nn.Conv2d(sum(backbone.channels[:2]), C, 1), nn.ReLU(inplace=True), nn.Dropout2d(settings.reduction_dropout)
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


def _build_panet(settings: PANetSettings) -> PANet:
    return PANet(_backbone(settings), scale=settings.scale, query_to_support=settings.query_to_support)


def _build_host(kind: type[HostNetwork], options: tuple[str, ...], settings: HostSettings) -> HostNetwork:
    host = kind(_backbone(settings), channels=settings.channels, **{name: getattr(settings, name) for name in options})
    if settings.dcm:
        # Made after its host network, so that a seed gives the host network the same start with it and without.
        host.interaction = DCMInteraction(settings.channels, **settings.dcm_options(), validate=False)
    return host


def _backbone(settings: NetworkSettings) -> Backbone:
    settings = settings.decided()
    maps = {name: value for name in ("stride", "stages") if (value := getattr(settings, name)) is not None}
    backbone = build_backbone(
        settings.backbone,
        weights=settings.weights,
        trainable=settings.trainable,
        frozen_norm=settings.frozen_norm,
        **maps,
    )
    backbone.validate = False
    return backbone


_BUILDERS: dict[type[Settings], Callable[[Any], FewShotNetwork]] = {
    DPCNSettings: _build_dpcn,
    PFENetSettings: partial(_build_host, PFENet, ("sizes", "reduction_dropout", "classifier_dropout", "empty_shots")),
    CANetSettings: partial(_build_host, CANet, ("rates", "dropout", "refinements", "history_dropout")),
    PANetSettings: _build_panet,
}

_LARGE = ("resnet50", "resnet101", "vgg16", "vgg16_bn")
_SMALL_DPCN = DPCNSettings(backbone="small", channels=32, rates=(2, 4, 6), reduction_dropout=0.0)
_SMALL_PFENET = PFENetSettings(backbone="small", channels=32, sizes=(16, 8, 4, 2), reduction_dropout=0.0)
_SMALL_CANET = CANetSettings(backbone="small", channels=32, rates=(2, 4, 6), dropout=0.0)
# Where the published network's backbone is a variant of its own.
_CANET_BACKBONES = {"resnet50": "resnet50_early_stride", "resnet101": "resnet101_early_stride"}
_PANET_BACKBONES = {"vgg16": "vgg16_dilated"}
_PFENET_BACKBONES = {"vgg16": "vgg16_ceil", "vgg16_bn": "vgg16_bn_ceil"}


def _family(small: Settings, variants: Mapping[str, str] | None = None, **overrides: Any) -> dict[str, Settings]:
    """The settings of a network with every backbone."""
    kind = type(small)
    large = {name: kind(backbone=(variants or {}).get(name, name)) for name in _LARGE}
    return {name: dataclasses.replace(each, **overrides) for name, each in {**large, "small": small}.items()}


_FAMILIES: dict[str, dict[str, Settings]] = {
    "dpcn_{}": _family(_SMALL_DPCN),
    "baseline_{}": _family(_SMALL_DPCN, sam=False, ffm=False, dcm=False),
    "pfenet_{}": _family(_SMALL_PFENET, _PFENET_BACKBONES),
    "pfenet_{}_dcm": _family(_SMALL_PFENET, _PFENET_BACKBONES, dcm=True),
    "canet_{}": _family(_SMALL_CANET, _CANET_BACKBONES),
    "canet_{}_dcm": _family(_SMALL_CANET, _CANET_BACKBONES, dcm=True),
    "panet_{}": _family(PANetSettings(backbone="small"), _PANET_BACKBONES),
}

MODELS: dict[str, Settings] = {
    pattern.format(name): settings for pattern, family in _FAMILIES.items() for name, settings in family.items()
}
"""Settings by the name of the network."""
