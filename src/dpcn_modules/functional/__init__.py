"""Tensors in, tensors out: no parameters, no state."""

from dpcn_modules.functional.dynamic_conv import dynamic_conv2d, dynamic_conv2d_multi
from dpcn_modules.functional.pooling import foreground_pool, masked_average_pool, resize_mask
from dpcn_modules.functional.region_matching import prior_mask, region_activation

__all__ = [
    "dynamic_conv2d",
    "dynamic_conv2d_multi",
    "foreground_pool",
    "masked_average_pool",
    "prior_mask",
    "region_activation",
    "resize_mask",
]
