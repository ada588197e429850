"""What every network gives and takes, so that training and evaluation need no network by name."""

from typing import NamedTuple, Protocol

from torch import Tensor


class Prediction(NamedTuple):
    """What a network says of an episode.

    Attributes:
        logits: background and foreground, ``(B, 2, Hi, Wi)``.
        auxiliary_logits: further outputs to be trained on against the query mask, each ``(B, 2, H, W)``.
        support_logits: the query-to-support branch, ``(B, K, 2, Hi, Wi)``; only in training.
        activation_maps: ``(B, A, H, W)`` in [0, 1].
        initial_mask: initial pseudo mask, ``(B, 1, H, W)`` in [0, 1].
        refined_mask: refined pseudo mask, ``(B, 1, H, W)`` in [0, 1].
    """

    logits: Tensor
    auxiliary_logits: tuple[Tensor, ...] = ()
    support_logits: Tensor | None = None
    activation_maps: Tensor | None = None
    initial_mask: Tensor | None = None
    refined_mask: Tensor | None = None


class ImageFeatures(NamedTuple):
    """Features of a picture, made once and used in many episodes.

    Attributes:
        mid: mid-level feature, ``(B, C, H, W)`` or ``(B, K, C, H, W)``.
        high: high-level feature, ``(B, C_h, H, W)`` or ``(B, K, C_h, H, W)``.
    """

    mid: Tensor
    high: Tensor


class SupportFeatures(NamedTuple):
    """What a support set says of its class, made once and used on many queries.

    Attributes:
        high: high-level features, ``(B, K, C_h, H, W)``.
        mask: masks at feature size, ``(B, K, H, W)`` in {0, 1}.
        prototype: ``(B, C)``.
        kernels: dynamic kernels by branch, each ``(B, C, kh, kw)``; empty without DCM.
    """

    high: Tensor
    mask: Tensor
    prototype: Tensor
    kernels: tuple[Tensor, ...] = ()


class FewShotModel(Protocol):
    """The forward that every network has. Pictures are normalised as the ImageNet weights want them."""

    def __call__(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Prediction:
        """``(B, 3, Hi, Wi)``, ``(B, K, 3, Hi, Wi)`` and ``(B, K, Hi, Wi)`` in {0, 1, 255}."""
        ...
