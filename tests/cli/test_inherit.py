"""Recipes on configs: what lies over what, what is refused, and that `dpcn` reads them."""

import re
from pathlib import Path

import pytest
import yaml
from dpcn_modules.cli.inherit import merge, resolve, resolved

from dpcn_modules.cli import configs
from dpcn_modules.cli.main import main

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
SHAPES = "dpcn_modules.data.Shapes"
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes configs into the folder in which the test runs."""
    monkeypatch.chdir(tmp_path)

    def files(**configs):
        for name, config in configs.items():
            text = config if isinstance(config, str) else yaml.safe_dump(config)
            Path(f"{name}.yaml").write_text(text)
        return [Path(f"{name}.yaml") for name in configs]

    return files


def test_mappings_are_merged_and_all_else_is_replaced():
    under = {"model": {"lr": 0.1, "changes": {"dcm": False}}, "data": {"scales": [1, 2], "size": 3}}
    over = {"model": {"changes": {"sam": False}}, "data": {"scales": [4], "size": None}}
    expected = {"model": {"lr": 0.1, "changes": {"dcm": False, "sam": False}}, "data": {"scales": [4], "size": None}}
    assert merge(under, over) == expected
    assert under["model"]["changes"] == {"dcm": False}


def test_another_class_loses_the_arguments_of_the_first_and_the_same_class_keeps_them():
    pascal = {"source": {"class_path": "dpcn_modules.data.Pascal5i", "init_args": {"root": "VOC", "fold": 1}}}
    shapes = {"source": {"class_path": SHAPES, "init_args": {"fold": 2}}}
    assert merge(pascal, shapes) == shapes
    assert merge(pascal, {"source": {"class_path": SHAPES}}) == {"source": {"class_path": SHAPES}}
    assert merge(pascal, {"source": {"init_args": {"fold": 3}}})["source"]["init_args"] == {"root": "VOC", "fold": 3}


def test_later_bases_lie_over_earlier_ones_and_the_recipe_over_all(write):
    write(
        first={"data": {"shot": 1, "size": 1, "workers": 1}},
        second={"base": "first.yaml", "data": {"shot": 2, "size": 2}},
        third={"data": {"shot": 3}},
        last={"base": ["second.yaml", "third.yaml"], "data": {"seed": 4}, "paper": {"table": 1}},
    )
    assert resolve(Path("last.yaml")) == {"data": {"shot": 3, "size": 2, "workers": 1, "seed": 4}}


def test_dotted_keys_are_merged_as_nested_ones(write):
    write(
        first={"data": {"shot": 1, "size": 1}},
        second={"base": "first.yaml", "data.shot": 2},
        last={"base": "second.yaml", "data": {"shot": 3}},
    )
    assert resolve(Path("second.yaml")) == {"data": {"shot": 2, "size": 1}}
    assert resolve(Path("last.yaml")) == {"data": {"shot": 3, "size": 1}}


def test_bases_are_looked_for_beside_the_recipe_that_names_them(write, tmp_path, monkeypatch):
    write(below={"data": {"shot": 2}})
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "over.yaml").write_text("base: ../below.yaml")
    monkeypatch.chdir(tmp_path / "inner")
    assert resolve(Path("over.yaml")) == {"data": {"shot": 2}}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"base": "gone.yaml"}, FileNotFoundError, "one.yaml: ``base``: there is no file gone.yaml"),
        ({"base": {"a": 1}}, ValueError, "expected a file or a list of files"),
        ({"base": "one.yaml"}, ValueError, "expected no circle, got .*one.yaml -> .*one.yaml"),
        ({"base": "two.yaml"}, ValueError, "expected no circle, got .*one.yaml -> .*two.yaml -> .*one.yaml"),
        ("- 1", ValueError, "expected a mapping"),
        ("a: [", ValueError, "one.yaml: expected YAML"),
        ({"modle": {}}, ValueError, "one.yaml: key``: .*Did you mean 'model'"),
        ({"data": {"batchsize": 3}}, ValueError, "one.yaml: key under data``: .*Did you mean 'batch_size'"),
        ({"data.batchsize": 3}, ValueError, "one.yaml: key under data``: .*Did you mean 'batch_size'"),
        ({"model": {"learn_rate_multiplier": 3}}, ValueError, "Did you mean 'lr_multiplier'"),
        ({"trainer": {"max_epoch": 3}}, ValueError, "Did you mean 'max_epochs'"),
        ({"last": {"every_n_train_step": 3}}, ValueError, "Did you mean 'every_n_train_steps'"),
        (
            {"data": {"source": {"class_path": SHAPES, "init_args": {"imagesize": 3}}}},
            ValueError,
            f"argument of {SHAPES}``: .*Did you mean 'image_size'",
        ),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(write, config, error, message):
    write(one=config, two={"base": "one.yaml"})
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        resolve(Path("one.yaml"))


def test_a_misspelt_key_of_any_config_is_one_line_on_the_screen(write, capsys):
    write(odd={"data": {"batchsize": 3}})
    for command in ("fit", "test", "episodes"):
        assert main([command, f"--config={CONFIGS / 'shapes.yaml'}", "-c", "odd.yaml", "--output=x"]) == 2
        assert "Did you mean 'batch_size'" in capsys.readouterr().err


def test_a_misspelt_setting_of_the_command_line_is_too(capsys):
    assert main(["fit", f"--config={CONFIGS / 'shapes.yaml'}", "--data.batchsize", "3"]) == 2
    assert "command line: key under data``: " in (printed := capsys.readouterr().err)
    assert "Did you mean 'batch_size'" in printed
    settings = [
        "--trainer.callbacks+={}",
        "--data.source.init_args.fold=1",
        "--best.monitor=x",
        "--seeds=[1]",
        "--a.b=1",
    ]
    with resolved(settings) as handed_on:
        assert handed_on == settings


def test_only_recipes_with_bases_are_replaced_and_the_rest_of_the_line_stays(write):
    write(plain={"data": {"shot": 2}}, over={"base": "plain.yaml", "model": {"lr": 5e-3}})
    line = ["--config=plain.yaml", "--config", "over.yaml", "--data.shot=3", "--config", "gone.yaml", "-c=over.yaml"]
    with resolved(line) as handed_on:
        assert handed_on[:2] == line[:2]
        assert handed_on[3:6] == line[3:6]
        merged = Path(handed_on[2])
        assert yaml.safe_load(merged.read_text()) == {"data": {"shot": 2}, "model": {"lr": 5e-3}}
        assert Path(handed_on[6].removeprefix("--config=")).name == "over.yaml"
    assert not merged.exists()


def test_fit_reads_the_merged_recipe_under_further_configs_and_the_command_line(write, monkeypatch):
    seen = []

    def stop(cli):
        seen.append(cli.config.fit)
        raise SystemExit

    monkeypatch.setattr(configs.ConfigCLI, "instantiate_classes", stop)
    write(
        over=f"{{base: '{CONFIGS / 'shapes.yaml'}', paper: {{row: x}}, model: {{lr: 5e-4}}, data: {{shot: 2}}}}",
        further={"data": {"shot": 3, "batch_size": 7}},
    )
    with pytest.raises(SystemExit):
        configs.run("fit", ["--config=over.yaml", "--config=further.yaml", "--data.batch_size=9"])
    (config,) = seen
    assert (config.model.network, config.model.lr) == ("dpcn_small", 5e-4)
    assert (config.data.shot, config.data.batch_size, config.data.test_batch_size) == (3, 9, 20)


def test_episodes_are_written_by_a_recipe_with_a_base(write, capsys):
    write(over={"base": str(CONFIGS / "shapes.yaml"), "data": {"test_episodes": 3}})
    assert main(["episodes", "--config=over.yaml", "--output=episodes.jsonl"]) == 0
    assert "3 episodes" in capsys.readouterr().out


def test_every_recipe_of_the_examples_is_one():
    files = sorted(CONFIGS.rglob("*.yaml"))
    assert len(files) >= 10
    assert all(resolve(path) for path in files)
