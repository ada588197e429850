"""Tensors in, tensors out: no parameters, no state."""

from dpcn_modules.functional.dynamic_conv import describe_backends, dynamic_conv2d, dynamic_conv2d_multi
from dpcn_modules.functional.losses import episode_loss, mask_loss
from dpcn_modules.functional.pooling import foreground_pool, masked_average_pool, resize_mask
from dpcn_modules.functional.region_matching import prior_mask, region_activation

__all__ = [
    "describe_backends",
    "dynamic_conv2d",
    "dynamic_conv2d_multi",
    "episode_loss",
    "foreground_pool",
    "mask_loss",
    "masked_average_pool",
    "prior_mask",
    "region_activation",
    "resize_mask",
]
