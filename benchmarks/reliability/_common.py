"""What the reliability scripts share: processes that are killed, and a result that a later run continues."""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from _machine import commit, cpu_name  # noqa: E402

FORK = multiprocessing.get_context("fork")  # a child has what its parent imported


def parser(text: str | None, name: str) -> argparse.ArgumentParser:
    """Options of every script."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--seed", type=int, default=0, help="of the random cases")
    made.add_argument("--out", type=Path, default=HERE.parent / "results" / f"reliability_{name}.json")
    return made


class Log:
    """The cases of a run, one by one on disk; those of an earlier run with the same options are not repeated."""

    def __init__(self, script: str, args: argparse.Namespace) -> None:
        options = {name: value for name, value in vars(args).items() if name != "out"}
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.out: Path = args.out
        self.content: dict[str, Any] = {"command": " ".join(["python", f"benchmarks/reliability/{script}.py", *words])}
        self.content |= {"commit": commit(), "hardware": {"cpu": cpu_name(), "cores": os.cpu_count()}}
        self.content["versions"] = {"python": platform.python_version()} | {
            name: version(name) for name in ("torch", "lightning", "torchmetrics", "numpy", "fsspec")
        }
        self.content |= {"date": time.strftime("%Y-%m-%d"), "summary": {}, "cases": []}
        if self.out.is_file():
            earlier = json.loads(self.out.read_text())
            same = all(earlier[key] == self.content[key] for key in ("command", "commit", "versions"))
            self.content = earlier if same else self.content

    @property
    def cases(self) -> list[dict[str, Any]]:
        """The cases so far."""
        return self.content["cases"]  # type: ignore[no-any-return]

    def add(self, **case: Any) -> None:
        """Print and keep a case."""
        print(json.dumps(case), flush=True)
        self.cases.append(case)
        self.write()

    def write(self, **summary: Any) -> None:
        """Write all cases, and the summary once it is there."""
        self.content["summary"] |= summary
        part = self.out.with_name(f".{self.out.name}")
        part.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n  ".join(json.dumps(case) for case in self.cases)
        text = json.dumps(self.content | {"cases": []}, indent=1).replace('"cases": []', f'"cases": [\n  {lines}\n ]')
        part.write_text(text + "\n")
        part.replace(self.out)
        if summary:
            print(json.dumps(summary))


def start(function: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Run a function in a process of its own group, which `kill` ends with its loader processes."""
    process = FORK.Process(target=_grouped, args=(function, *arguments))
    process.start()
    return process


def kill(process: multiprocessing.process.BaseProcess) -> None:
    """SIGKILL for a process and all that it started."""
    if process.pid is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet, or is gone
            process.kill()
    process.join()


def _grouped(function: Callable[..., None], *arguments: Any) -> None:
    os.setsid()
    torch.set_num_threads(1)
    function(*arguments)
