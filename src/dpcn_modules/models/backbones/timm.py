"""Backbones of timm by name: convolutional ones here, vision transformers in vit.py."""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from dpcn_modules._checks import check_integer, did_you_mean, require
from dpcn_modules.errors import DownloadError, InputError, InputFileError
from dpcn_modules.models.backbones.base import Backbone, Pretraining
from dpcn_modules.models.weights import check_entries, read_state_dict


class TimmOptions(Pretraining, total=False):
    """Keyword arguments of every backbone of timm: ``stride`` and ``stages``, as of :class:`TimmBackbone`."""

    stride: int | None
    stages: Sequence[int] | None


class TimmBackbone(Backbone):
    """A convolutional network of timm, cut into layer2, layer3 and layer4 at three of its feature maps.

    Args:
        name: timm's, such as ``"convnext_tiny"`` or, with a tag, ``"resnet50.a1_in1k"``.
        stride: pixels of the image from cell to cell of layer4, 8 (as None), 16 or 32; timm dilates to reach it.
        stages: positions among timm's feature maps of layer2, layer3 and layer4, ascending; None takes the last three.
        state: entries of timm's whole model to start from, in place of ``weights``.
        pretraining: ``weights`` is None, ``"timm"`` (downloaded by timm) or a file with timm's entries, of torch.save
            or ``.safetensors``.

    Shape:
        ``(B, 3, Hi, Wi)`` to three maps; where timm can dilate, all have stride 8, ``H = ceil(Hi / 8)``.

    Raises:
        ModuleNotFoundError: timm is not installed.
        ValueError: an unknown name, a model without feature maps or that cannot have this stride, wrong weights.
        FileNotFoundError, ConnectionError: no such file; the weights cannot be downloaded.
    """

    def __init__(
        self,
        name: str,
        *,
        stride: int | None = None,
        stages: Sequence[int] | None = None,
        state: dict[str, Tensor] | None = None,
        **pretraining: Unpack[Pretraining],
    ) -> None:
        super().__init__()
        weights = pretraining.pop("weights", None)
        if state is None:
            state = read_timm_weights(name, weights)
        net = _feature_network(name, download=weights == "timm", stride=8 if stride is None else stride)
        if state is not None:
            # timm's feature networks keep the first modules, and may have "stages_0" for "stages.0".
            flat = {entry.replace(".", "_"): value for entry, value in state.items()}
            net.load_state_dict({entry: flat[entry.replace(".", "_")] for entry in net.state_dict()})
        channels, modules = net.feature_info.channels(), net.feature_info.module_name()
        stages = check_stages(stages, len(channels), default=range(len(channels) - 3, len(channels)))
        parts = _parts(net)
        ends = [list(parts).index(modules[i].replace(".", "_")) + 1 for i in stages]
        cuts = [nn.Sequential(*list(parts.values())[i:j]) for i, j in pairwise([0, *ends])]
        self.layer2, self.layer3, self.layer4 = cuts
        self.channels = (channels[stages[0]], channels[stages[1]], channels[stages[2]])
        config = timm_config(name)
        self._set_normalization(config.mean, config.std)
        pretrained = state is not None or weights is not None
        self._freeze(pretrained, pretraining.get("trainable"), pretraining.get("frozen_norm"))

    def _middle(self, image: Tensor) -> tuple[Tensor, Tensor]:
        layer2 = self.layer2(image)
        return layer2, self.layer3(layer2)


def timm_config(name: str) -> Any:
    """timm's description of a model (mean, std, names of its classifier); ValueError for an unknown name.

    Raises:
        ModuleNotFoundError, ValueError: timm is not installed; the name is unknown.
    """
    require("timm", extra="pretrained")
    import timm

    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        nearest = difflib.get_close_matches(model, timm.list_models()) or ["timm.list_models() lists them"]
        raise InputError(
            f"``backbone``: expected a model of timm {timm.__version__}, got {name!r}; nearest: {', '.join(nearest)}."
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(model) if each.split(".")[0] == model]
    if tag and tag not in tags:
        known = f"one of its weights {', '.join(tags)}" if tags else "no tag, since timm has no weights of it"
        raise InputError(f"``backbone``: expected {known} after {model!r}, got {tag!r}.{did_you_mean(tag, tags)}")
    return timm.models.get_pretrained_cfg(name)


