"""Pictures of masks, episodes and trainings. Figures need the extra [viz]; :func:`overlay` needs PyTorch alone."""

from dpcn_modules.viz.curves import training_curves
from dpcn_modules.viz.overlay import overlay
from dpcn_modules.viz.strips import EpisodePicture, episode_strip

__all__ = ["EpisodePicture", "episode_strip", "overlay", "training_curves"]
