"""Whole networks, by name."""

from dpcn_modules.models.add_dcm import add_dcm, remove_dcm, train_adapter_only
from dpcn_modules.models.backbones import BACKBONES, Backbone, build_backbone, list_backbones
from dpcn_modules.models.canet import CANet
from dpcn_modules.models.checkpoint import Checkpoint, load_model, read_checkpoint
from dpcn_modules.models.dpcn import DPCN
from dpcn_modules.models.factory import MODELS, build_model, list_models, settings_of
from dpcn_modules.models.fusion import FUSIONS, Fusion, fuse_shots
from dpcn_modules.models.host import HostNetwork
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.models.panet import PANet
from dpcn_modules.models.pfenet import PFENet
from dpcn_modules.models.settings import CANetSettings, DPCNSettings, PANetSettings, PFENetSettings, Settings

__all__ = [
    "BACKBONES",
    "DPCN",
    "FUSIONS",
    "MODELS",
    "Backbone",
    "CANet",
    "CANetSettings",
    "Checkpoint",
    "DPCNSettings",
    "FewShotNetwork",
    "Fusion",
    "HostNetwork",
    "PANet",
    "PANetSettings",
    "PFENet",
    "PFENetSettings",
    "Settings",
    "add_dcm",
    "build_backbone",
    "build_model",
    "fuse_shots",
    "list_backbones",
    "list_models",
    "load_model",
    "read_checkpoint",
    "remove_dcm",
    "settings_of",
    "train_adapter_only",
]
