"""Images of masks, episodes and trainings. Figures need the extra [viz]; :func:`overlay` needs PyTorch alone."""

from dpcn_modules.viz.curves import fold_curves, training_curves
from dpcn_modules.viz.overlay import overlay
from dpcn_modules.viz.strips import EpisodeRow, episode_strip
from dpcn_modules.viz.sweep import SweepLine, SweepPoint, sweep_curve

__all__ = [
    "EpisodeImage",
    "SweepLine",
    "SweepPoint",
    "episode_strip",
    "fold_curves",
    "overlay",
    "sweep_curve",
    "training_curves",
]
