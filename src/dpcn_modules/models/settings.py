"""The settings of each network, with the published values as defaults; wrong values are refused on construction."""

import dataclasses
from collections.abc import Sequence
from os import PathLike
from typing import Any, ClassVar, Literal, Self, get_args

from dpcn_modules._checks import check_choice, check_flag, check_integer, check_number, check_odd
from dpcn_modules.functional.dynamic_conv import BACKEND_NAMES
from dpcn_modules.functional.region_matching import check_windows
from dpcn_modules.models.backbones import BACKBONES, Trainable
from dpcn_modules.modules.dynamic_convolution import DEFAULT_BRANCHES, GENERATIONS, check_branches


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The backbone of any network.

    Attributes:
        backbone: a name that :func:`list_backbones` lists.
        weights: of the backbone: None, a torchvision name ("imagenet", "IMAGENET1K_V2", ...) or a local file.
        trainable: "all", "layer4" or "none" of the backbone; None: "all" without weights, and with weights what the
            network's authors trained (DPCN layer4, PFENet and CANet nothing, PANet everything).
        frozen_norm: the BatchNorm running statistics of the backbone stay as they are; None: with weights.
    """

    trained_with_weights: ClassVar[Trainable] = "layer4"

    backbone: str = "resnet50"
    weights: str | None = None
    trainable: Trainable | None = None
    frozen_norm: bool | None = None

    def __post_init__(self) -> None:
        """Check every field, and turn lists (from YAML) into tuples."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _as_tuple(getattr(self, field.name)))
        check_choice("backbone", self.backbone, BACKBONES)
        if isinstance(self.weights, PathLike):
            object.__setattr__(self, "weights", str(self.weights))
        if self.weights is not None and not isinstance(self.weights, str):
            raise TypeError(
                f"``weights``: expected a name, a path or None, got {self.weights!r} ({type(self.weights).__name__})."
            )
        if self.trainable is not None:
            check_choice("trainable", self.trainable, get_args(Trainable))
        if self.frozen_norm is not None:
            check_flag("frozen_norm", self.frozen_norm)

    def decided(self) -> Self:
        """A copy in which the settings that depend on the weights are filled in."""
        pretrained = self.weights is not None
        trainable = self.trainable or (self.trained_with_weights if pretrained else "all")
        frozen_norm = pretrained if self.frozen_norm is None else self.frozen_norm
        return dataclasses.replace(self, trainable=trainable, frozen_norm=frozen_norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DCMSettings:
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

    def __post_init__(self) -> None:
        """Check every field."""
        check_odd("kernel_size", self.kernel_size)
        check_odd("network_width", self.network_width)
        check_choice("generation", self.generation, GENERATIONS)
        check_branches(self.branches)
        check_choice("backend", self.backend, BACKEND_NAMES)

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

    def __post_init__(self) -> None:
        """Check every field."""
        NetworkSettings.__post_init__(self)
        DCMSettings.__post_init__(self)
        check_integer("channels", self.channels)
        for name in ("sam", "ffm", "dcm", "query_to_support"):
            check_flag(name, getattr(self, name))
        check_windows(self.windows, self.chunk_size)
        _check_each_integer("rates", self.rates)
        _check_probabilities(self, "reduction_dropout", "classifier_dropout")


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

    def __post_init__(self) -> None:
        """Check every field."""
        NetworkSettings.__post_init__(self)
        DCMSettings.__post_init__(self)
        check_integer("channels", self.channels)
        check_flag("dcm", self.dcm)


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

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        _check_each_integer("sizes", self.sizes)
        _check_probabilities(self, "reduction_dropout", "classifier_dropout")


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

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        _check_each_integer("rates", self.rates)
        check_integer("refinements", self.refinements, lowest=0, otherwise="; 0 is one pass without refinement")
        _check_probabilities(self, "dropout", "history_dropout")


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

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        check_number("scale", self.scale, lowest=0.0)
        check_flag("query_to_support", self.query_to_support)


Settings = DPCNSettings | PFENetSettings | CANetSettings | PANetSettings


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list | tuple) else value


def _check_each_integer(name: str, values: Sequence[int]) -> None:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"``{name}``: expected one or more whole numbers, got {values!r}.")
    for value in values:
        check_integer(name, value)


def _check_probabilities(settings: Settings, *names: str) -> None:
    for name in names:
        check_number(name, getattr(settings, name), lowest=0.0, highest=1.0)
