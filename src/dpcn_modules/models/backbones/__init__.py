"""Backbones by name: an image in, the features of layer2, layer3 and layer4 out."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from dpcn_modules._checks import check_choice
from dpcn_modules.errors import InputError
from dpcn_modules.models.backbones.base import Backbone, Features, Trainable
from dpcn_modules.models.backbones.efficientnet_lite import EfficientNetLiteBackbone
from dpcn_modules.models.backbones.resnet import ResNetBackbone
from dpcn_modules.models.backbones.small import SmallBackbone
from dpcn_modules.models.backbones.timm import TimmBackbone
from dpcn_modules.models.backbones.vgg import VGGBackbone
from dpcn_modules.models.backbones.vit import ViTBackbone, is_vit

__all__ = [
    "BACKBONES",
    "Backbone",
    "EfficientNetLiteBackbone",
    "Features",
    "ResNetBackbone",
    "SmallBackbone",
    "TimmBackbone",
    "Trainable",
    "VGGBackbone",
    "ViTBackbone",
    "build_backbone",
    "check_backbone",
    "list_backbones",
]

_LITE = tuple(f"efficientnet_lite{i}" for i in range(3))

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet50": partial(ResNetBackbone, 50),
    "resnet101": partial(ResNetBackbone, 101),
    "resnet50_deep_stem": partial(ResNetBackbone, 50, deep_stem=True),
    "resnet101_deep_stem": partial(ResNetBackbone, 101, deep_stem=True),
    "resnet50_early_stride": partial(ResNetBackbone, 50, early_stride=True),
    "resnet101_early_stride": partial(ResNetBackbone, 101, early_stride=True),
    "vgg16": partial(VGGBackbone, False),
    "vgg16_bn": partial(VGGBackbone, True),
    "vgg16_ceil": partial(VGGBackbone, False, ceil_mode=True),
    "vgg16_bn_ceil": partial(VGGBackbone, True, ceil_mode=True),
    "vgg16_dilated": partial(VGGBackbone, False, dilated=True),
    **{name: partial(EfficientNetLiteBackbone, name) for name in _LITE},
    "small": SmallBackbone,
}
_TIMM = "timm:"


def build_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone by its name.

    Args:
        name: ``"resnet50"``, ``"resnet101"``, either with ``"_deep_stem"`` (PFENet's) or
            ``"_early_stride"`` (CANet's), ``"vgg16"`` or ``"vgg16_bn"``, either with ``"_ceil"`` (PFENet's),
            ``"vgg16_dilated"`` (PANet's), ``"small"``, ``"efficientnet_lite0"`` (or 1, 2), or ``"timm:"`` and the name
            of a model of timm.
        options: ``weights``, ``trainable`` and ``frozen_norm``, see `Pretraining`; for ``"small"`` also ``widths``, and
            for timm's and EfficientNet-Lite ``stride`` and ``stages``, see `TimmBackbone` and `ViTBackbone`.

    Raises:
        ValueError: the name is not a known one, or the backbone has no such option.
        ModuleNotFoundError: timm, or a package with weights, is not installed.

    Example:
        >>> build_backbone("small", trainable="none").channels
        (64, 64, 64)
    """
    check_backbone("name", name)
    if name.startswith(_TIMM):
        model = name.removeprefix(_TIMM)
        return ViTBackbone(model, **options) if is_vit(model) else TimmBackbone(model, **options)
    for option in ("stride", "stages"):
        if option in options and name not in _LITE:
            raise InputError(f"``{option}``: expected None, since {name} has one form only, got {options[option]!r}.")
    return BACKBONES[name](**options)


def check_backbone(name: str, value: str) -> None:
    """Raise ValueError unless a value names a backbone; whether timm has a model is known when it is built."""
    if not (isinstance(value, str) and value.startswith(_TIMM)):
        check_choice(name, value, [*BACKBONES, f"{_TIMM}NAME"])


def list_backbones(pattern: str = "*") -> list[str]:
    """List the names of the backbones that match a shell pattern (``*`` is anything, ``?`` one character), sorted.

    Those of timm are not listed: ``timm.list_models()`` does, and ``"timm:"`` in front makes a name of them.

    Example:
        >>> list_backbones("resnet50*")
        ['resnet50', 'resnet50_deep_stem', 'resnet50_early_stride']
    """
    return sorted(name for name in BACKBONES if fnmatchcase(name, pattern))
