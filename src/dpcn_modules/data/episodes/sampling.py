"""Sampling of episodes; the result depends on (seed, epoch, index) only."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from dpcn_modules._checks import check_choice
from dpcn_modules.data.source import ImageSource
from dpcn_modules.errors import InputError

Sampling = Literal["class", "image"]


class EpisodeSpec(NamedTuple):
    """The class and the image ids of an episode, as sampled from an `ImageSource`."""

    class_id: int
    query: int
    supports: tuple[int, ...]


def sample_episode(
    source: ImageSource, *, shot: int, seed: int, epoch: int, index: int, sampling: Sampling = "class"
) -> EpisodeSpec:
    """Sample the class, the query and the supports of an episode.

    The result depends on the arguments only. Supports are sampled without replacement and never include the query.

    Args:
        source: the labelled images.
        shot: number of supports, K.
        seed: seed of the whole run, 0 or more.
        epoch: 0 or more.
        index: the index of the episode in its epoch.
        sampling: "class" samples the class uniformly, then the query among the images in which it counts (HSNet,
            CANet). "image" samples the query uniformly, then one of its classes, whatever their area (PFENet).

    Raises:
        ValueError: the class has too few images, or ``sampling`` is unknown.
    """
    check_choice("sampling", sampling, get_args(Sampling))
    check_images(source)
    rng = np.random.default_rng((seed, epoch, index))
    if sampling == "class":
        class_id = _pick(rng, sorted(source.class_names))
    else:
        query = _pick(rng, source.images)
        class_id = _pick(rng, source.classes_of(query))
    check_enough(source, [class_id], shot)
    pool = source.images_of(class_id)
    if sampling == "class":
        query = _pick(rng, pool)
    # One more than needed, so that the query can be left out.
    chosen = [pool[i] for i in rng.choice(len(pool), size=shot + 1, replace=False)]
    return EpisodeSpec(class_id, query, tuple(image_id for image_id in chosen if image_id != query)[:shot])


def _pick(rng: np.random.Generator, choices: Sequence[int]) -> int:
    return int(choices[int(rng.integers(len(choices)))])


def check_images(source: ImageSource) -> None:
    """Raise ValueError if a source has no images."""
    if len(source.images) == 0:
        raise InputError(
            f"{source.name}: no image has one of its classes ({', '.join(source.class_names.values())}) "
            f"at sufficient size; choose another list or fold, or lower ``min_area``."
        )


def check_enough(source: ImageSource, class_ids: Sequence[int], shot: int) -> None:
    """Raise ValueError unless each of the classes has shot + 1 images."""
    counts = {class_id: len(source.images_of(class_id)) for class_id in class_ids}
    few = [class_id for class_id, count in counts.items() if count < shot + 1]
    if few:
        listed = ", ".join(f"{source.class_names[each]} ({counts[each]})" for each in few)
        raise InputError(
            f"{source.name}: a {shot}-shot episode needs {shot + 1} images of its class, and these classes "
            f"have fewer: {listed}. Add images, lower ``shot`` or ``min_area``, or leave these classes out: "
            f"the argument ``classes`` of the data set lists the classes to keep."
        )
