"""Probe trained host networks with DCM: test them with their adapter, without it, and with kernels of another class.

    python benchmarks/accuracy.py hosts && python benchmarks/adapter_probe.py

For every run of `accuracy.py` with an adapter: mIoU as trained, with the adapter removed, with kernels made from a
support of another class, and with the mean kernels of many supports. If kernels of another class score like the model's
own, the kernels carry no information about the class. The norm of what the adapter adds is reported relative to that of
the query feature.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dpcn_modules import load_model, remove_dcm
from dpcn_modules.data import EpisodeDataset, Shapes, TestTransform, collate_episodes
from dpcn_modules.evaluation import EpisodeIoU, predicted_mask
from dpcn_modules.evaluation.results import text_table
from dpcn_modules.models import HostNetwork

HERE = Path(__file__).resolve().parent
SIZE, BATCH = 64, 20
Kernels = tuple[Tensor, ...]


def main() -> None:
    """Probe every run, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--fold", type=int, default=0, choices=range(4))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "adapter_probe.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = EpisodeDataset(
        Shapes(args.fold).split("test"),
        shot=1,
        episodes=args.episodes,
        seed=0,
        transform=TestTransform(SIZE),
        original_query_mask=True,
    )
    batches = [
        collate_episodes([dataset[index] for index in range(first, min(first + BATCH, args.episodes))])
        for first in range(0, args.episodes, BATCH)
    ]
    probes = []
    for path in sorted(args.runs.glob("*/score.json")):
        run = json.loads(path.read_text())
        asked = {"data": "shapes", "fold": args.fold, "size": SIZE}
        adapted = run["row"]["network"].endswith("_dcm") and run["row"]["adapter_after"] is None
        if not adapted or any(run[name] != value for name, value in asked.items()):
            continue
        checkpoint = next(path.parent.glob("checkpoints/*.ckpt"))
        probes.append({"label": run["label"], "seed": run["seed"], **probe(load_model(checkpoint), batches)})
        print(probes[-1], flush=True)
    report(args, probes)


@torch.no_grad()
def probe(host: HostNetwork, batches: list) -> dict[str, float]:
    """Score a host network with its own kernels, those of another class, mean kernels, and without the adapter."""
    mean = mean_kernels(host, batches)
    choices: dict[str, Callable[[Kernels, Tensor], Kernels]] = {
        "own": lambda kernels, class_ids: kernels,
        "foreign": lambda kernels, class_ids: tuple(kernel[other_class(class_ids)] for kernel in kernels),
        "mean": lambda kernels, class_ids: tuple(m.expand_as(k) for m, k in zip(mean, kernels, strict=True)),
    }
    result = {"added": relative_size(host, batches)}
    for name, choose in choices.items():
        result[name] = score(host, batches, choose)
    remove_dcm(host)
    result["without"] = score(host, batches, choices["own"])
    return result


def score(host: HostNetwork, batches: list, choose: Callable[[Kernels, Tensor], Kernels]) -> float:
    """MIoU with the kernels that ``choose`` gives in place of those of each support."""
    metric = EpisodeIoU()
    for batch in batches:
        support = host.encode_support(host.encode_image(batch.support_images), batch.support_masks)
        support = support._replace(kernels=choose(support.kernels, batch.class_id))
        logits = host.decode(host.encode_image(batch.query_image), support, (SIZE, SIZE)).logits
        metric.update(predicted_mask(logits), batch.query_mask, batch.class_id)
    return metric.compute().miou.item()


def other_class(class_ids: Tensor) -> Tensor:
    """For every episode of a batch, the index of the next one with another class."""
    count = len(class_ids)
    return torch.tensor(
        [next(j % count for j in range(i + 1, i + count) if class_ids[j % count] != class_ids[i]) for i in range(count)]
    )


def mean_kernels(host: HostNetwork, batches: list) -> Kernels:
    """The kernels, averaged over all supports."""
    made = [host.encode_support(host.encode_image(b.support_images), b.support_masks).kernels for b in batches]
    return tuple(torch.cat(branch).mean(0, keepdim=True) for branch in zip(*made, strict=True))


def relative_size(host: HostNetwork, batches: list) -> float:
    """Norm of what the adapter adds to the query feature, divided by the norm of the query feature."""
    sizes = []
    hook = host.interaction.merge.register_forward_hook(lambda part, inputs, added: sizes.append(added.norm().item()))
    application = host.interaction.application
    before = application.register_forward_pre_hook(lambda part, inputs: sizes.append(inputs[0].norm().item()))
    score(host, batches[:5], lambda kernels, class_ids: kernels)
    hook.remove()
    before.remove()
    return statistics.mean(added / feat for feat, added in zip(sizes[::2], sizes[1::2], strict=True))


def report(args: argparse.Namespace, probes: list[dict]) -> None:
    """Print one line per run, and write all of them."""
    names = ("own", "foreign", "mean", "without")
    rows = [
        (
            f"{each['label']}, seed {each['seed']}",
            *(f"{100 * each[name]:.1f}" for name in names),
            f"{each['added']:.2f}",
        )
        for each in sorted(probes, key=lambda each: (each["label"], each["seed"]))
    ]
    print(
        "\n" + text_table(("mIoU %, kernels", "own", "of another class", "mean", "no adapter", "added / feature"), rows)
    )
    result = {"episodes": args.episodes, "fold": args.fold, "torch": torch.__version__, "probes": probes}
    args.out.write_text(json.dumps(result, indent=1))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
