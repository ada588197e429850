"""Episodes of a folded data set, as a Lightning data module."""

from collections.abc import Callable

from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from dpcn_modules.data import (
    Annotation,
    Draw,
    Episode,
    EpisodeDataset,
    EpisodeSampler,
    FoldedData,
    PictureSource,
    Split,
    TestTransform,
    TrainTransform,
    collate_episodes,
)
from dpcn_modules.evaluation import Protocol

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class EpisodeDataModule(LightningDataModule):
    """Training episodes of the training classes; validation and test episodes of the held-out classes.

    Validation draws other episodes than the test does (``test_seed + 1``), from the same held-out pictures: the
    field's habit, since folds have no third set of classes.

    Args:
        source: the data set with its fold.
        shot: K.
        size: side of the square that the network sees.
        batch_size: episodes a training step, per device.
        test_batch_size: episodes a validation or test step.
        episodes_per_epoch: training episodes.
        val_episodes: validation episodes.
        test_episodes: test episodes.
        seed: of the training episodes.
        test_seed: of the test episodes.
        draw: "class" (a class, then its pictures; HSNet, CANet) or "image" (a picture, then one of its classes,
            however small; PFENet).
        annotation: how supports are annotated, in training and test: "mask", "box" (the filled box of each connected
            object) or "class_box" (one box around all). Query masks stay precise.
        workers: loader processes; episodes do not depend on it.
        protocol_name: what the test's protocol is called; a label.
        train_transform: from picture and mask to the network's input; None: PFENet's augmentation.

    Raises:
        ValueError: when a loader is made, an unknown ``draw`` or ``annotation``, or a class with fewer than
            ``shot + 1`` pictures.
    """

    def __init__(
        self,
        source: FoldedData,
        *,
        shot: int = 1,
        size: int = 473,
        batch_size: int = 8,
        test_batch_size: int = 1,
        episodes_per_epoch: int = 5952,
        val_episodes: int = 200,
        test_episodes: int = 1000,
        seed: int = 0,
        test_seed: int = 0,
        draw: Draw = "class",
        annotation: Annotation = "mask",
        workers: int = 0,
        protocol_name: str = "unnamed",
        train_transform: Transform | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.shot = shot
        self.size = size
        self.batch_size = batch_size
        self.test_batch_size = test_batch_size
        self.episodes_per_epoch = episodes_per_epoch
        self.val_episodes = val_episodes
        self.test_episodes = test_episodes
        self.seed = seed
        self.test_seed = test_seed
        self.draw: Draw = draw
        self.annotation: Annotation = annotation
        self.workers = workers
        self.protocol_name = protocol_name
        self.train_transform = train_transform or TrainTransform(size)
        self._pictures: dict[Split, PictureSource] = {}
        self._resumed = {"epoch": 0, "done": 0}

    def train_dataloader(self) -> DataLoader[Episode]:
        """Episodes of the training classes, new ones each epoch."""
        return self._loader("train", self.episodes_per_epoch, self.seed, self.batch_size)

    def val_dataloader(self) -> DataLoader[Episode]:
        """Episodes of the held-out classes, the same ones each time."""
        return self._loader("test", self.val_episodes, self.test_seed + 1, self.test_batch_size)

    def test_dataloader(self) -> DataLoader[Episode]:
        """Episodes of the held-out classes, the same ones each time."""
        return self._loader("test", self.test_episodes, self.test_seed, self.test_batch_size)

    def state_dict(self) -> dict[str, int]:
        """The place in the training, for a checkpoint: the epoch, and how many of its episodes are done."""
        if self.trainer is None:
            return {}
        fit = self.trainer.fit_loop
        begun, batches = fit.epoch_progress.current.ready, fit.epoch_loop.batch_progress
        if batches.is_last_batch:
            return {"epoch": begun, "done": 0}
        return {"epoch": max(0, begun - 1), "done": batches.current.ready * self.batch_size * self.trainer.world_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on at the place of a checkpoint."""
        self._resumed = {**self._resumed, **state_dict}

    def pictures(self, split: Split) -> PictureSource:
        """The pictures of a split, read once."""
        if split not in self._pictures:
            self._pictures[split] = self.source.split(split)
        return self._pictures[split]

    def protocol(self) -> Protocol:
        """How a test of this data is made."""
        pictures = self.pictures("test")
        return Protocol(
            name=self.protocol_name,
            data=pictures.name,
            classes=tuple(pictures.class_names.values()),
            shot=self.shot,
            episodes=self.test_episodes,
            seed=self.test_seed,
            draw=self.draw,
            size=self.size,
            annotation=self.annotation,
        )

    def _loader(self, split: Split, episodes: int, seed: int, batch_size: int) -> DataLoader[Episode]:
        training = split == "train"
        dataset = EpisodeDataset(
            self.pictures(split),
            shot=self.shot,
            episodes=episodes,
            seed=seed,
            transform=self.train_transform if training else TestTransform(self.size),
            draw=self.draw,
            original_query_mask=not training,
            annotation=self.annotation,
        )
        trainer = self.trainer
        rank, ranks = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        # Lightning tells a sampler that can be told which epoch it is; a test has the same episodes in all of them.
        sampler = (
            EpisodeSampler(episodes, rank=rank, ranks=ranks, **self._resumed)
            if training
            else range(rank, episodes, ranks)
        )
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.workers,
            collate_fn=collate_episodes,
            persistent_workers=self.workers > 0,
            drop_last=training,
        )
