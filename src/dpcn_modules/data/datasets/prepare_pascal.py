"""PASCAL-5i from the raw downloads: the masks of VOC 2012 and SBD, and the two usual training lists."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dpcn_modules._checks import some
from dpcn_modules.data.datasets.files import check_mask_size, replacing
from dpcn_modules.data.datasets.sbd import SbdFolder, read_class_mask
from dpcn_modules.data.datasets.voc import VOC_LISTS, VocFolder, read_ids, save_class_mask
from dpcn_modules.data.io import load_mask
from dpcn_modules.data.listing import without_leftovers
from dpcn_modules.errors import InputError

Progress = Callable[[Sequence[str]], Iterable[str]]
State = Literal["written", "unchanged", "kept", "not made"]

FULL = {
    **{"VOC train": 1464, "VOC val": 1449, "VOC masks": 2913},
    **{"SBD train": 8498, "SBD val": 2857, "SBD train_noval": 5623, "SBD without VOC's Main val": 5623},
    **{"masks beside VOC's": 9118, "SegmentationClassAug": 12031, "trainaug": 10582, "pfenet": 5953},
}
_AUG = "SegmentationClassAug"


class PreparedList(NamedTuple):
    """A training list: sorted ids whose image and mask are both there, sorted ids that lack one, and the file.

    The state is "written"; "unchanged" if the file already had this content; "kept" if it has other content and was
    not replaced; or "not made" if data for the list is missing.
    """

    name: str
    ids: tuple[str, ...]
    absent: tuple[str, ...]
    path: Path
    state: State

    @property
    def digest(self) -> str:
        """The first 12 digits of the sha256 hash of the sorted ids, each followed by a newline."""
        return hashlib.sha256("".join(f"{name}\n" for name in self.ids).encode()).hexdigest()[:12]


class PascalReport(NamedTuple):
    """The result of `prepare_pascal`: the numbers of ids and masks in the downloads, the names of the masks in
    ``SegmentationClassAug`` by state, the training lists, and descriptions of what is missing by kind."""

    found: Mapping[str, int]
    masks: Mapping[State, Sequence[str]]
    lists: Sequence[PreparedList]
    missing: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether the data has its full numbers and no differing file was kept."""
        counts = {**self.found, _AUG: sum(map(len, self.masks.values()))}
        counts |= {each.name: len(each.ids) for each in self.lists}
        kept = self.masks["kept"] or any(each.state == "kept" for each in self.lists)
        return all(FULL[name] == count for name, count in counts.items()) and not self.missing and not kept


