"""mIoU and FB-IoU against a plain numpy form."""

import multiprocessing

import numpy as np
import pytest
import torch
from torch import distributed

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
    with pytest.warns(UserWarning, match="``target``: holds 255"):
        metric.update(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 255), torch.tensor([1]))
    assert torch.isnan(metric.compute().miou)


def test_update_rejects_class_ids_as_truth(episodes):
    predicted, target, class_ids = episodes
    with pytest.raises(ValueError, match=r"``target``.*values 0 .*got \[3"):
        EpisodeIoU().update(predicted, target + 3, class_ids)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
def test_any_class_id_counts(dtype):
    metric, mask = EpisodeIoU(), torch.ones(3, 2, 2, dtype=torch.long)
    highest = torch.iinfo(dtype).max
    metric.update(mask, mask, torch.tensor([1500, highest, -1], dtype=dtype))
    assert metric.compute().class_iou == {-1: 1, 1500: 1, highest: 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool])
def test_class_ids_that_are_no_whole_numbers_are_refused(episodes, dtype):
    predicted, target, class_ids = episodes
    with pytest.raises(TypeError, match=rf"``class_ids``: expected whole numbers, got {dtype}; convert"):
        EpisodeIoU().update(predicted, target, class_ids.to(dtype))


@pytest.mark.parametrize("spoil", [lambda p: p * 255, lambda p: p * 0.96 + 0.02, lambda p: p * 3, lambda p: p / 0])
def test_predictions_that_are_no_masks_are_refused(episodes, spoil):
    predicted, target, class_ids = episodes
    metric = EpisodeIoU()
    with pytest.raises(ValueError, match=r"``predicted``: expected only the values 0 .* and 1 .*; cut a probability"):
        metric.update(spoil(predicted), target, class_ids)
    assert not any(len(each) for each in metric.counts)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32, torch.bfloat16])
def test_predictions_of_every_dtype_count(episodes, dtype):
    predicted, target, class_ids = episodes
    metric = EpisodeIoU()
    metric.update(predicted.to(dtype), target, class_ids)
    np.testing.assert_allclose(metric.compute()[:2], plain(*episodes), rtol=1e-6)


def test_black_and_white_ground_truth_warns(episodes):
    predicted, target, class_ids = episodes
    with pytest.warns(UserWarning, match="``target``: holds 255 .void. and no 1"):
        EpisodeIoU().update(predicted, (target == 1) * 255, class_ids)


def scored(metric):
    """The score, without the warning that there was no episode."""
    with pytest.warns(UserWarning, match="before the ``update``"):
        return metric.compute()


def score_share(rank, meeting, episodes, shares, results):
    """Score this rank's share of the episodes, in a process of its own."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=len(shares))
    metric = EpisodeIoU()
    for index in shares[rank]:
        metric.update(*(part[index : index + 1] for part in episodes))
    score = metric.compute() if shares[rank] else scored(metric)
    results.put((score.miou.item(), score.fb_iou.item(), {key: iou.item() for key, iou in score.class_iou.items()}))
    results.close()
    results.join_thread()
    distributed.destroy_process_group()


@pytest.mark.parametrize("shares", [[[0, 3, 6], [1, 2, 4, 5, 7, 8, 9, 10, 11]], [list(range(12)), []]])
def test_processes_with_other_classes_and_shares_score_as_one(episodes, shares, tmp_path):
    """The classes of the ranks differ, and one rank may have no episode at all."""
    whole = EpisodeIoU()
    whole.update(*episodes)
    expected = whole.compute()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=score_share, args=(r, tmp_path / "meeting", episodes, shares, results))
        for r in range(len(shares))
    ]
    for process in ranks:
        process.start()
    found = [results.get(timeout=60) for _ in ranks]
    for process in ranks:
        process.join(60)
    for miou, fb_iou, class_iou in found:
        assert (miou, fb_iou) == (expected.miou.item(), expected.fb_iou.item())
        assert class_iou == {key: iou.item() for key, iou in expected.class_iou.items()}


def test_a_prediction_of_another_size_is_refused(episodes):
    predicted, target, class_ids = episodes
    with pytest.raises(ValueError, match=r"``target``: expected Hi=6 .*``predicted``"):
        EpisodeIoU().update(predicted[:, 1:], target, class_ids)
