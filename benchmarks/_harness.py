"""Shared by the speed benchmarks: options, turns, clocks, memory and the result file. README.md describes how."""

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _machine import cache_bytes, command, commit, free_memory, hand_back_memory, hardware, resident

from dpcn_modules.evaluation.results import text_table

HERE = Path(__file__).resolve().parent
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GIB = 2**30
LEAST_OTHER_DATA = 64 * 2**20
QUICK = 1.0
"""Seconds below which every counted run is preceded by an uncounted one, for contenders with ``warm``."""
Row = dict[str, Any]
"""One measurement: labels and numbers by name."""


@dataclasses.dataclass(frozen=True)
class Contender:
    """One implementation of the work.

    Attributes:
        call: the work; it takes what ``prepare`` returns, if there is one.
        prepare: called before every run, outside the clock.
        may_fail: a RuntimeError of the first run (such as a missing compiler) skips the contender instead of ending.
        memory: measure its peak, in a separate run.
        warm: precede every counted run by an uncounted one if runs are quick, so that the memory left by the previous
            contender does not affect the time.
        ours: wrong values are a failure of the library and end the benchmark with status 1.
    """

    call: Callable[..., Any]
    prepare: Callable[[], Any] | None = None
    may_fail: bool = False
    memory: bool = True
    warm: bool = False
    ours: bool = False

    def ready(self) -> Callable[[], Any]:
        """Prepare a run and return it."""
        if self.prepare is None:
            return self.call
        prepared = self.prepare()
        return lambda: self.call(prepared)


