"""Protocols and scores."""

from dpcn_modules.evaluation.prior import best_prior_threshold
from dpcn_modules.evaluation.protocol import Protocol
from dpcn_modules.evaluation.scoring import logits_at_original_size

__all__ = ["Protocol", "best_prior_threshold", "logits_at_original_size"]
