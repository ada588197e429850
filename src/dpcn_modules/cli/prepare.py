"""`dpcn prepare`: makes a data set's masks and lists from its raw downloads."""

import argparse
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from dpcn_modules._checks import require, some
from dpcn_modules.data import Coco20i, ImageSource, Split
from dpcn_modules.data.datasets.coco_instances import Crowd, Overlap
from dpcn_modules.data.datasets.coco_masks import file_digest, mask_folder
from dpcn_modules.data.datasets.folds import FOLDS
from dpcn_modules.data.datasets.prepare_pascal import FULL, PreparedList, Progress, prepare_pascal
from dpcn_modules.data.listing import without_leftovers
from dpcn_modules.errors import InputError

COCO_FULL: Mapping[str, Mapping[Split, int]] = {
    "2014": {"train": 82081, "test": 40137},
    "2017": {"train": 117266, "test": 4952},
}
SHOTS = 5  # the largest number of shots in the usual tests


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand with its arguments for each data set."""
    parser.set_defaults(prepare=None, show=parser.print_help)
    data_sets = parser.add_subparsers(dest="data_set")
    for name, (text, arguments, prepare) in DATA_SETS.items():
        data_set = data_sets.add_parser(name, help=text, description=text)
        arguments(data_set)
        data_set.set_defaults(prepare=prepare)


def run(args: argparse.Namespace) -> int:
    """Prepare a data set and print a report; without a data set, print the available ones.

    Returns:
        The exit status: 0 if the data set is complete, 1 if something is missing or a differing file was kept, 2
        without a data set.
    """
    if args.prepare is None:
        args.show()
        return 2
    return int(args.prepare(args))


def _print_report(sections: Mapping[str, Mapping[str, str]]) -> None:
    """Print titles with their rows below; titles without rows are left out."""
    for title, rows in sections.items():
        if rows:
            width = max(map(len, rows))
            print(title, *(f"  {name.ljust(width)}  {text}" for name, text in rows.items()), sep="\n")


def _progress_bar(text: str) -> Progress:
    """A progress bar that is shown on a terminal only."""
    require("tqdm", extra="train")
    from tqdm import tqdm  # type: ignore[import-untyped]

    return partial(tqdm, desc=text, disable=None, leave=False)


def _pascal_arguments(parser: argparse.ArgumentParser) -> None:
    add_folder = partial(parser.add_argument, type=Path, metavar="DIR")
    add_folder("--voc", required=True, help="the folder of VOC 2012 that holds JPEGImages")
    add_folder("--sbd", help="the folder to which SBD's archive benchmark.tgz was extracted")
    add_folder("--out", help="the folder to write to, instead of VOC's")
    parser.add_argument("--force", action="store_true", help="replace files that have other content")


def _pascal(args: argparse.Namespace) -> int:
    report = prepare_pascal(args.voc, args.sbd, out=args.out, force=args.force, progress=_progress_bar("masks"))
    counts = {state: len(names) for state, names in report.masks.items()}
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    made = {"SegmentationClassAug": f"{_of_full('SegmentationClassAug', sum(counts.values()))} masks: {states}"}
    kept = {each.name: f"{each.path} is a different list" for each in report.lists if each.state == "kept"}
    if report.masks["kept"]:
        kept["SegmentationClassAug"] = f"{counts['kept']} masks differ: {some(report.masks['kept'])}"
    _print_report(
        {
            "found": {name: _of_full(name, count) for name, count in report.found.items()},
            "missing": report.missing,
            "made": made | {each.name: _list_row(each) for each in report.lists},
            "kept, although it differs (--force replaces it)": kept,
        }
    )
    return 0 if report.complete else 1


def _list_row(each: PreparedList) -> str:
    if each.state == "not made":
        return "not made"
    size, full = len(each.ids), FULL[each.name]
    text = _of_full(each.name, size)
    if size < full:
        text += " (partial download?" + (f" missing: {some(each.absent)})" if each.absent else ")")
    elif size > full:
        text += " (not the published lists?)"
    return f"{text}; sha256 {each.digest}; {each.state}: {each.path}"


def _of_full(name: str, count: int) -> str:
    return f"{count} of {FULL[name]}"


def _coco_arguments(parser: argparse.ArgumentParser) -> None:
    inside = "relative to the root or absolute"
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="the folder of COCO")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--year", choices=list(COCO_FULL), default="2014", help="year of COCO's files (2014)")
    which.add_argument("--annotations", type=Path, metavar="FILE", help=f"one instances json instead, {inside}")
    parser.add_argument("--images", type=Path, metavar="DIR", help=f"the folder of its images, {inside}")
    parser.add_argument(
        "--overlap", choices=get_args(Overlap), default="smaller_on_top", help="which of two instances is visible"
    )
    parser.add_argument("--crowd", choices=get_args(Crowd), default="void", help="what iscrowd = 1 means (void)")
    parser.add_argument("--cache", default=".", metavar="DIR", help=f"the folder for the masks, {inside}")


def _coco(args: argparse.Namespace) -> int:
    if args.cache == "none":
        raise InputError("``--cache``: expected a folder, got 'none': masks that are not saved need no preparation.")
    complete = True
    errors: dict[str, FileNotFoundError] = {}
    found: dict[str, str] = {}
    made: dict[str, str] = {}
    folds: dict[str, str] = {}
    for split, (annotations, images) in _coco_files(args).items():
        try:
            drawn, sources = _draw_masks(args, split, annotations, images)
        except FileNotFoundError as error:
            errors[annotations.name] = error
            continue
        folder = mask_folder(args.root / args.cache, file_digest(args.root / annotations), args.overlap, args.crowd)
        sizes = [path.stat().st_size for path in without_leftovers(folder.glob("*.png"))]
        found[annotations.name] = f"{len(sizes)} images with objects"
        if args.annotations is None:
            full = COCO_FULL[args.year][split]
            complete &= len(sizes) == full
            found[annotations.name] += f" of {full}" + ("" if len(sizes) == full else " (not the published file?)")
        states = f"{drawn} drawn, {len(sizes) - drawn} kept"
        made[annotations.name] = f"{len(sizes)} masks: {states}; {sum(sizes) / 1e6:.1f} MB: {folder}"
        if split == "test":
            folds = {f"fold {fold}": _fold_row(source) for fold, source in enumerate(sources)}
    if not made:
        raise next(iter(errors.values()))
    missing = {name: str(error).splitlines()[0] for name, error in errors.items()}
    title = "test images (interleaved folds; a class counts from 2048 px on)"
    _print_report({"found": found, "missing": missing, "made": made, title: folds})
    return 0 if complete and not errors else 1


def _coco_files(args: argparse.Namespace) -> dict[Split, tuple[Path, Path]]:
    """The annotation file and the image folder of each split; a file given by name is the test split's."""
    if (args.annotations is None) != (args.images is None):
        raise InputError("``--annotations`` and ``--images`` belong together; give both, or ``--year`` instead.")
    if args.annotations is not None:
        return {"test": (args.annotations, args.images)}
    names: dict[Split, str] = {"train": f"train{args.year}", "test": f"val{args.year}"}
    return {split: (Path(f"annotations/instances_{name}.json"), Path(name)) for split, name in names.items()}


