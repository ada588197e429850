"""`dpcn prepare`: a data set's masks and lists from its raw downloads."""

import argparse
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from dpcn_modules._checks import require
from dpcn_modules.data import Coco20i, ImageSource, Split
from dpcn_modules.data.datasets.coco_masks import Overlap
from dpcn_modules.data.datasets.folds import FOLDS
from dpcn_modules.data.datasets.prepare_pascal import FULL, PascalReport, PreparedList, Progress, prepare_pascal
from dpcn_modules.data.decoding import few

Sections = Mapping[str, Mapping[str, str]]

COCO_FULL: Mapping[str, Mapping[Split, int]] = {
    "2014": {"train": 82081, "test": 40137},
    "2017": {"train": 117266, "test": 4952},
}
SHOTS = 5  # the most that the field tests with


class CocoSplit(NamedTuple):
    """The masks of a split, and its images; those of the test in each fold.

    Attributes:
        name: the annotation file.
        folder: of the masks.
        masks: how many there are.
        drawn: how many of them were drawn now.
        size: of their files, in bytes.
        full: how many there are of COCO's own file; None where that is not known.
        sources: of fold 0, or of all folds.
    """

    name: str
    folder: Path
    masks: int
    drawn: int
    size: int
    full: int | None
    sources: Sequence[ImageSource]

    @property
    def complete(self) -> bool:
        """Whether there are as many as of COCO's own file."""
        return self.full is None or self.masks == self.full


class _Counted:
    """A progress bar that counts the names it is given."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.count = 0

    def __call__(self, names: Iterable[str]) -> Iterable[str]:
        given = list(names)
        self.count += len(given)
        return self._progress(given)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the data sets, each with its arguments."""
    parser.set_defaults(prepare=None, show=parser.print_help)
    data_sets = parser.add_subparsers(dest="data_set")
    for name, (text, arguments, prepare) in DATA_SETS.items():
        data_set = data_sets.add_parser(name, help=text, description=text)
        arguments(data_set)
        data_set.set_defaults(prepare=prepare)


def run(args: argparse.Namespace) -> int:
    """Prepare a data set and print a report; without one, print which there are.

    Returns:
        The exit status: 0 if everything is there, 1 if something is missing or was kept that differs, 2 without
        a data set.
    """
    if args.prepare is None:
        args.show()
        return 2
    return int(args.prepare(args))


def lines(sections: Sections) -> list[str]:
    """A report: titles, and below each its rows; titles without rows are left out."""
    printed = []
    for title, rows in sections.items():
        width = max(map(len, rows), default=0)
        printed += [title] if rows else []
        printed += [f"  {name.ljust(width)}  {text}" for name, text in rows.items()]
    return printed


def bar(text: str) -> Progress:
    """A progress bar, on a terminal only."""
    require("tqdm", extra="train")
    from tqdm import tqdm  # type: ignore[import-untyped]

    return partial(tqdm, desc=text, disable=None, leave=False)


def _pascal_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--voc", type=Path, required=True, metavar="DIR", help="VOC 2012, which holds JPEGImages")
    parser.add_argument("--sbd", type=Path, metavar="DIR", help="SBD, as its archive benchmark.tgz was extracted")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write, instead of into VOC's folder")
    parser.add_argument("--force", action="store_true", help="replace files that hold something else")


def _pascal(args: argparse.Namespace) -> int:
    report = prepare_pascal(args.voc, args.sbd, out=args.out, force=args.force, progress=bar("masks"))
    print("\n".join(lines(pascal_sections(report))))
    return 0 if report.complete else 1


def pascal_sections(report: PascalReport) -> Sections:
    """The report on PASCAL-5i as titles with rows."""
    masks = {state: len(names) for state, names in report.masks.items()}
    words = ", ".join(f"{count} {state}" for state, count in masks.items())
    made = {"SegmentationClassAug": f"{_of('SegmentationClassAug', sum(masks.values()))} masks: {words}"}
    made |= {each.name: _list_row(each) for each in report.lists}
    kept = {each.name: f"{each.path} is another list" for each in report.lists if each.state == "kept"}
    if report.masks["kept"]:
        kept["SegmentationClassAug"] = f"{masks['kept']} masks are others: {_few(report.masks['kept'])}"
    return {
        "found": {name: _of(name, count) for name, count in report.found.items()},
        "missing": report.missing,
        "made": made,
        "kept as it was there (--force replaces it)": kept,
    }


def _list_row(each: PreparedList) -> str:
    if each.state == "not made":
        return "not made"
    size, full = len(each.ids), FULL[each.name]
    text = _of(each.name, size)
    if size < full:
        text += " (partial download?" + (f" missing: {_few(each.absent)})" if each.absent else ")")
    elif size > full:
        text += " (not the published lists?)"
    return f"{text}; sha256 {each.digest}; {each.state}: {each.path}"


