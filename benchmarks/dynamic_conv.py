"""Time the dynamic convolution: our backends, common implementations, and the lower bound of memory traffic.

    python benchmarks/dynamic_conv.py
    python benchmarks/dynamic_conv.py --device cuda --dtype bfloat16
    python benchmarks/dynamic_conv.py --batch 8 --sizes 60 --channels 256 --kernels dpcn    # one setting

The first of `--channels` and `--kernels` is crossed with every `--batch` and `--sizes`; the others are measured at the
first batch and the first size. Kernels: "dpcn" is DPCN's three at once (5x1, 5x5, 1x5), a number is one square.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from _harness import Bench, Contender, Row, positive, relative_error
from torch import Tensor

from dpcn_modules.functional import dynamic_conv2d_multi
from dpcn_modules.functional._backends import BACKENDS, choose

DPCN = [(5, 1), (5, 5), (1, 5)]
WORKS = ("forward", "forward+backward")
SAME = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest relative error, by precision."""
Run = Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]]


def loop_of_convs(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    """A depthwise convolution for each sample."""
    results = []
    for kernels in kernels_list:
        B, C, kh, kw = kernels.shape
        each = [F.conv2d(x[b : b + 1], kernels[b].unsqueeze(1), padding=(kh // 2, kw // 2), groups=C) for b in range(B)]
        results.append(torch.cat(each))
    return results


def one_grouped_conv(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    """One convolution, every sample and channel a group of its own."""
    B, C, H, W = x.shape
    results = []
    for kernels in kernels_list:
        kh, kw = kernels.shape[-2:]
        weight = kernels.reshape(B * C, 1, kh, kw)
        out = F.conv2d(x.reshape(1, B * C, H, W), weight, padding=(kh // 2, kw // 2), groups=B * C)
        results.append(out.reshape(B, C, H, W))
    return results


def unfold_and_einsum(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    """Every window as a column, times the kernel."""
    B, C, H, W = x.shape
    results = []
    for kernels in kernels_list:
        kh, kw = kernels.shape[-2:]
        columns = F.unfold(x, (kh, kw), padding=(kh // 2, kw // 2)).reshape(B, C, kh * kw, H * W)
        results.append(torch.einsum("bctp,bct->bcp", columns, kernels.flatten(2)).reshape(B, C, H, W))
    return results


class Work:
    """One setting: its tensors, contenders, expected values and memory traffic."""

    def __init__(self, bench: Bench, labels: Row) -> None:
        self.labels, self.bench = labels, bench
        B, C, size = labels["batch"], labels["channels"], labels["size"]
        sides = DPCN if labels["kernels"] == "dpcn" else [(int(labels["kernels"]),) * 2]
        generator = torch.Generator(bench.device).manual_seed(0)
        options = {"device": bench.device, "dtype": bench.dtype, "generator": generator}
        self.backward = labels["work"] == "forward+backward"
        self.x = torch.randn(B, C, size, size, **options).requires_grad_(self.backward)
        self.kernels = [torch.randn(B, C, kh, kw, **options).requires_grad_(self.backward) for kh, kw in sides]
        self.grads = [torch.randn(self.x.shape, **options) for _ in sides]

    def do(self, run: Run, x: Tensor, kernels: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
        """Return the results, or the gradients of x and of all kernels."""
        if not self.backward:
            with torch.no_grad():
                return list(run(x, kernels))
        return list(torch.autograd.grad(run(x, kernels), [x, *kernels], grads))

    def contenders(self) -> dict[str, Contender]:
        """All contenders that can run; the others are listed with a reason."""
        torch.compiler.reset()  # the compiler otherwise stops at its limit of recompilations
        runs: dict[str, Run] = {}
        for name, backend in BACKENDS.items():
            reason = backend.why_not(self.x, self.kernels)
            if name == "reference" and not self.bench.args.reference:
                reason = "the definition of correct values; --reference times it too"
            if reason is None:
                runs[f"backend {name}"] = lambda x, kernels, name=name: dynamic_conv2d_multi(x, kernels, backend=name)
            else:
                self.bench.skip(f"backend {name}", reason, self.labels)
        runs |= {"loop of conv2d": loop_of_convs, "grouped conv2d": one_grouped_conv}
        taps = [kernels.shape[-2] * kernels.shape[-1] for kernels in self.kernels]
        columns = (2 * max(taps) + sum(taps) * self.backward) * self.x.nbytes
        if self.bench.fits("unfold + einsum", columns, self.labels):
            runs["unfold + einsum"] = unfold_and_einsum
        if self.bench.args.compile:
            runs["compiled grouped"] = torch.compile(one_grouped_conv, fullgraph=True, dynamic=False)
        else:
            self.bench.skip("compiled grouped", "--no-compile", self.labels)
        return {
            name: Contender(
                lambda run=run: self.do(run, self.x, self.kernels, self.grads),
                may_fail=name == "compiled grouped",
                warm=True,
                ours=name.startswith("backend"),
            )
            for name, run in runs.items()
        }

    def expected(self, sample: slice) -> list[Tensor]:
        """The expected values of one sample: the loops of the reference, in double precision."""
        double = [
            [tensor[sample].detach().double().requires_grad_(self.backward) for tensor in tensors]
            for tensors in ([self.x], self.kernels, self.grads)
        ]
        return self.do(BACKENDS["reference"].run, double[0][0], double[1], double[2])

    def bytes_to_move(self) -> int:
        """The lower bound: every input is read once and every result written once; backward likewise."""
        kernels = sum(each.nbytes for each in self.kernels)
        forward = self.x.nbytes * (1 + len(self.kernels)) + kernels
        # Each result's gradient and x are read, that of x is written; kernels are read, their gradients written.
        backward = self.x.nbytes * (len(self.kernels) + 2) + 2 * kernels
        return forward + backward * self.backward


def settings(args: argparse.Namespace) -> Iterator[Row]:
    """The first channels and kernels with every batch and size, then the others at the first batch and size."""
    kernels, channels = args.kernels[0], args.channels[0]
    chosen = [(batch, channels, size, kernels) for batch in args.batch for size in args.sizes]
    chosen += [(args.batch[0], each, args.sizes[0], kernels) for each in args.channels[1:]]
    chosen += [(args.batch[0], channels, args.sizes[0], each) for each in args.kernels[1:]]
    for batch, channel, size, kernel in chosen:
        for work in WORKS:
            yield {"work": work, "kernels": kernel, "batch": batch, "channels": channel, "size": size}


def measure(bench: Bench, labels: Row) -> None:
    """Compare, time and print one setting."""
    work = Work(bench, labels)
    samples = [slice(0, 1), slice(labels["batch"] - 1, labels["batch"])]
    expected = [work.expected(sample) for sample in samples]

    def wrong(name: str, values: list[Tensor]) -> str | None:
        if name == "copy":
            return None
        errors = [
            relative_error(got[sample], each)
            for sample, every in zip(samples, expected, strict=True)
            for got, each in zip(values, every, strict=True)
        ]
        right = all(error <= SAME[bench.dtype] for error in errors)  # False if one is NaN
        return None if right else f"relative errors up to {max(errors):.1e}"

    source = bench.other_data.repeat(2)
    target = torch.empty_like(source)
    contenders = {"copy": Contender(lambda: target.copy_(source)), **work.contenders()}
    rows = bench.compete(contenders, labels, wrong=wrong)
    bandwidth = 2 * source.nbytes / rows[0]["median"]
    floor = work.bytes_to_move() / bandwidth
    auto = choose("auto", work.x, work.kernels).__name__.rpartition(".")[2]
    for row in rows:
        row |= {"bytes_to_move": work.bytes_to_move(), "bandwidth": bandwidth, "auto": auto}
        row["times_floor"] = row["median"] / floor
    title = labels["work"] + "".join(f", {name} {value}" for name, value in labels.items() if name != "work")
    title += f"; auto is {auto}; floor {1e3 * floor:.2f} ms: {work.bytes_to_move() / 1e6:.1f} MB at "
    bench.show(f"{title}{bandwidth / 1e9:.1f} GB/s", rows[1:], {"x floor": lambda row: f"{row['times_floor']:.1f}"})


def kernel(text: str) -> str:
    """Kernels by name, for argparse."""
    if text != "dpcn" and not (text.isdecimal() and int(text) % 2):
        raise argparse.ArgumentTypeError(f"expected dpcn or an odd number, got {text}")
    return text


def main() -> None:
    """Measure every setting, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=positive, nargs="+", default=[8, 1, 32])
    parser.add_argument("--channels", type=positive, nargs="+", default=[256, 64, 128, 512])
    parser.add_argument("--sizes", type=positive, nargs="+", default=[60, 30, 81], help="side of the feature")
    parser.add_argument("--kernels", type=kernel, nargs="+", default=["dpcn", "3", "5", "7", "9"])
    parser.add_argument("--reference", action="store_true", help="also time the loops that define correct values")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    bench = Bench(__file__, parser)
    for labels in settings(bench.args):
        measure(bench, labels)
    bench.write()


if __name__ == "__main__":
    main()
