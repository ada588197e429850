"""Plug DCM into a host, and take it out again."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar, get_args

from torch import nn

from dpcn_modules._checks import check_choice
from dpcn_modules.models import Host
from dpcn_modules.models._host import BeforePlug
from dpcn_modules.models.settings import DCMSettings
from dpcn_modules.modules import DCMInteraction
from dpcn_modules.modules.dynamic_convolution import BRANCHES

Trained = Literal["head", "plug"]
HostT = TypeVar("HostT", bound=Host)


def add_dcm(
    host: HostT,
    plug: DCMInteraction | None = None,
    *,
    kernel_size: int = 5,
    generation: str = "serial",
    branches: Sequence[str] = BRANCHES,
    network_width: int = 3,
    backend: str = "auto",
    train: Trained = "head",
) -> HostT:
    """Plug DCM into a host: PFENet on the reduced query feature, CANet on the query feature before the comparison.

    The host is changed in place. The plug becomes one of its modules (``host.interaction``), so that parameters, state
    dict, device moves, DDP and compile know it: add it before the optimiser is made, before DDP wraps the host and
    before it is compiled. Until it is trained, the host's logits are bit for bit what they were.

    Args:
        host: a :class:`PFENet` or :class:`CANet` of this library, or another :class:`dpcn_modules.models.Host`.
        plug: one that was trained elsewhere, with its own options; None makes a new one of the options below.
        kernel_size: S, odd (Table 4).
        generation: "serial" (5->25) or "parallel" (5/25) (Table A1).
        branches: which of "vertical", "square", "horizontal" (Table 5).
        network_width: kernel width of the kernel networks' convolutions, odd.
        backend: of :func:`dpcn_modules.functional.dynamic_conv2d`.
        train: "head": the plug, and all of the host that was trainable before. "plug": the plug alone; the rest of the
            host and its norm statistics are frozen, until :func:`remove_dcm`.

    Returns:
        The host.

    Raises:
        TypeError: the host has no place for a plug, or the plug is no :class:`DCMInteraction`.
        ValueError: it has a plug already; the plug has other channels, or comes with options; or an option is not a
            known value.

    Note:
        The paper puts DCM into CANet and PFENet (Table A4) without saying where; docs/paper_gaps.md says why there.

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
        raise ValueError(
            f"``host``: expected a host without a plug, got a {type(host).__name__} that has one; "
            f"remove_dcm(host) takes it out."
        )
    options = DCMSettings(
        kernel_size=kernel_size,
        generation=generation,
        branches=tuple(branches),
        network_width=network_width,
        backend=backend,
    )
    if plug is None:
        like = next(host.parameters())
        plug = DCMInteraction(host.channels, **options.dcm_options()).to(like.device, like.dtype)
    elif options != DCMSettings():
        raise ValueError(f"``plug``: expected a plug or the options of a new one, got both ({options}); leave one out.")
    _check_plug(plug, host)
    host.before_plug = BeforePlug((), host.backbone.frozen_norm, dict(host.recipe))
    host.interaction = plug.train(host.training)
    if host.recipe:
        host.recipe |= {"dcm": True, **plug.dynamic_convolution.settings}
    if train == "plug":
        train_plug_only(host)
    return host


def train_plug_only(host: nn.Module) -> None:
    """Freeze a host around its plug: its other parameters and its norm statistics stay as they are.

    :func:`remove_dcm` makes trainable again what this froze.

    Args:
        host: one with a plug, by :func:`add_dcm` or built with it.

    Raises:
        TypeError: the host has no place for a plug.
        ValueError: it has no plug.
    """
    host = _checked(host)
    before = _before_plug(host)
    names = [name for name, parameter in host.named_parameters() if parameter.requires_grad]
    frozen = [name for name in names if not name.startswith("interaction.")]
    _set_trainable(host, frozen, False)
    host.before_plug = before._replace(trainable=(*before.trainable, *frozen))
    host.backbone.frozen_norm = True
    host.train(host.training)


def remove_dcm(host: HostT) -> HostT:
    """Take the plug out of a host, which is then as it was, but for what was trained meanwhile.

    With ``train="plug"`` nothing else was, so the host gives its first logits again. Keep ``host.interaction``
    beforehand to plug it in elsewhere.

    Args:
        host: one with a plug, by :func:`add_dcm` or built with it.

    Returns:
        The host.

    Raises:
        TypeError: the host has no place for a plug.
        ValueError: it has no plug.
    """
    before = _before_plug(_checked(host))
    host.interaction, host.before_plug = None, None
    _set_trainable(host, before.trainable, True)
    host.backbone.frozen_norm = before.frozen_norm
    host.recipe = before.recipe if host.recipe else {}
    host.train(host.training)
    return host


def _before_plug(host: Host) -> BeforePlug:
    """How a host was before its plug; one that was built with it has just the plug more."""
    if host.interaction is None:
        raise ValueError(
            f"``host``: expected a host with a plug, got a {type(host).__name__} without; add_dcm(host) plugs one in."
        )
    return host.before_plug or BeforePlug((), host.backbone.frozen_norm, {**host.recipe, "dcm": False})


def _checked(host: nn.Module) -> Host:
    if not isinstance(host, Host):
        raise TypeError(
            f"``host``: expected a PFENet or a CANet of this library, which have a place for the plug, got "
            f"{type(host).__name__}; a compiled network or one in DDP must be unwrapped first, and a model of your own "
            f"takes the plug by two lines (docs/guide/plug_dcm.md)."
        )
    return host


def _check_plug(plug: nn.Module, host: Host) -> None:
    if not isinstance(plug, DCMInteraction):
        raise TypeError(
            f"``plug``: expected a DCMInteraction, got {type(plug).__name__}; DCM alone has no way back to C."
        )
    channels = plug.dynamic_convolution.channels
    if channels != host.channels:
        raise ValueError(
            f"``plug``: expected {host.channels} channels, as the {type(host).__name__} has at that place, got "
            f"{channels}; DCMInteraction({host.channels}) fits, and add_dcm(host) makes it."
        )


def _set_trainable(host: Host, names: Iterable[str], trainable: bool) -> None:
    for name in names:
        host.get_parameter(name).requires_grad_(trainable)
