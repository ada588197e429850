"""All sets of kernels over one read of the input: fused kernels in Triton, for GPUs.

On a GPU the dynamic convolution is bound by memory. One launch reads ``x`` once and writes every result once; the
backward, one launch as well (two where there are many taps), reads ``x`` and the gradient of every result once, and
gives all gradients. Sums are taken in float32, of float64 in float64, and in a fixed order: the same input gives the
same bits.

There is no second derivative: asking for one raises NotImplementedError. ``torch.func`` raises RuntimeError.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dpcn_modules.functional._backends import _triton_launch as launch

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_LARGEST_SIDE, _MOST_TAPS = 9, 128


def why_not(x: Tensor, kernels_list: Sequence[Tensor]) -> str | None:
    """GPUs with Triton (or its interpreter), one of four dtypes, and kernels that fit into registers."""
    dtypes = {_autocast_dtype(tensor) for tensor in (x, *kernels_list)}
    if len(dtypes) > 1 or not dtypes.issubset(_DTYPES):
        return f"takes one dtype of {_names(_DTYPES)}, and got {_names(dtypes)}"
    if len({tensor.device for tensor in (x, *kernels_list)}) > 1:
        return "takes tensors on one device, and got several"
    largest = max(side for kernels in kernels_list for side in kernels.shape[-2:])
    if largest > _LARGEST_SIDE:
        return f"takes kernel sides up to {_LARGEST_SIDE}, and got {largest}"
    taps = launch.count_taps(kernels_list)
    if taps > _MOST_TAPS:
        return f"takes {_MOST_TAPS} taps in one call, and got {taps}: make a call for each of the kernels"
    # A graph cannot look around, and may run elsewhere than it is made: there the launch looks.
    return None if torch.compiler.is_compiling() else launch.why_not_here(x.device.type)


def run(x: Tensor, kernels_list: Sequence[Tensor]) -> list[Tensor]:
    # Under autocast as a convolution would; outside of the operator, so that the cast has a gradient.
    x, kernels = x.to(_autocast_dtype(x)), [kernels.to(_autocast_dtype(kernels)) for kernels in kernels_list]
    return list(_convolve(x, kernels) if _is_traced(x) else _Convolution.apply(x, *kernels))


def _autocast_dtype(tensor: Tensor) -> torch.dtype:
    """What a convolution would cast it to: double precision stays."""
    kind = tensor.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if casts and tensor.is_floating_point() and tensor.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return tensor.dtype


def _names(dtypes: Sequence[torch.dtype] | set[torch.dtype]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def _is_traced(x: Tensor) -> bool:
    """Whether someone watches (compile, export, fake tensors) who sees operators only; else their overhead is saved."""
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return watched or type(x) not in (Tensor, torch.nn.Parameter)


class _Convolution(torch.autograd.Function):
    """Without the operators; written with the context in ``forward``, which is called in a third of the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *kernels: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *kernels)
        ctx.set_materialize_grads(False)
        return tuple(launch.convolve(x, list(kernels)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """One launch; with ``create_graph`` the operator, which knows that it cannot be differentiated."""
        gradients = _gradients if torch.is_grad_enabled() else launch.gradients
        return _backward(gradients, ctx.saved_tensors, grads, ctx.needs_input_grad)


def _backward(
    gradients: Callable[..., tuple[Tensor, Tensor]],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The gradient of each input, from those of the results that were used."""
    x, *kernels = inputs
    used = [n for n, grad in enumerate(grads) if grad is not None]
    results: list[Tensor | None] = [None] * len(inputs)
    if used:
        used_kernels = [kernels[n] for n in used]
        grad_x, grad_taps = gradients(x, used_kernels, [grads[n] for n in used], needed[0], any(needed[1:]))
        if needed[0]:
            results[0] = grad_x
        if any(needed[1:]):
            counts = [launch.count_taps([taps]) for taps in used_kernels]
            for n, part in zip(used, torch.split(grad_taps, counts, -1), strict=True):
                results[1 + n] = part.reshape(kernels[n].shape)
    return tuple(results)


@torch.library.custom_op(
    "dpcn_modules::dynamic_conv2d", mutates_args=(), schema="(Tensor x, Tensor[] kernels) -> Tensor[]"
)
def _convolve(x: Tensor, kernels: list[Tensor]) -> list[Tensor]:
    return launch.convolve(x, kernels)


@torch.library.custom_op(
    "dpcn_modules::dynamic_conv2d_backward",
    mutates_args=(),
    schema="(Tensor x, Tensor[] kernels, Tensor[] grads, bool need_x, bool need_kernels) -> (Tensor, Tensor)",
)
def _gradients(
    x: Tensor, kernels: list[Tensor], grads: list[Tensor], need_x: bool, need_kernels: bool
) -> tuple[Tensor, Tensor]:
    return launch.gradients(x, kernels, grads, need_x, need_kernels)


def _keep_inputs(ctx: Any, inputs: tuple[Tensor, list[Tensor]], output: list[Tensor]) -> None:
    ctx.save_for_backward(inputs[0], *inputs[1])
    ctx.set_materialize_grads(False)


def _backward_of_operator(ctx: Any, grads: list[Tensor | None]) -> tuple[Tensor | None, list[Tensor | None]]:
    need_x, need_kernels = ctx.needs_input_grad
    grad_x, *grad_kernels = _backward(_gradients, ctx.saved_tensors, grads, [need_x, *need_kernels])
    return grad_x, grad_kernels


def _no_second_derivative(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError("backend='triton' has no second derivative; backend='grouped' has one.")


_convolve.register_fake(lambda x, kernels: [x.new_empty(x.shape) for _ in kernels])
_convolve.register_autograd(_backward_of_operator, setup_context=_keep_inputs)
_gradients.register_fake(launch.new_gradients)
_gradients.register_autograd(_no_second_derivative)
