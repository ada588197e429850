"""Add DCM to a host network, and take it out again."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeVar, get_args

from torch import nn

from dpcn_modules._checks import check_choice
from dpcn_modules.errors import InputError, InputTypeError
from dpcn_modules.models.host import BeforeAdapter, HostNetwork
from dpcn_modules.models.settings import DCMSettings
from dpcn_modules.modules import DCMInteraction
from dpcn_modules.modules.dynamic_convolution import DEFAULT_BRANCHES

Trained = Literal["head", "adapter"]
HostT = TypeVar("HostT", bound=HostNetwork)


def add_dcm(
    host: HostT,
    adapter: DCMInteraction | None = None,
    *,
    kernel_size: int = 5,
    generation: Literal["serial", "parallel"] = "serial",
    branches: Sequence[str] = DEFAULT_BRANCHES,
    network_width: int = 3,
    backend: str = "auto",
    train: Trained = "head",
) -> HostT:
    """Add DCM to a host network: PFENet on the reduced query feature, CANet on the query feature before the comparison.

    The host network is changed in place. The adapter becomes one of its modules (``host.interaction``), so that
    parameters, state dict, device moves, DDP and compile know it: add it before the optimiser is made, before DDP wraps
    the host network and before it is compiled. Until it is trained, the logits are bit for bit what they were.

    Args:
        host: a :class:`PFENet` or :class:`CANet` of this library, or another :class:`HostNetwork`.
        adapter: one that was trained elsewhere, with its own options; None makes a new one.
        kernel_size, generation, branches, network_width, backend: of a new one; see :class:`DynamicConvolutionModule`.
        train: "head": the adapter, and all of the host network that was trainable before. "adapter": the adapter alone;
            the rest of the host network and its BatchNorm running statistics are frozen, until :func:`remove_dcm`.

    Returns:
        The host network.

    Raises:
        TypeError: the host network has no place for an adapter, the adapter is no :class:`DCMInteraction`, or an option
            is of another type.
        ValueError: it has an adapter already; the adapter has other channels, or comes with options; or an option is
            out of its range.

    Note:
        The paper puts DCM into CANet and PFENet (Table A4) without stating where; see docs/paper_gaps.md.

    Example:
        >>> import torch
        >>> from dpcn_modules import add_dcm, build_model
        >>> host = build_model("pfenet_small").eval()
        >>> query, support, mask = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32), torch.ones(1, 32, 32)
        >>> before = host(query, support, mask).logits
        >>> torch.equal(add_dcm(host)(query, support, mask).logits, before)
        True

    Reference: Liu et al., CVPR 2022, supplement, table A4.
    """
    check_choice("train", train, get_args(Trained))
    _checked(host)
    if host.interaction is not None:
        raise InputError(
            f"``host``: expected a host network without an adapter, got a {type(host).__name__} that has one; "
            f"remove_dcm(host) takes it out."
        )
    options = DCMSettings(
        kernel_size=kernel_size, generation=generation, branches=branches, network_width=network_width, backend=backend
    )
    if adapter is None:
        like = next(host.parameters())
        adapter = DCMInteraction(host.channels, **options.dcm_options()).to(like.device, like.dtype)
    elif options != DCMSettings():
        raise InputError(
            f"``adapter``: expected an adapter or the options of a new one, got both ({options}); leave one out."
        )
    _check_adapter(adapter, host)
    _set_validation(adapter, False)  # the host network checks its inputs
    host.before_adapter = BeforeAdapter((), host.backbone.frozen_norm, host.settings)
    host.interaction = adapter.train(host.training)
    if host.settings is not None:
        host.settings = dataclasses.replace(host.settings, dcm=True, **_options_of(adapter))
    if train == "adapter":
        train_adapter_only(host)
    return host


def train_adapter_only(host: nn.Module) -> None:
    """Freeze a host network around its adapter: its other parameters and BatchNorm running statistics stay as they are.

    :func:`remove_dcm` makes trainable again what this froze.

    Raises:
        TypeError, ValueError: the host network has no place for an adapter, or no adapter.
    """
    host = _checked(host)
    before = _before_adapter(host)
    names = [name for name, parameter in host.named_parameters() if parameter.requires_grad]
    frozen = [name for name in names if not name.startswith("interaction.")]
    for name in frozen:
        host.get_parameter(name).requires_grad_(False)
    host.before_adapter = before._replace(trainable=(*before.trainable, *frozen))
    host.backbone.frozen_norm = True
    host.train(host.training)


def remove_dcm(host: HostT) -> HostT:
    """Take the adapter out of a host network, which is then as it was, but for what was trained meanwhile.

    With ``train="adapter"`` nothing else was, so the host network gives its first logits again. Keep
    ``host.interaction`` beforehand to add it to another host network. Returns the host network.

    Raises:
        TypeError, ValueError: the host network has no place for an adapter, or no adapter.
    """
    before = _before_adapter(_checked(host))
    if host.interaction is not None:
        _set_validation(host.interaction, True)
    host.interaction, host.before_adapter = None, None
    for name in before.trainable:
        host.get_parameter(name).requires_grad_(True)
    host.backbone.frozen_norm = before.frozen_norm
    host.settings = before.settings
    host.train(host.training)
    return host


def _before_adapter(host: HostNetwork) -> BeforeAdapter:
    if host.interaction is None:
        raise InputError(
            f"``host``: expected a host network with an adapter, got a {type(host).__name__} without; add_dcm(host) "
            f"adds one."
        )
    if host.before_adapter is not None:
        return host.before_adapter
    # One that was built with the adapter differs from one without in nothing else.
    without = None if host.settings is None else dataclasses.replace(host.settings, dcm=False)
    return BeforeAdapter((), host.backbone.frozen_norm, without)


def _checked(host: nn.Module) -> HostNetwork:
    if not isinstance(host, HostNetwork):
        raise InputTypeError(
            f"``host``: expected a PFENet or a CANet of this library, which have a place for the adapter, got "
            f"{type(host).__name__}; a compiled network or one in DDP must be unwrapped first, and a model of your own "
            f"takes the adapter by two lines (docs/guide/adapter.md)."
        )
    return host


def _check_adapter(adapter: nn.Module, host: HostNetwork) -> None:
    if not isinstance(adapter, DCMInteraction):
        raise InputTypeError(
            f"``adapter``: expected a DCMInteraction, got {type(adapter).__name__}; DCM alone does not return C."
        )
    if adapter.channels != host.channels:
        raise InputError(
            f"``adapter``: expected {host.channels} channels, as the {type(host).__name__} has at that place, got "
            f"{adapter.channels}; DCMInteraction({host.channels}) fits, and add_dcm(host) makes it."
        )


def _options_of(adapter: DCMInteraction) -> dict[str, Any]:
    """The settings that make another adapter like it."""
    generated = ("kernel_size", "generation", "branches", "network_width")
    return {name: getattr(adapter.generator, name) for name in generated} | {"backend": adapter.application.backend}


def _set_validation(adapter: DCMInteraction, validate: bool) -> None:
    for part in (adapter.generator, adapter.application):
        part.validate = validate
