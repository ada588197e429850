"""Labelled images, and the episodes sampled from them."""

from dpcn_modules.data.boxes import Annotation, filled_boxes
from dpcn_modules.data.datasets.class_folders import ClassFolders
from dpcn_modules.data.datasets.coco import Coco20i
from dpcn_modules.data.datasets.folds import COCO_CLASSES, PASCAL_CLASSES, coco_classes, pascal_classes
from dpcn_modules.data.datasets.pascal import Pascal5i
from dpcn_modules.data.datasets.shapes import Shapes
from dpcn_modules.data.episodes.batches import EpisodeSampler, collate_episodes
from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset, Transform, View
from dpcn_modules.data.episodes.manifest import manifest_hash, manifest_lines, read_manifest
from dpcn_modules.data.episodes.sampling import EpisodeSpec, Sampling, sample_episode
from dpcn_modules.data.feature_store import FeatureStore
from dpcn_modules.data.io import ImageLike, as_image, as_mask, check_same_size, load_image, load_mask
from dpcn_modules.data.object_masks import binary_mask, target_mask
from dpcn_modules.data.palettes import Palette
from dpcn_modules.data.resizing import MaskInterpolation, denormalise
from dpcn_modules.data.source import FoldedData, ImageSource, Split
from dpcn_modules.data.transforms import TestTransform, TrainTransform
from dpcn_modules.interface import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "COCO_CLASSES",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PASCAL_CLASSES",
    "Annotation",
    "ClassFolders",
    "Coco20i",
    "Episode",
    "EpisodeDataset",
    "EpisodeSampler",
    "EpisodeSpec",
    "FeatureStore",
    "FoldedData",
    "ImageLike",
    "ImageSource",
    "MaskInterpolation",
    "Palette",
    "Pascal5i",
    "Sampling",
    "Shapes",
    "Split",
    "TestTransform",
    "TrainTransform",
    "Transform",
    "View",
    "as_image",
    "as_mask",
    "binary_mask",
    "check_same_size",
    "coco_classes",
    "collate_episodes",
    "denormalise",
    "filled_boxes",
    "load_image",
    "load_mask",
    "manifest_hash",
    "manifest_lines",
    "pascal_classes",
    "read_manifest",
    "sample_episode",
    "target_mask",
]
