"""PASCAL-5i from the raw downloads: VOC 2012's masks joined with SBD's, and the field's two training lists."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpcn_modules.data.datasets.sbd import SbdFolder, open_sbd, read_class_mask
from dpcn_modules.data.datasets.voc import VOC_LISTS, VocFolder, open_voc, read_ids, save_class_mask
from dpcn_modules.data.decoding import few, image_size
from dpcn_modules.data.io import load_mask

Progress = Callable[[Sequence[str]], Iterable[str]]
State = Literal["written", "unchanged", "kept", "not made"]

FULL = {
    **{"VOC train": 1464, "VOC val": 1449, "VOC masks": 2913},
    **{"SBD train": 8498, "SBD val": 2857, "SBD train_noval": 5623, "SBD without VOC's Main val": 5623},
    **{"masks beside VOC's": 9118, "SegmentationClassAug": 12031, "trainaug": 10582, "pfenet": 5953},
}
_AUG = "SegmentationClassAug"


class PreparedList(NamedTuple):
    """A training list.

    Attributes:
        name: of the rule, and of the list.
        ids: those of the rule whose image and mask are both there, sorted.
        absent: those of the rule that lack one, sorted.
        path: the file.
        state: "written"; "unchanged", where the file held this already; "kept", where it holds something else
            and stays; "not made", where the rule lacks data.
    """

    name: str
    ids: tuple[str, ...]
    absent: tuple[str, ...]
    path: Path
    state: State

    @property
    def digest(self) -> str:
        """The first 12 digits of the sha256 hash of the sorted ids, a newline after each."""
        return hashlib.sha256("".join(f"{name}\n" for name in self.ids).encode()).hexdigest()[:12]


class PascalReport(NamedTuple):
    """What `prepare_pascal` found and did.

    Attributes:
        found: how many ids and masks the downloads hold.
        masks: names of the masks in ``SegmentationClassAug``, by what was done with them.
        lists: the training lists.
        missing: what is missing, in words, by kind.
    """

    found: Mapping[str, int]
    masks: Mapping[State, Sequence[str]]
    lists: Sequence[PreparedList]
    missing: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether everything is there in the full data's numbers, and nothing was kept that differs."""
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

    A mask is VOC's where VOC has one (with its void, 255), else SBD's (without void). The lists, sorted:

    - ``trainaug``: all of SBD and VOC train, without VOC val; 10,582 images.
    - ``pfenet``: SBD's train_noval and VOC train, without VOC val; 5953 images. Where train_noval.txt is absent,
      it is SBD without the images of VOC's ``ImageSets/Main/val.txt``.

    A partial download is no error: a list gets the images that are there, and the report names the others. A
    finished file is never half written, so an interrupted run can be repeated.

    Args:
        voc: the folder of VOC 2012, the one that holds ``JPEGImages``.
        sbd: the folder of SBD. None: the masks of a ``SegmentationClassAug`` that is already in ``voc`` take SBD's
            place; where there is none, only VOC's masks are written, and no list.
        out: where to write; None: into ``voc``. Of another folder, the lists give paths relative to ``voc``, to
            be read by ``Pascal5i(voc, fold, train_list=<the file>)``: images are neither copied (2 GB) nor linked
            (links do not survive archives, and not every file system has them).
        force: replace files that hold something else.
        progress: is given the names of the masks and gives them back one by one, such as ``tqdm``.

    Raises:
        FileNotFoundError: a folder is not VOC's or SBD's, or lacks its lists.
        ValueError: the VOC of another year, a file that cannot be read, or a mask that differs in size from its
            image.
        ModuleNotFoundError: SBD is given, and scipy is not installed.
    """
    folder = open_voc(Path(voc))
    boundaries = None if sbd is None else open_sbd(sbd)
    prefix = None if out is None else _relative(Path(out), folder.root)
    target = folder.root if out is None else Path(out)
    pool = _augmented(folder, boundaries)
    sources = {name: _mask_source(name, folder, boundaries) for name in sorted({*folder.train, *folder.val, *pool})}
    rules = _rules(folder, boundaries, pool)
    ready = [name for name, path in sources.items() if path.is_file() and folder.image(name).is_file()]
    masks = _write_masks(ready, sources, folder, target / _AUG, force=force, progress=progress)
    lists = [
        _make_list(rule, ids, set(ready), target / VOC_LISTS / f"{rule}.txt", prefix, force=force)
        for rule, ids in rules.items()
    ]
    missing = _missing(folder, boundaries, pool, sources, rules)
    return PascalReport(_found(folder, boundaries, pool), masks, lists, missing)


def _relative(out: Path, root: Path) -> str | None:
    """The way from a VOC folder to another one, as a list gives it; None where they are one."""
    if out.resolve() == root.resolve():
        return None
    # Of the real folders: behind a link, ".." is not the folder that the name shows.
    prefix = Path(os.path.relpath(out.resolve(), root.resolve())).as_posix()
    if re.search(r"\s", prefix):
        raise ValueError(f"``out``: expected a folder without spaces in its path, as a list needs, got {prefix!r}.")
    return prefix


def _augmented(voc: VocFolder, sbd: SbdFolder | None) -> set[str]:
    """The ids of SBD, or, without it, those of masks that are there already beside VOC's own."""
    if sbd is not None:
        return {*sbd.train, *sbd.val}
    return {path.stem for path in (voc.root / _AUG).glob("*.png")} - {*voc.train, *voc.val}


