"""Episodes from a feature store: the features of frozen stages in the place of images."""

from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import torch
from torch import Tensor

from dpcn_modules.data.boxes import Annotation
from dpcn_modules.data.episodes.dataset import Episode, EpisodeDataset
from dpcn_modules.data.episodes.stored_views import samples_of
from dpcn_modules.data.feature_store import FeatureStore, sample_key
from dpcn_modules.errors import InputError
from dpcn_modules.interface import ImageStages


@dataclass(eq=False, repr=False)
class StoredEpisodes(EpisodeDataset):
    """The episodes of `EpisodeDataset`, with `ImageStages` of a store in the place of images.

    Class and images of an episode are the same; each image is shown in one of its stored views, drawn by the seed.
    Every image is read once in each process, to be compared with the content that the store was made of.

    Args:
        store: holds the views of all images.
        views: number of augmented views beside the test view; 0 shows the test view alone.
        transform: is not called.

    Raises:
        ValueError: an image or its mask is not in the store: it has changed, or the store is not complete.
    """

    _: KW_ONLY
    store: FeatureStore
    views: int = 0
    _keys: dict[tuple[int, int, Annotation], str] = field(default_factory=dict, init=False)

    def __getitem__(self, item: int) -> Episode:
        """The episode ``epoch * episodes + index``."""
        epoch, index = self._place(item)
        class_id, query, supports = self.spec(item)
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, epoch, index), spawn_key=(2,)))
        views = rng.integers(self.views + 1, size=1 + len(supports)).tolist()
        stages, query_mask = self._read(query, class_id, "mask", views[0])
        shots = [
            self._read(each, class_id, self.annotation, view) for each, view in zip(supports, views[1:], strict=True)
        ]
        size = (query_mask.shape[0], query_mask.shape[1])
        shown = (torch.stack(each) for each in zip(*(stages for stages, _ in shots), strict=True))
        return Episode(
            query_image=ImageStages(size, *stages),  # type: ignore[arg-type]  # networks take both
            query_mask=query_mask,
            support_images=ImageStages(size, *shown),  # type: ignore[arg-type]
            support_masks=torch.stack([mask for _, mask in shots]),
            query_size=torch.tensor(query_mask.shape),
            class_id=class_id,
            index=index,
            query_name=self.source.image_name(query),
            support_names=tuple(self.source.image_name(support) for support in supports),
        )

    def _read(self, image_id: int, class_id: int, annotation: Annotation, view: int) -> tuple[list[Tensor], Tensor]:
        place = (image_id, class_id, annotation)
        if place not in self._keys:
            (sample,) = samples_of(self.source, image_id, [(class_id, annotation)])
            self._keys[place] = sample_key(*sample)
        found = self.store.read(self._keys[place], view)
        if found is None:
            raise InputError(
                f"``features``: {self.store.path} does not hold view {view} of {self.source.image_name(image_id)} with "
                f"the mask of {self.source.class_names[class_id]}, as they are now; the files have changed, or the "
                f"store is not complete. Run `dpcn features` with the same config to add what is missing."
            )
        stages, mask = found
        return stages, mask.to(torch.int64)
