"""The protocols by which the field tests, by name: "PASCAL-5i, 1-shot" is made by at least five."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedProtocol:
    """How a published code draws its test episodes and scores them.

    Attributes:
        episodes: of a fold's test.
        seeds: one test each; mean and standard deviation of them are the result.
        draw: "class" or "image", see `dpcn_modules.data.draw_episode`.
        size: side of the square that the network sees.
        scales: further sides; the probabilities are averaged.
        truth: scored on the "original" masks or on the "resized" ones.
        train_list: of PASCAL-5i's training pictures: "pfenet" (5953) or "trainaug" (10,582).
        novel: what becomes of training pictures that also hold held-out classes: "keep" or "drop".
        note: what the published code or paper leaves open, or does that is not done here.
    """

    episodes: int
    seeds: tuple[int, ...]
    draw: str
    size: int
    scales: tuple[int, ...] = ()
    truth: str = "original"
    train_list: str = "trainaug"
    novel: str = "keep"
    note: str = ""

    def data_settings(self) -> dict[str, Any]:
        """The settings of :class:`dpcn_modules.training.EpisodeDataModule` that it decides, but for the name."""
        return {
            "test_episodes": self.episodes,
            "test_seed": self.seeds[0],
            "draw": self.draw,
            "size": self.size,
            "scales": list(self.scales),
            "truth": self.truth,
        }


PROTOCOLS = {
    "dpcn": NamedProtocol(
        episodes=1000,
        seeds=(0,),
        draw="image",
        size=473,
        scales=(641,),
        train_list="pfenet",
        note="the paper gives episodes, scales and the original truth; seed, draw and lists are our reading (PFENet's)",
    ),
    "pfenet": NamedProtocol(episodes=5000, seeds=(321,), draw="image", size=473, train_list="pfenet"),
    "pfenet_coco": NamedProtocol(episodes=20000, seeds=(321,), draw="image", size=641),
    "hsnet": NamedProtocol(
        episodes=1000,
        seeds=(0,),
        draw="class",
        size=400,
        truth="resized",
        note="the published code squashes pictures to the square and can repeat a support; here neither",
    ),
    "panet": NamedProtocol(
        episodes=1000,
        seeds=(1234, 1235, 1236, 1237, 1238),
        draw="class",
        size=417,
        truth="resized",
        note="the published code squashes pictures to the square; here they keep their aspect",
    ),
    "bam": NamedProtocol(
        episodes=1000,
        seeds=(0, 1, 2, 3, 4),
        draw="image",
        size=473,
        train_list="pfenet",
        novel="drop",
        note="five tests; which seeds is not published",
    ),
}
"""By name. Every class counts in a picture from 2048 pixels of the original mask on."""
