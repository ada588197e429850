"""Networks from the checkpoints of a training."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcn_modules.models._network import FewShotNetwork
from dpcn_modules.models._weights import UNREADABLE, check_entries
from dpcn_modules.models.build import build_model, settings_of

_PREFIX = "model."  # the network's name in the training module


class Checkpoint(NamedTuple):
    """What a checkpoint says of its network.

    Attributes:
        recipe: name and changes, the arguments of :func:`dpcn_modules.models.build_model`.
        parameters: the network's state dict.
        size: side of the square pictures it was trained on, None where the training did not say.
    """

    recipe: dict[str, Any]
    parameters: dict[str, Tensor]
    size: int | None


def load_model(checkpoint: str | Path) -> FewShotNetwork:
    """Build the network of a checkpoint and give it the checkpoint's parameters.

    Args:
        checkpoint: a file that ``dpcn fit`` wrote.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of this library, or holds another network's parameters.
    """
    return restore_model(read_checkpoint(checkpoint), source=str(checkpoint))


def restore_model(content: Checkpoint, *, source: str) -> FewShotNetwork:
    """Build the network of a checkpoint that has been read.

    Args:
        content: as :func:`read_checkpoint` gives it.
        source: its file, for the message.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        ValueError: it holds another network's parameters.
    """
    recipe = dict(content.recipe)
    # The checkpoint holds the backbone too, so its pretrained weights need not be at hand; what they decide stays.
    if recipe.get("weights") is not None:
        decided = settings_of(**recipe).decided()
        recipe |= {"weights": None, "trainable": decided.trainable, "frozen_norm": decided.frozen_norm}
    model = build_model(**recipe)
    check_entries(model.state_dict(), content.parameters, argument="checkpoint", source=source)
    model.load_state_dict(content.parameters)
    return model.eval()


def read_checkpoint(checkpoint: str | Path) -> Checkpoint:
    """Read what a checkpoint says of its network, without running code from the file.

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
    if not isinstance(content, dict) or not content.get("recipe") or "state_dict" not in content:
        raise ValueError(
            f"``checkpoint``: expected a file that `dpcn fit` wrote, with the recipe to build its network, got {path}; "
            f"build the network with build_model(...) and load_state_dict its parameters."
        )
    entries = content["state_dict"].items()
    parameters = {name.removeprefix(_PREFIX): value for name, value in entries if name.startswith(_PREFIX)}
    return Checkpoint(dict(content["recipe"]), parameters, content.get("size"))