class Bench:
    """One run of one benchmark on one device.

    Args:
        script: file of the benchmark.
        parser: with the benchmark's own options; the common ones are added here.
        repeats: counted runs of each contender by default.
        dtypes: offer a choice of the precision.

    Attributes:
        args: the command line.
        device: of the tensors.
        dtype: of the tensors.
        rows: the results, one for each contender and setting.
        skipped: contenders that were not timed, with reasons.
        other_data: larger than the caches; read before every run to flush them.
    """

    def __init__(self, script: str, parser: argparse.ArgumentParser, *, repeats: int = 7, dtypes: bool = True) -> None:
        self.script = Path(script)
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default: %(default)s")
        if dtypes:
            parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: %(default)s")
        parser.add_argument("--repeats", type=positive, default=repeats, help="counted runs (default: %(default)s)")
        parser.add_argument("--threads", type=positive, help="threads of PyTorch (default: PyTorch's own choice)")
        parser.add_argument("--out", type=Path, help=f"result (default: results/{self.script.stem}_DEVICE.json)")
        self.args = parser.parse_args()
        if self.args.threads is not None:
            torch.set_num_threads(self.args.threads)
        self.device = torch.device(self.args.device)
        self.dtype = DTYPES[self.args.dtype] if dtypes else torch.float32
        self.rows: list[Row] = []
        self.skipped: list[Row] = []
        self.wrong = False
        if not torch.cuda.is_available():
            self.skip("cuda", "this PyTorch finds no CUDA device")
            if self.device.type == "cuda":
                sys.exit(0)
        self.other_data = torch.ones(max(LEAST_OTHER_DATA, 2 * cache_bytes(self.device)) // 4, device=self.device)

    def compete(
        self,
        contenders: Mapping[str, Contender],
        labels: Row,
        *,
        wrong: Callable[[str, Any], str | None] = lambda name, values: None,
    ) -> list[Row]:
        """Check the values of each contender, measure its memory, then time those with correct values in turns.

        Args:
            contenders: by name.
            labels: the setting; part of every row.
            wrong: takes a name and what its work returned; gives the reason why the values are wrong, or None.
        """
        peaks: dict[str, int | None] = {}
        for name, contender in contenders.items():
            try:
                reason = wrong(name, contender.ready()())
                if reason is None:
                    peaks[name] = self.peak_memory(contender) if contender.memory else None
                    continue
                self.wrong |= contender.ours
                self.skip(name, f"refused: {reason}", labels)
            except RuntimeError as error:
                if not (contender.may_fail or isinstance(error, torch.OutOfMemoryError)):
                    raise
                self.skip(name, f"failed: {str(error).strip().splitlines()[0]}", labels)
        seconds: dict[str, list[float]] = {name: [] for name in peaks}
        for _ in range(self.args.repeats):
            for name, times in seconds.items():
                if contenders[name].warm and (not times or times[-1] < QUICK):
                    contenders[name].ready()()
                times.append(self.time(contenders[name]))
        rows = [
            {**labels, "contender": name, **quartiles(times), "peak_bytes": peaks[name], "seconds": times}
            for name, times in seconds.items()
        ]
        self.rows += rows
        return rows

    def time(self, contender: Contender) -> float:
        """Seconds of one run, with flushed caches."""
        work = contender.ready()
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            self.other_data.zero_()
            start.record()
            kept = work()
            end.record()
            torch.cuda.synchronize()
            del kept
            return start.elapsed_time(end) / 1e3
        self.other_data.sum()  # read, not written: dirty lines would be written back during the run
        begun = time.perf_counter()
        kept = work()
        taken = time.perf_counter() - begun
        del kept  # after the clock has stopped: releasing memory is not part of the work
        return taken

    def peak_memory(self, contender: Contender) -> int | None:
        """Bytes that a run needs in addition to its inputs, results included; None if the system does not report it."""
        work = contender.ready()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            work()
            return torch.cuda.max_memory_allocated() - before
        hand_back_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current resident set
        except OSError:
            work()
            return None
        before = resident("VmRSS")
        work()
        return max(0, resident("VmHWM") - before)

    def fits(self, name: str, bytes_needed: float, labels: Row) -> bool:
        """Whether that much memory is free; lists the contender as skipped if not."""
        free = free_memory(self.device)
        if free is None or bytes_needed <= free:
            return True
        self.skip(name, f"needs about {bytes_needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free", labels)
        return False

    def skip(self, name: str, reason: str, labels: Row | None = None) -> None:
        """List a contender that is not timed, with the reason."""
        self.skipped.append({**(labels or {}), "contender": name, "reason": reason})
        print(f"skipped: {name}: {reason}", flush=True)

    def show(self, title: str, rows: Sequence[Row], extra: Mapping[str, Callable[[Row], str]] | None = None) -> None:
        """Print the table of a setting."""
        extra = extra or {}
        head = ("", "median ms", "quartiles", "peak MiB", *extra)
        lines = [
            (
                row["contender"],
                f"{1e3 * row['median']:.2f}",
                f"{1e3 * row['lower']:.2f} - {1e3 * row['upper']:.2f}",
                "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.1f}",
                *(column(row) for column in extra.values()),
            )
            for row in rows
        ]
        print(f"\n{title}\n{text_table(head, lines)}", flush=True)

    def write(self, **more: Any) -> None:
        """Write the result; exit with status 1 if values of the library were wrong."""
        out = self.args.out or HERE / "results" / f"{self.script.stem}_{self.device.type}.json"
        result = {
            "benchmark": self.script.stem,
            "command": command(self.script),
            "settings": {
                name: value.name if isinstance(value, Path) else value
                for name, value in vars(self.args).items()
                if name != "out"
            },
            **more,
            "rows": self.rows,
            "skipped": self.skipped,
            "hardware": hardware(self.device),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "commit": commit()},
            "date": time.strftime("%Y-%m-%d"),
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {out}")
        if self.wrong:
            sys.exit("Values of the library were wrong; see the lines with 'refused'.")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return int(text)


def quartiles(times: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    lower, median, upper = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else 3 * [*times]
    return {"median": median, "lower": lower, "upper": upper}


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference, divided by the norm of the expected tensor."""
    expected = expected.double()
    return ((got.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
