"""`dpcn fit` and `dpcn test`: Lightning's command line over our task and data."""

import dataclasses
import inspect
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dpcn_modules._checks import check_choice, did_you_mean
from dpcn_modules.data import Pascal5i, Shapes, manifest_hash, manifest_lines
from dpcn_modules.errors import InputError, InputTypeError
from dpcn_modules.evaluation import PROTOCOLS
from dpcn_modules.evaluation.results import Result, Run
from dpcn_modules.models import HostNetwork, build_model, read_checkpoint, settings_of, train_adapter_only
from dpcn_modules.models.add_dcm import Trained
from dpcn_modules.models.settings import CANetSettings, DPCNSettings, PANetSettings, PFENetSettings
from dpcn_modules.training import EpisodeDataModule, FewShotTask

_SHORT = {
    "--episodes": "--data.manifest",
    "--feature-cache": "--model.feature_cache",
    "--feature_cache": "--model.feature_cache",
}
_SETTINGS = (DPCNSettings, PFENetSettings, CANetSettings, PANetSettings)
_UNKNOWN = re.compile(r"(?:unrecognized arguments: -*|[Oo]ption '|[Kk]ey ')([\w.]+)")
_SECTIONS = ("model", "data", "trainer", "best", "last")


def _make_overrides() -> type:
    """One field for every setting of any network; None leaves it as the named network has it."""
    types = {field.name: field.type for kind in _SETTINGS for field in dataclasses.fields(kind)}
    described: dict[str, str] = {}
    for kind in (*_SETTINGS, *(base for each in _SETTINGS for base in each.__mro__ if dataclasses.is_dataclass(base))):
        lines = (kind.__doc__ or "").partition("Attributes:")[2]
        for names, text in re.findall(r"^ {8}([\w, ]+): (.+(?:\n {12}.+)*)", lines, re.MULTILINE):
            described |= {name.strip(): re.sub(r"\s+", " ", text) for name in names.split(",")}
    made = dataclasses.make_dataclass("Overrides", [(name, kind | None, None) for name, kind in types.items()])  # type: ignore[operator]
    made.__doc__ = "Settings of the network.\n\nArgs:\n" + "\n".join(f"    {name}: {described[name]}" for name in types)
    made.__module__ = __name__
    return made


if TYPE_CHECKING:
    Overrides: TypeAlias = Any
else:
    Overrides = _make_overrides()


class ConfigTask(FewShotTask):
    """The task with its network by name, as a config writes it.

    Args:
        network: a name that :func:`dpcn_modules.models.list_models` lists, such as dpcn_resnet50.
        overrides: settings of the network in place of the defaults of that name.
        published: released weights of PFENet or CANet to start from, a file.
        train: "head", or "adapter" to train the adapter of a host network alone.
        kwargs: settings of the task.

    Raises:
        TypeError: ``published`` or "adapter" with a network that is not PFENet or CANet.
        ValueError: "adapter" with a host network that has none, or as the network and the task.
    """

    def __init__(
        self,
        network: str = "dpcn_resnet50",
        overrides: Overrides = Overrides(),  # noqa: B008  (frozen by use: nothing writes to it)
        published: str | None = None,
        train: Trained = "head",
        **kwargs: Any,
    ) -> None:
        given = {name: value for name, value in dataclasses.asdict(overrides).items() if value is not None}
        model = build_model(network, **given)
        if published is not None:
            if not isinstance(model, HostNetwork):
                raise InputTypeError(
                    f"``published``: expected a network with released weights (pfenet_* or canet_*), got {network}; "
                    f"the weights of a backbone alone are ``overrides.weights``."
                )
            model.load_published_state_dict(published)
        if train == "adapter":
            train_adapter_only(model)
        super().__init__(model, **kwargs)


class HintingParser(LightningArgumentParser):
    """Lightning's parser, which also names the nearest setting where one is misspelt."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Add the hint, and raise what `dpcn` prints as it prints other errors."""
        found = _UNKNOWN.search(message)
        if found and "Did you mean" not in message:
            first, *rest = found[1].split(".")
            takers = (ConfigTask, FewShotTask, EpisodeDataModule, Trainer, ModelCheckpoint, Overrides, Shapes, Pascal5i)
            known = {"overrides"}.union(*(inspect.signature(each).parameters for each in takers))
            section = rest and first not in _SECTIONS
            message += did_you_mean(first, _SECTIONS) if section else did_you_mean([first, *rest][-1], known)
        raise InputError(message) from ex


class SaveOnTermination(Callback):
    """On SIGTERM (a scheduler's notice) save last.ckpt at the step that was reached; Lightning then ends the run."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, and print how to resume."""
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != TrainerFn.FITTING:
            return
        last = next(each for each in trainer.checkpoint_callbacks if getattr(each, "filename", None) == "last")
        path = Path(str(last.dirpath)) / "last.ckpt"  # type: ignore[attr-defined]
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            print(f"terminated at step {trainer.global_step}; go on with --ckpt_path {path}")


