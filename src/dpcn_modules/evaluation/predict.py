"""From images to masks, by one path: encode, decode, several scales, original size, fuse the shots."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpcn_modules._checks import check_choice, check_shapes, with_shot_axis
from dpcn_modules.data import Episode, View
from dpcn_modules.errors import InputError, InputTypeError
from dpcn_modules.evaluation.feature_cache import FeatureCache
from dpcn_modules.functional.pooling import shots_with_foreground
from dpcn_modules.interface import EncodeDecodeModel, FewShotModel, ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.fusion import FUSIONS, Fusion, fuse_shots
from dpcn_modules.models.network import encode_support_images, shot_predictions

_STEPS = ("encode_image", "encode_support", "decode")


class Predictor:
    """Segment queries by their supports, at their original size.

    Put the network into evaluation mode first; no gradient is recorded. Images are converted to the precision of its
    weights.

    Args:
        model: the network. One that ``torch.compile`` returned runs compiled in every step, with the same options. A
            network without the encode / decode API is called as a whole; that needs ``fusion="concat"`` and no cache.
        fusion: how K shots become one mask: "concat" gives the network all of them together; "vote", "average" and "or"
            segment by each shot alone, bring each result to the original size and fuse them there (`fuse_shots`).
        cache: keeps the features of the images of episodes, so that each image is encoded once.

    Raises:
        ValueError: an unknown ``fusion``.
        TypeError: ``fusion`` or ``cache`` needs the encode / decode API, which the network lacks.
    """

    def __init__(self, model: FewShotModel, *, fusion: Fusion = "concat", cache: FeatureCache | None = None) -> None:
        check_choice("fusion", fusion, FUSIONS)
        missing = [name for name in _STEPS if not callable(getattr(model, name, None))]
        if missing and (fusion != "concat" or cache is not None):
            otherwise = "fusion='concat'" if fusion != "concat" else "feature_cache=0"
            raise InputTypeError(
                f"``model``: expected a network with the encode / decode API, got {type(model).__name__} "
                f"without {', '.join(missing)}; add these methods of dpcn_modules.interface.EncodeDecodeModel, or use "
                f"{otherwise}."
            )
        self.model = model
        self.fusion: Fusion = fusion
        self.cache = cache
        self._steps = None if missing else _steps_of(model)

    @torch.no_grad()
    def masks(self, batch: Episode) -> list[Tensor]:
        """Segment the queries of collated episodes, seen at every size that the batch has: B masks ``(Hi, Wi)`` int64
        in {0, 1}, each of its query's original size."""
        if self.fusion == "concat":
            return [predicted_mask(logits[0]) for logits in self.logits(batch)]
        _, support_masks = with_shot_axis(batch.support_images, batch.support_masks)
        present = shots_with_foreground(support_masks == 1)
        present |= ~present.any(1, keepdim=True)
        return [
            fuse_shots(logits[shots.to(logits.device)], self.fusion)
            for logits, shots in zip(self.logits(batch), present, strict=True)
        ]

    @torch.no_grad()
    def logits(self, batch: Episode) -> list[Tensor]:
        """Give the logits of collated episodes at original size, before the shots are fused: B times
        ``(K, 2, Hi, Wi)``, where K is 1 with "concat"."""
        names = (batch.query_name, batch.support_names)
        views = (View(batch.query_image, batch.support_images, batch.support_masks), *batch.views)
        seen = [torch.stack([each.logits for each in self.predict(view, names)], 1) for view in views]  # B K 2 S S
        sizes = batch.query_size.tolist()
        return [fuse_scales([logits[i] for logits in seen], tuple(size)) for i, size in enumerate(sizes)]

    @torch.no_grad()
    def predict(self, view: View, names: tuple[Any, Any] | None = None) -> list[Prediction]:
        """Segment the queries of a batch at one size: one prediction with "concat", otherwise one for each shot.

        Args:
            view: collated.
            names: of the queries and of the supports; the cache needs them.

        Raises:
            ValueError: shapes disagree, there is no shot, a mask value is not 0, 1 or 255, or a feature is not finite.
        """
        if self._steps is None or (self.fusion == "concat" and self.cache is None):
            images = self._as_weights(view.query_image), self._as_weights(view.support_images)
            return [self.model(*images, view.support_masks)]  # a forward is made of the same steps
        view = View(view.query_image, *with_shot_axis(view.support_images, view.support_masks))
        check_shapes(
            query_image=(view.query_image, "B 3 Hi Wi"),
            support_images=(view.support_images, "B K 3 His Wis"),
            support_masks=(view.support_masks, "B K His Wis"),
        )
        query, support = self.encode(view, names)
        size = (view.query_image.shape[-2], view.query_image.shape[-1])
        return shot_predictions(self._steps, query, support, view.support_masks, size=size, fusion=self.fusion)

    @torch.no_grad()
    def encode(self, view: View, names: tuple[Any, Any] | None = None) -> tuple[ImageFeatures, ImageFeatures]:
        """Make the features of queries ``(B, C, H, W)`` and supports ``(B, K, C, H, W)``, or take cached ones."""
        steps = self._steps or cast(EncodeDecodeModel, self.model)
        images = self._as_weights(view.query_image), self._as_weights(view.support_images)
        if self.cache is None or names is None:
            return steps.encode_image(images[0]), encode_support_images(steps, images[1])
        return self.cache.encode(steps, *images, query_names=names[0], support_names=names[1])

    @torch.no_grad()
    def encode_support(self, images: Tensor, masks: Tensor) -> SupportFeatures:
        """Encode one support set, normalised images ``(1, K, 3, S, S)`` with masks ``(1, K, S, S)`` in {0, 1, 255}, to
        be used on any number of queries."""
        steps = self._required_steps()
        features = encode_support_images(steps, self._as_weights(images))
        return cast(SupportFeatures, steps.encode_support(features, masks))

    @torch.no_grad()
    def query_logits(self, images: Tensor, support: SupportFeatures, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Segment queries by one encoded support set: B logits ``(2, Hi, Wi)``, float32.

        Args:
            images: ``(B, 3, S, S)``, each on its square canvas, normalised.
            support: as :meth:`encode_support` gives it.
            sizes: B times ``(Hi, Wi)`` of the original images.
        """
        steps = self._required_steps()
        canvas = (images.shape[-2], images.shape[-1])
        logits = steps.decode(steps.encode_image(self._as_weights(images)), support.expand(len(images)), canvas).logits
        return [fuse_scales([each.unsqueeze(0)], size)[0] for each, size in zip(logits, sizes, strict=True)]

    def _as_weights(self, images: Tensor) -> Tensor:
        """Images in the precision of the network's weights: bfloat16, float16 or float64 where it was converted."""
        parameters = self.model.parameters() if isinstance(self.model, nn.Module) else ()
        weight = next((each for each in parameters if each.is_floating_point()), images)
        return images.to(weight.dtype)

    def _required_steps(self) -> EncodeDecodeModel:
        if self._steps is None:
            raise InputTypeError(
                f"``model``: expected a network with {', '.join(_STEPS)}, got {type(self.model).__name__}."
            )
        return self._steps


def _steps_of(model: Any) -> EncodeDecodeModel:
    """The steps of a network; of one that ``torch.compile`` returned, each compiled as its forward is."""
    if hasattr(model, "dynamo_ctx") and hasattr(model, "_orig_mod"):
        # torch.compile wraps a module so that its forward alone is compiled; every other method would run as it is.
        inner = model._orig_mod
        steps = {name: model.dynamo_ctx(getattr(inner, name)) for name in _STEPS}
        model = SimpleNamespace(**steps, reads_support_high=getattr(inner, "reads_support_high", True))
    return cast(EncodeDecodeModel, model)


def logits_at_original_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo the test transform: resize the square canvas to the image's long side, and cut the padding off.

    Args:
        logits: of one image on its square canvas, ``(2, S, S)``, the image at the top left; else a ValueError.
        size: ``(Hi, Wi)`` of the original image.

    Returns:
        ``(2, Hi, Wi)``, float32.

    Example:
        >>> import torch
        >>> logits_at_original_size(torch.zeros(2, 64, 64), (100, 75)).shape
        torch.Size([2, 100, 75])
    """
    side = max(size)
    check_shapes(logits=(logits, f"2 {logits.shape[-1]} S"))
    square = logits.float().unsqueeze(0)
    if logits.shape[-1] != side:
        # Half-pixel centres, as the image was shrunk; the published code aligns corners, up to half a pixel off.
        square = F.interpolate(square, (side, side), mode="bilinear", align_corners=False)
    return square[0, :, : size[0], : size[1]]


def fuse_scales(views: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Bring logits that were made at several sizes to the image's size, and average the probabilities.

    Args:
        views: for each size S, the logits of K shots on their square canvas, ``(K, 2, S, S)``; else a ValueError.
        size: ``(Hi, Wi)`` of the original image.

    Returns:
        ``(K, 2, Hi, Wi)``, float32: the logits where there is one size, the logarithm of the mean probabilities where
        there are several.

    Example:
        >>> import torch
        >>> fuse_scales([torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 96, 96)], (100, 75)).shape
        torch.Size([1, 2, 100, 75])

    Reference: Liu et al., CVPR 2022, supplement, table A3.
    """
    if not views:
        raise InputError("``views``: expected the logits of at least one size, got none.")
    original = [torch.stack([logits_at_original_size(shot, size) for shot in view]) for view in views]
    return original[0] if len(views) == 1 else torch.stack([each.softmax(1) for each in original]).mean(0).log()


def predicted_mask(logits: Tensor) -> Tensor:
    """Binary argmax over the logits of background and foreground, faster on a CPU than PyTorch's own.

    Args:
        logits: ``(..., 2, H, W)``; another shape is a ValueError.

    Returns:
        ``(..., H, W)`` int64 in {0, 1}; equal logits are background.

    Example:
        >>> import torch
        >>> predicted_mask(torch.tensor([0.0, 1.0]).reshape(2, 1, 1)).item()
        1
    """
    leading = [f"axis{i}" for i in range(logits.ndim - 3)]
    check_shapes(logits=(logits, " ".join([*leading, "2 H W"])))
    background, foreground = logits.unbind(-3)
    return (foreground > background).long()
