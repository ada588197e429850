"""PASCAL-5i: the images of a VOC folder in four folds."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from dpcn_modules._checks import check_choice
from dpcn_modules.data.datasets.files import FileImages, LabelledFile, check_files_exist, count_pixels, without_classes
from dpcn_modules.data.datasets.folds import PASCAL_CLASSES, check_rules, chosen_classes, pascal_classes, split_classes
from dpcn_modules.data.datasets.voc import VOC_LISTS, check_voc_folder
from dpcn_modules.data.listing import read_lines, without_leftovers
from dpcn_modules.data.source import ImageSource, Split
from dpcn_modules.errors import InputError, InputFileError

_TREE = """Expected tree:
  VOC2012/
    JPEGImages/2007_000032.jpg ...
    SegmentationClassAug/2007_000032.png ...     (VOC's masks and SBD's), or
    SegmentationClass/2007_000032.png ...        (VOC's masks)
    ImageSets/Segmentation/trainaug.txt, val.txt"""


@dataclass(eq=False)
class Pascal5i:
    """PASCAL-5i from a VOC folder; a `FoldedData`.

    The defaults fit a VOC 2012 folder to which the SBD masks were added: the training list ``trainaug`` (10,582
    images: VOC train and SBD, without VOC val), the test list ``val`` (1449 images) and masks in
    ``SegmentationClassAug``. For VOC without SBD, pass ``train_list="train"``.

    Args:
        root: the VOC folder, the one that holds ``JPEGImages``.
        fold: 0 to 3; fold ``i`` holds out the classes ``5 i + 1`` to ``5 i + 5``.
        train_list: a name under ``ImageSets/Segmentation``, or a path to a .txt file. A line is an id
            (``2007_000032``) or an image and its mask, relative to ``root``
            (``JPEGImages/2007_000032.jpg SegmentationClassAug/2007_000032.png``).
        test_list: the same for the held-out classes.
        mask_folder: the folder of the masks; by default ``SegmentationClassAug`` if it is present, otherwise
            ``SegmentationClass``.
        min_area: the number of pixels of the original mask from which a class counts in an image. The usual 2048
            refers to VOC's own image size.
        novel: "keep" uses training images that also show held-out classes, with those pixels as background
            (PFENet, HSNet); "drop" leaves them out (BAM, HDMNet).
        classes: use these classes only, by name; each stays in the split to which its fold assigns it. All held-out
            classes still count for ``novel="drop"``.
        held_out: hold out these classes, by name, instead of the fold's; for experiments on part of the data.

    Raises:
        FileNotFoundError: the folder does not exist or is not a VOC folder.
        ValueError: a fold, class or option is unknown.
    """

    root: str | Path
    fold: int
    _: KW_ONLY
    train_list: str | Path = "trainaug"
    test_list: str | Path = "val"
    mask_folder: str | None = None
    min_area: int = 2048
    novel: Literal["keep", "drop"] = "keep"
    classes: Sequence[str] | None = None
    held_out: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_rules(PASCAL_CLASSES, fold=self.fold, novel=self.novel, classes=self.classes, min_area=self.min_area)
        for name in self.held_out or ():
            check_choice("held_out", name, PASCAL_CLASSES)
        self.root = self._root = Path(self.root)
        check_voc_folder(self._root, _TREE)
        names = ("SegmentationClassAug", "SegmentationClass") if self.mask_folder is None else (self.mask_folder,)
        found = [self._root / name for name in names if (self._root / name).is_dir()]
        if not found:
            raise InputFileError(f"{self._root}: there is no mask folder {' or '.join(names)}.\n{_TREE}")
        self._mask_folder = found[0]

    def split(self, split: Split) -> ImageSource:
        """Read a list and all its masks, and return the images of one split.

        Raises:
            FileNotFoundError: the list, images or masks are missing.
            ValueError: no class is left, the list is empty, malformed or names an image twice, or a mask cannot be
                decoded or differs in size from its image.
        """
        class_names = chosen_classes(self._side(split), self.classes, fold=self.fold, split=split)
        list_path = self._find_list(split)
        files = self._read_list(list_path)
        check_files_exist(files, str(list_path), _TREE)
        areas = count_pixels(files, range(1, len(PASCAL_CLASSES) + 1))
        if split == "train" and self.novel == "drop":
            files, areas = without_classes(files, areas, self._side("test"))
        rules = f"area >= {self.min_area} px" + (f", held-out classes: {self.novel}" if split == "train" else "")
        side = f"fold {self.fold}" if self.held_out is None else f"without {', '.join(self.held_out)},"
        name = f"pascal5i {side} {split}, {list_path.name} ({len(files)} images, {rules})"
        return FileImages(name, class_names, files, areas, min_area=self.min_area)

    def _side(self, split: Split) -> dict[int, str]:
        if self.held_out is None:
            return pascal_classes(self.fold, split)
        held_out = [value for value, name in enumerate(PASCAL_CLASSES, start=1) if name in self.held_out]
        return split_classes(PASCAL_CLASSES, held_out, split)

    def _find_list(self, split: Split) -> Path:
        wanted, folder = str(self.train_list if split == "train" else self.test_list), self._root / VOC_LISTS
        candidates = [Path(wanted), folder / wanted] if wanted.endswith(".txt") else [folder / f"{wanted}.txt"]
        for path in candidates:
            if path.is_file():
                return path
        known = ", ".join(path.stem for path in without_leftovers(folder.glob("*.txt"))) or "none"
        raise InputFileError(
            f"``{split}_list``: there is no list {wanted!r}; lists in {folder}: {known}. Name one of them, or "
            f"give the path of a .txt file.\n{_TREE}"
        )

    def _read_list(self, path: Path) -> list[LabelledFile]:
        files: dict[Path, LabelledFile] = {}
        for number, line in enumerate(read_lines(path), start=1):
            match line.split():
                case []:
                    continue
                case [name]:
                    image, mask = self._root / "JPEGImages" / f"{name}.jpg", self._mask_folder / f"{name}.png"
                case [name, mask_name]:
                    # Published lists write the paths with and without a leading slash.
                    image, mask = self._root / name.lstrip("/"), self._root / mask_name.lstrip("/")
                case _:
                    raise InputError(
                        f"{path}, line {number}: expected an id or 'image mask', got {line!r}; "
                        f"write paths without spaces, relative to {self._root}."
                    )
            if image in files:
                raise InputError(
                    f"{path}, line {number}: {name} is listed twice, so that a query could be its own "
                    f"support; remove one of the lines."
                )
            files[image] = LabelledFile(image.name, image, mask)
        if not files:
            raise InputError(f"{path}: the list is empty; expected one id or 'image mask' per line.")
        return list(files.values())
