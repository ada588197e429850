"""Networks by name, and back from checkpoints."""

import dataclasses

import pytest
import torch

from dpcn_modules.models import (
    MODELS,
    build_backbone,
    build_model,
    list_backbones,
    list_models,
    load_model,
    read_checkpoint,
)


def save(model, path, **entries):
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save(
        {"network": model.name, "settings": dataclasses.asdict(model.settings), "state_dict": state, **entries}, path
    )
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


def test_build_model_lists_the_known_settings():
    with pytest.raises(ValueError, match=r"overrides of dpcn_small.*Did you mean 'kernel_size'"):
        build_model("dpcn_small", kernelsize=3)


def test_load_model_builds_what_was_saved(tmp_path):
    model = build_model("dpcn_small", kernel_size=3, sam=False)
    loaded = load_model(save(model, tmp_path / "a.ckpt"))
    assert (loaded.name, loaded.settings) == (model.name, model.settings)
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(("name", "trainable"), [("baseline_small", "layer4"), ("pfenet_small", "none")])
def test_load_model_needs_no_pretrained_weights_but_keeps_what_they_decided(name, trainable, tmp_path):
    source = build_model(name)
    source.settings = dataclasses.replace(source.settings, weights="gone.pt", trainable=None)
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
    with pytest.raises(ValueError, match="with the settings to build its network"):
        load_model(tmp_path / "a.pt")


def test_load_model_names_another_networks_entries(tmp_path):
    model = build_model("dpcn_small")
    model.name, model.settings = "baseline_small", build_model("baseline_small").settings
    with pytest.raises(ValueError, match=r"misshaped: decoder.conv.weight|unexpected: .*dynamic_convolution"):
        load_model(save(model, tmp_path / "a.ckpt"))


@pytest.mark.parametrize(
    ("name", "overrides", "error", "message"),
    [
        (
            "dpcn_small",
            {"kernel_size": "5"},
            TypeError,
            r"``kernel_size``: expected an odd whole number, got '5' \(str\)",
        ),
        ("dpcn_small", {"kernel_size": 5.0}, TypeError, r"``kernel_size``: .* got 5\.0 \(float\)"),
        ("dpcn_small", {"kernel_size": True}, TypeError, r"``kernel_size``: .* got True \(bool\)"),
        ("dpcn_small", {"channels": 0}, ValueError, r"``channels``: expected at least 1, got 0"),
        ("dpcn_small", {"channels": None}, TypeError, r"``channels``: expected a whole number, got None"),
        (
            "dpcn_small",
            {"windows": [(2, 1)]},
            ValueError,
            r"``windows``: expected a positive odd number.* got 2; try 3",
        ),
        ("dpcn_small", {"windows": []}, ValueError, r"``windows``: expected at least one"),
        ("dpcn_small", {"backbone": "resnet5"}, ValueError, r"``backbone``: .* Did you mean 'resnet50'"),
        ("dpcn_small", {"trainable": "layer5"}, ValueError, r"``trainable``: .* Did you mean 'layer4'"),
        ("dpcn_small", {"frozen_norm": "yes"}, TypeError, r"``frozen_norm``: expected True or False, got 'yes'"),
        ("dpcn_small", {"weights": 3}, TypeError, r"``weights``: expected a name, a path or None, got 3"),
        ("dpcn_small", {"dcm": 1}, TypeError, r"``dcm``: expected True or False, got 1"),
        ("dpcn_small", {"rates": 6}, TypeError, r"``rates``: expected one or more whole numbers, got 6"),
        ("dpcn_small", {"classifier_dropout": 1.5}, ValueError, r"``classifier_dropout``: expected 0 to 1, got 1\.5"),
        ("dpcn_small", {"branches": "square"}, ValueError, r"``branches``: "),
        ("dpcn_small", {"backend": "tritn"}, ValueError, r"``backend``: .* Did you mean 'triton'"),
        ("pfenet_small", {"sizes": (8, 0)}, ValueError, r"``sizes``: expected at least 1, got 0"),
        ("canet_small", {"history_dropout": -0.1}, ValueError, r"``history_dropout``: expected 0 to 1"),
        ("panet_small", {"scale": "20"}, TypeError, r"``scale``: expected a number, got '20' \(str\)"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_given(name, overrides, error, message):
    with pytest.raises(error, match=message):
        build_model(name, **overrides)


def test_settings_from_yaml_are_the_settings_from_python():
    listed = build_model("dpcn_small", windows=[[3, 3], [1, 5]], rates=[2, 4], branches=["square"])
    assert (
        listed.settings
        == build_model("dpcn_small", windows=((3, 3), (1, 5)), rates=(2, 4), branches=("square",)).settings
    )


def test_names_are_listed_by_pattern():
    assert list_models() == sorted(MODELS)
    assert list_models("canet_*_dcm") == [
        f"canet_{each}_dcm" for each in ("resnet101", "resnet50", "small", "vgg16_bn", "vgg16")
    ]
    assert list_models("nothing") == []
    assert list_backbones("vgg*") == ["vgg16", "vgg16_bn", "vgg16_bn_ceil", "vgg16_ceil", "vgg16_dilated"]


@pytest.mark.parametrize("name", ["dpcn_small", "pfenet_small_dcm"])
def test_a_checkpoint_of_0_1_0_loads(name, tmp_path):
    torch.manual_seed(0)
    model = build_model(name, kernel_size=3)
    older = {}
    for key, value in model.state_dict().items():
        before = key.replace("dynamic_convolution.generator.networks", "dynamic_convolution.networks")
        before = before.replace("interaction.generator.networks", "interaction.dynamic_convolution.networks")
        older[f"model.{before}"] = value
    assert older.keys() != {f"model.{key}" for key in model.state_dict()}
    torch.save({"recipe": {"name": name, "kernel_size": 3}, "size": 64, "state_dict": older}, tmp_path / "older.ckpt")
    loaded = load_model(tmp_path / "older.ckpt")
    assert loaded.settings == model.settings
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in model.state_dict().items())
    assert read_checkpoint(tmp_path / "older.ckpt").size == 64
