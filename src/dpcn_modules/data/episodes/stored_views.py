"""Which views of which images a feature store has for training episodes, and how they are made."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dpcn_modules.data.boxes import Annotation, annotate
from dpcn_modules.data.episodes.dataset import Transform
from dpcn_modules.data.episodes.sampling import Sampling
from dpcn_modules.data.feature_store import FeatureStore, Record, sample_key, total_bytes
from dpcn_modules.data.object_masks import target_mask
from dpcn_modules.data.source import ImageSource
from dpcn_modules.errors import InputError, WriteError

PART_BYTES = 64 * 2**20
"""A part of a store is written once it has so many bytes."""

Encode = Callable[[Tensor], list[Tensor]]
Target = tuple[int, Annotation]


def view_of(transforms: tuple[Transform, Transform], image: Tensor, target: Tensor, view: int) -> tuple[Tensor, Tensor]:
    """A view of an image and its target: 0 is the first transform, the test's; others are augmented by the second.

    The random numbers of a view follow from its number and from the content of the image and the target.
    """
    seed = hashlib.sha256(f"{sample_key(image, target)} {view}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(seed[:7], "little"))
        return transforms[view > 0](image, target)


def samples_of(source: ImageSource, image_id: int, targets: list[Target]) -> Iterator[tuple[Tensor, Tensor]]:
    """An image ``(3, H, W)`` uint8 with each of its targets ``(H, W)``; the image is read once."""
    image, mask = source.load(image_id)
    for class_id, annotation in targets:
        yield image, annotate(target_mask(mask, class_id), annotation)


@dataclass(frozen=True)
class StoredViews:
    """All views of the images of a training split.

    Args:
        source: the images.
        transforms: of the test view (view 0), and of the augmented ones.
        views: number of augmented views of each image and target, since a crop depends on the target.
        sampling: of the episodes.
        annotation: of the supports.
    """

    source: ImageSource
    transforms: tuple[Transform, Transform]
    views: int = 0
    sampling: Sampling = "class"
    annotation: Annotation = "mask"

    @cached_property
    def targets(self) -> dict[int, list[Target]]:
        """By image, the classes and annotations by which training may look at it."""
        targets: dict[int, dict[Target, None]] = {}
        for class_id in self.source.class_names:
            for image_id in self.source.images_of(class_id):
                targets.setdefault(image_id, {}).update({(class_id, "mask"): None, (class_id, self.annotation): None})
        if self.sampling == "image":
            for image_id in self.source.images:
                queries: dict[Target, None] = {(each, "mask"): None for each in self.source.classes_of(image_id)}
                targets.setdefault(image_id, {}).update(queries)
        return {image_id: list(each) for image_id, each in sorted(targets.items())}

    def content(self) -> str:
        """Names the images, classes and annotations."""
        return json.dumps([self.source.name, self.views, [*self.targets.items()]])

    def first(self) -> tuple[Tensor, Tensor]:
        """The test view of the first image, with its mask."""
        image_id, targets = next(iter(self.targets.items()))
        return view_of(self.transforms, *next(samples_of(self.source, image_id, targets)), 0)

    def counts(self) -> tuple[int, int]:
        """The most features and masks that all views have; views that are equal are stored once."""
        targets = self.targets
        pairs = sum(map(len, targets.values()))
        return len(targets) + self.views * pairs, (1 + self.views) * pairs

    def check_room(self, store: FeatureStore, stages: Iterable[Sequence[int]], side: int, budget: int | None) -> int:
        """The bytes that all views take, for stages of these shapes.

        Raises:
            ValueError: they exceed the budget.
            OSError: the disk has less space than they need beyond what the store has.
        """
        features, masks = self.counts()
        needed = total_bytes(stages, side, features=features, masks=masks)
        if budget is not None and needed > budget:
            raise InputError(
                f"``--budget``: expected at least {needed} bytes, for {features} features and {masks} masks of "
                f"{self.source.name}, got {budget}; raise it, or lower --views or the size. Nothing was written."
            )
        free = shutil.disk_usage(store.path).free
        if needed - store.bytes > free:
            raise WriteError(
                f"{store.path}: expected {needed - store.bytes} bytes of free space, got {free}; free some, lower "
                f"--views, or name a folder on another disk. Nothing was written."
            )
        return needed

    def write(
        self,
        store: FeatureStore,
        encode: Encode,
        *,
        budget: int | None = None,
        batch: int = 8,
        progress: Callable[[Sequence[int]], Iterable[int]] = iter,
    ) -> int:
        """Add all views that a store lacks, part by part, and return how many they were.

        Args:
            store: opened with ``write=True``.
            encode: images ``(B, 3, S, S)`` to the features of stages, each ``(B, C, H, W)``.
            budget: the most bytes that the store may take.
            batch: the least number of images that ``encode`` gets, but for the last ones.
            progress: shows how far the images are.

        Raises:
            ValueError, OSError: as `FeatureStore.write`; what was written before is complete.
        """
        targets, waiting, records, written = self.targets, _Waiting(), list[Record](), 0
        for image_id in progress(list(targets)):
            for image, target in samples_of(self.source, image_id, targets[image_id]):
                key = sample_key(image, target)
                for view in range(1 + self.views):
                    if (key, view) not in store:
                        waiting.add(key, view, *view_of(self.transforms, image, target, view))
            if len(waiting.images) >= batch:
                records += waiting.encoded(encode)
            if sum(_bytes(record) for record in records) >= PART_BYTES:
                store.write(records, budget=budget)
                written, records = written + len(records), []
        records += waiting.encoded(encode)
        if records:
            store.write(records, budget=budget)
        store.finish(self.content())
        return written + len(records)


class _Waiting:
    """Views that are not encoded yet; equal images are encoded once."""

    def __init__(self) -> None:
        self.images: dict[bytes, Tensor] = {}
        self._views: list[tuple[str, int, Tensor, bytes]] = []

    def add(self, key: str, view: int, image: Tensor, mask: Tensor) -> None:
        digest = hashlib.sha256(image.contiguous().numpy().data).digest()
        self.images[digest] = image
        self._views.append((key, view, mask, digest))

    def encoded(self, encode: Encode) -> list[Record]:
        if not self.images:
            return []
        stages: list[Any] = encode(torch.stack(list(self.images.values())))
        stages = [each.to("cpu", torch.float16) for each in stages]
        rows = {digest: row for row, digest in enumerate(self.images)}
        records = [Record(k, v, [each[rows[d]] for each in stages], mask) for k, v, mask, d in self._views]
        self.images, self._views = {}, []
        return records


def _bytes(record: Record) -> int:
    return record.mask.numel() + sum(2 * stage.numel() for stage in record.stages)
