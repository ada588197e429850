"""Time SAM's region matching against three implementations of Eq. 1. README.md describes the method.

python benchmarks/region_matching.py --repeats 7        # one query and support of 2048 x 60 x 60
python benchmarks/region_matching.py --sweep            # from 30 x 30 to 81 x 81, 1 shot and 5
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from _harness import HERE, Bench, Contender, Row, positive, relative_error
from torch import Tensor

from dpcn_modules.functional import region_activation

WINDOWS = ((5, 1), (3, 3), (1, 5))
WORKS = ("forward", "forward+backward")
EPS = 1e-7
SAME = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of the maps, whose min-max normalisation divides by the small range of the cosines."""
SAME_GRADIENT = 2e-2
"""Relative error in single precision. If two positions match equally well up to rounding, either may be the maximum."""
Match = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


def literal(query_feat: Tensor, support_feat: Tensor, window: tuple[int, int]) -> Tensor:
    """Eq. 1 as written: unfold both, a cosine matrix for every offset, their mean, the maximum."""
    R_s, R_q = _unit_regions(support_feat, window), _unit_regions(query_feat, window)  # B d C HW
    corr = R_s.transpose(-2, -1) @ R_q  # B d HW HW
    return corr.mean(1).max(1).values


def loop(query_feat: Tensor, support_feat: Tensor, window: tuple[int, int]) -> Tensor:
    """The same with one cosine matrix at a time, added up over the offsets."""
    d_h, d_w = window
    H, W = query_feat.shape[-2:]
    padding = (d_w // 2, d_w // 2, d_h // 2, d_h // 2)
    s, q = (F.pad(F.normalize(feat, dim=1), padding) for feat in (support_feat, query_feat))
    total = torch.zeros((), dtype=s.dtype, device=s.device)
    for y in range(d_h):
        for x in range(d_w):
            here = (..., slice(y, y + H), slice(x, x + W))
            total = total + s[here].flatten(2).transpose(1, 2) @ q[here].flatten(2)  # B HW HW
    return (total / (d_h * d_w)).max(1).values


def unfolded(query_feat: Tensor, support_feat: Tensor, window: tuple[int, int]) -> Tensor:
    """Unit vectors of a window one under the other: the mean over offsets is one product for the window."""
    R_s, R_q = (_unit_regions(feat, window).flatten(1, 2) for feat in (support_feat, query_feat))  # B dC HW
    return (R_s.transpose(1, 2) @ R_q).max(1).values / (window[0] * window[1])


def activation(match: Match, query_feat: Tensor, support_feat: Tensor, mask: Tensor) -> Tensor:
    """Maps of all windows: every shot's normalised ones, and their mean. ``(B, K, C, H, W)`` to ``(B, A, H, W)``."""
    shots = []
    for k in range(support_feat.shape[1]):
        masked = support_feat[:, k] * mask[:, k].unsqueeze(1).to(support_feat.dtype)
        best = torch.stack([match(query_feat, masked, window) for window in WINDOWS], dim=1)  # B A HW
        low, high = best.amin(-1, keepdim=True), best.amax(-1, keepdim=True)
        shots.append((best - low) / (high - low + EPS))
    return torch.stack(shots).mean(0).reshape(*shots[0].shape[:2], *query_feat.shape[-2:])


def _unit_regions(feat: Tensor, window: tuple[int, int]) -> Tensor:
    B, C, H, W = feat.shape
    d_h, d_w = window
    regions = F.unfold(feat, window, padding=(d_h // 2, d_w // 2)).reshape(B, C, d_h * d_w, H * W)
    return F.normalize(regions.transpose(1, 2), dim=2)


def make_inputs(bench: Bench, size: int, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features as after a ReLU, and an object of a quarter of the image."""
    generator = torch.Generator(bench.device).manual_seed(0)
    options = {"generator": generator, "device": bench.device, "dtype": bench.dtype}
    query = torch.randn(1, bench.args.channels, size, size, **options).relu()
    support = torch.randn(1, shots, bench.args.channels, size, size, **options).relu()
    mask = torch.zeros(1, shots, size, size, device=bench.device)
    mask[..., size // 4 : -(size // 4) or None, size // 4 : -(size // 4) or None] = 1
    return query, support, mask


def contenders(bench: Bench, labels: Row) -> dict[str, Callable[..., Tensor]]:
    """By name; those that need more memory than is free are listed as skipped."""
    P, C, K = labels["size"] ** 2, bench.args.channels, labels["shots"]
    forward = labels["work"] == "forward"
    most, all_of = max(h * w for h, w in WINDOWS), sum(h * w for h, w in WINDOWS)
    # Unfolded features (C P) and matrices (P P) that exist at the same time; a graph keeps the features of all.
    features = 4 * most if forward else 4 * all_of * K
    numbers = {
        "literal": features * C * P + (most if forward else most + 4) * P * P,
        "loop": (6 if forward else 2 * all_of * K) * C * P + (3 if forward else 7) * P * P,
        "unfolded": features * C * P + (2 if forward else 7) * P * P,
    }
    matches = {"literal": literal, "loop": loop, "unfolded": unfolded}
    limit = bench.args.plain_up_to
    if limit is not None and labels["shots"] * labels["size"] ** 2 > limit**2:
        for name in matches:
            bench.skip(name, f"--plain-up-to {limit}", labels)
        matches = {}
    chosen: dict[str, Callable[..., Tensor]] = {
        name: lambda q, s, m, match=match: activation(match, q, s, m)
        for name, match in matches.items()
        if bench.fits(name, numbers[name] * bench.dtype.itemsize, labels)
    }
    if bench.fits("ours", 4 * K * (3 * P * P + (6 if forward else 30) * C * P), labels):
        chosen["ours"] = lambda q, s, m: region_activation(q, s, m, WINDOWS, eps=EPS)
    for chunk in bench.args.chunks:
        chosen[f"ours, chunk {chunk}"] = lambda q, s, m, chunk=chunk: region_activation(
            q, s, m, WINDOWS, chunk_size=chunk, eps=EPS
        )
    return chosen


def measure(bench: Bench, labels: Row) -> None:
    """Compare, time and print one setting."""
    query, support, mask = make_inputs(bench, labels["size"], labels["shots"])
    forward = labels["work"] == "forward"
    if not forward:
        query, support = query.requires_grad_(), support.requires_grad_()

    def work(run: Callable[..., Tensor]) -> list[Tensor]:
        """The maps; and the gradients of both features."""
        if forward:
            with torch.no_grad():
                return [run(query, support, mask)]
        maps = run(query, support, mask)
        return [maps.detach(), *torch.autograd.grad(maps.sum(), [query, support])]

    # Reference values: in half precision the loop in single precision, otherwise the first contender (literal).
    reference: list[Tensor] = []
    if bench.dtype != torch.float32:
        with torch.no_grad():
            reference = [activation(loop, query.float(), support.float(), mask)]
    differences: dict[str, float] = {}

    def wrong(name: str, values: Sequence[Tensor]) -> str | None:
        if not reference:
            reference.extend(values)
        differences[name] = (values[0].double() - reference[0].double()).abs().max().item()
        if not differences[name] <= SAME[bench.dtype]:
            return f"its maps differ by {differences[name]:.1e}"
        errors = [relative_error(got, right) for got, right in zip(values[1:], reference[1:], strict=False)]
        same = all(error <= SAME_GRADIENT for error in errors)
        return None if same else f"its gradients differ by up to {max(errors):.1e}"

    chosen = {
        name: Contender(lambda run=run: work(run), ours=name.startswith("ours"))
        for name, run in contenders(bench, labels).items()
    }
    rows = bench.compete(chosen, labels, wrong=wrong)
    ours = next((row["median"] for row in rows if row["contender"] == "ours"), None)
    for row in rows:
        row["largest_difference"] = differences[row["contender"]]
        row["times_ours"] = ours and row["median"] / ours
    title = f"{labels['work']}, {bench.args.channels} x {labels['size']} x {labels['size']}, {labels['shots']} shot"
    columns = {
        "x ours": lambda row: f"{row['times_ours']:.2f}" if ours else "-",
        "difference": lambda row: f"{row['largest_difference']:.1e}",
    }
    bench.show(title, rows, columns)
    for row in rows:
        if row["contender"] == "literal" and ours:
            faster = f"{row['times_ours']:.1f} times faster"
            print(f"{labels['work']}: literal {row['median']:.3f} s, ours {ours:.3f} s, {faster}")


def main() -> None:
    """Measure every setting, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=positive, nargs="+", default=[60], help="feature height and width")
    parser.add_argument("--shots", type=positive, nargs="+", default=[1], help="K")
    parser.add_argument("--channels", type=positive, default=2048, help="default: %(default)s")
    parser.add_argument("--chunks", type=positive, nargs="*", default=[240, 960], help="chunk sizes of ours")
    plain = "skip the plain forms for more than SIDE x SIDE support positions"
    parser.add_argument("--plain-up-to", type=positive, metavar="SIDE", help=plain)
    parser.add_argument("--sweep", action="store_true", help="--sizes 30 40 50 60 70 81 --shots 1 5, a file of its own")
    bench = Bench(__file__, parser)
    args = bench.args
    if args.sweep:
        args.sizes, args.shots = [30, 40, 50, 60, 70, 81], [1, 5]
        args.out = args.out or Path(HERE, "results", f"region_matching_sweep_{args.device}.json")
    for shots in args.shots:
        for size in args.sizes:
            for work in WORKS:
                measure(bench, {"work": work, "size": size, "shots": shots})
    bench.write(windows=WINDOWS)


if __name__ == "__main__":
    main()
