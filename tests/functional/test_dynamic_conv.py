"""The dynamic convolution, in every backend."""

import oracles
import pytest
import torch
from op_contract import OpContract
from samples import features, gradients, with_gradient
from tolerances import assert_close
from torch import Tensor

from dpcn_modules.functional import dynamic_conv2d, dynamic_conv2d_multi
from dpcn_modules.functional._backends import BACKENDS

ANYWHERE = [name for name in BACKENDS if name != "triton"]  # whose tests are in test_triton_backend.py


class TestGrouped(OpContract):
    backend = "grouped"

    def operation(self, *inputs: Tensor) -> Tensor:
        return dynamic_conv2d(*inputs, backend=self.backend)

    def oracle(self, *inputs: Tensor) -> Tensor:
        return oracles.dynamic_conv2d(*inputs)

    def inputs(self, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
        x, kernels = features(batch, 3, 5, 4, seed=seed), features(batch, 3, 3, 5, seed=seed + 50)
        return x.to(dtype), kernels.to(dtype)


class TestGroupedCPU(TestGrouped):
    backend = "grouped_cpu"

    def test_passes_gradgradcheck(self) -> None:
        assert torch.autograd.gradgradcheck(self.operation, with_gradient(self.inputs(batch=1)))


class TestGroupedCPUBySamples(TestGroupedCPU):
    """As large inputs are taken: one sample at a time."""

    @pytest.fixture(autouse=True)
    def _one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(BACKENDS["grouped_cpu"], "_LARGE", 1)
        monkeypatch.setattr(BACKENDS["grouped_cpu"], "_AT_A_TIME", 1)


class TestReference(TestGrouped):
    backend = "reference"


class TestAuto(TestGrouped):
    backend = "auto"


@pytest.mark.parametrize("backend", [*ANYWHERE, "auto"])
@pytest.mark.parametrize(("kh", "kw"), [(1, 1), (5, 1), (1, 5), (3, 3), (5, 5), (7, 3), (9, 9)])
def test_dynamic_conv2d_matches_per_sample_conv2d(kh: int, kw: int, backend: str) -> None:
    inputs = with_gradient([features(2, 3, 6, 4), features(2, 3, kh, kw, seed=1)])
    assert_close(dynamic_conv2d(*inputs, backend=backend), oracles.dynamic_conv2d(*inputs))
    expected = gradients(oracles.dynamic_conv2d, inputs)
    for actual, wanted in zip(gradients(lambda *a: dynamic_conv2d(*a, backend=backend), inputs), expected, strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("backend", [*ANYWHERE, "auto"])
def test_dynamic_conv2d_is_a_cross_correlation_with_zero_padding(backend: str) -> None:
    x, kernels = torch.arange(1.0, 5.0).reshape(1, 1, 1, 4), torch.tensor([1.0, 10.0, 100.0]).reshape(1, 1, 1, 3)
    assert dynamic_conv2d(x, kernels, backend=backend).flatten().tolist() == [210, 321, 432, 43]


@pytest.mark.parametrize("backend", [*ANYWHERE, "auto"])
def test_dynamic_conv2d_multi_equals_one_call_for_each(backend: str) -> None:
    x = features(2, 3, 6, 4)
    kernels_list = [features(2, 3, 5, 1), features(2, 3, 3, 3), features(2, 3, 1, 5)]
    results = dynamic_conv2d_multi(x, kernels_list, backend=backend)
    assert len(results) == 3
    for actual, kernels in zip(results, kernels_list, strict=True):
        assert torch.equal(actual, dynamic_conv2d(x, kernels, backend=backend))


@pytest.mark.parametrize(
    ("kernels_shape", "message"),
    [
        ((3, 3, 3, 3), r"``kernels``: expected B=2 .* got shape \(3, 3, 3, 3\); B=2 comes from ``x`` \(2, 3, 5, 4\)"),
        ((2, 4, 3, 3), r"``kernels``: expected C=3 .* got shape \(2, 4, 3, 3\); C=3 comes from ``x`` \(2, 3, 5, 4\)"),
        ((2, 3, 3), r"``kernels``: expected 4 axes \(B C kh kw\), got shape \(2, 3, 3\)"),
        ((2, 3, 4, 3), r"``kernels``: expected a positive odd number.* got 4; try 5"),
        ((2, 3, 3, 2), r"``kernels``: expected a positive odd number.* got 2; try 3"),
        ((2, 3, 3, 0), r"``kernels``: expected a positive odd number.* got 0; try 1"),
    ],
)
def test_dynamic_conv2d_rejects_kernels_that_do_not_fit(kernels_shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dynamic_conv2d(torch.zeros(2, 3, 5, 4), torch.zeros(kernels_shape))


def test_dynamic_conv2d_rejects_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"``kernels``: expected a tensor \(B C kh kw\), got list"):
        dynamic_conv2d(torch.zeros(2, 3, 5, 4), [[1.0]])


def test_dynamic_conv2d_rejects_an_unknown_backend_and_lists_the_known() -> None:
    known = "auto, grouped_cpu, grouped, reference, triton"
    message = rf"``backend``: expected one of {known}, got 'groupd'\. Did you mean 'grouped'\?"
    with pytest.raises(ValueError, match=message):
        dynamic_conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1), backend="groupd")


def test_dynamic_conv2d_says_why_a_named_backend_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKENDS["grouped"], "why_not", lambda x, kernels_list: "it is switched off")
    x, kernels = features(1, 1, 3, 3), features(1, 1, 3, 3)
    with pytest.raises(ValueError, match=r"'grouped' cannot run here: .*it is switched off.*; backend='auto' picks"):
        dynamic_conv2d(x, kernels, backend="grouped")
    assert_close(dynamic_conv2d(x, kernels), oracles.dynamic_conv2d(x, kernels))  # "auto" takes the next one


def test_dynamic_conv2d_multi_rejects_no_kernels() -> None:
    with pytest.raises(ValueError, match=r"``kernels_list``: expected at least one tensor \(B C kh kw\), got none"):
        dynamic_conv2d_multi(torch.zeros(1, 1, 3, 3), [])


@pytest.mark.parametrize("backend", [*ANYWHERE, "auto"])
@pytest.mark.parametrize("needed", ["x", "kernels"])
def test_dynamic_conv2d_gives_the_gradient_of_one_argument_alone(needed: str, backend: str) -> None:
    inputs = {"x": torch.randn(2, 4, 6, 5), "kernels": torch.randn(2, 4, 5, 1)}
    both = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    dynamic_conv2d(**both, backend=backend).square().sum().backward()
    alone = {name: value.clone().requires_grad_(name == needed) for name, value in inputs.items()}
    dynamic_conv2d(**alone, backend=backend).square().sum().backward()
    torch.testing.assert_close(alone[needed].grad, both[needed].grad)


def test_dynamic_conv2d_multi_takes_an_even_number_of_channels() -> None:
    x, kernels = torch.randn(2, 4, 6, 5), [torch.randn(2, 4, 5, 1), torch.randn(2, 4, 1, 5)]
    for found, kernel in zip(dynamic_conv2d_multi(x, kernels), kernels, strict=True):
        torch.testing.assert_close(found, dynamic_conv2d(x, kernel))
