"""`dpcn episodes`: the list of a test's episodes, to be replayed here or on another machine."""

from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from dpcn_modules.cli.fit import ConfigCLI, ConfigTask, expand_protocol
from dpcn_modules.data import manifest_hash, manifest_lines
from dpcn_modules.data.datasets.files import replacing
from dpcn_modules.errors import InputError
from dpcn_modules.training import EpisodeDataModule


class DataCLI(ConfigCLI):
    """A config of which the data is made, and neither network nor trainer."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--output", type=str, required=True, help="the file to write")

    def instantiate_classes(self) -> None:
        config = self.config.clone()
        for key in set(config.as_dict()) - {"data"}:
            del config[key]
        self.datamodule: Any = self.parser.instantiate_classes(config)["data"]


def run(arguments: list[str]) -> None:
    """Write the episodes of the test of a config as JSON lines to a file, which must not hold other episodes.

    ``arguments`` are those after ``dpcn episodes``: configs, settings, and ``--output FILE``.
    """
    arguments = expand_protocol("episodes", arguments)
    cli = DataCLI(ConfigTask, EpisodeDataModule, args=arguments, run=False, seed_everything_default=0)
    lines = list(manifest_lines(cli.datamodule.test_dataset()))
    path, digest = Path(cli.config.output), manifest_hash(lines)
    if path.exists() and manifest_hash(path.read_text(encoding="utf-8").splitlines()) != digest:
        raise InputError(f"``--output``: {path} is there and holds other episodes; remove it or name another file.")
    with replacing(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{cli.datamodule.protocol()}\n{len(lines) - 1} episodes, hash {digest}: {path}")
