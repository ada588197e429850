"""Whole networks, by name."""

from dpcn_modules.models.backbones import BACKBONES, Backbone, build_backbone
from dpcn_modules.models.build import MODELS, DPCNSettings, build_model
from dpcn_modules.models.checkpoint import Checkpoint, load_model, read_checkpoint
from dpcn_modules.models.dpcn import DPCN

__all__ = [
    "BACKBONES",
    "DPCN",
    "MODELS",
    "Backbone",
    "Checkpoint",
    "DPCNSettings",
    "build_backbone",
    "build_model",
    "load_model",
    "read_checkpoint",
]
