"""Batches of episodes: independent of workers and ranks, and collated without loss of pixels."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from episode_helpers import episodes_of, same_episode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dpcn_modules.data.datasets.pascal import Pascal5i
from dpcn_modules.data.episodes.batches import PADDING, EpisodeSampler, PaddedEpisodes, ScoredSampler, collate_episodes
from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset
from dpcn_modules.data.source import ImageSource
from dpcn_modules.data.transforms import TestTransform, TrainTransform
from dpcn_modules.evaluation import EpisodeIoU, Predictor, score_batch
from dpcn_modules.interface import Prediction


def load_epoch(dataset: EpisodeDataset, workers: int, epoch: int = 1) -> list[Episode]:
    sampler = EpisodeSampler(dataset.episodes)
    sampler.set_epoch(epoch)
    return list(DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=collate_episodes))


def check_same_for_any_number_of_workers(dataset: EpisodeDataset) -> None:
    expected = load_epoch(dataset, 0)
    assert len(expected) == dataset.episodes // 2
    for workers in (0, 1, 2):
        torch.manual_seed(workers)
        batches = load_epoch(dataset, workers)
        assert all(map(same_episode, batches, expected))
        assert len(batches) == len(expected)


@pytest.mark.parametrize("transform", [TrainTransform(size=48), TestTransform(size=48)], ids=["train", "test"])
def test_batches_are_bit_identical_for_any_number_of_workers(
    voc: Path, transform: Callable[..., tuple[torch.Tensor, torch.Tensor]]
) -> None:
    source = Pascal5i(voc, 0, min_area=300).split("train")
    is_test = isinstance(transform, TestTransform)
    check_same_for_any_number_of_workers(
        episodes_of(source, transform=transform, original_query_mask=is_test, sampling="image")
    )


@pytest.mark.real_data
def test_batches_of_real_images_are_bit_identical_for_any_number_of_workers(real_data: Path) -> None:
    data = Pascal5i(real_data / "voc2012_subset", 1, classes=["cat", "cow", "dog", "horse", "sheep"])
    source = data.split("train")
    check_same_for_any_number_of_workers(episodes_of(source, shot=1, episodes=4, transform=TrainTransform(size=193)))


def test_sampler_covers_an_epoch_once() -> None:
    sampler = EpisodeSampler(7)
    assert len(sampler) == 7
    assert list(sampler) == list(range(7))
    sampler.set_epoch(3)
    assert list(sampler) == list(range(21, 28))


@st.composite
def trainings(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """Episodes, batch size, ranks, epoch, and how many batches of that epoch are done."""
    ranks = draw(st.integers(1, 8))
    batch = ranks * draw(st.integers(1, 6))
    episodes = draw(st.integers(batch, 200))
    return episodes, batch, ranks, draw(st.integers(0, 3)), draw(st.integers(0, episodes // batch))


@settings(deadline=None)
@given(trainings())
@example((5, 2, 2, 0, 0))  # every second episode was 3 and 2 of them
def test_the_ranks_of_a_training_have_its_batches_and_equally_many(case: tuple[int, int, int, int, int]) -> None:
    episodes, batch, ranks, epoch, done = case
    options = {"ranks": ranks, "epoch": epoch, "done": done * batch, "batch_size": batch}
    samplers = [EpisodeSampler(episodes, rank=rank, **options) for rank in range(ranks)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {(episodes // batch - done) * batch // ranks}
    for number in range(episodes // batch - done):
        part = slice(number * batch // ranks, (number + 1) * batch // ranks)
        start = epoch * episodes + (done + number) * batch
        assert sorted(item for share in shares for item in share[part]) == list(range(start, start + batch))
    for sampler in samplers:
        sampler.set_epoch(epoch + 1)
        assert len(list(sampler)) == len(sampler) == episodes // batch * batch // ranks


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 8))
@example(5, 2)
def test_the_ranks_of_a_test_have_every_episode_once_and_equally_many(episodes: int, ranks: int) -> None:
    samplers = [ScoredSampler(episodes, rank=rank, ranks=ranks) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(3)
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(sampler) for sampler in samplers} == {-(-episodes // ranks)}
    assert sorted(item for share in shares for item in share if item != PADDING) == list(range(episodes))


def test_padding_counts_in_no_score(source: ImageSource) -> None:
    episodes = PaddedEpisodes(episodes_of(source, shot=1, transform=TestTransform(32), original_query_mask=True))
    metrics = []
    for items in ([0, 1], [0, 1, PADDING], [PADDING, 0, 1]):
        metric = EpisodeIoU()
        score_batch(Predictor(_Half()), collate_episodes([episodes[item] for item in items]), metric)
        metrics.append(metric)
    class_ids, pixels = metrics[0].class_sums()
    assert pixels.sum() > 0
    for metric in metrics[1:]:
        assert torch.equal(metric.class_sums()[0], class_ids)
        assert torch.equal(metric.class_sums()[1], pixels)


class _Half(torch.nn.Module):
    """Calls the brighter half of the numbers foreground."""

    def forward(self, query_image: torch.Tensor, *_: torch.Tensor) -> Prediction:
        return Prediction(torch.stack([torch.zeros_like(query_image[:, 0]), query_image[:, 0]], dim=1))


@pytest.mark.parametrize(
    ("batch_size", "ranks", "message"),
    [
        (8, 1, "at least one batch of 8 episodes, got 3, .* lower ``batch_size`` or raise ``episodes_per_epoch``"),
        (3, 2, "``batch_size``: expected a multiple of the 2 ranks, got 3"),
        (0, 1, "``batch_size``: expected a multiple of the 1 ranks, got 0"),
    ],
)
def test_sampler_rejects_batches_that_make_no_step(batch_size: int, ranks: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(3, ranks=ranks, batch_size=batch_size)


@pytest.mark.parametrize(("episodes", "rank", "ranks"), [(0, 0, 1), (5, 2, 2), (5, -1, 2)])
def test_sampler_rejects_impossible_shares(episodes: int, rank: int, ranks: int) -> None:
    with pytest.raises(ValueError, match=rf"got {episodes}, {rank}, {ranks}"):
        EpisodeSampler(episodes, rank=rank, ranks=ranks)


def test_collate_pads_original_masks_with_void(source: ImageSource) -> None:
    dataset = episodes_of(source, transform=TestTransform(size=32), original_query_mask=True, episodes=12)
    items = [dataset[item] for item in range(12)]
    batch = collate_episodes(items)
    height = max(int(episode.query_mask.shape[0]) for episode in items)
    assert batch.query_mask.shape == (12, height, 50)
    assert len({episode.query_mask.shape for episode in items}) > 1
    for row, episode in enumerate(items):
        rows, columns = batch.query_size[row].tolist()
        assert torch.equal(batch.query_mask[row, :rows, :columns], episode.query_mask)
        assert bool((batch.query_mask[row, rows:] == 255).all())


def test_collate_keeps_fields_and_order(source: ImageSource) -> None:
    items = [episodes_of(source)[item] for item in (0, 5, 3)]
    batch = collate_episodes(items)
    assert batch.query_image.shape == (3, 3, 32, 32)
    assert batch.support_images.shape == (3, 2, 3, 32, 32)
    assert batch.support_masks.shape == (3, 2, 32, 32)
    assert isinstance(batch.class_id, torch.Tensor)
    assert isinstance(batch.index, torch.Tensor)
    assert batch.class_id.tolist() == [episode.class_id for episode in items]
    assert batch.index.tolist() == [0, 5, 3]
    assert batch.query_name == tuple(episode.query_name for episode in items)
    assert batch.support_names == tuple(episode.support_names for episode in items)


def test_truncated_image_is_named_through_loader_workers(voc: Path) -> None:
    for path in (voc / "JPEGImages").glob("val_*.jpg"):
        path.write_bytes(path.read_bytes()[:900])
    source = Pascal5i(voc, 0, min_area=300).split("test")
    with pytest.raises(ValueError, match=r"val_\d+\.jpg: cannot be decoded"):
        load_epoch(episodes_of(source), workers=1)


@pytest.mark.parametrize(("shot", "size"), [(3, 64), (1, 48)])
def test_collate_refuses_episodes_of_another_shot_or_size(source: ImageSource, shot: int, size: int) -> None:
    make = partial(EpisodeDataset, source, episodes=1, seed=0)
    one, other = make(shot=1, transform=TestTransform(64))[0], make(shot=shot, transform=TestTransform(size))[0]
    with pytest.raises(
        ValueError, match=rf"number of shots .* \(1, 3, 64, 64\) in episode 0 and of \({shot}, 3, {size}"
    ):
        collate_episodes([one, other])
