"""SAM, the support activation module (Eq. 1)."""

from collections.abc import Sequence

from torch import Tensor, nn

from dpcn_modules.functional import region_activation
from dpcn_modules.functional.region_matching import check_windows


class SupportActivationModule(nn.Module):
    """Match the regions of a query with those of the masked support, with windows of several shapes.

    ``M_act = region_activation(x_q, x_s * M_s)`` for each window, and the initial pseudo mask ``M0`` is their mean
    (Eq. 1, Fig. 3). It has no parameters. With the one window (1, 1) it is the prior mask.

    Args:
        windows: sides ``(d_h, d_w)`` of each window, odd.
        chunk_size: support positions matched at a time; bounds the extra memory (None: all at once).
        validate: check the inputs of each forward; False where the caller has done so.

    Shape:
        - query_feat: high-level feature, ``(B, C, H, W)``
        - support_feat: ``(B, K, C, H, W)``, or ``(B, C, H, W)`` for one shot
        - support_mask: at any resolution, ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}
        - activation maps: ``(B, A, H, W)`` in [0, 1]
        - initial pseudo mask: ``(B, 1, H, W)`` in [0, 1]

    Raises:
        ValueError: an even window side, no window or ``chunk_size`` < 1; from forward, as
            :func:`dpcn_modules.functional.region_activation` does.

    Note:
        The paper leaves open what a window sees outside an image (here: 0), the normalisation (min-max per map)
        and the fusion over shots (the mean of each shot's normalised maps). Shots without foreground do not count;
        if none has any, the maps are zero.

    Example:
        >>> import torch
        >>> sam = SupportActivationModule()
        >>> feat = torch.randn(2, 16, 8, 8)
        >>> maps, pseudo_mask = sam(feat, feat, torch.ones(2, 64, 64))
        >>> maps.shape, pseudo_mask.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2, 1, 8, 8]))

    Reference: Liu et al., CVPR 2022, sec. 3.3, eq. 1, fig. 3.
    """

    def __init__(
        self,
        windows: Sequence[tuple[int, int]] = ((5, 1), (3, 3), (1, 5)),
        *,
        chunk_size: int | None = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        self.windows = tuple((d_h, d_w) for d_h, d_w in windows)
        check_windows(self.windows, chunk_size)
        self.chunk_size = chunk_size
        self.validate = validate

    def forward(self, query_feat: Tensor, support_feat: Tensor, support_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activation maps and the initial pseudo mask."""
        maps = region_activation(
            query_feat, support_feat, support_mask, self.windows, chunk_size=self.chunk_size, validate=self.validate
        )
        return maps, maps.mean(1, keepdim=True)

    def extra_repr(self) -> str:
        return f"windows={self.windows}, chunk_size={self.chunk_size}"
