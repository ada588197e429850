"""Backbones by name: an image in, the features of layer2, layer3 and layer4 out."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from dpcn_modules._checks import check_choice
from dpcn_modules.models.backbones.base import Backbone, Features, Trainable
from dpcn_modules.models.backbones.resnet import ResNetBackbone
from dpcn_modules.models.backbones.small import SmallBackbone
from dpcn_modules.models.backbones.vgg import VGGBackbone

__all__ = [
    "BACKBONES",
    "Backbone",
    "Features",
    "ResNetBackbone",
    "SmallBackbone",
    "Trainable",
    "VGGBackbone",
    "build_backbone",
    "list_backbones",
]

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
    "small": SmallBackbone,
}


def build_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone by its name.

    Args:
        name: ``"resnet50"``, ``"resnet101"``, either with ``"_deep_stem"`` (PFENet's) or
            ``"_early_stride"`` (CANet's), ``"vgg16"`` or ``"vgg16_bn"``, either with ``"_ceil"`` (PFENet's),
            ``"vgg16_dilated"`` (PANet's) or ``"small"``.
        options: ``weights``, ``trainable`` and ``frozen_norm``, see `Pretraining`; for ``"small"`` also ``widths``.

    Raises:
        ValueError: the name is not a known one.

    Example:
        >>> build_backbone("small", trainable="none").channels
        (64, 64, 64)
    """
    check_choice("name", name, BACKBONES)
    return BACKBONES[name](**options)


def list_backbones(pattern: str = "*") -> list[str]:
    """List the names of the backbones that match a shell pattern (``*`` is anything, ``?`` one character), sorted.

    Example:
        >>> list_backbones("resnet50*")
        ['resnet50', 'resnet50_deep_stem', 'resnet50_early_stride']
    """
    return sorted(name for name in BACKBONES if fnmatchcase(name, pattern))
