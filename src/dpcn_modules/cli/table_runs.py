"""`dpcn table`: train and test what is not done of a table of the paper, and print it."""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from dpcn_modules._checks import check_choice
from dpcn_modules.cli.paper_tables import Row, place, read_result, read_table, show
from dpcn_modules.data.datasets.folds import FOLDS

Call = Callable[[list[str]], int]


class MarkTrained(Callback):
    """Leave an empty file where a training came to its end, which neither a kill nor a SIGTERM lets it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if trainer.is_global_zero:
            Path(self.path).touch()


def run(arguments: list[str], call: Call | None = None) -> int:
    """Run what is not done of a table, and print it.

    Args:
        arguments: those after ``dpcn table``; what stands after ``--`` is handed on to each `fit` and `test`.
        call: runs ``dpcn`` with arguments and gives its exit status; None: in a process of its own, so that what one
            row does to memory or devices is gone before the next.

    Returns:
        0, or 1 where a row failed.

    Raises:
        FileNotFoundError: no such folder of recipes.
        ValueError: an unknown table or row, or a recipe that is none.
    """
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = _parser().parse_args(arguments[:split])
    rows = read_table(args.configs, args.table)
    for name in args.only or ():
        check_choice("--only", name, [row.path.stem for row in rows])
    rows = [row for row in rows if args.only is None or row.path.stem in args.only]
    runner = _Runner(args.configs, args.runs.absolute(), arguments[split + 1 :], call or in_a_process)
    if not args.print:
        for row in rows:
            for fold in args.folds:
                runner.run(row, fold)
    print(f"Table {args.table}\n{show(rows, args.configs, args.runs)}")
    for failure in runner.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return int(bool(runner.failures))


def in_a_process(arguments: list[str]) -> int:
    """Run ``dpcn`` in a process; a SIGTERM is handed on to it, and ends the table when it has ended."""
    with subprocess.Popen([sys.executable, "-m", "dpcn_modules.cli.main", *arguments]) as process:
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
        raise SystemExit("dpcn table: terminated; the same command goes on from here")
    return status


class _Runner:
    """Trains and tests rows, and remembers what failed."""

    def __init__(self, configs: Path, runs: Path, handed_on: Sequence[str], call: Call) -> None:
        self.configs = configs
        self.runs = runs
        self.handed_on = handed_on
        self.call = call
        self.failures: dict[str, None] = {}

    def run(self, row: Row, fold: int) -> None:
        """Train and test a row on a fold, unless that is done."""
        folder = self._place(row.tested, fold)
        if read_result(folder) is not None or not self._trained(row.trained, fold):
            return
        last = self._place(row.trained, fold) / "checkpoints" / "last.ckpt"
        logs = ["--trainer.logger=false", f"--trainer.default_root_dir={folder}"]
        self._dpcn("test", row.tested, fold, [f"--ckpt_path={last}", *logs])

    def _trained(self, recipe: Path, fold: int) -> bool:
        """Train, or go on with a training that was cut off; say whether there is a network to be tested."""
        folder = self._place(recipe, fold)
        mark, checkpoints = folder / "trained", folder / "checkpoints"
        if mark.is_file():
            return True
        if self._name("fit", folder) in self.failures:
            return False
        number = len(list(folder.glob("fit_*")))
        where = {"save_dir": str(folder), "name": "", "version": f"fit_{number}"}
        loggers = [_class(f"lightning.pytorch.loggers.{kind}Logger", **where) for kind in ("CSV", "TensorBoard")]
        marking = _class(f"{MarkTrained.__module__}.{MarkTrained.__name__}", path=str(mark))
        arguments = [
            *(f"--{each}.dirpath={checkpoints}" for each in ("best", "last")),
            f"--trainer.logger={json.dumps(loggers)}",
            f"--trainer.callbacks+={json.dumps(marking)}",
        ]
        last = checkpoints / "last.ckpt"
        if last.is_file():
            arguments.append(f"--ckpt_path={last}")
        self._dpcn("fit", recipe, fold, arguments)
        return mark.is_file()

    def _dpcn(self, command: str, recipe: Path, fold: int, arguments: list[str]) -> None:
        folder = self._place(recipe, fold)
        name = self._name(command, folder)
        print(f"== {name}", flush=True)
        choice = [f"--config={recipe}", *self.handed_on, f"--data.source.init_args.fold={fold}"]
        status = self.call([command, *choice, *arguments])
        done = folder / ("trained" if command == "fit" else "test.json")
        if status or not done.is_file():
            self.failures[name] = None

    def _place(self, recipe: Path, fold: int) -> Path:
        return place(self.runs, self.configs, recipe, fold)

    def _name(self, command: str, folder: Path) -> str:
        return f"{command} of {folder.relative_to(self.runs)}"


def _class(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dpcn table",
        description="Train and test what is not done of a table of the paper, and print it beside the paper's numbers.",
        usage="dpcn table [-h] [options] TABLE [-- settings of dpcn fit and dpcn test]",
        epilog="A training that was cut off goes on from its last.ckpt. What is done is not done again, whatever the "
        "settings: to run a row anew, remove its folder under --runs.",
    )
    parser.add_argument("table", metavar="TABLE", help="1, 2, 3, 4, 5, 7, A1, A2, A3, A4 or A5")
    parser.add_argument("--folds", type=int, nargs="+", choices=range(FOLDS), default=list(range(FOLDS)))
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows, by the names of their recipes")
    parser.add_argument("--print", action="store_true", help="print what is there, run nothing")
    parser.add_argument("--runs", type=Path, metavar="DIR", default=Path("runs", "tables"), help="(%(default)s)")
    configs = Path("examples", "configs", "tables")
    parser.add_argument("--configs", type=Path, metavar="DIR", default=configs, help="(%(default)s)")
    return parser
