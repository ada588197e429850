"""The rows of the paper's tables: recipes that also say what the paper prints, and our results beside it."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dpcn_modules._checks import check_choice
from dpcn_modules.cli.inherit import read_file, resolve
from dpcn_modules.data.datasets.folds import FOLDS
from dpcn_modules.evaluation.results import table as as_columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table: a recipe with a block ``paper``.

    Attributes:
        path: the recipe.
        table: of the paper; the name of the recipe's folder.
        row: what the table calls it.
        miou: the mean over the folds that the table prints, in percent.
        fb_iou: the same of FB-IoU; None where it is not printed.
        folds: mIoU of each fold; empty where it is not printed.
        order: its place in the table.
        trained: the recipe whose training is tested: its own, or that of the row it names in ``trained_as``.
        tested: the recipe whose test is printed: its own, or that of ``trained_as`` where nothing differs.
    """

    path: Path
    table: str
    row: str
    miou: float
    fb_iou: float | None = None
    folds: tuple[float, ...] = ()
    order: int = 0
    trained: Path
    tested: Path


class Result(NamedTuple):
    """What the test of a fold gave, in percent, and its protocol."""

    miou: float
    fb_iou: float
    protocol: str


_BLOCK = ("table", "row", "order", "miou", "fb_iou", "folds", "trained_as")


def read_table(configs: Path, table: str) -> list[Row]:
    """Read the recipes of a table, in the table's order.

    Raises:
        FileNotFoundError: there is no folder ``configs``, or a ``trained_as`` is missing.
        ValueError: an unknown table, a recipe without a whole block ``paper``, or a ``trained_as`` that comes back.
    """
    if not configs.is_dir():
        raise FileNotFoundError(
            f"``--configs``: there is no folder {configs}; give the one that holds a folder of recipes for each table "
            f"(examples/configs/tables of the repository)."
        )
    known = sorted(path.name for path in configs.iterdir() if path.is_dir())
    check_choice("table", table, known)
    rows = [_read_row(path) for path in sorted((configs / table).glob("*.yaml"))]
    return sorted(rows, key=lambda row: row.order)


def place(runs: Path, configs: Path, recipe: Path, fold: int) -> Path:
    """The folder of a recipe's training and test: by table and row, or under ``trained`` where it is in no table."""
    inside = recipe.is_relative_to(configs.resolve())
    name = recipe.relative_to(configs.resolve()).with_suffix("") if inside else Path("trained", recipe.stem)
    return runs / name / f"fold_{fold}"


def show(rows: Sequence[Row], configs: Path, runs: Path) -> str:
    """The table, ours above the paper's."""
    head = ("", "", *(f"fold {fold}" for fold in range(FOLDS)), "mIoU %", "FB-IoU %", "protocols")
    lines = []
    for row in rows:
        results = [read_result(place(runs, configs, row.tested, fold)) for fold in range(FOLDS)]
        lines.append((row.row, "ours", *_ours(results)))
        folds = [f"{each:.1f}" for each in row.folds] or ["-"] * FOLDS
        fb_iou = "-" if row.fb_iou is None else f"{row.fb_iou:.1f}"
        lines.append(("", "paper", *folds, f"{row.miou:.1f}", fb_iou, ""))
    return "\n".join(line.rstrip() for line in as_columns(head, lines).splitlines())


def read_result(folder: Path) -> Result | None:
    """Read the result of a fold's test; None where it was not run."""
    path = folder / "test.json"
    if not path.is_file():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    return Result(100 * result["miou"], 100 * result["fb_iou"], result["runs"][0]["protocol"]["id"])


def _ours(results: Sequence[Result | None]) -> tuple[str, ...]:
    done = [result for result in results if result is not None]
    folds = ["not run" if result is None else f"{result.miou:.1f}" for result in results]
    if not done:
        return (*folds, "not run", "not run", "")
    part = "" if len(done) == FOLDS else f" ({len(done)} of {FOLDS})"
    means = [statistics.mean(values) for values in zip(*(result[:2] for result in done), strict=True)]
    protocols = " ".join("-" if result is None else result.protocol for result in results)
    return (*folds, *(f"{mean:.1f}{part}" for mean in means), protocols)


def _read_row(path: Path) -> Row:
    block = _block(path)
    for key in ("table", "row", "miou"):
        if key not in block:
            raise ValueError(f"{path}: ``paper``: expected {key}, got {', '.join(block) or 'nothing'}.")
    if str(block["table"]) != path.parent.name:
        raise ValueError(f"{path}: ``paper.table``: expected its folder's name, got {block['table']!r}.")
    folds = tuple(block.get("folds") or ())
    if len(folds) not in (0, FOLDS):
        raise ValueError(f"{path}: ``paper.folds``: expected {FOLDS} numbers or none, got {len(folds)}.")
    trained, tested = _shared(path.resolve())
    numbers = {key: block[key] for key in ("miou", "fb_iou", "order") if key in block}
    return Row(
        path=path, table=path.parent.name, row=str(block["row"]), folds=folds, trained=trained, tested=tested, **numbers
    )


def _shared(path: Path) -> tuple[Path, Path]:
    """The recipes by which a row is trained and tested."""
    trained, tested, seen = path, path, [path]
    while "trained_as" in (block := _block(trained)):
        following = (trained.parent / block["trained_as"]).resolve()
        if not following.is_file():
            raise FileNotFoundError(f"{trained}: ``paper.trained_as``: there is no recipe {following}.")
        if following in seen:
            raise ValueError(f"{trained}: ``paper.trained_as``: expected no circle, got {following} again.")
        if tested == trained and resolve(following) == resolve(tested):
            tested = following
        trained = following
        seen.append(trained)
    return trained, tested


def _block(path: Path) -> dict[str, Any]:
    block = read_file(path).get("paper") or {}
    if not isinstance(block, dict):
        raise ValueError(f"{path}: ``paper``: expected a mapping ({', '.join(_BLOCK)}), got {block!r}.")
    for key in block:
        check_choice(f"{path}: key under paper", key, _BLOCK)
    return block
