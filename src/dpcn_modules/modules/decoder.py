"""The decoder (Eq. 9-10): convolution, ASPP, classifier."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: global, 1 x 1 and dilated 3 x 3 views of a feature, side by side.

    Args:
        channels: C in, and of each view.
        rates: dilations of the 3 x 3 convolutions.
        dropout: probability that a channel of a view is dropped.

    Shape:
        - input: ``(B, C, H, W)``
        - output: ``(B, (2 + len(rates)) * C, H, W)``

    Reference: Chen et al., 2017 (DeepLab v3).
    """

    def __init__(self, channels: int, rates: Sequence[int] = (6, 12, 18), *, dropout: float = 0.0) -> None:
        super().__init__()

        def view(conv: nn.Conv2d) -> nn.Sequential:
            return nn.Sequential(conv, nn.ReLU(inplace=True), nn.Dropout2d(dropout))

        self.pooled = view(nn.Conv2d(channels, channels, 1))
        self.pointwise = view(nn.Conv2d(channels, channels, 1))
        dilated = [nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate) for rate in rates]
        self.dilated = nn.ModuleList(view(conv) for conv in dilated)
        self.out_channels = (2 + len(rates)) * channels

    def forward(self, feat: Tensor) -> Tensor:
        """Return the views, concatenated."""
        pooled = self.pooled(feat.mean((-2, -1), keepdim=True)).expand(-1, -1, *feat.shape[-2:])
        return torch.cat([pooled, self.pointwise(feat), *(view(feat) for view in self.dilated)], dim=1)


class Decoder(nn.Module):
    """Turn the concatenated features into the logits of background and foreground (Eq. 9-10).

    3 x 3 convolution to C; ASPP; 1 x 1 convolution to C; classifier (3 x 3, dropout, 1 x 1 to 2).

    Args:
        in_channels: channels of the concatenation, ``4 C + 4`` for the whole DPCN with three windows.
        channels: C.
        rates: dilations in the ASPP.
        dropout: probability in the classifier.

    Shape:
        - input: ``(B, in_channels, H, W)``
        - logits: ``(B, 2, H, W)``

    Note:
        The paper names conv, ASPP and classifier, and leaves widths and rates open.

    Reference: Liu et al., CVPR 2022, sec. 3.6, eq. 9-10.
    """

    def __init__(
        self, in_channels: int, channels: int = 256, *, rates: Sequence[int] = (6, 12, 18), dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.aspp = ASPP(channels, rates)
        self.merge = nn.Conv2d(self.aspp.out_channels, channels, 1)
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout2d(dropout)
        )
        init_for_relu(self)
        self.classifier.append(nn.Conv2d(channels, 2, 1))

    def forward(self, feat: Tensor) -> Tensor:
        """Return the logits at feature size."""
        feat = F.relu(self.conv(feat))
        feat = F.relu(self.merge(self.aspp(feat)))
        logits: Tensor = self.classifier(feat)
        return logits


def init_for_relu(module: nn.Module) -> None:
    """Start convolutions so that a chain of them with ReLU keeps the size of its signal (He et al., 2015).

    PyTorch's default shrinks it to a third with every layer, which hurts where no layer normalises.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
