"""Time a training step from a feature store against the same step through the frozen backbone, in one run.

    python benchmarks/feature_store.py --model dpcn_resnet50 --size 473 --channels 256
    python benchmarks/feature_store.py --voc VOC2012 --model dpcn_small --size 241 --channels 64

Each step is timed from a batch in memory, and with its batch: reading and transforming images, or reading the store.
Weights are random unless --weights is given, which changes no time.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from _harness import Bench, Contender, positive
from loader import flowing, on_device

from dpcn_modules import build_model
from dpcn_modules.data import Episode, FeatureStore, Pascal5i, Shapes, TestTransform, TrainTransform
from dpcn_modules.functional import episode_loss
from dpcn_modules.models import MODELS
from dpcn_modules.models.stages import FrozenStages
from dpcn_modules.training import EpisodeDataModule

SAME = 5e-3
"""Allowed relative difference of the losses: the store keeps features in half precision."""


class Training:
    """The head of a network and its optimiser; the same start for every contender."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        overrides: dict[str, Any] = {"trainable": "none", "frozen_norm": True, "channels": args.channels}
        overrides |= {name: value for name in ("backbone", "weights") if (value := getattr(args, name)) is not None}
        self.device = device
        self.model = build_model(args.model, **overrides).to(device, memory_format=torch.channels_last).train()
        learning = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=1e-4)

    def step(self, batch: Episode) -> float:
        """Forward, backward and the optimiser's step; the loss."""
        torch.manual_seed(0)
        prediction = self.model(batch.query_image, batch.support_images, batch.support_masks)
        loss = episode_loss(prediction, batch.query_mask, batch.support_masks)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def moved(batch: Episode, device: torch.device) -> Episode:
    """A batch with images or with stages, on the device."""
    if isinstance(batch.query_image, torch.Tensor):
        return on_device(batch, device)
    images = (
        type(stages)(stages.size, *(each.to(device) for each in stages[1:] if each is not None))
        for stages in (batch.query_image, batch.support_images)
    )
    masks = {name: getattr(batch, name).to(device) for name in ("query_mask", "support_masks")}
    return batch._replace(**dict(zip(("query_image", "support_images"), images, strict=True)), **masks)


def main() -> None:
    """Write a store in a temporary folder, time the steps, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, help="real images: a folder in VOC's layout; otherwise generated shapes")
    parser.add_argument("--classes", nargs="+", help="only these of the VOC folder, for a part of it")
    parser.add_argument("--train-list", default="trainaug", help="of the VOC folder (default: %(default)s)")
    parser.add_argument("--images", type=positive, default=4, help="of each class of the shapes (default: %(default)s)")
    parser.add_argument("--model", choices=MODELS, default="dpcn_resnet50", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--backbone", metavar="NAME", help="in place of the network's own")
    parser.add_argument("--weights", help="of the backbone: a name or a file")
    parser.add_argument("--channels", type=positive, default=256, help="of the head (default: %(default)s)")
    parser.add_argument("--shot", type=positive, default=1)
    parser.add_argument("--size", type=positive, default=473, help="side of the images (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=8, help="episodes of a step (default: %(default)s)")
    bench = Bench(__file__, parser, repeats=5, dtypes=False)
    args = bench.args
    source: Any = Shapes(0, images_per_class=args.images)
    if args.voc:
        source = Pascal5i(args.voc, 0, train_list=args.train_list, classes=args.classes)
    settings: dict[str, Any] = {"shot": args.shot, "size": args.size, "batch_size": args.batch}

    with tempfile.TemporaryDirectory() as folder:
        data = EpisodeDataModule(source, train_transform=TestTransform(args.size), **settings)
        encode = FrozenStages(Training(args, bench.device).model)
        store = FeatureStore(folder, {**data.store_key(), **encode.key(), "views": 0}, write=True)
        data.views(0).write(store, encode)
        print(f"{len(store)} views, {store.bytes / 2**20:.0f} MB")
        stored = EpisodeDataModule(source, train_transform=TestTransform(args.size), features=folder, **settings)
        augmented = EpisodeDataModule(source, train_transform=TrainTransform(args.size), **settings)
        batches = {name: next(iter(each.train_dataloader())) for name, each in (("backbone", data), ("store", stored))}
        batches = {name: moved(batch, bench.device) for name, batch in batches.items()}
        loss = Training(args, bench.device).step(batches["backbone"])
        contenders = {}
        for name, batch in batches.items():
            training = Training(args, bench.device)
            contenders[f"{name}: step"] = Contender(
                lambda training=training, batch=batch: training.step(batch), memory=False, ours=True
            )
        for name, each in (("backbone", augmented), ("store", stored)):
            training = Training(args, bench.device)
            contenders[f"{name}: batch and step"] = Contender(
                lambda made, training=training: training.step(moved(next(made), bench.device)),
                prepare=lambda each=each: flowing(each, 0),
                memory=False,
            )

        def wrong(name: str, found: float) -> str | None:
            far = name.endswith(": step") and abs(found - loss) > SAME * abs(loss)
            return f"the loss is {found}, not {loss}" if far else None

        rows = bench.compete(contenders, {"stored_bytes": store.bytes, "views": len(store)}, wrong=wrong)
    median = {row["contender"]: row["median"] for row in rows}
    for row in rows:
        row["times_faster"] = median[row["contender"].replace("store", "backbone")] / row["median"]
    bench.show(
        f"{args.model}, batches of {args.batch} episodes, {args.shot} shot, {args.size} x {args.size}, "
        f"{args.channels} channels",
        rows,
        {"s/step": lambda row: f"{row['median']:.4f}", "times faster": lambda row: f"{row['times_faster']:.2f}"},
    )
    bench.write()


if __name__ == "__main__":
    main()
