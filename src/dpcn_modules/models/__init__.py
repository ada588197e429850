"""Whole networks, by name."""

from dpcn_modules.models._host import Host
from dpcn_modules.models._network import FewShotNetwork
from dpcn_modules.models.backbones import BACKBONES, Backbone, build_backbone
from dpcn_modules.models.build import build_model
from dpcn_modules.models.canet import CANet
from dpcn_modules.models.checkpoint import Checkpoint, load_model, read_checkpoint
from dpcn_modules.models.dpcn import DPCN
from dpcn_modules.models.panet import PANet
from dpcn_modules.models.pfenet import PFENet
from dpcn_modules.models.settings import MODELS, CANetSettings, DPCNSettings, PANetSettings, PFENetSettings

__all__ = [
    "BACKBONES",
    "DPCN",
    "MODELS",
    "Backbone",
    "CANet",
    "CANetSettings",
    "Checkpoint",
    "DPCNSettings",
    "FewShotNetwork",
    "Host",
    "PANet",
    "PANetSettings",
    "PFENet",
    "PFENetSettings",
    "build_backbone",
    "build_model",
    "load_model",
    "read_checkpoint",
]
