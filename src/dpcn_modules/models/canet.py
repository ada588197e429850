"""CANet: compare the query with the support's prototype, then refine the prediction iteratively."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from dpcn_modules.errors import InputError
from dpcn_modules.functional.pooling import resize, shots_with_foreground, soft_average_pool, soft_masks
from dpcn_modules.interface import ImageFeatures, Prediction, SupportFeatures
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.models.host import HostNetwork
from dpcn_modules.models.network import each_shot
from dpcn_modules.modules import ASPP
from dpcn_modules.modules.decoder import init_for_relu


class IterativeOptimization(nn.Module):
    """Segment by the comparison feature and the previous prediction.

    Three pre-activation residual blocks of two 3 x 3 convolutions, the first of which sees the previous prediction
    too; ASPP; 1 x 1 to C; 1 x 1 to two logits. Arguments are those of :class:`ASPP`.

    Shape:
        - feat: comparison feature, ``(B, C, H, W)``
        - history: probabilities of background and foreground, ``(B, 2, H, W)``; zeros at first
        - output: logits ``(B, 2, H, W)``

    Reference: Zhang et al., CVPR 2019 (CANet), sec. 4.2.
    """

    def __init__(self, channels: int, rates: Sequence[int] = (6, 12, 18), *, dropout: float = 0.5) -> None:
        super().__init__()
        C = channels
        self.residuals = nn.ModuleList(_residual(in_channels, C) for in_channels in (C + 2, C, C))
        self.aspp = ASPP(C, rates, dropout=dropout)
        self.merge = Conv2dNormActivation(self.aspp.out_channels, C, 1, norm_layer=None).append(nn.Dropout2d(dropout))
        init_for_relu(self)
        self.classifier = nn.Conv2d(C, 2, 1)

    def forward(self, feat: Tensor, history: Tensor) -> Tensor:
        """Return the logits."""
        feat = feat + self.residuals[0](torch.cat([feat, history], dim=1))
        feat = feat + self.residuals[1](feat)
        feat = feat + self.residuals[2](feat)
        logits: Tensor = self.classifier(self.merge(self.aspp(feat)))
        return logits


class ShotAttention(nn.Module):
    """Weigh the comparison features of several shots: one scalar each, softmax over the shots, weighted sum.

    Two blocks: 3 x 3 convolution, ReLU, 3 x 3 max-pool; 3 x 3 convolution to one channel, global average.

    Shape:
        ``(B, K, C, H, W)``, and ``(B, K)`` booleans, True where a shot counts (None: all), to ``(B, C, H, W)``; one
        shot comes back as it is.

    Note:
        The published code has one shot only; this is the paper's description.

    Reference: Zhang et al., CVPR 2019 (CANet), sec. 4.3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(channels, 1, 3, padding=1),
        )
        init_for_relu(self.score[0])

    def forward(self, feat: Tensor, present: Tensor | None = None) -> Tensor:
        """Return the weighted sum; where no shot counts, all do."""
        scores = each_shot(self.score, feat).mean((-3, -2, -1))  # B K
        if present is not None:
            scores = scores.masked_fill(~present & present.any(1, keepdim=True), -torch.inf)
        return torch.einsum("bkchw,bk->bchw", feat, scores.softmax(1).to(feat.dtype))


