"""Episodes: their sampling, their tensors and batches, and the manifests that list them."""

from dpcn_modules.data.episodes.dataset import target_mask as target_mask
