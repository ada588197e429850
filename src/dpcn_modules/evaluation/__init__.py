"""Protocols, scores, the fusion of shots, and the features that a test keeps."""

from dpcn_modules.evaluation.feature_cache import FeatureCache
from dpcn_modules.evaluation.fusion import FUSIONS, Fusion, fuse_shots, one_shot_logits
from dpcn_modules.evaluation.named import PROTOCOLS, NamedProtocol
from dpcn_modules.evaluation.prior import best_prior_threshold
from dpcn_modules.evaluation.protocol import Protocol
from dpcn_modules.evaluation.scoring import fuse_scales, logits_at_original_size, predicted_mask

__all__ = [
    "FUSIONS",
    "PROTOCOLS",
    "FeatureCache",
    "Fusion",
    "NamedProtocol",
    "Protocol",
    "best_prior_threshold",
    "fuse_scales",
    "fuse_shots",
    "logits_at_original_size",
    "one_shot_logits",
    "predicted_mask",
]
