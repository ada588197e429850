"""COCO-20i: the images of COCO's own folders, in four folds."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from dpcn_modules._checks import check_choice
from dpcn_modules.data.datasets.coco_masks import CocoMasks, Overlap
from dpcn_modules.data.datasets.files import FileImages, first, without_classes
from dpcn_modules.data.datasets.folds import COCO_CLASSES, FoldRule, check_rules, chosen_classes, coco_classes
from dpcn_modules.data.source import ImageSource, Split

_TREE = """Expected tree:
  coco/
    annotations/instances_train{year}.json, instances_val{year}.json
    train{year}/{train}000000000009.jpg ...
    val{year}/{val}000000000139.jpg ..."""
_LISTS = {
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "segmentation"},
    "categories": {"id", "name"},
}
_OTHER_KINDS = {"caption": "captions", "keypoints": "keypoints", "segments_info": "panoptic masks"}


class Coco20i:
    """COCO-20i from COCO's own files; a `FoldedData`. Needs the extra ``coco``.

    The defaults are the field's: the images of 2014, training on ``train2014`` (82,081 images with annotations)
    and testing on ``val2014`` (40,137). Class ids are 1 to 80 in the order of COCO's category ids. Masks are drawn
    from the instances by pycocotools: crowd regions are void where no instance covers them, and an instance whose
    polygons all have fewer than three points covers nothing. This is done once, at the first `split`, and takes some
    minutes for the whole of COCO; several processes may do it at once.

    Args:
        root: the folder of the data set.
        fold: 0 to 3.
        folds: "interleaved" holds out ``fold + 1``, ``fold + 5``, ..., ``fold + 77`` (PFENet, HSNet, BAM);
            "contiguous" ``20 fold + 1`` to ``20 fold + 20`` (PANet).
        year: "2014" or "2017", also as a number, for the names of the files below.
        train_annotations: the instances json of the training split, relative to ``root`` or absolute; by default
            ``annotations/instances_train2014.json``.
        test_annotations: the same for the held-out classes; by default ``annotations/instances_val2014.json``. It
            may be the file of the training split.
        train_images: the folder of the training images, relative to ``root`` or absolute; by default ``train2014``.
        test_images: the same for the held-out classes; by default ``val2014``.
        overlap: which of two instances that overlap is seen: "smaller_on_top", by the pixels of the whole instance
            (of two equal ones, the later), or "annotation_order", the later one. It changes the score.
        cache: the folder that keeps the masks, relative to ``root`` or absolute; each annotation file and overlap
            rule has its own ``masks_<overlap>_<hash of the annotation file>`` in it. None or "none" keeps nothing:
            every start then draws all masks to count them, and every load draws its mask.
        min_area: the pixels of the mask from which on a class counts in an image.
        novel: "keep" uses training images that also hold held-out classes, whose pixels are background then
            (PFENet, HSNet); "drop" leaves them out (BAM, HDMNet).
        classes: use these classes only, by name; a class stays on the side on which its fold puts it. All
            held-out classes still count for ``novel="drop"``.
        progress: wraps the names of the images while their masks are drawn, for a progress bar (``tqdm.tqdm``).

    Raises:
        FileNotFoundError: the folder is not there.
        ValueError: an unknown fold, class or switch.
    """

    def __init__(
        self,
        root: str | Path,
        fold: int,
        *,
        folds: FoldRule = "interleaved",
        year: Literal["2014", "2017", 2014, 2017] = "2014",
        train_annotations: str | Path | None = None,
        test_annotations: str | Path | None = None,
        train_images: str | Path | None = None,
        test_images: str | Path | None = None,
        overlap: Overlap = "smaller_on_top",
        cache: str | Path | None = ".",
        min_area: int = 2048,
        novel: Literal["keep", "drop"] = "keep",
        classes: Sequence[str] | None = None,
        progress: Callable[[Iterable[str]], Iterable[str]] | None = None,
    ) -> None:
        check_rules(COCO_CLASSES, fold=fold, novel=novel, classes=classes, min_area=min_area)
        check_choice("folds", folds, get_args(FoldRule))
        check_choice("year", str(year), ("2014", "2017"))
        check_choice("overlap", overlap, get_args(Overlap))
        self.root = Path(root)
        self.fold = fold
        self.folds: FoldRule = folds
        self.overlap: Overlap = overlap
        self.min_area = min_area
        self.novel = novel
        self.classes = classes
        self._cache = None if cache is None or cache == "none" else self.root / cache
        self._progress = progress
        self._tree = _tree(str(year))
        self._annotations = {
            "train": self.root / (train_annotations or f"annotations/instances_train{year}.json"),
            "test": self.root / (test_annotations or f"annotations/instances_val{year}.json"),
        }
        self._images = {
            "train": self.root / (train_images or f"train{year}"),
            "test": self.root / (test_images or f"val{year}"),
        }
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: there is no such folder.\n{self._tree}")

    def split(self, split: Split) -> ImageSource:
        """Give the annotated images of one split, after drawing those of their masks that are not kept yet.

        Raises:
            FileNotFoundError: the annotation file, the folder of images or images are missing.
            ModuleNotFoundError: masks are to be drawn, and pycocotools is not installed.
            OSError: the masks cannot be written where they are to be kept.
            ValueError: no class is left; the annotation file is damaged, of another kind (captions, keypoints) or of
                other categories, contradicts itself, or does not match the sizes of the images.
        """
        held_out = coco_classes(self.fold, "test", self.folds)
        class_names = coco_classes(self.fold, split, self.folds)
        class_names = dict(chosen_classes(class_names, self.classes, fold=self.fold, split=split))
        annotations, images = self._find(split)
        masks = CocoMasks(
            annotations,
            images,
            read=read_instances,
            overlap=self.overlap,
            cache=self._cache,
            progress=self._progress,
        )
        files, areas = masks.files, masks.areas
        rules = [f"area >= {self.min_area} px", f"overlap: {self.overlap}"]
        if split == "train":
            rules.append(f"held-out classes: {self.novel}")
            if self.novel == "drop":
                files, areas = without_classes(files, areas, held_out)
        what = f"coco20i fold {self.fold} ({self.folds}) {split}"
        name = f"{what}, {annotations.name} ({len(files)} images, {', '.join(rules)})"
        return FileImages(name, class_names, files, areas, min_area=self.min_area, masks=masks)

    def _find(self, split: Split) -> tuple[Path, Path]:
        annotations, images = self._annotations[split], self._images[split]
        missing = [] if annotations.is_file() else [f"annotation file {annotations} (``{split}_annotations``)"]
        missing += [] if images.is_dir() else [f"folder of images {images} (``{split}_images``)"]
        if missing:
            raise FileNotFoundError(f"{self.root}: there is no {' and no '.join(missing)}.\n{self._tree}")
        return annotations, images


def _tree(year: str) -> str:
    """The usual tree of a year; only 2014 has the split in the names of the images."""
    train, val = ("COCO_train2014_", "COCO_val2014_") if year == "2014" else ("", "")
    other = "2017" if year == "2014" else "2014"
    return _TREE.format(year=year, train=train, val=val) + (
        f'\nFor the tree of {other} pass year="{other}"; for another one name both files and both folders.'
    )


def read_instances(path: Path) -> dict[str, Any]:
    """Read an annotation file.

    Args:
        path: COCO's instances json.

    Returns:
        What it holds, checked as far as that goes without drawing.

    Raises:
        ValueError: it is damaged, of another kind or of other categories, or contradicts itself.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: is not a json file ({error}); it may be cut: fetch it again.") from error
    _check_kind(path, content)
    categories = [each["name"] for each in sorted(content["categories"], key=lambda each: each["id"])]
    if tuple(categories) != COCO_CLASSES:
        odd = [name for name in categories if name not in COCO_CLASSES]
        got = f"{len(categories)} categories" + (f", not COCO's: {first(odd)}" if odd else "")
        raise ValueError(
            f"{path}: expected COCO's 80 categories (person, bicycle, ..., toothbrush) in the order of their ids, got "
            f"{got}; COCO-20i is defined on them: name COCO's own instances file."
        )
    images, annotations = content["images"], content["annotations"]
    for key in ("id", "file_name"):
        repeated = [str(value) for value, times in Counter(each[key] for each in images).items() if times > 1]
        if repeated:
            raise ValueError(
                f"{path}: {len(repeated)} images are listed twice, so that a query could be its own support: "
                f"{key} {first(repeated)}; remove one of the two."
            )
    ids = {each["id"] for each in images}
    if not all(isinstance(each, int) for each in ids):
        raise ValueError(f"{path}: expected whole numbers as the ids of images, as COCO's own files have them.")
    if not annotations:
        raise ValueError(f"{path}: there are no annotations in it; name another file.")
    known = {each["id"] for each in content["categories"]}
    for key, allowed in (("image_id", ids), ("category_id", known)):
        odd = [f"annotation {each['id']} ({key} {each[key]})" for each in annotations if each[key] not in allowed]
        if odd:
            kind = "image" if key == "image_id" else "category"
            raise ValueError(
                f"{path}: {len(odd)} of its {len(annotations)} annotations name a {kind} that the file does not "
                f"list: {first(odd)}; remove them, or fetch the file again."
            )
    return dict(content)


def _check_kind(path: Path, content: Any) -> None:
    """Raise ValueError unless a json has the lists and keys of an instances file."""
    expected = (
        f"{path}: expected COCO's instances file (instances_train2014.json), with images, annotations, categories"
    )
    advice = "name another file with ``train_annotations`` or ``test_annotations``."
    if not isinstance(content, dict) or not all(isinstance(content.get(key, []), list) for key in _LISTS):
        raise ValueError(f"{expected}; got no such lists: {advice}")
    entries = [*content.get("annotations", [])[:1], *content.get("categories", [])[:1]]
    for key, kind in _OTHER_KINDS.items():
        if any(isinstance(entry, dict) and key in entry for entry in entries):
            raise ValueError(f"{expected}; got a file of {kind}: {advice}")
    for name, keys in _LISTS.items():
        if name not in content:
            raise ValueError(f"{expected}; it has no {name}: {advice}")
        for number, entry in enumerate(content[name]):
            if not isinstance(entry, dict) or not keys <= entry.keys():
                lacking = sorted(keys - entry.keys()) if isinstance(entry, dict) else "all"
                raise ValueError(f"{expected}; entry {number} of its {name} lacks {lacking}: {advice}")
