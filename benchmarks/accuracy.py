"""Trains and tests networks side by side over several seeds, and prints one table.

    python benchmarks/accuracy.py hosts      # seven models, three seeds: about an hour on 2 cores
    python benchmarks/accuracy.py adapter    # kernel size, learning rate and place of the adapter
    python benchmarks/accuracy.py ablations --folds 0 1 2 3  # DPCN's tables 3, 5 and A1
    python benchmarks/accuracy.py hosts --steps 2 --test-episodes 20 --seeds 0 --rows CANet "CANet + DCM"
    python benchmarks/accuracy.py hosts --voc FOLDER --steps 20000 --accelerator gpu --precision bf16-mixed --workers 4

On generated shapes, or on the images of a VOC folder whose long side is about 240 px (`--voc`): trained on cat, dog,
person, chair, sofa and car, tested on horse, sheep and cow.

Every model of a study has the same backbone, budget, optimiser and episodes; one seed gives a host network the same
start with the adapter and without. A finished run leaves a file and is not repeated, so an interrupted study resumes.
"""

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import platform
import shutil
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from _machine import commit
from lightning import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from dpcn_modules import build_model
from dpcn_modules.data import (
    ImageSource,
    Pascal5i,
    Shapes,
    Split,
    TestTransform,
    TrainTransform,
    manifest_hash,
    manifest_lines,
)
from dpcn_modules.data.datasets.files import replacing
from dpcn_modules.evaluation.results import file_hash, text_table
from dpcn_modules.models import HostNetwork
from dpcn_modules.training import EpisodeDataModule, FewShotTask

