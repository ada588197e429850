"""Kill a short training at random moments (SIGKILL), resume it from last.ckpt, and compare the end bit for bit.

The training has dropout, CANet's random history, momentum and a falling rate; half of the cases use two loader
processes, and half accumulate two batches a step. The parent kills all processes a random time after a random batch
has begun, which may be inside a step, a validation or the writing of a checkpoint. Weights, momentum and the number of
steps must be the same. The metrics of the last epoch are compared too; they lack where the kill came between the last
step and its validation, which Lightning does not repeat on resume.
"""

import hashlib
import json
import logging
import random
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from _common import Log, kill, parser, start
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from dpcn_modules import build_model
from dpcn_modules.data import Shapes
from dpcn_modules.training import EpisodeDataModule, FewShotTask

EPOCHS, EPISODES, BATCH = 3, 13, 4
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class _Notes(Callback):
    """A line for each batch that begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"{trainer.global_step}\n")


def train(folder: Path, workers: int, accumulate: bool, resume: bool) -> None:
    """Train, and write the digest of everything that a training ends with to result.json."""
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    task = FewShotTask(build_model("canet_small", channels=8, dropout=0.5), lr=0.01)
    data = EpisodeDataModule(
        Shapes(0, image_size=32),
        size=33,
        batch_size=BATCH,
        device_batch_size=2 if accumulate else None,
        episodes_per_epoch=EPISODES,
        val_episodes=3,
        workers=workers,
    )
    last = ModelCheckpoint(folder, filename="last", every_n_train_steps=1, enable_version_counter=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[last, _Notes(folder / "batches.txt")],
    )
    checkpoint = folder / "last.ckpt"
    trainer.fit(task, data, ckpt_path=checkpoint if resume and checkpoint.is_file() else None)
    state = dict(task.model.state_dict())
    for number, values in trainer.optimizers[0].state_dict()["state"].items():
        state |= {f"{number}.{name}": value for name, value in values.items() if isinstance(value, torch.Tensor)}
    digest = hashlib.sha256(b"".join(name.encode() + state[name].numpy().tobytes() for name in sorted(state)))
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
    result = {"digest": digest.hexdigest(), "steps": trainer.global_step, "metrics": metrics}
    (folder / "result.json").write_text(json.dumps(result))


def finished(folder: Path, workers: int, accumulate: bool, resume: bool = False) -> dict[str, Any]:
    """Train to the end, and give the result."""
    process = start(train, folder, workers, accumulate, resume)
    process.join()
    if process.exitcode:
        return {"digest": f"exit status {process.exitcode}", "steps": None, "metrics": {}}
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def kill_at(folder: Path, workers: int, accumulate: bool, batch: int, delay: float) -> int | None:
    """Kill a training ``delay`` seconds after its batch has begun, and give the step; None where it had ended."""
    process, notes = start(train, folder, workers, accumulate, False), folder / "batches.txt"
    while process.is_alive() and (not notes.is_file() or len(notes.read_text().splitlines()) <= batch):
        time.sleep(0.002)
    time.sleep(delay)
    alive = process.is_alive()
    kill(process)
    return int(notes.read_text().splitlines()[-1]) if alive else None


def main() -> None:
    options = parser(__doc__, "kill_training")
    options.add_argument("--kills", type=int, default=20)
    args = options.parse_args()
    log, generator = Log("kill_training", args), random.Random(args.seed)
    whole: dict[tuple[int, bool], dict[str, Any]] = {}
    for number in range(args.kills):
        workers, accumulate = (0, 2)[number // 2 % 2], bool(number % 2)
        batch, delay = generator.randrange(EPOCHS * (EPISODES // BATCH) * (2 if accumulate else 1)), generator.random()
        if number < len(log.cases):
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if (workers, accumulate) not in whole:
                whole[workers, accumulate] = finished(folder, workers, accumulate)
            step = None
            while step is None:  # too late: the training had ended
                shutil.rmtree(folder)
                folder.mkdir()
                step = kill_at(folder, workers, accumulate, batch, 0.2 * delay)
                delay /= 2
            had_checkpoint = (folder / "last.ckpt").is_file()
            resumed = finished(folder, workers, accumulate, resume=True)
        log.add(
            workers=workers,
            accumulated=accumulate,
            killed_in_batch=batch,
            killed_at_step=step,
            from_checkpoint=had_checkpoint,
            same=all(resumed[key] == whole[workers, accumulate][key] for key in ("digest", "steps")),
            same_metrics=resumed["metrics"] == whole[workers, accumulate]["metrics"],
        )
    log.write(
        kills=len(log.cases),
        resumed_bit_for_bit=sum(case["same"] for case in log.cases),
        same_metrics=sum(case["same_metrics"] for case in log.cases),
        with_checkpoint=sum(case["from_checkpoint"] for case in log.cases),
    )


if __name__ == "__main__":
    main()
