"""The raw downloads of PASCAL-5i: folders and lists of VOC 2012 and SBD, and the class masks in SBD's .mat files."""

import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dpcn_modules._checks import require
from dpcn_modules.data._decoding import few

VOC_LISTS = Path("ImageSets", "Segmentation")
_HIGHEST_ID = 20
_OTHER_YEARS = {(209, 213): 2007, (511, 512): 2008, (749, 750): 2009, (964, 964): 2010, (1112, 1111): 2011}
_VOC_TREE = """Expected tree (VOCtrainval_11-May-2012.tar; see docs/data.md):
  VOC2012/
    JPEGImages/2007_000032.jpg ...
    SegmentationClass/2007_000032.png ...
    ImageSets/Segmentation/train.txt, val.txt"""
_SBD_TREE = """Expected tree (the archive benchmark.tgz; see docs/data.md):
  benchmark_RELEASE/dataset/
    cls/2008_000002.mat ...
    train.txt, val.txt
    train_noval.txt             (a download of its own; may be absent)"""


class VocFolder(NamedTuple):
    """The files of VOC 2012.

    Attributes:
        root: the folder that holds ``JPEGImages``.
        train: ids of the training list of segmentation.
        val: ids of the validation list of segmentation.
    """

    root: Path
    train: frozenset[str]
    val: frozenset[str]

    def picture(self, name: str) -> Path:
        """Where a picture is."""
        return self.root / "JPEGImages" / f"{name}.jpg"

    def own_mask(self, name: str) -> Path:
        """Where VOC's mask of a picture is, if VOC has one."""
        return self.root / "SegmentationClass" / f"{name}.png"


class SbdFolder(NamedTuple):
    """The files of SBD.

    Attributes:
        root: the folder that holds ``cls``.
        train: ids of SBD's own training list, which also holds pictures of VOC's val.
        val: ids of SBD's own validation list.
        train_noval: ids of the list that leaves out VOC 2012's val pictures; None where the file is absent.
    """

    root: Path
    train: list[str]
    val: list[str]
    train_noval: list[str] | None

    def mask_path(self, name: str) -> Path:
        """Where the class mask of a picture is."""
        return self.root / "cls" / f"{name}.mat"


def open_voc(root: Path) -> VocFolder:
    """Check a folder, and read VOC's lists.

    Raises:
        FileNotFoundError: it is not a VOC folder, or lacks lists or masks.
        ValueError: a list is malformed, or the VOC of another year.
    """
    if not (root / "JPEGImages").is_dir():
        below = [path for path in (root / "VOC2012", root / "VOCdevkit" / "VOC2012") if path.is_dir()]
        hint = f" Did you mean {below[0]}?" if below else ""
        raise FileNotFoundError(f"{root}: there is no VOC folder (no JPEGImages in it).{hint}\n{_VOC_TREE}")
    needed = [root / VOC_LISTS / "train.txt", root / VOC_LISTS / "val.txt", root / "SegmentationClass"]
    absent = [str(path) for path in needed if not path.exists()]
    if absent:
        raise FileNotFoundError(f"{', '.join(absent)}: not there; extract VOC's archive again.\n{_VOC_TREE}")
    train, val = (frozenset(read_ids(path)) for path in needed[:2])
    year = _OTHER_YEARS.get((len(train), len(val)))
    if year is None and all(re.fullmatch(r"\d{6}", name) for name in train):
        year = 2007
    if year is not None:
        raise ValueError(
            f"{root}: expected VOC 2012 (1464 ids in train.txt, 1449 in val.txt), got VOC {year} "
            f"({len(train)} and {len(val)}); give the folder VOCdevkit/VOC2012."
        )
    return VocFolder(root, train, val)


