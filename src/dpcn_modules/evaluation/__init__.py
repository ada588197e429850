"""Protocols, scores, and the path from images to masks; without Lightning. Scores need the extra [train]."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dpcn_modules._checks import require
from dpcn_modules.evaluation.feature_cache import FeatureCache
from dpcn_modules.evaluation.predict import Predictor, fuse_scales, logits_at_original_size, predicted_mask
from dpcn_modules.evaluation.prior import best_prior_threshold
from dpcn_modules.evaluation.protocols import PROTOCOLS, NamedProtocol, Protocol

if TYPE_CHECKING:
    from dpcn_modules.evaluation.metrics import EpisodeIoU, Score
    from dpcn_modules.evaluation.scoring import evaluate, score_batch

__all__ = [
    "PROTOCOLS",
    "EpisodeIoU",
    "FeatureCache",
    "NamedProtocol",
    "Predictor",
    "Protocol",
    "Score",
    "best_prior_threshold",
    "evaluate",
    "fuse_scales",
    "logits_at_original_size",
    "predicted_mask",
    "score_batch",
]

# torchmetrics is an extra, and segmenting does not need it.
_SCORES = {"EpisodeIoU": "metrics", "Score": "metrics", "evaluate": "scoring", "score_batch": "scoring"}


def __getattr__(name: str) -> Any:
    if name not in _SCORES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("torchmetrics", extra="train")
    return getattr(import_module(f"{__name__}.{_SCORES[name]}"), name)
