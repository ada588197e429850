"""SAM's activation maps and the prior mask against Eq. 1 in loops, and how much memory they take."""

from typing import Any

import oracles
import pytest
import torch
from op_contract import Operation, RejectsNonFinite
from samples import features, gradients, masks, with_gradient
from tolerances import assert_close
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dpcn_modules.functional import prior_mask, region_activation

WINDOWS = ((5, 1), (3, 3), (1, 5))


class TestRegionActivation(RejectsNonFinite):
    """Two shots, a support of another size than the query's."""

    chunk_size: int | None = None

    def operation(self, *inputs: Tensor) -> Tensor:
        return region_activation(*inputs, WINDOWS, chunk_size=self.chunk_size)

    def oracle(self, *inputs: Tensor) -> Tensor:
        return oracles.region_activation(*inputs, WINDOWS)

    def inputs(self, batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, ...]:
        query, support = features(batch, 4, 3, 5, seed=seed), features(batch, 2, 4, 4, 3, seed=seed + 50)
        return query.to(dtype), support.to(dtype), masks(batch, 2, 4, 3, seed=seed)


class TestRegionActivationInChunks(TestRegionActivation):
    chunk_size = 5


class TestPriorMask(TestRegionActivation):
    def operation(self, *inputs: Tensor) -> Tensor:
        return prior_mask(*inputs)

    def oracle(self, *inputs: Tensor) -> Tensor:
        return oracles.region_activation(*inputs, ((1, 1),))


