"""PFENet, CANet and PANet: the base tests, and each against its equations in loops."""

import pytest
import torch
import torch.nn.functional as F
from models.base import NetworkTester, episode_batch

from dpcn_modules.functional import prior_mask
from dpcn_modules.models import build_model
from dpcn_modules.models.canet import IterativeOptimization, ShotAttention
from dpcn_modules.models.pfenet import FeatureEnrichment


class TestPFENet(NetworkTester):
    name = "pfenet_small"
    segments_supports = False


class TestPFENetWithDCM(NetworkTester):
    name = "pfenet_small_dcm"
    segments_supports = False


class TestPFENetVGG16BN(NetworkTester):
    """layer2 is larger than layer3, and batch norm is there."""

    name = "pfenet_vgg16_bn"
    overrides = {"channels": 8, "sizes": (3, 2), "frozen_norm": True}
    segments_supports = False


class TestCANet(NetworkTester):
    name = "canet_small"
    segments_supports = False


class TestCANetWithDCM(NetworkTester):
    name = "canet_small_dcm"
    overrides = {"generation": "parallel", "branches": ("square",), "kernel_size": 3}
    segments_supports = False


class TestCANetVGG16(NetworkTester):
    name = "canet_vgg16"
    overrides = {"channels": 8}
    segments_supports = False


class TestPANet(NetworkTester):
    name = "panet_small"


class TestPANetVGG16(NetworkTester):
    name = "panet_vgg16"


def published_average(feat, masks):
    """The masked average as published, in loops: (K, C, H, W) and (K, Hi, Wi) to (K, C)."""
    weights = F.interpolate((masks == 1).to(feat)[:, None], feat.shape[-2:], mode="bilinear", align_corners=True)
    rows = []
    for k in range(feat.shape[0]):
        total = sum(feat[k, :, y, x] * weights[k, 0, y, x] for y in range(feat.shape[2]) for x in range(feat.shape[3]))
        rows.append(total / (weights[k].sum() + 0.0005))
    return torch.stack(rows), weights


@pytest.mark.parametrize("K", [1, 3])
def test_pfenet_makes_the_prototype_and_the_prior_mask_as_published(K):
    model = build_model("pfenet_small").double().eval()
    query, supports, masks = episode_batch(1, K)
    query_features, shown = model.encode_image(query.double()), model.encode_image(supports.double(), high=False)
    support = model.encode_support(shown, masks)
    layer2, layer3, _ = model.backbone(supports[0].double())
    prototypes, weights = published_average(model.reduction_support(torch.cat([layer3, layer2], 1)), masks[0])
    torch.testing.assert_close(support.prototype[0], prototypes.mean(0))

    layer4 = model.backbone.last(layer3 * weights) * weights  # masked before and after
    s, q = layer4.flatten(2), query_features.high[0].flatten(1)  # K C HW, C HW
    cosines = torch.einsum("kcs,cq->ksq", s, q) / (s.norm(dim=1)[:, :, None] * q.norm(dim=0) + 1e-7)
    best = cosines.amax(1)
    low, high = best.amin(1, keepdim=True), best.amax(1, keepdim=True)
    prior = ((best - low) / (high - low + 1e-7)).mean(0).reshape(1, 1, *query_features.high.shape[-2:])
    prediction = model.decode(query_features, support, (48, 48))
    torch.testing.assert_close(prediction.initial_mask, prior, rtol=0, atol=1e-5)
    assert not torch.allclose(prior, prior_mask(query_features.high, model.backbone.last(layer3)[None], masks))


def test_pfenet_gives_logits_to_train_on_at_every_size():
    model = build_model("pfenet_small", sizes=(9, 5, 2)).train()
    auxiliary = model(*episode_batch()).auxiliary_logits
    assert [tuple(logits.shape) for logits in auxiliary] == [(2, 2, 9, 9), (2, 2, 5, 5), (2, 2, 2, 2)]


def test_enrichment_passes_results_from_large_to_small():
    """The first size knows nothing of the others; the last one hears of the first."""
    torch.manual_seed(0)
    part = FeatureEnrichment(4, (6, 3, 2)).double().eval()
    query, prototype, prior = (
        torch.randn(1, 4, 6, 6).double(),
        torch.randn(1, 4).double(),
        torch.rand(1, 1, 6, 6).double(),
    )
    before, logits_before = part(query, prototype, prior)
    with torch.no_grad():
        part.merges[0][0].weight.mul_(2)
    after, logits_after = part(query, prototype, prior)
    assert not torch.allclose(logits_before[2], logits_after[2])
    with torch.no_grad():
        part.merges[2][0].weight.mul_(2)
    last, logits_last = part(query, prototype, prior)
    assert before.shape == (1, 12, 6, 6)
    assert torch.equal(after[:, :8], last[:, :8])
    assert not torch.allclose(logits_after[2], logits_last[2])


def test_enrichment_rejects_no_size():
    with pytest.raises(ValueError, match="``sizes``: expected one or more grid sides"):
        FeatureEnrichment(4, ())


