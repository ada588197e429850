"""Shared by the training scripts of this folder: arguments, episodes, training, testing and printing."""

import argparse

from lightning import Trainer

from dpcn_modules import build_model, load_model
from dpcn_modules.data import Pascal5i, Shapes, TestTransform, TrainTransform
from dpcn_modules.evaluation import Score
from dpcn_modules.models import HostNetwork, read_checkpoint
from dpcn_modules.training import EpisodeDataModule, FewShotTask

FROM_SCRATCH = {"schedule": "adamw_one_cycle", "lr": 2e-3}


def parse_arguments(description: str, *, network: str, host: bool = False) -> argparse.Namespace:
    """Read the command line; ``host`` adds the options of a host network that gets an adapter."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", help="a VOC folder; without it, generated shapes")
    parser.add_argument("--fold", type=int, default=0, choices=range(4))
    parser.add_argument(
        "--classes", nargs="+", help="only these classes of the VOC folder, if others have too few images"
    )
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--network", default=network)
    parser.add_argument(
        "--size", type=int, help="side of the network's input; default: 64, or the size in --host-checkpoint"
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--test-episodes", type=int, default=50)
    parser.add_argument("--workers", type=int, default=0)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--weights", help="of the backbone: imagenet, or a file")
    if host:
        start.add_argument("--published", help="weights of the whole network from its authors' code")
        start.add_argument("--host-checkpoint", help="checkpoint of dpcn fit for the network without DCM")
        parser.add_argument("--backbone", help="replaces the network's own, such as resnet50_deep_stem")
        parser.add_argument(
            "--train", choices=("head", "adapter"), default="head", help="adapter: everything else is frozen"
        )
    args = parser.parse_args()
    if host and args.train == "adapter" and not (args.published or args.host_checkpoint):
        parser.error("--train adapter needs a trained host network: --published or --host-checkpoint")
    trained_size = read_checkpoint(args.host_checkpoint).size if host and args.host_checkpoint else None
    args.size = args.size or trained_size or 64
    return args


def make_data(args: argparse.Namespace) -> EpisodeDataModule:
    """Episodes of a VOC folder with PFENet's augmentation, or of generated shapes without augmentation."""
    if args.voc:
        source = Pascal5i(args.voc, args.fold, classes=args.classes)
        train_transform = TrainTransform(args.size, long_side=None if args.size >= 400 else args.size)
    else:
        source = Shapes(args.fold, image_size=args.size)
        train_transform = TestTransform(args.size)
    return EpisodeDataModule(
        source,
        shot=args.shot,
        size=args.size,
        batch_size=args.batch_size,
        episodes_per_epoch=args.steps * args.batch_size,
        val_episodes=20,
        test_episodes=args.test_episodes,
        train_transform=train_transform,
        workers=args.workers,
        protocol_name="example",
    )


def make_host(args: argparse.Namespace) -> HostNetwork:
    """The network without an adapter: trained by `dpcn fit`, trained by its authors, or not trained yet."""
    if args.host_checkpoint:
        return load_model(args.host_checkpoint).train()
    overrides = {"backbone": args.backbone} if args.backbone else {}
    if not args.published:
        return build_model(args.network, weights=args.weights, **overrides)
    # The file contains the backbone too; it stays frozen, as in the authors' training.
    host = build_model(args.network, trainable="none", frozen_norm=True, **overrides)
    host.load_published_state_dict(args.published)
    return host


def train(task: FewShotTask, data: EpisodeDataModule, folder: str) -> None:
    """Train for the given number of steps; checkpoints and logs are written to the folder."""
    Trainer(max_epochs=1, default_root_dir=folder, use_distributed_sampler=False).fit(task, data)


def test(task: FewShotTask, data: EpisodeDataModule) -> Score:
    """Score the network in its current state."""
    Trainer(logger=False, use_distributed_sampler=False).test(task, data, verbose=False)
    return task.test_score


def print_score(score: Score, data: EpisodeDataModule, *, before: Score | None = None) -> None:
    """Print the IoU of each class, the means and the protocol; ``before`` is the host network's score without DCM."""
    names = data.images("test").class_names
    for class_id, iou in score.class_iou.items():
        beside = f"   without DCM {100 * before.class_iou[class_id]:5.1f}" if before else ""
        print(f"{names[class_id]:<16} {100 * iou:5.1f}{beside}")
    if before:
        print(f"without DCM: {_means(before)}")
    print(f"{_means(score)}; {data.protocol()}")


def _means(score: Score) -> str:
    return f"mIoU {100 * score.miou:.1f}, FB-IoU {100 * score.fb_iou:.1f}"