def prepare_pascal(
    voc: str | Path,
    sbd: str | Path | None = None,
    *,
    out: str | Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> PascalReport:
    """Write ``SegmentationClassAug`` and the training lists ``trainaug`` and ``pfenet``.

    A mask is VOC's if VOC has one (with void, 255), and otherwise SBD's (without void). The lists are sorted:

    - ``trainaug``: all of SBD and VOC train, without VOC val; 10,582 images.
    - ``pfenet``: SBD's train_noval and VOC train, without VOC val; 5953 images. If train_noval.txt is absent, SBD
      without the images of VOC's ``ImageSets/Main/val.txt`` takes its place.

    If a download is incomplete, the lists contain the images that are there, and the report names the others. Files
    are replaced only when complete, so an interrupted run can be repeated.

    Args:
        voc: the folder of VOC 2012 that holds ``JPEGImages``.
        sbd: the folder of SBD. None: an existing ``SegmentationClassAug`` in ``voc`` is used instead; if there is
            none, only VOC's masks are written, and no list.
        out: the folder to write to; None: ``voc``. In another folder, the lists contain paths relative to ``voc``,
            for ``Pascal5i(voc, fold, train_list=<the file>)``; images are neither copied (2 GB) nor linked (not
            every file system and archive format supports links).
        force: replace files that have other content.
        progress: wraps the names of the masks, for a progress bar such as ``tqdm``.

    Raises:
        FileNotFoundError: a folder is not VOC's or SBD's, or lacks its lists.
        ValueError: the data is the VOC of another year, a file cannot be read, or a mask differs in size from its
            image.
        ModuleNotFoundError: SBD is given, and scipy is not installed.
    """
    downloads = _Downloads(VocFolder(Path(voc)), None if sbd is None else SbdFolder(Path(sbd)))
    root = downloads.voc.root
    prefix = None if out is None else _relative(Path(out), root)
    target = root if out is None else Path(out)
    ready = [name for name, path in downloads.sources.items() if path.is_file() and downloads.voc.image(name).is_file()]
    masks = _write_masks(ready, downloads, target / _AUG, force=force, progress=progress)
    lists = [
        _write_list(name, ids or set(), set(ready), target / VOC_LISTS / f"{name}.txt", prefix, force=force)
        for name, ids in downloads.lists.items()
    ]
    return PascalReport(downloads.found, masks, lists, downloads.missing())


def _relative(out: Path, root: Path) -> str | None:
    """The path from a VOC folder to another folder, as used in a list; None if they are the same."""
    # Symbolic links are resolved, because ".." after a link is not the parent that the name suggests.
    if out.resolve() == root.resolve():
        return None
    prefix = Path(os.path.relpath(out.resolve(), root.resolve())).as_posix()
    if re.search(r"\s", prefix):
        expected = "a folder without spaces in its path"
        raise InputError(f"``out``: expected {expected}, got {prefix!r}; the lists cannot hold spaces.")
    return prefix


class _Downloads:
    """The images and masks of both downloads.

    ``pool`` holds the ids of SBD or, without it, of the masks that are there already beside VOC's own; ``lists`` the
    ids of each list, or None if data for it is missing.
    """

    def __init__(self, voc: VocFolder, sbd: SbdFolder | None) -> None:
        self.voc = voc
        self.sbd = sbd
        masks = sum(voc.own_mask(name).is_file() for name in voc.train | voc.val)
        self.found = {"VOC train": len(voc.train), "VOC val": len(voc.val), "VOC masks": masks}
        noval_name = "SBD train_noval"
        noval = None if sbd is None else sbd.train_noval
        if sbd is None:
            self.pool = {path.stem for path in without_leftovers((voc.root / _AUG).glob("*.png"))} - voc.train - voc.val
            self.found["masks beside VOC's"] = len(self.pool)
        else:
            self.pool = {*sbd.train, *sbd.val}
            self.found |= {"SBD train": len(sbd.train), "SBD val": len(sbd.val)}
        # train_noval leaves out the val list of detection (5823 images), not that of segmentation (1449).
        main_val = voc.root / "ImageSets" / "Main" / "val.txt"
        if noval is None and self.pool and main_val.is_file():
            noval_name = "SBD without VOC's Main val"
            noval = self.pool - voc.val - set(read_ids(main_val))
        if sbd is not None and noval is not None:
            self.found[noval_name] = len(noval)
        self.sources = {name: self._source(name) for name in sorted({*voc.train, *voc.val, *self.pool})}
        self.lists = {
            "trainaug": (self.pool | voc.train) - voc.val if self.pool else None,
            "pfenet": None if noval is None else (noval | voc.train) - voc.val,
        }

    def _source(self, name: str) -> Path:
        own = self.voc.own_mask(name)
        # SBD never replaces a missing mask of VOC's lists: that would change the ground truth of the tests.
        if own.is_file() or name in self.voc.train or name in self.voc.val:
            return own
        return self.voc.root / _AUG / f"{name}.png" if self.sbd is None else self.sbd.mask_path(name)

    def missing(self) -> dict[str, str]:
        missing = {}
        names = sorted(set(self.sources).union(*(ids or () for ids in self.lists.values())))
        images = [f"{name}.jpg" for name in names if not self.voc.image(name).is_file()]
        if images:
            text = f"{len(images)} of {len(names)} are not in {self.voc.root / 'JPEGImages'}: {some(images)}; "
            there = 0 if self.sbd is None else sum((self.sbd.root / "img" / name).is_file() for name in images)
            text += f"SBD's folder img has {there} of them: copy those, or " if there else ""
            missing["images"] = text + "extract VOC's archive again"
        masks = [str(Path(path.parent.name, path.name)) for path in self.sources.values() if not path.is_file()]
        if masks:
            missing["masks"] = f"{len(masks)} of {len(self.sources)}: {some(masks)}; extract the archives again"
        unknown = sorted(set(names) - set(self.sources))
        if unknown:
            text = f"{len(unknown)} ids of train_noval.txt are in neither train.txt nor val.txt: {some(unknown)}"
            missing["SBD ids"] = f"{text}; take SBD's own lists"
        if not self.pool:
            text = "only VOC's own masks are there, so that no list was made"
            missing["SBD"] = f"{text}: give SBD (--sbd), or train on VOC alone with the list 'train'"
        elif self.lists["pfenet"] is None:
            missing["list pfenet"] = "needs SBD's train_noval.txt beside its train.txt, or VOC's ImageSets/Main/val.txt"
        return missing


def _write_masks(
    names: Sequence[str], downloads: _Downloads, folder: Path, *, force: bool, progress: Progress | None
) -> Mapping[State, Sequence[str]]:
    """Write the masks that are not there yet, and return their names by state."""
    done: dict[State, list[str]] = {"written": [], "unchanged": [], "kept": []}
    for name in names if progress is None else progress(names):
        source, target = downloads.sources[name], folder / f"{name}.png"
        is_png = source.suffix == ".png"
        mask = load_mask(source, palette="voc") if is_png else read_class_mask(source)
        check_mask_size(downloads.voc.image(name), mask, str(source))
        write = partial(shutil.copyfile, source) if is_png else partial(save_class_mask, mask)
        done[_write(target, write, same=_holds(target, mask), force=force)].append(name)
    return done


def _holds(path: Path, mask: Tensor) -> bool:
    """Whether a file holds this mask, as a palette or greyscale image."""
    try:
        return path.is_file() and torch.equal(load_mask(path), mask)
    except ValueError:  # it cannot be decoded
        return False


def _write_list(
    name: str, ids: set[str], ready: set[str], path: Path, prefix: str | None, *, force: bool
) -> PreparedList:
    usable, absent = tuple(sorted(ids & ready)), tuple(sorted(ids - ready))
    if not usable:
        return PreparedList(name, (), absent, path, "not made")
    lines = usable if prefix is None else [f"JPEGImages/{each}.jpg {prefix}/{_AUG}/{each}.png" for each in usable]
    content = "".join(f"{line}\n" for line in lines).encode()
    same = path.is_file() and set(path.read_bytes().splitlines()) == set(content.splitlines())
    state = _write(path, lambda part: part.write_bytes(content), same=same, force=force)
    return PreparedList(name, usable, absent, path, state)


def _write(path: Path, write: Callable[[Path], object], *, same: bool, force: bool) -> State:
    """Write a file unless it has the same content, or other content that must be kept."""
    if same:
        return "unchanged"
    if path.exists() and not force:
        return "kept"
    with replacing(path) as part:
        write(part)
    return "written"
