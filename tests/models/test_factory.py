"""Networks by name, and back from checkpoints."""

import pytest
import torch

from dpcn_modules.models import MODELS, build_backbone, build_model, load_model


def save(model, path, **entries):
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"recipe": model.recipe, "state_dict": state, **entries}, path)
    return path


def test_models_are_every_network_on_every_backbone():
    backbones = ("resnet50", "resnet101", "vgg16", "vgg16_bn", "small")
    kinds = ("dpcn_{}", "baseline_{}", "pfenet_{}", "pfenet_{}_dcm", "canet_{}", "canet_{}_dcm", "panet_{}")
    assert sorted(MODELS) == sorted(kind.format(name) for kind in kinds for name in backbones)


@pytest.mark.parametrize("name", [name for name in MODELS if "small" not in name])
def test_every_name_builds_its_network(name):
    with torch.device("meta"):
        model = build_model(name)
    assert type(model).__name__.lower() == name.split("_")[0].replace("baseline", "dpcn")
    assert (getattr(model, "interaction", None) is not None) == name.endswith("_dcm")


@pytest.mark.parametrize(
    ("name", "trainable"),
    [("dpcn_small", "layer4"), ("pfenet_small", "none"), ("canet_small", "none"), ("panet_small", "all")],
)
def test_with_weights_a_network_trains_what_its_authors_trained(name, trainable, tmp_path):
    torch.save(build_backbone("small").state_dict(), tmp_path / "small.pt")
    assert build_model(name, weights=str(tmp_path / "small.pt")).backbone.trainable == trainable
    assert build_model(name).backbone.trainable == "all"


def test_build_model_lists_the_known_names():
    with pytest.raises(ValueError, match=r"dpcn_resnet50.*got 'dpcn_resnet5'.*Did you mean 'dpcn_resnet50'"):
        build_model("dpcn_resnet5")


def test_build_model_lists_the_known_changes():
    with pytest.raises(ValueError, match=r"changes to dpcn_small.*Did you mean 'kernel_size'"):
        build_model("dpcn_small", kernelsize=3)


def test_load_model_builds_what_was_saved(tmp_path):
    model = build_model("dpcn_small", kernel_size=3, sam=False)
    loaded = load_model(save(model, tmp_path / "a.ckpt"))
    assert loaded.recipe == model.recipe
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("name", "trainable"), [("baseline_small", "layer4"), ("pfenet_small", "none")])
def test_load_model_needs_no_pretrained_weights_but_keeps_what_they_decided(name, trainable, tmp_path):
    source = build_model(name)
    source.recipe = {"name": name, "weights": "gone.pt", "trainable": None}
    loaded = load_model(save(source, tmp_path / "a.ckpt"))
    assert loaded.backbone.trainable == trainable
    assert loaded.backbone.frozen_norm


def test_load_model_names_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.ckpt"):
        load_model(tmp_path / "gone.ckpt")


def test_load_model_names_a_truncated_file(tmp_path):
    path = save(build_model("baseline_small"), tmp_path / "a.ckpt")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"a\.ckpt cannot be read .* truncated"):
        load_model(path)


def test_load_model_says_what_is_no_checkpoint(tmp_path):
    torch.save({"weight": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="recipe"):
        load_model(tmp_path / "a.pt")


def test_load_model_names_another_networks_entries(tmp_path):
    model = build_model("dpcn_small")
    model.recipe = {"name": "baseline_small"}
    with pytest.raises(ValueError, match=r"misshaped: decoder.conv.weight|unexpected: .*dynamic_convolution"):
        load_model(save(model, tmp_path / "a.ckpt"))
