"""Few-shot semantic segmentation: modules, networks, training and evaluation."""

__version__ = "0.1.0"
