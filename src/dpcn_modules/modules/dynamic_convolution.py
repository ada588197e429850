"""DCM, the dynamic convolution module (Eq. 5-8), and the plug that puts it into another model."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from dpcn_modules._checks import check_choice, check_finite, check_odd, check_shapes
from dpcn_modules.functional import dynamic_conv2d_multi, foreground_pool
from dpcn_modules.functional.pooling import support_at_feature_size

BRANCHES = ("vertical", "square", "horizontal")


class KernelNetwork(nn.Sequential):
    """``F_i`` of Eq. 7: two consecutive 1D convolutions over the pooled foreground vectors, ``(B, C, S)`` to same.

    Args:
        channels: C.
        width: their kernel width, odd. Wider than 1, since in the serial generation neighbours among the S^2
            vectors are equal until a convolution mixes them.
        taps: of the kernels it makes. They start as mean filters with small differences, so that an untrained
            module leaves the query readable, and a sum over 25 taps is no larger than one over 5.
    """

    def __init__(self, channels: int, width: int = 3, *, taps: int = 1) -> None:
        check_odd("width", width)
        last = nn.Conv1d(channels, channels, width, padding=width // 2)
        with torch.no_grad():
            last.weight.mul_(taps**-0.5)
        nn.init.constant_(last.bias, 1 / taps)  # type: ignore[arg-type]
        first = nn.Conv1d(channels, channels, width, padding=width // 2)
        super().__init__(first, nn.ReLU(inplace=True), last)


class DynamicConvolutionModule(nn.Module):
    """Make depthwise kernels from the support's foreground vectors, and convolve the query with them.

    The foreground vectors ``P_fg`` (Eq. 5) are pooled to ``p_s`` (S vectors) and ``p_s2`` (S^2 vectors, Eq. 6); a
    kernel network each makes ``ker_v`` (S x 1), ``ker_s`` (S x S) and ``ker_h`` (1 x S) of them (Eq. 7); the query
    feature is convolved with the three in parallel (Eq. 8).

    Args:
        channels: C of both features.
        kernel_size: S, odd.
        generation: "serial" pools ``p_s2`` from ``p_s`` (5->25, Eq. 6), "parallel" pools both from ``P_fg``
            (5/25, the supplement's Table A1).
        branches: which of "vertical", "square", "horizontal", in the order of the output's channels (Table 5).
        network_width: kernel width of the 1D convolutions.
        backend: of :func:`dpcn_modules.functional.dynamic_conv2d`.

    Shape:
        - query_feat: (filtered) mid-level feature, ``(B, C, H, W)``
        - support_feat: ``(B, K, C, Hs, Ws)``, or ``(B, C, Hs, Ws)`` for one shot
        - support_mask: at any resolution, ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}
        - enhanced features: ``(B, len(branches) * C, H, W)``

    Raises:
        ValueError: an even ``kernel_size``, an unknown ``generation`` or branch, no or twice the same branch;
            from forward: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.

    Note:
        Several shots give their foreground vectors one after the other (Eq. 11). A sample whose support has no
        foreground gets kernels, and so enhanced features, of zero. The paper leaves the width and activation of the
        kernel networks open, and how the kernels start: 3 and ReLU here, and kernels that start near mean filters.

    Example:
        >>> import torch
        >>> dcm = DynamicConvolutionModule(16)
        >>> feat, mask = torch.randn(2, 16, 8, 8), torch.ones(2, 64, 64)
        >>> dcm(feat, feat, mask).shape
        torch.Size([2, 48, 8, 8])
        >>> [tuple(kernels.shape) for kernels in dcm.generate_kernels(feat, mask)]
        [(2, 16, 5, 1), (2, 16, 5, 5), (2, 16, 1, 5)]

    Reference: Liu et al., CVPR 2022, sec. 3.5, eq. 5-8 and 11, fig. 4; supplement, table A1.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        generation: str = "serial",
        branches: Sequence[str] = BRANCHES,
        *,
        network_width: int = 3,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_odd("kernel_size", kernel_size)
        check_choice("generation", generation, ("serial", "parallel"))
        for branch in branches:
            check_choice("branches", branch, BRANCHES)
        if not branches or len(set(branches)) != len(branches):
            raise ValueError(f"``branches``: expected each of {', '.join(BRANCHES)} at most once, got {branches}.")
        self.channels = channels
        self.kernel_size = kernel_size
        self.generation = generation
        self.branches = tuple(branches)
        self.network_width = network_width
        self.backend = backend
        taps = {"vertical": kernel_size, "square": kernel_size**2, "horizontal": kernel_size}
        self.networks = nn.ModuleDict(
            {branch: KernelNetwork(channels, network_width, taps=taps[branch]) for branch in branches}
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments, but for ``channels``, that make another one like it."""
        names = ("kernel_size", "generation", "branches", "network_width", "backend")
        return {name: getattr(self, name) for name in names}

    @property
    def out_channels(self) -> int:
        """Channels of the enhanced features together."""
        return len(self.branches) * self.channels

    def forward(self, query_feat: Tensor, support_feat: Tensor, support_mask: Tensor) -> Tensor:
        """Return the enhanced features, concatenated."""
        return self.apply_kernels(query_feat, self.generate_kernels(support_feat, support_mask))

    def generate_kernels(self, support_feat: Tensor, support_mask: Tensor) -> tuple[Tensor, ...]:
        """Make the kernels of a support set, to be used on any number of queries (Eq. 5-7).

        Args:
            support_feat: ``(B, K, C, Hs, Ws)`` or ``(B, C, Hs, Ws)``.
            support_mask: ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}.

        Returns:
            By branch: vertical ``(B, C, S, 1)``, square ``(B, C, S, S)``, horizontal ``(B, C, 1, S)``.

        Raises:
            ValueError: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.
        """
        feat, foreground = support_at_feature_size(support_feat, support_mask)
        check_shapes(support_feat=(feat, f"B K {self.channels} Hs Ws"))
        S = self.kernel_size
        p_s = foreground_pool(feat, foreground, S).transpose(1, 2)  # B C S
        if self.generation == "serial":
            p_s2 = p_s.repeat_interleave(S, -1)  # adaptive average pooling of S vectors to S^2
        else:
            p_s2 = foreground_pool(feat, foreground, S * S).transpose(1, 2)  # B C S*S
        present = foreground.flatten(1).amax(1).to(feat.dtype)[:, None, None, None]  # B 1 1 1
        kernels = []
        for branch, network in self.networks.items():
            ker = network(p_s2 if branch == "square" else p_s)
            height = 1 if branch == "horizontal" else S
            kernels.append(rearrange(ker, "b c (kh kw) -> b c kh kw", kh=height) * present)
        return tuple(kernels)

    def apply_kernels(self, query_feat: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Convolve query features with kernels made before (Eq. 8).

        Args:
            query_feat: ``(B, C, H, W)``.
            kernels: as :meth:`generate_kernels` returns them.

        Returns:
            ``(B, len(branches) * C, H, W)``.

        Raises:
            ValueError: another number of kernels than branches, shapes disagree, or a feature is not finite.
        """
        if len(kernels) != len(self.branches):
            raise ValueError(f"``kernels``: expected one for each of {', '.join(self.branches)}, got {len(kernels)}.")
        check_shapes(query_feat=(query_feat, f"B {self.channels} H W"))
        check_finite("query_feat", query_feat)
        return torch.cat(dynamic_conv2d_multi(query_feat, kernels, backend=self.backend), dim=1)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, generation={self.generation!r}, branches={self.branches}"


