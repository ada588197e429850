"""Fusion of one-shot masks (Table 7)."""

import math

import numpy as np
import pytest
import torch
from samples import features

from dpcn_modules.models import FUSIONS, fuse_shots

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
