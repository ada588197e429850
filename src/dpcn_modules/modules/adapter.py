"""DCMInteraction: the adapter that puts DCM into a network that was made without it."""

from collections.abc import Sequence

from torch import Tensor, nn

from dpcn_modules.modules.dynamic_convolution import DEFAULT_BRANCHES, DynamicConvolutionModule


class DCMInteraction(DynamicConvolutionModule):
    """The adapter: a query feature in, the same shape out, changed according to the support.

    ``x_q + conv1x1(DCM(x_q, x_s, M_s))``. The 1 x 1 convolution, ``merge``, starts at zero, so that a model with the
    adapter gives bit for bit what it gave without, until it is trained. Arguments, inputs and errors are those of
    :class:`DynamicConvolutionModule`; the output is ``(B, C, H, W)`` like the query feature.

    Note:
        The paper puts DCM into CANet and PFENet (Table A4) without saying how; this is our reading.

    Example:
        >>> import torch
        >>> adapter = DCMInteraction(16)
        >>> feat = torch.randn(2, 16, 8, 8)
        >>> torch.equal(adapter(feat, feat, torch.ones(2, 64, 64)), feat)
        True

    Reference: Liu et al., CVPR 2022, supplement, table A4.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        generation: str = "serial",
        branches: Sequence[str] = DEFAULT_BRANCHES,
        *,
        network_width: int = 3,
        backend: str = "auto",
        validate: bool = True,
    ) -> None:
        super().__init__(
            channels, kernel_size, generation, branches, network_width=network_width, backend=backend, validate=validate
        )
        self.merge = nn.Conv2d(self.out_channels, channels, 1)
        nn.init.zeros_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)  # type: ignore[arg-type]

    def forward(self, query_feat: Tensor, support_feat: Tensor, support_mask: Tensor) -> Tensor:
        """Return the changed query feature."""
        return self.interact(query_feat, self.generator(support_feat, support_mask))

    def interact(self, query_feat: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Change query features ``(B, C, H, W)`` by kernels that ``generator`` made before; errors of its forward."""
        change: Tensor = self.merge(self.application(query_feat, kernels))
        # Under autocast the convolution is half; the feature that goes on keeps its own precision.
        return query_feat + change.to(query_feat.dtype)