def _of(name: str, count: int) -> str:
    return f"{count} of {FULL[name]}"


def _few(names: Sequence[str]) -> str:
    return few(np.array(names))


def _coco_arguments(parser: argparse.ArgumentParser) -> None:
    inside = "relative to the root or absolute"
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="COCO, the folder with all of it")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--year", choices=list(COCO_FULL), default="2014", help="of COCO's own files, by default 2014")
    which.add_argument("--annotations", type=Path, metavar="FILE", help=f"one instances json instead, {inside}")
    parser.add_argument("--images", type=Path, metavar="DIR", help=f"the folder of its images, {inside}")
    parser.add_argument(
        "--overlap", choices=get_args(Overlap), default="smaller_on_top", help="which of two instances is seen"
    )
    parser.add_argument("--cache", default=".", metavar="DIR", help=f"where to keep the masks, {inside}")


def _coco(args: argparse.Namespace) -> int:
    if args.cache == "none":
        raise ValueError("``--cache``: expected a folder, got 'none': masks that are not kept need no preparing.")
    files = _coco_files(args)
    full = COCO_FULL[args.year] if args.annotations is None else {}
    done, errors = {}, {}
    for split in files:
        try:
            done[split] = _draw_coco(args, files, split, full.get(split))
        except FileNotFoundError as error:
            errors[split] = error
    if not done:
        raise next(iter(errors.values()))
    missing = {files[split][0].name: str(error).splitlines()[0] for split, error in errors.items()}
    print("\n".join(lines(coco_sections(list(done.values()), missing))))
    return 0 if not errors and all(each.complete for each in done.values()) else 1


def _coco_files(args: argparse.Namespace) -> dict[Split, tuple[Path, Path]]:
    """The annotation file and the folder of images of each split; a file given by name is that of the test."""
    if (args.annotations is None) != (args.images is None):
        raise ValueError("``--annotations`` and ``--images`` go together; without both, ``--year`` says the names.")
    if args.annotations is not None:
        return {"test": (args.annotations, args.images)}
    names: dict[Split, str] = {"train": f"train{args.year}", "test": f"val{args.year}"}
    return {split: (Path(f"annotations/instances_{name}.json"), Path(name)) for split, name in names.items()}


def _draw_coco(
    args: argparse.Namespace, files: Mapping[Split, tuple[Path, Path]], split: Split, full: int | None
) -> CocoSplit:
    """Let `Coco20i` draw the masks of a split, or find that it did before."""
    annotations, images = files[split]
    drawn = _Counted(bar(f"masks of {annotations.name}"))
    options: dict[str, Any] = {f"{split}_annotations": annotations, f"{split}_images": images}
    options |= {"year": args.year, "overlap": args.overlap, "cache": args.cache, "progress": drawn}
    folds = range(FOLDS) if split == "test" else range(1)
    sources = [Coco20i(args.root, fold, **options).split(split) for fold in folds]
    with (args.root / annotations).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = args.root / args.cache / f"masks_{args.overlap}_{digest[:12]}"
    sizes = [path.stat().st_size for path in folder.glob("*.png")]
    return CocoSplit(annotations.name, folder, len(sizes), drawn.count, sum(sizes), full, sources)


def coco_sections(done: Sequence[CocoSplit], missing: Mapping[str, str]) -> Sections:
    """The report on COCO-20i as titles with rows."""
    found, made = {}, {}
    for each in done:
        text = f"{each.masks} images with objects" + (f" of {each.full}" if each.full else "")
        found[each.name] = text + ("" if each.complete else " (not the published file?)")
        words = f"{each.drawn} drawn, {each.masks - each.drawn} kept"
        made[each.name] = f"{each.masks} masks: {words}; {each.size / 1e6:.1f} MB: {each.folder}"
    test = [each for each in done if len(each.sources) == FOLDS]
    folds = {f"fold {fold}": _fold_row(source) for each in test for fold, source in enumerate(each.sources)}
    title = "test images (interleaved folds; a class counts from 2048 px on)"
    return {"found": found, "missing": missing, "made": made, title: folds}


def _fold_row(source: ImageSource) -> str:
    counts = {name: len(source.images_of(class_id)) for class_id, name in source.class_names.items()}
    scarce = [f"{name} ({count})" for name, count in counts.items() if count <= SHOTS]
    text = f"; {SHOTS} shots need {SHOTS + 1} images of a class, fewer have {', '.join(scarce)}" if scarce else ""
    return f"{len(source.images)} images of {len(counts)} classes{text}"


# A data set: what it is, its arguments, and what prepares it, prints the report and gives the exit status.
DATA_SETS = {
    "pascal": ("PASCAL-5i, from VOC 2012 and SBD", _pascal_arguments, _pascal),
    "coco": ("COCO-20i, from COCO's own files", _coco_arguments, _coco),
}
