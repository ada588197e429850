"""What every network gives and takes, so that training and evaluation need no network by name."""

from typing import Any, NamedTuple, Protocol, Self

from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The normalisation of the images that enter every network."""


class Prediction(NamedTuple):
    """The output of a network for a batch of episodes.

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


class ImageStages(NamedTuple):
    """Features of a backbone's stages, which a network takes in the place of the image that they were made of.

    Attributes:
        size: ``(Hi, Wi)`` of the image.
        layer2: ``(B, C, H, W)`` or ``(B, K, C, H, W)``; in any floating-point type.
        layer3: likewise, with channels and size of its own.
        layer4: likewise; None where the network makes it of layer3.
    """

    size: tuple[int, int]
    layer2: Tensor
    layer3: Tensor
    layer4: Tensor | None = None


class ImageFeatures(NamedTuple):
    """Features of an image, made once and used in many episodes.

    Attributes:
        mid: mid-level feature, ``(B, C, H, W)`` or ``(B, K, C, H, W)``.
        high: high-level feature, ``(B, C_h, H, W)`` or ``(B, K, C_h, H, W)``.
    """

    mid: Tensor
    high: Tensor


class SupportFeatures(NamedTuple):
    """What a network keeps of a support set: made once, used on many queries.

    Attributes:
        prototype: ``(B, C)``; CANet's, one for each shot, ``(B, K, C)``; PANet's, of background and foreground,
            ``(B, 2, C)``.
        kernels: dynamic kernels by branch, each ``(B, C, kh, kw)``; empty without DCM.
        high: high-level features, ``(B, K, C_h, H, W)``; None where a network does not look at them again.
        mask: masks at feature size, ``(B, K, H, W)`` in {0, 1}; likewise.
    """

    prototype: Tensor
    kernels: tuple[Tensor, ...] = ()
    high: Tensor | None = None
    mask: Tensor | None = None

    def expand(self, count: int) -> Self:
        """The same support set for ``count`` queries: the first axis of every tensor grows from 1, without a copy."""

        def repeat(tensor: Tensor) -> Tensor:
            return tensor.expand(count, *tensor.shape[1:])

        high, mask = (None if each is None else repeat(each) for each in (self.high, self.mask))
        return type(self)(repeat(self.prototype), tuple(map(repeat, self.kernels)), high, mask)


class FewShotModel(Protocol):
    """The forward that every network has. Images are normalised as the ImageNet weights want them."""

    def __call__(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Prediction:
        """``(B, 3, Hi, Wi)``, ``(B, K, 3, Hi, Wi)`` and ``(B, K, Hi, Wi)`` in {0, 1, 255}."""


class EncodeDecodeModel(FewShotModel, Protocol):
    """A network whose forward can also be called in steps, so that what is encoded once serves many times.

    What it keeps of a support set is up to the network: `decode` reads what `encode_support` returned. A network whose
    ``reads_support_high`` is False also takes ``encode_image(image, high=False)``.
    """

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """``(B, 3, Hi, Wi)`` or ``(B, K, 3, Hi, Wi)`` to features."""

    def encode_support(self, support: ImageFeatures, support_masks: Tensor) -> Any:
        """Features with the axis K, and masks ``(B, K, Hi, Wi)`` in {0, 1, 255}, to what the network keeps of them."""

    def decode(self, query: ImageFeatures, support: Any, size: tuple[int, int]) -> Prediction:
        """Features of ``B`` queries and ``B`` encoded supports to logits ``(B, 2, *size)``."""
