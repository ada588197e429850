"""Episodes of a folded data set, as a Lightning data module."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from dpcn_modules import __version__
from dpcn_modules._checks import check_choice, check_integer, plain
from dpcn_modules.data import Annotation, FoldedData, ImageSource, Sampling, Split, TestTransform, TrainTransform
from dpcn_modules.data.episodes.batches import EpisodeSampler, PaddedEpisodes, ScoredSampler, collate_episodes
from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset, Transform
from dpcn_modules.data.episodes.manifest import manifest_hash, manifest_lines, read_manifest
from dpcn_modules.data.episodes.stored import StoredEpisodes
from dpcn_modules.data.episodes.stored_views import StoredViews
from dpcn_modules.data.feature_store import FeatureStore, describe
from dpcn_modules.data.resizing import MaskInterpolation
from dpcn_modules.errors import InputError
from dpcn_modules.evaluation import Protocol
from dpcn_modules.training.checkpoints import open_batches

Target = Literal["original", "resized"]
_PLAIN = (
    *("shot", "size", "batch_size", "device_batch_size", "test_batch_size", "episodes_per_epoch", "val_episodes"),
    *("test_episodes", "seed", "test_seed", "scales", "manifest", "workers"),
)
"""What checkpoints and results keep, or follow from."""


@dataclasses.dataclass(eq=False, repr=False)
class EpisodeDataModule(LightningDataModule):
    """Training episodes of the training classes; validation and test episodes of the held-out classes.

    Validation draws other episodes than the test does (``test_seed + 1``), from the same held-out images: the
    field's habit, since folds have no third set of classes.

    Args:
        source: the data set with its fold.
        shot: K.
        size: side of the square that the network sees.
        batch_size: episodes a training step, of all devices together.
        device_batch_size: the most episodes that a device takes at a time; gradients are accumulated until a step has
            its ``batch_size``. Steps stay the same, and weights up to rounding where all batches have equally many void
            pixels (losses are means over the others). None: as many as come to it.
        test_batch_size: episodes a validation or test step.
        episodes_per_epoch: training episodes; those beyond the last whole ``batch_size`` are left out.
        val_episodes: validation episodes.
        test_episodes: test episodes.
        seed: of the training episodes.
        test_seed: of the test episodes.
        sampling: "class" (a class, then its images; HSNet, CANet) or "image" (an image, then one of its classes,
            however small; PFENet).
        annotation: how supports are annotated, in training and test: "mask", "box" (the filled box of each connected
            object) or "class_box" (one box around all). Query masks stay precise.
        scales: further sides at which a test shows the images; the probabilities of all are averaged (the paper
            tests at 473 and 641).
        target: what a test is scored on: "original", the masks as they are, or "resized", the masks on the square that
            the network sees.
        mask_interpolation: how masks change size with their images, in training and test: "nearest-exact", or
            "nearest", which lies half a pixel beside the image and is what PFENet's and HSNet's published code does.
        manifest: file with the episodes of the test, in place of drawing them; `dpcn episodes` writes one.
        workers: loader processes; episodes do not depend on it.
        protocol_name: what the test's protocol is called; a label.
        train_transform: from image and mask to the network's input; None: PFENet's augmentation.
        features: folder of a feature store, as `dpcn features` writes it for the same data and network: training then
            shows one of the stored views of each image, and runs the stages alone that are not frozen.

    Raises:
        TypeError: a number of another type.
        ValueError: an unknown ``target`` or ``mask_interpolation``, or a number out of its range; when a training
            begins, a ``batch_size`` that the devices cannot share or above ``episodes_per_epoch``, a
            ``device_batch_size`` that does not divide it or meets another accumulation of the trainer, or a checkpoint
            from inside an epoch of other batches; when a loader is made, an unknown ``sampling`` or ``annotation``, a
            class with fewer than ``shot + 1`` images, a manifest of other data, or a feature store of other data.
        FileNotFoundError: when the test's loader is made, no such manifest; when a training begins, no feature store.
    """

    source: FoldedData
    _: dataclasses.KW_ONLY
    shot: int = 1
    size: int = 473
    batch_size: int = 8
    device_batch_size: int | None = None
    test_batch_size: int = 1
    episodes_per_epoch: int = 5952
    val_episodes: int = 200
    test_episodes: int = 1000
    seed: int = 0
    test_seed: int = 0
    sampling: Sampling = "class"
    annotation: Annotation = "mask"
    scales: Sequence[int] = ()
    target: Target = "original"
    mask_interpolation: MaskInterpolation = "nearest-exact"
    manifest: str | None = None
    workers: int = 0
    protocol_name: str = "unnamed"
    train_transform: Transform | None = None
    features: str | None = None

    def __post_init__(self) -> None:
        super().__init__()
        check_choice("target", self.target, get_args(Target))
        for name in _PLAIN:
            setattr(self, name, plain(getattr(self, name)))
        for name in ("batch_size", "test_batch_size", "episodes_per_epoch", "val_episodes", "test_episodes"):
            check_integer(name, getattr(self, name))
        check_integer("workers", self.workers, lowest=0)
        if self.device_batch_size is not None:
            check_integer("device_batch_size", self.device_batch_size)
        self.train_transform = self.train_transform or TrainTransform(
            self.size, mask_interpolation=self.mask_interpolation
        )
        self.store: FeatureStore | None = None
        self._images: dict[Split, ImageSource] = {}
        self._resumed = {"epoch": 0, "done": 0}
        self._resumed_batch = 0

    def setup(self, stage: str) -> None:
        """Before a training, let gradients be accumulated where a device cannot take its part at once."""
        if stage == "fit" and self.trainer is not None and self.device_batch_size is not None:
            given, needed = self.trainer.accumulate_grad_batches, self.batch_size // self._batch()
            if given not in (1, needed):
                raise InputError(
                    f"``device_batch_size``: expected a trainer that leaves the accumulation of gradients to it, got "
                    f"accumulate_grad_batches={given}, where {self.batch_size} episodes a step are {needed} batches; "
                    f"leave one of the two out."
                )
            self.trainer.accumulate_grad_batches = needed

    def train_dataloader(self) -> DataLoader[Episode]:
        """Episodes of the training classes, new ones each epoch, in whole batches."""
        device_batch, (rank, ranks) = self._device_batch(), self._ranks()
        if self._resumed["done"] and self._resumed_batch not in (0, self._batch()):
            raise InputError(
                f"``batch_size`` and ``device_batch_size``: expected {self._resumed_batch} episodes at a time on all "
                f"devices, as in the checkpoint, which is from inside an epoch, got {self._batch()}; resume with the "
                f"same batches and devices, or from a checkpoint at the end of an epoch."
            )
        place = {"rank": rank, "ranks": ranks, **self._resumed}
        sampler = EpisodeSampler(self.episodes_per_epoch, batch_size=self.batch_size, **place)
        if self.features is None:
            dataset = self._dataset("train", self.episodes_per_epoch, self.seed, transform=self.train_transform)
        else:
            self.store, views = self._open_store(self.features)
            options: dict[str, Any] = {"store": self.store, "views": views.views}
            dataset = self._dataset("train", self.episodes_per_epoch, self.seed, kind=StoredEpisodes, **options)
        return self._loader(dataset, device_batch, sampler)

    def views(self, augmented: int) -> StoredViews:
        """What a feature store has of the training images: the test view, and so many augmented ones."""
        transforms = (self._test_transform(self.size), cast(Transform, self.train_transform))
        return StoredViews(self.images("train"), transforms, augmented, self.sampling, self.annotation)

    def store_key(self) -> dict[str, Any]:
        """What the views of a feature store depend on beside the images."""
        augmentation = hashlib.sha256(json.dumps(describe(self.train_transform)).encode()).hexdigest()
        key = {"version": __version__, "size": self.size, "mask_interpolation": self.mask_interpolation}
        return {**key, "augmentation": augmentation}

    def _open_store(self, path: str) -> tuple[FeatureStore, StoredViews]:
        store = FeatureStore(path, self.store_key())
        views = self.views(store.key["views"])
        if not store.finished(views.content()):
            raise InputError(
                f"``features``: expected all views of {views.source.name} (``sampling`` {self.sampling!r}, "
                f"``annotation`` {self.annotation!r}) in {path}, got a store that is not complete, or of other images; "
                f"run `dpcn features` with the same config to add what is missing."
            )
        return store, views

    def val_dataloader(self) -> DataLoader[Episode]:
        """Episodes of the held-out classes, the same ones each time, seen at one size; all ranks have equally many
        batches, see :class:`ScoredSampler`."""
        dataset = self._dataset("test", self.val_episodes, self.test_seed + 1, original_query_mask=True)
        return self._loader(dataset, self.test_batch_size)

    def test_dataloader(self) -> DataLoader[Episode]:
        """Episodes of the held-out classes, the same ones each time."""
        return self._loader(self.test_dataset(), self.test_batch_size)

    def test_dataset(self) -> EpisodeDataset:
        """The episodes of the test, one by one."""
        specs = None if self.manifest is None else read_manifest(self.manifest, self.images("test"), shot=self.shot)
        return self._dataset(
            "test",
            self.test_episodes if specs is None else len(specs),
            self.test_seed,
            original_query_mask=self.target == "original",
            further_transforms=[self._test_transform(side) for side in self.scales],
            specs=specs,
        )

    def state_dict(self) -> dict[str, int]:
        """The place in the training, for a checkpoint: the epoch, how many of its episodes had their step, and the
        episodes of a batch on all devices."""
        if self.trainer is None:
            return {}
        fit = self.trainer.fit_loop
        begun, batches = fit.epoch_progress.current.ready, fit.epoch_loop.batch_progress
        if batches.is_last_batch:
            return {"epoch": begun, "done": 0, "batch": self._batch()}
        done = batches.current.ready - open_batches(self.trainer)
        return {"epoch": max(0, begun - 1), "done": done * self._batch(), "batch": self._batch()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on at the place of a checkpoint."""
        self._resumed = {name: state_dict.get(name, value) for name, value in self._resumed.items()}
        self._resumed_batch = state_dict.get("batch", 0)

    def images(self, split: Split) -> ImageSource:
        """The images of a split, read once."""
        if split not in self._images:
            self._images[split] = self.source.split(split)
        return self._images[split]

    def protocol(self) -> Protocol:
        """How a test of this data is made."""
        images, dataset = self.images("test"), self.test_dataset()
        return Protocol(
            name=self.protocol_name,
            data=images.name,
            classes=tuple(images.class_names.values()),
            shot=self.shot,
            episodes=dataset.episodes,
            seed=self.test_seed,
            sampling=self.sampling,
            size=self.size,
            annotation=self.annotation,
            scales=tuple(self.scales),
            target=self.target,
            manifest=manifest_hash(manifest_lines(dataset)) if self.manifest is not None else "",
            mask_interpolation=self.mask_interpolation,
        )

    def _dataset(
        self,
        split: Split,
        episodes: int,
        seed: int,
        *,
        transform: Transform | None = None,
        kind: type[EpisodeDataset] = EpisodeDataset,
        **options: Any,
    ) -> EpisodeDataset:
        return kind(
            self.images(split),
            shot=self.shot,
            episodes=episodes,
            seed=seed,
            transform=transform or self._test_transform(self.size),
            sampling=self.sampling,
            annotation=self.annotation,
            **options,
        )

    def _test_transform(self, size: int) -> TestTransform:
        return TestTransform(size, mask_interpolation=self.mask_interpolation)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _batch(self) -> int:
        """Episodes that all devices take at a time."""
        return self._device_batch() * self._ranks()[1]

    def _device_batch(self) -> int:
        """Episodes that a device takes at a time."""
        ranks = self._ranks()[1]
        if self.batch_size % ranks:
            raise InputError(
                f"``batch_size``: expected a multiple of the {ranks} devices, got {self.batch_size}; it counts the "
                f"episodes of all devices together."
            )
        share = self.batch_size // ranks
        batch = min(share, self.device_batch_size or share)
        if share % batch:
            raise InputError(
                f"``device_batch_size``: expected a divisor of the {share} episodes that come to a device, got "
                f"{self.device_batch_size}."
            )
        return batch

    def _loader(
        self, dataset: EpisodeDataset, batch_size: int, sampler: EpisodeSampler | None = None
    ) -> DataLoader[Episode]:
        rank, ranks = self._ranks()
        return DataLoader(
            dataset if ranks == 1 else PaddedEpisodes(dataset),
            batch_size=batch_size,
            sampler=ScoredSampler(dataset.episodes, rank=rank, ranks=ranks) if sampler is None else sampler,
            num_workers=self.workers,
            collate_fn=collate_episodes,
            persistent_workers=self.workers > 0,
        )