def _mask_source(name: str, voc: VocFolder, sbd: SbdFolder | None) -> Path:
    own = voc.own_mask(name)
    # A missing mask of VOC's lists is never filled in from SBD: it would change the ground truth that tests are scored by.
    if own.is_file() or name in voc.train or name in voc.val:
        return own
    return voc.root / _AUG / f"{name}.png" if sbd is None else sbd.mask_path(name)


def _noval(voc: VocFolder, sbd: SbdFolder | None, pool: set[str]) -> tuple[str, set[str] | None]:
    """SBD's images outside VOC 2012's val, and where that is from; None if it cannot be told."""
    if sbd is not None and sbd.train_noval is not None:
        return "SBD train_noval", set(sbd.train_noval)
    # The val that train_noval leaves out is that of detection (5823 images), not of segmentation (1449).
    main_val = voc.root / "ImageSets" / "Main" / "val.txt"
    ids = pool - voc.val - set(read_ids(main_val)) if main_val.is_file() else None
    return "SBD without VOC's Main val", ids


def _rules(voc: VocFolder, sbd: SbdFolder | None, pool: set[str]) -> dict[str, set[str] | None]:
    """The ids of each list; None where the data for the rule is not there."""
    if not pool:
        return {"trainaug": None, "pfenet": None}
    noval = _noval(voc, sbd, pool)[1]
    return {
        "trainaug": (pool | voc.train) - voc.val,
        "pfenet": None if noval is None else (noval | voc.train) - voc.val,
    }


def _found(voc: VocFolder, sbd: SbdFolder | None, pool: set[str]) -> dict[str, int]:
    masks = sum(voc.own_mask(name).is_file() for name in voc.train | voc.val)
    found = {"VOC train": len(voc.train), "VOC val": len(voc.val), "VOC masks": masks}
    if sbd is None:
        return found | {"masks beside VOC's": len(pool)}
    name, ids = _noval(voc, sbd, pool)
    found |= {"SBD train": len(sbd.train), "SBD val": len(sbd.val)}
    return found if ids is None else found | {name: len(ids)}