def read_timm_weights(name: str, weights: str | Path | None) -> dict[str, Tensor] | None:
    """The entries of a file with timm's names, without the classifier; None for no weights and for ``"timm"``.

    Raises:
        FileNotFoundError, ValueError: no such file; it cannot be read, or belongs to another model.
    """
    config = timm_config(name)
    if weights is None or weights == "timm":
        if weights is not None and not config.has_weights:
            raise InputError(f"``weights``: timm has none of {name!r}; give a file, or leave it at None.")
        return None
    path = Path(weights)
    if not path.is_file():
        raise InputFileError(
            f"``weights``: expected 'timm', None or the path of a file, got {str(weights)!r}: no file."
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)
    return check_timm_entries(name, state, source=str(path))


def check_timm_entries(name: str, state: dict[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """The entries of a whole timm model without the classifier; ValueError unless all are there and fit."""
    import timm

    heads = timm_config(name).classifier or ()
    heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    state = {entry: value for entry, value in state.items() if not entry.startswith(heads)}
    with torch.device("meta"):
        own = timm.create_model(name, num_classes=0).state_dict()
    check_entries(own, state, argument="weights", source=source)
    return state


def create_timm(name: str, *, download: bool, **options: Any) -> nn.Module:
    """``timm.create_model``, with timm's weights or without; TypeError where the model has no such option."""
    import timm

    try:
        net: nn.Module = timm.create_model(name, pretrained=download, **options)
    except OSError as error:
        raise DownloadError(
            f"``weights``: timm could not download the weights of {name!r} ({type(error).__name__}); download them on "
            f"another machine, and give the path of the file as ``weights``."
        ) from error
    return net


def check_stages(stages: Sequence[int] | None, count: int, *, default: Sequence[int]) -> tuple[int, int, int]:
    """Three ascending positions below ``count``, or the default."""
    stages = tuple(default if stages is None else stages)
    if len(stages) != 3 or list(stages) != sorted(set(stages)) or stages[0] < 0 or stages[2] >= count:
        raise InputError(f"``stages``: expected three ascending positions from 0 to {count - 1}, got {stages}.")
    return (stages[0], stages[1], stages[2])


def _feature_network(name: str, *, download: bool, stride: int) -> Any:
    check_integer("stride", stride)
    options: dict[str, Any] = {"features_only": True} | ({} if stride == 32 else {"output_stride": stride})
    try:
        net: Any = create_timm(name, download=download, **options)
    except (TypeError, AssertionError, NotImplementedError, ValueError) as error:
        remedy = "stride=32 takes its maps as they are" if stride != 32 else "take another one"
        raise InputError(
            f"``backbone``: expected a model of timm with feature maps that can have stride {stride}, got {name!r}, "
            f"which cannot ({type(error).__name__}: {error}); {remedy}."
        ) from error
    if not _parts(net) or timm_config(name).fixed_input_size:
        raise InputError(
            f"``backbone``: expected a model of timm whose stages give feature maps (B, C, H, W) at any image size, "
            f"got {name!r}, whose do not; convolutional networks and plain vision transformers do."
        )
    return net


def _parts(net: Any) -> dict[str, nn.Module]:
    """The modules that run one after the other, by name; empty where they do not."""
    if hasattr(net, "conv_stem") and hasattr(net, "blocks"):  # EfficientNet, MobileNet
        blocks = {f"blocks_{i}": block for i, block in enumerate(net.blocks)}
        return {"conv_stem": net.conv_stem, "bn1": net.bn1, **blocks}
    return dict(net.items()) if type(net).__name__ == "FeatureListNet" else {}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    require("safetensors", extra="pretrained")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"``weights``: {str(path)!r} cannot be read as safetensors ({error}).") from error
    return state
