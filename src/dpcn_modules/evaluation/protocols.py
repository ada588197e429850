"""The settings that determine a score, with an id, and the named protocols of published code."""

import dataclasses
import hashlib
import re
from typing import Any

# The id is of the words of version 0.1.0, so that ids that were published with a score stay.
_COUNT, _IMAGE_SIZE = re.compile(r"(\d+) images\b"), re.compile(r"\(image_size ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that decides which episodes a test has and how they are scored.

    Attributes:
        name: a label, which decides nothing.
        data: the images, as their source names them (set, fold, list, area rule).
        classes: the names of the classes that are scored.
        episodes: how many.
        seed: of the episodes.
        shot, sampling, size, annotation, scales, target, mask_interpolation: as in
            :class:`dpcn_modules.training.EpisodeDataModule`.
        manifest: hash of the file that the episodes come from; empty if the episodes were sampled.

    Example:
        >>> scored = dict(data="shapes fold 0 test", classes=("ring",), shot=1, episodes=200, seed=0, sampling="class")
        >>> print(Protocol(name="demo", **scored, size=64))  # doctest: +ELLIPSIS
        demo: shapes fold 0 test, 1 class, 1-shot, 200 episodes, seed 0, sampled by class, seen at 64 px, masks ...
    """

    name: str
    data: str
    classes: tuple[str, ...]
    shot: int
    episodes: int
    seed: int
    sampling: str
    size: int
    # A field that is added later needs a default: what every test did before there was the field.
    annotation: str = "mask"
    scales: tuple[int, ...] = ()
    target: str = "original"
    manifest: str = ""
    mask_interpolation: str = "nearest"

    @property
    def id(self) -> str:
        """Six hexadecimal digits of all but the name; the same for the same protocol, on any machine.

        A field with a default counts only where it differs from it, so that ids once published stay. Seed and sampling
        do not count beside a manifest, which they do not change.
        """
        deciding: list[object] = []
        unused: dict[str, Any] = {"seed": 0, "sampling": "class"} if self.manifest else {}
        for field in dataclasses.fields(self)[1:]:
            value = unused.get(field.name, getattr(self, field.name))
            if field.name == "data":
                value = _IMAGE_SIZE.sub("(picture_size ", _COUNT.sub(r"\1 pictures", value))
            if field.default is dataclasses.MISSING:
                deciding.append(value)
            elif value != field.default:
                deciding.append(("truth" if field.name == "target" else field.name, value))
        return hashlib.sha256(repr(tuple(deciding)).encode()).hexdigest()[:6]

    def __str__(self) -> str:
        drawn = f"manifest {self.manifest}" if self.manifest else f"seed {self.seed}, sampled by {self.sampling}"
        sides = " and ".join(str(side) for side in (self.size, *self.scales))
        annotated = "" if self.annotation == "mask" else f", supports annotated by {self.annotation}"
        shifted = ", masks resized by nearest" if self.mask_interpolation == "nearest" else ""
        classes = f"{len(self.classes)} class{'es' * (len(self.classes) > 1)}"
        return (
            f"{self.name}: {self.data}, {classes}, {self.shot}-shot, {self.episodes} episodes, {drawn}, "
            f"seen at {sides} px{annotated}{shifted}, scored at {self.target} size [{self.id}]"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedProtocol:
    """How a published code samples its test episodes and scores them.

    The other attributes are those of :class:`Protocol`.

    Attributes:
        episodes: of a fold's test.
        seeds: one test each; mean and standard deviation of them are the result.
        train_list: of PASCAL-5i's training images: "pfenet" (5953) or "trainaug" (10,582).
        novel: what becomes of training images that also hold held-out classes: "keep" or "drop".
        note: what the published code or paper leaves open, or does that is not done here.
    """

    episodes: int
    seeds: tuple[int, ...]
    sampling: str
    size: int
    scales: tuple[int, ...] = ()
    target: str = "original"
    mask_interpolation: str = "nearest-exact"
    train_list: str = "trainaug"
    novel: str = "keep"
    note: str = ""

    def data_settings(self) -> dict[str, Any]:
        """The settings of :class:`dpcn_modules.training.EpisodeDataModule` that it decides, but for the name."""
        names = ("sampling", "size", "target", "mask_interpolation")
        shared = {name: getattr(self, name) for name in names}
        return {"test_episodes": self.episodes, "test_seed": self.seeds[0], "scales": list(self.scales), **shared}


PROTOCOLS = {
    "dpcn": NamedProtocol(
        episodes=1000,
        seeds=(0,),
        sampling="image",
        size=473,
        scales=(641,),
        train_list="pfenet",
        note="the paper gives episodes, scales and the original size of the masks; the rest is our reading (PFENet's)",
    ),
    "pfenet": NamedProtocol(
        episodes=5000, seeds=(321,), sampling="image", size=473, mask_interpolation="nearest", train_list="pfenet"
    ),
    "pfenet_coco": NamedProtocol(
        episodes=20000, seeds=(321,), sampling="image", size=641, mask_interpolation="nearest"
    ),
    "hsnet": NamedProtocol(
        episodes=1000,
        seeds=(0,),
        sampling="class",
        size=400,
        target="resized",
        mask_interpolation="nearest",
        note="the published code squashes images to the square and can repeat a support; here neither",
    ),
    "panet": NamedProtocol(
        episodes=1000,
        seeds=(1234, 1235, 1236, 1237, 1238),
        sampling="class",
        size=417,
        target="resized",
        note="the published code squashes images to the square; here they keep their aspect",
    ),
    "bam": NamedProtocol(
        episodes=1000,
        seeds=(0, 1, 2, 3, 4),
        sampling="image",
        size=473,
        mask_interpolation="nearest",
        train_list="pfenet",
        novel="drop",
        note="five tests; which seeds is not published",
    ),
}
"""By name. Every class counts in an image from 2048 pixels of the original mask on."""
