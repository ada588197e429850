"""DPCN, the dynamic prototype convolution network (Fig. 2)."""

import torch
from torch import Tensor, nn

from dpcn_modules.errors import InputError
from dpcn_modules.functional import masked_average_pool, resize_mask
from dpcn_modules.functional.pooling import resize
from dpcn_modules.interface import ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.modules import Decoder, DynamicConvolutionModule, FeatureFilteringModule, SupportActivationModule


class DPCN(FewShotNetwork):
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

    Shape:
        As :class:`dpcn_modules.models.FewShotNetwork`.

    Raises:
        ValueError: ``feature_filtering`` without ``support_activation``; from forward, as the base class.

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
        super().__init__(backbone, query_to_support=query_to_support)
        if feature_filtering is not None and support_activation is None:
            raise InputError(
                "``feature_filtering``: expected a ``support_activation`` beside it, whose pseudo mask it refines, got "
                "None; SupportActivationModule(windows=((1, 1),)) is the prior mask that the paper uses without SAM."
            )
        self.reduction = reduction
        self.support_activation = support_activation
        self.feature_filtering = feature_filtering
        self.dynamic_convolution = dynamic_convolution
        self.decoder = decoder

    def _encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        mask = resize_mask(support_masks, (support.mid.shape[-2], support.mid.shape[-1]), validate=False)
        prototype = masked_average_pool(support.mid, mask, validate=False)
        dcm = self.dynamic_convolution
        kernels = dcm.generator(support.mid, mask) if dcm is not None else ()
        return SupportFeatures(prototype, kernels, support.high, mask)

    def _decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        x_q, maps, initial, refined = query.mid, None, None, None
        x_p = support.prototype[:, :, None, None].expand_as(x_q)
        if self.support_activation is not None:
            maps, initial = self.support_activation(query.high, support.high, support.mask)
            maps, initial = resize(maps, x_q.shape[-2:]), resize(initial, x_q.shape[-2:])
        if self.feature_filtering is not None:
            x_q, refined = self.feature_filtering(x_q, support.prototype, initial)
        if self.dynamic_convolution is not None:
            x_q = self.dynamic_convolution.application(x_q, support.kernels)
        x_out = torch.cat([part for part in (x_q, x_p, maps, refined) if part is not None], dim=1)  # Eq. 9
        logits = resize(self.decoder(x_out), size)
        return Prediction(logits, activation_maps=maps, initial_mask=initial, refined_mask=refined)

    def _image_features(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> ImageFeatures:
        return ImageFeatures(self.reduction(torch.cat([layer2, layer3], dim=1)), layer4)
