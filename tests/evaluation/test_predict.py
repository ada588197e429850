"""From the square canvas back to the image, protocols, and the prior mask's threshold."""

import dataclasses

import pytest
import torch

from dpcn_modules.data import EpisodeDataset, Shapes, TestTransform, collate_episodes
from dpcn_modules.evaluation import Protocol, best_prior_threshold, logits_at_original_size, predicted_mask
from dpcn_modules.models import build_model


@pytest.mark.parametrize("size", [(50, 97), (97, 50), (200, 120), (64, 64)])
def test_a_mask_comes_back_to_where_it_was(size):
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 3 :] = 1
    _, seen = TestTransform(64)(torch.zeros(3, *size, dtype=torch.uint8), mask)
    logits = torch.stack([seen != 1, seen == 1]).float()
    back = logits_at_original_size(logits, size).argmax(0)
    assert back.shape == size
    union = ((back == 1) | (mask == 1)).sum()
    assert ((back == 1) & (mask == 1)).sum() / union > 0.9


def test_logits_must_be_square():
    with pytest.raises(ValueError, match="``logits``"):
        logits_at_original_size(torch.zeros(2, 64, 32), (64, 32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_predicted_mask_is_the_argmax(dtype):
    logits = torch.randn(3, 5, 2, 6, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits[0, 0, 1] = logits[0, 0, 0]
    mask = predicted_mask(logits)
    assert torch.equal(mask, logits.argmax(-3))
    assert mask[0, 0].sum() == 0
    assert 0.4 < mask[1:].float().mean() < 0.6


def test_a_predicted_mask_is_of_two_classes():
    with pytest.raises(ValueError, match=r"``logits``.*got shape \(3, 4, 4\)"):
        predicted_mask(torch.zeros(3, 4, 4))


def test_a_protocol_has_an_id_that_depends_on_every_field():
    protocol = Protocol(name="p", data="d", classes=("a", "b"), shot=1, episodes=10, seed=0, sampling="class", size=64)
    assert protocol.id == dataclasses.replace(protocol).id == "74f058"
    assert dataclasses.replace(protocol, name="q").id == protocol.id
    overrides = {"data": "e", "classes": ("a",), "shot": 5, "episodes": 9, "seed": 1, "sampling": "image", "size": 65}
    ids = {dataclasses.replace(protocol, **{field: value}).id for field, value in overrides.items()}
    assert len(ids | {protocol.id}) == len(overrides) + 1
    assert str(protocol) == (
        f"p: d, 2 classes, 1-shot, 10 episodes, seed 0, sampled by class, seen at 64 px, masks resized by nearest, "
        f"scored at original size [{protocol.id}]"
    )


class PaintedFeatures:
    """Features that are the query's truth: the prior mask then finds it at any threshold."""

    def __init__(self, model):
        self.model = model

    def encode_image(self, image):
        features = self.model.encode_image(image)
        bright = (image.mean(-3, keepdim=True) > 0).float()
        return features._replace(high=torch.cat([bright, 1 - bright], -3))


def test_best_prior_threshold_finds_a_perfect_prior_and_doubts_a_random_one():
    dataset = EpisodeDataset(Shapes(0).split("test"), shot=1, episodes=6, seed=0, transform=TestTransform(64))
    batch = collate_episodes([dataset[i] for i in range(6)])
    target = (batch.query_mask == 1).float()
    painted = batch._replace(
        query_image=(2 * target - 1).unsqueeze(1).expand(-1, 3, -1, -1),
        support_images=(2 * (batch.support_masks == 1).float() - 1).unsqueeze(2).expand(-1, -1, 3, -1, -1),
    )
    model = build_model("dpcn_small").eval()
    perfect, _ = best_prior_threshold(PaintedFeatures(model), [painted])
    random, threshold = best_prior_threshold(model, [batch])
    assert perfect > 0.99
    assert 0 < random < 0.5
    assert 0 < threshold < 1


def test_the_prior_masks_thresholds_are_made_where_the_features_are():
    """Whatever is made without a device would be a meta tensor here, and could not meet the features."""
    dataset = EpisodeDataset(Shapes(0).split("test"), shot=1, episodes=2, seed=0, transform=TestTransform(64))
    batch, model = collate_episodes([dataset[i] for i in range(2)]), build_model("dpcn_small").eval()
    expected = best_prior_threshold(model, [batch])
    with torch.device("meta"):
        assert best_prior_threshold(model, [batch]) == expected
