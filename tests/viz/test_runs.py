"""Runs: where a setting is found, and which results belong to one line."""

import json
from pathlib import Path

import pytest

from dpcn_modules.viz.runs import describe_data, read_config, read_result, setting, sweep_lines

CONFIG = {
    "seed_everything": 3,
    "model": {"network": "dpcn_small", "reverse_weight": 0.0},
    "data": {"source": {"class_path": "dpcn_modules.data.Shapes", "init_args": {"fold": 2, "seed": 1}}, "seed": 0},
    "trainer": {"max_epochs": 8, "max_time": None},
}


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))  # which is YAML too
    return path


def run(seed: int = 0, miou: float = 0.5, data: str = "shapes fold 0 test (image_size 32)", **protocol) -> dict:
    scored = {"data": data, "classes": ["ring"], "shot": 1, "seed": seed, "name": "demo", "id": "c1aa5e", **protocol}
    return {"miou": miou, "protocol": scored, "episodes": "4f7d532ae460"}


def result(folder: Path, weight: float, *runs: dict, recipe: dict | None = None, tested_with: float | None = None):
    """A training with that weight, and its test's result."""
    write(folder / "training" / "config.yaml", {"model": {"reverse_weight": weight}})
    if tested_with is not None:
        write(folder / "test" / "config.yaml", {"model": {"reverse_weight": tested_with}})
    content = {
        "runs": list(runs) or [run()],
        "miou": sum(each["miou"] for each in runs or [run()]) / len(runs or [run()]),
        "recipe": recipe or {"name": "dpcn_small"},
        "fusion": "concat",
        "versions": {"dpcn_modules": "0.1.0", "torch": "2.9"},
        "checkpoint": {"file": str(folder / "training" / "checkpoints" / "last.ckpt"), "sha256": "ee5fdbdfb622"},
    }
    return write(folder / "test" / "test.json", content)


def read(file: Path, name: str = "reverse_weight", prefer: str | None = None):
    return read_result(file, name, prefer=prefer, network=lambda recipe: {"kernel_size": recipe.get("kernel_size", 5)})


@pytest.mark.parametrize(
    ("name", "value"),
    [("reverse_weight", 0.0), ("model.network", "dpcn_small"), ("fold", 2), ("max_epochs", 8), ("seed_everything", 3)],
)
def test_a_setting_is_found_with_and_without_its_section(name: str, value: object) -> None:
    assert setting(CONFIG, name) == value


@pytest.mark.parametrize("name", ["gone", "model.gone", "trainer.max_time", "max_time", "model.network.gone"])
def test_a_setting_that_is_not_there_or_not_set_is_none(name: str) -> None:
    assert setting(CONFIG, name) is None


def test_a_setting_of_two_sections_is_not_guessed() -> None:
    with pytest.raises(ValueError, match=r"'seed'; give one of data.seed, data.source.init_args.seed"):
        setting(CONFIG, "seed")


def test_data_are_described_by_class_and_fold() -> None:
    assert describe_data(CONFIG, otherwise="run") == "Shapes, fold 2"
    assert describe_data({"data": {"source": {"class_path": "dpcn_modules.data.ClassFolders"}}}, otherwise="run") == (
        "ClassFolders"
    )
    assert describe_data({}, otherwise="run") == "run"


@pytest.mark.parametrize(("text", "found"), [("[1, 2]", "got list"), ("a: [", "no YAML")])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"config.yaml: expected the config.yaml of a run, .*{found}"):
        read_config(tmp_path / "config.yaml")


def test_the_value_comes_from_the_training_of_the_tested_checkpoint(tmp_path: Path) -> None:
    found = read(result(tmp_path, 0.5))
    assert found.x == 0.5
    assert found.where == str(tmp_path / "training" / "config.yaml")


def test_the_value_comes_from_beside_the_result_where_the_training_is_gone(tmp_path: Path) -> None:
    file = result(tmp_path, 0.5, tested_with=2.0)
    (tmp_path / "training" / "config.yaml").unlink()
    found = read(file)
    assert found.x == 2.0
    assert found.where == str(tmp_path / "test" / "config.yaml")


def test_a_setting_of_learning_is_the_trainings_whatever_the_test_was_given(tmp_path: Path) -> None:
    file = result(tmp_path, 0.5, tested_with=1.0)
    assert [read(file, name).x for name in ("reverse_weight", "model.reverse_weight")] == [0.5, 0.5]
    assert read(file, prefer="test").x == 1.0