def open_sbd(folder: str | Path) -> SbdFolder:
    """Find SBD's files below a folder, and read its lists.

    Args:
        folder: what ``benchmark.tgz`` was extracted to, or ``benchmark_RELEASE`` or ``dataset`` in it.

    Raises:
        ModuleNotFoundError: scipy, which reads .mat files, is not installed.
        FileNotFoundError: there are no class masks, or a list is missing.
        ValueError: a list is malformed.
    """
    require("scipy", extra="train")
    folder = Path(folder)
    places = [folder / below for below in (".", "dataset", "benchmark_RELEASE/dataset")]
    roots = [place for place in places if (place / "cls").is_dir()]
    if not roots:
        raise FileNotFoundError(f"{folder}: there is no SBD folder (no cls in it).\n{_SBD_TREE}")
    root = roots[0]
    if next((root / "cls").glob("*.mat"), None) is None:
        raise FileNotFoundError(
            f"{root / 'cls'}: there are no .mat files in it; extract benchmark.tgz again.\n{_SBD_TREE}"
        )
    for name in ("train.txt", "val.txt"):
        if not (root / name).is_file():
            raise FileNotFoundError(f"{root / name}: there is no such list; extract benchmark.tgz again.\n{_SBD_TREE}")
    noval = root / "train_noval.txt"
    return SbdFolder(
        root,
        read_ids(root / "train.txt"),
        read_ids(root / "val.txt"),
        read_ids(noval) if noval.is_file() else None,
    )


def read_ids(path: Path) -> list[str]:
    """Read a list of picture ids, one a line; ValueError if a line holds more, or there is none."""
    ids = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if len(words) > 1:
            raise ValueError(
                f"{path}, line {number}: expected one picture id, got {line!r}; use the list as it was published."
            )
        ids += words
    if not ids:
        raise ValueError(f"{path}: the list is empty; extract the archive again.")
    return ids


def read_class_mask(path: Path) -> Tensor:
    """Read the class mask of an SBD .mat file: ``GTcls.Segmentation``. Nothing in the file is executed or unpickled.

    Args:
        path: a file of SBD's folder ``cls``.

    Returns:
        ``(H, W)``, uint8, class ids 0 to 20; SBD has no void.

    Raises:
        ValueError: the file cannot be read, or holds no class mask.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # What scipy raises for a broken file depends on where the file breaks.
    broken = (MatReadError, NotImplementedError, OSError, ValueError, TypeError, LookupError, zlib.error, struct.error)
    # The file is opened outside of it, so that "permission denied" keeps its own words.
    with path.open("rb") as file:
        try:
            content = loadmat(file)
        except broken as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); the file is truncated, damaged or not SBD's: extract "
                f"benchmark.tgz again."
            ) from error
    truth = content.get("GTcls")
    if truth is None or truth.size == 0 or "Segmentation" not in (truth.dtype.names or ()):
        held = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise ValueError(
            f"{path}: expected GTcls with the field Segmentation, got {held}; SBD's class masks are in dataset/cls "
            f"(those in dataset/inst are of objects, GTinst)."
        )
    mask = np.asarray(truth["Segmentation"].flat[0])
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.size == 0:
        raise ValueError(
            f"{path}: expected GTcls.Segmentation as a matrix of class ids, got {mask.dtype} of shape {mask.shape}; "
            f"extract benchmark.tgz again."
        )
    if mask.min() < 0 or mask.max() > _HIGHEST_ID:
        odd = np.unique(mask[(mask < 0) | (mask > _HIGHEST_ID)])
        raise ValueError(f"{path}: expected class ids from 0 to {_HIGHEST_ID}, got {few(odd)}; is it SBD's own file?")
    return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.uint8))


def save_class_mask(mask: Tensor, path: Path) -> None:
    """Write class ids, ``(H, W)`` uint8, as a PNG in VOC's colours."""
    picture = Image.fromarray(mask.numpy())
    # The bits of an id, three by three from the lowest, are the highest bits of its red, green and blue.
    colours = [
        sum(((value >> (3 * place + channel)) & 1) << (7 - place) for place in range(3))
        for value in range(256)
        for channel in range(3)
    ]
    picture.putpalette(colours)
    picture.save(path, format="PNG")
