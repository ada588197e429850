"""`dpcn features`: the feature store that the training of a config reads."""

import time
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser
from tqdm import tqdm  # type: ignore[import-untyped]

from dpcn_modules._checks import check_choice, check_integer
from dpcn_modules.cli.fit import ConfigCLI, ConfigTask, expand_protocol
from dpcn_modules.data.feature_store import FeatureStore
from dpcn_modules.errors import InputError
from dpcn_modules.evaluation.feature_cache import parse_bytes
from dpcn_modules.models.stages import FrozenStages
from dpcn_modules.training import EpisodeDataModule

DEVICES = ("auto", "cpu", "cuda")


class FeaturesCLI(ConfigCLI):
    """A config of which data and network are made, and no trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--views", type=int, default=0, help="augmented views of each image beside the test view")
        parser.add_argument("--budget", type=str | None, help="the most that the store may take, such as 20GB")
        parser.add_argument("--batch", type=int, default=8, help="images that the backbone gets at a time")
        parser.add_argument("--device", type=str, default="auto", help="cpu, cuda or auto")

    def instantiate_classes(self) -> None:
        config = self.config.clone()
        for key in set(config.as_dict()) - {"data", "model"}:
            del config[key]
        made: Any = self.parser.instantiate_classes(config)
        self.datamodule, self.model = made["data"], made["model"]


def run(arguments: list[str]) -> None:
    """Write the store that ``data.features`` of a config names, or what it lacks.

    ``arguments`` are those after ``dpcn features``: configs, settings, ``--views``, ``--budget``, ``--batch``,
    ``--device``.
    """
    arguments = expand_protocol("features", arguments)
    cli = FeaturesCLI(ConfigTask, EpisodeDataModule, args=arguments, run=False, seed_everything_default=0)
    config, data = cli.config, cli.datamodule
    if data.features is None:
        raise InputError("``data.features``: expected the folder to write, got none; give --data.features PATH.")
    check_integer("--views", config.views, lowest=0)
    check_integer("--batch", config.batch)
    check_choice("--device", config.device, DEVICES)
    budget = None if config.budget is None else parse_bytes(config.budget, "--budget")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    encode = FrozenStages(cli.model.model.to(device).eval())
    store = FeatureStore(data.features, {**data.store_key(), **encode.key(), "views": config.views}, write=True)
    views = data.views(config.views)

    image = views.first()[0].unsqueeze(0)
    stages = encode(image)  # once before it is timed
    start = time.perf_counter()
    encode(image)
    seconds = time.perf_counter() - start
    shapes = [each.shape[1:] for each in stages]
    needed = views.check_room(store, shapes, data.size, budget)
    features, masks = views.counts()
    print(
        f"{views.source.name}: at most {features} features of {len(views.targets)} images and {masks} masks, "
        f"{needed / 2**20:.1f} MB, about {features * seconds / 60:.1f} min on {device} beside reading the images; "
        f"{data.features} has {len(store)} views, {store.bytes / 2**20:.1f} MB"
    )

    written = views.write(
        store, encode, budget=budget, batch=config.batch, progress=lambda ids: tqdm(ids, desc="images", leave=False)
    )
    print(f"{written} views written; {len(store)} views, {store.bytes / 2**20:.1f} MB: {data.features}")
