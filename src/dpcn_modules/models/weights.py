"""Pretrained weights for a backbone: torchvision's by name, or a local file."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from dpcn_modules._checks import some
from dpcn_modules.errors import DownloadError, InputError, InputFileError

_CLASSIFIER_PREFIXES = ("fc.", "classifier.")
# What torch.load raises for a file that is damaged, truncated, or something else altogether.
UNREADABLE = (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, ValueError, struct.error)


def load_weights(backbone: nn.Module, weights: str | Path, architecture: str | None) -> None:
    """Fill a backbone with pretrained weights: those of that name (`imagenet_weights`), or of a file.

    Entries of an image classifier are left out.

    Raises:
        FileNotFoundError: neither a name nor a file.
        ConnectionError: the weights have a name but cannot be downloaded.
        ValueError: the file holds no state dict, or that of another network.
    """
    named = imagenet_weights(architecture)
    if str(weights) in named:
        state = _download(named[str(weights)])
    else:
        path = Path(weights)
        if not path.is_file():
            known = f"one of {', '.join(named)}, or " if named else ""
            raise InputFileError(
                f"``weights``: expected {known}the path of a file with a state dict, got {str(weights)!r}, "
                f"and there is no such file; correct the path, or leave it at None to train from scratch."
            )
        state = read_state_dict(path)
    state = {name: value for name, value in state.items() if not name.startswith(_CLASSIFIER_PREFIXES)}
    check_entries(backbone.state_dict(), state, argument="weights", source=str(weights))
    backbone.load_state_dict(state)


def imagenet_weights(architecture: str | None) -> dict[str, WeightsEnum]:
    """List torchvision's ImageNet weights of a network by name; ``"imagenet"`` is the first version, None has none.

    Weights that were made with another normalisation of images (VGG's ``IMAGENET1K_FEATURES``) are left
    out: on images with ImageNet's mean and standard deviation they would be wrong without an error.

    Example:
        >>> list(imagenet_weights("resnet50"))
        ['imagenet', 'DEFAULT', 'IMAGENET1K_V1', 'IMAGENET1K_V2']
    """
    if architecture is None:
        return {}
    entries = get_model_weights(architecture)
    versions = {entry.name: entry for entry in entries if entry.name.startswith("IMAGENET1K_V")}
    return {"imagenet": entries["IMAGENET1K_V1"], "DEFAULT": entries["DEFAULT"], **versions}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, plain or under the key ``"state_dict"``, without running code from the file.

    Names lose what ``torch.compile`` and DataParallel put into them.

    Raises:
        ValueError: the file is damaged, or holds something else than tensors by name.
    """
    rule = f"``weights``: expected a file written by torch.save(model.state_dict(), path), got {str(path)!r}"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(
            f"{rule}, which cannot be read as tensors ({type(error).__name__}): it is damaged, of another "
            f"format, or holds a whole model; download it again, or save the state dict alone."
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise InputError(f"{rule}, which holds a {type(content).__name__}; save the state dict alone.")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        found = f"other things than tensors under {some(others, 4)}" if others else "nothing"
        raise InputError(f"{rule}, which holds {found}; save the state dict alone, or under 'state_dict'.")
    return {plain_name(str(name)): value for name, value in content.items()}


def plain_name(name: str) -> str:
    """The name of a parameter without what ``torch.compile``, DataParallel and DDP put into it, at any depth.

    Example:
        >>> plain_name("module.backbone._orig_mod.stem.0.weight")
        'backbone.stem.0.weight'
    """
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def _download(entry: WeightsEnum) -> Mapping[str, Tensor]:
    """Get torchvision's weights from its cache or its server."""
    try:
        state: Mapping[str, Tensor] = entry.get_state_dict(progress=True, check_hash=True)
    except URLError as error:
        raise DownloadError(
            f"``weights``: could not download {entry.url} ({error.reason}); "
            f"download it on another machine, and give the path of the file as ``weights``."
        ) from error
    return state


def check_entries(own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, argument: str, source: str) -> None:
    """Raise ValueError, naming the argument, the file and the entries, unless a state dict fits a network's own."""
    # Files older than PyTorch 0.4.1 do not count batches, and nothing here depends on that count.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    misshaped = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in state.items()
        if name in own and value.shape != own[name].shape
    ]
    faults = {
        "missing": [name for name in needed if name not in state],
        "unexpected": [name for name in state if name not in own],
        "misshaped": misshaped,
    }
    found = "; ".join(f"{fault}: {some(names, 4)}" for fault, names in faults.items() if names)
    if found:
        raise InputError(
            f"``{argument}``: expected the entries of this network ({some(needed, 4)}), got {source!r} with "
            f"{found}; build the network that the file belongs to, or rename its entries."
        )
