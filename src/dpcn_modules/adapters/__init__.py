"""DCM plugged into networks that were made without it."""

from dpcn_modules.adapters.dcm import add_dcm, remove_dcm, train_plug_only

__all__ = ["add_dcm", "remove_dcm", "train_plug_only"]
