"""The forward that all networks share."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dpcn_modules._checks import check_shapes
from dpcn_modules.interface import ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone


class FewShotNetwork(nn.Module):
    """Encode the pictures, encode the support, decode the query; the base class of all networks.

    A network says how it makes features of pictures (`_image_features`), what it keeps of a support set
    (`encode_support`) and how it segments by that (`decode`). The three are also doors of their own: a support set is
    encoded once for many queries, and a picture once for many episodes.

    Args:
        backbone: gives the features of three stages, shared by query and support.
        query_to_support: in training, also segment the support by the query and its predicted mask (DPCN's Eq. 13,
            PANet's alignment).

    Attributes:
        recipe: name and changes that :func:`dpcn_modules.models.build_model` was called with; goes into checkpoints.

    Shape:
        - query_image: ``(B, 3, Hi, Wi)``, normalised with the ImageNet mean and std
        - support_images: ``(B, K, 3, His, Wis)``, or ``(B, 3, His, Wis)`` for one shot
        - support_masks: ``(B, K, His, Wis)`` or ``(B, His, Wis)`` in {0, 1, 255}
        - output: :class:`dpcn_modules.interface.Prediction`, logits ``(B, 2, Hi, Wi)``

    Raises:
        ValueError: from forward: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.
    """

    reads_support_high = True
    """The support's high-level feature is looked at as the backbone gives it."""

    def __init__(self, backbone: Backbone, *, query_to_support: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
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
        support = self.encode_image(support_images, high=self.reads_support_high)
        size = (query_image.shape[-2], query_image.shape[-1])
        prediction = self.decode(query, self.encode_support(support, support_masks), size)
        if self.training and self.query_to_support:
            predicted_mask = (prediction.logits[:, 1] > prediction.logits[:, 0]).long()
            support_size = (support_images.shape[-2], support_images.shape[-1])
            support_logits = self._segment_support(query, predicted_mask, support, support_size)
            prediction = prediction._replace(support_logits=support_logits)
        return prediction

    def encode_image(self, image: Tensor, *, high: bool = True) -> ImageFeatures:
        """Make the features of pictures, once for any number of episodes.

        Args:
            image: ``(B, 3, Hi, Wi)`` or ``(B, K, 3, Hi, Wi)``.
            high: make the high-level feature too; without it, and in a network that never looks at it, the feature
                of layer3 stands in its place.

        Returns:
            mid ``(B, C_m, H, W)`` and high ``(B, C_h, H, W)``, with the axis K where it was given.
        """
        leading = image.shape[:-3]
        layer2, layer3, layer4 = self.backbone(image.reshape(-1, *image.shape[-3:]), high=high)
        features = self._image_features(resize(layer2, layer3.shape[-2:]), layer3, layer4)
        return ImageFeatures(*(feat.reshape(*leading, *feat.shape[1:]) for feat in features))

    def encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        """Make what the network keeps of a support set, once for any number of queries.

        Args:
            support: features with the axis K, as :meth:`encode_image` gives for ``(B, K, 3, Hi, Wi)``.
            support_masks: ``(B, K, Hi, Wi)`` in {0, 1, 255}.
        """
        raise NotImplementedError

    def decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        """Segment a query by an encoded support.

        Args:
            query: features of ``B`` pictures.
            support: of ``B`` support sets.
            size: ``(Hi, Wi)`` of the logits.
        """
        raise NotImplementedError

    def late_parameters(self) -> list[nn.Parameter]:
        """Parameters that start to learn after the others: the last stage of a pretrained backbone."""
        return self.backbone.late_parameters()

    def _image_features(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> ImageFeatures:
        """What is kept of a picture; layer2 has layer3's size already."""
        raise NotImplementedError

    def _segment_support(
        self, query: ImageFeatures, predicted_mask: Tensor, support: ImageFeatures, size: tuple[int, int]
    ) -> Tensor:
        """The same network with the roles swapped: ``(B, K, 2, His, Wis)``."""
        B, K = support.mid.shape[:2]
        shown = ImageFeatures(*(feat.repeat_interleave(K, 0).unsqueeze(1) for feat in query))  # BK 1 C H W
        asked = ImageFeatures(*(feat.flatten(0, 1) for feat in support))  # BK C H W
        encoded = self.encode_support(shown, predicted_mask.repeat_interleave(K, 0).unsqueeze(1))
        logits = self.decode(asked, encoded, size).logits
        return logits.reshape(B, K, *logits.shape[1:])


def resize(feat: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, corners aligned, as the field's networks do: exact for stride 8 at 473 = 8 * 59 + 1."""
    if tuple(feat.shape[-2:]) == tuple(size):
        return feat
    return F.interpolate(feat, tuple(size), mode="bilinear", align_corners=True)


def each_shot(part: Callable[[Tensor], Tensor], feat: Tensor) -> Tensor:
    """Put features ``(B, K, C, H, W)`` through a part for ``(N, C, H, W)``."""
    result = part(feat.flatten(0, 1))
    return result.reshape(*feat.shape[:2], *result.shape[1:])
