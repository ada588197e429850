"""The recipes of the paper's tables, and `dpcn table`, which runs them."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest
import torch
import yaml

from dpcn_modules.cli import table_runs
from dpcn_modules.cli.inherit import merge, read_file, resolve
from dpcn_modules.cli.main import main
from dpcn_modules.cli.paper_tables import Row, place, read_table
from dpcn_modules.models.factory import settings_of
from dpcn_modules.training import FewShotTask

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
TABLES = CONFIGS / "tables"
ROWS: list[Row] = [
    row for folder in sorted(TABLES.iterdir()) if folder.is_dir() for row in read_table(TABLES, folder.name)
]
NAMES = [f"{row.table}-{row.path.stem}" for row in ROWS]
# What two rows that share their training may differ in.
OF_A_TEST = {"model": {"fusion"}, "data": {"shot", "scales", "target", "annotation", "test_episodes", "test_seed"}}
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


def row_named(name):
    return ROWS[NAMES.index(name)]


def test_the_tables_are_these():
    counts = {table: sum(row.table == table for row in ROWS) for table in {row.table for row in ROWS}}
    expected = {"1": 8, "2": 8, "3": 4, "4": 4, "5": 5, "7": 4, "A1": 2, "A2": 4, "A3": 8, "A4": 8, "A5": 4}
    assert counts == expected


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_a_row_resolves_to_a_known_network_and_a_whole_block(row):
    recipe = resolve(row.path)
    assert not {"base", "paper"} & set(recipe)
    settings = settings_of(recipe["model"]["network"], **recipe["model"]["changes"])
    assert settings.weights == "imagenet"
    assert (row.fb_iou is None) == (row.table in ("A2",) or NAMES[ROWS.index(row)] == "7-concat")
    assert 30 < row.miou < 71
    assert row.fb_iou is None or row.miou < row.fb_iou < 81
    # The paper rounds the folds and the mean separately.
    assert not row.folds or abs(sum(row.folds) / 4 - row.miou) < 0.11
    assert sorted(each.order for each in ROWS if each.table == row.table) == list(
        range(1, 1 + sum(each.table == row.table for each in ROWS))
    )


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_rows_that_share_a_training_differ_in_the_test_alone(row):
    own, trained = resolve(row.path), resolve(row.trained)
    assert "trained_as" not in (read_file(row.trained).get("paper") or {})
    for recipe in (own, trained):
        for section, keys in OF_A_TEST.items():
            for key in keys:
                recipe[section].pop(key, None)
    assert own == trained
    assert (row.tested == row.path.resolve()) or resolve(row.tested) == resolve(row.path)


def test_no_two_rows_train_or_test_the_same_twice():
    for kind in ("trained", "tested"):
        recipes = {getattr(row, kind) for row in ROWS}
        settings = [json.dumps(resolve(path), sort_keys=True) for path in recipes]
        assert len(set(settings)) == len(recipes)


def test_rows_say_what_the_paper_says():
    full = resolve(row_named("1-dpcn_r50_1shot").path)
    assert full == resolve(CONFIGS / "pascal5i.yaml")
    assert (full["data"]["size"], full["data"]["scales"], full["data"].get("target", "original")) == (
        *(473, [641]),
        "original",
    )
    coco = resolve(row_named("2-dpcn_r50_1shot").path)
    model, data = coco["model"], coco["data"]
    assert (model["lr"], data["batch_size"], coco["trainer"]["max_epochs"], data["scales"]) == (0.002, 32, 50, [641])
    assert model["changes"] == {"weights": "imagenet", "trainable": "none", "windows": [[1, 1]]}
    assert data["source"]["init_args"] == {"root": "coco", "fold": 0, "folds": "interleaved"}
    for name, changes in {
        **{"3-sam_ffm": {"dcm": False}, "3-ffm_dcm": {"sam": False}, "3-sam_dcm": {"ffm": False}, "3-all": {}},
        **{f"4-kernel_{size}": {"kernel_size": size} for size in (3, 7, 9)},
        **{"5-none": {"dcm": False}, "5-square": {"branches": ["square"]}, "A1-parallel": {"generation": "parallel"}},
        **{"5-horizontal": {"branches": ["horizontal"]}, "5-asymmetric": {"branches": ["vertical", "horizontal"]}},
    }.items():
        expected = merge(full, {"model": {"changes": changes}})
        assert resolve(row_named(name).path) == expected
    for name, test in {
        **{f"7-{fusion}": {"model": {"fusion": fusion}, "data": {"shot": 5}} for fusion in ("vote", "average", "or")},
        "A3-pascal_r50_single": {"data": {"scales": []}},
        "A5-resized_5shot": {"data": {"target": "resized", "shot": 5}},
        "A2-dpcn_box": {"data": {"annotation": "box"}},
    }.items():
        assert resolve(row_named(name).path) == merge(full, test)


SMALL = {
    **{"dpcn": {"channels": 8}, "baseline": {"channels": 8}, "panet": {}},
    **{"canet": {"channels": 8, "rates": [2, 4, 6]}, "pfenet": {"channels": 8, "sizes": [8, 4]}},
}
COCO_FILES = {
    **{f"{split}_annotations": "annotations/instances.json" for split in ("train", "test")},
    **{f"{split}_images": "images" for split in ("train", "test")},
    "classes": ["person", "cup", "bowl", "bottle", "car", "tv"],
}


def shrunk(recipe, real_data, cache):
    """A recipe for a small network that sees one small image of fold 2 at a time."""
    family, adapter = recipe["model"]["network"].split("_")[0], recipe["model"]["network"].endswith("_dcm")
    changes = {key: value for key, value in recipe["model"]["changes"].items() if key != "weights"}
    data = {**recipe["data"], "size": 33, "scales": [41] * len(recipe["data"].get("scales", ()))}
    if data["source"]["class_path"].endswith("Coco20i"):
        source = {"root": str(real_data / "coco_subset"), "min_area": 1, "cache": str(cache), **COCO_FILES}
    else:
        source = {"root": str(real_data / "voc2012_subset"), "classes": ["cat", "sheep", "sofa", "dog", "horse"]}
    small = {
        "model": {"network": f"{family}_small{'_dcm' * adapter}"},
        "data": {"source": {"init_args": source}, "batch_size": 1, "episodes_per_epoch": 1, "workers": 0},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0},
    }
    small["data"] |= {"val_episodes": 1, "test_episodes": 1}
    small["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    if "train_transform" in data:
        small["data"]["train_transform"] = {"init_args": {"size": 33, "long_side": 33}}
    full = {**recipe, "model": {**recipe["model"], "changes": {**SMALL[family], **changes}}, "data": data}
    return merge(full, small)


@pytest.fixture(scope="module")
def small_tables(tmp_path_factory):
    """All recipes of the tables for small networks, in the same folders; those outside under the same names beside."""
    root = tmp_path_factory.mktemp("configs")
    real_data = Path(__file__).resolve().parents[3] / "shared" / "data"
    for path in sorted({row.path.resolve() for row in ROWS} | {row.trained for row in ROWS}):
        block = read_file(path).get("paper")
        copied = root / path.relative_to(CONFIGS)
        copied.parent.mkdir(parents=True, exist_ok=True)
        small = shrunk(resolve(path), real_data, root / "masks")
        copied.write_text(yaml.safe_dump(small | ({"paper": block} if block else {})))
    return root / "tables"


@pytest.mark.real_data
@pytest.mark.parametrize("table", sorted({row.table for row in ROWS}))
def test_every_row_trains_a_step_and_tests_an_episode(real_data, small_tables, capsys, table):
    calls = []

    def call(arguments):
        calls.append(arguments[0])
        return main(arguments)

    runs = small_tables.parent / "runs"
    arguments = [table, "--folds=2", f"--configs={small_tables}", f"--runs={runs}"]
    assert table_runs.run(arguments, call) == 0, capsys.readouterr().err
    assert "(1 of 4)" in capsys.readouterr().out
    rows = read_table(small_tables, table)
    assert calls.count("test") <= len({row.tested for row in rows})
    assert calls.count("fit") <= len({row.trained for row in rows})
    for row in rows:
        recipe = resolve(row.path)
        result = json.loads((place(runs, small_tables, row.tested, 2) / "test.json").read_text())
        protocol = result["runs"][0]["protocol"]
        asked = {"annotation": "mask", "shot": 1, "target": "original", "scales": [], **recipe["data"]}
        assert all(protocol[key] == asked[key] for key in ("annotation", "shot", "target", "scales"))
        assert result["fusion"] == recipe["model"].get("fusion", "concat")
        assert result["recipe"]["name"] == recipe["model"]["network"]
        checkpoint = torch.load(result["checkpoint"]["file"], weights_only=True)
        assert checkpoint["global_step"] == 1
        assert Path(result["checkpoint"]["file"]).is_relative_to(place(runs, small_tables, row.trained, 2))


TINY = {
    "base": str(CONFIGS / "shapes.yaml"),
    "data": {
        **{"size": 32, "batch_size": 2, "episodes_per_epoch": 6, "val_episodes": 2, "test_episodes": 2, "workers": 0},
        **{"source": {"init_args": {"image_size": 32}}, "train_transform": {"init_args": {"size": 32}}},
    },
    "trainer": {"max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False},
    "paper": {"table": "T", "row": "one shot", "order": 1, "miou": 50.0, "fb_iou": 60.0, "folds": [49, 50, 50, 51]},
}
TWO = {
    **{"base": "one.yaml", "data": {"shot": 2}},
    "paper": {"table": "T", "row": "two shots", "order": 2, "miou": 55.5, "trained_as": "one.yaml"},
}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a table of made-up recipes; gives what runs it, and the list of what it called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "T").mkdir(parents=True)
    calls = []

    def call(arguments):
        calls.append(arguments)
        return main(arguments)

    def run(*arguments, **recipes):
        for name, recipe in recipes.items():
            Path("configs", "T", f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        return table_runs.run(["T", "--configs=configs", "--runs=runs", *arguments], call)

    run.calls = calls
    return run


def test_before_any_run_it_says_not_run_beside_the_paper(table, capsys):
    assert table("--print", one=TINY, two=TWO) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()[1:]
    assert " ".join(head.split()) == "fold 0 fold 1 fold 2 fold 3 mIoU % FB-IoU % protocols"
    assert [line.split() for line in lines] == [
        ["one", "shot", "ours", *["not", "run"] * 6],
        ["paper", "49.0", "50.0", "50.0", "51.0", "50.0", "60.0"],
        ["two", "shots", "ours", *["not", "run"] * 6],
        ["paper", "-", "-", "-", "-", "55.5", "-"],
    ]
    assert not table.calls
    assert not Path("runs").exists()


def test_an_interrupted_table_goes_on_and_runs_nothing_twice(table, capsys, monkeypatch):
    step = FewShotTask.training_step

    def stop(task, batch, batch_idx):
        if batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(task, batch, batch_idx)

    handed_on = ["--folds", "0", "1", "--", "--data.test_seed=5"]
    with monkeypatch.context() as patched:
        patched.setattr(FewShotTask, "training_step", stop)
        with pytest.raises(SystemExit):
            table(*handed_on, one=TINY, two=TWO, three={**TWO, "data": {}})
    last = Path("runs", "T", "one", "fold_0", "checkpoints", "last.ckpt").absolute()
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert table(*handed_on) == 0
    fits = [arguments for arguments in table.calls if arguments[0] == "fit"]
    tests = [arguments for arguments in table.calls if arguments[0] == "test"]
    assert [f"--ckpt_path={last}" in arguments for arguments in fits] == [False, True, False]
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert len(tests) == 4  # three.yaml changes nothing, so it shows the result of one.yaml
    assert all("--data.test_seed=5" in arguments for arguments in table.calls)
    assert f"--ckpt_path={last}" in tests[2]

    result = json.loads(Path("runs", "T", "two", "fold_1", "test.json").read_text())
    assert (result["runs"][0]["protocol"]["shot"], result["runs"][0]["protocol"]["seed"]) == (2, 5)
    printed = capsys.readouterr().out
    assert result["runs"][0]["protocol"]["id"] in printed
    assert printed.count("(2 of 4)") == 6
    assert {path.name for path in Path("runs", "T", "one", "fold_0").iterdir()} >= {"fit_0", "fit_1", "test.json"}

    done = len(table.calls)
    assert table(*handed_on) == 0
    assert table("--only", "two", *handed_on) == 0
    assert len(table.calls) == done


def test_a_row_that_fails_is_named_and_the_others_run(table, capsys):
    broken = {**TINY, "model": {"network": "dpcn_smal"}, "paper": {**TINY["paper"], "row": "broken", "order": 0}}
    after = {**TWO, "base": "broken.yaml", "paper": {**TWO["paper"], "trained_as": "broken.yaml"}}
    assert table("--folds", "3", broken=broken, after=after, one=TINY) == 1
    printed = capsys.readouterr()
    assert "Did you mean 'dpcn_small'" in printed.err
    assert printed.err.count("failed: ") == printed.err.count("failed: fit of T/broken/fold_3") == 1
    assert printed.out.count("(1 of 4)") == 2
    assert [arguments[0] for arguments in table.calls] == ["fit", "fit", "test"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"row": "x", "miou": 1}, "expected table, got miou, row"),
        ({"table": "T", "row": "x"}, "expected miou, got row, table"),
        ({"table": "A4", "row": "x", "miou": 1}, "expected its folder's name, got 'A4'"),
        ({"table": "T", "row": "x", "miuo": 1}, "Did you mean 'miou'"),
        ({"table": "T", "row": "x", "miou": 1, "folds": [1, 2]}, "expected 4 numbers or none, got 2"),
        ({"table": "T", "row": "x", "miou": 1, "trained_as": "one.yaml"}, "expected no circle"),
        ({"table": "T", "row": "x", "miou": 1, "trained_as": "gone.yaml"}, "there is no recipe"),
        ("T", "expected a mapping"),
    ],
)
def test_a_block_that_is_not_whole_is_refused(table, block, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        table("--print", one={**TINY, "paper": block})


def test_unknown_tables_rows_and_folders_are_named(capsys):
    assert main(["table", "A6", f"--configs={TABLES}", "--print"]) == 2
    assert "expected one of 1, 2, 3, 4, 5, 7, A1, A2, A3, A4, A5, got 'A6'" in capsys.readouterr().err
    assert main(["table", "A4", f"--configs={TABLES}", "--only", "pfenet_1shots", "--print"]) == 2
    assert "Did you mean 'pfenet_1shot'" in capsys.readouterr().err
    assert main(["table", "A4", "--configs=gone", "--print"]) == 2
    assert "there is no folder gone" in capsys.readouterr().err


def test_a_process_gives_its_status_and_is_told_to_end(capfd):
    assert table_runs.in_a_process(["fitt"]) == 2
    assert "fitt" in capfd.readouterr().err
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    timer.start()
    with pytest.raises(SystemExit, match="the same command goes on"):
        table_runs.in_a_process(["fit", f"--config={CONFIGS / 'shapes.yaml'}", "--print_config"])
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is before
