"""Train and test what is not done of a table of the paper, and print it beside the paper's numbers.

    python examples/paper/table.py A4 -- --data.source.init_args.root VOC2012 --trainer.accelerator gpu
    python examples/paper/table.py A4 --print  # what is there, running nothing

tables.yaml lists the rows. Rows that share a training are trained once, and a training that was cut off goes on from
its last.ckpt. What is done is not done again, whatever the settings: to run a row anew, remove its folder under --runs.
"""

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from dpcn_modules.evaluation.results import read_result, text_table

FOLDS = 4
EXAMPLES = Path(__file__).resolve().parents[1]
Call = Callable[[list[str]], int]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is trained or tested.

    Attributes:
        name: the folder of its runs under ``--runs``.
        arguments: its configs and overrides, as `dpcn fit` and `dpcn test` take them.
    """

    name: str
    arguments: tuple[str, ...]

    def folder(self, runs: Path, fold: int) -> Path:
        """Where the training and the test of a fold are."""
        return runs / self.name / f"fold_{fold}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
        title: what the table calls it.
        trained: the setup of its training, which other rows may share.
        tested: the setup of its test, likewise.
        miou: the mean over the folds that the table prints, in percent.
        fb_iou: the same of FB-IoU; None where it is not printed.
        folds: mIoU of each fold; empty where it is not printed.
    """

    title: str
    trained: Setup
    tested: Setup
    miou: float
    fb_iou: float | None = None
    folds: tuple[float, ...] = ()


class MarkTrained(Callback):
    """Leave an empty file where a training came to its end, which it does not after a kill or a SIGTERM."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if trainer.is_global_zero:
            Path(self.path).touch()


def main(arguments: Sequence[str] | None = None, call: Call | None = None) -> int:
    """Run what is not done of a table, and print it.

    Args:
        arguments: of the command line; None: the process's.
        call: runs ``dpcn`` with arguments and gives its exit status; None: in a process of its own, so that what one
            row does to memory or devices is gone before the next.

    Returns:
        0, 1 where a row failed, or 2 where the table or a row is unknown.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = parse(arguments[:split])
    try:
        rows = read_table(args.tables, args.table)
        unknown = [name for name in args.only or () if name not in rows]
        if unknown:
            raise ValueError(f"``--only``: expected rows among {', '.join(rows)}, got {', '.join(unknown)}.")
        rows = {name: row for name, row in rows.items() if args.only is None or name in args.only}
        runner = Runner(args.runs.absolute(), arguments[split + 1 :], call or run_process)
        if not args.print:
            for row in rows.values():
                for fold in args.folds:
                    runner.run(row, fold)
        print(f"Table {args.table}\n{show(list(rows.values()), args.runs)}")
    except (ValueError, OSError) as error:
        print(f"table.py: error: {error}", file=sys.stderr)
        return 2
    for failure in runner.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(runner.failures))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments before ``--``."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] [options] TABLE [-- settings of dpcn fit and dpcn test]",
    )
    parser.add_argument("table", metavar="TABLE", help="1, 2, 3, 4, 5, 7, A1, A2, A3, A4 or A5")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(FOLDS), default=list(range(FOLDS)))
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows, by their names in tables.yaml")
    parser.add_argument("--print", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--runs", type=Path, metavar="DIR", default=Path("runs", "tables"), help="(%(default)s)")
    parser.add_argument("--tables", type=Path, metavar="FILE", default=Path(__file__).with_name("tables.yaml"))
    return parser.parse_args(arguments)


def read_table(file: Path, table: str) -> dict[str, Row]:
    """Read the rows of a table by their names, in the table's order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown table, or a row that is not whole.
    """
    tables = {str(name): rows for name, rows in yaml.safe_load(file.read_text(encoding="utf-8")).items()}
    if table not in tables:
        raise ValueError(f"``TABLE``: expected one of {', '.join(tables)}, got {table!r}.")
    return {name: _read_row(tables, f"{table}/{name}") for name in tables[table]}


def _read_row(tables: Mapping[str, Any], name: str) -> Row:
    block = _block(tables, name, {"row", "configs", "overrides", "trained_as", "same_as", "paper"})
    numbers = dict(block.get("paper") or {})
    if "row" not in block or "miou" not in numbers or numbers.keys() - {"miou", "fb_iou", "folds"}:
        raise ValueError(
            f"{name}: expected ``row``, and ``paper`` with miou and, where they are printed, fb_iou and folds; got "
            f"{', '.join(block)}, and in ``paper`` {', '.join(numbers) or 'nothing'}."
        )
    folds = tuple(numbers.pop("folds", ()))
    if len(folds) not in (0, FOLDS):
        raise ValueError(f"{name}: ``folds``: expected {FOLDS} numbers or none, got {len(folds)}.")
    own = {"row", "configs", "overrides", "paper"}
    tested = block.get("same_as", name)
    test = _block(tables, tested, {*own, "trained_as"})
    trained = test.get("trained_as", tested)
    if trained.endswith(".yaml"):
        training = Setup(f"trained/{Path(trained).stem}", _arguments({"configs": [trained]}))
    else:
        training = Setup(trained, _arguments(_block(tables, trained, own)))
    return Row(
        title=str(block["row"]), trained=training, tested=Setup(tested, _arguments(test)), folds=folds, **numbers
    )


def _block(tables: Mapping[str, Any], name: str, keys: set[str]) -> dict[str, Any]:
    """What tables.yaml says of a row, by a key each."""
    table, _, row = name.partition("/")
    block = (tables.get(table) or {}).get(row)
    if not isinstance(block, dict) or block.keys() - keys or not {"configs", "same_as"} & block.keys():
        found = ", ".join(block) if isinstance(block, dict) else repr(block)
        raise ValueError(
            f"tables.yaml: {name}: expected a row with configs and no keys but {', '.join(sorted(keys))}, got {found}."
        )
    return block


def _arguments(block: Mapping[str, Any]) -> tuple[str, ...]:
    """The configs and overrides of a row, as the command line takes them."""
    configs = [f"--config={EXAMPLES / 'configs' / config}" for config in block["configs"]]
    overrides = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in (block.get("overrides") or {}).items()
    }
    return (*configs, *(f"--{key}={value}" for key, value in overrides.items()))