class CANet(HostNetwork):
    """Class-agnostic segmentation network, with a place for DCM on the query feature before the comparison.

    Several shots are compared one by one, and weighed by attention, but for those without foreground.

    Args:
        backbone: gives the features of layer2 and layer3; layer4 is left out.
        channels, rates, dropout, refinements, history_dropout: see :class:`CANetSettings`. A sample that sees no
            previous prediction sees zeros.

    Shape:
        As :class:`dpcn_modules.models.FewShotNetwork`.

    Raises:
        ValueError: ``refinements`` < 0, or ``history_dropout`` outside [0, 1].

    Note:
        The published code keeps each sample's prediction of the epoch before. Episodes here are sampled anew each
        epoch, so the previous prediction comes from a first pass of the same weights, which carries no gradient.
        The published loop also stops refining according to the ground truth of the test; here the number of
        refinements is fixed. Convolutions are initialised by `init_for_relu`, not as published.

    Reference: Zhang et al., CANet: Class-Agnostic Segmentation Networks with Iterative Refinement and Attentive
    Few-Shot Learning, CVPR 2019.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        dropout: float = 0.5,
        refinements: int = 4,
        history_dropout: float = 0.7,
    ) -> None:
        if refinements < 0:
            raise InputError(f"``refinements``: expected 0 or more, got {refinements}; 0 is one pass.")
        if not 0 <= history_dropout <= 1:
            raise InputError(f"``history_dropout``: expected a probability from 0 to 1, got {history_dropout}.")
        super().__init__(backbone, channels=channels)
        backbone.drop_layer4()
        self.reduction = _dilated(sum(backbone.channels[:2]), channels, dropout)
        self.comparison = _dilated(2 * channels, channels, dropout)
        self.attention = ShotAttention(channels)
        self.optimization = IterativeOptimization(channels, rates, dropout=dropout)
        self.refinements = refinements
        self.history_dropout = history_dropout

    def _encode_support(self, support: ImageFeatures, support_masks: Tensor) -> SupportFeatures:
        weight = soft_masks(support.mid, support_masks)
        prototypes = soft_average_pool(support.mid, weight)  # B K C
        kernels = self._make_kernels(support.mid, support_masks)
        return SupportFeatures(prototypes, kernels, mask=(weight > 0).to(weight.dtype))

    def _decode(self, query: ImageFeatures, support: SupportFeatures, size: tuple[int, int]) -> Prediction:
        x_q = self._interact(query.mid, support.kernels)
        present = shots_with_foreground(support.mask)  # type: ignore[arg-type]  # set above
        feat = self.attention(self._compare(x_q, support.prototype), present)
        zeros = feat.new_zeros(feat.shape[0], 2, *feat.shape[-2:])
        if self.training:
            logits = self.optimization(feat, self._history(feat, zeros))
        else:
            logits = self.optimization(feat, zeros)
            for _ in range(self.refinements):
                logits = self.optimization(feat, logits.softmax(1))
        return Prediction(resize(logits, size))

    def _compare(self, x_q: Tensor, prototypes: Tensor) -> Tensor:
        """The comparison feature of each shot, ``(B, K, C, H, W)``."""
        K = prototypes.shape[1]
        tiled = prototypes[..., None, None].expand(-1, -1, -1, *x_q.shape[-2:])
        both = torch.cat([x_q.unsqueeze(1).expand(-1, K, -1, -1, -1), tiled], dim=2)  # B K 2C H W
        return each_shot(self.comparison, both)

    @torch.no_grad()
    def _history(self, feat: Tensor, zeros: Tensor) -> Tensor:
        """Of each sample the prediction of a first pass, or zeros."""
        previous = self.optimization(feat, zeros).softmax(1)
        kept = torch.rand(feat.shape[0], 1, 1, 1, device=feat.device) >= self.history_dropout
        return torch.where(kept, previous, zeros)

    def _image_features(self, layer2: Tensor, layer3: Tensor, layer4: Tensor) -> ImageFeatures:
        return ImageFeatures(self.reduction(torch.cat([layer2, layer3], dim=1)), layer4)

    def _renamings(self) -> list[tuple[str, str]]:
        return [
            ("backbone.", ""),
            ("reduction.", "layer5."),
            ("comparison.", "layer55."),
            *((f"optimization.residuals.{i}.", f"residule{i + 1}.") for i in range(3)),
            ("optimization.aspp.pooled.", "layer6_0."),
            ("optimization.aspp.pointwise.", "layer6_1."),
            *((f"optimization.aspp.dilated.{i}.", f"layer6_{i + 2}.") for i in range(3)),
            ("optimization.merge.", "layer7."),
            ("optimization.classifier.", "layer9."),
        ]


def _dilated(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    block: nn.Sequential = Conv2dNormActivation(in_channels, out_channels, 3, norm_layer=None, dilation=2)
    init_for_relu(block)
    return block.append(nn.Dropout2d(dropout))


def _residual(in_channels: int, out_channels: int) -> nn.Sequential:
    # The first ReLU must not work in place: the sum needs the feature as it was.
    conv_relu = Conv2dNormActivation(in_channels, out_channels, 3, norm_layer=None)
    return nn.Sequential(nn.ReLU(), *conv_relu, nn.Conv2d(out_channels, out_channels, 3, padding=1))
