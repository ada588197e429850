"""Ways to compute the dynamic convolution. Each is a module with two functions.

``run(x, kernels_list)`` computes, and ``why_not(x, kernels_list)`` says why it cannot, or None. A backend with a
heavy dependency imports it inside these.
"""

from collections.abc import Sequence
from types import ModuleType

from torch import Tensor

from dpcn_modules._checks import check_choice
from dpcn_modules.functional._backends import grouped, grouped_cpu, reference

BACKENDS: dict[str, ModuleType] = {"grouped_cpu": grouped_cpu, "grouped": grouped, "reference": reference}
"""By name, in the order in which "auto" tries them."""


def choose(name: str, x: Tensor, kernels_list: Sequence[Tensor]) -> ModuleType:
    """The backend of that name, or with "auto" the first that can run.

    Raises:
        ValueError: an unknown name, or a named backend that cannot run these tensors (and why).
    """
    check_choice("backend", name, ["auto", *BACKENDS])
    candidates = BACKENDS if name == "auto" else {name: BACKENDS[name]}
    reasons = {}
    for candidate, backend in candidates.items():
        reason = backend.why_not(x, kernels_list)
        if reason is None:
            return backend
        reasons[candidate] = reason
    raise ValueError(f"``backend``: {name!r} cannot run here: {reasons}; backend='auto' picks one that can.")