class DCMInteraction(nn.Module):
    """The plug: a query feature in, the same shape out, changed by what the support says.

    ``x_q + conv1x1(DCM(x_q, x_s, M_s))``. The 1 x 1 convolution starts at zero, so that a model with the plug gives
    bit for bit what it gave without, until it is trained.

    Args:
        channels: C of both features.
        kernel_size: as in :class:`DynamicConvolutionModule`, like the rest.
        generation: likewise.
        branches: likewise.
        network_width: likewise.
        backend: likewise.

    Shape:
        - query_feat: ``(B, C, H, W)``
        - support_feat: ``(B, K, C, Hs, Ws)``, or ``(B, C, Hs, Ws)`` for one shot
        - support_mask: at any resolution, ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}
        - output: ``(B, C, H, W)``

    Raises:
        ValueError: as :class:`DynamicConvolutionModule`.

    Note:
        The paper puts DCM into CANet and PFENet (Table A4) without saying how; this is our reading.

    Example:
        >>> import torch
        >>> plug = DCMInteraction(16)
        >>> feat = torch.randn(2, 16, 8, 8)
        >>> torch.equal(plug(feat, feat, torch.ones(2, 64, 64)), feat)
        True

    Reference: Liu et al., CVPR 2022, supplement, table A4.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        generation: str = "serial",
        branches: Sequence[str] = BRANCHES,
        *,
        network_width: int = 3,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.dynamic_convolution = DynamicConvolutionModule(
            channels, kernel_size, generation, branches, network_width=network_width, backend=backend
        )
        self.merge = nn.Conv2d(self.dynamic_convolution.out_channels, channels, 1)
        nn.init.zeros_(self.merge.weight)
        nn.init.zeros_(self.merge.bias)  # type: ignore[arg-type]

    def forward(self, query_feat: Tensor, support_feat: Tensor, support_mask: Tensor) -> Tensor:
        """Return the changed query feature."""
        return self.apply_kernels(query_feat, self.generate_kernels(support_feat, support_mask))

    def generate_kernels(self, support_feat: Tensor, support_mask: Tensor) -> tuple[Tensor, ...]:
        """Make the kernels of a support set; see :meth:`DynamicConvolutionModule.generate_kernels`."""
        return self.dynamic_convolution.generate_kernels(support_feat, support_mask)

    def apply_kernels(self, query_feat: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Change query features by kernels made before: ``(B, C, H, W)`` to same.

        Raises:
            ValueError: as :meth:`DynamicConvolutionModule.apply_kernels`.
        """
        change: Tensor = self.merge(self.dynamic_convolution.apply_kernels(query_feat, kernels))
        # Under autocast the convolution is half; the feature that goes on keeps its own precision.
        return query_feat + change.to(query_feat.dtype)
