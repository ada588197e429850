"""The fused Triton backend: on a GPU where there is one, else in Triton's interpreter, which is slow: tiny tensors."""

import importlib.util
import subprocess
import sys

import oracles
import pytest
import torch
from op_contract import OpContract
from samples import features, gradients, with_gradient
from tolerances import LOW_PRECISION_FACTOR, assert_close, error
from torch import Tensor

from dpcn_modules.functional import dynamic_conv2d, dynamic_conv2d_multi
from dpcn_modules.functional._backends import BACKENDS, BY_NAME_ONLY, _triton_launch, choose, triton

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton: pip install triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DPCN = ((5, 1), (5, 5), (1, 5))


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter strips than a GPU wants: less to interpret, and small planes have several."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    for rows in ("_ROWS", "_ROWS_MANY_TAPS"):
        monkeypatch.setattr(_triton_launch, rows, {"forward": 2, "backward": 1})


def convolve(x: Tensor, *kernels: Tensor) -> list[Tensor]:
    """The backend on its device, as if everything were on the CPU."""
    results = dynamic_conv2d_multi(x.to(DEVICE), [k.to(DEVICE) for k in kernels], backend="triton")
    return [result.cpu() for result in results]


def oracle(x: Tensor, *kernels: Tensor) -> list[Tensor]:
    return [oracles.dynamic_conv2d(x, k) for k in kernels]


def inputs_of(shape: tuple[int, ...], sides: tuple[tuple[int, int], ...]) -> tuple[Tensor, ...]:
    """``x`` of a shape and kernels of some sides, all wanting a gradient."""
    return with_gradient([features(*shape), *(features(*shape[:2], *side, seed=sum(side)) for side in sides)])


def assert_equals_oracle(inputs: tuple[Tensor, ...]) -> None:
    """Values and gradients."""
    for actual, wanted in zip(convolve(*inputs), oracle(*inputs), strict=True):
        assert_close(actual, wanted)
    for actual, wanted in zip(gradients(convolve, inputs), gradients(oracle, inputs), strict=True):
        assert_close(actual, wanted)


