"""Times SAM's region matching against Eq. 1 as written, on the CPU. benchmarks/README.md says what is timed and how."""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules.functional import region_activation

HERE = Path(__file__).resolve().parent
WINDOWS = ((5, 1), (3, 3), (1, 5))
EPS = 1e-7
SAME = 1e-4
"""Both forms are single precision, and the min-max normalisation divides by the small range of the cosines."""


def literal_activation(query_feat: Tensor, support_feat: Tensor, mask: Tensor) -> Tensor:
    """Eq. 1 as written: unfold both features, one cosine matrix for every window offset, mean, max, min-max.

    ``(B, C, H, W)``, the same, and a mask at their size ``(B, H, W)``, to ``(B, A, H, W)``.
    """
    maps = []
    for window in WINDOWS:
        R_s = _unit_regions(support_feat * mask.unsqueeze(1), window)  # B d C HW
        R_q = _unit_regions(query_feat, window)  # B d C HW
        corr = R_s.transpose(-2, -1) @ R_q  # B d HW HW
        match = corr.mean(1).max(1).values  # B HW
        low, high = match.amin(-1, keepdim=True), match.amax(-1, keepdim=True)
        maps.append(((match - low) / (high - low + EPS)).reshape(mask.shape))
    return torch.stack(maps, dim=1)


def our_activation(query_feat: Tensor, support_feat: Tensor, mask: Tensor) -> Tensor:
    """The library's form: one cosine matrix for all windows and offsets."""
    return region_activation(query_feat, support_feat, mask, WINDOWS, eps=EPS)


def _unit_regions(feat: Tensor, window: tuple[int, int]) -> Tensor:
    B, C, H, W = feat.shape
    d_h, d_w = window
    regions = F.unfold(feat, window, padding=(d_h // 2, d_w // 2)).reshape(B, C, d_h * d_w, H * W)
    return F.normalize(regions.transpose(1, 2), dim=2)


def make_inputs(channels: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features as after a ReLU, and an object of a quarter of the picture."""
    generator = torch.Generator().manual_seed(0)
    query, support = torch.randn(2, 1, channels, height, width, generator=generator).relu()
    mask = torch.zeros(1, height, width)
    mask[:, height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None] = 1
    return query, support, mask


def time_forward(activation: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Seconds of one forward without a graph."""
    with torch.no_grad():
        start = time.perf_counter()
        activation(*inputs)
        return time.perf_counter() - start


def time_training(activation: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> float:
    """Seconds of one forward and the backward to both features."""
    query, support, mask = inputs
    query, support = query.clone().requires_grad_(), support.clone().requires_grad_()
    start = time.perf_counter()
    activation(query, support, mask).sum().backward()
    return time.perf_counter() - start


def measure(inputs: tuple[Tensor, ...], repeats: int) -> dict[str, list[float]]:
    """Every contender once per repeat, in turn, after one run of each that is not counted."""
    contenders: dict[str, Callable[[], float]] = {
        "literal forward": lambda: time_forward(literal_activation, inputs),
        "ours forward": lambda: time_forward(our_activation, inputs),
        "literal forward+backward": lambda: time_training(literal_activation, inputs),
        "ours forward+backward": lambda: time_training(our_activation, inputs),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, contender in contenders.items():
            taken = contender()
            if repeat:
                seconds[name].append(taken)
                print(f"repeat {repeat}/{repeats}  {name:<26}{taken:8.3f} s", flush=True)
    return seconds


def cpu_name() -> str:
    """The model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the code, with a plus where the files differ from it; None outside a repository."""
    describe = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    done = subprocess.run(describe, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--height", type=int, default=60, help="feature height (default: %(default)s)")
    parser.add_argument("--width", type=int, default=60, help="feature width (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=2048, help="feature channels (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="counted runs of each contender (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of PyTorch (default: PyTorch's own choice)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "region_matching_cpu.json", help="result file")
    arguments = parser.parse_args()
    for name in ("height", "width", "channels", "repeats"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: expected at least 1, got {getattr(arguments, name)}")
    return arguments


def main() -> None:
    """Compare the values, then the times; print both and write them."""
    arguments = parse_arguments()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    inputs = make_inputs(arguments.channels, arguments.height, arguments.width)
    with torch.no_grad():
        difference = (our_activation(*inputs) - literal_activation(*inputs)).abs().max().item()
    print(f"largest difference of the two forms' maps: {difference:.2e}")
    if difference > SAME:
        sys.exit(f"The two forms differ by {difference:.2e}, more than {SAME:.0e}: there is nothing to time.")

    seconds = measure(inputs, arguments.repeats)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = {work: median[f"literal {work}"] / median[f"ours {work}"] for work in ("forward", "forward+backward")}
    for work, times in ratio.items():
        literal, ours = median[f"literal {work}"], median[f"ours {work}"]
        print(f"{work}: literal {literal:.3f} s, ours {ours:.3f} s, {times:.1f} times faster")

    result = {
        "command": shlex.join(["python", "benchmarks/region_matching.py", *sys.argv[1:]]),
        "query_feat": list(inputs[0].shape),
        "windows": WINDOWS,
        "dtype": "float32",
        "largest_difference": difference,
        "ratio_of_medians": ratio,
        "median_seconds": median,
        "seconds": seconds,
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "commit": commit()},
        "date": time.strftime("%Y-%m-%d"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
