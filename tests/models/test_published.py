"""The published PFENet and CANet: their weights load, and give their logits."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dpcn_modules import add_dcm, build_model

PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity"
PUBLISHED = {
    "pfenet": ("pfenet_r50_1shot", {"name": "pfenet_resnet50", "backbone": "resnet50_deep_stem"}),
    "pfenet_vgg": ("pfenet_vgg_1shot", {"name": "pfenet_vgg16_bn"}),
    "canet": ("canet_1shot", {"name": "canet_resnet50", "refinements": 0}),
}
SMALL = {"pfenet": {"name": "pfenet_small"}, "canet": {"name": "canet_small"}}


@pytest.fixture(scope="module")
def fill():
    """The rule that the stored logits were made by."""
    if not PARITY.is_dir():
        pytest.skip("needs the published logits in ../shared/parity, which are not here")
    spec = importlib.util.spec_from_file_location("fill", PARITY / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def published_state(fill, files):
    """A state dict of the published names, filled by the rule."""
    shapes = json.loads((PARITY / f"{files}.keys.json").read_text())
    return {
        name: torch.tensor(0) if name.endswith("num_batches_tracked") else torch.from_numpy(fill.value(name, shape))
        for name, shape in ((name, tuple(shape)) for name, shape in shapes.items())
    }


def deviation(logits, files):
    """Largest difference from the stored logits, by their standard deviation."""
    stored = torch.from_numpy(np.load(PARITY / f"{files}.npz")["logits"])
    assert logits.shape == stored.shape
    return ((logits - stored).abs().max() / stored.std()).item()


@torch.no_grad()
@pytest.mark.parametrize("empty_shots", ["left_out", "counted"])
@pytest.mark.parametrize("host", ["pfenet", "pfenet_vgg"])
def test_pfenet_gives_the_published_logits(fill, host, empty_shots):
    files, recipe = PUBLISHED[host]
    model = build_model(**recipe, empty_shots=empty_shots).eval()
    model.load_published_state_dict(published_state(fill, files))
    inputs = {name: torch.from_numpy(value) for name, value in fill.pfenet_inputs().items()}
    assert deviation(model(**inputs).logits[..., ::8, ::8], files) < 1e-3
    assert deviation(add_dcm(model)(**inputs).logits[..., ::8, ::8], files) < 1e-3


@torch.no_grad()
def test_canet_gives_the_published_logits(fill):
    files, recipe = PUBLISHED["canet"]
    model = build_model(**recipe).eval()
    model.load_published_state_dict({f"module.{name}": value for name, value in published_state(fill, files).items()})
    inputs = {name: torch.from_numpy(value) for name, value in fill.canet_inputs().items()}
    query, shown = model.encode_image(inputs["query_image"]), model.encode_image(inputs["support_image"].unsqueeze(1))
    support = model.encode_support(shown, inputs["support_mask"].reshape(1, 1, 321, 321))
    assert deviation(model.decode(query, support, (41, 41)).logits, files) < 1e-3


@pytest.mark.parametrize("host", PUBLISHED)
def test_the_published_names_are_those_of_the_published_network(fill, host):
    files, recipe = PUBLISHED[host]
    with torch.device("meta"):
        model = build_model(**recipe, dcm=True)
    names = model.published_names()
    shapes = json.loads((PARITY / f"{files}.keys.json").read_text())
    assert {names[own]: list(value.shape) for own, value in model.state_dict().items() if own in names} == shapes
    unpublished = {own.split(".")[0] for own in model.state_dict() if own not in names}
    assert unpublished == ({"interaction", "attention"} if host == "canet" else {"interaction"})


def test_pfenets_vgg_is_cut_where_the_published_one_is():
    with torch.device("meta"):
        names = build_model("pfenet_vgg16_bn").published_names()
    stages = {own: theirs for own, theirs in names.items() if own.endswith(".weight") and own.startswith("backbone")}
    assert stages["backbone.features.0.weight"] == "layer0.0.weight"
    assert stages["backbone.features.7.weight"] == "layer1.0.weight"
    assert stages["backbone.features.21.weight"] == "layer2.7.weight"
    assert stages["backbone.features.24.weight"] == "layer3.0.weight"
    assert stages["backbone.features.41.weight"] == "layer4.7.weight"


@pytest.fixture(params=SMALL)
def host(request):
    torch.manual_seed(0)
    return build_model(**SMALL[request.param])


def published(host):
    """What a release of this host network would hold."""
    names = host.published_names()
    return {names[own]: value + 1 for own, value in host.state_dict().items() if own in names}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_loads_with_and_without_data_parallels_prefix(host, prefix, tmp_path):
    state = {f"{prefix}{name}": value for name, value in published(host).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "release.pth")
    before = {name: value.clone() for name, value in add_dcm(host).state_dict().items()}
    host.load_published_state_dict(tmp_path / "release.pth")
    for own, value in host.state_dict().items():
        moved = own in host.published_names()
        assert torch.equal(value, before[own] + 1 if moved else before[own])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop(next(reversed(state))), "``state``: .*missing: (cls.3.bias|layer9.bias)"),
        (lambda state: state.update({"extra.weight": torch.zeros(1)}), "unexpected: extra.weight"),
        (lambda state: state.update({k: v[:1] for k, v in list(state.items())[-1:]}), r"misshaped: .*\(1,\) instead"),
    ],
)
def test_entries_that_do_not_fit_are_named_as_published_and_nothing_changes(host, spoil, message):
    state, before = published(host), {name: value.clone() for name, value in host.state_dict().items()}
    spoil(state)
    with pytest.raises(ValueError, match=message):
        host.load_published_state_dict(state)
    assert all(torch.equal(value, before[name]) for name, value in host.state_dict().items())


def test_the_wrong_stem_is_named():
    with torch.device("meta"):
        model, other = build_model("pfenet_resnet50"), build_model("pfenet_resnet50", backbone="resnet50_deep_stem")
    state = {other.published_names()[own]: value for own, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"unexpected: layer0\.3\.weight"):
        model.load_published_state_dict(state)


def test_a_missing_file_is_named(host):
    with pytest.raises(FileNotFoundError, match=r"``state``: no file gone\.pth"):
        host.load_published_state_dict("gone.pth")
