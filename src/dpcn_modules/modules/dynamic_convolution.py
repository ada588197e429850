"""DCM, the dynamic convolution module (Eq. 5-8): a kernel generator and the application of its kernels."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from dpcn_modules._checks import check_choice, check_integer, check_odd, check_shapes, check_values, with_shot_axis
from dpcn_modules.errors import InputError
from dpcn_modules.functional import dynamic_conv2d_multi, foreground_pool
from dpcn_modules.functional.pooling import support_at_feature_size

BRANCHES = ("vertical", "square", "horizontal")
DEFAULT_BRANCHES = ("vertical", "square", "horizontal")
GENERATIONS = ("serial", "parallel")


class KernelNetwork(nn.Sequential):
    """``F_i`` of Eq. 7: two consecutive 1D convolutions over the pooled foreground vectors, ``(B, C, S)`` to same.

    Their kernels are wider than 1, since in the serial generation neighbours among the S^2 vectors are equal until a
    convolution mixes them. The kernels of ``taps`` taps that come out start as mean filters with small differences, so
    that an untrained module leaves the query readable, and a sum over 25 taps is no larger than one over 5.
    """

    def __init__(self, channels: int, width: int, taps: int) -> None:
        last = nn.Conv1d(channels, channels, width, padding=width // 2)
        with torch.no_grad():
            last.weight.mul_(taps**-0.5)
        nn.init.constant_(last.bias, 1 / taps)  # type: ignore[arg-type]
        first = nn.Conv1d(channels, channels, width, padding=width // 2)
        super().__init__(first, nn.ReLU(inplace=True), last)


class KernelGenerator(nn.Module):
    """Make the kernels of a support set, to be applied to any number of queries (Eq. 5-7).

    The foreground vectors ``P_fg`` (Eq. 5) are pooled to ``p_s`` (S vectors) and ``p_s2`` (S^2 vectors, Eq. 6); a
    kernel network each makes ``ker_v`` (S x 1), ``ker_s`` (S x S) and ``ker_h`` (1 x S) of them (Eq. 7). Arguments,
    inputs and errors are those of :class:`DynamicConvolutionModule`.

    Shape:
        - kernels by branch: vertical ``(B, C, S, 1)``, square ``(B, C, S, S)``, horizontal ``(B, C, 1, S)``

    Reference: Liu et al., CVPR 2022, sec. 3.5, eq. 5-7.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        generation: str = "serial",
        branches: Sequence[str] = DEFAULT_BRANCHES,
        *,
        network_width: int = 3,
        validate: bool = True,
    ) -> None:
        super().__init__()
        check_integer("channels", channels)
        check_odd("kernel_size", kernel_size)
        check_odd("network_width", network_width)
        check_choice("generation", generation, GENERATIONS)
        check_branches(branches)
        self.channels = channels
        self.kernel_size = kernel_size
        self.generation = generation
        self.branches = tuple(branches)
        self.network_width = network_width
        self.validate = validate
        taps = {"vertical": kernel_size, "square": kernel_size**2, "horizontal": kernel_size}
        networks = {branch: KernelNetwork(channels, network_width, taps[branch]) for branch in branches}
        self.networks = nn.ModuleDict(networks)

    def forward(self, support_feat: Tensor, support_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the kernels, one tensor for each branch."""
        feat, mask = with_shot_axis(support_feat, support_mask)
        if self.validate:
            check_shapes(support_feat=(feat, f"B K {self.channels} Hs Ws"), support_mask=(mask, "B K Hi Wi"))
            check_values(masks={"support_mask": mask}, features={"support_feat": feat})
        feat, foreground = support_at_feature_size(feat, mask, validate=False)
        S = self.kernel_size
        p_s = foreground_pool(feat, foreground, S, validate=False).transpose(1, 2)  # B C S
        if self.generation == "serial":
            p_s2 = p_s.repeat_interleave(S, -1)  # adaptive average pooling of S vectors to S^2
        else:
            p_s2 = foreground_pool(feat, foreground, S * S, validate=False).transpose(1, 2)  # B C S*S
        present = foreground.flatten(1).amax(1).to(feat.dtype)[:, None, None, None]  # B 1 1 1
        kernels = []
        for branch, network in self.networks.items():
            ker = network(p_s2 if branch == "square" else p_s)
            height = 1 if branch == "horizontal" else S
            kernels.append(rearrange(ker, "b c (kh kw) -> b c kh kw", kh=height) * present)
        return tuple(kernels)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, generation={self.generation!r}, branches={self.branches}"


class KernelApplication(nn.Module):
    """Convolve query features with the kernels of a :class:`KernelGenerator` (Eq. 8); it has no parameters.

    Arguments are those of :class:`DynamicConvolutionModule`.

    Shape:
        - query_feat: ``(B, C, H, W)``
        - kernels: by branch, each ``(B, C, kh, kw)``
        - enhanced features: ``(B, len(branches) * C, H, W)``

    Raises:
        ValueError: from forward: another number of kernels than branches, shapes disagree, or a feature is not finite.

    Reference: Liu et al., CVPR 2022, sec. 3.5, eq. 8.
    """

    def __init__(
        self, channels: int, branches: Sequence[str] = DEFAULT_BRANCHES, *, backend: str = "auto", validate: bool = True
    ) -> None:
        super().__init__()
        self.channels = channels
        self.branches = tuple(branches)
        self.backend = backend
        self.validate = validate

    def forward(self, query_feat: Tensor, kernels: Sequence[Tensor]) -> Tensor:
        """Return the enhanced features, concatenated."""
        if self.validate:
            if len(kernels) != len(self.branches):
                expected = ", ".join(self.branches)
                raise InputError(f"``kernels``: expected one for each of {expected}, got {len(kernels)}.")
            check_shapes(query_feat=(query_feat, f"B {self.channels} H W"))
            check_values(features={"query_feat": query_feat})
        enhanced = dynamic_conv2d_multi(query_feat, kernels, backend=self.backend, validate=self.validate)
        return torch.cat(enhanced, dim=1)

    def extra_repr(self) -> str:
        return f"backend={self.backend!r}"


class DynamicConvolutionModule(nn.Module):
    """Make depthwise kernels from the support's foreground vectors, and convolve the query with them.

    ``application(query_feat, generator(support_feat, support_mask))``, a :class:`KernelApplication` and a
    :class:`KernelGenerator`. Where a support set serves many queries, call them one by one: the kernels are then made
    once.

    Args:
        channels: C of both features.
        kernel_size: S, odd.
        generation: "serial" pools ``p_s2`` from ``p_s`` (5->25, Eq. 6), "parallel" pools both from ``P_fg``
            (5/25, the supplement's Table A1).
        branches: which of "vertical", "square", "horizontal", in the order of the output's channels (Table 5).
        network_width: kernel width of the 1D convolutions, odd.
        backend: of :func:`dpcn_modules.functional.dynamic_conv2d`.
        validate: check the inputs of each forward; False where the caller has done so.

    Shape:
        - query_feat: (filtered) mid-level feature, ``(B, C, H, W)``
        - support_feat: ``(B, K, C, Hs, Ws)``, or ``(B, C, Hs, Ws)`` for one shot
        - support_mask: at any resolution, ``(B, K, Hi, Wi)`` or ``(B, Hi, Wi)`` in {0, 1, 255}
        - enhanced features: ``(B, len(branches) * C, H, W)``

    Raises:
        TypeError: a number is of another type.
        ValueError: ``channels`` < 1, an even ``kernel_size``, an unknown ``generation`` or branch, no or twice the same
            branch; from forward: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.

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
        >>> [tuple(kernels.shape) for kernels in dcm.generator(feat, mask)]
        [(2, 16, 5, 1), (2, 16, 5, 5), (2, 16, 1, 5)]

    Reference: Liu et al., CVPR 2022, sec. 3.5, eq. 5-8 and 11, fig. 4; supplement, table A1.
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
        super().__init__()
        self.generator = KernelGenerator(
            channels, kernel_size, generation, branches, network_width=network_width, validate=validate
        )
        self.application = KernelApplication(channels, branches, backend=backend, validate=validate)

    @property
    def channels(self) -> int:
        """C of both features."""
        return self.generator.channels

    @property
    def out_channels(self) -> int:
        """Channels of the enhanced features together."""
        return len(self.generator.branches) * self.channels

    def forward(self, query_feat: Tensor, support_feat: Tensor, support_mask: Tensor) -> Tensor:
        """Return the enhanced features, concatenated."""
        enhanced: Tensor = self.application(query_feat, self.generator(support_feat, support_mask))
        return enhanced


def check_branches(branches: Sequence[str]) -> None:
    """Raise ValueError unless each branch is known and there at most once, and at least one is."""
    for branch in branches:
        check_choice("branches", branch, BRANCHES)
    if isinstance(branches, str) or not branches or len(set(branches)) != len(branches):
        raise InputError(f"``branches``: expected each of {', '.join(BRANCHES)} at most once, got {branches}.")
