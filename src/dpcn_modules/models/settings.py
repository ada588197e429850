"""The settings of each network, with the published values as defaults; wrong values are refused on construction."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Self, TypeAlias, get_args

from dpcn_modules._checks import check_choice, check_flag, check_integer, check_number, check_odd, plain
from dpcn_modules.errors import InputTypeError
from dpcn_modules.functional.dynamic_conv import BACKEND_NAMES
from dpcn_modules.functional.region_matching import check_windows
from dpcn_modules.models.backbones import Trainable, check_backbone
from dpcn_modules.modules.dynamic_convolution import DEFAULT_BRANCHES, GENERATIONS, check_branches

EmptyShots: TypeAlias = Literal["left_out", "counted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _CheckedSettings:
    """Fields that are made plain Python and checked on construction; lists become tuples, and paths strings."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = plain(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if value is not None or field.default is not None:
                _CHECKS[field.name](field.name, value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings(_CheckedSettings):
    """The backbone of any network.

    Attributes:
        backbone: a name that :func:`list_backbones` lists, or "timm:" and the name of a model of timm.
        weights: of the backbone: None, "imagenet", another name of torchvision's ("IMAGENET1K_V2", ...), "timm" (timm's
            own) or a local file.
        trainable: "all", "layer4" or "none" of the backbone; None: "all" without weights, and with weights what the
            network's authors trained (DPCN layer4, PFENet and CANet nothing, PANet everything).
        frozen_norm: the BatchNorm running statistics of the backbone stay as they are; None: with weights.
        stride: of timm's backbones: image pixels from cell to cell; None: 8, and a transformer's patch.
        stages: of timm's backbones: positions of the three feature maps or blocks; None: see docs/guide/backbones.md.
    """

    trained_with_weights: ClassVar[Trainable] = "layer4"

    backbone: str = "resnet50"
    weights: str | None = None
    trainable: Trainable | None = None
    frozen_norm: bool | None = None
    stride: int | None = None
    stages: Sequence[int] | None = None

    def decided(self) -> Self:
        """A copy in which the settings that depend on the weights are filled in."""
        pretrained = self.weights is not None
        trainable = self.trainable or (self.trained_with_weights if pretrained else "all")
        frozen_norm = pretrained if self.frozen_norm is None else self.frozen_norm
        return dataclasses.replace(self, trainable=trainable, frozen_norm=frozen_norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCMSettings(_CheckedSettings):
    """The dynamic convolution, in DPCN or in a host network.

    Attributes:
        kernel_size: S of DCM, odd (Table 4).
        branches: kernels of DCM, of "vertical", "square", "horizontal" (Table 5).
        generation: "serial" (5->25) or "parallel" (5/25) (Table A1).
        network_width: kernel width of its 1D convolutions, odd.
        backend: of the dynamic convolution.
    """

    kernel_size: int = 5
    generation: Literal["serial", "parallel"] = "serial"
    branches: Sequence[str] = DEFAULT_BRANCHES
    network_width: int = 3
    backend: str = "auto"

    def dcm_options(self) -> dict[str, Any]:
        """Keyword arguments of DCM and of its adapter."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(DCMSettings)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPCNSettings(NetworkSettings, DCMSettings):
    """DPCN, its ablations and its baseline.

    Attributes:
        channels: C.
        sam, ffm, dcm: which of the three modules are there (Table 3); none of them is the baseline.
        windows: of SAM (Eq. 1), odd sides; without SAM, FFM takes the prior mask.
        chunk_size: support positions that SAM matches at a time; None: all.
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
class HostSettings(NetworkSettings, DCMSettings):
    """A published network to which DCM can be added.

    Attributes:
        channels: C.
        dcm: the adapter is there (Table A4).
    """

    trained_with_weights: ClassVar[Trainable] = "none"

    channels: int = 256
    dcm: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class PFENetSettings(HostSettings):
    """PFENet.

    Attributes:
        sizes: of the pyramid.
        reduction_dropout, classifier_dropout: probabilities.
        empty_shots: supports without foreground are "left_out" of the means over the shots, or "counted" as zeros, as
            the published code does.
    """

    sizes: Sequence[int] = (60, 30, 15, 8)
    reduction_dropout: float = 0.5
    classifier_dropout: float = 0.1
    empty_shots: EmptyShots = "left_out"


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
class PANetSettings(NetworkSettings):
    """PANet.

    Attributes:
        scale: of the cosine, positive.
        query_to_support: the alignment, in training.
    """

    trained_with_weights: ClassVar[Trainable] = "all"

    backbone: str = "vgg16_dilated"
    scale: float = 20.0
    query_to_support: bool = True


Settings = DPCNSettings | PFENetSettings | CANetSettings | PANetSettings


def _check_weights(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise InputTypeError(f"``{name}``: expected a name, a path or None, got {value!r} ({type(value).__name__}).")


def _check_each_integer(name: str, values: Sequence[int], lowest: int = 1) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputTypeError(f"``{name}``: expected one or more whole numbers, got {values!r}.")
    for value in values:
        check_integer(name, value, lowest=lowest)


_check_probability = partial(check_number, lowest=0.0, highest=1.0)
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "backbone": check_backbone,
    "stride": partial(check_integer, otherwise="; None is the backbone's own"),
    "stages": lambda name, values: _check_each_integer(name, values, lowest=0),
    "weights": _check_weights,
    "trainable": partial(check_choice, known=get_args(Trainable)),
    "kernel_size": check_odd,
    "generation": partial(check_choice, known=GENERATIONS),
    "branches": lambda _, branches: check_branches(branches),
    "network_width": check_odd,
    "backend": partial(check_choice, known=BACKEND_NAMES),
    "empty_shots": partial(check_choice, known=get_args(EmptyShots)),
    "channels": check_integer,
    "windows": lambda _, windows: check_windows(windows, None),
    "chunk_size": partial(check_integer, otherwise="; None matches all positions at once"),
    "refinements": partial(check_integer, lowest=0, otherwise="; 0 is one pass without refinement"),
    "scale": partial(check_number, lowest=0.0),
    **dict.fromkeys(("rates", "sizes"), _check_each_integer),
    **dict.fromkeys(("dropout", "reduction_dropout", "classifier_dropout", "history_dropout"), _check_probability),
    **dict.fromkeys(("frozen_norm", "sam", "ffm", "dcm", "query_to_support"), check_flag),
}
"""By field; None is not checked where it is the default."""
