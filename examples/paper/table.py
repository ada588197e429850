"""Train and test what is not done of a table of the paper, and print it beside the paper's numbers.

    python examples/paper/table.py A4 -- --data.source.init_args.root VOC2012 --trainer.accelerator gpu
    python examples/paper/table.py A4 --print  # what is there, running nothing

tables.yaml lists the rows. Rows that share a training are trained once, and a training that was cut off goes on from
its last.ckpt. What is done is not done again, whatever the settings: to run a row anew, remove its folder under --runs.
"""

import argparse
import dataclasses
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from dpcn_modules.evaluation.results import read_result, text_table

FOLDS = 4
EXAMPLES = Path(__file__).resolve().parents[1]
OWN_KEYS = ("row", "configs", "overrides", "paper")  # of a row that shares nothing with others
Call = Callable[[list[str]], int]


class Setup(NamedTuple):
    """What is trained or tested: the folder of its runs, and its arguments as `dpcn fit` and `dpcn test` take them."""

    name: str
    arguments: tuple[str, ...]

    def folder(self, runs: Path, fold: int) -> Path:
        """Where the training and the test of a fold are."""
        return runs / self.name / f"fold_{fold}"


class Row(NamedTuple):
    """A row of a table: its setups, which other rows may share, and the numbers that the table prints, in percent.

    FB-IoU is None, and the mIoU of each fold is empty, where the table does not print them.
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
        if trainer.is_global_zero:
            Path(self.path).touch()


def main(arguments: Sequence[str] | None = None, call: Call | None = None) -> int:
    """Run what is not done of a table, and print it; return 0, 1 where a row failed, or 2 where a name is unknown.

    ``call`` runs ``dpcn`` with arguments and gives its exit status. By default it is `run_process`, so that what one
    row does to memory or devices is gone before the next.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = parse(arguments[:split])
    runner = Runner(args.runs.absolute(), arguments[split + 1 :], call or run_process)
    try:
        rows = read_table(args.tables, args.table)
        only = args.only or list(rows)
        unknown = [name for name in only if name not in rows]
        if unknown:
            raise ValueError(f"``--only``: expected rows among {', '.join(rows)}, got {', '.join(unknown)}.")
        chosen = [row for name, row in rows.items() if name in only]
        if not args.print:
            for row, fold in itertools.product(chosen, args.folds):
                runner.run(row, fold)
        print(f"Table {args.table}\n{show(chosen, args.runs)}")
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
    """Read the rows of a table by their names, in its order; a ValueError names an unknown table or a row not whole."""
    tables = {str(name): rows for name, rows in yaml.safe_load(file.read_text(encoding="utf-8")).items()}
    if table not in tables:
        raise ValueError(f"``TABLE``: expected one of {', '.join(tables)}, got {table!r}.")
    return {name: _read_row(tables, f"{table}/{name}") for name in tables[table]}


def _read_row(tables: Mapping[str, Any], name: str) -> Row:
    block = _block(tables, name, *OWN_KEYS, "trained_as", "same_as")
    numbers = dict(block.get("paper") or {})
    if "row" not in block or "miou" not in numbers or numbers.keys() - {"miou", "fb_iou", "folds"}:
        raise ValueError(
            f"{name}: expected ``row``, and ``paper`` with miou and, where they are printed, fb_iou and folds; got "
            f"{', '.join(block)}, and in ``paper`` {', '.join(numbers) or 'nothing'}."
        )
    folds = tuple(numbers.pop("folds", ()))
    if len(folds) not in (0, FOLDS):
        raise ValueError(f"{name}: ``folds``: expected {FOLDS} numbers or none, got {len(folds)}.")
    tested = block.get("same_as", name)
    test = _block(tables, tested, *OWN_KEYS, "trained_as")
    trained = test.get("trained_as", tested)
    if trained.endswith(".yaml"):
        training = Setup(f"trained/{Path(trained).stem}", _arguments({"configs": [trained]}))
    else:
        training = Setup(trained, _arguments(_block(tables, trained, *OWN_KEYS)))
    return Row(str(block["row"]), training, Setup(tested, _arguments(test)), folds=folds, **numbers)


