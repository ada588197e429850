"""Episodes: their sampling, their tensors and batches, and the manifests that list them."""

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
