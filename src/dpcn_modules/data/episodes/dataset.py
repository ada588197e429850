"""Episodes as tensors; each depends on (seed, epoch, index) only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dpcn_modules._checks import check_choice, check_integer
from dpcn_modules.data.boxes import Annotation, annotate
from dpcn_modules.data.episodes.sampling import EpisodeSpec, Sampling, check_enough, check_images, sample_episode
from dpcn_modules.data.object_masks import target_mask
from dpcn_modules.data.source import ImageSource
from dpcn_modules.errors import InputError

Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class View(NamedTuple):
    """The images of an episode at one size, as the network gets them; shapes and values as in `Episode`."""

    query_image: Tensor
    support_images: Tensor
    support_masks: Tensor


class Episode(NamedTuple):
    """A support set and a query of one class, or a collated batch of them with a first axis B.

    Attributes:
        query_image: ``(3, S, S)`` float32, normalised; from a feature store, its stages ``(C, H, W)``.
        query_mask: in training ``(S, S)``, in testing the original mask ``(Hi, Wi)``; int64 in {0, 1, 255}.
            A batch is padded at the bottom and right with 255.
        support_images: ``(K, 3, S, S)`` float32, normalised; from a feature store, their stages ``(K, C, H, W)``.
        support_masks: ``(K, S, S)`` int64 in {0, 1, 255}.
        query_size: ``(2,)`` int64, height and width of ``query_mask`` before the padding.
        class_id: the value stored in the masks; in a batch ``(B,)`` int64.
        index: index of the episode; in a batch ``(B,)`` int64.
        query_name: name of the query image; in a batch, B names.
        support_names: K names; in a batch, B tuples of K names.
        views: the same images at further sizes, for multi-scale tests.
    """

    query_image: Tensor
    query_mask: Tensor
    support_images: Tensor
    support_masks: Tensor
    query_size: Tensor
    class_id: int | Tensor
    index: int | Tensor  # type: ignore[assignment]  # hides tuple.index on purpose
    query_name: str | tuple[str, ...]
    support_names: tuple[str, ...] | tuple[tuple[str, ...], ...]
    views: tuple[View, ...] = ()


@dataclass(eq=False, repr=False)
class EpisodeDataset(Dataset[Episode]):
    """The episodes of a run; each depends on ``(seed, epoch, index)`` only.

    The item ``epoch * episodes + index`` is an episode of that epoch (see `EpisodeSampler`). The sampled images and the
    random choices of the transform follow from the seed, so they do not depend on workers, ranks or resuming.

    Args:
        source: the labelled images.
        shot: number of supports, K.
        episodes: number of episodes in an epoch.
        seed: seed of the whole run, 0 or more.
        transform: maps an image ``(3, H, W)`` uint8 and its target mask ``(H, W)`` uint8 in {0, 1, 255} to
            ``(3, S, S)`` float32 and ``(S, S)`` int64; its random numbers come from torch's global generator.
        sampling: "class" or "image", see `sample_episode`.
        original_query_mask: keep the query's mask at its own size (for tests) instead of transforming it.
        annotation: annotation of the supports: "mask", "box" or "class_box", see `filled_boxes`. Boxes are filled
            before the transform; the query keeps its mask.
        further_transforms: like ``transform``; each makes one of an episode's ``views``.
        specs: fixed episodes to use instead of sampling, one for each episode (see `read_manifest`).

    Raises:
        TypeError: ``shot``, ``episodes`` or ``seed`` is not a whole number.
        ValueError: a setting is out of range, there are no images, a class has fewer than ``shot + 1``, or there are
            fewer ``specs`` than ``episodes``.
    """

    source: ImageSource
    _: KW_ONLY
    shot: int
    episodes: int
    seed: int
    transform: Transform
    sampling: Sampling = "class"
    original_query_mask: bool = False
    annotation: Annotation = "mask"
    further_transforms: Sequence[Transform] = ()
    specs: Sequence[EpisodeSpec] | None = None

    def __post_init__(self) -> None:
        check_choice("sampling", self.sampling, get_args(Sampling))
        check_choice("annotation", self.annotation, get_args(Annotation))
        check_integer("shot", self.shot)
        check_integer("episodes", self.episodes)
        check_integer("seed", self.seed, lowest=0)
        check_images(self.source)
        check_enough(self.source, sorted(self.source.class_names), self.shot)
        if self.specs is not None and len(self.specs) < self.episodes:
            raise InputError(f"``specs``: expected one for each of {self.episodes} episodes, got {len(self.specs)}.")

    def __len__(self) -> int:
        return self.episodes

    def __iter__(self) -> Iterator[Episode]:
        """The episodes of epoch 0."""
        # Without this method, Python would iterate over the items of all epochs without end.
        return (self[index] for index in range(self.episodes))

    def spec(self, item: int) -> EpisodeSpec:
        """The class and image ids of an item; no image is read."""
        epoch, index = self._place(item)
        if self.specs is not None:
            return self.specs[index]
        return sample_episode(
            self.source, shot=self.shot, seed=self.seed, epoch=epoch, index=index, sampling=self.sampling
        )

    def __getitem__(self, item: int) -> Episode:
        """The episode ``epoch * episodes + index``."""
        epoch, index = self._place(item)
        class_id, query, supports = self.spec(item)
        sequence = np.random.SeedSequence((self.seed, epoch, index), spawn_key=(1,))
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the accelerators, and so change the training that calls this.
            torch.default_generator.manual_seed(int(sequence.generate_state(1)[0]))
            query_pairs, original = self._load(query, class_id)
            support_pairs = [self._load(support, class_id, self.annotation)[0] for support in supports]
        first, *views = (
            View(image, torch.stack([image for image, _ in shots]), torch.stack([mask for _, mask in shots]))
            for (image, _), *shots in zip(query_pairs, *support_pairs, strict=True)
        )
        query_mask = original if self.original_query_mask else query_pairs[0][1]
        return Episode(
            query_image=first.query_image,
            query_mask=query_mask,
            support_images=first.support_images,
            support_masks=first.support_masks,
            query_size=torch.tensor(query_mask.shape),
            class_id=class_id,
            index=index,
            query_name=self.source.image_name(query),
            support_names=tuple(self.source.image_name(support) for support in supports),
            views=tuple(views),
        )

    def _place(self, item: int) -> tuple[int, int]:
        if item < 0:
            raise IndexError(f"episode {item}: expected epoch * {self.episodes} + index, 0 or more.")
        return divmod(item, self.episodes)

    def _load(
        self, image_id: int, class_id: int, annotation: Annotation = "mask"
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """The image and target mask from every transform, and the target mask at its own size."""
        image, mask = self.source.load(image_id)
        target = target_mask(mask, class_id)
        annotated = annotate(target, annotation)
        pairs = [transform(image, annotated) for transform in (self.transform, *self.further_transforms)]
        return pairs, target.to(torch.int64)