def _block(tables: Mapping[str, Any], name: str, *keys: str) -> dict[str, Any]:
    """What tables.yaml says of a row, which may have these keys."""
    table, _, row = name.partition("/")
    block = (tables.get(table) or {}).get(row)
    if not isinstance(block, dict) or block.keys() - set(keys) or not {"configs", "same_as"} & block.keys():
        found = ", ".join(block) if isinstance(block, dict) else repr(block)
        raise ValueError(
            f"tables.yaml: {name}: expected a row with configs and no keys but {', '.join(sorted(keys))}, got {found}."
        )
    return block


def _arguments(block: Mapping[str, Any]) -> tuple[str, ...]:
    """The configs and overrides of a row, as the command line takes them."""
    configs = [f"--config={EXAMPLES / 'configs' / config}" for config in block["configs"]]
    overrides = [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in (block.get("overrides") or {}).items()
    ]
    return (*configs, *overrides)


def show(rows: Sequence[Row], runs: Path) -> str:
    """The table, ours above the paper's."""
    head = ("", "", *(f"fold {fold}" for fold in range(FOLDS)), "mIoU %", "FB-IoU %", "protocols")
    lines: list[tuple[str, ...]] = []
    for row in rows:
        lines.append((row.title, "ours", *_ours(row.tested, runs)))
        folds = [f"{each:.1f}" for each in row.folds] or ["-"] * FOLDS
        fb_iou = "-" if row.fb_iou is None else f"{row.fb_iou:.1f}"
        lines.append(("", "paper", *folds, f"{row.miou:.1f}", fb_iou, ""))
    return "\n".join(line.rstrip() for line in text_table(head, lines).splitlines())


def _ours(tested: Setup, runs: Path) -> tuple[str, ...]:
    """The cells of a row: mIoU of each fold, the means over those that were run, and their protocols."""
    files = [tested.folder(runs, fold) / "test.json" for fold in range(FOLDS)]
    done = {fold: read_result(file) for fold, file in enumerate(files) if file.is_file()}
    if not done:
        return (*["not run"] * (FOLDS + 2), "")
    folds = [f"{100 * done[fold]['miou']:.1f}" if fold in done else "not run" for fold in range(FOLDS)]
    part = "" if len(done) == FOLDS else f" ({len(done)} of {FOLDS})"
    means = [statistics.mean(result[score] for result in done.values()) for score in ("miou", "fb_iou")]
    protocols = [done[fold]["runs"][0]["protocol"]["id"] if fold in done else "-" for fold in range(FOLDS)]
    return (*folds, *(f"{100 * mean:.1f}{part}" for mean in means), " ".join(protocols))


@dataclasses.dataclass
class Runner:
    """Trains and tests rows in a folder of runs, and remembers what failed; settings are handed on to every command."""

    runs: Path
    handed_on: Sequence[str]
    call: Call
    failures: dict[str, None] = dataclasses.field(default_factory=dict)

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
        if mark.is_file() or f"fit of {setup.name}/fold_{fold}" in self.failures:
            return mark.is_file()
        where = {"save_dir": str(folder), "name": "", "version": f"fit_{len(list(folder.glob('fit_*')))}"}
        classes = [f"lightning.pytorch.loggers.{name}Logger" for name in ("CSV", "TensorBoard")]
        loggers = [{"class_path": each, "init_args": where} for each in classes]
        marking = {"class_path": "paper.table.MarkTrained", "init_args": {"path": str(mark)}}
        last = checkpoints / "last.ckpt"
        arguments = [
            *(f"--{each}.dirpath={checkpoints}" for each in ("best", "last")),
            f"--trainer.logger={json.dumps(loggers)}",
            f"--trainer.callbacks+={json.dumps(marking)}",
            *([f"--ckpt_path={last}"] if last.is_file() else []),
        ]
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
    path = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH")]))  # where MarkTrained is
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
