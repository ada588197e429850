"""Time the training batches of the loader and the training steps of a network: which one limits the training?

    python benchmarks/loader.py --voc VOC2012 --model dpcn_resnet50 --size 473 --batch 8
    python benchmarks/loader.py --model dpcn_small --size 64 --batch 16              # generated shapes

On the CPU loader and step share the cores, so the workers' time adds to the step's.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from _harness import Bench, Contender, positive

from dpcn_modules import build_model
from dpcn_modules.data import Episode, Pascal5i, Shapes
from dpcn_modules.functional import episode_loss
from dpcn_modules.models import MODELS, FewShotNetwork
from dpcn_modules.training import EpisodeDataModule

STEPS = {"all of it": {}, "layer4 and the head": {"trainable": "layer4", "frozen_norm": True}}


def flowing(data: EpisodeDataModule, workers: int) -> Iterator[Episode]:
    """A loader whose workers have started and whose prefetched batches are consumed, so that every batch is timed."""
    data.workers = workers
    batches = iter(data.train_dataloader())
    for _ in range(1 + 2 * workers):
        next(batches)
    return batches


def take(batches: Iterator[Episode], count: int) -> None:
    """Some batches, one after the other."""
    for _ in range(count):
        next(batches)


def training_step(model: FewShotNetwork, optimizer: torch.optim.Optimizer, batch: Episode) -> None:
    """Forward, backward and the optimiser's step."""
    prediction = model(batch.query_image, batch.support_images, batch.support_masks)
    loss = episode_loss(prediction, batch.query_mask, batch.support_masks)["loss"]
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def make_steps(args: argparse.Namespace, batch: Episode, device: torch.device) -> dict[str, Contender]:
    """A step of the whole network, and of one whose backbone is frozen but for layer4; in either memory layout."""
    steps = {}
    for what, overrides in STEPS.items():
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            model = build_model(args.model, **overrides).to(device, memory_format=layout).train()
            optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1e-4)
            name = f"step of {args.model}, {what}" + ", channels_last" * (layout is torch.channels_last)
            steps[name] = Contender(lambda model=model, optimizer=optimizer: training_step(model, optimizer, batch))
    return steps


def on_device(batch: Episode, device: torch.device) -> Episode:
    """The tensors that a step reads."""
    names = ("query_image", "query_mask", "support_images", "support_masks")
    return batch._replace(**{name: getattr(batch, name).to(device) for name in names})


def main() -> None:
    """Time loaders and step, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, help="also real images: a folder in VOC's layout")
    parser.add_argument("--classes", nargs="+", help="only these of the VOC folder, for a part of it")
    parser.add_argument("--train-list", default="trainaug", help="of the VOC folder (default: %(default)s)")
    parser.add_argument("--model", choices=MODELS, default="dpcn_resnet50", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--fold", type=int, choices=range(4), default=0)
    parser.add_argument("--shot", type=positive, default=1)
    parser.add_argument("--size", type=positive, default=473, help="side of the images (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=8, help="episodes of a step (default: %(default)s)")
    parser.add_argument("--workers", type=int, choices=range(65), nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--count", type=positive, default=4, help="batches of a run (default: %(default)s)")
    bench = Bench(__file__, parser, repeats=5, dtypes=False)
    args = bench.args
    sources: dict[str, Shapes | Pascal5i] = {"shapes": Shapes(args.fold)}
    if args.voc:
        sources["real images"] = Pascal5i(args.voc, args.fold, train_list=args.train_list, classes=args.classes)
    contenders = {}
    for kind, source in sources.items():
        data = EpisodeDataModule(source, shot=args.shot, size=args.size, batch_size=args.batch)
        for workers in args.workers:
            contenders[f"{kind}, {workers} workers"] = Contender(
                lambda made: take(made, args.count),
                prepare=lambda data=data, workers=workers: flowing(data, workers),
                memory=False,
            )
        batch = next(iter(data.train_dataloader()))

    steps = make_steps(args, on_device(batch, bench.device), bench.device)
    rows = bench.compete(contenders | steps, {})
    quickest = min(row["median"] for row in rows if row["contender"] in steps)
    for row in rows:
        row["seconds_per_batch"] = row["median"] / (1 if row["contender"] in steps else args.count)
        row["share_of_step"] = row["seconds_per_batch"] / quickest
    bench.show(
        f"batches of {args.batch} episodes, {args.shot} shot, {args.size} x {args.size}",
        rows,
        {
            "s/batch": lambda row: f"{row['seconds_per_batch']:.4f}",
            "of the quickest step": lambda row: f"{row['share_of_step']:.1%}",
            "": lambda row: "" if row["contender"] in steps else "keeps up" if row["share_of_step"] < 1 else "too slow",
        },
    )
    bench.write()


if __name__ == "__main__":
    main()
