"""`dpcn prepare`: a data set's masks and lists from its raw downloads."""

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dpcn_modules._checks import require
from dpcn_modules.data._decoding import few
from dpcn_modules.data.prepare_pascal import FULL, PascalReport, PreparedList, Progress, prepare_pascal

Sections = Mapping[str, Mapping[str, str]]


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


# A data set: what it is, its arguments, and what prepares it, prints the report and gives the exit status.
DATA_SETS = {
    "pascal": ("PASCAL-5i, from VOC 2012 and SBD", _pascal_arguments, _pascal),
}
