"""Pretrained weights: by name without the network, from a file, and what is wrong with a file."""

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import ResNet50_Weights, WeightsEnum

from dpcn_modules.models.backbones import build_backbone
from dpcn_modules.models.weights import imagenet_weights

Entries = dict[str, Tensor]


def image() -> Tensor:
    return torch.randn(2, 3, 33, 33, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def entries() -> dict[str, Entries]:
    """State dicts of random torchvision networks; of their classifiers, only a small stand-in."""
    states = {"small": build_backbone("small").state_dict()}
    for name, classifier in (("resnet50", "fc."), ("vgg16_bn", "classifier.")):
        state = models.get_model(name, weights=None).state_dict()
        kept = {key: value for key, value in state.items() if not key.startswith(classifier)}
        states[name] = {**kept, f"{classifier}weight": torch.zeros(2, 3)}
    return states


@pytest.fixture(scope="module")
def files(entries: dict[str, Entries], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    paths = {name: folder / f"{name}.pth" for name in entries}
    for name, path in paths.items():
        torch.save(entries[name], path)
    return paths


def test_resnet_with_torchvisions_weights_gives_torchvisions_layer2(
    entries: dict[str, Entries], files: dict[str, Path]
) -> None:
    backbone = build_backbone("resnet50", weights=files["resnet50"]).eval()
    original = models.resnet50(weights=None)
    original.load_state_dict({**entries["resnet50"], "fc.weight": original.fc.weight, "fc.bias": original.fc.bias})
    to_layer2 = nn.Sequential(*list(original.children())[:6]).eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(image())[0], to_layer2(image()))


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}])
def test_weights_load_from_a_plain_or_a_wrapped_state_dict(
    wrap: Callable[[Entries], object], entries: dict[str, Entries], tmp_path: Path
) -> None:
    torch.save(wrap(entries["small"]), tmp_path / "weights.pth")
    backbone = build_backbone("small", weights=str(tmp_path / "weights.pth"))
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, entries["small"][key]), key


def test_weights_of_a_classifier_are_left_out(entries: dict[str, Entries], files: dict[str, Path]) -> None:
    backbone = build_backbone("vgg16_bn", weights=files["vgg16_bn"])
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, entries["vgg16_bn"][key]), key


def test_weights_without_batch_counts_load(entries: dict[str, Entries], tmp_path: Path) -> None:
    old = {key: value for key, value in entries["resnet50"].items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    backbone = build_backbone("resnet50", weights=tmp_path / "old.pth")
    assert torch.equal(backbone.state_dict()["conv1.weight"], old["conv1.weight"])
    assert backbone.state_dict()["bn1.num_batches_tracked"] == 0


def test_weights_of_another_network_are_rejected_by_their_entries(entries: dict[str, Entries], tmp_path: Path) -> None:
    state = dict(entries["small"])
    state["extra.weight"] = state.pop("layer2.conv1.0.weight")
    state["stem.0.weight"] = torch.zeros(8, 3, 3, 3)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="missing") as caught:
        build_backbone("small", weights=tmp_path / "other.pth")
    message = str(caught.value)
    assert "missing: layer2.conv1.0.weight;" in message
    assert "unexpected: extra.weight;" in message
    assert "misshaped: stem.0.weight (8, 3, 3, 3) instead of (32, 3, 3, 3);" in message
    assert "other.pth" in message


def test_long_list_of_wrong_entries_is_cut(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"missing: (stem|layer)\S+, \S+, \S+, \S+ and \d+ more; unexpected: weight;"):
        build_backbone("small", weights=tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds nothing"),
        ({"state_dict": {}}, "holds nothing"),
        ({"epoch": 1, "model": {}}, "other things than tensors under epoch, model"),
        (nn.Linear(2, 2), "cannot be read as tensors .* or holds a whole model"),
    ],
)
def test_file_without_a_state_dict_is_rejected(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        build_backbone("small", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<html>404</html>", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_file_of_another_format_is_rejected(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as tensors .*: it is damaged"):
        build_backbone("small", weights=tmp_path / "weights.pth")


def test_truncated_file_is_rejected(files: dict[str, Path], tmp_path: Path) -> None:
    whole = files["small"].read_bytes()
    (tmp_path / "weights.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"weights\.pth', which cannot be read as tensors"):
        build_backbone("small", weights=tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet50", "IMAGENET1K_V3", "one of imagenet, DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2, or the path"),
        ("vgg16", "IMAGENET1K_FEATURES", "one of imagenet, DEFAULT, IMAGENET1K_V1, or the path"),
        ("small", "imagenet", "expected the path of a file with a state dict, got 'imagenet'"),
    ],
)
def test_weights_that_are_neither_a_name_nor_a_file_are_rejected(name: str, weights: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message), torch.device("meta"):
        build_backbone(name, weights=weights)


def test_imagenet_means_the_first_version() -> None:
    named = imagenet_weights("resnet50")
    assert named["imagenet"] is ResNet50_Weights.IMAGENET1K_V1
    assert named["DEFAULT"] is ResNet50_Weights.IMAGENET1K_V2
    assert list(imagenet_weights("vgg16")) == ["imagenet", "DEFAULT", "IMAGENET1K_V1"]


def test_named_weights_are_loaded_from_torchvision(
    entries: dict[str, Entries], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def get_state_dict(entry: WeightsEnum, **options: bool) -> Entries:
        asked.append(entry)
        return entries["resnet50"]

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    backbone = build_backbone("resnet50", weights="IMAGENET1K_V2")
    assert asked == [ResNet50_Weights.IMAGENET1K_V2]
    assert torch.equal(backbone.state_dict()["conv1.weight"], entries["resnet50"]["conv1.weight"])


def test_failed_download_names_the_address_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_state_dict(entry: WeightsEnum, **options: bool) -> Entries:
        raise URLError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    with (
        pytest.raises(ConnectionError, match=r"could not download https://\S+resnet50\S+ \(no route to host\)"),
        torch.device("meta"),
    ):
        build_backbone("resnet50", weights="imagenet")
