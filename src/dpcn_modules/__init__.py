"""Few-shot semantic segmentation: DPCN's modules, the whole network, and a segmenter for one's own images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpcn_modules.interface import Prediction
from dpcn_modules.modules import (
    DCM,
    FFM,
    SAM,
    DCMInteraction,
    DynamicConvolutionModule,
    FeatureFilteringModule,
    SupportActivationModule,
)

if TYPE_CHECKING:
    from dpcn_modules.models import DPCN, CANet, PANet, PFENet, add_dcm, build_model, load_model, remove_dcm
    from dpcn_modules.segmenter import FewShotSegmenter

__version__ = "0.2.0"

__all__ = [
    "DCM",
    "DPCN",
    "FFM",
    "SAM",
    "CANet",
    "DCMInteraction",
    "DynamicConvolutionModule",
    "FeatureFilteringModule",
    "FewShotSegmenter",
    "PANet",
    "PFENet",
    "Prediction",
    "SupportActivationModule",
    "add_dcm",
    "build_model",
    "list_backbones",
    "list_models",
    "load_model",
    "remove_dcm",
]

# torchvision takes longer to import than everything else here; who wants one module need not wait for it.
_LAZY = dict.fromkeys(
    (
        *("CANet", "DPCN", "PANet", "PFENet", "add_dcm", "build_model"),
        *("list_backbones", "list_models", "load_model", "remove_dcm"),
    ),
    "dpcn_modules.models",
) | {"FewShotSegmenter": "dpcn_modules.segmenter"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
