"""Helpers that several tests of episodes share."""

import torch

from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset
from dpcn_modules.data.source import ImageSource
from dpcn_modules.data.transforms import TrainTransform


def episodes_of(source: ImageSource, **changes: object) -> EpisodeDataset:
    settings = {"shot": 2, "episodes": 6, "seed": 3, "transform": TrainTransform(size=32), **changes}
    return EpisodeDataset(source, **settings)  # type: ignore[arg-type]


def same_episode(first: Episode, second: Episode) -> bool:
    return all(
        torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        for one, other in zip(first, second, strict=True)
    )
