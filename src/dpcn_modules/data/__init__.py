"""Labelled pictures, and the episodes drawn from them."""

from dpcn_modules.data.boxes import Annotation, filled_boxes
from dpcn_modules.data.episodes import (
    Draw,
    Episode,
    EpisodeDataset,
    EpisodeSampler,
    EpisodeSpec,
    collate_episodes,
    draw_episode,
    target_mask,
)
from dpcn_modules.data.folder import ClassFolders
from dpcn_modules.data.folds import PASCAL_CLASSES, pascal_classes
from dpcn_modules.data.images import (
    ImageLike,
    as_image,
    as_mask,
    binary_mask,
    check_same_size,
    load_image,
    load_mask,
)
from dpcn_modules.data.pascal import Pascal5i
from dpcn_modules.data.shapes import Shapes
from dpcn_modules.data.source import FoldedData, PictureSource, Split
from dpcn_modules.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TestTransform,
    TrainTransform,
    denormalise,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PASCAL_CLASSES",
    "Annotation",
    "ClassFolders",
    "Draw",
    "Episode",
    "EpisodeDataset",
    "EpisodeSampler",
    "EpisodeSpec",
    "FoldedData",
    "ImageLike",
    "Pascal5i",
    "PictureSource",
    "Shapes",
    "Split",
    "TestTransform",
    "TrainTransform",
    "as_image",
    "as_mask",
    "binary_mask",
    "check_same_size",
    "collate_episodes",
    "denormalise",
    "draw_episode",
    "filled_boxes",
    "load_image",
    "load_mask",
    "pascal_classes",
    "target_mask",
]
