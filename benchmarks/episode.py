"""Time whole networks on episodes: by stage, with the support encoded each time or once, eager, compiled, in bfloat16.

    python benchmarks/episode.py
    python benchmarks/episode.py --device cuda --batches 1 8 --compile off on --bf16 off on
    python benchmarks/episode.py --models dpcn_small --size 97

The weights are random, since they do not affect the time. A stage that a network does not have is "-"; in a host
network, DCM is its adapter. "rest" is everything that is not in a stage (reductions, comparisons, heads, resizing).
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any, Self

import torch
from _harness import Bench, Contender, Row, positive, relative_error
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dpcn_modules.models import MODELS, FewShotNetwork, build_model

DEFAULT = "dpcn_resnet50 baseline_resnet50 pfenet_resnet50 pfenet_resnet50_dcm canet_resnet50 canet_resnet50_dcm"
STAGES = {
    "backbone": [("backbone", "forward"), ("backbone", "last")],
    "SAM": [("support_activation", "forward")],
    "FFM": [("feature_filtering", "forward")],
    "DCM": [
        ("dynamic_convolution.generator", "forward"),
        ("dynamic_convolution.application", "forward"),
        ("interaction.generator", "forward"),
        ("interaction", "interact"),
    ],
    "decoder": [("decoder", "forward")],
}
SAME = 1e-3
"""Relative error of the logits in single precision; in bfloat16 the difference is only reported."""
AIM = 0.2


class Stopwatch:
    """Measures the stages of a network while it is entered.

    Attributes:
        runs: for each time it was entered, the times of the stages and the number of images in the backbone.
    """

    def __init__(self, model: FewShotNetwork, device: torch.device) -> None:
        self.model, self.device = model, device
        self.runs: list[dict[str, list[Any]]] = []
        self.inside = False

    def __enter__(self) -> Self:
        self.runs.append({stage: [] for stage in (*STAGES, "images")})
        for stage, part, method in self._parts():
            setattr(part, method, functools.partial(self._timed, stage, getattr(part, method)))
        return self

    def __exit__(self, *error: object) -> None:
        for _, part, method in self._parts():
            delattr(part, method)  # restores the method of the class

    def seconds(self, last: int) -> Row:
        """Median seconds of each stage over the last runs; None for a stage that the network does not have."""
        return {
            stage: statistics.median(sum(map(self._elapsed, run[stage])) for run in self.runs[-last:])
            if self.runs[-1][stage]
            else None
            for stage in STAGES
        }

    def _parts(self) -> list[tuple[str, Any, str]]:
        parts = dict(self.model.named_modules())
        found = [(stage, parts.get(name), method) for stage in STAGES for name, method in STAGES[stage]]
        return [(stage, part, method) for stage, part, method in found if part is not None]

    def _timed(self, stage: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.inside:  # the backbone's forward calls its last stage
            return method(*args, **options)
        if method.__name__ == "forward" and stage == "backbone":
            self.runs[-1]["images"].append(args[0].shape[0])
        self.inside, begun = True, self._now()
        result = method(*args, **options)
        self.runs[-1][stage].append((begun, self._now()))
        self.inside = False
        return result

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _elapsed(self, span: tuple[Any, Any]) -> float:
        begun, ended = span
        return begun.elapsed_time(ended) / 1e3 if self.device.type == "cuda" else ended - begun


class Subject:
    """A network with its episodes: what is timed, and the expected logits."""

    def __init__(self, name: str, model: FewShotNetwork, episodes: tuple[Tensor, ...], bench: Bench) -> None:
        self.name, self.model, self.episodes, self.device = name, model, episodes, bench.device
        query, supports, masks = episodes
        size = (query.shape[-2], query.shape[-1])
        support = model.encode_support(model.encode_image(supports, high=model.reads_support_high), masks)
        self.whole = {
            "": lambda: model(*episodes).logits,
            ", support kept": lambda: model.decode(model.encode_image(query), support, size).logits,
        }
        self.flops, self.logits = {}, torch.empty(0)
        for kind, run in self.whole.items():
            with FlopCounterMode(display=False) as counter:
                logits = run()
            self.flops[kind] = counter.get_total_flops() / query.shape[0]
            self.logits = logits if kind == "" else self.logits
        self.watches: dict[str, Stopwatch] = {}
        self.kinds: dict[str, str] = {}

    def contenders(self, args: argparse.Namespace) -> dict[str, Contender]:
        """By name: the support encoded each time and kept, each with the options of the command line."""
        found = {}
        for kind, run in self.whole.items():
            for compiled in args.compile:
                for bf16 in args.bf16:
                    name = f"{self.name}{kind}" + ", compiled" * (compiled == "on") + ", bf16" * (bf16 == "on")
                    self.kinds[name] = kind
                    if compiled == "on":
                        fast = torch.compile(run, fullgraph=True, dynamic=False)
                        call = functools.partial(self._run, fast, None, bf16 == "on")
                    else:
                        self.watches[name] = Stopwatch(self.model, self.device)
                        call = functools.partial(self._run, run, self.watches[name], bf16 == "on")
                    found[name] = Contender(call, may_fail=compiled == "on", ours=True)
        return found

    def _run(self, run: Callable[[], Tensor], watch: Stopwatch | None, bf16: bool) -> Tensor:
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            if watch is None:
                return run()
            with watch:
                return run()

    def describe(self, row: Row, repeats: int) -> None:
        """Add the network's size, FLOP and stages to a row."""
        name, batch = row["contender"], row["batch"]
        row["seconds_per_episode"] = row["median"] / batch
        row["parameters"] = sum(parameter.numel() for parameter in self.model.parameters())
        row["flops_per_episode"] = self.flops[self.kinds[name]]
        if name not in self.watches:  # a compiled network has no stages
            return
        watch = self.watches[name]
        row["images_per_episode"] = sum(watch.runs[-1]["images"]) / batch
        row["stages"] = watch.seconds(repeats)
        row["stages"]["rest"] = row["median"] - sum(filter(None, row["stages"].values()))


