"""Training and testing with Lightning; needs the extra [train]."""

from dpcn_modules._checks import require

require("lightning", "torchmetrics", extra="train")

from dpcn_modules.training.datamodule import EpisodeDataModule  # noqa: E402
from dpcn_modules.training.task import FewShotTask  # noqa: E402

__all__ = ["EpisodeDataModule", "FewShotTask"]
