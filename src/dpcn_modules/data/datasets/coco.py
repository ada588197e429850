"""COCO-20i: the images of COCO's own folders in four folds."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal, get_args

from dpcn_modules._checks import check_choice
from dpcn_modules.data.datasets.coco_instances import Crowd, Overlap
from dpcn_modules.data.datasets.coco_masks import CocoMasks, Progress
from dpcn_modules.data.datasets.files import FileImages, without_classes
from dpcn_modules.data.datasets.folds import COCO_CLASSES, FoldRule, check_rules, chosen_classes, coco_classes
from dpcn_modules.data.source import ImageSource, Split
from dpcn_modules.errors import InputFileError

_TREE = """Expected tree:
  coco/
    annotations/instances_train{year}.json, instances_val{year}.json
    train{year}/{train}000000000009.jpg ...
    val{year}/{val}000000000139.jpg ..."""


@dataclass(eq=False)
class Coco20i:
    """COCO-20i from COCO's own files; a `FoldedData`. Needs the extra ``coco``.

    The defaults are the usual ones: the images of 2014, training on ``train2014`` (82,081 images with annotations)
    and testing on ``val2014`` (40,137). Class ids are 1 to 80 in the order of COCO's category ids. pycocotools draws
    the masks from the instances: crowd regions are void where no instance covers them. Masks are drawn once, by the
    first `split`, which takes some minutes for the whole of COCO; several processes may do so at the same time.

    Args:
        root: the folder of the data set.
        fold: 0 to 3.
        folds: "interleaved" holds out ``fold + 1``, ``fold + 5``, ..., ``fold + 77`` (PFENet, HSNet, BAM);
            "contiguous" holds out ``20 fold + 1`` to ``20 fold + 20`` (PANet).
        year: "2014" or "2017", also as a number; sets the default names of the files below.
        train_annotations: the instances json of the training split, relative to ``root`` or absolute; by default
            ``annotations/instances_train2014.json``.
        test_annotations: the same for the held-out classes; by default ``annotations/instances_val2014.json``. It
            may be the file of the training split.
        train_images: the folder of the training images, relative to ``root`` or absolute; by default ``train2014``.
        test_images: the same for the held-out classes; by default ``val2014``.
        overlap: which of two overlapping instances is visible: with "smaller_on_top", the one with fewer pixels in
            all (if equal, the later one); with "annotation_order", the later one. It changes the scores.
        crowd: what annotations with ``iscrowd = 1`` are: "void", as COCO means them, or "object", for files of tools
            that mark masks with holes or of several parts so. It changes the scores.
        cache: the folder for the masks, relative to ``root`` or absolute; each annotation file and rule has its
            own ``masks_<overlap>_<hash of the annotation file>`` in it. None or "none" saves nothing: every start
            then draws all masks to count them, and every load draws its mask.
        min_area: the number of mask pixels from which a class counts in an image.
        novel: "keep" uses training images that also show held-out classes, with those pixels as background
            (PFENet, HSNet); "drop" leaves them out (BAM, HDMNet).
        classes: use these classes only, by name; each stays in the split to which its fold assigns it. All held-out
            classes still count for ``novel="drop"``.
        progress: wraps the names of the images while their masks are drawn, for a progress bar (``tqdm.tqdm``).

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: a fold, class or option is unknown.
    """

    root: str | Path
    fold: int
    _: KW_ONLY
    folds: FoldRule = "interleaved"
    year: Literal["2014", "2017", 2014, 2017] = "2014"
    train_annotations: str | Path | None = None
    test_annotations: str | Path | None = None
    train_images: str | Path | None = None
    test_images: str | Path | None = None
    overlap: Overlap = "smaller_on_top"
    crowd: Crowd = "void"
    cache: str | Path | None = "."
    min_area: int = 2048
    novel: Literal["keep", "drop"] = "keep"
    classes: Sequence[str] | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_rules(COCO_CLASSES, fold=self.fold, novel=self.novel, classes=self.classes, min_area=self.min_area)
        check_choice("folds", self.folds, get_args(FoldRule))
        check_choice("year", str(self.year), ("2014", "2017"))
        check_choice("overlap", self.overlap, get_args(Overlap))
        check_choice("crowd", self.crowd, get_args(Crowd))
        self.root = self._root = Path(self.root)
        self._cache = None if self.cache is None or self.cache == "none" else self.root / self.cache
        self._tree = _tree(str(self.year))
        train, val = f"train{self.year}", f"val{self.year}"
        usual = "annotations/instances_{}.json"
        self._files = {
            "train": (self.train_annotations or usual.format(train), self.train_images or train),
            "test": (self.test_annotations or usual.format(val), self.test_images or val),
        }
        if not self._root.is_dir():
            raise InputFileError(f"{self._root}: there is no such folder.\n{self._tree}")

    def split(self, split: Split) -> ImageSource:
        """Return the annotated images of one split; masks that are not in the cache are drawn first.

        Raises:
            FileNotFoundError: the annotation file, the folder of images or images are missing.
            ModuleNotFoundError: masks must be drawn, and pycocotools is not installed.
            OSError: the masks cannot be written to the cache.
            ValueError: no class is left; the annotation file is damaged, of another kind (captions, keypoints) or of
                other categories, is inconsistent, or does not match the sizes of the images.
        """
        class_names = coco_classes(self.fold, split, self.folds)
        class_names = chosen_classes(class_names, self.classes, fold=self.fold, split=split)
        annotations, images = (self._root / path for path in self._files[split])
        missing = [] if annotations.is_file() else [f"annotation file {annotations} (``{split}_annotations``)"]
        missing += [] if images.is_dir() else [f"folder of images {images} (``{split}_images``)"]
        if missing:
            raise InputFileError(f"{self._root}: there is no {' and no '.join(missing)}.\n{self._tree}")
        masks = CocoMasks(
            annotations,
            images,
            overlap=self.overlap,
            crowd=self.crowd,
            cache=self._cache,
            progress=self.progress,
        )
        files, areas = masks.files, masks.areas
        rules = [f"area >= {self.min_area} px", f"overlap: {self.overlap}"]
        if self.crowd != "void":
            rules.append(f"crowds: {self.crowd}")
        if split == "train":
            rules.append(f"held-out classes: {self.novel}")
            if self.novel == "drop":
                files, areas = without_classes(files, areas, coco_classes(self.fold, "test", self.folds))
        name = f"coco20i fold {self.fold} ({self.folds}) {split}, {annotations.name}"
        name += f" ({len(files)} images, {', '.join(rules)})"
        return FileImages(name, class_names, files, areas, min_area=self.min_area, masks=masks)


def _tree(year: str) -> str:
    """The expected tree of a year; only the image names of 2014 include the split."""
    train, val = ("COCO_train2014_", "COCO_val2014_") if year == "2014" else ("", "")
    other = "2017" if year == "2014" else "2014"
    return _TREE.format(year=year, train=train, val=val) + (
        f'\nFor the tree of {other} pass year="{other}"; for another one name both files and both folders.'
    )
