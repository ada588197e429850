"""Networks by name, and back from checkpoints."""

import pytest
import torch

from dpcn_modules.models import MODELS, build_model, load_model


def save(model, path, **entries):
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"recipe": model.recipe, "state_dict": state, **entries}, path)
    return path


def test_models_are_dpcn_and_baseline_on_every_backbone():
    backbones = ("resnet50", "resnet101", "vgg16", "vgg16_bn", "small")
    assert sorted(MODELS) == sorted(f"{kind}_{name}" for kind in ("dpcn", "baseline") for name in backbones)


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


def test_load_model_needs_no_pretrained_weights_but_keeps_what_they_decided(tmp_path):
    source = build_model("baseline_small", trainable="layer4", frozen_norm=True)
    source.recipe = {"name": "baseline_small", "weights": "gone.pt", "trainable": None}
    loaded = load_model(save(source, tmp_path / "a.ckpt"))
    assert loaded.backbone.trainable == "layer4"
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
