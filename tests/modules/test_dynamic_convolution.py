"""DCM: kernels from the support's foreground, the convolution of the query with them, and the adapter."""

import itertools

import oracles
import pytest
import torch
from samples import features, masks
from tolerances import assert_close
from torch import Tensor, nn

from dpcn_modules.functional import foreground_pool, masked_average_pool, resize_mask
from dpcn_modules.modules import DCM, DCMInteraction, DynamicConvolutionModule

from .base import ModuleContract

C = 4
BRANCHES = ("vertical", "square", "horizontal")
SUBSETS = [order for count in (1, 2, 3) for order in itertools.permutations(BRANCHES, count)]


class TestDynamicConvolutionModule(ModuleContract):
    generation = "serial"
    kernel_size = 3

    def make(self) -> DynamicConvolutionModule:
        return DynamicConvolutionModule(C, self.kernel_size, self.generation)

    def inputs(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        support = features(batch, 2, C, 4, 5, seed=seed + 50)
        return features(batch, C, 5, 6, seed=seed), support, masks(batch, 2, 11, 13, seed=seed)

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, 3 * C, 5, 6)]

    @pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
    def test_equals_equations_5_to_8_in_loops(self, kernel_size: int) -> None:
        self.kernel_size = kernel_size
        dcm, (query, support, mask) = self.made(), self.inputs()
        at_size = resize_mask(mask, (4, 5))
        networks = dict(dcm.generator.networks.items())
        expected = oracles.dynamic_convolution(networks, query, support, at_size, kernel_size, self.generation)
        assert_close(dcm(query, support, mask), expected)


class TestDynamicConvolutionModuleParallel(TestDynamicConvolutionModule):
    generation = "parallel"


class TestDCMInteraction(TestDynamicConvolutionModule):
    def make(self) -> DCMInteraction:
        adapter = DCMInteraction(C, 3)
        nn.init.normal_(adapter.merge.weight)  # as if trained: at zero no gradient passes through it
        return adapter

    def shapes(self, batch: int) -> list[tuple[int, ...]]:
        return [(batch, C, 5, 6)]

    def test_equals_equations_5_to_8_in_loops(self) -> None:
        adapter, (query, support, mask) = self.made(), self.inputs()
        networks = dict(adapter.generator.networks.items())
        enhanced = oracles.dynamic_convolution(networks, query, support, resize_mask(mask, (4, 5)), 3, "serial")
        merged = torch.einsum("oc,bchw->bohw", adapter.merge.weight[:, :, 0, 0], enhanced)
        assert_close(adapter(query, support, mask), query + merged + adapter.merge.bias[:, None, None])


def made(seed: int = 0, **settings: object) -> DynamicConvolutionModule:
    torch.manual_seed(seed)
    return DCM(C, **settings).double()


