"""Networks from the checkpoints of a training."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcn_modules.models.factory import build_model, settings_of
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.models.weights import UNREADABLE, check_entries

_PREFIX = "model."  # the network's name in the training module


class Checkpoint(NamedTuple):
    """The network that a checkpoint describes.

    Attributes:
        network: its name, for :func:`dpcn_modules.models.build_model`.
        settings: its settings, field by field.
        parameters: the network's state dict.
        size: side of the square images it was trained on, None where the training did not record it.
    """

    network: str
    settings: dict[str, Any]
    parameters: dict[str, Tensor]
    size: int | None


def load_model(checkpoint: str | Path) -> FewShotNetwork:
    """Build the network of a file that ``dpcn fit`` wrote, with its parameters, in evaluation mode on the CPU.

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
    return model.eval()


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Read the description of a network from a checkpoint, without running code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or is no checkpoint of this library.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"``checkpoint``: no file {path}; `dpcn fit` writes best.ckpt and last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # PyTorch's own words advise to load without weights_only, which could run code from the file.
        raise ValueError(
            f"``checkpoint``: {path} cannot be read as a checkpoint: it is truncated, or another kind of file; "
            f"`dpcn fit` writes best.ckpt and last.ckpt."
        ) from error
    if isinstance(content, dict):
        upgrade_checkpoint(content)
    if not isinstance(content, dict) or not content.get("network") or "state_dict" not in content:
        raise ValueError(
            f"``checkpoint``: expected a file that `dpcn fit` wrote, with the settings to build its network, got "
            f"{path}; build the network with build_model(...) and load_state_dict its parameters."
        )
    entries = content["state_dict"].items()
    parameters = {name.removeprefix(_PREFIX): value for name, value in entries if name.startswith(_PREFIX)}
    return Checkpoint(content["network"], dict(content["settings"]), parameters, content.get("size"))


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
