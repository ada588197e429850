"""The episodes of an epoch, and how they are collated into a batch."""

from collections.abc import Iterator

import torch
from torch.nn import functional as F
from torch.utils.data import Sampler

from dpcn_modules._checks import VOID, some
from dpcn_modules.data.episodes.dataset import Episode, View


class EpisodeSampler(Sampler[int]):
    """The dataset items of one epoch, or one rank's share of them.

    Args:
        episodes: number of episodes in an epoch.
        rank: index of this process, from 0.
        ranks: number of processes; each takes every ``ranks``-th episode.
        epoch: the first epoch.
        done: number of episodes of that epoch that all ranks together finished before training was interrupted; they
            are skipped.

    Raises:
        ValueError: ``episodes`` is not positive, or ``rank`` is not from 0 to ``ranks - 1``.

    Example:
        >>> sampler = EpisodeSampler(5, rank=1, ranks=2)
        >>> sampler.set_epoch(2)
        >>> list(sampler)
        [11, 13]
    """

    def __init__(self, episodes: int, *, rank: int = 0, ranks: int = 1, epoch: int = 0, done: int = 0) -> None:
        if episodes < 1 or rank not in range(ranks):
            expected = "``episodes`` >= 1 and 0 <= ``rank`` < ``ranks``"
            raise ValueError(f"expected {expected}, got {episodes}, {rank}, {ranks}.")
        self.episodes = episodes
        self.epoch = epoch
        self._share = range(rank, episodes, ranks)
        self._done = {epoch: done // ranks}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose items come next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._share)

    def __iter__(self) -> Iterator[int]:
        share = self._share[self._done.get(self.epoch, 0) :]
        return (self.epoch * self.episodes + index for index in share)


def collate_episodes(batch: list[Episode]) -> Episode:
    """Collate B episodes with the same K and S into one `Episode`, whose tensors have the first axis B.

    Query masks are padded at the bottom and right with 255. ValueError for episodes of another K or S.
    """
    shapes = [
        [tuple(images.shape) for images in (episode.support_images, *(view.support_images for view in episode.views))]
        for episode in batch
    ]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
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
        query_image=torch.stack([episode.query_image for episode in batch]),
        query_mask=torch.stack(query_masks),
        support_images=torch.stack([episode.support_images for episode in batch]),
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