class ConfigCLI(LightningCLI):
    """Lightning's command line, with `fit` and `test`, checkpoints checked and a result file."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Make the parser that hints at misspelt settings."""
        kwargs.setdefault("dump_header", ["dpcn_modules"])
        parser = HintingParser(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="a config file; later ones override earlier ones")
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """What can be run, and the arguments of each that are not the user's."""
        own = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule"}
        return {"fit": own, "test": own}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Keep the best checkpoint and the last one, unless `--best.*` or `--last.*` says otherwise.

        Two callbacks, since one with ``save_last`` writes its last.ckpt only when the score improves.
        """
        for name in ("best", "last"):
            parser.add_lightning_class_args(ModelCheckpoint, name)
            parser.set_defaults({f"{name}.filename": name, f"{name}.enable_version_counter": False})
        parser.set_defaults({"best.monitor": "val/miou", "best.mode": "max"})
        parser.add_argument("--seeds", type=list[int] | None, help="of a test's episodes, one after the other")

    def before_fit(self) -> None:
        """Refuse to resume from another network's checkpoint."""
        self._check_checkpoint()

    def before_test(self) -> None:
        """Refuse to test another network's checkpoint, or none; begin with the first seed."""
        if self.config.test.ckpt_path is None:
            raise InputError("``--ckpt_path``: expected the checkpoint to test, got none; `dpcn fit` writes them.")
        self._check_checkpoint()
        self.datamodule.test_seed = self._seeds()[0]

    def after_fit(self) -> None:
        """Say where the checkpoints are."""
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and self.trainer.is_global_zero:
                print(f"checkpoint: {callback.best_model_path}")

    def after_test(self) -> None:
        """Test the other seeds too, print the table, and write it beside the logs."""
        data: EpisodeDataModule = self.datamodule
        runs, features = [], []
        for number, seed in enumerate(self._seeds()):
            if number:
                data.test_seed = seed
                self.trainer.test(self.model, datamodule=data, verbose=False)
            episodes = manifest_hash(manifest_lines(data.test_dataset()))
            runs.append(Run(data.protocol(), episodes, self.model.test_score))
            features.append(self.model.feature_cache_report)
        if not self.trainer.is_global_zero:
            return
        network, names = self.model.model, data.images("test").class_names
        checkpoint = str(self.config.test.ckpt_path)
        result = Result(runs, names, network.name, network.settings, self.model.fusion, checkpoint)
        print("\n".join([result.table(), *filter(None, features)]))
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        result.write(folder / "test.json")
        print(f"written to {folder / 'test.json'}")

    def _seeds(self) -> list[int]:
        """The seeds of the test's episodes."""
        return self.config.test.seeds or [self.datamodule.test_seed]

    def _check_checkpoint(self) -> None:
        path = self.config[self.config.subcommand].ckpt_path
        if path in (None, "best", "last", "hpc"):
            return
        content = read_checkpoint(path)
        theirs = {"network": content.network} | dataclasses.asdict(settings_of(content.network, **content.settings))
        network = self.model.model
        ours = {"network": network.name} | dataclasses.asdict(network.settings)
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if keys:
            differences = ", ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here" for key in keys)
            raise InputError(
                f"``--ckpt_path``: {path} belongs to another network than the config ({differences}); "
                f"give the config it was trained with."
            )


def run(subcommand: str, arguments: list[str]) -> None:
    """Run `fit` or `test` with the arguments after it; ``--episodes`` is short for ``--data.manifest``, and
    ``--feature-cache`` for ``--model.feature_cache``."""
    parts = [each.partition("=") for each in expand_protocol(subcommand, arguments)]
    arguments = [_SHORT.get(name, name) + equals + value for name, equals, value in parts]
    # Lightning 2.6 uses a name that newer PyTorch deprecates, once a batch.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # Ours go on where a checkpoint from inside an epoch was saved; Lightning cannot know.
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    folder = {"save_dir": "runs", "name": "dpcn", "version": _next_version(Path("runs", "dpcn"))}
    kinds = [f"lightning.pytorch.loggers.{name}" for name in ("CSVLogger", "TensorBoardLogger")]
    loggers = [{"class_path": kind, "init_args": folder} for kind in kinds]
    defaults = {"callbacks": SaveOnTermination(), "use_distributed_sampler": False, "log_every_n_steps": 10}
    ConfigCLI(
        ConfigTask,
        EpisodeDataModule,
        args=[subcommand, *arguments],
        auto_configure_optimizers=False,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"logger": loggers, **defaults},
        parser_kwargs={"description": f"dpcn {subcommand}"},
    )


def expand_protocol(subcommand: str, arguments: list[str]) -> list[str]:
    """Put the settings of a protocol in the place of ``--protocol NAME``; what stands after it overrides it.

    Without a name, or with an unknown one, it raises ValueError.
    """
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument != "--protocol" and not argument.startswith("--protocol="):
            expanded.append(argument)
            continue
        name = next(rest, "") if argument == "--protocol" else argument.removeprefix("--protocol=")
        check_choice("--protocol", name, PROTOCOLS)
        protocol = PROTOCOLS[name]
        settings = {"protocol_name": name, **protocol.data_settings()}
        expanded += [f"--data.{field}={value}" for field, value in settings.items()]
        if subcommand == "test" and len(protocol.seeds) > 1:
            expanded.append(f"--seeds={list(protocol.seeds)}")
    return expanded


def _next_version(folder: Path) -> int:
    """One number for both loggers; left alone, the second would find the first's folder and count on."""
    taken = [path.name.removeprefix("version_") for path in folder.glob("version_*")]
    return max((int(number) for number in taken if number.isdigit()), default=-1) + 1
