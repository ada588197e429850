"""`dpcn features`, then `dpcn fit` from what it wrote."""

from pathlib import Path

import pytest

from dpcn_modules.cli.main import main

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
TINY = [
    *("--data.source.init_args.image_size=33", "--data.size=33", "--data.train_transform.init_args.size=33"),
    *("--data.source.init_args.images_per_class=4", "--model.overrides.trainable=none", "--data.features=store"),
    *("--data.episodes_per_epoch=16", "--data.val_episodes=4", "--data.workers=0"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def dpcn(command, *arguments, settings=TINY):
    return main([command, f"--config={CONFIGS / 'shapes.yaml'}", *settings, *arguments])


@pytest.mark.parametrize("views", [0, 2])
def test_a_store_is_estimated_written_and_trained_from(capsys, views):
    assert dpcn("features", f"--views={views}", "--budget=1GB") == 0
    estimate, written = capsys.readouterr().out.splitlines()[-2:]
    assert "MB, about" in estimate
    assert "min on cpu" in estimate
    assert f"{60 * (1 + views)} views written" in written
    assert dpcn("features", f"--views={views}") == 0
    assert "\n0 views written" in capsys.readouterr().out
    assert dpcn("fit", "--trainer.max_epochs=1") == 0


def test_a_store_beyond_the_budget_is_not_begun(capsys):
    assert dpcn("features", "--budget=10KB") == 2
    assert "``--budget``: expected at least" in capsys.readouterr().err
    assert not list(Path("store").glob("*.features"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--views=-1"], "``--views``: expected at least 0"),
        (["--batch=0"], "``--batch``: expected at least 1"),
        (["--budget=much"], "``--budget``: expected 0 or more bytes"),
        (["--device=abacus"], "``--device``: expected one of"),
        (["--data.features=null"], "``data.features``: expected the folder to write"),
        (["--model.overrides.trainable=all"], "expected a backbone of which layer2 and layer3 are frozen"),
    ],
)
def test_bad_input_is_one_line(capsys, arguments, message):
    assert dpcn("features", *arguments) == 2
    assert message in capsys.readouterr().err


def test_another_seed_makes_other_weights_and_is_refused(capsys):
    dpcn("features")
    assert dpcn("fit", "--trainer.max_epochs=1", "--seed_everything=1") == 2
    assert "features of another weights" in capsys.readouterr().err
    assert dpcn("features", "--seed_everything=1") == 2
    assert "write it again with `dpcn features`, into an empty folder" in capsys.readouterr().err
