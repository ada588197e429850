"""DPCN: the base tests for the whole network, its ablations and backbones, and what the paper fixes."""

import pytest
import torch
from models.base import NetworkTester, episode_batch

from dpcn_modules.models import build_model


class TestDPCNSmall(NetworkTester):
    name = "dpcn_small"


class TestBaselineSmall(NetworkTester):
    name = "baseline_small"


class TestWithoutSAM(NetworkTester):
    name = "dpcn_small"
    overrides = {"sam": False}


class TestParallelSquareOnly(NetworkTester):
    name = "dpcn_small"
    overrides = {"generation": "parallel", "branches": ("square",), "kernel_size": 3}


class TestVGG16(NetworkTester):
    name = "dpcn_vgg16"
    overrides = {"channels": 16}


ABLATIONS = {
    "SAM+FFM (table 3)": ({"dcm": False}, 2 * 32 + 3 + 1),
    "FFM+DCM (table 3)": ({"sam": False}, 4 * 32 + 1 + 1),
    "SAM+DCM (table 3)": ({"ffm": False}, 4 * 32 + 3),
    "DCM alone": ({"sam": False, "ffm": False}, 4 * 32),
    "kernel 9 (table 4)": ({"kernel_size": 9}, 4 * 32 + 4),
    "1x5 and 5x1 (table 5)": ({"branches": ("vertical", "horizontal")}, 3 * 32 + 4),
    "5/25 (table A1)": ({"generation": "parallel"}, 4 * 32 + 4),
    "prior mask (COCO)": ({"windows": ((1, 1),)}, 4 * 32 + 2),
    "baseline": ({"sam": False, "ffm": False, "dcm": False}, 2 * 32),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_concatenates_what_is_there(name):
    changes, channels = ABLATIONS[name]
    model = build_model("dpcn_small", **changes).eval()
    assert model.decoder.conv.in_channels == channels
    assert model(*episode_batch()).logits.shape == (2, 2, 48, 48)


def test_five_copies_of_a_shot_leave_maps_and_prototype_as_they_are():
    model = build_model("dpcn_small").double().eval()
    query, supports, masks = episode_batch(1, 1)
    query, supports = query.double(), supports.double()
    encoded, features = [], model.encode_image(query)
    for copies in (1, 5):
        shown = model.encode_image(supports.repeat(1, copies, 1, 1, 1))
        encoded.append(model.encode_support(shown, masks.repeat(1, copies, 1, 1)))
    one, five = (model.decode(features, support, (48, 48)) for support in encoded)
    torch.testing.assert_close(encoded[0].prototype, encoded[1].prototype, rtol=0, atol=1e-10)
    torch.testing.assert_close(one.activation_maps, five.activation_maps, rtol=0, atol=1e-10)
    torch.testing.assert_close(one.refined_mask, five.refined_mask, rtol=0, atol=1e-10)
    # Eq. 11 pools the concatenation: five times the raster order is not the raster order, so kernels may differ.
    assert not torch.allclose(encoded[0].kernels[0], encoded[1].kernels[0], atol=1e-10)


def test_without_dcm_five_copies_of_a_shot_give_the_logits_of_one():
    model = build_model("dpcn_small", dcm=False).double().eval()
    query, supports, masks = episode_batch(1, 1)
    one = model(query.double(), supports.double(), masks).logits
    five = model(query.double(), supports.double().repeat(1, 5, 1, 1, 1), masks.repeat(1, 5, 1, 1)).logits
    torch.testing.assert_close(one, five, rtol=0, atol=1e-10)


def test_the_order_of_shots_does_not_matter_to_maps_and_prototype():
    model = build_model("dpcn_small").double().eval()
    _, supports, masks = episode_batch(1, 3)
    supports = supports.double()
    masks[0, 1].zero_()[3:9, 30:40] = 1
    features = model.encode_image(supports)
    swapped = model.encode_image(supports.flip(1))
    torch.testing.assert_close(
        model.encode_support(features, masks).prototype, model.encode_support(swapped, masks.flip(1)).prototype
    )


def test_no_gradient_flows_through_the_predicted_mask():
    """The query-to-support loss reaches the decoder only by its second use: L(q->s) alone, support path cut."""
    model = build_model("dpcn_small").train()
    prediction = model(*episode_batch())
    assert prediction.support_logits.requires_grad
    (gradient,) = torch.autograd.grad(prediction.support_logits.sum(), prediction.logits, allow_unused=True)
    assert gradient is None


@pytest.mark.parametrize("shot", [1, 5])
def test_resnet50_runs_forward_and_backward_at_473(shot):
    model = build_model("dpcn_resnet50", trainable="layer4", frozen_norm=True, chunk_size=900).train()
    prediction = model(*episode_batch(1, shot, size=473))
    assert prediction.logits.shape == (1, 2, 473, 473)
    assert prediction.activation_maps.shape == (1, 3, 60, 60)
    (prediction.logits.mean() + prediction.support_logits.mean()).backward()
    assert model.backbone.layer4[0].conv1.weight.grad.any()
    assert model.backbone.layer3[0].conv1.weight.grad is None


def test_forward_names_both_tensors_whose_shapes_disagree():
    query, supports, masks = episode_batch(2, 3)
    with pytest.raises(ValueError, match=r"``support_masks``: expected K=3 .* comes from ``support_images``"):
        build_model("dpcn_small")(query, supports, masks[:, :1])


def test_forward_rejects_class_ids_in_a_mask():
    query, supports, masks = episode_batch()
    with pytest.raises(ValueError, match=r"values 0 .*, got \[7\].*mask == class_id"):
        build_model("dpcn_small")(query, supports, masks * 7 % 255)


def test_forward_rejects_non_finite_images():
    query, supports, masks = episode_batch()
    with pytest.raises(ValueError, match="finite"):
        build_model("dpcn_small")(query, supports * float("nan"), masks)


def test_ffm_needs_a_pseudo_mask():
    parts = build_model("dpcn_small")
    with pytest.raises(ValueError, match=r"windows=\(\(1, 1\),\)"):
        type(parts)(
            parts.backbone,
            reduction=parts.reduction,
            decoder=parts.decoder,
            feature_filtering=parts.feature_filtering,
        )
