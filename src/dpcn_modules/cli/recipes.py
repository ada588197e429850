"""`dpcn fit` and `dpcn test`: Lightning's command line over our task and data."""

import warnings
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from dpcn_modules.adapters import train_plug_only
from dpcn_modules.adapters.dcm import Trained
from dpcn_modules.cli.inherit import resolved
from dpcn_modules.cli.protocols import expand
from dpcn_modules.cli.results import Run, as_json, report
from dpcn_modules.data import manifest_hash, manifest_lines
from dpcn_modules.models import Host, build_model, read_checkpoint
from dpcn_modules.training import EpisodeDataModule, FewShotTask

_SHORT = {
    "--episodes": "--data.manifest",
    "--feature-cache": "--model.feature_cache",
    "--feature_cache": "--model.feature_cache",
}


class RecipeTask(FewShotTask):
    """The task with its network by name, as a YAML recipe writes it.

    Args:
        network: a name that :func:`dpcn_modules.models.build_model` knows, such as dpcn_resnet50.
        changes: settings of the network to be set otherwise.
        published: released weights of PFENet or CANet to start from, a file.
        train: "head", or "plug" for a host whose plug alone shall learn.
        kwargs: settings of the task.

    Raises:
        TypeError: ``published`` or "plug" with a network that is not PFENet or CANet.
        ValueError: "plug" with a host that has none, or as the network and the task.
    """

    def __init__(
        self,
        network: str = "dpcn_resnet50",
        changes: dict[str, Any] | None = None,
        published: str | None = None,
        train: Trained = "head",
        **kwargs: Any,
    ) -> None:
        model = build_model(network, **(changes or {}))
        if published is not None:
            if not isinstance(model, Host):
                raise TypeError(
                    f"``published``: expected a network with released weights (pfenet_* or canet_*), got {network}; "
                    f"the weights of a backbone alone are ``changes.weights``."
                )
            model.load_published_state_dict(published)
        if train == "plug":
            train_plug_only(model)
        super().__init__(model, **kwargs)


class SaveOnTermination(Callback):
    """On SIGTERM (a scheduler's notice) save last.ckpt at the step that was reached; Lightning then ends the run."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, and say how to go on."""
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != TrainerFn.FITTING:
            return
        last = next(each for each in trainer.checkpoint_callbacks if getattr(each, "filename", None) == "last")
        path = Path(str(last.dirpath)) / "last.ckpt"  # type: ignore[attr-defined]
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            print(f"terminated at step {trainer.global_step}; go on with --ckpt_path {path}")


class RecipeCLI(LightningCLI):
    """Lightning's command line, with `fit` and `test`, checkpoints checked and a result file."""

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
        self._check_checkpoint(required=False)

    def before_test(self) -> None:
        """Refuse to test another network's checkpoint, or none; begin with the first seed."""
        self._check_checkpoint(required=True)
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
        names, fusion = data.pictures("test").class_names, self.model.fusion
        checkpoint = str(self.config.test.ckpt_path)
        print("\n".join([report(runs, names, fusion=fusion, checkpoint=checkpoint), *filter(None, features)]))
        folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "test.json"
        path.write_text(as_json(runs, names, recipe=self.model.model.recipe, fusion=fusion, checkpoint=checkpoint))
        print(f"written to {path}")

    def _seeds(self) -> list[int]:
        """The seeds of the test's episodes."""
        return self.config.test.seeds or [self.datamodule.test_seed]

    def _check_checkpoint(self, *, required: bool) -> None:
        path = self.config[self.config.subcommand].ckpt_path
        if path in ("best", "last", "hpc"):
            return
        if path is None:
            if required:
                raise ValueError("``--ckpt_path``: expected the checkpoint to test, got none; `dpcn fit` writes them.")
            return
        theirs = read_checkpoint(path).recipe
        ours = self.model.model.recipe
        keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        if keys:
            differences = ", ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} here" for key in keys)
            raise ValueError(
                f"``--ckpt_path``: {path} is another network's than the recipe's ({differences}); "
                f"give the recipe it was trained with."
            )


def run(subcommand: str, arguments: list[str]) -> None:
    """Run `fit` or `test` with the arguments after it.

    ``--episodes FILE`` is short for ``--data.manifest FILE``, and ``--feature-cache 4GB`` for
    ``--model.feature_cache 4GB``.
    """
    arguments = [_in_full(each) for each in expand(subcommand, arguments)]
    # Lightning 2.6 uses a name that newer PyTorch deprecates, once a batch.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    # Ours go on where a checkpoint from inside an epoch was saved; Lightning cannot know.
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    run_folder = {"save_dir": "runs", "name": "dpcn", "version": _next_version(Path("runs", "dpcn"))}
    loggers = [
        {"class_path": f"lightning.pytorch.loggers.{name}", "init_args": run_folder}
        for name in ("CSVLogger", "TensorBoardLogger")
    ]
    with resolved(arguments) as merged:
        RecipeCLI(
            RecipeTask,
            EpisodeDataModule,
            args=[subcommand, *merged],
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "logger": loggers,
                "callbacks": SaveOnTermination(),
                "use_distributed_sampler": False,
                "log_every_n_steps": 10,
            },
            parser_kwargs={"description": f"dpcn {subcommand}"},
        )


def _in_full(argument: str) -> str:
    """The argument with a short name written out."""
    name, *value = argument.split("=", 1)
    return "=".join([_SHORT.get(name, name), *value])


def _next_version(folder: Path) -> int:
    """One number for both loggers; left alone, the second would find the first's folder and count on."""
    taken = [path.name.removeprefix("version_") for path in folder.glob("version_*")]
    return max((int(number) for number in taken if number.isdigit()), default=-1) + 1
