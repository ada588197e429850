"""`dpcn fit` and `dpcn test` from configs, as a user types them."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from dpcn_modules import __version__
from dpcn_modules.cli import fit as cli_fit
from dpcn_modules.cli.main import main
from dpcn_modules.models import CANetSettings, DPCNSettings, PANetSettings, PFENetSettings, build_model, load_model

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
TINY = [
    *("--data.source.init_args.image_size=32", "--data.size=32", "--data.train_transform.init_args.size=32"),
    *("--data.episodes_per_epoch=16", "--data.val_episodes=4", "--data.test_episodes=6", "--data.workers=0"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*arguments):
    return main(["fit", f"--config={CONFIGS / 'shapes.yaml'}", *TINY, *arguments])


def test_fit_then_test_prints_classes_means_and_protocol(here, capsys):
    assert fit("--trainer.max_epochs=1") == 0
    run = here / "runs" / "dpcn" / "version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "metrics.csv").is_file()
    assert list(run.glob("events.out.tfevents*"))
    assert load_model(run / "checkpoints" / "last.ckpt").name == "dpcn_small"

    last = run / "checkpoints" / "last.ckpt"
    assert main(["test", f"--config={CONFIGS / 'shapes.yaml'}", *TINY, f"--ckpt_path={last}"]) == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed
        for word in ("ring", "letter_E", "mIoU", "FB-IoU", "protocol: shapes: shapes fold 0 test (image_size 32")
    )
    result = json.loads((here / "runs" / "dpcn" / "version_1" / "test.json").read_text())
    (tested,) = result["runs"]
    assert tested["protocol"]["episodes"] == 6
    assert tested["protocol"]["id"] in printed
    assert (
        f"last.ckpt, sha256 {result['checkpoint']['sha256']}; dpcn_modules {__version__}, torch {torch.__version__}"
        in printed
    )
    assert tested["miou"] == result["miou"]
    assert result["checkpoint"] == {"file": str(last), "sha256": hashlib.sha256(last.read_bytes()).hexdigest()[:12]}
    assert result["fusion"] == "concat"
    assert result["versions"]["torch"] == torch.__version__

    fused = ["--model.fusion=vote", "--data.shot=3", "--data.annotation=box"]
    assert main(["test", f"--config={CONFIGS / 'shapes.yaml'}", *TINY, f"--ckpt_path={last}", *fused]) == 0
    printed = capsys.readouterr().out
    assert "3-shot, 6 episodes" in printed
    assert "supports annotated by box" in printed
    assert "one-shot masks fused by vote" in printed


def test_episodes_are_written_and_replayed_to_the_same_number(here, capsys):
    assert fit("--trainer.max_epochs=1") == 0
    last = here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    config = [f"--config={CONFIGS / 'shapes.yaml'}", *TINY]
    assert main(["episodes", *config, "--output=episodes.jsonl"]) == 0
    digest = re.search(r"6 episodes, hash ([0-9a-f]{12}): episodes\.jsonl", capsys.readouterr().out).group(1)
    replay = ["--episodes", "episodes.jsonl", "--data.test_seed=9"]
    for more in ([], replay):
        assert main(["test", *config, f"--ckpt_path={last}", "--data.scales=[48]", *more]) == 0
    printed = capsys.readouterr().out
    assert printed.count(f"episodes {digest}") == 2
    assert f"manifest {digest}, seen at 32 and 48 px" in printed
    drawn, replayed = (json.loads(Path("runs", "dpcn", f"version_{v}", "test.json").read_text()) for v in (1, 2))
    assert drawn["miou"] == replayed["miou"]
    assert drawn["runs"][0]["class_iou"] == replayed["runs"][0]["class_iou"]

    assert main(["episodes", *config, "--data.test_seed=1", "--output=episodes.jsonl"]) == 2
    assert "holds other episodes" in capsys.readouterr().err
    assert main(["test", *config, f"--ckpt_path={last}", *replay, "--data.source.init_args.fold=1"]) == 2
    assert "expected episodes of shapes fold 1" in capsys.readouterr().err


def test_several_seeds_give_mean_and_deviation(here, capsys):
    assert fit("--trainer.max_epochs=1") == 0
    last = here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    config = [f"--config={CONFIGS / 'shapes.yaml'}", *TINY, f"--ckpt_path={last}"]
    assert main(["test", *config, "--seeds=[3,4]"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("seed 3", "seed 4", "mean", "standard deviation"))
    assert main(["test", *config, "--data.test_seed=4"]) == 0
    both, second = (json.loads(Path("runs", "dpcn", f"version_{v}", "test.json").read_text()) for v in (1, 2))
    assert [run["protocol"]["seed"] for run in both["runs"]] == [3, 4]
    assert both["runs"][1] == second["runs"][0]
    assert both["miou"] == pytest.approx(sum(run["miou"] for run in both["runs"]) / 2)


def test_the_feature_cache_changes_neither_result_nor_protocol(here, capsys):
    assert fit("--trainer.max_epochs=1", "--feature-cache=1GB") == 0
    last = here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    config = [f"--config={CONFIGS / 'shapes.yaml'}", *TINY, f"--ckpt_path={last}", "--data.scales=[48]"]
    few = ["--data.source.init_args.images_per_class=2", "--seeds=[0,1]"]
    capsys.readouterr()
    printed = []
    for more in ([], ["--feature-cache", "1GB"], ["--feature_cache=100KB"], ["--model.feature_cache=0"]):
        assert main(["test", *config, *few, *more]) == 0
        printed.append(capsys.readouterr().out)
    lines = [[line for line in out.splitlines() if line.startswith("feature cache: ")] for out in printed]
    assert [len(each) for each in lines] == [0, 2, 2, 0]  # one a seed
    assert all(re.fullmatch(r"feature cache: \d+ images encoded, \d+ taken .* of 1GB held", each) for each in lines[1])
    assert all(re.search(r" of 100KB held; [\d.]+KB would have held all \d+$", each) for each in lines[2])
    results = [json.loads(Path("runs", "dpcn", f"version_{v}", "test.json").read_text()) for v in range(1, 5)]
    assert results[0] == results[1] == results[2] == results[3]
    saved = torch.load(last, weights_only=True)
    assert not [name for name in (*saved, *saved["state_dict"]) if "cache" in name]


def test_a_feature_cache_of_no_amount_is_named(here, capsys):
    assert fit("--feature-cache", "4 parsecs") == 2
    assert "``feature_cache``: expected 0 or more bytes" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_is_refused(here, capsys):
    other = build_model("dpcn_small", kernel_size=3)
    state = {f"model.{name}": value for name, value in other.state_dict().items()}
    torch.save(
        {"network": other.name, "settings": dataclasses.asdict(other.settings), "state_dict": state}, "other.ckpt"
    )
    assert main(["test", f"--config={CONFIGS / 'shapes.yaml'}", *TINY, "--ckpt_path=other.ckpt"]) == 2
    assert "kernel_size: 3 there, 5 here" in capsys.readouterr().err


def test_a_test_without_checkpoint_says_what_to_give(here, capsys):
    assert main(["test", f"--config={CONFIGS / 'shapes.yaml'}", *TINY]) == 2
    assert "--ckpt_path" in capsys.readouterr().err


def test_an_unknown_network_is_named(here, capsys):
    assert fit("--model.network=dpcn_smal") == 2
    assert "Did you mean 'dpcn_small'" in capsys.readouterr().err


def test_a_host_starts_from_published_weights_and_trains_its_adapter_alone(here):
    torch.manual_seed(1)
    host = build_model("canet_small")
    names = host.published_names()
    torch.save({names[own]: value for own, value in host.state_dict().items() if own in names}, "released.pth")
    config = ["--model.network=canet_small_dcm", "--model.published=released.pth", "--model.train=adapter"]
    assert fit(*config, "--trainer.max_epochs=1") == 0
    trained = load_model(here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt").state_dict()
    assert all(torch.equal(trained[name], value) for name, value in host.state_dict().items() if name in names)
    assert trained["interaction.merge.weight"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.network=dpcn_small", "--model.published=x.pth"], "``published``: expected a network with released"),
        (["--model.network=canet_small", "--model.train=adapter"], "without; add_dcm(host) adds one"),
        (["--model.network=canet_small", "--model.published=gone.pth"], "no file gone.pth"),
    ],
)
def test_published_weights_and_the_adapter_need_a_host(here, capsys, arguments, message):
    assert fit(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_second_config_overrides_field_by_field(here, monkeypatch):
    """A dictionary of settings of our own lost `weights` here, since the later file replaced it as a whole."""
    seen = []

    def stop(cli):
        seen.append(cli.config.fit)
        raise SystemExit

    monkeypatch.setattr(cli_fit.ConfigCLI, "instantiate_classes", stop)
    first = {"weights": "imagenet", "rates": [2, 4]}
    source = {"class_path": "dpcn_modules.data.Shapes", "init_args": {"fold": 1, "images_per_class": 20}}
    Path("first.yaml").write_text(
        yaml.safe_dump(
            {"model": {"network": "dpcn_resnet50", "overrides": first}, "data": {"source": source, "size": 65}}
        )
    )
    Path("second.yaml").write_text(
        yaml.safe_dump(
            {"model": {"overrides": {"kernel_size": 3}}, "data": {"source": {"init_args": {"fold": 2}}, "shot": 5}}
        )
    )
    with pytest.raises(SystemExit):
        cli_fit.run("fit", ["--config=first.yaml", "--config=second.yaml", "--model.overrides.channels=64"])
    model, data = seen[0].model, seen[0].data
    overrides = {name: value for name, value in vars(model.overrides).items() if value is not None}
    assert overrides == {**first, "kernel_size": 3, "channels": 64}
    assert (model.network, data.size, data.shot) == ("dpcn_resnet50", 65, 5)
    assert (data.source.init_args.fold, data.source.init_args.images_per_class) == (2, 20)


def test_every_setting_of_every_network_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    printed = capsys.readouterr().out
    for kind in (DPCNSettings, PFENetSettings, CANetSettings, PANetSettings):
        for field in dataclasses.fields(kind):
            assert f"--model.overrides.{field.name} " in printed
    assert "S of DCM, odd (Table 4)" in printed


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.overrides.kernel_size=5.0", "model.overrides.kernel_size"),
        ("--model.overrides.kernel_size=x", "model.overrides.kernel_size"),
        ("--model.overrides.kernel_size=4", "``kernel_size``: expected a positive odd number"),
        ("--model.overrides.channels=0", "``channels``: expected at least 1, got 0"),
        ("--model.overrides.backbone=smal", "Did you mean 'small'"),
        ("--model.overrides.kernelsize=5", "Did you mean 'kernel_size'"),
        ("--model.overrides.scale=5", "overrides of dpcn_small"),
        ("--data.batchsize=3", "Did you mean 'batch_size'"),
        ("--data.source.init_args.imagesize=3", "Did you mean 'image_size'"),
        ("--modle.lr=3", "Did you mean 'model'"),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest(here, capsys, argument, message):
    assert fit(argument) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("dpcn: error:") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {batchsize: 3}", "Did you mean 'batch_size'"),
        ("data.batchsize: 3", "Did you mean 'batch_size'"),
        ("trainer: {max_epoch: 3}", "Did you mean 'max_epochs'"),
        ("last: {every_n_train_step: 3}", "Did you mean 'every_n_train_steps'"),
        ("modle: {lr: 3}", "Did you mean 'model'"),
        ("- 1", "Unexpected config"),
        ("a: [", "Problems parsing config"),
        (None, "File does not exist"),
    ],
)
def test_what_is_no_config_is_refused_by_every_command(here, capsys, text, message):
    if text is not None:
        Path("odd.yaml").write_text(text)
    for command in ("fit", "test", "episodes"):
        more = ["--output=x"] if command == "episodes" else []
        assert main([command, f"--config={CONFIGS / 'shapes.yaml'}", "-c", "odd.yaml", *more]) == 2
        assert message in capsys.readouterr().err


def test_a_missing_data_folder_shows_the_expected_tree(here, capsys):
    arguments = [
        f"--config={CONFIGS / 'pascal5i.yaml'}",
        "--model.overrides.weights=null",
        "--data.source.init_args.root=gone",
    ]
    assert main(["fit", *arguments, "--trainer.accelerator=cpu"]) == 2
    printed = capsys.readouterr().err
    assert "gone" in printed
    assert "JPEGImages" in printed


def start(here, *arguments):
    """A run in a process of its own, and its last.ckpt."""
    command = [sys.executable, "-m", "dpcn_modules.cli.main", "fit", f"--config={CONFIGS / 'shapes.yaml'}", *TINY]
    # As many threads as here: sums in another order have other last bits.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"


def wait_for(checkpoint):
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


STEPS = ("--data.episodes_per_epoch=64", "--data.batch_size=4", "--last.every_n_train_steps=1")


def test_a_killed_run_resumes_and_ends_where_the_whole_one_does(here):
    """SIGKILL in the middle of an epoch; the checkpoint there is whole, and the resume goes on from it."""
    epochs = ("--trainer.max_epochs=2", "--model.schedule=sgd_poly", "--model.lr=0.01")
    process, checkpoint = start(here, *STEPS, *epochs)
    wait_for(checkpoint)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert torch.load(checkpoint, weights_only=True)["global_step"] < 32
    assert fit(*STEPS, *epochs, f"--ckpt_path={checkpoint}") == 0
    assert fit(*STEPS, *epochs) == 0
    runs = [here / "runs" / "dpcn" / f"version_{version}" for version in (1, 2)]
    resumed, whole = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in runs)
    assert resumed["global_step"] == whole["global_step"] == 32
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    lines = [(run / "metrics.csv").read_text().splitlines()[-1] for run in runs]
    assert lines[0].rsplit(",", 8)[1:] == lines[1].rsplit(",", 8)[1:]


def test_a_terminated_run_saves_and_ends_cleanly(here):
    process, checkpoint = start(here, *STEPS, "--trainer.max_epochs=500")
    wait_for(checkpoint)
    process.send_signal(signal.SIGTERM)
    printed, warned = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "args parameter" not in warned  # Lightning's, about how its command line is called
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert f"terminated at step {step}; go on with --ckpt_path" in printed