class TestTriton(OpContract):
    def operation(self, *inputs: Tensor) -> Tensor:
        return convolve(*inputs)[0]

    def oracle(self, *inputs: Tensor) -> Tensor:
        return oracles.dynamic_conv2d(*inputs)

    def inputs(self, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
        x, kernels = features(batch, 2, 3, 4, seed=seed), features(batch, 2, 3, 5, seed=seed + 50)
        return x.to(dtype), kernels.to(dtype)

    def test_passes_gradcheck(self) -> None:
        assert torch.autograd.gradcheck(self.operation, with_gradient(self.inputs(batch=1)), fast_mode=True)


@pytest.mark.parametrize("side", [(1, 1), (5, 1), (1, 5), (3, 3), (5, 5), (7, 3), (9, 9)])
def test_triton_matches_per_sample_conv2d(side: tuple[int, int]) -> None:
    assert_equals_oracle(inputs_of((2, 1, 3, 4), (side,)))


def test_triton_takes_several_sets_of_kernels() -> None:
    assert_equals_oracle(inputs_of((2, 2, 6, 5), DPCN))


def test_triton_takes_more_taps_than_one_backward_launch() -> None:
    assert _triton_launch._FEW_TAPS < 9 * 7 + 3 <= triton._MOST_TAPS
    assert_equals_oracle(inputs_of((1, 1, 4, 3), ((9, 7), (1, 3))))


@pytest.mark.parametrize("shape", [(1, 2, 1, 5), (2, 1, 6, 1), (1, 1, 1, 1)])
def test_triton_takes_planes_of_one_row_or_column(shape: tuple[int, ...]) -> None:
    assert_equals_oracle(inputs_of(shape, ((3, 1), (3, 3))))


@pytest.mark.parametrize("shape", [(0, 2, 3, 3), (2, 0, 3, 3), (1, 2, 0, 3)])
def test_triton_takes_tensors_without_elements(shape: tuple[int, ...]) -> None:
    inputs = inputs_of(shape, ((3, 1), (3, 3)))
    assert [out.shape for out in convolve(*inputs)] == [shape, shape]
    for grad, tensor in zip(gradients(convolve, inputs), inputs, strict=True):
        assert torch.equal(grad, torch.zeros_like(tensor))


@pytest.mark.parametrize("programs", [1, 2048], ids=["one program a plane", "one program a tile"])
@pytest.mark.parametrize("shape", [(1, 1, 19, 21), (1, 1, 3, 70)])
def test_triton_crosses_the_borders_of_tiles(
    shape: tuple[int, ...], programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_triton_launch, "_PROGRAMS", programs)
    monkeypatch.setattr(_triton_launch, "_ROWS", {"forward": 8, "backward": 4})  # as they are
    assert -(-shape[2] // 8) * shape[3] > _triton_launch._LANES
    assert_equals_oracle(inputs_of(shape, ((5, 3),)))


@pytest.mark.parametrize("wanted", ["x", "kernels", "one of the kernels"])
def test_triton_gives_the_gradients_that_are_needed(wanted: str) -> None:
    x, *kernels = (tensor.detach() for tensor in inputs_of((1, 2, 3, 4), ((3, 1), (1, 3))))
    chosen = {"x": [x], "kernels": kernels, "one of the kernels": kernels[1:]}[wanted]
    for tensor in chosen:
        tensor.requires_grad_()
    actual, expected = (gradients(function, (x, *kernels)) for function in (convolve, oracle))
    assert len(actual) == len(chosen)
    for grad, expected_grad in zip(actual, expected, strict=True):
        assert_close(grad, expected_grad)


@pytest.mark.parametrize("through_operator", [False, True])
def test_triton_takes_results_that_are_not_used(through_operator: bool) -> None:
    inputs = inputs_of((1, 2, 3, 4), ((3, 1), (3, 3), (1, 3)))

    def run(x: Tensor, *kernels: Tensor) -> list[Tensor]:
        if not through_operator:
            return convolve(x, *kernels)
        return [result.cpu() for result in triton._convolve(x.to(DEVICE), [k.to(DEVICE) for k in kernels])]

    actual = torch.autograd.grad(run(*inputs)[1].square().sum(), inputs, allow_unused=True)
    assert actual[1] is None
    assert actual[3] is None
    wanted = torch.autograd.grad(oracle(*inputs)[1].square().sum(), (inputs[0], inputs[2]))
    assert_close(actual[0], wanted[0])
    assert_close(actual[2], wanted[1])


on_gpu_only = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: the interpreter does not round bfloat16")


@pytest.mark.parametrize("dtype", [pytest.param(torch.bfloat16, marks=on_gpu_only), torch.float16])
def test_triton_errors_in_low_precision_are_at_most_twice_the_oracles(dtype: torch.dtype) -> None:
    exact = inputs_of((1, 2, 6, 5), ((5, 1), (3, 3)))
    half = with_gradient([tensor.to(dtype) for tensor in exact])
    results = [(*function(*half), *gradients(function, half)) for function in (convolve, oracle)]
    for actual, allowed, wanted in zip(*results, (*oracle(*exact), *gradients(oracle, exact)), strict=True):
        assert actual.dtype == dtype
        assert error(actual, wanted) <= LOW_PRECISION_FACTOR * error(allowed, wanted)


def test_triton_reads_parts_of_a_concatenation_without_a_copy() -> None:
    whole = features(2, 6, 3, 4)
    part = whole[:, 2:4]
    assert not part.is_contiguous()
    assert _triton_launch._with_whole_planes(part) is part
    kernels = features(2, 2, 3, 3, seed=1)
    assert_close(convolve(part, kernels)[0], oracles.dynamic_conv2d(part, kernels))

    def concatenated(x: Tensor, kernels: Tensor) -> Tensor:
        return torch.cat([*convolve(x, kernels, kernels)], 1)

    inputs = with_gradient([part, kernels])
    wanted = gradients(lambda x, kernels: torch.cat(oracle(x, kernels, kernels), 1), inputs)
    for actual, expected in zip(gradients(concatenated, inputs), wanted, strict=True):
        assert_close(actual, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of PyTorch's own check
def test_triton_operators_pass_opcheck() -> None:
    x, *kernels = (tensor.to(DEVICE) for tensor in inputs_of((1, 2, 2, 3), ((3, 1), (1, 3))))
    torch.library.opcheck(triton._convolve, (x, kernels))
    x, *kernels, first, second = (tensor.detach() for tensor in (x, *kernels, x, x))
    torch.library.opcheck(triton._gradients, (x, kernels, [first, second], True, True))
    torch.library.opcheck(triton._gradients, (x, kernels, [first, second], False, True))


def test_triton_is_one_operator_in_an_exported_graph() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
            return torch.cat(dynamic_conv2d_multi(x, [first, second], backend="triton"), 1)

    inputs = tuple(t.detach().to(DEVICE) for t in inputs_of((1, 2, 3, 4), ((3, 1), (1, 3))))
    program = torch.export.export(Model(), inputs)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets.count("dpcn_modules.dynamic_conv2d.default") == 1
    assert_close(program.module()(*inputs), torch.cat(oracle(*inputs), 1))


@pytest.mark.parametrize("through_operator", [False, True])
def test_triton_has_no_second_derivative_and_says_so(through_operator: bool) -> None:
    x, kernels = (tensor.to(DEVICE) for tensor in inputs_of((1, 1, 2, 3), ((1, 3),)))
    out = triton._convolve(x, [kernels])[0] if through_operator else dynamic_conv2d(x, kernels, backend="triton")
    (grad,) = torch.autograd.grad(out.square().sum(), [x], create_graph=True)
    with pytest.raises(NotImplementedError, match=r"no second derivative; backend='grouped' has one"):
        grad.sum().backward()


def test_triton_casts_under_autocast_as_a_convolution_does() -> None:
    x, kernels = (tensor.to(DEVICE) for tensor in inputs_of((1, 1, 3, 3), ((3, 3),)))
    mixed = x.detach().float().requires_grad_(), kernels.detach().bfloat16().requires_grad_()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out = dynamic_conv2d(*mixed, backend="triton")
        assert dynamic_conv2d(x, kernels, backend="triton").dtype == torch.float64
    assert out.dtype == torch.bfloat16
    assert [grad.dtype for grad in gradients(lambda *_: out.cpu(), mixed)] == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("x", "kernels", "reason"),
    [
        (torch.int32, [(3, 3)], "takes one dtype of bfloat16, float16, float32, float64, and got float32, int32"),
        (torch.float64, [(3, 3)], "takes one dtype of .*, and got float32, float64"),
        (torch.float32, [(3, 3), (1, 11)], "takes kernel sides up to 9, and got 11"),
        (torch.float32, [(9, 9), (7, 7)], "takes 128 taps in one call, and got 130: make a call for each"),
        (torch.float32, [(9, 9), (5, 9)], None),
    ],
)
def test_triton_says_what_it_cannot_run(x: torch.dtype, kernels: list[tuple[int, int]], reason: str | None) -> None:
    feat = torch.zeros(1, 1, 3, 3, dtype=x, device=DEVICE)
    kernels_list = [torch.zeros(1, 1, *side, device=DEVICE) for side in kernels]
    if reason is None:
        assert triton.why_not(feat, kernels_list) is None
    else:
        with pytest.raises(ValueError, match=rf"'triton' cannot run here: .*{reason}"):
            dynamic_conv2d_multi(feat, kernels_list, backend="triton")


def test_triton_says_that_devices_differ() -> None:
    x, kernels = torch.zeros(1, 1, 3, 3, device=DEVICE), torch.zeros(1, 1, 1, 1, device="meta")
    assert triton.why_not(x, [kernels]) == "takes tensors on one device, and got several"


def test_triton_says_that_it_runs_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, kernels = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1)
    message = r"runs on GPUs, and the tensors are on cpu \(for tests, TRITON_INTERPRET=1"
    with pytest.raises(ValueError, match=message):
        dynamic_conv2d(x, kernels, backend="triton")
    with pytest.raises(RuntimeError, match=rf"'triton' cannot run here: it {message}"):  # as in a compiled graph
        _triton_launch.convolve(x, [kernels])


def test_auto_does_not_pick_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernels = torch.zeros(1, 1, 3, 3, device=DEVICE), torch.zeros(1, 1, 1, 1, device=DEVICE)
    assert choose("triton", x, [kernels]) is triton
    assert list(BY_NAME_ONLY) == ["triton"]
    for name in BACKENDS.keys() - {"triton"}:
        monkeypatch.setattr(BACKENDS[name], "why_not", lambda x, kernels_list: "it is switched off")
    with pytest.raises(ValueError, match="'auto' cannot run here") as raised:
        choose("auto", x, [kernels])
    assert "triton" not in str(raised.value)


def test_package_works_without_triton() -> None:
    code = """
import sys
import dpcn_modules
assert "triton" not in sys.modules
sys.modules["triton"] = None  # as if it were not installed
import torch
from dpcn_modules.functional import dynamic_conv2d
dynamic_conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1))
dynamic_conv2d(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 1, 1), backend="triton")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dpcn_modules.errors.InputError: ``backend``: 'triton' cannot run here")
    assert "needs Triton: pip install triton" in done.stderr
