"""Your own classes: one folder per class, with the masks beside the images."""

from collections.abc import Sequence
from pathlib import Path

from dpcn_modules._checks import VOID, check_choice, did_you_mean, some
from dpcn_modules.data.datasets.files import FileImages, LabelledFile, count_pixels
from dpcn_modules.data.listing import image_files, read_lines, without_leftovers
from dpcn_modules.data.source import ImageSource, Split
from dpcn_modules.errors import InputError, InputFileError

_TREE = """Expected tree:
  root/
    cup/1.jpg, cup/1.png ...          (the mask has the image's name), or
    plate/a.jpg, plate/a_mask.png ... (the mask's name ends in _mask), or
    fork/images/1.jpg, fork/masks/1.png ..."""
_IMAGES = {"images", "image", "imgs", "jpegimages"}
_MASKS = {"masks", "mask", "labels", "annotations", "gt", "ground_truth", "segmentations", "segmentationclass"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


class ClassFolders:
    """Images in one folder per class, each with the mask of one object; a `FoldedData`.

    The mask of ``1.jpg`` is ``1.png`` (FSS-1000's layout) or ``1_mask.png``; that of an image ``1.png`` is
    ``1_mask.png``. A class folder may instead hold two folders, ``images`` and ``masks``, with files of equal names.
    Hidden files and what systems leave behind (``._*``, ``__MACOSX``, ``@eaDir``) are skipped. Masks are read
    by `binary_mask`. Class ids are 1, 2, ... in the order of the sorted folder names; 255 is skipped because it means
    void. An image whose mask has no foreground is never sampled.

    Args:
        root: the folder that holds the class folders.
        train_classes: names of the classes to train on, or the path of a .txt file with one name a line. None: all
            classes that are not in ``test_classes``.
        test_classes: the same for the classes to hold out. None: all classes that are not in ``train_classes``. If
            both are None, both splits have all classes, for testing a trained network on your own images.
        void: the value of mask pixels that do not count; see `binary_mask`.
        object: the value of the object in the masks. None: 1, or 255 in black and white masks; masks with both 1 and
            255 need ``void=255`` or ``object=255``.

    Raises:
        FileNotFoundError: the folder is missing or holds no class folders, or there is no such .txt file.
        ValueError: a class has no folder, or is in both splits; or the folders are not classes but images and masks, or
            splits (train, val).
    """

    def __init__(
        self,
        root: str | Path,
        *,
        train_classes: Sequence[str] | str | Path | None = None,
        test_classes: Sequence[str] | str | Path | None = None,
        void: int | None = None,
        object: int | None = None,
    ) -> None:
        self.root = Path(root)
        self.void, self.object = void, object
        if not self.root.is_dir():
            raise InputFileError(f"{self.root}: there is no such folder.\n{_TREE}")
        names = [path.name for path in without_leftovers(self.root.iterdir()) if path.is_dir()]
        if not names:
            raise InputFileError(f"{self.root}: there are no class folders in it.\n{_TREE}")
        _check_names(self.root, names)
        self.train_classes = _class_names("train_classes", train_classes, names, self.root)
        self.test_classes = _class_names("test_classes", test_classes, names, self.root)
        both = sorted(set(self.train_classes or ()) & set(self.test_classes or ()))
        if both:
            raise InputError(
                f"``test_classes``: {len(both)} of them are in ``train_classes`` too: {some(both)}; held-out classes "
                f"must not be trained on: remove each from one of the two."
            )
        ids = (class_id for class_id in range(1, len(names) + 2) if class_id != VOID)
        self._names = dict(zip(ids, names, strict=False))

    def split(self, split: Split) -> ImageSource:
        """Read all masks of one split and return its images.

        Raises:
            ValueError: the split has no class, a class folder no image, or an image no mask or two; a mask cannot be
                decoded, has other values, or differs in size from its image.
        """
        check_choice("split", split, ("train", "test"))
        sides = (self.train_classes, self.test_classes)
        mine, others = sides if split == "train" else sides[::-1]
        chosen = set(self._names.values()) - set(others or ()) if mine is None else set(mine)
        class_names = {value: name for value, name in self._names.items() if name in chosen}
        if not class_names:
            raise InputError(
                f"``train_classes``, ``test_classes``: no class is left for {split}; {self.root} holds "
                f"{some(self._names.values())}: hold out some of them, or pass None to use all for both."
            )
        found = [file for class_id, name in class_names.items() for file in _labelled_files(self.root / name, class_id)]
        files = [file._replace(void=self.void, object=self.object) for file in found]
        areas = count_pixels(files, class_names)
        side = "all classes" if sides == (None, None) else split
        name = f"{self.root.name} {side}, {len(class_names)} classes ({len(files)} images)"
        return FileImages(name, class_names, files, areas, min_area=1)


def _check_names(root: Path, names: Sequence[str]) -> None:
    """Raise ValueError where the names of the folders in a root are not those of classes."""
    known = {name.lower() for name in names}
    if known & _IMAGES and known & _MASKS:
        raise InputError(
            f"{root}: expected one folder per class, got {some(names)}; put both folders into one with the name of "
            f"the class: {root.name}/cup/images and {root.name}/cup/masks. For masks of several class ids use "
            f"``Pascal5i`` or one mask per class.\n{_TREE}"
        )
    if known <= _SPLITS and known != {"train"}:  # a class of vehicles
        raise InputError(
            f"{root}: expected one folder per class, got {some(names)}, which are names of splits; give one of them as "
            f"the root, or name the classes of each split with ``train_classes`` and ``test_classes``.\n{_TREE}"
        )


def _class_names(
    argument: str, given: Sequence[str] | str | Path | None, known: Sequence[str], root: Path
) -> Sequence[str] | None:
    """The given names, or those in the given file; ValueError unless each is a class."""
    where = f"``{argument}``"
    if isinstance(given, str | Path):
        path = Path(given)
        if path.suffix != ".txt":
            raise InputError(f"{where}: expected names or the path of a .txt file, got {str(given)!r}.")
        if not path.is_file():
            raise InputFileError(f"{where}: there is no file {path}; write one class name a line into it.")
        where += f" of {path}"
        given = [name.strip() for name in read_lines(path) if name.strip()]
        if not given:
            raise InputError(f"{where}: expected one class name a line, got none.")
    unknown = [name for name in given or () if name not in known]
    if unknown:
        raise InputError(
            f"{where}: {len(unknown)} of its {len(given or ())} classes have no folder in {root}: {some(unknown)}."
            f"{did_you_mean(unknown[0], known)} The folders: {some(known)}."
        )
    return given


def _labelled_files(folder: Path, class_id: int) -> list[LabelledFile]:
    """The images of a class folder with their masks, in the order of their names."""
    images, masks = _images_and_masks(folder)
    by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(mask.stem, []).append(mask)
    files = []
    for image in images:
        found = [mask for stem in (image.stem, f"{image.stem}_mask") for mask in by_stem.get(stem, [])]
        if len(found) != 1:
            got = " and ".join(path.name for path in found) or "neither"
            raise InputError(f"{image}: expected one mask, {_wanted(image, folder)}, got {got}.{_hint(image, folder)}")
        files.append(LabelledFile(image.relative_to(folder.parent).as_posix(), image, found[0], class_id))
    owners: dict[Path, Path] = {}
    for file in files:
        if owners.setdefault(file.mask, file.image) != file.image:
            raise InputError(f"{file.mask}: the mask of {owners[file.mask].name} and of {file.image.name}; remove one.")
    unused = set(masks) - owners.keys()
    if unused:
        raise InputError(f"{min(unused)}: a mask without its image; add the image or remove the mask.")
    return files


def _images_and_masks(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images and the masks of a class folder, in two folders of their own or side by side."""
    paths = image_files(folder)
    below = {path.name.lower(): path for path in without_leftovers(folder.iterdir()) if path.is_dir()}
    if below.keys() >= {"images", "masks"}:
        if paths:
            raise InputError(f"{folder}: holds images/ and masks/, and {paths[0].name} beside them; keep one layout.")
        images, masks = image_files(below["images"]), image_files(below["masks"])
    else:
        others = {path.stem for path in paths if not _is_png(path)}
        masks = [path for path in paths if _is_png(path) and (path.stem.endswith("_mask") or path.stem in others)]
        images = sorted(set(paths) - set(masks))
    if not images:
        hint = f" It holds the folders {some(below)}." if below else ""
        raise InputError(f"{folder}: a class folder without images; fill it or remove it.{hint}\n{_TREE}")
    return images, masks


def _wanted(image: Path, folder: Path) -> str:
    """The names that the mask of an image may have."""
    stem = image.stem
    if image.parent != folder:
        return f"{stem}.png or {stem}_mask.png in masks"
    return (
        f"{stem}_mask.png, beside the image" if _is_png(image) else f"{stem}.png or {stem}_mask.png, beside the image"
    )


def _hint(image: Path, folder: Path) -> str:
    """What may be wrong with an image that has no mask."""
    other = [path.name for path in image_files(image.parent) if path.stem == f"{image.stem}_mask" and not _is_png(path)]
    if other:
        return f" If {other[0]} is its mask, save it as a PNG: JPEG changes the values of a mask."
    if image.parent == folder and _is_png(image):
        return f" If it is itself a mask, its image {image.stem}.jpg is missing."
    return ""


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png"
