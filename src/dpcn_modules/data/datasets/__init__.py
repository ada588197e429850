"""The data sets, and the division of their classes into folds."""

from dpcn_modules.data.datasets.class_folders import ClassFolders
from dpcn_modules.data.datasets.coco import Coco20i
from dpcn_modules.data.datasets.folds import COCO_CLASSES, FOLDS, PASCAL_CLASSES, coco_classes, pascal_classes
from dpcn_modules.data.datasets.pascal import Pascal5i
from dpcn_modules.data.datasets.shapes import Shapes

__all__ = [
    "COCO_CLASSES",
    "FOLDS",
    "PASCAL_CLASSES",
    "ClassFolders",
    "Coco20i",
    "Pascal5i",
    "Shapes",
    "coco_classes",
    "pascal_classes",
]
