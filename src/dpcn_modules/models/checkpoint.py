"""Networks from the checkpoints of a training."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpcn_modules.models._weights import _check_entries as check_entries
from dpcn_modules.models.build import build_model
from dpcn_modules.models.dpcn import DPCN

_PREFIX = "model."  # the network's name in the training module


def load_model(checkpoint: str | Path) -> DPCN:
    """Build the network of a checkpoint and give it the checkpoint's parameters.

    Args:
        checkpoint: a file that ``dpcn fit`` wrote.

    Returns:
        The network, in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint of this library, or holds another network's parameters.
    """
    recipe, parameters = read_checkpoint(checkpoint)
    # The checkpoint holds the backbone too, so its pretrained weights need not be at hand; what they decide stays.
    if recipe.pop("weights", None) is not None:
        recipe.setdefault("trainable", "layer4")
        recipe.setdefault("frozen_norm", True)
    model = build_model(**recipe)
    check_entries(model, parameters, argument="checkpoint", source=str(checkpoint))
    model.load_state_dict(parameters)
    return model.eval()


def read_checkpoint(checkpoint: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the recipe of a network (its name and changes) and its parameters, without running code from the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, or is no checkpoint of this library.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"``checkpoint``: no file {path}; `dpcn fit` writes best.ckpt and last.ckpt.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"``checkpoint``: {path} cannot be read ({reason}); it may be truncated.") from error
    if not isinstance(content, dict) or not content.get("recipe") or "state_dict" not in content:
        raise ValueError(
            f"``checkpoint``: expected a file that `dpcn fit` wrote, with the recipe to build its network, got {path}; "
            f"build the network with build_model(...) and load_state_dict its parameters."
        )
    entries = content["state_dict"].items()
    parameters = {name.removeprefix(_PREFIX): value for name, value in entries if name.startswith(_PREFIX)}
    return dict(content["recipe"]), parameters