def test_canet_refines_a_fixed_number_of_times_from_zeros():
    model = build_model("canet_small", refinements=3).eval()
    query, supports, masks = episode_batch(1, 1)
    support = model.encode_support(model.encode_image(supports), masks)
    encoded = model.encode_image(query)
    compared = model._compare(encoded.mid, support.prototype)[:, 0]
    history = torch.zeros(1, 2, *compared.shape[-2:])
    for _ in range(4):
        logits = model.optimization(compared, history)
        history = logits.softmax(1)
    decoded = model.decode(encoded, support, tuple(compared.shape[-2:])).logits
    torch.testing.assert_close(decoded, logits, rtol=0, atol=1e-6)
    model.refinements = 0
    assert not torch.allclose(model.decode(encoded, support, tuple(compared.shape[-2:])).logits, decoded)


@pytest.mark.parametrize(("history_dropout", "zeros"), [(0.0, 0), (1.0, 64), (0.7, None)])
def test_canet_drops_its_history_in_training_with_the_given_probability(history_dropout, zeros):
    torch.manual_seed(0)
    model = build_model("canet_small", history_dropout=history_dropout, channels=8).train()
    seen = []
    model.optimization.register_forward_pre_hook(lambda part, inputs: seen.append(inputs[1]))
    model(*episode_batch(64, 1, size=16))
    first, second = seen
    assert not first.any()
    assert not second.requires_grad
    dropped = (second == 0).flatten(1).all(1).sum().item()
    assert dropped == zeros if zeros is not None else 34 <= dropped <= 56  # 64 * 0.7 = 45, within 3 deviations


def test_canet_weighs_shots_that_are_alike_alike():
    attention = ShotAttention(4).double()
    feat = torch.randn(2, 1, 4, 6, 6).double()
    torch.testing.assert_close(attention(feat), feat[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(attention(feat.repeat(1, 3, 1, 1, 1)), feat[:, 0])
    shots = torch.randn(2, 3, 4, 6, 6).double()
    weights = torch.stack([attention.score(shot).mean((1, 2, 3)) for shot in shots.unbind(1)], 1).softmax(1)
    expected = sum(weights[:, k, None, None, None] * shots[:, k] for k in range(3))
    torch.testing.assert_close(attention(shots), expected)


def test_canet_leaves_the_feature_as_it_was_for_the_sum():
    """A ReLU in place would change the feature that the residual is added to."""
    torch.manual_seed(0)
    part, feat = IterativeOptimization(4, (1,), dropout=0.0), torch.randn(1, 4, 5, 5)
    kept = feat.clone()
    part(feat, torch.zeros(1, 2, 5, 5))
    assert torch.equal(feat, kept)


@pytest.mark.parametrize(
    ("changes", "message"), [({"refinements": -1}, "0 is one pass"), ({"history_dropout": 2}, "0 to 1")]
)
def test_canet_rejects_impossible_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        build_model("canet_small", **changes)


def test_panet_compares_by_cosine_with_the_mean_prototypes_of_background_and_foreground():
    model = build_model("panet_small").double().eval()
    query, supports, masks = episode_batch(1, 2)
    masks[0, 1] = masks[0, 1].roll(7, 0)
    support = model.encode_support(model.encode_image(supports.double()), masks)
    feats, x_q = model.backbone(supports[0].double())[2], model.backbone(query.double())[2]
    logits = model.decode(model.encode_image(query.double()), support, tuple(x_q.shape[-2:])).logits
    for i, indicator in enumerate((masks[0] == 0, masks[0] == 1)):
        small = F.interpolate(indicator.double()[None], feats.shape[-2:], mode="bilinear", align_corners=True)[0] >= 0.5
        p = torch.stack([feats[k][:, small[k]].mean(1) for k in range(2)]).mean(0)
        expected = 20 * F.cosine_similarity(x_q[0], p[:, None, None], dim=0)
        torch.testing.assert_close(logits[0, i], expected)


def test_panet_aligns_by_the_predicted_mask():
    model = build_model("panet_small").train()
    prediction = model(*episode_batch(2, 2))
    assert prediction.support_logits.shape == (2, 2, 2, 48, 48)
    assert build_model("panet_small", query_to_support=False).train()(*episode_batch()).support_logits is None


@pytest.mark.parametrize("name", ["pfenet_resnet50", "canet_resnet50_dcm", "panet_vgg16"])
def test_hosts_run_forward_and_backward_at_their_size(name):
    size = 321 if "canet" in name else 473
    model = build_model(name, trainable="none", frozen_norm=True) if "panet" not in name else build_model(name)
    prediction = model.train()(*episode_batch(1, 1, size=size))
    assert prediction.logits.shape == (1, 2, size, size)
    (prediction.logits.mean() + sum(logits.mean() for logits in prediction.auxiliary_logits)).backward()
    frozen = [name for name, p in model.backbone.named_parameters() if p.grad is not None]
    assert bool(frozen) == ("panet" in name)


def test_a_frozen_backbone_gives_pfenet_a_prior_mask_without_gradient():
    for trainable, learns in (("none", False), ("all", True)):
        model = build_model("pfenet_small", trainable=trainable).train()
        assert model(*episode_batch()).initial_mask.requires_grad is learns
