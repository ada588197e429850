"""Episodes: sampled from the labelled images, made into tensors and batches, and listed in manifests."""

from dpcn_modules.data.episodes.batches import EpisodeSampler, collate_episodes
from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset, Transform, View, target_mask
from dpcn_modules.data.episodes.manifest import manifest_hash, manifest_lines, read_manifest
from dpcn_modules.data.episodes.sampling import EpisodeSpec, Sampling, sample_episode

__all__ = [
    "Episode",
    "EpisodeDataset",
    "EpisodeSampler",
    "EpisodeSpec",
    "Sampling",
    "Transform",
    "View",
    "collate_episodes",
    "manifest_hash",
    "manifest_lines",
    "read_manifest",
    "sample_episode",
    "target_mask",
]