def make_episodes(bench: Bench, batch: int, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random images, and an object of a quarter of each."""
    size = bench.args.size
    generator = torch.Generator(bench.device).manual_seed(0)
    images = torch.randn(batch, 1 + shots, 3, size, size, generator=generator, device=bench.device)
    masks = torch.zeros(batch, shots, size, size, dtype=torch.long, device=bench.device)
    masks[..., size // 4 : -(size // 4), size // 4 : -(size // 4)] = 1
    return images[:, 0], images[:, 1:], masks


@torch.no_grad()
def measure(bench: Bench, models: dict[str, FewShotNetwork], labels: Row) -> None:
    """Compare, time and print all networks on the same episodes."""
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 1000  # all networks share one forward, which counts as one function
    episodes = make_episodes(bench, labels["batch"], labels["shots"])
    subjects = {name: Subject(name, model, episodes, bench) for name, model in models.items()}
    contenders, of = {}, {}
    for subject in subjects.values():
        for name, contender in subject.contenders(bench.args).items():
            contenders[name], of[name] = contender, subject
    errors: dict[str, float] = {}

    def wrong(name: str, logits: Tensor) -> str | None:
        errors[name] = relative_error(logits, of[name].logits)
        allowed = float("inf") if "bf16" in name else SAME
        return None if errors[name] <= allowed else f"its logits differ by {errors[name]:.1e}"

    rows = bench.compete(contenders, labels, wrong=wrong)
    for row in rows:
        row["relative_error"] = errors[row["contender"]]
        of[row["contender"]].describe(row, bench.args.repeats)
    columns: dict[str, Callable[[Row], str]] = {
        "s/episode": lambda row: f"{row['seconds_per_episode']:.3f}",
        "GFLOP/episode": lambda row: f"{row['flops_per_episode'] / 1e9:.1f}",
        "M parameters": lambda row: f"{row['parameters'] / 1e6:.1f}",
        "images": lambda row: f"{row['images_per_episode']:g}" if "stages" in row else "-",
    }
    columns |= {f"{stage} ms": functools.partial(stage_cell, stage) for stage in (*STAGES, "rest")}
    title = f"episodes of {bench.args.size} x {bench.args.size}, {labels['shots']} shot, batch {labels['batch']}"
    bench.show(title, rows, columns)
    for row in rows:
        if row["contender"].startswith("dpcn") and row["shots"] == 1 and row.get("images_per_episode") == 2:
            row["head_over_backbone"] = row["median"] / row["stages"]["backbone"] - 1
            share = f"{row['head_over_backbone']:.0%} (aim on the CPU: at most {AIM:.0%})"
            print(f"{row['contender']}: head / backbone of one pair of images: {share}")


def stage_cell(stage: str, row: Row) -> str:
    """Milliseconds of a stage."""
    seconds = row.get("stages", {}).get(stage)
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"


def main() -> None:
    """Measure every setting, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=[*DEFAULT.split(), "panet_vgg16"], metavar="NAME"
    )
    parser.add_argument("--size", type=positive, default=473, help="side of the images (default: %(default)s)")
    parser.add_argument("--shots", type=positive, nargs="+", default=[1, 5])
    parser.add_argument("--batches", type=positive, nargs="+", help="episodes at a time (default: 1; on CUDA 1 and 8)")
    parser.add_argument("--compile", choices=["off", "on"], nargs="+", default=["off"])
    parser.add_argument("--bf16", choices=["off", "on"], nargs="+", default=["off"], help="autocast")
    bench = Bench(__file__, parser, repeats=5, dtypes=False)
    bench.args.batches = bench.args.batches or ([1, 8] if bench.device.type == "cuda" else [1])
    torch.manual_seed(0)
    models = {name: build_model(name).eval().to(bench.device) for name in bench.args.models}
    for batch in bench.args.batches:
        for shots in bench.args.shots:
            measure(bench, models, {"batch": batch, "shots": shots})
    bench.write()


if __name__ == "__main__":
    main()
