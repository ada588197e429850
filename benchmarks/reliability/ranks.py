"""Train and test on 2 and 3 gloo ranks and on 1: equal steps, equal sums of intersections and unions, and no hang.

Numbers of episodes and batch sizes are random, so that most do not divide. The network is one threshold, whose masks
do not depend on the batch.
"""

import json
import logging
import os
import random
import socket
import tempfile
import time
import warnings
from pathlib import Path

import torch
from _common import Log, kill, parser, start
from lightning import Trainer, seed_everything
from torch import Tensor, nn

from dpcn_modules.data import Shapes
from dpcn_modules.evaluation import EpisodeIoU, Score
from dpcn_modules.interface import Prediction
from dpcn_modules.training import EpisodeDataModule, FewShotTask

HANG = 180  # seconds
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Threshold(nn.Module):
    """Foreground is what is brighter than a learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Prediction:
        bright = query_image.mean(1) - self.threshold
        return Prediction(torch.stack([-bright, bright], dim=1))


class Summing(EpisodeIoU):
    """Keeps the sums that its score is made of, over all ranks."""

    sums: list[list[int]]

    def compute(self) -> Score:
        class_ids, pixels = self.class_sums()
        self.sums = torch.cat([class_ids.unsqueeze(1), pixels], 1).tolist()
        return super().compute()


def run(folder: Path, case: dict[str, int], rank: int, ranks: int, port: int) -> None:
    """Train an epoch with validation, test with the start's threshold, and write what rank 0 got."""
    warnings.filterwarnings("ignore")
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} if ranks > 1 else {}
    seed_everything(0, verbose=False)
    task = FewShotTask(Threshold(), schedule="sgd_constant", lr=0.1)
    task.val_iou, task.test_iou = Summing(), Summing()
    data = EpisodeDataModule(
        Shapes(0, image_size=32),
        size=33,
        batch_size=case["batch"],
        episodes_per_epoch=case["training_episodes"],
        val_episodes=case["val_episodes"],
        test_episodes=case["test_episodes"],
        test_batch_size=case["test_batch"],
    )
    options = {"strategy": "ddp", "devices": ranks} if ranks > 1 else {}
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(task, data)
    threshold, steps = task.model.threshold.item(), trainer.global_step
    task.model.threshold.data.zero_()
    trainer.validate(task, data, verbose=False)
    trainer.test(task, data, verbose=False)
    result = {"steps": steps, "threshold": threshold, "val": task.val_iou.sums, "test": task.test_iou.sums}
    (folder / f"{rank}.json").write_text(json.dumps(result))


def results(case: dict[str, int], ranks: int) -> list[dict[str, object]] | str:
    """What each rank got, or what went wrong."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as name:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        processes = [start(run, Path(name), case, rank, ranks, port) for rank in range(ranks)]
        deadline = time.monotonic() + HANG
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hung = any(process.is_alive() for process in processes)
        for process in processes:
            kill(process)
        if hung or any(process.exitcode for process in processes):
            return "hang" if hung else f"exit status {[process.exitcode for process in processes]}"
        return [json.loads((Path(name) / f"{rank}.json").read_text()) for rank in range(ranks)]


def check(case: dict[str, int], ranks: int) -> dict[str, object]:
    """Compare some ranks with one."""
    one, several = results(case, 1), results(case, ranks)
    if isinstance(one, str) or isinstance(several, str):
        return {"equal_sums": False, "failed": str((one, several))}
    expected = one[0]
    return {
        "equal_sums": all(each[name] == expected[name] for each in several for name in ("val", "test")),
        "equal_steps": all(each["steps"] == expected["steps"] for each in several),
        "steps": expected["steps"],
        "threshold_differs_by": max(abs(each["threshold"] - expected["threshold"]) for each in several),
    }


def random_case(generator: random.Random) -> tuple[dict[str, int], int]:
    """Numbers of episodes and batch sizes for some ranks."""
    ranks = generator.choice((2, 3))
    batch = ranks * generator.randint(1, 3)
    case = {"training_episodes": generator.randint(batch, 20), "batch": batch}
    case |= {name: generator.randint(1, 13) for name in ("val_episodes", "test_episodes")}
    return {**case, "test_batch": generator.randint(1, 4)}, ranks


def main() -> None:
    options = parser(__doc__, "ranks")
    options.add_argument("--cases", type=int, default=30)
    args = options.parse_args()
    log, generator = Log("ranks", args), random.Random(args.seed)
    for number in range(args.cases):
        case, ranks = random_case(generator)
        if number >= len(log.cases):
            log.add(ranks=ranks, **case, **check(case, ranks))
    log.write(
        cases=len(log.cases),
        equal_sums=sum(bool(case["equal_sums"]) for case in log.cases),
        equal_steps=sum(bool(case.get("equal_steps")) for case in log.cases),
        failed_or_hung=sum("failed" in case for case in log.cases),
        largest_difference_of_the_weight=max(case.get("threshold_differs_by", 0.0) for case in log.cases),
    )


if __name__ == "__main__":
    main()
