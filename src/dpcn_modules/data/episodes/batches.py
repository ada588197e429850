"""The episodes of an epoch, and how they are collated into a batch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, DistributedSampler

from dpcn_modules._checks import VOID, some
from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset, View
from dpcn_modules.errors import InputError
from dpcn_modules.interface import ImageStages

PADDING = -1
"""The item, and the index of its episode, that makes the shares of ranks equal and counts in no score."""


class EpisodeSampler(DistributedSampler[int]):
    """The dataset items of one epoch of training, or one rank's share of them: whole batches on every rank.

    Every rank has equally many items, since ranks that wait for one another stop for good where one has fewer.
    Episodes beyond the last whole batch are left out.

    Args:
        episodes: number of episodes in an epoch.
        rank: index of this process, from 0.
        ranks: number of processes; each takes every ``ranks``-th episode.
        epoch: the first epoch.
        done: number of episodes of that epoch that all ranks together finished before training was interrupted; they
            are skipped.
        batch_size: episodes of a training step, of all ranks together, a multiple of ``ranks``; None: ``ranks``.

    Raises:
        ValueError: ``episodes`` is not positive or less than ``batch_size``, ``rank`` is not from 0 to ``ranks - 1``,
            or ``batch_size`` is no multiple of ``ranks``.

    Example:
        >>> sampler = EpisodeSampler(5, rank=1, ranks=2)
        >>> sampler.set_epoch(2)
        >>> list(sampler)
        [11, 13]
    """

    def __init__(
        self,
        episodes: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        epoch: int = 0,
        done: int = 0,
        batch_size: int | None = None,
    ) -> None:
        _check_share(episodes, rank, ranks)
        batch_size = ranks if batch_size is None else batch_size
        if batch_size < 1 or batch_size % ranks:
            raise InputError(f"``batch_size``: expected a multiple of the {ranks} ranks, got {batch_size}.")
        if episodes < batch_size:
            raise InputError(
                f"``episodes_per_epoch``: expected at least one batch of {batch_size} episodes, got {episodes}, which "
                f"would be an epoch without a step; lower ``batch_size`` or raise ``episodes_per_epoch``."
            )
        # A DistributedSampler, so that Lightning does not divide a rank's share among the ranks again.
        super().__init__(range(episodes), num_replicas=ranks, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.episodes = episodes
        self.epoch = epoch
        self._share = range(rank, episodes - episodes % batch_size, ranks)
        self._done = {epoch: done // ranks}

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[int]:
        share = self._share[self._done.get(self.epoch, 0) :]
        return (self.epoch * self.episodes + index for index in share)


class ScoredSampler(DistributedSampler[int]):
    """The items of a validation or test, or one rank's share of them; each is on one rank, and no epoch changes them.

    Ranks that would have one item less have `PADDING` in its place, so that all have equally many batches; see
    `PaddedEpisodes`.

    Args:
        episodes: number of episodes of the test.
        rank: index of this process, from 0.
        ranks: number of processes.

    Raises:
        ValueError: ``episodes`` is not positive, or ``rank`` is not from 0 to ``ranks - 1``.

    Example:
        >>> [list(ScoredSampler(5, rank=rank, ranks=2)) for rank in range(2)]
        [[0, 2, 4], [1, 3, -1]]
    """

    def __init__(self, episodes: int, *, rank: int = 0, ranks: int = 1) -> None:
        _check_share(episodes, rank, ranks)
        super().__init__(range(episodes), num_replicas=ranks, rank=rank, shuffle=False)  # type: ignore[arg-type]
        rounds = range(rank, ranks * -(-episodes // ranks), ranks)
        self._share = [item if item < episodes else PADDING for item in rounds]

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[int]:
        return iter(self._share)


class PaddedEpisodes(Dataset[Episode]):
    """Episodes with one more item, `PADDING`: the first episode once more, with the index `PADDING`."""

    def __init__(self, episodes: EpisodeDataset) -> None:
        self.episodes = episodes

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, item: int) -> Episode:
        return self.episodes[0]._replace(index=PADDING) if item == PADDING else self.episodes[item]


def _check_share(episodes: int, rank: int, ranks: int) -> None:
    if episodes < 1 or rank not in range(ranks):
        expected = "``episodes`` >= 1 and 0 <= ``rank`` < ``ranks``"
        raise InputError(f"expected {expected}, got {episodes}, {rank}, {ranks}.")


def collate_episodes(batch: list[Episode]) -> Episode:
    """Collate B episodes with the same K and S into one `Episode`, whose tensors have the first axis B.

    Query masks are padded at the bottom and right with 255. ValueError for episodes of another K or S.
    """
    shapes = [
        [_shape(images) for images in (episode.support_images, *(view.support_images for view in episode.views))]
        for episode in batch
    ]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise InputError(
                f"``batch``: expected episodes with the same number of shots and size of images, got "
                f"``support_images`` (K 3 S S) of {some(shapes[0])} in episode 0 and of {some(shape)} in episode "
                f"{index}; make a batch of each kind."
            )
    sizes = torch.stack([episode.query_size for episode in batch])
    spare = (sizes.amax(dim=0) - sizes).tolist()
    query_masks = [
        F.pad(episode.query_mask, (0, width, 0, height), value=VOID)
        for episode, (height, width) in zip(batch, spare, strict=True)
    ]
    return Episode(
        query_image=_stacked([episode.query_image for episode in batch]),
        query_mask=torch.stack(query_masks),
        support_images=_stacked([episode.support_images for episode in batch]),
        support_masks=torch.stack([episode.support_masks for episode in batch]),
        query_size=sizes,
        class_id=torch.tensor([episode.class_id for episode in batch]),
        index=torch.tensor([episode.index for episode in batch]),
        query_name=tuple(str(episode.query_name) for episode in batch),
        support_names=tuple(tuple(map(str, episode.support_names)) for episode in batch),
        views=tuple(
            View(*(torch.stack(tensors) for tensors in zip(*views, strict=True)))
            for views in zip(*(episode.views for episode in batch), strict=True)
        ),
    )


def _shape(images: Tensor | ImageStages) -> tuple[int, ...]:
    return tuple((images.layer3 if isinstance(images, ImageStages) else images).shape)


def _stacked(images: list[Any]) -> Any:
    """Tensors, or stages, with the new axis B."""
    if not isinstance(images[0], ImageStages):
        return torch.stack(images)
    size, *stages = images[0]
    given = [i for i, stage in enumerate(stages, 1) if stage is not None]
    return ImageStages(size, *(torch.stack([each[i] for each in images]) for i in given))
