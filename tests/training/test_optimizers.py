"""Learning rates of every schedule at every step, and parts of a network with their own."""

import pytest
import torch
from torch import nn

from dpcn_modules.models import build_model
from dpcn_modules.training.optimizers import SCHEDULES, build_schedule, parameter_groups

SETTINGS = {"momentum": 0.9, "weight_decay": 5e-4}


def rates_of(schedule, steps, multipliers=None, lr=0.1):
    """The rate of each group at every step."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    groups = parameter_groups(model, lr, multipliers)
    optimizer, scheduler = build_schedule(schedule, groups, steps=steps, **SETTINGS)
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return [list(of_group) for of_group in zip(*rates, strict=True)]


def test_sgd_poly_falls_to_nothing():
    torch.testing.assert_close(rates_of("sgd_poly", 6), [[0.1 * (1 - step / 6) ** 0.9 for step in range(6)]])


def test_sgd_constant_stays():
    assert rates_of("sgd_constant", 6, lr=2.5e-3) == [[2.5e-3] * 6]


@pytest.mark.parametrize(
    ("steps", "thirds"), [(9, (3, 3, 3)), (10, (4, 3, 3)), (8, (3, 3, 2)), (2, (1, 1, 0)), (1, (1, 0, 0))]
)
def test_sgd_step_falls_after_each_third(steps, thirds):
    expected = [1e-3 * 0.1**i for i, length in enumerate(thirds) for _ in range(length)]
    torch.testing.assert_close(rates_of("sgd_step", steps, lr=1e-3), [expected])


def test_sgd_step_has_the_published_milestones():
    groups = parameter_groups(nn.Linear(2, 1), 1e-3)
    _, scheduler = build_schedule("sgd_step", groups, steps=30000, **SETTINGS)
    assert sorted(scheduler.milestones.elements()) == [10000, 20000]


def test_adamw_one_cycle_rises_to_the_rate_and_falls():
    (rates,) = rates_of("adamw_one_cycle", 10)
    assert max(rates) == rates[2] == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[:3] == sorted(rates[:3])
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_multiplier_holds_at_every_step(schedule):
    alone = rates_of(schedule, 9)[0]
    others, tenfold = rates_of(schedule, 9, {"1": 10.0})
    torch.testing.assert_close(others, alone)
    torch.testing.assert_close(tenfold, [10 * rate for rate in alone])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_optimiser_is_the_one_in_the_name(schedule):
    optimizer, _ = build_schedule(schedule, parameter_groups(nn.Linear(2, 1), 0.1), steps=9, **SETTINGS)
    assert type(optimizer).__name__.lower() == schedule.split("_")[0]
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 5e-4
    assert group.get("momentum", 0.9) == 0.9


def test_an_unknown_schedule_is_named():
    with pytest.raises(
        ValueError, match="expected one of sgd_poly, sgd_constant, sgd_step, adamw_one_cycle, got 'sgd'"
    ):
        build_schedule("sgd", parameter_groups(nn.Linear(2, 1), 0.1), steps=9, **SETTINGS)


def names_by_rate(model, multipliers):
    """Which parameters have which rate."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, 1.0, multipliers)
    return {group["lr"]: {names[parameter] for parameter in group["params"]} for group in groups}


@pytest.mark.parametrize("multipliers", [None, {}])
def test_without_multipliers_there_is_one_group_of_all_that_learns(multipliers):
    model = build_model("dpcn_small", trainable="layer4")
    (group,) = parameter_groups(model, 0.1, multipliers)
    assert group["lr"] == 0.1
    assert all(
        a is b for a, b in zip(group["params"], filter(lambda p: p.requires_grad, model.parameters()), strict=True)
    )


def test_the_longer_name_counts_whatever_the_order():
    model = build_model("dpcn_small")
    multipliers = {"backbone.layer4": 0.5, "backbone": 0.1, "decoder.conv.bias": 10.0}
    found = names_by_rate(model, multipliers)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layer4 = {name for name in learning if name.startswith("backbone.layer4.")}
    backbone = {name for name in learning if name.startswith("backbone.")}
    assert found == {
        1.0: learning - backbone - {"decoder.conv.bias"},
        0.5: layer4,
        0.1: backbone - layer4,
        10.0: {"decoder.conv.bias"},
    }
    assert found == names_by_rate(model, dict(reversed(multipliers.items())))


def test_a_name_ends_where_a_part_ends():
    model = nn.ModuleDict({"layer1": nn.Linear(1, 1), "layer10": nn.Linear(1, 1)})
    assert names_by_rate(model, {"layer1": 2.0})[2.0] == {"layer1.weight", "layer1.bias"}


def test_a_group_without_parameters_is_left_out():
    model = build_model("dpcn_small", trainable="layer4")
    rates = [group["lr"] for group in parameter_groups(model, 1.0, {"backbone": 0.1, "backbone.layer4": 0.5})]
    assert rates == [1.0, 0.5]


@pytest.mark.parametrize("part", ["bakcbone", "backbone.layer1", "back", "decoder."])
def test_a_part_that_does_not_learn_is_named_with_those_that_do(part):
    model = build_model("baseline_small", trainable="layer4").requires_grad_(False)
    model.decoder.requires_grad_(True)
    model.reduction.requires_grad_(True)
    with pytest.raises(ValueError, match=rf"parts that learn, got '{part}'; the network's are reduction, decoder,"):
        parameter_groups(model, 0.1, {part: 2.0})


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_multiplier_that_is_not_positive_is_refused(rate):
    with pytest.raises(ValueError, match=r"expected positive numbers, got .* for 'decoder'; .*requires_grad_"):
        parameter_groups(build_model("baseline_small"), 0.1, {"decoder": rate})


def test_a_network_in_which_nothing_learns_is_refused():
    with pytest.raises(ValueError, match="expected a parameter that learns, got Linear"):
        parameter_groups(nn.Linear(2, 1).requires_grad_(False), 0.1)


def test_an_optimiser_with_several_rates_comes_back_from_its_state():
    """A resume builds the groups anew and loads their state."""
    model = build_model("baseline_small")

    def build():
        return build_schedule(
            "sgd_step", parameter_groups(model, 0.1, {"backbone": 0.1}), steps=6, momentum=0.9, weight_decay=0.0
        )

    optimizer, scheduler = build()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    resumed, resumed_scheduler = build()
    resumed.load_state_dict(optimizer.state_dict())
    resumed_scheduler.load_state_dict(scheduler.state_dict())
    torch.testing.assert_close([group["lr"] for group in resumed.param_groups], [0.01, 0.001])
    assert resumed_scheduler.last_epoch == 3
