"""The demo: train DPCN on generated shapes and test it on five held-out classes.

Trains `dpcn_small` and the baseline (the same network without SAM, FFM and DCM) from scratch for the same number of
steps on fold 0, tests both on the same episodes of the held-out classes, together with two references that need no
training, and writes to runs/demo: the table as JSON, an image of three episodes, training curves and checkpoints.

    python examples/demo.py            # about 7 minutes on 2 cores
    python examples/demo.py --steps 20 # a quick check that everything runs
"""

import argparse
import json
import logging
import os
import platform
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from paper.plots import training_curves

from dpcn_modules import build_model, load_model
from dpcn_modules.data import Shapes
from dpcn_modules.data.resizing import denormalise
from dpcn_modules.data.transforms import TestTransform
from dpcn_modules.evaluation import EpisodeIoU, best_prior_threshold, predicted_mask
from dpcn_modules.evaluation.results import text_table
from dpcn_modules.training import EpisodeDataModule, FewShotTask
from dpcn_modules.viz import EpisodeRow, episode_strip

NETWORKS = {"DPCN": "dpcn_small", "baseline": "baseline_small"}
SIZE, EPOCHS = 64, 8
THREADS = max(1, (os.cpu_count() or 2) // len(NETWORKS))


def main() -> None:
    """Train, test and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each network")
    parser.add_argument("--test-episodes", type=int, default=1000)
    parser.add_argument("--fold", type=int, default=0, choices=range(4))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    started = time.perf_counter()
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)

    data = make_data(args)
    print(f"training {' and '.join(NETWORKS)}, side by side, on {data.images('train').name}", flush=True)
    # Training two small networks in parallel uses two cores better than training each on both cores.
    with ProcessPoolExecutor(len(NETWORKS), mp_context=get_context("spawn")) as pool:
        trainings = [pool.submit(train_and_test, label, args) for label in NETWORKS]
        rows = untrained_rows(data, args.seed)
        rows += [training.result() for training in trainings]
    draw(load_model(args.output / "DPCN" / "last.ckpt"), data, args.output)
    training_curves({label: args.output / label / "metrics.csv" for label in NETWORKS}, args.output / "curves.png")
    report(rows, data, args, time.perf_counter() - started)


def make_data(args: argparse.Namespace) -> EpisodeDataModule:
    """Episodes of generated shapes; test images contain classes that no training image contains."""
    return EpisodeDataModule(
        Shapes(args.fold),
        size=SIZE,
        batch_size=16,
        test_batch_size=20,
        episodes_per_epoch=16 * max(1, args.steps // EPOCHS),
        val_episodes=min(100, args.test_episodes),
        test_episodes=args.test_episodes,
        seed=args.seed,
        protocol_name="demo",
        train_transform=TestTransform(SIZE),
    )


def untrained_rows(data: EpisodeDataModule, seed: int) -> list[dict]:
    """References without training: the ground-truth mask of every object of any class, and the prior mask."""
    torch.set_num_threads(THREADS)
    seed_everything(seed, verbose=False)
    images, metric = data.images("test"), EpisodeIoU()
    dataset = data.test_dataloader().dataset
    for index in range(len(dataset)):
        spec = dataset.spec(index)
        mask = images.load(spec.query)[1].long().unsqueeze(0)
        metric.update((mask > 0).long(), (mask == spec.class_id).long(), torch.tensor([spec.class_id]))
    objects = metric.compute()
    miou, threshold = best_prior_threshold(build_model("dpcn_small").eval(), data.test_dataloader())
    return [
        {"row": f"untrained prior mask, best threshold {threshold:.2f}", "miou": miou},
        {"row": "true mask of every object", "miou": objects.miou.item(), "fb_iou": objects.fb_iou.item()},
    ]


class EpochLines(Callback):
    """Prints one line per epoch, since two progress bars would overwrite each other."""

    def __init__(self, label: str) -> None:
        self.label = label

    def on_train_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Print loss and validation score."""
        seen = trainer.callback_metrics
        print(
            f"{self.label:<9} step {trainer.global_step:>5}  loss {seen['train/loss_epoch']:.3f}  "
            f"validation mIoU {100 * seen['val/miou']:.1f} %",
            flush=True,
        )


def train_and_test(label: str, args: argparse.Namespace) -> dict:
    """Train a network from scratch and score its last state; the validation classes are the test classes."""
    # Keep Lightning's messages out of the output.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(THREADS)
    seed_everything(args.seed, verbose=False)
    data = make_data(args)
    task = FewShotTask(build_model(NETWORKS[label]), schedule="adamw_one_cycle", lr=3e-3)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        gradient_clip_val=1.0,
        logger=CSVLogger(args.output, name=label, version=""),
        callbacks=[
            ModelCheckpoint(args.output / label, filename="last", enable_version_counter=False),
            EpochLines(label),
        ],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=10,
    )
    started = time.perf_counter()
    trainer.fit(task, data)
    seconds = time.perf_counter() - started
    trainer.test(task, data, verbose=False)
    score, names = task.test_score, data.images("test").class_names
    return {
        "row": f"{label}, {trainer.global_step} steps",
        "miou": score.miou.item(),
        "fb_iou": score.fb_iou.item(),
        "class_iou": {names[class_id]: round(iou.item(), 4) for class_id, iou in score.class_iou.items()},
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "training_seconds": round(seconds),
    }


@torch.no_grad()
def draw(model: torch.nn.Module, data: EpisodeDataModule, output: Path) -> None:
    """Draw the first test episode of each of three classes; none is selected by its appearance."""
    episodes, names = {}, data.images("test").class_names
    for episode in data.test_dataloader().dataset:
        episodes.setdefault(episode.class_id, episode)
        if len(episodes) == 3:
            break
    rows = []
    for class_id, episode in episodes.items():
        prediction = model(episode.query_image[None], episode.support_images[None], episode.support_masks[None])
        rows.append(
            EpisodeRow(
                support_image=denormalise(episode.support_images[0]),
                support_mask=episode.support_masks[0],
                query_image=denormalise(episode.query_image),
                prediction=predicted_mask(prediction.logits[0]),
                target=episode.query_mask,
                activation_maps=prediction.activation_maps[0],
                initial_mask=prediction.initial_mask[0, 0],
                refined_mask=prediction.refined_mask[0, 0],
                label=names[class_id],
            )
        )
    episode_strip(rows, output / "episodes.png", note=f"protocol: {data.protocol()}")


def report(rows: list[dict], data: EpisodeDataModule, args: argparse.Namespace, seconds: float) -> None:
    """Print the table, and write it with the command, protocol and versions."""
    protocol = data.protocol()
    cells = [
        (row["row"], f"{100 * row['miou']:.1f}", f"{100 * row['fb_iou']:.1f}" if "fb_iou" in row else "")
        for row in rows
    ]
    print(f"\nheld-out classes: {', '.join(protocol.classes)}")
    print(text_table(("", "mIoU %", "FB-IoU %"), cells))
    print(f"protocol: {protocol}")
    result = {
        "command": f"python examples/demo.py --steps {args.steps} --fold {args.fold} --seed {args.seed}",
        "protocol": str(protocol),
        "rows": rows,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads_per_network": THREADS,
    }
    (args.output / "result.json").write_text(json.dumps(result, indent=1))
    print(f"{seconds:.0f} s; {args.output}: result.json, episodes.png, curves.png, and a checkpoint of each network")


if __name__ == "__main__":
    main()