def episode(shots: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    return features(2, C, 6, 5), features(2, shots, C, 6, 5, seed=1), masks(2, shots, 6, 5)


def test_dcm_is_the_short_name() -> None:
    assert DCM is DynamicConvolutionModule


def test_dcm_generations_share_what_is_pooled_from_the_foreground_and_differ_in_the_square_kernel() -> None:
    _, support, mask = episode()
    serial, parallel = made(generation="serial"), made(generation="parallel")
    parallel.load_state_dict(serial.state_dict())
    (v, s, h), (v2, s2, h2) = serial.generator(support, mask), parallel.generator(support, mask)
    assert torch.equal(v, v2)
    assert torch.equal(h, h2)
    assert not torch.allclose(s, s2)


@pytest.mark.parametrize("generation", ["serial", "parallel"])
def test_dcm_equals_its_two_steps(generation: str) -> None:
    dcm, (query, support, mask) = made(generation=generation), episode(shots=2)
    kernels = dcm.generator(support, mask)
    assert [tuple(ker.shape) for ker in kernels] == [(2, C, 5, 1), (2, C, 5, 5), (2, C, 1, 5)]
    assert torch.equal(dcm.application(query, kernels), dcm(query, support, mask))


def test_dcm_uses_the_kernels_of_one_support_on_many_queries() -> None:
    dcm, support, mask = made(), features(1, 3, C, 6, 5), masks(1, 3, 6, 5)
    queries = features(7, C, 8, 9, seed=2)
    kernels = [ker.expand(7, -1, -1, -1) for ker in dcm.generator(support, mask)]
    together = dcm.application(queries, kernels)
    for index in range(7):
        assert_close(together[index : index + 1], dcm(queries[index : index + 1], support, mask))


@pytest.mark.parametrize("module", [DCM, DCMInteraction])
def test_dcm_gives_the_same_with_each_backend(module: type[nn.Module]) -> None:
    dcm, reference = module(C, backend="grouped").double(), module(C, backend="reference").double()
    for parameter in dcm.parameters():
        nn.init.normal_(parameter)
    reference.load_state_dict(dcm.state_dict())
    assert_close(reference(*episode()), dcm(*episode()))


@pytest.mark.parametrize("branches", SUBSETS)
def test_dcm_gives_its_branches_in_the_order_named(branches: tuple[str, ...]) -> None:
    whole, (query, support, mask) = made(), episode()
    dcm = made(branches=branches)
    for branch in branches:
        dcm.generator.networks[branch].load_state_dict(whole.generator.networks[branch].state_dict())
    by_name = dict(zip(BRANCHES, whole(query, support, mask).split(C, dim=1), strict=True))
    assert dcm.out_channels == len(branches) * C
    assert torch.equal(dcm(query, support, mask), torch.cat([by_name[branch] for branch in branches], dim=1))


@pytest.mark.parametrize("generation", ["serial", "parallel"])
@pytest.mark.parametrize("value", [0, 255])
def test_dcm_gives_zero_kernels_and_features_for_a_sample_without_foreground(value: int, generation: str) -> None:
    dcm, (query, support, mask) = made(generation=generation), episode(shots=2)
    mask[1] = value
    support.requires_grad_()
    assert all(ker[0].any() and not ker[1].any() for ker in dcm.generator(support, mask))
    enhanced = dcm(query, support, mask)
    assert enhanced[0].any()
    assert not enhanced[1].any()
    results = torch.autograd.grad(enhanced.square().sum(), [support, *dcm.parameters()])
    assert all(gradient.isfinite().all() for gradient in results)
    assert not results[0][1].any()


def copies_of(support: Tensor, mask: Tensor, shots: int) -> tuple[Tensor, Tensor]:
    return support.expand(-1, shots, -1, -1, -1), mask.expand(-1, shots, -1, -1)


@pytest.mark.parametrize("generation", ["serial", "parallel"])
def test_five_copies_of_a_shot_give_its_kernels_where_there_is_one_bin(generation: str) -> None:
    dcm, (_, support, mask) = made(kernel_size=1, generation=generation), episode()
    kernels = dcm.generator(*copies_of(support, mask, 5))
    for five, one in zip(kernels, dcm.generator(support, mask), strict=True):
        assert_close(five, one)


@pytest.mark.parametrize("generation", ["serial", "parallel"])
def test_five_copies_of_a_shot_give_its_kernels_where_all_foreground_vectors_are_equal(generation: str) -> None:
    dcm, (_, support, mask) = made(generation=generation), episode()
    constant = torch.where(mask[:, :, None] == 1, features(2, 1, C, 1, 1), support)
    kernels = dcm.generator(*copies_of(constant, mask, 5))
    for five, one in zip(kernels, dcm.generator(constant, mask), strict=True):
        assert_close(five, one)


def test_five_copies_of_a_shot_pool_to_the_prototype_in_every_one_of_five_bins() -> None:
    """Bin s of 5 then holds copy s whole; of one shot it holds the s-th fifth of the vectors (Eq. 6 and 11)."""
    _, support, mask = episode()
    prototype = masked_average_pool(support, mask)
    assert_close(foreground_pool(*copies_of(support, mask, 5), bins=5), prototype[:, None].expand(-1, 5, -1))


def test_five_copies_of_a_shot_give_other_kernels_in_general() -> None:
    dcm, (_, support, mask) = made(), episode()
    kernels = dcm.generator(*copies_of(support, mask, 5))
    for five, one in zip(kernels, dcm.generator(support, mask), strict=True):
        assert not torch.allclose(five, one, atol=1e-3)


@pytest.mark.parametrize("query_size", [(1, 1), (2, 9), (3, 3)])
def test_dcm_takes_queries_smaller_than_the_kernel(query_size: tuple[int, int]) -> None:
    dcm, (_, support, mask) = made(kernel_size=9), episode()
    query = features(2, C, *query_size)
    networks = dict(dcm.generator.networks.items())
    assert_close(dcm(query, support, mask), oracles.dynamic_convolution(networks, query, support, mask, 9, "serial"))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_adapter_is_the_identity_to_the_bit_before_training(dtype: torch.dtype, autocast: bool) -> None:
    adapter, (query, support, mask) = DCMInteraction(C).to(dtype), episode()
    query, support = query.to(dtype), support.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = adapter(query, support, mask)
    assert out.dtype == dtype
    assert torch.equal(out, query)


def test_adapter_learns_from_the_identity_in_ten_steps() -> None:
    torch.manual_seed(0)
    adapter, (query, support, mask) = DCMInteraction(C).double(), episode()
    before = {name: parameter.clone() for name, parameter in adapter.named_parameters()}
    optimiser = torch.optim.SGD(adapter.parameters(), lr=0.1)
    target = query.flip(-1)
    losses = []
    for _ in range(10):
        loss = (adapter(query, support, mask) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not torch.allclose(adapter(query, support, mask), query, atol=1e-3)
    assert [name for name, parameter in adapter.named_parameters() if torch.equal(parameter, before[name])] == []


@pytest.mark.parametrize("module", [DCM, DCMInteraction])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, r"``kernel_size``: expected a positive odd number.* got 4; try 5"),
        ({"network_width": 2}, r"``network_width``: expected a positive odd number.* got 2; try 3"),
        ({"generation": "5->25"}, r"``generation``: expected one of serial, parallel, got '5->25'"),
        (
            {"branches": ("vertical", "diagonal")},
            r"``branches``: expected one of vertical, square, horizontal, got 'dia",
        ),
        (
            {"branches": ("square", "square")},
            r"``branches``: expected each of .* at most once, got \('square', 'square'\)",
        ),
        ({"branches": ()}, r"``branches``: expected .*, got \(\)"),
    ],
)
def test_dcm_rejects_settings_it_does_not_know(
    module: type[nn.Module], settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        module(C, **settings)


def test_dcm_rejects_an_unknown_backend() -> None:
    with pytest.raises(ValueError, match=r"``backend``: expected one of auto, grouped_cpu, .*, got 'cuda'"):
        made(backend="cuda")(*episode())


@pytest.mark.parametrize(
    ("query", "support", "mask", "message"),
    [
        ((2, 5, 6, 5), (2, C, 6, 5), (2, 6, 5), r"``query_feat``: expected 4 \(B 4 H W\), got shape \(2, 5, 6, 5\)"),
        (
            (2, C, 6, 5),
            (2, 5, 6, 5),
            (2, 6, 5),
            r"``support_feat``: expected 4 \(B K 4 Hs Ws\), got shape \(2, 1, 5, 6, 5\)",
        ),
        (
            (2, C, 6, 5),
            (3, C, 6, 5),
            (2, 6, 5),
            r"``support_mask``: expected B=3 .* from ``support_feat`` \(3, 1, 4, 6, 5\)",
        ),
        ((2, C, 6, 5), (3, C, 6, 5), (3, 6, 5), r"``kernels``: expected B=2 .* comes from ``x`` \(2, 4, 6, 5\)"),
    ],
)
def test_dcm_rejects_shapes_that_do_not_fit(
    query: tuple[int, ...], support: tuple[int, ...], mask: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DCM(C)(torch.zeros(query), torch.zeros(support), torch.ones(mask))


@pytest.mark.parametrize("which", ["query_feat", "support_feat"])
def test_dcm_rejects_features_that_are_not_finite(which: str) -> None:
    inputs = dict(zip(("query_feat", "support_feat", "support_mask"), episode(), strict=True))
    inputs[which][0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=f"``{which}``: expected finite values, got NaN or infinity"):
        made()(**inputs)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_dcm_rejects_another_number_of_kernels_than_it_has_branches(count: int) -> None:
    dcm, (query, support, mask) = made(), episode()
    kernels = (dcm.generator(support, mask) * 2)[:count]
    with pytest.raises(
        ValueError, match=rf"``kernels``: expected one for each of vertical, square, horizontal, got {count}"
    ):
        dcm.application(query, kernels)