def one_shot(
    query_size: tuple[int, int] = (5, 6), support_size: tuple[int, int] = (5, 6), shots: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    support = features(1, shots, 4, *support_size, seed=1)
    return features(1, 4, *query_size), support, masks(1, shots, *support_size)


@pytest.mark.parametrize("windows", [((1, 1),), ((5, 1),), ((1, 5),), ((3, 3),), ((1, 3), (7, 5)), ((9, 9),)])
def test_region_activation_matches_loops_for_every_window(windows: tuple[tuple[int, int], ...]) -> None:
    inputs = with_gradient(one_shot())
    assert_close(region_activation(*inputs, windows), oracles.region_activation(*inputs, windows))
    expected = gradients(lambda *a: oracles.region_activation(*a, windows), inputs)
    for actual, wanted in zip(gradients(lambda *a: region_activation(*a, windows), inputs), expected, strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("support_size", [(5, 6), (3, 8), (7, 2), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("query_size", [(5, 6), (3, 4), (1, 7), (7, 1), (2, 5)])
def test_region_activation_matches_loops_for_every_pair_of_sizes(
    query_size: tuple[int, int], support_size: tuple[int, int]
) -> None:
    inputs = with_gradient(one_shot(query_size, support_size))
    assert_close(region_activation(*inputs, WINDOWS), oracles.region_activation(*inputs, WINDOWS))
    expected = gradients(lambda *a: oracles.region_activation(*a, WINDOWS), inputs)
    for actual, wanted in zip(gradients(lambda *a: region_activation(*a, WINDOWS), inputs), expected, strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("rows", [[0], [8], [4], [0, 8], [0, 1, 2], [6, 7], [3, 5]])
@pytest.mark.parametrize("columns", [[0], [3], [1, 2], [0, 1, 2, 3]])
def test_region_activation_matches_loops_wherever_the_foreground_lies(
    rows: list[int], columns: list[int], chunk_size: int | None
) -> None:
    query, support = features(2, 4, 5, 6), features(2, 1, 4, 9, 4, seed=1)
    mask = torch.zeros(2, 1, 9, 4, dtype=torch.long)
    for row in rows:
        mask[0, 0, row, columns] = 1
    mask[1, 0, 4:6, 1:3] = 1  # each sample of a batch leaves out what is background in its own support
    inputs = with_gradient([query, support, mask])

    def ours(*a: Tensor) -> Tensor:
        return region_activation(*a, WINDOWS, chunk_size=chunk_size)

    assert_close(ours(*inputs), oracles.region_activation(*inputs, WINDOWS))
    expected = gradients(lambda *a: oracles.region_activation(*a, WINDOWS), inputs)
    for actual, wanted in zip(gradients(ours, inputs), expected, strict=True):
        assert_close(actual, wanted)


def test_region_activation_multiplies_foreground_only() -> None:
    query, support = features(1, 4, 30, 30), features(1, 1, 4, 30, 30, seed=1)
    mask = torch.zeros(1, 1, 30, 30)
    mask[..., 10:14, 20:25] = 1
    with FlopCounterMode(display=False) as counter:
        region_activation(query, support, mask, WINDOWS)
    assert (
        counter.get_total_flops() == 2 * mask.sum() * 4 * 30 * 32
    )  # one product of 20 positions with the padded query


@pytest.mark.parametrize("chunk_size", [1, 5, 7, 30, 10**6])
def test_region_activation_in_chunks_equals_all_at_once(chunk_size: int) -> None:
    inputs = with_gradient(one_shot((5, 6), (6, 5), shots=2))
    whole, chunked = (
        lambda *a: region_activation(*a, WINDOWS),
        lambda *a: region_activation(*a, WINDOWS, chunk_size=chunk_size),
    )
    assert_close(chunked(*inputs), whole(*inputs))
    for actual, wanted in zip(gradients(chunked, inputs), gradients(whole, inputs), strict=True):
        assert_close(actual, wanted)


def test_region_activation_is_the_mean_of_each_shots_normalised_maps() -> None:
    query, support, mask = one_shot(shots=3)
    alone = [region_activation(query, support[:, k], mask[:, k], WINDOWS) for k in range(3)]
    assert_close(region_activation(query, support, mask, WINDOWS), torch.stack(alone).mean(0))


def test_region_activation_spans_zero_to_one_for_one_shot() -> None:
    maps = region_activation(*one_shot(), WINDOWS)
    assert_close(maps.amin((-2, -1)), torch.zeros(1, 3, dtype=maps.dtype))
    assert (maps.amax((-2, -1)) > 1 - 1e-5).all()
    assert maps.max() <= 1


def test_region_activation_does_not_read_the_background_of_the_support() -> None:
    query, support, mask = one_shot()
    other = torch.where(mask[:, :, None] == 1, support, features(*support.shape, seed=5))
    assert not torch.equal(other, support)
    assert torch.equal(region_activation(query, other, mask, WINDOWS), region_activation(query, support, mask, WINDOWS))
    inputs = with_gradient([query, support, mask])
    gradient = gradients(lambda *a: region_activation(*a, WINDOWS), inputs)[1]
    assert (gradient.movedim(2, -1)[mask != 1] == 0).all()


def test_region_activation_ignores_the_length_of_features() -> None:
    query, support, mask = one_shot()
    assert_close(
        region_activation(query * 7, support * 0.01, mask, WINDOWS), region_activation(query, support, mask, WINDOWS)
    )


def test_region_activation_resizes_masks_and_counts_void_as_not_foreground() -> None:
    query, support, _ = one_shot()
    mask = masks(1, 1, 21, 17)
    at_size = oracles.resize_mask(mask[0, 0], (5, 6))[None, None]
    assert torch.equal(
        region_activation(query, support, mask, WINDOWS), region_activation(query, support, at_size, WINDOWS)
    )


def test_region_activation_takes_support_without_shot_axis() -> None:
    query, support, mask = one_shot()
    assert torch.equal(
        region_activation(query, support[:, 0], mask[:, 0], WINDOWS), region_activation(query, support, mask, WINDOWS)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.filterwarnings("ignore:.*holds 255")
@pytest.mark.parametrize("value", [0, 255])
def test_region_activation_gives_zero_and_finite_gradients_for_a_mask_without_foreground(
    value: int, dtype: torch.dtype
) -> None:
    query, support, mask = one_shot()
    inputs = with_gradient([query.to(dtype), support.to(dtype), torch.full_like(mask, value)])
    assert region_activation(*inputs, WINDOWS).abs().max() == 0
    assert all(g.isfinite().all() for g in gradients(lambda *a: region_activation(*a, WINDOWS), inputs))


def test_region_activation_compiles_its_backward_too() -> None:
    inputs = with_gradient(one_shot(shots=2))
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: region_activation(*a, WINDOWS), fullgraph=True, backend="aot_eager")
    expected = gradients(lambda *a: region_activation(*a, WINDOWS), inputs)
    for actual, wanted in zip(gradients(compiled, inputs), expected, strict=True):
        assert_close(actual, wanted)


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_a_compiled_graph_searches_with_one_operator_and_an_exported_one_with_plain_ones(
    chunk_size: int | None,
) -> None:
    torch.compiler.reset()
    graphs: list[str] = []

    def watch(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph.code)
        return graph.forward

    def maps(*inputs: Tensor) -> Tensor:
        return region_activation(*inputs, WINDOWS, chunk_size=chunk_size)

    inputs = one_shot(shots=2)
    assert_close(torch.compile(maps, fullgraph=True, backend=watch)(*inputs), maps(*inputs))
    # torch 2.9 calls every compilation an export: its graphs have the plain operators, which are slower on a CPU.
    exporting = torch.compile(lambda x: x + int(torch.compiler.is_exporting()), backend="eager")(torch.zeros(()))
    assert ("best_match" in graphs[0]) == (not bool(exporting))
    exported = torch.export.export(Operation(maps), inputs)
    assert "dpcn_modules" not in exported.module().code
    assert_close(exported.module()(*inputs), maps(*inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_of_a_compiled_graph_is_registered_rightly(dtype: torch.dtype) -> None:
    s, q = features(2, 3, 5 * 7).to(dtype), features(2, 3, 4 * 7).to(dtype)
    occupied = torch.rand(2, 5 * 7) > 0.5
    operator = torch.ops.dpcn_modules.best_match.default
    torch.library.opcheck(operator, (s * occupied.unsqueeze(1), q, occupied, 7, 6, [3, 3, 1, 5], 5))


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self.numel = max(self.numel, value.numel())
        return result


def largest_tensor(side: int, chunk_size: int | None) -> tuple[int, int]:
    """Elements of the largest tensor in the forward and in the backward, one channel, ``side x side`` features."""
    inputs = with_gradient([features(1, 1, side, side), features(1, 1, 1, side, side), torch.ones(1, 1, side, side)])
    with LargestTensor() as forward:
        maps = region_activation(*inputs, WINDOWS, chunk_size=chunk_size)
    with LargestTensor() as backward:
        maps.sum().backward()
    return forward.numel, backward.numel


def test_region_activation_never_builds_a_tensor_of_every_offset() -> None:
    side = 24
    forward, backward = largest_tensor(side, None)
    padded = side * (side + 2)  # rows have a border of two for the window (1, 5)
    assert forward == padded**2
    assert forward < 3 * side**4  # the smallest literal form, one window at a time, has 5 HW HW
    # The pairs of the 19 offsets, and their gradients.
    assert backward <= 19 * padded


def test_region_activation_in_chunks_takes_memory_that_does_not_grow_with_the_square_of_positions() -> None:
    chunk_size = 64
    for side in (16, 32, 64):
        width = side + 2
        rows = -(-chunk_size // side) + 4  # a (5, 1) window needs two rows above and below the chunk
        forward, backward = largest_tensor(side, chunk_size)
        assert forward <= rows * width * side * width
        assert backward <= 19 * side * width
    # Four times the positions: sixteen times the memory without chunks.
    assert largest_tensor(32, None)[0] > 12 * largest_tensor(16, None)[0]
    assert largest_tensor(64, chunk_size)[0] < 8 * largest_tensor(32, chunk_size)[0]


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_region_activation_rejects_an_empty_chunk(chunk_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"``chunk_size``: expected at least 1, got {chunk_size}; None matches all positions at once"
    ):
        region_activation(*one_shot(), WINDOWS, chunk_size=chunk_size)


@pytest.mark.parametrize(
    ("window", "side", "nearest"), [((4, 1), 4, 5), ((1, 2), 2, 3), ((0, 1), 0, 1), ((-3, 1), -3, 1)]
)
def test_region_activation_rejects_windows_without_a_centre(window: tuple[int, int], side: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"``windows``: expected a positive odd number.* got {side}; try {nearest}"):
        region_activation(*one_shot(), (window,))


def test_region_activation_rejects_no_windows() -> None:
    with pytest.raises(
        ValueError, match=r"``windows``: expected at least one \(d_h, d_w\), got none; \(1, 1\) is the prior"
    ):
        region_activation(*one_shot(), ())


@pytest.mark.parametrize(
    ("support_shape", "mask_shape", "message"),
    [
        (
            (3, 1, 4, 5, 6),
            (3, 1, 5, 6),
            r"``support_feat``: expected B=2 .*; B=2 comes from ``query_feat`` \(2, 4, 5, 6\)",
        ),
        (
            (2, 1, 7, 5, 6),
            (2, 1, 5, 6),
            r"``support_feat``: expected C=4 .*; C=4 comes from ``query_feat`` \(2, 4, 5, 6\)",
        ),
        (
            (2, 3, 4, 5, 6),
            (2, 2, 5, 6),
            r"``support_mask``: expected K=3 .*; K=3 comes from ``support_feat`` \(2, 3, 4",
        ),
        ((2, 4, 5), (2, 5, 6), r"``support_feat``: expected 5 axes \(B K C Hs Ws\), got shape \(2, 4, 5\)"),
    ],
)
def test_region_activation_rejects_shapes_that_do_not_fit(
    support_shape: tuple[int, ...], mask_shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        region_activation(torch.zeros(2, 4, 5, 6), torch.zeros(support_shape), torch.zeros(mask_shape), WINDOWS)


def test_region_activation_rejects_mask_values_that_are_class_ids() -> None:
    query, support, mask = one_shot()
    with pytest.raises(ValueError, match=r"expected only the values 0 .* got \[15\]; compare with the class id first"):
        region_activation(query, support, torch.full_like(mask, 15), WINDOWS)
