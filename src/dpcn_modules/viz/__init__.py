"""Images of masks and episodes. Figures need the extra [viz]; :func:`overlay` needs PyTorch alone."""

from dpcn_modules.viz.cells import EpisodeRow
from dpcn_modules.viz.figure import line_style, new_figure, save_figure
from dpcn_modules.viz.overlay import overlay
from dpcn_modules.viz.strips import episode_strip

__all__ = ["EpisodeRow", "episode_strip", "line_style", "new_figure", "overlay", "save_figure"]
