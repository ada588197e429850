"""What every module must do; a subclass says how to make it, what it takes and what shapes come out."""

import copy
import io

import pytest
import torch
from samples import as_tuple, gradients, with_gradient
from tolerances import ABSOLUTE, assert_close, error
from torch import Tensor, nn


class ModuleContract:
    """Subclass with ``make``, ``inputs`` and ``shapes``; the tests come along.

    The module is used in eval mode, where dropout does nothing, unless a test says otherwise.
    """

    def make(self) -> nn.Module:
        raise NotImplementedError

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        """Features in float64; masks (integers) keep their dtype. Every tensor's first axis is the batch."""
        raise NotImplementedError

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        raise NotImplementedError

    def made(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        torch.manual_seed(0)
        return self.make().to(dtype).eval()

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("batch", [0, 1, 2])
    def test_gives_the_shapes_it_says(self, batch: int, training: bool) -> None:
        module, inputs = self.made().train(training), with_gradient(self.inputs(batch))
        outputs = as_tuple(module(*inputs))
        assert [tuple(out.shape) for out in outputs] == self.shapes(batch)
        assert [g.shape for g in gradients(module, inputs)] == [x.shape for x in inputs if x.requires_grad]

    def test_takes_each_sample_of_a_batch_by_itself(self) -> None:
        module, inputs = self.made(), self.inputs(3)
        alone = [as_tuple(module(*(x[b : b + 1] for x in inputs))) for b in range(3)]
        for index, out in enumerate(as_tuple(module(*inputs))):
            assert_close(out, torch.cat([outputs[index] for outputs in alone]))

    def test_gradient_reaches_every_parameter_and_feature(self) -> None:
        module, inputs = self.made(), with_gradient(self.inputs())
        names = [name for name, _ in module.named_parameters()]
        results = gradients(module, inputs, list(module.parameters()))
        unreached = [name for name, g in zip(names, results[len(results) - len(names) :], strict=True) if not g.any()]
        assert unreached == []
        assert all(g.any() and g.isfinite().all() for g in results)

    def test_state_dict_goes_around_a_file(self) -> None:
        module, other, inputs = self.made(), self.make().double().eval(), self.inputs()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        file = io.BytesIO()
        torch.save(module.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        for actual, expected in zip(as_tuple(other(*inputs)), as_tuple(module(*inputs)), strict=True):
            assert torch.equal(actual, expected)

    def test_copies_and_prints(self) -> None:
        module, inputs = self.made(), self.inputs()
        for actual, expected in zip(as_tuple(copy.deepcopy(module)(*inputs)), as_tuple(module(*inputs)), strict=True):
            assert torch.equal(actual, expected)
        assert type(module).__name__ in repr(module)

    def test_leaves_its_inputs_as_they_were(self) -> None:
        inputs = self.inputs()
        before = [x.clone() for x in inputs]
        self.made()(*inputs)
        assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))

    def test_single_precision_is_near_double(self) -> None:
        expected = as_tuple(self.made()(*self.inputs()))
        single = [x.float() if x.is_floating_point() else x for x in self.inputs()]
        for actual, wanted in zip(as_tuple(self.made(torch.float32)(*single)), expected, strict=True):
            assert actual.dtype == torch.float32
            assert wanted.dtype == torch.float64
            assert_close(actual, wanted)

    def test_runs_under_autocast(self) -> None:
        module = self.made(torch.float32)
        inputs = with_gradient([x.float() if x.is_floating_point() else x for x in self.inputs()])
        expected = as_tuple(module(*inputs))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = as_tuple(module(*inputs))
            results = gradients(module, inputs, list(module.parameters()))
        for actual, wanted in zip(outputs, expected, strict=True):
            assert error(actual, wanted) <= ABSOLUTE[torch.bfloat16] * (1 + wanted.abs().max().item())
        assert all(g.isfinite().all() for g in results)

    def test_compiles_to_one_graph(self) -> None:
        torch.compiler.reset()
        module = self.made()
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        for seed in range(2):  # the second set has another number of foreground positions
            inputs, parameters = with_gradient(self.inputs(seed=seed)), list(module.parameters())
            for actual, expected in zip(as_tuple(compiled(*inputs)), as_tuple(module(*inputs)), strict=True):
                assert_close(actual, expected)
            wanted = gradients(module, inputs, parameters)
            for actual, expected in zip(gradients(compiled, inputs, parameters), wanted, strict=True):
                assert_close(actual, expected)

    def test_exports_for_any_batch(self) -> None:
        module = self.made()
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(module, self.inputs(2), dynamic_shapes=[{0: batch}] * len(self.inputs(2)))
        for size in (1, 3):
            inputs = self.inputs(size, seed=size)
            for actual, expected in zip(as_tuple(program.module()(*inputs)), as_tuple(module(*inputs)), strict=True):
                assert_close(actual, expected)