def _missing(
    voc: VocFolder,
    sbd: SbdFolder | None,
    pool: set[str],
    sources: Mapping[str, Path],
    rules: Mapping[str, set[str] | None],
) -> dict[str, str]:
    missing = {}
    names = sorted(set(sources).union(*(ids or () for ids in rules.values())))
    images = [f"{name}.jpg" for name in names if not voc.image(name).is_file()]
    if images:
        text = f"{len(images)} of {len(names)} are not in {voc.root / 'JPEGImages'}: {few(np.array(images))}; "
        there = 0 if sbd is None else sum((sbd.root / "img" / name).is_file() for name in images)
        text += f"SBD's folder img has {there} of them: copy those, or " if there else ""
        missing["images"] = text + "extract VOC's archive again"
    masks = [str(Path(path.parent.name, path.name)) for path in sources.values() if not path.is_file()]
    if masks:
        missing["masks"] = f"{len(masks)} of {len(sources)}: {few(np.array(masks))}; extract the archives again"
    unknown = sorted(set(names) - set(sources))
    if unknown:
        text = f"{len(unknown)} ids of train_noval.txt are in neither train.txt nor val.txt: {few(np.array(unknown))}"
        missing["SBD ids"] = f"{text}; take SBD's own lists"
    if not pool:
        text = "only VOC's own masks are there, so that no list was made"
        missing["SBD"] = f"{text}: give SBD (--sbd), or train on VOC alone with the list 'train'"
    elif rules["pfenet"] is None:
        missing["list pfenet"] = "needs SBD's train_noval.txt beside its train.txt, or VOC's ImageSets/Main/val.txt"
    return missing


def _write_masks(
    names: Sequence[str],
    sources: Mapping[str, Path],
    voc: VocFolder,
    folder: Path,
    *,
    force: bool,
    progress: Progress | None,
) -> Mapping[State, Sequence[str]]:
    done: dict[State, list[str]] = {"written": [], "unchanged": [], "kept": []}
    for name in names if progress is None else progress(names):
        source, target = sources[name], folder / f"{name}.png"
        mask = load_mask(source) if source.suffix == ".png" else read_class_mask(source)
        _check_size(mask, source, voc.image(name))
        if _holds(target, mask):
            done["unchanged"].append(name)
        elif target.exists() and not force:
            done["kept"].append(name)
        else:
            with _replaced(target) as part:
                if source.suffix == ".png":
                    shutil.copyfile(source, part)
                else:
                    save_class_mask(mask, part)
            done["written"].append(name)
    return done


def _check_size(mask: Tensor, mask_path: Path, image: Path) -> None:
    (height, width), (mask_height, mask_width) = image_size(image), mask.shape
    if (height, width) != (mask_height, mask_width):
        raise ValueError(
            f"{mask_path}: expected {width} x {height} (width x height), the size of its image {image}, got "
            f"{mask_width} x {mask_height}; one of them is not as published: extract both archives again."
        )


def _holds(path: Path, mask: Tensor) -> bool:
    """Whether a file is this mask, as a palette or greyscale image."""
    try:
        return path.is_file() and torch.equal(load_mask(path), mask)
    except ValueError:  # it cannot be decoded
        return False


def _make_list(
    rule: str, ids: set[str] | None, ready: set[str], path: Path, prefix: str | None, *, force: bool
) -> PreparedList:
    usable, absent = (tuple(sorted(part)) for part in ((ids or set()) & ready, (ids or set()) - ready))
    if not usable:
        return PreparedList(rule, (), absent, path, "not made")
    lines = usable if prefix is None else [f"JPEGImages/{name}.jpg {prefix}/{_AUG}/{name}.png" for name in usable]
    text = "".join(f"{line}\n" for line in lines)
    state: State = "written"
    if path.is_file() and set(path.read_bytes().splitlines()) == set(text.encode().splitlines()):
        state = "unchanged"
    elif path.is_file() and not force:
        state = "kept"
    else:
        with _replaced(path) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
    return PreparedList(rule, usable, absent, path, state)


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A file to write, beside the one that it replaces once it is whole."""
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
