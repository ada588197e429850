"""Labelled pictures, and the episodes drawn from them."""

from dpcn_modules.data.episodes import (
    Draw,
    Episode,
    EpisodeDataset,
    EpisodeSampler,
    EpisodeSpec,
    collate_episodes,
    draw_episode,
)
from dpcn_modules.data.folder import ClassFolders
from dpcn_modules.data.pascal import Pascal5i
from dpcn_modules.data.shapes import Shapes
from dpcn_modules.data.source import FoldedData, PictureSource, Split
from dpcn_modules.data.transforms import TestTransform, TrainTransform

__all__ = [
    "ClassFolders",
    "Draw",
    "Episode",
    "EpisodeDataset",
    "EpisodeSampler",
    "EpisodeSpec",
    "FoldedData",
    "Pascal5i",
    "PictureSource",
    "Shapes",
    "Split",
    "TestTransform",
    "TrainTransform",
    "collate_episodes",
    "draw_episode",
]
