"""The adapter in a host network: identity until trained, part of the host network, out again, and wrong use."""

import copy
import dataclasses

import pytest
import torch
from models.base import episode_batch

from dpcn_modules import DCMInteraction, add_dcm, build_model, load_model, remove_dcm
from dpcn_modules.functional import episode_loss
from dpcn_modules.models import train_adapter_only

HOSTS = ("pfenet_small", "canet_small")


def logits_of(host, K=2):
    with torch.no_grad():
        return host.eval()(*episode_batch(K=K)).logits


def train(host, steps=10):
    """Steps of SGD on one batch."""
    host.train()
    query, supports, masks = episode_batch(K=2)
    learning = [parameter for parameter in host.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        optimizer.zero_grad()
        episode_loss(host(query, supports, masks), masks[:, 0], masks)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()


@pytest.fixture(params=HOSTS)
def host(request):
    torch.manual_seed(0)
    return build_model(request.param)


@pytest.mark.parametrize("K", [1, 3])
def test_the_adapter_just_added_changes_no_bit(host, K):
    before = logits_of(host, K)
    assert torch.equal(logits_of(add_dcm(host), K), before)


def test_trained_alone_the_adapter_changes_the_logits_and_its_removal_gives_the_first_ones_again(host):
    before, start = logits_of(host), copy.deepcopy(host.state_dict())
    train(add_dcm(host, train="adapter"))
    assert not torch.equal(logits_of(host), before)
    changed = {name for name, value in host.state_dict().items() if name not in start or (value != start[name]).any()}
    assert {name.split(".")[0] for name in changed} == {"interaction"}
    assert torch.equal(logits_of(remove_dcm(host)), before)
    assert all(parameter.requires_grad for parameter in host.parameters())


def test_trained_with_the_whole_head_both_change(host):
    before, start = logits_of(host), copy.deepcopy(host.state_dict())
    train(add_dcm(host))
    assert not torch.equal(logits_of(host), before)
    assert (host.state_dict()["interaction.merge.weight"] != 0).any()
    assert all((host.state_dict()[name] != value).any() for name, value in start.items() if name.endswith("0.weight"))
    assert not torch.equal(logits_of(remove_dcm(host)), before)


def test_only_what_the_adapter_froze_learns_again_after_its_removal():
    host = build_model("pfenet_small", trainable="none")
    before = {name for name, parameter in host.named_parameters() if parameter.requires_grad}
    remove_dcm(add_dcm(host, train="adapter"))
    assert {name for name, parameter in host.named_parameters() if parameter.requires_grad} == before


def test_with_the_adapter_alone_norm_statistics_stay_and_move_again_after_its_removal():
    host = build_model("pfenet_vgg16", backbone="vgg16_bn", channels=8, sizes=(3,)).train()
    norms = [part for part in host.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    add_dcm(host, train="adapter")
    assert not any(norm.training for norm in norms)
    remove_dcm(host)
    assert all(norm.training for norm in norms)


def test_the_adapter_is_part_of_the_host(host):
    add_dcm(host, kernel_size=3, branches=("square",), generation="parallel")
    names = {name for name in host.state_dict() if name.startswith("interaction.")}
    assert {"interaction.merge.weight", "interaction.generator.networks.square.0.weight"} <= names
    assert {f"interaction.{name}" for name, _ in host.interaction.named_parameters()} == names
    assert host.double().interaction.merge.weight.dtype == torch.float64


@pytest.mark.parametrize("options", [{}, {"kernel_size": 3, "branches": ("square",), "network_width": 1}])
def test_state_dict_and_checkpoint_round_trip_with_the_adapter(host, options, tmp_path):
    train(add_dcm(host, **options), steps=2)
    after = logits_of(host)
    built = build_model(host.name, **dataclasses.asdict(host.settings))
    built.load_state_dict(host.state_dict(), strict=True)
    assert torch.equal(logits_of(built), after)
    state = {f"model.{name}": value for name, value in host.state_dict().items()}
    torch.save(
        {"network": host.name, "settings": dataclasses.asdict(host.settings), "state_dict": state}, tmp_path / "a.ckpt"
    )
    assert torch.equal(logits_of(load_model(tmp_path / "a.ckpt")), after)


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_built_with_the_adapter_is_the_host_with_the_adapter_added(name):
    torch.manual_seed(0)
    added = add_dcm(build_model(name))
    torch.manual_seed(0)
    built = build_model(f"{name}_dcm")
    assert all(torch.equal(value, built.state_dict()[key]) for key, value in added.state_dict().items())
    plain = remove_dcm(built)
    assert build_model(plain.name, **dataclasses.asdict(plain.settings)).interaction is None


def test_a_trained_adapter_moves_to_another_host(host):
    torch.manual_seed(1)
    adapter = DCMInteraction(32, 3)
    torch.nn.init.normal_(adapter.merge.weight)
    before = logits_of(host)
    assert add_dcm(host, adapter).interaction is adapter
    assert host.settings.kernel_size == 3
    assert not torch.equal(logits_of(host), before)


def test_a_host_with_the_adapter_compiles_and_copies(host):
    torch.compiler.reset()
    add_dcm(host)
    torch.nn.init.normal_(host.interaction.merge.weight, std=0.1)
    expected, twin = logits_of(host), copy.deepcopy(host)
    assert torch.equal(logits_of(torch.compile(host, fullgraph=True, backend="eager")), expected)
    remove_dcm(host)
    assert torch.equal(logits_of(twin), expected)


def test_a_host_given_by_its_parts_has_no_settings_and_gets_none(host):
    host.settings = None
    assert add_dcm(host).settings is None
    assert remove_dcm(host).settings is None


def test_a_host_built_with_the_adapter_can_be_frozen_around_it():
    host = build_model("canet_small_dcm", trainable="layer4")
    before = {name for name, parameter in host.named_parameters() if parameter.requires_grad}
    train_adapter_only(host)
    learning = {name.split(".")[0] for name, parameter in host.named_parameters() if parameter.requires_grad}
    assert learning == {"interaction"}
    remove_dcm(host)
    after = {name for name, parameter in host.named_parameters() if parameter.requires_grad}
    assert after == {name for name in before if not name.startswith("interaction.")}


@pytest.mark.parametrize("name", ["dpcn_small", "panet_small"])
def test_a_network_without_the_place_is_refused(name):
    for function in (add_dcm, remove_dcm, train_adapter_only):
        with pytest.raises(
            TypeError, match=r"expected a PFENet or a CANet .*, got (DPCN|PANet); .*docs/guide/adapter\.md"
        ):
            function(build_model(name))


def test_adding_twice_is_refused_and_leaves_the_first(host):
    adapter = add_dcm(host).interaction
    with pytest.raises(ValueError, match=r"that has one; remove_dcm\(host\) takes it out"):
        add_dcm(host)
    assert host.interaction is adapter


def test_removing_what_is_not_there_is_refused(host):
    for function in (remove_dcm, train_adapter_only):
        with pytest.raises(ValueError, match=r"without; add_dcm\(host\) adds one"):
            function(host)


def test_an_adapter_of_other_channels_is_refused_and_nothing_is_lost(host):
    with pytest.raises(ValueError, match=r"``adapter``: expected 32 channels, .* got 16; DCMInteraction\(32\) fits"):
        add_dcm(host, DCMInteraction(16), train="adapter")
    assert host.interaction is None
    assert all(parameter.requires_grad for parameter in host.parameters())


def test_an_adapter_and_options_of_another_are_refused(host):
    with pytest.raises(
        ValueError, match=r"``adapter``: expected an adapter or the options .* got both .*kernel_size=3"
    ):
        add_dcm(host, DCMInteraction(32), kernel_size=3)


def test_a_module_that_is_no_adapter_is_refused(host):
    with pytest.raises(TypeError, match="``adapter``: expected a DCMInteraction, got Conv2d"):
        add_dcm(host, torch.nn.Conv2d(32, 32, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": "backbone"}, "``train``: expected one of head, adapter, got 'backbone'"),
        ({"kernel_size": 4}, "``kernel_size``: expected a positive odd number"),
        ({"generation": "seriell"}, "Did you mean 'serial'"),
        ({"branches": ("diagonal",)}, "``branches``: expected one of vertical, square, horizontal, got 'diagonal'"),
    ],
)
def test_options_are_checked_before_anything_changes(host, options, message):
    with pytest.raises(ValueError, match=message):
        add_dcm(host, **options)
    assert host.interaction is None
