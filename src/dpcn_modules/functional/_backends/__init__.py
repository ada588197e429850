"""Ways to compute the dynamic convolution. Each is a module with two functions.

``run(x, kernels_list)`` computes, and ``why_not(x, kernels_list)`` returns the reason why it cannot, or None. A backend
imports a heavy dependency inside these.
"""

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from dpcn_modules._checks import check_choice
from dpcn_modules.errors import InputError
from dpcn_modules.functional._backends import grouped, grouped_cpu, reference, triton

BACKENDS = {"grouped_cpu": grouped_cpu, "grouped": grouped, "reference": reference, "triton": triton}
"""By name, in the order in which "auto" tries them."""

BY_NAME_ONLY = {"triton": "not yet measured on a GPU"}
"""Backends that "auto" leaves out, with the reason."""


def choose(name: str, x: Tensor, kernels_list: Sequence[Tensor]) -> ModuleType:
    """The backend of that name, or with "auto" the first that can run, of those that it tries.

    ValueError for an unknown name, or where none of them can run these tensors (and why).
    """
    check_choice("backend", name, ["auto", *BACKENDS])
    candidates = [known for known in BACKENDS if known not in BY_NAME_ONLY] if name == "auto" else [name]
    reasons = {}
    for candidate in candidates:
        reasons[candidate] = BACKENDS[candidate].why_not(x, kernels_list)
        if reasons[candidate] is None:
            return BACKENDS[candidate]
    raise InputError(f"``backend``: {name!r} cannot run here: {reasons}; backend='auto' picks one that can.")
