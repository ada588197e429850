"""The configs of CANet, PFENet and PANet: the published numbers, and each trains and tests with one shot and five."""

from pathlib import Path

import pytest
import torch

from dpcn_modules.cli import fit
from dpcn_modules.cli.main import main
from dpcn_modules.models.factory import settings_of
from dpcn_modules.training.task import FewShotTask

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
CANET = {"schedule": "sgd_constant", "rate": 0.0025, "weight_decay": 0.0005, "batch": 4, "size": 321, "epochs": 200}
PFENET = {"schedule": "sgd_poly", "rate": 0.025, "weight_decay": 0.0001, "batch": 4, "size": 473, "epochs": 200}
PANET = {"schedule": "sgd_step", "rate": 0.001, "weight_decay": 0.0005, "batch": 1, "size": 417, "epochs": 30}
PUBLISHED = {
    "canet": {**CANET, "network": "canet_resnet50", "sampling": "class", "trainable": "none"},
    "canet_dcm": {**CANET, "network": "canet_resnet50_dcm", "sampling": "class", "trainable": "none"},
    "pfenet": {**PFENET, "network": "pfenet_resnet50", "sampling": "image", "trainable": "none"},
    "pfenet_dcm": {**PFENET, "network": "pfenet_resnet50_dcm", "sampling": "image", "trainable": "none"},
    "panet": {**PANET, "network": "panet_vgg16", "sampling": "class", "trainable": "all"},
}
# What makes a network learn one step in a moment.
SMALL = {
    "canet": {"backbone": "small", "channels": "32", "rates": "[2, 4, 6]"},
    "pfenet": {"backbone": "small", "channels": "32", "sizes": "[8, 4]"},
    "panet": {"backbone": "small"},
}
# A config that refines another one is given after it.
CONFIG_FILES = {"canet_dcm": ("canet", "canet_dcm"), "pfenet_dcm": ("pfenet", "pfenet_dcm")}
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


@pytest.fixture
def parse(monkeypatch):
    """Reads configs as `dpcn fit` does, and stops before any network or data is made of them."""
    seen = []

    def stop(cli):
        seen.append(cli.config.fit)
        raise SystemExit

    def settings(*names):
        with pytest.raises(SystemExit):
            fit.run("fit", [f"--config={CONFIGS / name}.yaml" for name in names])
        return seen.pop()

    monkeypatch.setattr(fit.ConfigCLI, "instantiate_classes", stop)
    return settings


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_says_the_published_numbers(parse, name):
    config = parse(*CONFIG_FILES.get(name, (name,)))
    model, data = config.model, config.data
    network = settings_of(model.network, **given(model.overrides)).decided()
    assert {
        "network": model.network,
        "schedule": model.schedule,
        "rate": model.lr * model.lr_multiplier,
        "weight_decay": model.weight_decay,
        "batch": data.batch_size,
        "size": data.size,
        "epochs": config.trainer.max_epochs,
        "sampling": data.sampling,
        "trainable": network.trainable,
    } == PUBLISHED[name]
    assert (data.shot, model.momentum, model.reverse_weight, model.auxiliary_weight) == (1, 0.9, 1.0, 1.0)
    assert network.weights == "imagenet"
    assert data.protocol_name == name.removesuffix("_dcm")
    assert data.train_transform is None or data.train_transform.init_args.size == data.size


@pytest.mark.parametrize("host", ["canet", "pfenet"])
def test_with_the_adapter_nothing_but_the_network_differs(parse, host):
    assert changed(parse(host), parse(host, f"{host}_dcm")) == {"model.network"}


@pytest.mark.parametrize("config", PUBLISHED)
def test_five_shots_on_top_change_nothing_but_the_shots(parse, config):
    files = CONFIG_FILES.get(config, (config,))
    five = parse(*files, "five_shot")
    assert changed(parse(*files), five) == {"data.shot"}
    assert five.data.shot == 5


def test_panet_learns_30000_steps(parse):
    config = parse("panet")
    assert config.trainer.max_epochs * config.data.episodes_per_epoch // config.data.batch_size == 30000


def given(overrides):
    """The settings that a config overrides."""
    return {name: value for name, value in vars(overrides).items() if value is not None}


def changed(config, other):
    """The names of the settings in which two configs differ."""
    flat, flat_other = (vars(each.as_flat()) for each in (config, other))
    names = flat.keys() | flat_other.keys()
    return {name for name in names - {"config"} if flat.get(name) != flat_other.get(name)}


def small(config, real_data, *overlays):
    """The config's arguments, for a small network that sees a few small images."""
    host = config.removesuffix("_dcm")
    # PFENet's config leaves the transform to the data module.
    sides = [] if host == "pfenet" else ["size", "long_side"]
    return [
        *(f"--config={CONFIGS / name}.yaml" for name in (*CONFIG_FILES.get(config, (config,)), *overlays)),
        *(f"--model.overrides.{name}={value}" for name, value in {**SMALL[host], "weights": "null"}.items()),
        f"--data.source.init_args.root={real_data / 'voc2012_subset'}",
        "--data.source.init_args.fold=2",
        "--data.source.init_args.classes=[cat, sheep, sofa, dog, horse]",
        *(f"--data.train_transform.init_args.{side}=65" for side in sides),
        f"--data.episodes_per_epoch={PUBLISHED[config]['batch']}",
        *("--data.size=65", "--data.val_episodes=1", "--data.test_episodes=2", "--data.workers=0"),
        *("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.num_sanity_val_steps=0"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    ]


@pytest.mark.real_data
@pytest.mark.parametrize("config", PUBLISHED)
def test_a_config_trains_and_tests_with_one_shot_and_that_checkpoint_with_five(
    config, real_data, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *small(config, real_data)]) == 0
    last = Path("runs/dpcn/version_0/checkpoints/last.ckpt")
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 1
    assert content["network"] == PUBLISHED[config]["network"]
    for overlays, expected in (([], "1-shot, 2 episodes"), (["five_shot"], "5-shot, 2 episodes")):
        assert main(["test", *small(config, real_data, *overlays), f"--ckpt_path={last}"]) == 0
        printed = capsys.readouterr().out
        assert f"protocol: {config.removesuffix('_dcm')}: pascal5i fold 2 test" in printed
        assert expected in printed


@pytest.mark.real_data
@pytest.mark.parametrize("config", PUBLISHED)
def test_a_config_trains_with_five_shots_and_tests_them_fused(config, real_data, tmp_path, monkeypatch, capsys):
    seen = []
    training_step = FewShotTask.training_step

    def look(task, batch, batch_idx):
        seen.append(tuple(batch.support_images.shape))
        return training_step(task, batch, batch_idx)

    monkeypatch.setattr(FewShotTask, "training_step", look)
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *small(config, real_data, "five_shot")]) == 0
    assert seen == [(PUBLISHED[config]["batch"], 5, 3, 65, 65)]
    last = "--ckpt_path=runs/dpcn/version_0/checkpoints/last.ckpt"
    assert main(["test", *small(config, real_data, "five_shot"), last, "--model.fusion=vote"]) == 0
    assert "5-shot, 2 episodes" in capsys.readouterr().out
