"""What can be changed about each network, and the published choice of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from dpcn_modules.modules.dynamic_convolution import BRANCHES


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneSettings:
    """The backbone of any network.

    Attributes:
        backbone: a name that :func:`build_backbone` knows.
        weights: of the backbone: None, a torchvision name ("imagenet", "IMAGENET1K_V2", ...) or a local file.
        trainable: "all", "layer4" or "none" of the backbone; None: "all" without weights, and with weights what the
            network's authors trained (DPCN layer4, PFENet and CANet nothing, PANet everything).
        frozen_norm: norm statistics of the backbone stay as they are; None: with weights.
    """

    trained_with_weights: ClassVar[str] = "layer4"

    backbone: str = "resnet50"
    weights: str | None = None
    trainable: str | None = None
    frozen_norm: bool | None = None

    def decided(self) -> Self:
        """The same, with what follows from the weights written out."""
        pretrained = self.weights is not None
        trainable = self.trainable or (self.trained_with_weights if pretrained else "all")
        frozen_norm = pretrained if self.frozen_norm is None else self.frozen_norm
        return dataclasses.replace(self, trainable=trainable, frozen_norm=frozen_norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCMSettings:
    """The dynamic convolution, in DPCN or in a host.

    Attributes:
        kernel_size: S of DCM (Table 4).
        branches: kernels of DCM (Table 5).
        generation: "serial" (5->25) or "parallel" (5/25) (Table A1).
        network_width: kernel width of its 1D convolutions.
        backend: of the dynamic convolution.
    """

    kernel_size: int = 5
    generation: str = "serial"
    branches: Sequence[str] = BRANCHES
    network_width: int = 3
    backend: str = "auto"

    def dcm_options(self) -> dict[str, Any]:
        """Keyword arguments of DCM and of its plug."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(DCMSettings)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPCNSettings(BackboneSettings, DCMSettings):
    """DPCN, its ablations and its baseline.

    Attributes:
        channels: C.
        sam, ffm, dcm: which of the three modules are there (Table 3); none of them is the baseline.
        windows: of SAM (Eq. 1); without SAM, FFM takes the prior mask.
        chunk_size: support positions that SAM matches at a time.
        rates: dilations in the decoder.
        reduction_dropout, classifier_dropout: probabilities.
        query_to_support: the second branch in training (Eq. 13).
    """

    channels: int = 256
    sam: bool = True
    ffm: bool = True
    dcm: bool = True
    windows: Sequence[tuple[int, int]] = ((5, 1), (3, 3), (1, 5))
    chunk_size: int | None = None
    rates: Sequence[int] = (6, 12, 18)
    reduction_dropout: float = 0.5
    classifier_dropout: float = 0.1
    query_to_support: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostSettings(BackboneSettings, DCMSettings):
    """A published network into which DCM can be plugged.

    Attributes:
        channels: C.
        dcm: the plug is there (Table A4).
    """

    trained_with_weights: ClassVar[str] = "none"

    channels: int = 256
    dcm: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PFENetSettings(HostSettings):
    """PFENet.

    Attributes:
        sizes: of the pyramid.
        reduction_dropout, classifier_dropout: probabilities.
    """

    sizes: Sequence[int] = (60, 30, 15, 8)
    reduction_dropout: float = 0.5
    classifier_dropout: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CANetSettings(HostSettings):
    """CANet.

    Attributes:
        rates: dilations in the ASPP.
        dropout: probability, in every block.
        refinements: at test, after the first pass.
        history_dropout: probability that a sample sees no previous prediction in training.
    """

    rates: Sequence[int] = (6, 12, 18)
    dropout: float = 0.5
    refinements: int = 4
    history_dropout: float = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class PANetSettings(BackboneSettings):
    """PANet.

    Attributes:
        scale: of the cosine.
        query_to_support: the alignment, in training.
    """

    trained_with_weights: ClassVar[str] = "all"

    backbone: str = "vgg16_dilated"
    scale: float = 20.0
    query_to_support: bool = True


Settings = DPCNSettings | PFENetSettings | CANetSettings | PANetSettings

_LARGE = ("resnet50", "resnet101", "vgg16", "vgg16_bn")
_SMALL_DPCN = DPCNSettings(backbone="small", channels=32, rates=(2, 4, 6), reduction_dropout=0.0)
_SMALL_PFENET = PFENetSettings(backbone="small", channels=32, sizes=(16, 8, 4, 2), reduction_dropout=0.0)
_SMALL_CANET = CANetSettings(backbone="small", channels=32, rates=(2, 4, 6), dropout=0.0)
_BASELINE = {"sam": False, "ffm": False, "dcm": False}
# Where the published network's backbone is a variant of its own.
_CANET_BACKBONES = {"resnet50": "resnet50_early_stride", "resnet101": "resnet101_early_stride"}
_PANET_BACKBONES = {"vgg16": "vgg16_dilated"}


def _family(
    small: Settings, variants: Mapping[str, str] | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, Settings]:
    """The settings of a network with every backbone."""
    kind = type(small)
    large = {name: kind(backbone=(variants or {}).get(name, name)) for name in _LARGE}
    return {name: dataclasses.replace(each, **changes or {}) for name, each in {**large, "small": small}.items()}


_FAMILIES: dict[str, dict[str, Settings]] = {
    "dpcn_{}": _family(_SMALL_DPCN),
    "baseline_{}": _family(_SMALL_DPCN, changes=_BASELINE),
    "pfenet_{}": _family(_SMALL_PFENET),
    "pfenet_{}_dcm": _family(_SMALL_PFENET, changes={"dcm": True}),
    "canet_{}": _family(_SMALL_CANET, _CANET_BACKBONES),
    "canet_{}_dcm": _family(_SMALL_CANET, _CANET_BACKBONES, {"dcm": True}),
    "panet_{}": _family(PANetSettings(backbone="small"), _PANET_BACKBONES),
}

MODELS: dict[str, Settings] = {
    pattern.format(name): settings for pattern, family in _FAMILIES.items() for name, settings in family.items()
}
"""Settings by the name of the network."""
