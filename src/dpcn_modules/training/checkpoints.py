"""Checkpoints that are complete files of whole steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from dpcn_modules.data.datasets.files import replacing


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and move it there, so that a killed process leaves the old one or the new.

    Lightning writes to the system's folder of temporary files first. Where that is another file system (a RAM disk),
    its move is a copy, which a kill can cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a file; paths of other storage ("s3://...") and options for it are Lightning's to handle."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(Path(path)) as part:
            torch.save(checkpoint, part)


def open_batches(trainer: Trainer) -> int:
    """Number of batches whose gradients wait for the next step, where gradients are accumulated."""
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return 0 if ready == trainer.num_training_batches else ready % trainer.accumulate_grad_batches


def rewind_to_step(checkpoint: dict[str, Any], batches: int, buffers: Mapping[str, Tensor]) -> None:
    """Make a checkpoint from between two steps that of the first one, in place: gradients are not in checkpoints.

    Args:
        checkpoint: of Lightning.
        batches: how many were accumulated since the step, see :func:`open_batches`.
        buffers: the entries of the state dict that are no parameters, as they were at the step.
    """
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        done = counts["ready"] - batches
        # Lightning counts a batch as completed after the hook in which checkpoints are saved.
        counts.update(ready=done, started=done, processed=done, completed=done)
    progress["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1  # Lightning adds one on restart
    # With averaged weights, "state_dict" has the averages, which change at steps only.
    checkpoint.get("current_model_state", checkpoint["state_dict"]).update(buffers)
