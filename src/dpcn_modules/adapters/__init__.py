"""DCM plugged into networks that were made without it."""

from dpcn_modules.adapters.dcm import add_dcm, remove_dcm

__all__ = ["add_dcm", "remove_dcm"]