HERE = Path(__file__).resolve().parent
EPOCHS = 4
SHAPES_SIZE, VOC_SIZE = 64, 129
HELD_OUT = ["horse", "sheep", "cow"]
VOC_CLASSES = ["cat", "dog", "person", "chair", "sofa", "car", *HELD_OUT]
VOC_AREA = 472  # the field's 2048 pixels, on images shrunk from 500 to 240


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One line of a table.

    Attributes:
        network: its name for `build_model`.
        overrides: fields of its settings.
        lr_multipliers: factors of the learning rate by part.
        adapter_after: the part of a host network whose output the adapter changes, instead of the query feature.
    """

    network: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    lr_multipliers: dict[str, float] | None = None
    adapter_after: str | None = None


STUDIES = {
    "hosts": {
        "PANet": ModelRow("panet_small"),
        "CANet": ModelRow("canet_small"),
        "CANet + DCM": ModelRow("canet_small_dcm"),
        "PFENet": ModelRow("pfenet_small"),
        "PFENet + DCM": ModelRow("pfenet_small_dcm"),
        "baseline": ModelRow("baseline_small"),
        "DPCN": ModelRow("dpcn_small"),
    },
    # Kernels of 1 x 1 have the same number of parameters but do not cover neighbouring positions.
    "adapter": {
        "CANet + DCM, kernels 1 x 1": ModelRow("canet_small_dcm", {"kernel_size": 1}),
        "PFENet + DCM, kernels 1 x 1": ModelRow("pfenet_small_dcm", {"kernel_size": 1}),
        "CANet + DCM, adapter's rate x 0.1": ModelRow("canet_small_dcm", lr_multipliers={"interaction": 0.1}),
        "CANet + DCM, adapter's rate x 3": ModelRow("canet_small_dcm", lr_multipliers={"interaction": 3.0}),
        "CANet + DCM, adapter after the comparison": ModelRow("canet_small_dcm", adapter_after="attention"),
        "PFENet + DCM, adapter after the merge": ModelRow("pfenet_small_dcm", adapter_after="merge"),
    },
    "ablations": {
        "DPCN": ModelRow("dpcn_small"),
        "SAM + FFM": ModelRow("dpcn_small", {"dcm": False}),
        "FFM + DCM": ModelRow("dpcn_small", {"sam": False}),
        "SAM + DCM": ModelRow("dpcn_small", {"ffm": False}),
        "DCM: square": ModelRow("dpcn_small", {"branches": ["square"]}),
        "DCM: horizontal": ModelRow("dpcn_small", {"branches": ["horizontal"]}),
        "DCM: vertical, horizontal": ModelRow("dpcn_small", {"branches": ["vertical", "horizontal"]}),
        "DCM: parallel": ModelRow("dpcn_small", {"generation": "parallel"}),
    },
}


def main() -> None:
    """Do the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--rows", nargs="+", help="only these rows of the study")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, nargs="+", default=[0], choices=range(4), help="folds to average over")
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each run")
    parser.add_argument("--size", type=int, help=f"of the images: {SHAPES_SIZE} for shapes, {VOC_SIZE} for --voc")
    parser.add_argument("--batch", type=int, default=16, help="episodes of a step")
    parser.add_argument("--test-episodes", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--voc", help="real images: a folder in VOC's layout")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--workers", type=int, default=0, help="loader processes of each run")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"), help="folder for the files of each run")
    parser.add_argument("--out", type=Path, help="the result; benchmarks/results/accuracy_STUDY[_voc][_foldsN].json")
    args = parser.parse_args()
    args.size = args.size or (VOC_SIZE if args.voc else SHAPES_SIZE)
    rows = STUDIES[args.study]
    if unknown := set(args.rows or ()) - set(rows):
        parser.error(f"--rows: expected some of {', '.join(rows)}, got {', '.join(sorted(unknown))}")
    labels = args.rows or list(rows)
    with ProcessPoolExecutor(args.processes, mp_context=get_context("spawn")) as pool:
        # By seed first, so that the rows of an interrupted study can be compared.
        todo = itertools.product(args.seeds, args.folds, labels)
        tasks = {pool.submit(run, args, label, fold, seed): (label, fold, seed) for seed, fold, label in todo}
        for done in as_completed(tasks):
            label, fold, seed = tasks[done]
            print(f"{label}, fold {fold}, seed {seed}: mIoU {100 * done.result()['miou']:.1f} %", flush=True)
    results = {label: [task.result() for task, key in tasks.items() if key[0] == label] for label in labels}
    report(args, results)


def run(args: argparse.Namespace, label: str, fold: int, seed: int) -> dict[str, Any]:
    """Train a network from scratch and score its last state, unless its file exists."""
    row = STUDIES[args.study][label]
    budget = {
        "data": "voc" if args.voc else "shapes",
        "size": args.size,
        "fold": fold,
        "shot": args.shot,
        "steps": args.steps,
        "batch": args.batch,
        "precision": args.precision,
        "lr": args.lr,
        "test": args.test_episodes,
    }
    decided = {"row": dataclasses.asdict(row), "seed": seed, **budget}
    folder = args.runs / hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:12]
    if (folder / "score.json").is_file():
        return json.loads((folder / "score.json").read_text())
    shutil.rmtree(folder, ignore_errors=True)  # files of an interrupted run
    # Keep Lightning's messages out of the output.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    seed_everything(seed, verbose=False)
    data = make_data(args, fold, seed)
    model = build_model(row.network, **row.overrides)
    if row.adapter_after is not None:
        move_adapter(model, row.adapter_after)
    task = FewShotTask(model, schedule="adamw_one_cycle", lr=args.lr, lr_multipliers=row.lr_multipliers)
    trainer = Trainer(
        accelerator=args.accelerator,
        precision=args.precision,
        max_epochs=EPOCHS,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        logger=CSVLogger(folder.parent, name=folder.name, version=""),
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=20,
    )
    started = time.perf_counter()
    trainer.fit(task, data)
    seconds = time.perf_counter() - started
    loss = trainer.callback_metrics["train/query"].item()  # of the last epoch
    trainer.test(task, data, verbose=False)
    score, names = task.test_score, data.images("test").class_names
    result = {
        **decided,
        "label": label,
        "miou": score.miou.item(),
        "fb_iou": score.fb_iou.item(),
        "class_iou": {names[class_id]: round(iou.item(), 4) for class_id, iou in score.class_iou.items()},
        "training_steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training_loss": round(loss, 4),
        "training_seconds": round(seconds),
        "checkpoint": file_hash(Path(trainer.checkpoint_callback.best_model_path)),
        "commit": commit(),
    }
    with replacing(folder / "score.json") as part:  # a file that is there is not measured again
        part.write_text(json.dumps(result, indent=1))
    return result


