"""Dynamic convolution: every sample of a batch has its own depthwise kernel."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dpcn_modules._checks import check_odd, check_shapes
from dpcn_modules.errors import InputError
from dpcn_modules.functional._backends import BACKENDS, BY_NAME_ONLY, choose

BACKEND_NAMES = ("auto", *BACKENDS)


def dynamic_conv2d(x: Tensor, kernels: Tensor, *, backend: str = "auto", validate: bool = True) -> Tensor:
    """Convolve every sample of a batch with its own depthwise kernel.

    ``out[b, c] = x[b, c] * kernels[b, c]``, a cross-correlation as in ``torch.nn.functional.conv2d``; zero padding
    keeps ``H`` and ``W``.

    Args:
        x: query feature, ``(B, C, H, W)``.
        kernels: one filter per sample and channel, ``(B, C, kh, kw)``, ``kh`` and ``kw`` odd.
        backend: "auto" (the first that can run), "grouped_cpu" (one grouped convolution, and a backward made for the
            CPU), "grouped" (the same with its own backward, on any device), "reference" (loops, for tests) or
            "triton" (one fused kernel for all sets of kernels, on GPUs; sides up to 9, no second derivative; by name
            only, since it has not been measured on a GPU).
        validate: check shapes; False where the caller has done so.

    Returns:
        ``(B, C, H, W)``.

    Raises:
        TypeError: an argument is not a tensor.
        ValueError: shapes disagree, a kernel side is even, or the backend is unknown or cannot run.

    Example:
        >>> import torch
        >>> x, kernels = torch.randn(2, 8, 6, 6), torch.randn(2, 8, 5, 1)
        >>> dynamic_conv2d(x, kernels).shape
        torch.Size([2, 8, 6, 6])

    Reference: Liu et al., CVPR 2022, sec. 3.5, eq. 8.
    """
    return dynamic_conv2d_multi(x, [kernels], backend=backend, validate=validate)[0]


def dynamic_conv2d_multi(
    x: Tensor, kernels_list: Sequence[Tensor], *, backend: str = "auto", validate: bool = True
) -> list[Tensor]:
    """Convolve one input with several sets of kernels: :func:`dynamic_conv2d` for each, in one call.

    A backend may read ``x`` once for all of them. The other arguments are those of :func:`dynamic_conv2d`.

    Args:
        kernels_list: each ``(B, C, kh, kw)`` with odd sides, which may differ from one to the next.

    Returns:
        One ``(B, C, H, W)`` for each entry of ``kernels_list``.

    Raises:
        TypeError, ValueError: as :func:`dynamic_conv2d`; also ValueError for an empty ``kernels_list``.

    Example:
        >>> import torch
        >>> x = torch.randn(2, 8, 6, 6)
        >>> len(dynamic_conv2d_multi(x, [torch.randn(2, 8, 5, 1), torch.randn(2, 8, 1, 5)]))
        2

    Reference: Liu et al., CVPR 2022, sec. 3.5, eq. 8.
    """
    if validate:
        if not kernels_list:
            raise InputError("``kernels_list``: expected at least one tensor (B C kh kw), got none.")
        for kernels in kernels_list:
            check_shapes(x=(x, "B C H W"), kernels=(kernels, "B C kh kw"))
            for side in kernels.shape[-2:]:
                check_odd("kernels", side)
    results: list[Tensor] = choose(backend, x, kernels_list).run(x, kernels_list)
    return results


def describe_backends(device: torch.device | str) -> dict[str, str]:
    """Say which backends of the dynamic convolution can run on a device, and why the others cannot.

    Args:
        device: where the tensors would be.

    Returns:
        By name, in the order in which "auto" tries them, after the one that "auto" picks there.

    Example:
        >>> describe_backends("cpu")["auto"]
        'picks grouped_cpu'
    """
    x, kernels = torch.zeros(2, 8, 16, 16, device=device), torch.zeros(2, 8, 5, 5, device=device)
    picked = choose("auto", x, [kernels])
    rows = {"auto": "picks " + next(name for name, backend in BACKENDS.items() if backend is picked)}
    for name, backend in BACKENDS.items():
        reason = backend.why_not(x, [kernels])
        rows[name] = "can run" if reason is None else f"cannot run: {reason}"
        if name in BY_NAME_ONLY:
            rows[name] += f"; auto leaves it out, since it is {BY_NAME_ONLY[name]}; name it: backend={name!r}"
    return rows
