"""Training and testing of any few-shot network, as a Lightning module."""

import math
import os
from typing import Any, cast

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from dpcn_modules import __version__
from dpcn_modules._checks import check_choice, plain
from dpcn_modules.data import Episode
from dpcn_modules.errors import InputError, NonFiniteLossError
from dpcn_modules.evaluation import EpisodeIoU, FeatureCache, Predictor, Score, score_batch
from dpcn_modules.evaluation.feature_cache import parse_bytes
from dpcn_modules.functional import episode_loss
from dpcn_modules.interface import ImageStages, Prediction
from dpcn_modules.models.checkpoint import describe_model, unwrapped, upgrade_checkpoint
from dpcn_modules.models.fusion import Fusion
from dpcn_modules.models.stages import FrozenStages
from dpcn_modules.models.weights import plain_name
from dpcn_modules.training.checkpoints import AtomicCheckpointIO, open_batches, rewind_to_step
from dpcn_modules.training.optimizers import SCHEDULES, Schedule, build_schedule, parameter_groups


class FewShotTask(LightningModule):
    """Train a network on episodes, and score it on the original masks.

    Args:
        model: any network with the forward of :class:`dpcn_modules.interface.FewShotModel`.
        schedule: "sgd_poly", the paper's (the rate falls with ``(1 - step / steps) ** 0.9`` each step),
            "sgd_constant", CANet's (published with lr 0.0025 and weight decay 0.0005), "sgd_step", PANet's (times 0.1
            after each third of the steps; published with lr 0.001 and 30000 steps), or "adamw_one_cycle", for networks
            that train from scratch.
        lr: base learning rate (the highest one of the cycle).
        lr_multiplier: multiplies ``lr``; PFENet's published schedule multiplies its 0.0025 by 10, and whether DPCN's
            0.005 hides the same factor is unknown.
        lr_multipliers: of single parts, on top of that, by their names in the network: ``{"backbone": 0.1,
            "backbone.layer4": 1.0}``. Where two names match a parameter, the longer one counts.
        momentum: of SGD.
        weight_decay: of either optimiser.
        reverse_weight: lambda, the weight of the query-to-support loss.
        auxiliary_weight: of a network's auxiliary outputs.
        backbone_start_epoch: first epoch (from 0) in which the network's ``delayed_parameters()`` learn; None: after a
            quarter of the epochs.
        fusion: how validation and test make one mask of K shots: "concat" is the network's own forward on all of them
            (in DPCN, Eq. 11); "vote", "average" and "or" segment by each shot alone, bring each result to the
            image's size and fuse them there (:func:`dpcn_modules.models.fuse_shots`), which the network's
            :class:`dpcn_modules.interface.EncodeDecodeModel` methods make possible. Training does not look at it.
        feature_cache: memory for the features of the images of a validation or test, bytes or text such as "4GB", on
            the device of the network: each image is then encoded once for all its episodes
            (:class:`dpcn_modules.evaluation.FeatureCache`), by the same methods. 0: off.
        channels_last: lay out the network's weights, and so its features, with the channels last in memory; values
            stay but for rounding. Where it is faster is in docs/performance.md.

    Attributes:
        test_score: of the last test.
        feature_cache_report: what the cache did in the last test, in a line; None where it is off.

    Raises:
        ValueError: an unknown ``schedule`` or ``fusion``, or ``lr_multipliers`` of parts that are not there or do not
            learn, or that are not positive, or a ``feature_cache`` that is no amount of memory; when a training begins,
            no known number of steps (max_epochs=-1 with max_time alone) for a ``schedule`` or for delayed parameters.
        TypeError: a network without the methods that ``fusion`` or ``feature_cache`` needs.
        FloatingPointError: in training, when the loss is not finite.

    Note:
        Delayed parameters lose their gradient before each step until their epoch, so the optimiser leaves them, its
        momentum and its weight decay alone; unlike switching ``requires_grad``, that is safe with DDP and resume.

    Reference: Liu et al., CVPR 2022, sec. 4.1, eq. 12-14 and table 7.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        schedule: Schedule = "sgd_poly",
        lr: float = 0.005,
        lr_multiplier: float = 1.0,
        lr_multipliers: dict[str, float] | None = None,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        reverse_weight: float = 1.0,
        auxiliary_weight: float = 1.0,
        backbone_start_epoch: int | None = None,
        fusion: Fusion = "concat",
        feature_cache: int | str = 0,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        check_choice("schedule", schedule, SCHEDULES)
        # What training or testing would stumble over only later.
        if lr_multipliers:
            parameter_groups(model, lr, lr_multipliers)
        budget = parse_bytes(feature_cache, "feature_cache")
        self.feature_cache = FeatureCache(budget) if budget > 0 else None
        self.model = model.to(memory_format=torch.channels_last) if channels_last else model
        self.fusion = fusion
        self.predictor = Predictor(model, fusion=fusion, cache=self.feature_cache)
        self.schedule = schedule
        # NumPy's numbers would come into the checkpoint with the optimiser, and keep it from being read.
        self.lr = float(lr * lr_multiplier)
        self.lr_multipliers = {name: float(rate) for name, rate in (lr_multipliers or {}).items()}
        self.momentum = float(momentum)
        self.weight_decay = float(weight_decay)
        self.reverse_weight = reverse_weight
        self.auxiliary_weight = auxiliary_weight
        self.backbone_start_epoch = backbone_start_epoch
        self.feature_cache_report: str | None = None
        # Kept in checkpoints: the mean of an epoch that was cut off is still over the whole epoch.
        self.train_losses = MetricCollection({name: MeanMetric() for name in ("loss", "query", "support", "auxiliary")})
        self.train_losses.persistent(True)
        self.val_iou = EpisodeIoU()
        self.test_iou = EpisodeIoU()
        self.test_score: Score | None = None
        self._buffers_at_step: dict[str, Tensor] = {}

    def forward(
        self, query_image: Tensor | ImageStages, support_images: Tensor | ImageStages, support_masks: Tensor
    ) -> Prediction:
        """Call the network."""
        return cast(Prediction, self.model(query_image, support_images, support_masks))

    def setup(self, stage: str) -> None:
        """Have checkpoints written so that a kill leaves no half of one, unless the user chose how they are written,
        and refuse a feature store for a network whose stages are trained."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if stage == "fit" and getattr(getattr(self.trainer, "datamodule", None), "features", None) is not None:
            FrozenStages(self.model)

    def on_train_start(self) -> None:
        """Refuse a feature store of another backbone; a checkpoint to resume from has been loaded by now."""
        store = getattr(getattr(self.trainer, "datamodule", None), "store", None)
        if store is not None:
            store.check(FrozenStages(self.model).key())

    def on_train_batch_start(self, batch: Episode, batch_idx: int) -> None:
        """Let the random numbers of a step (dropout) follow from the run's seed, so that a resume draws the same."""
        accumulated = self.trainer.accumulate_grad_batches
        if accumulated > 1 and batch_idx % accumulated == 0:
            parameters = {name for name, _ in self.named_parameters()}
            state = self.state_dict()
            self._buffers_at_step = {name: state[name].clone() for name in state.keys() - parameters}
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        place = (seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        if batch_idx == 0:
            self.train_losses.reset()

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Return the loss of a batch of episodes."""
        prediction = self(batch.query_image, batch.support_images, batch.support_masks)
        weights = {"reverse_weight": self.reverse_weight, "auxiliary_weight": self.auxiliary_weight}
        losses = episode_loss(prediction, batch.query_mask, batch.support_masks, **weights)
        loss = losses["loss"]
        if not torch.isfinite(loss):
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at epoch {self.current_epoch}, step {self.global_step} (learning rate "
                f"{rate:.2e}, precision {self.trainer.precision}, queries {', '.join(batch.query_name[:4])} ...); "
                f"lower model.lr, clip gradients (trainer.gradient_clip_val) or use trainer.precision=bf16-mixed or "
                f"32. The last checkpoint is intact; resume from it with --ckpt_path."
            )
        self.log("train/loss_step", loss.detach(), prog_bar=True, on_step=True, on_epoch=False)
        for name, value in losses.items():
            mean = self.train_losses[name]
            mean.update(value.detach(), weight=len(batch.query_mask))
            self.log("train/loss_epoch" if name == "loss" else f"train/{name}", mean, on_step=False, on_epoch=True)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Hold the delayed parameters until their epoch."""
        delayed = self._delayed_parameters()
        if delayed and self.current_epoch < self._start_epoch():
            for parameter in delayed:
                parameter.grad = None

    def on_validation_start(self) -> None:
        """Forget the features that other weights made; the network may also have been compiled or replaced since."""
        if self.feature_cache is not None:
            self.feature_cache.clear()
        self.predictor = Predictor(self.model, fusion=self.fusion, cache=self.feature_cache)

    on_validation_end = on_test_start = on_validation_start

    def on_test_end(self) -> None:
        """Give the memory of the features back, and keep a line about them in ``feature_cache_report``."""
        if self.feature_cache is not None:
            self.feature_cache_report = self.feature_cache.report()
        self.on_validation_end()

    def validation_step(self, batch: Episode, batch_idx: int) -> None:
        """Add a batch of episodes to the validation score."""
        score_batch(self.predictor, batch, self.val_iou)

    def test_step(self, batch: Episode, batch_idx: int) -> None:
        """Add a batch of episodes to the test score."""
        score_batch(self.predictor, batch, self.test_iou)

    def on_validation_epoch_end(self) -> None:
        """Log the validation score."""
        self._log_score("val", self.val_iou)

    def on_test_epoch_end(self) -> None:
        """Log the test score, and keep it in ``test_score``."""
        self.test_score = self._log_score("test", self.test_iou)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what builds the network again, the size of its images, and the version; go back to a whole step."""
        checkpoint.update(describe_model(self.model), version=__version__)
        checkpoint["size"] = plain(getattr(getattr(self.trainer, "datamodule", None), "size", None))
        if batches := open_batches(self.trainer):
            rewind_to_step(checkpoint, batches, self._buffers_at_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring a checkpoint of version 0.1.0 to today's form, and one of a compiled or wrapped network to this one's
        names."""
        upgrade_checkpoint(checkpoint)
        own = {plain_name(name): name for name in self.state_dict()}
        checkpoint["state_dict"] = {own.get(plain_name(k), k): value for k, value in checkpoint["state_dict"].items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of the schedule; the rate moves on after every step."""
        groups = parameter_groups(self.model, self.lr, self.lr_multipliers)
        steps = self._steps()
        if steps is None and self.backbone_start_epoch is None and self._delayed_parameters():
            raise InputError(
                "``backbone_start_epoch``: expected an epoch, where the number of epochs and steps is not known "
                "(max_epochs=-1, max_steps=-1), got None, a quarter of them; 0 trains all parameters from the start."
            )
        optimizer, scheduler = build_schedule(
            self.schedule, groups, steps=steps, momentum=self.momentum, weight_decay=self.weight_decay
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _start_epoch(self) -> int:
        if self.backbone_start_epoch is not None:
            return self.backbone_start_epoch
        batches = self.trainer.num_training_batches
        epoch_steps = math.inf if batches == math.inf else math.ceil(batches / self.trainer.accumulate_grad_batches)
        return math.ceil((self._steps() or 0) / max(epoch_steps, 1)) // 4

    def _steps(self) -> int | None:
        """Steps of the whole training, None where time alone ends it."""
        steps = self.trainer.estimated_stepping_batches
        return None if steps in (math.inf, -1) else int(steps)

    def _delayed_parameters(self) -> list[nn.Parameter]:
        delayed = getattr(unwrapped(self.model), "delayed_parameters", None)
        return [] if delayed is None else list(delayed())

    def _log_score(self, stage: str, metric: EpisodeIoU) -> Score:
        score: Score = metric.compute()
        metric.reset()
        self.log_dict({f"{stage}/miou": score.miou, f"{stage}/fb_iou": score.fb_iou}, prog_bar=stage == "val")
        return score
