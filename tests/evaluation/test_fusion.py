"""Fusion of one-shot masks (Table 7), and the one-shot predictions it needs."""

import math

import numpy as np
import pytest
import torch
from models.base import episode_batch
from samples import features

from dpcn_modules.evaluation import FUSIONS, fuse_shots, one_shot_logits
from dpcn_modules.evaluation.predict import as_two_door, logits_of_features
from dpcn_modules.models import build_model

MASK_FUSIONS = FUSIONS[1:]


def fuse_by_loops(logits, fusion):
    """Position by position, from the probabilities of foreground."""
    shots, _, height, width = logits.shape
    fused = np.zeros((height, width), dtype=np.int64)
    for y in range(height):
        for x in range(width):
            chances = [1 / (1 + math.exp(logits[k, 0, y, x] - logits[k, 1, y, x])) for k in range(shots)]
            votes = sum(chance > 0.5 for chance in chances)
            fused[y, x] = {
                "vote": votes > shots / 2,
                "average": sum(chances) / shots > 0.5,
                "or": votes > 0,
            }[fusion]
    return fused


def shots_of(*foreground):
    """Logits ``(K, 2, 1, 1)`` of shots with these foreground logits, the background's being 0."""
    return torch.tensor([[0.0, value] for value in foreground]).reshape(-1, 2, 1, 1)


@pytest.mark.parametrize("fusion", MASK_FUSIONS)
@pytest.mark.parametrize("shots", [1, 2, 5])
def test_fuse_shots_matches_loops(fusion, shots):
    logits = 2 * features(shots, 2, 7, 9)
    fused = fuse_shots(logits, fusion)
    assert fused.dtype == torch.int64
    np.testing.assert_array_equal(fused, fuse_by_loops(logits.numpy(), fusion))


def test_the_fusions_of_five_shots_differ():
    logits = 2 * features(5, 2, 7, 9)
    vote, average, either = (fuse_shots(logits, fusion) for fusion in MASK_FUSIONS)
    assert (vote != average).any()
    assert (average != either).any()
    assert (vote <= either).all()


@pytest.mark.parametrize("fusion", MASK_FUSIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_shot_is_the_argmax_however_small_the_margin(fusion, dtype):
    logits = features(1, 2, 20, 20, dtype=dtype)
    logits[0, 1, :10] = torch.nextafter(logits[0, 0, :10], torch.tensor(9.0, dtype=dtype))  # p rounds to 0.5
    logits[0, 1, 10] = logits[0, 0, 10]
    assert torch.equal(fuse_shots(logits, fusion), logits[0].argmax(0))


def test_a_tie_is_background():
    assert fuse_shots(shots_of(3.0, -3.0), "vote") == 0
    assert fuse_shots(shots_of(3.0, -3.0), "average") == 0
    assert fuse_shots(shots_of(0.0, 0.0), "or") == 0


def test_an_even_vote_needs_more_than_half():
    assert fuse_shots(shots_of(1.0, 1.0, -1.0, -1.0), "vote") == 0
    assert fuse_shots(shots_of(1.0, 1.0, 1.0, -1.0), "vote") == 1


def test_the_average_weighs_a_sure_shot_more_than_the_vote_does():
    sure = shots_of(8.0, -0.1, -0.1)
    assert [fuse_shots(sure, fusion).item() for fusion in MASK_FUSIONS] == [0, 1, 1]


@pytest.mark.parametrize("fusion", MASK_FUSIONS)
def test_leading_axes_are_fused_one_by_one(fusion):
    logits = features(2, 3, 5, 2, 4, 6)
    fused = fuse_shots(logits, fusion)
    assert fused.shape == (2, 3, 4, 6)
    assert torch.equal(fused[1, 2], fuse_shots(logits[1, 2], fusion))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 6), r"``logits``: expected 4 axes \(K 2 H W\), got shape \(2, 4, 6\)"),
        ((5, 3, 4, 6), r"``logits``: expected 2 \(K 2 H W\), got shape \(5, 3, 4, 6\)"),
        ((0, 2, 4, 6), r"``logits``: expected one shot or more"),
    ],
)
def test_other_shapes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        fuse_shots(torch.zeros(shape), "vote")


