"""mIoU and FB-IoU against a plain numpy form."""

import numpy as np
import pytest
import torch

from dpcn_modules.evaluation import EpisodeIoU


def plain(predicted, target, class_ids):
    """Ten lines: sums first, ratios last."""
    counts = {}
    for p, t, c in zip(predicted.numpy(), target.numpy(), class_ids.tolist(), strict=True):
        seen = t != 255
        for label in (0, 1):
            i = np.sum((p == label) & (t == label) & seen)
            u = np.sum(((p == label) | (t == label)) & seen)
            counts[c, label] = counts.get((c, label), np.zeros(2)) + np.array([i, u])
    miou = np.mean([i / u for (c, label), (i, u) in counts.items() if label == 1 and u > 0])
    fb = [sum(v for (c, la), v in counts.items() if la == label) for label in (0, 1)]
    return miou, np.mean([i / u for i, u in fb])


@pytest.fixture
def episodes():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (12, 7, 9), generator=generator)
    target[:, 0] = 255
    predicted = torch.randint(0, 2, (12, 7, 9), generator=generator)
    return predicted, target, torch.arange(12) % 3 + 5


def test_score_equals_the_plain_form(episodes):
    metric = EpisodeIoU()
    metric.update(*episodes)
    score = metric.compute()
    np.testing.assert_allclose((score.miou, score.fb_iou), plain(*episodes), rtol=1e-6)
    assert sorted(score.class_iou) == [5, 6, 7]


def test_miou_is_not_the_mean_of_episode_ious():
    """A large and a small object of one class: the sums decide, 9 / 11 and not (8/8 + 1/3) / 2."""
    predicted, target = torch.zeros(2, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)
    predicted[0, :2] = target[0, :2] = 1
    target[1, 0, :3] = 1
    predicted[1, 0, 0] = 1
    metric = EpisodeIoU()
    metric.update(predicted, target, torch.tensor([1, 1]))
    torch.testing.assert_close(metric.compute().miou, torch.tensor(9 / 11))


def test_two_updates_equal_one(episodes):
    once, twice = EpisodeIoU(), EpisodeIoU()
    once.update(*episodes)
    twice.update(*(part[:5] for part in episodes))
    twice.update(*(part[5:] for part in episodes))
    assert once.compute() == twice.compute()


def test_update_leaves_its_arguments_alone(episodes):
    before = [part.clone() for part in episodes]
    EpisodeIoU().update(*episodes)
    assert all(torch.equal(a, b) for a, b in zip(before, episodes, strict=True))


def test_a_class_without_pixels_is_left_out(episodes):
    predicted, target, class_ids = episodes
    target = torch.where((class_ids == 6)[:, None, None], 255, target)
    metric = EpisodeIoU()
    metric.update(predicted, target, class_ids)
    assert sorted(metric.compute().class_iou) == [5, 7]


def test_all_void_is_not_a_number():
    metric = EpisodeIoU()
    metric.update(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255), torch.tensor([1]))
    assert torch.isnan(metric.compute().miou)


def test_update_rejects_class_ids_as_truth(episodes):
    predicted, target, class_ids = episodes
    with pytest.raises(ValueError, match=r"``target``.*values 0 .*got \[3"):
        EpisodeIoU().update(predicted, target + 3, class_ids)


def test_class_ids_beyond_a_byte_count_and_others_are_refused():
    metric, mask = EpisodeIoU(), torch.ones(1, 2, 2, dtype=torch.long)
    metric.update(mask, mask, torch.tensor([1000]))
    assert metric.compute().class_iou.keys() == {1000}
    for class_id in (-1, 1024):
        with pytest.raises(ValueError, match=f"``class_ids``: expected 0 to 1023, got .{class_id}"):
            metric.update(mask, mask, torch.tensor([class_id]))
