"""Time a test as `dpcn test` runs it, with the feature cache and without, and compare the two mIoU.

    python benchmarks/evaluation.py --voc VOC2012 --model dpcn_resnet50 --episodes 1000
    python benchmarks/evaluation.py --voc VOC2012 --checkpoint runs/best.ckpt
    python benchmarks/evaluation.py --model dpcn_small --size 64 --episodes 20       # generated shapes

The time includes reading, decoding, encoding, segmenting and scoring. The cache starts empty.
"""

import argparse
import logging
import sys
import warnings
from pathlib import Path

import torch
from _harness import Bench, Contender, positive, quartiles
from lightning import Trainer

from dpcn_modules import build_model, load_model
from dpcn_modules.data import Pascal5i, Shapes
from dpcn_modules.models import MODELS
from dpcn_modules.training import EpisodeDataModule, FewShotTask

SAME = 1e-3
"""Allowed difference of mIoU: features of another batch differ by rounding, which may change single pixels."""


def make_data(args: argparse.Namespace) -> EpisodeDataModule:
    """The same episodes for every run."""
    return EpisodeDataModule(
        Pascal5i(args.voc, args.fold, test_list=args.test_list, classes=args.classes)
        if args.voc
        else Shapes(args.fold, images_per_class=20),
        shot=args.shot,
        size=args.size,
        test_batch_size=args.batch,
        test_episodes=args.episodes,
        workers=args.workers,
        protocol_name="evaluation",
    )


def run_test(task: FewShotTask, data: EpisodeDataModule, accelerator: str) -> tuple[float, str | None]:
    """Test, and return mIoU and the report of the cache."""
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.test(task, datamodule=data, verbose=False)
    return task.test_score.miou.item(), task.feature_cache_report


def measure(bench: Bench) -> None:
    """Test with and without in turn, compare the scores, and print both. There is no warm-up, since a test is long."""
    args = bench.args
    torch.manual_seed(0)
    model = load_model(args.checkpoint) if args.checkpoint else build_model(args.model)
    data = make_data(args)
    tasks = {"no cache": FewShotTask(model), f"cache {args.cache}": FewShotTask(model, feature_cache=args.cache)}
    results: dict[str, tuple[float, str | None]] = {}
    accelerator = "gpu" if bench.device.type == "cuda" else "cpu"

    def test(name: str) -> None:
        results[name] = run_test(tasks[name], data, accelerator)

    contenders = {name: Contender(lambda name=name: test(name)) for name in tasks}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(args.repeats):
        for name, contender in contenders.items():
            seconds[name].append(bench.time(contender))
    rows = [
        {"protocol": str(data.protocol()), "contender": name, **quartiles(times), "peak_bytes": None, "seconds": times}
        for name, times in seconds.items()
    ]
    bench.rows += rows
    for row in rows:
        miou, report = results[row["contender"]]
        row |= {"miou": miou, "miou_difference": miou - results["no cache"][0], "cache": report}
        row["ratio"] = rows[0]["median"] / row["median"]
        if abs(row["miou_difference"]) > SAME:
            sys.exit(f"{row['contender']}: its mIoU differs by {row['miou_difference']:.4f}; no time is reported.")
    columns = {
        "mIoU %": lambda row: f"{100 * row['miou']:.3f}",
        "difference": lambda row: f"{100 * row['miou_difference']:.4f}",
        "times faster": lambda row: f"{row['ratio']:.2f}",
    }
    bench.show(str(data.protocol()), rows, columns)
    for row in rows:
        if row["cache"] is not None:
            print(f"{row['contender']}: {row['cache']}")


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, help="real images: a folder in VOC's layout (default: generated shapes)")
    parser.add_argument("--classes", nargs="+", help="only these of the VOC folder, for a part of it")
    parser.add_argument("--test-list", default="val", help="of the VOC folder (default: %(default)s)")
    parser.add_argument("--model", choices=MODELS, default="dpcn_resnet50", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--checkpoint", type=Path, help="a trained network, in place of --model with random weights")
    parser.add_argument("--cache", default="4GB", help="memory of the feature cache (default: %(default)s)")
    parser.add_argument("--fold", type=int, choices=range(4), default=0)
    parser.add_argument("--shot", type=positive, default=1)
    parser.add_argument("--size", type=positive, default=473, help="side of the images (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=1, help="episodes at a time (default: %(default)s)")
    parser.add_argument("--episodes", type=positive, default=100, help="default: %(default)s")
    parser.add_argument("--workers", type=int, choices=range(65), default=0, metavar="N", help="loader processes")
    bench = Bench(__file__, parser, repeats=1, dtypes=False)
    # Keep Lightning's messages out of the output.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    measure(bench)
    bench.write()


if __name__ == "__main__":
    main()
