"""What every operation of the functional room must do; a subclass gives the operation, its oracle and inputs."""

from collections.abc import Callable

import pytest
import torch
from samples import channels_last, gradients, non_contiguous, with_gradient
from tolerances import ABSOLUTE, LOW_PRECISION_FACTOR, assert_close, error
from torch import Tensor


class Operation(torch.nn.Module):
    """A function as a module, for torch.export."""

    def __init__(self, operation: Callable[..., Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.operation(*inputs)


class OpContract:
    """Subclass with ``operation``, ``oracle`` and ``inputs``; the tests come along."""

    def operation(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def oracle(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def inputs(self, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
        """Features first; masks (integers) keep their dtype. Every tensor's first axis is the batch."""
        raise NotImplementedError

    def test_equals_oracle(self) -> None:
        inputs = self.inputs()
        assert_close(self.operation(*inputs), self.oracle(*inputs))

    def test_gradients_equal_oracle(self) -> None:
        inputs = with_gradient(self.inputs())
        expected = gradients(self.oracle, inputs)
        for actual, wanted in zip(gradients(self.operation, inputs), expected, strict=True):
            assert wanted.abs().max() > 0
            assert_close(actual, wanted)

    def test_passes_gradcheck(self) -> None:
        assert torch.autograd.gradcheck(self.operation, with_gradient(self.inputs(batch=1)))

    @pytest.mark.parametrize("layout", [non_contiguous, channels_last])
    def test_takes_any_memory_layout(self, layout: Callable[[Tensor], Tensor]) -> None:
        inputs = with_gradient(self.inputs())
        laid_out = tuple(layout(x) if x.ndim > 3 else x for x in inputs)
        assert not all(x.is_contiguous() for x in laid_out)
        assert_close(self.operation(*laid_out), self.operation(*inputs))
        for actual, wanted in zip(gradients(self.operation, laid_out), gradients(self.operation, inputs), strict=True):
            assert_close(actual, wanted)

    def test_takes_each_sample_of_a_batch_by_itself(self) -> None:
        inputs = self.inputs(batch=3)
        alone = [self.operation(*(x[b : b + 1] for x in inputs)) for b in range(3)]
        assert_close(self.operation(*inputs), torch.cat(alone))

    def test_takes_an_empty_batch(self) -> None:
        inputs = with_gradient(self.inputs(batch=0))
        out = self.operation(*inputs)
        assert out.shape == (0, *self.operation(*self.inputs(batch=1)).shape[1:])
        assert [g.shape for g in gradients(self.operation, inputs)] == [x.shape for x in inputs if x.requires_grad]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    def test_keeps_dtype_with_finite_gradients(self, dtype: torch.dtype) -> None:
        inputs = with_gradient(self.inputs(dtype=dtype))
        assert self.operation(*inputs).dtype == dtype
        for gradient in gradients(self.operation, inputs):
            assert gradient.dtype == dtype
            assert gradient.isfinite().all()

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("autocast", [True, False])
    def test_bfloat16_error_is_at_most_twice_the_oracles(self, autocast: bool, seed: int) -> None:
        exact = self.oracle(*self.inputs(seed=seed))
        half = self.inputs(dtype=torch.bfloat16, seed=seed)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            actual = self.operation(*(self.inputs(dtype=torch.float32, seed=seed) if autocast else half))
        allowed = LOW_PRECISION_FACTOR * error(self.oracle(*half), exact)
        assert error(actual, exact) <= min(allowed, ABSOLUTE[torch.bfloat16] * (1 + exact.abs().max().item()))

    def test_gradients_are_finite_under_autocast(self) -> None:
        inputs = with_gradient(self.inputs(dtype=torch.float32))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = gradients(self.operation, inputs)
        assert all(gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in results)

    def test_compiles_to_one_graph(self) -> None:
        torch.compiler.reset()
        compiled = torch.compile(self.operation, fullgraph=True, backend="eager")
        for seed in range(2):  # the second set has another number of foreground positions
            inputs = with_gradient(self.inputs(seed=seed))
            assert_close(compiled(*inputs), self.operation(*inputs))
            wanted = gradients(self.operation, inputs)
            for actual, expected in zip(gradients(compiled, inputs), wanted, strict=True):
                assert_close(actual, expected)

    def test_exports(self) -> None:
        program = torch.export.export(Operation(self.operation), self.inputs(seed=0))
        for seed in range(2):
            inputs = self.inputs(seed=seed)
            assert_close(program.module()(*inputs), self.operation(*inputs))


class RejectsNonFinite(OpContract):
    """For an operation that reads features: NaN and infinity are named, not spread."""

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_rejects_non_finite_features(self, value: float) -> None:
        inputs = self.inputs()
        for index, tensor in enumerate(inputs):
            if tensor.is_floating_point():
                broken = list(inputs)
                broken[index] = tensor.clone()
                broken[index].view(-1)[-1] = value
                with pytest.raises(ValueError, match=r"_feat``: expected finite values, got NaN or infinity; look at"):
                    self.operation(*broken)
