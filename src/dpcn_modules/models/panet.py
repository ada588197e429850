"""PANet: prototypes of foreground and background, and the nearer one for every query position."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules.functional import masked_average_pool
from dpcn_modules.functional.pooling import resize, shots_with_foreground
from dpcn_modules.interface import ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.models.network import FewShotNetwork


class PANet(FewShotNetwork):
    """Prototype alignment network: no head, only features, prototypes and cosine similarity.

    ``logits = scale * cos(x_q, p)`` for the prototypes p of background and foreground, which are masked averages of the
    last stage's support feature, and the mean over the shots that have foreground. In training the query's predicted
    mask makes prototypes that segment the support (alignment).

    Args:
        backbone: its last stage is the feature; the published one is ``vgg16_dilated``.
        scale: of the cosine.
        query_to_support: the alignment, in training.

    Shape:
        As :class:`dpcn_modules.models.FewShotNetwork`.

    Note:
        The published code averages features that were enlarged to the mask's size; here the mask is brought to the
        feature's, as everywhere in this library.

    Reference: Wang et al., PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment, ICCV 2019.
    """

    def __init__(self, backbone: Backbone, *, scale: float = 20.0, query_to_support: bool = True) -> None:
        super().__init__(backbone, query_to_support=query_to_support)
        self.scale = scale

    def _encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        foreground = masked_average_pool(support.mid, support_masks, validate=False)
        present = shots_with_foreground(support_masks == 1)[..., None, None]  # B K 1 1
        around = (support_masks == 0) & present  # neither foreground nor void
        background = masked_average_pool(support.mid, around, validate=False)
        return SupportFeatures(torch.stack([background, foreground], dim=1))  # B 2 C

    def _decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        x_q, prototypes = F.normalize(query.mid, dim=1), F.normalize(support.prototype, dim=2)
        logits = self.scale * torch.einsum("bchw,bnc->bnhw", x_q, prototypes)
        return Prediction(resize(logits, size))

    def _image_features(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> ImageFeatures:
        return ImageFeatures(layer4, layer4)
