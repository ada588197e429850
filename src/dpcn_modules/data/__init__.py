"""Labelled pictures, and the episodes drawn from them."""

from dpcn_modules.data.batches import EpisodeSampler, collate_episodes
from dpcn_modules.data.boxes import Annotation, filled_boxes
from dpcn_modules.data.coco import Coco20i
from dpcn_modules.data.episodes import (
    Draw,
    Episode,
    EpisodeDataset,
    EpisodeSpec,
    View,
    draw_episode,
    target_mask,
)
from dpcn_modules.data.folder import ClassFolders
from dpcn_modules.data.folds import COCO_CLASSES, PASCAL_CLASSES, coco_classes, pascal_classes
from dpcn_modules.data.images import (
    ImageLike,
    as_image,
    as_mask,
    binary_mask,
    check_same_size,
    load_image,
    load_mask,
)
from dpcn_modules.data.manifest import manifest_hash, manifest_lines, read_manifest
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
    "COCO_CLASSES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PASCAL_CLASSES",
    "Annotation",
    "ClassFolders",
    "Coco20i",
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
    "View",
    "as_image",
    "as_mask",
    "binary_mask",
    "check_same_size",
    "coco_classes",
    "collate_episodes",
    "denormalise",
    "draw_episode",
    "filled_boxes",
    "load_image",
    "load_mask",
    "manifest_hash",
    "manifest_lines",
    "pascal_classes",
    "read_manifest",
    "target_mask",
]
