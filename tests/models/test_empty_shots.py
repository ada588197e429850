"""A shot without foreground is left out everywhere, and a support set without any gives zeros."""

import oracles
import pytest
import torch
from models.base import episode_batch
from samples import features
from tolerances import assert_close

from dpcn_modules.data import Episode
from dpcn_modules.evaluation import Predictor
from dpcn_modules.functional import foreground_pool, masked_average_pool, prior_mask, region_activation
from dpcn_modules.functional.pooling import soft_average_pool
from dpcn_modules.models import build_model
from dpcn_modules.modules import DCM, SAM, DCMInteraction

NETWORKS = ["dpcn_small", "baseline_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"]
WINDOWS = ((3, 3), (1, 5))
MODULES = {
    "masked_average_pool": lambda query, *support: masked_average_pool(*support),
    "foreground_pool": lambda query, *support: foreground_pool(*support, bins=4),
    "region_activation": lambda *inputs: region_activation(*inputs, WINDOWS),
    "prior_mask": prior_mask,
    "SAM": lambda *inputs: SAM()(*inputs)[0],
    "DCM": DCM(4).double(),
    "DCMInteraction": lambda *inputs: DCMInteraction(4).double()(*inputs) - inputs[0],
}


def build(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    if getattr(model, "interaction", None) is not None:
        torch.nn.init.normal_(model.interaction.merge.weight, std=0.1)
    return model


@pytest.mark.parametrize("empty", [0, 255])
@pytest.mark.parametrize("name", MODULES)
def test_modules_leave_empty_shots_out(name, empty):
    query, support = features(2, 4, 6, 5), features(2, 3, 4, 6, 5, seed=1)
    masks = torch.zeros(2, 3, 6, 5)
    masks[:, 0, 1:3, 1:4], masks[:, 1, 2:5, :2], masks[:, 2] = 1, 1, empty
    assert_close(MODULES[name](query, support, masks), MODULES[name](query, support[:, :2], masks[:, :2]))
    assert not MODULES[name](query, support, masks * 0).any()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_networks_leave_empty_shots_out_sample_by_sample(name):
    model = build(name)
    query, supports, masks = episode_batch(2, 3)
    masks[0, 1], masks[1, 2] = 0, 255
    logits = model(query, supports, masks).logits
    for b, shots in enumerate(([0, 2], [0, 1])):
        alone = model(query[b : b + 1], supports[b : b + 1, shots], masks[b : b + 1, shots]).logits
        torch.testing.assert_close(logits[b : b + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_set_of_empty_shots_gives_zeros(name):
    model = build(name)
    _, supports, masks = episode_batch(1, 3)
    support = model.encode_support(model.encode_image(supports), masks * 0)
    assert not support.prototype.any()
    assert not any(kernels.any() for kernels in support.kernels)


@torch.no_grad()
def test_pfenet_counts_empty_shots_where_it_should_behave_as_published():
    """Two of three shots: prototype and prior mask are two thirds."""
    published, ours = (build_model("pfenet_small", empty_shots=each).eval() for each in ("counted", "left_out"))
    published.load_state_dict(ours.state_dict())
    query, supports, masks = episode_batch(1, 3)
    masks[0, 1] = 0
    encoded = [model.encode_support(model.encode_image(supports), masks) for model in (published, ours)]
    torch.testing.assert_close(encoded[0].prototype, encoded[1].prototype * 2 / 3)
    priors = [model(query, supports, masks).initial_mask for model in (published, ours)]
    torch.testing.assert_close(priors[0], priors[1] * 2 / 3)
    masks[0, 1] = masks[0, 0]
    assert torch.equal(published(query, supports, masks).logits, ours(query, supports, masks).logits)


@pytest.mark.parametrize("fusion", ["vote", "average", "or"])
@pytest.mark.parametrize("name", NETWORKS)
def test_fused_shots_leave_empty_ones_out(name, fusion):
    model = build(name)
    query, supports, masks = episode_batch(1, 3)
    masks[0, 2] = 255  # void beside shots with foreground is no reason to warn
    predictor = Predictor(model, fusion=fusion)

    def mask_of(shots):
        size = torch.tensor([query.shape[-2:]])
        empty = dict.fromkeys(Episode._fields)
        batch = empty | {"query_image": query, "support_images": supports[:, shots], "support_masks": masks[:, shots]}
        return predictor.masks(Episode(**batch | {"query_size": size, "views": ()}))[0]

    assert torch.equal(mask_of([0, 1, 2]), mask_of([0, 1]))


@pytest.mark.parametrize("name", ["DCM", "SAM", "masked_average_pool", "foreground_pool", "prior_mask"])
def test_a_support_set_without_shots_is_refused(name):
    with pytest.raises(ValueError, match=r"``support_feat``: expected one shot or more \(B K .*\), got K=0"):
        MODULES[name](features(2, 4, 6, 5), features(2, 0, 4, 6, 5), torch.zeros(2, 0, 6, 5))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_refuse_a_support_set_without_shots(name):
    model, (query, supports, masks) = build(name), episode_batch(2, 0)
    with pytest.raises(ValueError, match=r"``support_images``: expected one shot or more .*, got K=0"):
        model(query, supports, masks)
    with pytest.raises(ValueError, match=r"got K=0"):
        model.encode_image(supports)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_hosts_prototype_holds_large_objects_in_half_precision(dtype):
    feat, weight = torch.full((1, 1, 2, 300, 300), 1000.0, dtype=dtype), torch.ones(1, 1, 300, 300, dtype=dtype)
    assert_close(soft_average_pool(feat, weight), torch.full((1, 1, 2), 1000.0, dtype=dtype))


def test_region_activation_with_an_empty_shot_matches_loops():
    query, support = features(1, 3, 4, 4), features(1, 3, 3, 4, 4, seed=1)
    masks = torch.zeros(1, 3, 4, 4, dtype=torch.long)
    masks[:, 0, 1:3, 1:3] = masks[:, 2, :2, 2:] = 1
    assert_close(
        region_activation(query, support, masks, WINDOWS),
        oracles.region_activation(query, support, masks, WINDOWS),
    )
