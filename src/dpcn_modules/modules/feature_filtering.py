"""FFM, the feature filtering module (Eq. 2-4)."""

from torch import Tensor, nn

from dpcn_modules._checks import check_integer, check_odd, check_shapes, check_values


class FeatureFilteringModule(nn.Module):
    """Use the prototype to refine the pseudo mask, and the refined mask to filter the query feature.

    ``x_p`` is the prototype at every position (Eq. 2), ``Mr = sigmoid(conv(x_q * M0 + x_p))`` the refined pseudo
    mask (Eq. 3), and ``x_q * Mr + x_q`` the filtered query feature (Eq. 4).

    Args:
        channels: C of the query feature and the prototype.
        kernel_size: side of the one convolution, odd.
        validate: check the inputs of each forward; False where the caller has done so.

    Shape:
        - query_feat: mid-level feature, ``(B, C, H, W)``
        - prototype: ``(B, C)``
        - pseudo_mask: initial pseudo mask, ``(B, 1, H, W)`` in [0, 1]
        - filtered query feature: ``(B, C, H, W)``
        - refined pseudo mask: ``(B, 1, H, W)`` in [0, 1]

    Raises:
        ValueError: an even ``kernel_size``; from forward: shapes disagree or a feature is not finite.

    Note:
        The paper leaves the kernel of the convolution open; 3 x 3 here.

    Example:
        >>> import torch
        >>> ffm = FeatureFilteringModule(16)
        >>> filtered, refined = ffm(torch.randn(2, 16, 8, 8), torch.randn(2, 16), torch.rand(2, 1, 8, 8))
        >>> filtered.shape, refined.shape
        (torch.Size([2, 16, 8, 8]), torch.Size([2, 1, 8, 8]))

    Reference: Liu et al., CVPR 2022, sec. 3.4, eq. 2-4.
    """

    def __init__(self, channels: int, kernel_size: int = 3, *, validate: bool = True) -> None:
        super().__init__()
        check_integer("channels", channels)
        check_odd("kernel_size", kernel_size)
        self.channels = channels
        self.validate = validate
        self.conv = nn.Conv2d(channels, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, query_feat: Tensor, prototype: Tensor, pseudo_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the filtered query feature and the refined pseudo mask."""
        if self.validate:
            check_shapes(
                query_feat=(query_feat, f"B {self.channels} H W"),
                prototype=(prototype, f"B {self.channels}"),
                pseudo_mask=(pseudo_mask, "B 1 H W"),
            )
            check_values(features={"query_feat": query_feat})
        x_q = query_feat
        x_p = prototype[:, :, None, None].expand_as(x_q)
        refined = self.conv(x_q * pseudo_mask + x_p).sigmoid()
        return x_q * refined + x_q, refined