def move_adapter(host: HostNetwork, part: str) -> None:
    """Let the adapter change the output of a part of the host network instead of the query feature."""
    kernels = []

    def remember(query_feat: Tensor, made: tuple[Tensor, ...]) -> Tensor:
        kernels[:] = [made]
        return query_feat

    def change(module: torch.nn.Module, inputs: Any, feat: Tensor) -> Tensor:
        return host.interaction.interact(feat, kernels.pop())

    host._interact = remember
    host.get_submodule(part).register_forward_hook(change)


def make_data(args: argparse.Namespace, fold: int, seed: int) -> EpisodeDataModule:
    """The seed sets the training episodes; the test episodes are the same for every run."""
    if args.voc:
        source = Pascal5i(args.voc, fold, classes=VOC_CLASSES, held_out=HELD_OUT, min_area=VOC_AREA)
    else:
        # Each loader process would have a cache of its own.
        source = Shapes(fold, image_size=args.size) if args.workers else CachedShapes(fold, args.size)
    return EpisodeDataModule(
        source,
        shot=args.shot,
        size=args.size,
        batch_size=args.batch,
        test_batch_size=20,
        episodes_per_epoch=args.batch * max(1, args.steps // EPOCHS),
        test_episodes=args.test_episodes,
        seed=seed,
        protocol_name="accuracy",
        # Shapes vary enough without augmentation.
        train_transform=TrainTransform(args.size, long_side=args.size) if args.voc else TestTransform(args.size),
        workers=args.workers,
    )


class CachedShapes:
    """Generated images, each made once per process for all networks."""

    def __init__(self, fold: int, size: int) -> None:
        self.split = functools.partial(cached_images, fold, size)


@functools.lru_cache(maxsize=2)  # the two splits of a fold
def cached_images(fold: int, size: int, split: Split) -> ImageSource:
    """The images of one split of a fold."""
    images = Shapes(fold, image_size=size).split(split)
    images.load = functools.cache(images.load)
    return images


def report(args: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> None:
    """Print mean and standard deviation of every row, and write every run."""
    lines = []
    for label, runs in results.items():
        by_fold = [[100 * run["miou"] for run in runs if run["fold"] == fold] for fold in args.folds]
        mious, fb_ious = by_seed(runs, "miou", args.seeds), by_seed(runs, "fb_iou", args.seeds)
        lines.append(
            (
                label,
                *(map(mean_and_spread, by_fold) if len(by_fold) > 1 else ()),
                mean_and_spread(mious),
                mean_and_spread(fb_ious),
                " ".join(f"{miou:.1f}" for miou in mious),
                f"{statistics.mean(run['training_loss'] for run in runs):.3f}",
                f"{runs[0]['parameters']:,}",
                f"{statistics.mean(run['training_seconds'] for run in runs):.0f}",
            )
        )
    folds = [f"fold {fold}" for fold in args.folds] if len(args.folds) > 1 else []
    tests = [make_data(args, fold, 0) for fold in args.folds]
    protocols = [f"{test.protocol()}; episodes {manifest_hash(manifest_lines(test.test_dataset()))}" for test in tests]
    print("\n" + text_table(("", *folds, "mIoU %", "FB-IoU %", "mIoU by seed", "loss", "parameters", "seconds"), lines))
    print(*protocols, f"{args.steps} steps of {args.batch} episodes, seeds {args.seeds}", sep="\n")
    machine = ("voc", "runs", "out", "processes", "workers")
    options = {name: value for name, value in vars(args).items() if name not in machine}
    result = {
        "study": options,
        "protocols": protocols,
        "runs": [run for runs in results.values() for run in runs],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    data = "_voc" if args.voc else "" if args.folds == [0] else "_folds" + "".join(map(str, args.folds))
    out = args.out or HERE / "results" / f"accuracy_{args.study}{data}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1))
    print(f"written to {out}")


def by_seed(runs: list[dict[str, Any]], name: str, seeds: list[int]) -> list[float]:
    """A score in per cent for each seed, the mean over the folds."""
    return [100 * statistics.mean(run[name] for run in runs if run["seed"] == seed) for seed in seeds]


def mean_and_spread(values: list[float]) -> str:
    """The mean, and the standard deviation over the seeds where there are several."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