def test_an_unknown_fusion_is_named():
    with pytest.raises(ValueError, match="expected one of concat, vote, average, or, got 'mean'"):
        fuse_shots(torch.zeros(5, 2, 4, 4), "mean")


def test_concat_is_no_fusion_of_masks():
    with pytest.raises(ValueError, match=r"one of vote, average, or, .*got 'concat'; .*the network's own forward"):
        fuse_shots(torch.zeros(5, 2, 4, 4), "concat")


@pytest.mark.parametrize("name", ["dpcn_small", "baseline_small", "pfenet_small_dcm", "canet_small_dcm", "panet_small"])
@torch.no_grad()
def test_one_shot_logits_are_the_forward_on_each_shot_alone(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    query_image, support_images, support_masks = episode_batch(2, 3)
    support_masks = torch.stack([support_masks[:, k].roll(8 * k, dims=-2) for k in range(3)], dim=1)
    logits = one_shot_logits(model, query_image, support_images, support_masks)
    assert logits.shape == (2, 3, 2, *query_image.shape[-2:])
    for k in range(3):
        alone = model(query_image, support_images[:, k : k + 1], support_masks[:, k : k + 1]).logits
        torch.testing.assert_close(logits[:, k], alone)
    assert not torch.allclose(logits[:, 0], logits[:, 1])


@torch.no_grad()
def test_the_shot_axis_may_be_left_out_for_one_shot():
    model = build_model("dpcn_small").eval()
    query_image, support_images, support_masks = episode_batch(2, 1)
    logits = one_shot_logits(model, query_image, support_images[:, 0], support_masks[:, 0])
    torch.testing.assert_close(logits, one_shot_logits(model, query_image, support_images, support_masks))


@torch.no_grad()
def test_the_query_is_encoded_once_and_the_supports_together():
    model, seen = build_model("baseline_small").eval(), []
    encode = model.encode_image
    model.encode_image = lambda image, **kwargs: seen.append(tuple(image.shape[:-3])) or encode(image, **kwargs)
    one_shot_logits(model, *episode_batch(2, 5))
    assert seen == [(2,), (2, 5)]


@pytest.mark.parametrize("name", ["dpcn_small", "pfenet_small_dcm", "canet_small", "panet_small"])
@torch.no_grad()
def test_logits_of_features_are_those_of_the_forward_or_of_each_shot(name):
    torch.manual_seed(0)
    model = build_model(name).eval()
    query_image, support_images, support_masks = episode_batch(2, 3)
    encoded = model.encode_image(query_image), model.encode_image(support_images), support_masks
    together, alone = (
        logits_of_features(model, *encoded, size=query_image.shape[-2:], together=together)
        for together in (True, False)
    )
    # Made with the supports' high-level features, which PFENet's forward leaves out: it does not look at them.
    expected = model(query_image, support_images, support_masks).logits
    torch.testing.assert_close(together, expected.unsqueeze(1), rtol=0, atol=1e-6)
    expected = one_shot_logits(model, query_image, support_images, support_masks)
    torch.testing.assert_close(alone, expected, rtol=0, atol=0)


def test_shapes_that_disagree_are_refused():
    model = build_model("baseline_small").eval()
    query_image, support_images, support_masks = episode_batch(2, 3)
    with pytest.raises(ValueError, match="``support_masks``: expected K=3"):
        one_shot_logits(model, query_image, support_images, support_masks[:, :2])
    with pytest.raises(ValueError, match="``support_images``: expected one shot or more"):
        one_shot_logits(model, query_image, support_images[:, :0], support_masks[:, :0])


def test_a_network_without_the_doors_is_refused_with_what_it_lacks():
    class Half(torch.nn.Identity):
        def encode_image(self, image):
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"got Half without encode_support, decode; .*EncodeDecodeModel"):
        one_shot_logits(Half(), *episode_batch(1, 1))


def test_a_network_without_the_doors_is_told_what_works_without_them():
    with pytest.raises(TypeError, match=r"or use fusion='concat'\."):
        as_two_door(torch.nn.Identity())
    with pytest.raises(TypeError, match=r"or use feature_cache=0\."):
        as_two_door(torch.nn.Identity(), "feature_cache=0")