def show(rows: Sequence[Row], runs: Path) -> str:
    """The table, ours above the paper's."""
    head = ("", "", *(f"fold {fold}" for fold in range(FOLDS)), "mIoU %", "FB-IoU %", "protocols")
    lines: list[tuple[str, ...]] = []
    for row in rows:
        files = [row.tested.folder(runs, fold) / "test.json" for fold in range(FOLDS)]
        lines.append((row.title, "ours", *_ours([read_result(file) if file.is_file() else None for file in files])))
        folds = [f"{each:.1f}" for each in row.folds] or ["-"] * FOLDS
        fb_iou = "-" if row.fb_iou is None else f"{row.fb_iou:.1f}"
        lines.append(("", "paper", *folds, f"{row.miou:.1f}", fb_iou, ""))
    return "\n".join(line.rstrip() for line in text_table(head, lines).splitlines())


def _ours(results: Sequence[Mapping[str, Any] | None]) -> tuple[str, ...]:
    """The cells of a row: mIoU of each fold, the means over those that were run, and their protocols."""
    done = [result for result in results if result is not None]
    folds = ["not run" if result is None else f"{100 * result['miou']:.1f}" for result in results]
    if not done:
        return (*folds, "not run", "not run", "")
    part = "" if len(done) == FOLDS else f" ({len(done)} of {FOLDS})"
    means = [f"{100 * statistics.mean(result[score] for result in done):.1f}{part}" for score in ("miou", "fb_iou")]
    protocols = ["-" if result is None else result["runs"][0]["protocol"]["id"] for result in results]
    return (*folds, *means, " ".join(protocols))


class Runner:
    """Trains and tests rows, and remembers what failed.

    Args:
        runs: the folder of all runs.
        handed_on: settings for each `dpcn fit` and `dpcn test`.
        call: runs ``dpcn`` with arguments and gives its exit status.
    """

    def __init__(self, runs: Path, handed_on: Sequence[str], call: Call) -> None:
        self.runs = runs
        self.handed_on = handed_on
        self.call = call
        self.failures: dict[str, None] = {}

    def run(self, row: Row, fold: int) -> None:
        """Train and test a row on a fold, unless that is done."""
        folder = row.tested.folder(self.runs, fold)
        if (folder / "test.json").is_file() or not self._train(row.trained, fold):
            return
        last = row.trained.folder(self.runs, fold) / "checkpoints" / "last.ckpt"
        logs = ["--trainer.logger=false", f"--trainer.default_root_dir={folder}"]
        self._dpcn("test", row.tested, fold, [f"--ckpt_path={last}", *logs], done=folder / "test.json")

    def _train(self, setup: Setup, fold: int) -> bool:
        """Train, or go on with a training that was cut off; say whether there is a network to test."""
        folder = setup.folder(self.runs, fold)
        mark, checkpoints = folder / "trained", folder / "checkpoints"
        if mark.is_file():
            return True
        if f"fit of {setup.name}/fold_{fold}" in self.failures:
            return False
        where = {"save_dir": str(folder), "name": "", "version": f"fit_{len(list(folder.glob('fit_*')))}"}
        loggers = [
            {"class_path": f"lightning.pytorch.loggers.{name}Logger", "init_args": where}
            for name in ("CSV", "TensorBoard")
        ]
        marking = {"class_path": "paper.table.MarkTrained", "init_args": {"path": str(mark)}}
        arguments = [
            *(f"--{each}.dirpath={checkpoints}" for each in ("best", "last")),
            f"--trainer.logger={json.dumps(loggers)}",
            f"--trainer.callbacks+={json.dumps(marking)}",
        ]
        last = checkpoints / "last.ckpt"
        if last.is_file():
            arguments.append(f"--ckpt_path={last}")
        self._dpcn("fit", setup, fold, arguments, done=mark)
        return mark.is_file()

    def _dpcn(self, command: str, setup: Setup, fold: int, arguments: Sequence[str], *, done: Path) -> None:
        name = f"{command} of {setup.name}/fold_{fold}"
        print(f"== {name}", flush=True)
        choice = [*setup.arguments, *self.handed_on, f"--data.source.init_args.fold={fold}"]
        # The file is looked at too: a training that ends by SIGTERM has no error to report.
        if self.call([command, *choice, *arguments]) or not done.is_file():
            self.failures[name] = None


def run_process(arguments: list[str]) -> int:
    """Run ``dpcn`` in a process; a SIGTERM is handed on to it, and ends the table when the process has ended."""
    # The process has to find MarkTrained.
    path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "dpcn_modules.cli.main", *arguments]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) as process:
        told = []

        def hand_on(*_: object) -> None:
            told.append(True)
            process.terminate()

        before = signal.signal(signal.SIGTERM, hand_on)
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if told:
        raise SystemExit("table.py: terminated; the same command goes on from here")
    return status


if __name__ == "__main__":
    sys.exit(main())
