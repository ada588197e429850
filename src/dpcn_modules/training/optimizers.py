"""Optimisers with their learning rates, by name."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, MultiStepLR, OneCycleLR, PolynomialLR

from dpcn_modules._checks import check_choice
from dpcn_modules.errors import InputError

Schedule = Literal["sgd_poly", "sgd_constant", "sgd_step", "adamw_one_cycle"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


_SCHEDULERS: dict[Schedule, Callable[[Optimizer, int], LRScheduler]] = {
    "sgd_poly": lambda optimizer, steps: PolynomialLR(optimizer, total_iters=steps, power=0.9),
    "sgd_constant": lambda optimizer, _: ConstantLR(optimizer, factor=1.0),
    "sgd_step": lambda optimizer, steps: MultiStepLR(optimizer, [math.ceil(i * steps / 3) for i in (1, 2)], gamma=0.1),
    "adamw_one_cycle": lambda optimizer, steps: OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps
    ),
}


def build_schedule(
    schedule: Schedule, groups: list[dict[str, Any]], *, steps: int | None, momentum: float, weight_decay: float
) -> tuple[Optimizer, LRScheduler]:
    """Make the optimiser and its learning rates, to be moved on after every step.

    Args:
        schedule: as in :class:`dpcn_modules.training.FewShotTask`; an unknown one is a ValueError.
        groups: parameters and base rates, as :func:`parameter_groups` gives them.
        steps: of the whole training; None, where nobody knows, is a ValueError unless the rate is constant.
        momentum: of SGD.
        weight_decay: of either optimiser.
    """
    check_choice("schedule", schedule, SCHEDULES)
    if steps is None and schedule != "sgd_constant":
        raise InputError(
            f"``schedule``: expected a training of a known number of steps for {schedule!r}, got neither epochs nor "
            f"steps (max_epochs=-1, max_steps=-1); give trainer.max_epochs or trainer.max_steps, beside max_time too, "
            f"or take 'sgd_constant'."
        )
    optimizer: Optimizer
    if schedule == "adamw_one_cycle":
        optimizer = AdamW(groups, weight_decay=weight_decay)
    else:
        optimizer = SGD(groups, momentum=momentum, weight_decay=weight_decay)
    return optimizer, _SCHEDULERS[schedule](optimizer, steps or 0)


def parameter_groups(
    model: nn.Module, lr: float, multipliers: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Sort the trainable parameters of a network by their learning rate.

    Args:
        model: the network.
        lr: base learning rate.
        multipliers: of ``lr``, by the name of a part ("backbone", "backbone.layer4"): of all parameters of that name
            or below it. Where two names match, the longer one counts.

    Returns:
        One group of ``params`` and ``lr`` for each multiplier, in their order, after the group of all other
        parameters; none of them is empty.

    Raises:
        ValueError: nothing is trainable, a name without trainable parameters, or a multiplier that is not positive.

    Example:
        >>> groups = parameter_groups(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), 0.1, {"1": 10})
        >>> [(len(group["params"]), group["lr"]) for group in groups]
        [(2, 0.1), (2, 1.0)]
    """
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not learning:
        raise InputError(f"``model``: expected a parameter that learns, got {type(model).__name__} without one.")
    rates = {"": 1.0, **(multipliers or {})}
    for part, rate in rates.items():
        if not any(_is_below(name, part) for name in learning):
            parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in learning))
            raise InputError(
                f"``lr_multipliers``: expected names of parts that learn, got {part!r}; the network's are {parts}, and "
                f"whatever is below them, such as {next(iter(learning))}."
            )
        if not 0 < rate < math.inf:
            raise InputError(
                f"``lr_multipliers``: expected positive numbers, got {rate} for {part!r}; to keep a part as it is, "
                f"call requires_grad_(False) on it."
            )
    members: dict[str, list[nn.Parameter]] = {part: [] for part in rates}
    for name, parameter in learning.items():
        members[max((part for part in rates if _is_below(name, part)), key=len)].append(parameter)
    return [{"params": members[part], "lr": lr * rate} for part, rate in rates.items() if members[part]]


def _is_below(name: str, part: str) -> bool:
    return not part or f"{name}.".startswith(f"{part}.")  # layer10 is not below layer1
