"""Add DPCN's dynamic convolution (DCM) to a model of your own by two lines, and measure whether it helps.

`MyModel` is an example of a prototype network. `MyModelWithDCM` is the same network with the adapter. Both are trained
from scratch on generated shapes, from the same weights, on the same episodes and for the same number of steps, and
tested on the same episodes of held-out classes. docs/guide/adapter.md explains the adapter.

    python examples/add_dcm_to_your_model.py --seeds 3  # both models with three seeds, side by side
    python examples/add_dcm_to_your_model.py --steps 4 --test-episodes 8  # a quick check that everything runs
"""

import argparse
import json
import logging
import platform
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning import Trainer, seed_everything
from torch import Tensor, nn

from dpcn_modules import DCMInteraction, Prediction
from dpcn_modules.data import Shapes, TestTransform
from dpcn_modules.evaluation.results import text_table
from dpcn_modules.functional import masked_average_pool
from dpcn_modules.models import build_backbone
from dpcn_modules.training import EpisodeDataModule, FewShotTask

SIZE, BATCH = 64, 16
EXTRAS = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar", "use_distributed_sampler")
OFF = dict.fromkeys(EXTRAS, False)


class MyModel(nn.Module):
    """A prototype network: it compares every query position with the mean feature of the support's object."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone("small")
        self.backbone.drop_layer4()  # this model does not use it
        self.reduce = nn.Sequential(nn.Conv2d(sum(self.backbone.channels[:2]), 32, 1), nn.ReLU())
        self.decoder = nn.Sequential(
            nn.Conv2d(64, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(32, 2, 1),
        )

    def features(self, images: Tensor) -> Tensor:
        """``(B, 3, Hi, Wi)`` to ``(B, 32, H, W)``, or the same with an axis K; query and support share it."""
        layer2, layer3, _ = self.backbone(images.flatten(0, -4))
        return self.reduce(torch.cat([layer2, layer3], dim=1)).unflatten(0, images.shape[:-3])

    def compare(self, query_feat: Tensor, prototype: Tensor, size: torch.Size) -> Prediction:
        """Concatenate the query feature and the tiled prototype, and decode to logits ``(B, 2, Hi, Wi)``."""
        tiled = prototype[:, :, None, None].expand_as(query_feat)
        logits = self.decoder(torch.cat([query_feat, tiled], dim=1))
        return Prediction(F.interpolate(logits, size, mode="bilinear", align_corners=False))

    def forward(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Prediction:
        """``(B, 3, Hi, Wi)``, ``(B, K, 3, Hi, Wi)`` and ``(B, K, Hi, Wi)`` in {0, 1, 255}."""
        query_feat = self.features(query_image)  # B 32 H W
        support_feat = self.features(support_images)  # B K 32 H W
        prototype = masked_average_pool(support_feat, support_masks)  # B 32
        return self.compare(query_feat, prototype, query_image.shape[-2:])


class MyModelWithDCM(MyModel):
    """The same network with two more lines."""

    def __init__(self) -> None:
        super().__init__()
        self.dcm = DCMInteraction(32)  # line 1; last, so that the seed gives all other weights as without it

    def forward(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Prediction:
        """Take the same inputs as `MyModel`."""
        query_feat = self.features(query_image)  # B 32 H W
        support_feat = self.features(support_images)  # B K 32 H W
        query_feat = self.dcm(query_feat, support_feat, support_masks)  # line 2
        prototype = masked_average_pool(support_feat, support_masks)  # B 32
        return self.compare(query_feat, prototype, query_image.shape[-2:])


MODELS = {"MyModel": MyModel, "MyModelWithDCM": MyModelWithDCM}


def main() -> None:
    """Show that the adapter starts as the identity, then train and test both models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each model")
    parser.add_argument("--seeds", type=int, default=1, help="how many times each model is trained, seeds from 0")
    parser.add_argument("--test-episodes", type=int, default=1000)
    parser.add_argument("--fold", type=int, default=0, choices=range(4))
    parser.add_argument("--output", type=Path, default=Path("runs/add_dcm"))
    args = parser.parse_args()
    started = time.perf_counter()
    print(
        f"with the adapter just added, the logits are bit for bit those without: {adapter_changes_nothing()}",
        flush=True,
    )
    with ProcessPoolExecutor(len(MODELS), mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(train_and_test, label, seed, args) for seed in range(args.seeds) for label in MODELS]
        report([run.result() for run in runs], args, time.perf_counter() - started)


@torch.no_grad()
def adapter_changes_nothing() -> bool:
    """Give both models the same weights and the same images: the adapter starts as the identity."""
    torch.manual_seed(0)
    without, adapted = MyModel(), MyModelWithDCM()
    adapted.load_state_dict(without.state_dict(), strict=False)  # a model without the adapter has no weights for it
    images, masks = torch.randn(2, 3, SIZE, SIZE), torch.randint(0, 2, (2, 1, SIZE, SIZE))
    episode = images, images.flip(0).unsqueeze(1), masks
    return torch.equal(adapted(*episode).logits, without(*episode).logits)


def make_data(args: argparse.Namespace, seed: int) -> EpisodeDataModule:
    """Episodes of generated shapes; the seed sets the training episodes, and the test episodes are always the same."""
    return EpisodeDataModule(
        Shapes(args.fold),
        size=SIZE,
        batch_size=BATCH,
        test_batch_size=20,
        episodes_per_epoch=BATCH * args.steps,
        test_episodes=args.test_episodes,
        seed=seed,
        protocol_name="add_dcm",
        train_transform=TestTransform(SIZE),
    )


def train_and_test(label: str, seed: int, args: argparse.Namespace) -> dict:
    """Train a model from scratch and score its last state; no checkpoint is selected by its score."""
    # Keep Lightning's messages out of the output.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    seed_everything(seed, verbose=False)
    data = make_data(args, seed)
    task = FewShotTask(MODELS[label](), schedule="adamw_one_cycle", lr=3e-3)
    trainer = Trainer(accelerator="cpu", max_epochs=1, gradient_clip_val=1.0, limit_val_batches=0, **OFF)
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    score = {"miou": task.test_score.miou.item(), "fb_iou": task.test_score.fb_iou.item()}
    print(f"{label}, seed {seed}, {trainer.global_step} steps: mIoU {100 * score['miou']:.1f} %", flush=True)
    return {"model": label, "seed": seed, **score, "parameters": sum(p.numel() for p in task.model.parameters())}


def report(runs: list[dict], args: argparse.Namespace, seconds: float) -> None:
    """Print the table (mean and standard deviation over the seeds), and write all runs to a file."""
    rows = []
    for label in MODELS:
        own, cells = [run for run in runs if run["model"] == label], []
        for name in ("miou", "fb_iou"):
            values = [100 * run[name] for run in own]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        rows.append((label, *cells, f"{own[0]['parameters']:,}"))
    protocol = make_data(args, 0).protocol()
    print("\n" + text_table(("", "mIoU %", "FB-IoU %", "parameters"), rows))
    print(f"protocol: {protocol}; {args.steps} steps, {args.seeds} seed{'s' * (args.seeds > 1)}")
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    result = {**settings, "protocol": str(protocol), "runs": runs, "seconds": round(seconds), **versions}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "result.json").write_text(json.dumps(result, indent=1))
    print(f"{seconds:.0f} s; {args.output / 'result.json'}")


if __name__ == "__main__":
    main()
