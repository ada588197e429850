"""Networks from the checkpoints of a training."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dpcn_modules.errors import InputError, InputFileError
from dpcn_modules.models.add_dcm import train_adapter_only
from dpcn_modules.models.factory import build_model, settings_of
from dpcn_modules.models.host import HostNetwork
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.models.weights import UNREADABLE, check_entries, plain_name

_PREFIX = "model."  # the network's name in the training module


class Checkpoint(NamedTuple):
    """The network that a checkpoint describes.

    Attributes:
        network: its name, for :func:`dpcn_modules.models.build_model`.
        settings: its settings, field by field.
        parameters: the network's state dict.
        size: side of the square images it was trained on, None where the training did not record it.
        frozen: names of the parameters that did not learn, None where the training did not record them.
        adapter_only: the adapter alone was trained, see :func:`dpcn_modules.models.train_adapter_only`.
    """

    network: str
    settings: dict[str, Any]
    parameters: dict[str, Tensor]
    size: int | None
    frozen: tuple[str, ...] | None = None
    adapter_only: bool = False


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside ``torch.compile``, DataParallel and DDP."""
    while True:
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def describe_model(model: nn.Module) -> dict[str, Any]:
    """What a checkpoint holds beside the parameters, so that :func:`load_model` builds the same network again."""
    model = unwrapped(model)
    settings = getattr(model, "settings", None)
    before = model.before_adapter if isinstance(model, HostNetwork) else None
    frozen_norm = isinstance(model, HostNetwork) and model.backbone.frozen_norm
    return {
        "network": getattr(model, "name", ""),
        "settings": {} if settings is None else dataclasses.asdict(settings),
        "frozen": [plain_name(name) for name, parameter in model.named_parameters() if not parameter.requires_grad],
        "adapter_only": before is not None and (bool(before.trainable) or before.frozen_norm != frozen_norm),
    }


def load_model(checkpoint: str | Path) -> FewShotNetwork:
    """Build the network of a file that ``dpcn fit`` wrote, with its parameters, in evaluation mode on the CPU.

    What was frozen in training is frozen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of this library, or holds another network's parameters.
    """
    return restore_model(read_checkpoint(checkpoint), source=str(checkpoint))


def restore_model(content: Checkpoint, *, source: str) -> FewShotNetwork:
    """Build the network of a checkpoint that has been read from the file ``source``; see :func:`load_model`."""
    settings = settings_of(content.network, **content.settings)
    if settings.weights is not None:
        # The checkpoint holds the backbone too: its pretrained weights are not needed, what follows from them is kept.
        settings = dataclasses.replace(settings.decided(), weights=None)
    model = build_model(content.network, **dataclasses.asdict(settings))
    check_entries(model.state_dict(), content.parameters, argument="checkpoint", source=source)
    model.load_state_dict(content.parameters)
    if content.adapter_only:
        train_adapter_only(model)
    if content.frozen is not None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in content.frozen)
    return model.eval()


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Read the description of a network from a checkpoint, without running code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or is no checkpoint of this library.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise InputFileError(f"``checkpoint``: no file {path}; `dpcn fit` writes best.ckpt and last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # PyTorch's own words advise to load without weights_only, which could run code from the file.
        raise InputError(
            f"``checkpoint``: {path} cannot be read as a checkpoint: it is truncated, or another kind of file; "
            f"`dpcn fit` writes best.ckpt and last.ckpt."
        ) from error
    if isinstance(content, dict):
        upgrade_checkpoint(content)
    if not isinstance(content, dict) or not content.get("network") or "state_dict" not in content:
        raise InputError(
            f"``checkpoint``: expected a file that `dpcn fit` wrote, with the settings to build its network, got "
            f"{path}; build the network with build_model(...) and load_state_dict its parameters."
        )
    entries = content["state_dict"].items()
    parameters = {plain_name(name.removeprefix(_PREFIX)): value for name, value in entries if name.startswith(_PREFIX)}
    frozen = content.get("frozen")
    return Checkpoint(
        network=content["network"],
        settings=dict(content["settings"]),
        parameters=parameters,
        size=content.get("size"),
        frozen=None if frozen is None else tuple(frozen),
        adapter_only=content.get("adapter_only", False),
    )


def upgrade_checkpoint(content: dict[str, Any]) -> None:
    """Convert a checkpoint of version 0.1.0 to the current format, in place; other checkpoints are left unchanged.

    In 0.1.0, ``recipe`` held the name and the differences from its defaults, DCM held its kernel networks itself, and
    the adapter held a whole DCM.
    """
    if "network" in content or "name" not in content.get("recipe", {}):
        return
    recipe = dict(content.pop("recipe"))
    content["network"] = recipe.pop("name")
    content["settings"] = dataclasses.asdict(settings_of(content["network"], **recipe))
    state = content.get("state_dict", {})
    for name in list(state):
        renamed = name.replace("interaction.dynamic_convolution.", "interaction.")
        renamed = renamed.replace("dynamic_convolution.networks.", "dynamic_convolution.generator.networks.")
        renamed = renamed.replace("interaction.networks.", "interaction.generator.networks.")
        state[renamed] = state.pop(name)