def _draw_masks(
    args: argparse.Namespace, split: Split, annotations: Path, images: Path
) -> tuple[int, list[ImageSource]]:
    """The number of masks that had to be drawn, and the images of every fold (training split: of fold 0)."""
    drawn: list[str] = []

    def progress(names: Iterable[str]) -> Iterable[str]:
        drawn.extend(names)
        return _progress_bar(f"masks of {annotations.name}")(drawn)

    options: dict[str, Any] = {f"{split}_annotations": annotations, f"{split}_images": images}
    options |= {
        "year": args.year,
        "overlap": args.overlap,
        "crowd": args.crowd,
        "cache": args.cache,
        "progress": progress,
    }
    folds = range(FOLDS) if split == "test" else range(1)
    sources = [Coco20i(args.root, fold, **options).split(split) for fold in folds]
    return len(drawn), sources


def _fold_row(source: ImageSource) -> str:
    counts = {name: len(source.images_of(class_id)) for class_id, name in source.class_names.items()}
    scarce = [f"{name} ({count})" for name, count in counts.items() if count <= SHOTS]
    text = f"; {SHOTS} shots need {SHOTS + 1} images of a class, fewer have {', '.join(scarce)}" if scarce else ""
    return f"{len(source.images)} images of {len(counts)} classes{text}"


# For each data set: a description, a function that adds its arguments, and one that prepares it and returns the status.
DATA_SETS = {
    "pascal": ("PASCAL-5i, from VOC 2012 and SBD", _pascal_arguments, _pascal),
    "coco": ("COCO-20i, from COCO's own files", _coco_arguments, _coco),
}
