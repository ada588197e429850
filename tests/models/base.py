"""What every network must do; a subclass names one and inherits the tests."""

import copy
import pickle

import pytest
import torch
from torch import Tensor

from dpcn_modules.models import FewShotNetwork, build_model

SIZE = 48


def episode_batch(B: int = 2, K: int = 1, size: int = SIZE, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Random images, and a square of foreground in each support mask, void at one corner."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(B, K, size, size, dtype=torch.long)
    masks[:, :, size // 4 : size // 2, size // 4 : 3 * size // 4] = 1
    masks[:, :, 0, 0] = 255
    query = torch.randn(B, 3, size, size, generator=generator)
    return query, torch.randn(B, K, 3, size, size, generator=generator), masks


class NetworkTester:
    """Shape, gradients, state dict, encode / decode, compile, export and precision of a network by name."""

    name = ""
    overrides: dict[str, object] = {}
    segments_supports = True

    @pytest.fixture
    def model(self) -> FewShotNetwork:
        return self.build(seed=0)

    def build(self, seed: int) -> FewShotNetwork:
        torch.manual_seed(seed)
        model = build_model(self.name, **self.overrides)
        if getattr(model, "interaction", None) is not None:
            # A adapter that is still the identity would hide what it does.
            torch.nn.init.normal_(model.interaction.merge.weight, std=0.1)
        return model

    @pytest.mark.parametrize(("B", "K"), [(1, 1), (2, 3)])
    def test_logits_have_the_size_of_the_query(self, model, B, K):
        prediction = model.eval()(*episode_batch(B, K))
        assert prediction.logits.shape == (B, 2, SIZE, SIZE)
        assert prediction.support_logits is None
        assert torch.isfinite(prediction.logits).all()

    def test_one_shot_needs_no_shot_axis(self, model):
        query, supports, masks = episode_batch()
        model.eval()
        with_axis, without = model(query, supports, masks), model(query, supports[:, 0], masks[:, 0])
        torch.testing.assert_close(with_axis.logits, without.logits, rtol=0, atol=0)

    def test_training_also_segments_the_supports_where_the_network_does(self, model):
        logits = model.train()(*episode_batch(2, 3)).support_logits
        assert (None if logits is None else logits.shape) == ((2, 3, 2, SIZE, SIZE) if self.segments_supports else None)

    @pytest.mark.parametrize("K", [1, 2])
    def test_a_gradient_reaches_every_trainable_parameter(self, model, K):
        prediction = model.train()(*episode_batch(K=K))
        outputs = [prediction.logits, prediction.support_logits, *prediction.auxiliary_logits]
        sum(output.square().mean() for output in outputs if output is not None).backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []  # DDP stops
        silent = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
        assert [name for name in silent if K > 1 or not name.startswith("attention.")] == []  # one shot has weight 1

    def test_state_dict_makes_an_equal_network(self, model):
        other = self.build(seed=1)
        batch = episode_batch()
        assert not torch.equal(model.eval()(*batch).logits, other.eval()(*batch).logits)
        other.load_state_dict(model.state_dict())
        assert torch.equal(model(*batch).logits, other(*batch).logits)

    def test_the_three_steps_give_what_forward_gives(self, model):
        query, supports, masks = episode_batch(2, 2)
        model.eval()
        support = model.encode_support(model.encode_image(supports), masks)
        steps = model.decode(model.encode_image(query), support, (SIZE, SIZE))
        torch.testing.assert_close(steps.logits, model(query, supports, masks).logits)

    def test_copies_and_pickles_give_the_same(self, model):
        batch = episode_batch()
        expected = model.eval()(*batch).logits
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(*batch).logits, expected)
            assert (twin.name, twin.settings) == (model.name, model.settings)

    def test_the_batch_does_not_matter(self, model):
        query, supports, masks = episode_batch(2, 2)
        model.eval()
        alone = model(query[1:], supports[1:], masks[1:]).logits
        torch.testing.assert_close(model(query, supports, masks).logits[1:], alone, rtol=1e-4, atol=1e-4)

    def test_compiles_as_one_graph(self, model):
        torch.compiler.reset()
        batch = episode_batch()
        model.eval()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        # Not to the bit: eager on the CPU leaves the support's background out of the matching, a graph does not.
        torch.testing.assert_close(compiled(*batch).logits, model(*batch).logits, rtol=1e-5, atol=1e-6)

    def test_exports(self, model):
        batch = episode_batch()
        model.eval()
        exported = torch.export.export(model, batch).module()
        torch.testing.assert_close(exported(*batch).logits, model(*batch).logits)

    def test_runs_under_autocast_and_in_double(self, model):
        query, supports, masks = episode_batch()
        model.eval()
        single = model(query, supports, masks).logits
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(model(query, supports, masks).logits).all()
        double = model.double()(query.double(), supports.double(), masks).logits
        assert double.dtype == torch.float64
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)

    @pytest.mark.filterwarnings("ignore:.*holds 255")
    def test_an_empty_support_mask_has_a_defined_result(self, model):
        query, supports, masks = episode_batch()
        for empty in (torch.zeros_like(masks), torch.full_like(masks, 255)):
            prediction = model.train()(query, supports, empty)
            assert torch.isfinite(prediction.logits).all()
            prediction.logits.mean().backward()
            assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
