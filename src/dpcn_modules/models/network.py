"""The forward that all networks share: encode the images, encode the support, decode the query, fuse the shots."""

from collections.abc import Callable

from torch import Tensor, nn

from dpcn_modules._checks import check_shapes, check_values, with_shot_axis
from dpcn_modules.functional.pooling import resize, shots_with_foreground
from dpcn_modules.interface import EncodeDecodeModel, ImageFeatures, ImageStages, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.models.fusion import Fusion
from dpcn_modules.models.settings import Settings


class FewShotNetwork(nn.Module):
    """Encode the images, encode the support, decode the query; the base class of all networks.

    `encode_image`, `encode_support` and `decode` can be called one by one. They check their inputs and call the steps
    that a network defines: what it keeps of an image (`_image_features`), of a support set (`_encode_support`), and how
    it segments (`_decode`).

    Args:
        backbone: gives the features of three stages, shared by query and support.
        query_to_support: in training, also segment the support by the query and its predicted mask (DPCN's Eq. 13,
            PANet's alignment).

    Attributes:
        name: that :func:`dpcn_modules.models.build_model` built it by; empty for a network built by hand.
        settings: that it was built with, or None; name and settings are kept in checkpoints.

    Shape:
        - query_image: ``(B, 3, Hi, Wi)``, normalised with the ImageNet mean and std, or
          :class:`dpcn_modules.interface.ImageStages`
        - support_images: ``(B, K, 3, His, Wis)``, or ``(B, 3, His, Wis)`` for one shot, or stages with the axis K
        - support_masks: ``(B, K, His, Wis)`` or ``(B, His, Wis)`` in {0, 1, 255}
        - output: :class:`dpcn_modules.interface.Prediction`, logits ``(B, 2, Hi, Wi)``

    Raises:
        ValueError: from forward: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.
    """

    reads_support_high = True
    """The support's high-level feature is read as the backbone gives it."""

    def __init__(self, backbone: Backbone, *, query_to_support: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.query_to_support = query_to_support
        self.name = ""
        self.settings: Settings | None = None

    def forward(
        self, query_image: Tensor | ImageStages, support_images: Tensor | ImageStages, support_masks: Tensor
    ) -> Prediction:
        """Segment the query of every episode."""
        shots = support_images if isinstance(support_images, Tensor) else support_images.layer3
        shots, support_masks = with_shot_axis(shots, support_masks)
        support_images = shots if isinstance(support_images, Tensor) else support_images
        lengths = check_shapes(
            **_shapes("query_image", query_image, "B", "3 Hi Wi"),
            **_shapes("support_images", support_images, "B K", "3 His Wis"),
            support_masks=(support_masks, "B K His Wis"),
        )
        query = self._encode_image(query_image)
        support = self._encode_image(support_images, high=self.reads_support_high)
        check_values(masks={"support_masks": support_masks}, features=_by_name(query=query, support=support))
        size = query_image.size if isinstance(query_image, ImageStages) else (lengths["Hi"], lengths["Wi"])
        prediction = self._decode(query, self._encode_support(support, support_masks), size)
        if self.training and self.query_to_support:
            predicted_mask = (prediction.logits[:, 1] > prediction.logits[:, 0]).long()
            support_size = (lengths["His"], lengths["Wis"])
            support_logits = self._segment_support(query, predicted_mask, support, support_size)
            prediction = prediction._replace(support_logits=support_logits)
        return prediction

    def encode_image(self, image: Tensor, *, high: bool = True) -> ImageFeatures:
        """Make the features of images, once for any number of episodes.

        Args:
            image: ``(B, 3, Hi, Wi)`` or ``(B, K, 3, Hi, Wi)``.
            high: make the high-level feature too; without it, and in a network that never reads it, the feature
                of layer3 stands in its place.

        Returns:
            mid ``(B, C_m, H, W)`` and high ``(B, C_h, H, W)``, with the axis K where it was given.

        Raises:
            TypeError, ValueError: no tensor, or another shape.
        """
        check_shapes(image=(image, "B 3 Hi Wi" if isinstance(image, Tensor) and image.ndim == 4 else "B K 3 Hi Wi"))
        return self._encode_image(image, high=high)

    def encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        """Make what :meth:`decode` reads of a support set, once for any number of queries; errors as from forward.

        Args:
            support: features with the axis K, as :meth:`encode_image` gives for ``(B, K, 3, Hi, Wi)``.
            support_masks: ``(B, K, Hi, Wi)`` in {0, 1, 255}.
        """
        mid, support_masks = with_shot_axis(support.mid, support_masks)
        check_shapes(support_feat=(mid, "B K C H W"), support_masks=(support_masks, "B K Hi Wi"))
        check_values(masks={"support_masks": support_masks}, features=_by_name(support=support))
        return self._encode_support(support, support_masks)

    def decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        """Segment ``B`` queries by ``B`` encoded supports; errors as from forward.

        Returns:
            Logits ``(B, 2, Hi, Wi)`` for ``size`` = ``(Hi, Wi)``, and what the network shows beside them.
        """
        prototype = support.prototype
        letters = "B C" if prototype.ndim == 2 else "B N C"
        check_shapes(query_feat=(query.mid, "B Cq H W"), prototype=(prototype, letters))
        check_values(features=_by_name(query=query))
        return self._decode(query, support, size)

    def delayed_parameters(self) -> list[nn.Parameter]:
        """Parameters that start to train after the others: the last stage of a pretrained backbone."""
        return self.backbone.delayed_parameters()

    def _encode_image(self, image: Tensor | ImageStages, *, high: bool = True) -> ImageFeatures:
        if isinstance(image, ImageStages):
            leading = image.layer3.shape[:-3]
            layer2, layer3, layer4 = self._last_stages(image, high=high)
        else:
            leading = image.shape[:-3]
            layer2, layer3, layer4 = self.backbone(image.reshape(-1, *image.shape[-3:]), high=high)
        features = self._image_features(resize(layer2, layer3.shape[-2:]), layer3, layer4)
        return ImageFeatures(*(feat.reshape(*leading, *feat.shape[1:]) for feat in features))

    def _last_stages(self, stages: ImageStages, *, high: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The stages without the axis K, in the precision of the weights; layer4 is made where it is not there."""
        dtype = next(self.parameters()).dtype
        layer2, layer3 = (each.flatten(0, -4).to(dtype) for each in (stages.layer2, stages.layer3))
        if not high:
            return layer2, layer3, layer3
        if stages.layer4 is None:
            return layer2, layer3, self.backbone.last(layer3)
        return layer2, layer3, stages.layer4.flatten(0, -4).to(dtype)

    def _image_features(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> ImageFeatures:
        """What is kept of an image; layer2 has layer3's size already."""
        raise NotImplementedError

    def _encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        raise NotImplementedError

    def _decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        raise NotImplementedError

    def _segment_support(
        self, query: ImageFeatures, predicted_mask: Tensor, support: ImageFeatures, size: tuple[int, int]
    ) -> Tensor:
        """The same network with the roles swapped: ``(B, K, 2, His, Wis)``."""
        B, K = support.mid.shape[:2]
        shown = ImageFeatures(*(feat.repeat_interleave(K, 0).unsqueeze(1) for feat in query))  # BK 1 C H W
        asked = ImageFeatures(*(feat.flatten(0, 1) for feat in support))  # BK C H W
        encoded = self._encode_support(shown, predicted_mask.repeat_interleave(K, 0).unsqueeze(1))
        return self._decode(asked, encoded, size).logits.reshape(B, K, 2, *size)


def _shapes(name: str, image: Tensor | ImageStages, leading: str, axes: str) -> dict[str, tuple[Tensor, str]]:
    """What `check_shapes` compares of images, or of their stages."""
    if not isinstance(image, ImageStages):
        return {name: (image, f"{leading} {axes}")}
    stages = (("layer2", image.layer2), ("layer3", image.layer3), ("layer4", image.layer4))
    return {
        f"{name}.{layer}": (feat, f"{leading} C{layer[-1]} H{layer[-1]} W{layer[-1]}")
        for layer, feat in stages
        if feat is not None
    }


def encode_support_images(model: EncodeDecodeModel, images: Tensor) -> ImageFeatures:
    """Make the features of support images ``(B, K, 3, Hi, Wi)``, without a high level that the network never reads."""
    if getattr(model, "reads_support_high", True):
        return model.encode_image(images)
    return model.encode_image(images, high=False)  # type: ignore[call-arg]


def shot_predictions(
    model: EncodeDecodeModel,
    query: ImageFeatures,
    support: ImageFeatures,
    support_masks: Tensor,
    *,
    size: tuple[int, int],
    fusion: Fusion = "concat",
) -> list[Prediction]:
    """Segment every query by its shots: by all of them together, or by each one alone, to be fused.

    Args:
        model: the network, in evaluation mode.
        query: features of ``B`` images.
        support: of ``B`` times K images.
        support_masks: ``(B, K, His, Wis)`` in {0, 1, 255}.
        size: ``(Hi, Wi)`` of the logits.
        fusion: "concat" makes one prediction of all shots, as the network's forward does; the others K, one of each.

    Raises:
        ValueError: there is no shot, or as `encode_support` and `decode`.
    """
    K = check_shapes(support_feat=(support.mid, "B K C H W"))["K"]
    group = K if fusion == "concat" else 1
    if group < K:
        check_values(masks={"support_masks": support_masks})
        # A shot that is void beside others with foreground is no reason to warn, and networks read it as empty.
        empty = ~shots_with_foreground(support_masks == 1)
        support_masks = support_masks.masked_fill(empty[..., None, None], 0)
    predictions = []
    for k in range(0, K, group):
        shots = ImageFeatures(*(feat[:, k : k + group] for feat in support))  # B group C H W
        encoded = model.encode_support(shots, support_masks[:, k : k + group])
        predictions.append(model.decode(query, encoded, size))
    return predictions


def each_shot(part: Callable[[Tensor], Tensor], feat: Tensor) -> Tensor:
    """Put features ``(B, K, C, H, W)`` through a part for ``(N, C, H, W)``."""
    result = part(feat.flatten(0, 1))
    return result.reshape(*feat.shape[:2], *result.shape[1:])


def _by_name(**features: ImageFeatures) -> dict[str, Tensor]:
    """The levels of images' features by name; a level that stands for both counts once."""
    named: dict[str, Tensor] = {}
    for role, (mid, high) in features.items():
        named[f"{role}_feat (mid level)"] = mid
        if high is not mid:
            named[f"{role}_feat (high level)"] = high
    return named