@pytest.mark.parametrize(("section", "name"), [("data", "shot"), ("model", "fusion")])
def test_a_setting_of_both_that_differs_must_be_told_apart(tmp_path: Path, section: str, name: str) -> None:
    file = result(tmp_path, 0.5)
    write(tmp_path / "training" / "config.yaml", {section: {name: 1}})
    write(tmp_path / "test" / "config.yaml", {section: {name: 5}})
    with pytest.raises(ValueError, match=rf"{name} is 1 in .*training.* and 5 in .*test.*--x-from training"):
        read(file, name)
    assert [read(file, name, prefer=kind).x for kind in ("training", "test")] == [1, 5]
    write(tmp_path / "test" / "config.yaml", {section: {name: 1}})
    assert read(file, name).x == 1


@pytest.mark.parametrize(
    ("recipe", "size"), [({"name": "dpcn_small"}, 5), ({"name": "dpcn_small", "kernel_size": 3}, 3)]
)
def test_a_setting_of_the_network_comes_from_the_recipe(tmp_path: Path, recipe: dict, size: int) -> None:
    assert read(result(tmp_path, 0.5, recipe=recipe), "kernel_size").x == size


def test_a_setting_that_is_nowhere_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"'gone', which is neither in the recipe of .*test.json nor in .*\(not there\)"
    ):
        read(result(tmp_path, 0.5), "gone")


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"``--results``: no file .*test.json; `dpcn test` writes"):
        read(tmp_path / "test.json")


@pytest.mark.parametrize(("text", "found"), [("{", "another file"), ("[]", "another file"), ("{}", "checkpoint")])
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "test.json").write_text(text)
    with pytest.raises(ValueError, match=f"expected a test.json that `dpcn test` wrote, got .*{found}"):
        read(tmp_path / "test.json")


def test_results_that_differ_in_the_setting_alone_are_one_line(tmp_path: Path) -> None:
    files = [result(tmp_path / str(i), weight, run(miou=0.25 * i)) for i, weight in enumerate((0, 0.5, 1))]
    (line,) = sweep_lines([read(file) for file in files], "reverse_weight")
    assert line.label == "dpcn_small, 1-shot, shapes fold 0 test"
    assert [tuple(point) for point in line.points] == [(0, 0.0, 0.0), (0.5, 0.25, 0.0), (1, 0.5, 0.0)]


def test_folds_are_lines_of_one_group_and_networks_are_not(tmp_path: Path) -> None:
    files = [
        result(tmp_path / "a", 0),
        result(tmp_path / "b", 0, run(data="shapes fold 1 test (image_size 32)")),
        result(tmp_path / "c", 0, recipe={"name": "dpcn_small", "kernel_size": 3}),
    ]
    lines = sweep_lines([read(file) for file in files], "reverse_weight")
    assert [line.group for line in lines] == ["dpcn_small, 1-shot"] * 2 + ["dpcn_small (kernel_size 3), 1-shot"]


def test_other_episodes_are_another_line(tmp_path: Path) -> None:
    files = [result(tmp_path / "a", 0, run(sampling="class")), result(tmp_path / "b", 1, run(sampling="image"))]
    lines = sweep_lines([read(file) for file in files], "reverse_weight")
    assert [line.group for line in lines] == ["dpcn_small, 1-shot, draw class", "dpcn_small, 1-shot, draw image"]


def test_the_swept_setting_of_recipe_or_protocol_does_not_part_lines(tmp_path: Path) -> None:
    files = [result(tmp_path / str(k), 0, recipe={"name": "dpcn_small", "kernel_size": k}) for k in (3, 5)]
    (line,) = sweep_lines([read(file, "kernel_size") for file in files], "kernel_size")
    assert [point.x for point in line.points] == [3, 5]
    files = [result(tmp_path / f"shot{k}", 0, run(shot=k)) for k in (1, 5)]
    (line,) = sweep_lines([read(file) for file in files], "shot")
    assert line.label == "dpcn_small, shapes fold 0 test"


def test_seeds_give_mean_and_spread(tmp_path: Path) -> None:
    file = result(tmp_path, 0, run(seed=0, miou=0.25), run(seed=1, miou=0.75))
    ((_, (point,), _),) = sweep_lines([read(file)], "reverse_weight")
    assert point.miou == 0.5
    assert point.spread == pytest.approx(0.125**0.5)
