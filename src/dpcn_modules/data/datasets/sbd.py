"""The folder and lists of SBD, and the class masks in its .mat files."""

import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpcn_modules._checks import require, some
from dpcn_modules.data.datasets.voc import read_ids
from dpcn_modules.data.listing import without_leftovers
from dpcn_modules.errors import InputError, InputFileError

_HIGHEST_ID = 20
_AGAIN = "extract benchmark.tgz again"
_SBD_TREE = """Expected tree (the archive benchmark.tgz; see docs/data.md):
  benchmark_RELEASE/dataset/
    cls/2008_000002.mat ...
    train.txt, val.txt
    train_noval.txt             (a download of its own; may be absent)"""


class SbdFolder:
    """The class masks and lists of SBD.

    Args:
        folder: the folder to which ``benchmark.tgz`` was extracted, or ``benchmark_RELEASE`` or ``dataset`` in it.

    Attributes:
        root: the folder that holds ``cls``.
        train: ids of SBD's own training list, which includes images of VOC's val.
        val: ids of SBD's own validation list.
        train_noval: ids of the list without VOC 2012's val images; None if the file is absent.

    Raises:
        ModuleNotFoundError: scipy, which reads .mat files, is not installed.
        FileNotFoundError: there are no class masks, or a list is missing.
        ValueError: a list is malformed.
    """

    def __init__(self, folder: Path) -> None:
        require("scipy", extra="train")
        places = [folder / below for below in (".", "dataset", "benchmark_RELEASE/dataset")]
        self.root = next((place for place in places if (place / "cls").is_dir()), folder)
        masks, train, val = (self.root / name for name in ("cls", "train.txt", "val.txt"))
        noval = self.root / "train_noval.txt"
        if not masks.is_dir():
            raise InputFileError(f"{folder}: there is no SBD folder (no cls in it).\n{_SBD_TREE}")
        if not without_leftovers(masks.glob("*.mat")):
            raise InputFileError(f"{masks}: there are no .mat files in it; {_AGAIN}.\n{_SBD_TREE}")
        for path in (train, val):
            if not path.is_file():
                raise InputFileError(f"{path}: there is no such list; {_AGAIN}.\n{_SBD_TREE}")
        self.train, self.val = read_ids(train), read_ids(val)
        self.train_noval = set(read_ids(noval)) if noval.is_file() else None

    def mask_path(self, name: str) -> Path:
        """The path of the class mask of an image."""
        return self.root / "cls" / f"{name}.mat"


def read_class_mask(path: Path) -> Tensor:
    """The class mask ``GTcls.Segmentation`` of a .mat file in SBD's folder ``cls``.

    Nothing in the file is executed or unpickled.

    Returns:
        ``(H, W)``, uint8, class ids 0 to 20; SBD has no void.

    Raises:
        ValueError: the file cannot be read, or holds no class mask.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    # What scipy raises for a broken file depends on where the file breaks.
    broken = (MatReadError, NotImplementedError, OSError, ValueError, TypeError, LookupError, zlib.error, struct.error)
    # Opened before the `try`, so that "permission denied" is not reported as a damaged file.
    with path.open("rb") as file:
        try:
            content = loadmat(file)
        except broken as error:
            raise InputError(f"{path}: cannot be read ({error}); it is damaged or not SBD's: {_AGAIN}.") from error
    target = content.get("GTcls")
    if target is None or target.size == 0 or "Segmentation" not in (target.dtype.names or ()):
        held = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise InputError(
            f"{path}: expected GTcls with the field Segmentation, got {held}; SBD's class masks are in dataset/cls "
            f"(those in dataset/inst are of objects, GTinst)."
        )
    mask = np.asarray(target["Segmentation"].flat[0])
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.size == 0:
        raise InputError(
            f"{path}: expected GTcls.Segmentation as a matrix of class ids, got {mask.dtype} of shape {mask.shape}; "
            f"{_AGAIN}."
        )
    if mask.min() < 0 or mask.max() > _HIGHEST_ID:
        odd = np.unique(mask[(mask < 0) | (mask > _HIGHEST_ID)]).tolist()
        raise InputError(f"{path}: expected class ids from 0 to {_HIGHEST_ID}, got {some(odd)}; is it SBD's own file?")
    return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.uint8))
