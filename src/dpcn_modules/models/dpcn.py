"""DPCN, the dynamic prototype convolution network (Fig. 2)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dpcn_modules._checks import check_shapes
from dpcn_modules.functional import masked_average_pool, resize_mask
from dpcn_modules.interface import ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.modules import (
    Decoder,
    DynamicConvolutionModule,
    FeatureFilteringModule,
    SupportActivationModule,
)


class DPCN(nn.Module):
    """Segment a query by what its support shows: activate (SAM), filter (FFM), convolve (DCM), decode.

    Parts are handed in; :func:`dpcn_modules.models.build_model` holds the numbers. Without a part the network is the
    paper's ablation of it (Table 3), without all three its baseline.

    Args:
        backbone: gives the features of three stages, shared by query and support.
        reduction: brings concatenated stages 2 and 3 to C channels, shared by query and support.
        decoder: from the concatenation to the logits.
        support_activation: SAM; with the one window (1, 1) it is the prior mask.
        feature_filtering: FFM; needs ``support_activation``.
        dynamic_convolution: DCM.
        query_to_support: in training, also segment the support by the query and its predicted mask (Eq. 13).

    Attributes:
        recipe: name and changes that :func:`dpcn_modules.models.build_model` was called with; goes into checkpoints.

    Shape:
        - query_image: ``(B, 3, Hi, Wi)``, normalised with the ImageNet mean and std
        - support_images: ``(B, K, 3, His, Wis)``, or ``(B, 3, His, Wis)`` for one shot
        - support_masks: ``(B, K, His, Wis)`` or ``(B, His, Wis)`` in {0, 1, 255}
        - output: :class:`dpcn_modules.interface.Prediction`, logits ``(B, 2, Hi, Wi)``

    Raises:
        ValueError: ``feature_filtering`` without ``support_activation``; from forward: shapes disagree, a mask value
            is not 0, 1 or 255, or a feature is not finite.

    Note:
        The predicted mask of the query-to-support branch is hard, and carries no gradient. docs/paper_gaps.md lists
        every point that the paper leaves open.

    Reference: Liu et al., CVPR 2022, sec. 3, fig. 2, eq. 1-14.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        reduction: nn.Module,
        decoder: Decoder,
        support_activation: SupportActivationModule | None = None,
        feature_filtering: FeatureFilteringModule | None = None,
        dynamic_convolution: DynamicConvolutionModule | None = None,
        query_to_support: bool = True,
    ) -> None:
        super().__init__()
        if feature_filtering is not None and support_activation is None:
            raise ValueError(
                "``feature_filtering``: expected a ``support_activation`` beside it, whose pseudo mask it refines, got "
                "None; SupportActivationModule(windows=((1, 1),)) is the prior mask that the paper uses without SAM."
            )
        self.backbone = backbone
        self.reduction = reduction
        self.support_activation = support_activation
        self.feature_filtering = feature_filtering
        self.dynamic_convolution = dynamic_convolution
        self.decoder = decoder
        self.query_to_support = query_to_support
        self.recipe: dict[str, Any] = {}

    def forward(self, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Prediction:
        """Segment the query of every episode."""
        if support_images.ndim == 4:
            support_images = support_images.unsqueeze(1)
        if support_masks.ndim == 3:
            support_masks = support_masks.unsqueeze(1)
        check_shapes(
            query_image=(query_image, "B 3 Hi Wi"),
            support_images=(support_images, "B K 3 His Wis"),
            support_masks=(support_masks, "B K His Wis"),
        )
        query = self.encode_image(query_image)
        support = self.encode_image(support_images)
        size = (query_image.shape[-2], query_image.shape[-1])
        prediction = self.decode(query, self.encode_support(support, support_masks), size)
        if self.training and self.query_to_support:
            predicted_mask = (prediction.logits[:, 1] > prediction.logits[:, 0]).long()
            support_size = (support_images.shape[-2], support_images.shape[-1])
            support_logits = self._segment_support(query, predicted_mask, support, support_size)
            prediction = prediction._replace(support_logits=support_logits)
        return prediction

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """Make the features of pictures, once for any number of episodes.

        Args:
            image: ``(B, 3, Hi, Wi)`` or ``(B, K, 3, Hi, Wi)``.

        Returns:
            mid ``(B, C, H, W)`` and high ``(B, C_h, H, W)``, with the axis K where it was given.
        """
        leading = image.shape[:-3]
        layer2, layer3, layer4 = self.backbone(image.reshape(-1, *image.shape[-3:]))
        layer2 = _resize(layer2, layer3.shape[-2:])
        mid = self.reduction(torch.cat([layer2, layer3], dim=1))
        return ImageFeatures(mid.reshape(*leading, *mid.shape[1:]), layer4.reshape(*leading, *layer4.shape[1:]))

    def encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        """Make the prototype and the kernels of a support set, once for any number of queries.

        Args:
            support: features with the axis K, as :meth:`encode_image` gives for ``(B, K, 3, Hi, Wi)``.
            support_masks: ``(B, K, Hi, Wi)`` in {0, 1, 255}.
        """
        mask = resize_mask(support_masks, (support.mid.shape[-2], support.mid.shape[-1]))
        prototype = masked_average_pool(support.mid, mask)
        dcm = self.dynamic_convolution
        kernels = dcm.generate_kernels(support.mid, mask) if dcm is not None else ()
        return SupportFeatures(support.high, mask, prototype, kernels)

    def decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        """Segment a query by an encoded support.

        Args:
            query: features of ``B`` pictures.
            support: of ``B`` support sets.
            size: ``(Hi, Wi)`` of the logits.
        """
        x_q, maps, initial, refined = query.mid, None, None, None
        x_p = support.prototype[:, :, None, None].expand_as(x_q)
        if self.support_activation is not None:
            maps, initial = self.support_activation(query.high, support.high, support.mask)
            maps, initial = _resize(maps, x_q.shape[-2:]), _resize(initial, x_q.shape[-2:])
        if self.feature_filtering is not None:
            x_q, refined = self.feature_filtering(x_q, support.prototype, initial)
        if self.dynamic_convolution is not None:
            x_q = self.dynamic_convolution.apply_kernels(x_q, support.kernels)
        x_out = torch.cat([part for part in (x_q, x_p, maps, refined) if part is not None], dim=1)  # Eq. 9
        logits = _resize(self.decoder(x_out), size)
        return Prediction(logits, activation_maps=maps, initial_mask=initial, refined_mask=refined)

    def late_parameters(self) -> list[nn.Parameter]:
        """Parameters that start to learn after the others: the last stage of a pretrained backbone."""
        return self.backbone.late_parameters()

    def _segment_support(
        self, query: ImageFeatures, predicted_mask: Tensor, support: ImageFeatures, size: tuple[int, int]
    ) -> Tensor:
        """The same network with the roles swapped (Eq. 13): ``(B, K, 2, His, Wis)``."""
        B, K = support.mid.shape[:2]
        shown = ImageFeatures(*(feat.repeat_interleave(K, 0).unsqueeze(1) for feat in query))  # BK 1 C H W
        asked = ImageFeatures(*(feat.flatten(0, 1) for feat in support))  # BK C H W
        encoded = self.encode_support(shown, predicted_mask.repeat_interleave(K, 0).unsqueeze(1))
        logits = self.decode(asked, encoded, size).logits
        return logits.reshape(B, K, *logits.shape[1:])


def _resize(feat: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(feat.shape[-2:]) == tuple(size):
        return feat
    return F.interpolate(feat, tuple(size), mode="bilinear", align_corners=True)
