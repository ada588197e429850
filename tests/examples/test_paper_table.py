"""The rows of the paper's tables, and examples/paper/table.py, which runs them."""

import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml

from dpcn_modules.cli.fit import ConfigCLI
from dpcn_modules.cli.fit import run as run_dpcn
from dpcn_modules.cli.main import main
from dpcn_modules.models import settings_of
from dpcn_modules.training import FewShotTask

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))  # as PYTHONPATH is for the processes that the script starts
table_script = importlib.import_module("paper.table")
FILE = EXAMPLES / "paper" / "tables.yaml"
TABLES = yaml.safe_load(FILE.read_text())
ROWS = {f"{table}/{name}": row for table in TABLES for name, row in table_script.read_table(FILE, table).items()}
# What two rows that share their training may differ in.
OF_A_TEST = {"model": {"fusion"}, "data": {"shot", "scales", "target", "annotation"}}
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


@pytest.fixture(scope="module")
def parsed():
    """The settings of a row's training or test, read as `dpcn fit` reads them, before anything is made of them."""
    seen, known = [], {}

    def stop(cli):
        seen.append(cli.config.fit)
        raise SystemExit

    def settings(setup):
        if setup not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(ConfigCLI, "instantiate_classes", stop)
                with pytest.raises(SystemExit):
                    run_dpcn("fit", list(setup.arguments))
            config = seen.pop().as_dict()
            known[setup] = {section: config[section] for section in ("model", "data", "trainer")}
        return json.loads(json.dumps(known[setup], default=str))

    return settings


def test_the_tables_are_these():
    expected = {"1": 8, "2": 8, "3": 4, "4": 4, "5": 5, "7": 4, "A1": 2, "A2": 4, "A3": 8, "A4": 8, "A5": 4}
    assert {table: len(rows) for table, rows in TABLES.items()} == expected


@pytest.mark.parametrize("name", ROWS)
def test_the_numbers_of_a_row_agree_with_each_other(name):
    row = ROWS[name]
    assert (row.fb_iou is None) == (name.startswith("A2/") or name == "7/concat")
    assert 30 < row.miou < 71
    assert row.fb_iou is None or row.miou < row.fb_iou < 81
    # The paper rounds the folds and the mean separately.
    assert not row.folds or abs(sum(row.folds) / 4 - row.miou) < 0.11


def test_every_row_names_a_known_network_and_shares_a_training_that_differs_in_the_test_alone(parsed):
    for row in ROWS.values():
        own, trained = parsed(row.tested), parsed(row.trained)
        overrides = {key: value for key, value in own["model"]["overrides"].items() if value is not None}
        assert settings_of(own["model"]["network"], **overrides).weights == "imagenet"
        for settings in (own, trained):
            for section, keys in OF_A_TEST.items():
                for key in keys:
                    settings[section].pop(key)
        assert own == trained


def test_no_two_rows_train_or_test_the_same_twice(parsed):
    for kind in ("trained", "tested"):
        setups = {getattr(row, kind) for row in ROWS.values()}
        assert len({json.dumps(parsed(setup), sort_keys=True) for setup in setups}) == len(setups)


def changed(row, base, parsed):
    """The settings of a row's test that are not those of another row's."""

    def flat(settings):
        tops = {f"{section}.{key}": value for section in settings for key, value in settings[section].items()}
        inside = {f"model.overrides.{key}": value for key, value in tops.pop("model.overrides").items()}
        return {**tops, **inside}

    theirs = flat(parsed(ROWS[base].tested))
    return {key: value for key, value in flat(parsed(ROWS[row].tested)).items() if value != theirs[key]}


def test_rows_say_what_the_paper_says(parsed):
    full = parsed(ROWS["1/dpcn_r50_1shot"].tested)
    assert full["model"]["network"] == "dpcn_resnet50"
    assert (full["data"]["size"], full["data"]["scales"], full["data"]["target"]) == (473, [641], "original")
    assert ROWS["1/dpcn_r50_1shot"].folds == (65.7, 71.6, 69.1, 60.6)
    coco = parsed(ROWS["2/dpcn_r50_1shot"].tested)
    model, data = coco["model"], coco["data"]
    assert (model["lr"], data["batch_size"], coco["trainer"]["max_epochs"], data["scales"]) == (0.002, 32, 50, [641])
    assert data["source"]["class_path"].endswith("Coco20i")
    assert data["source"]["init_args"]["folds"] == "interleaved"
    given = {key: value for key, value in model["overrides"].items() if value is not None}
    assert given == {"weights": "imagenet", "trainable": "none", "windows": [[1, 1]]}
    for name, overrides in {
        **{"3/sam_ffm": {"dcm": False}, "3/ffm_dcm": {"sam": False}, "3/sam_dcm": {"ffm": False}, "3/all": {}},
        **{f"4/kernel_{size}": {"kernel_size": size} for size in (3, 7, 9)},
        **{"5/none": {"dcm": False}, "5/square": {"branches": ["square"]}, "A1/parallel": {"generation": "parallel"}},
        **{"5/horizontal": {"branches": ["horizontal"]}, "5/asymmetric": {"branches": ["vertical", "horizontal"]}},
    }.items():
        expected = {f"model.overrides.{key}": value for key, value in overrides.items()}
        assert changed(name, "1/dpcn_r50_1shot", parsed) == expected
    for name, expected in {
        **{f"7/{fusion}": {"model.fusion": fusion, "data.shot": 5} for fusion in ("vote", "average", "or")},
        "A3/pascal_r50_single": {"data.scales": []},
        "A5/resized_5shot": {"data.target": "resized", "data.shot": 5},
        "A2/dpcn_box": {"data.annotation": "box"},
    }.items():
        assert changed(name, "1/dpcn_r50_1shot", parsed) == expected


SMALL = {
    **{"dpcn": {"channels": 8}, "baseline": {"channels": 8}, "panet": {}},
    **{"canet": {"channels": 8, "rates": [2, 4, 6]}, "pfenet": {"channels": 8, "sizes": [8, 4]}},
}
COCO_FILES = {
    **{f"{split}_annotations": "annotations/instances.json" for split in ("train", "test")},
    **{f"{split}_images": "images" for split in ("train", "test")},
    "classes": ["person", "cup", "bowl", "bottle", "car", "tv"],
}
STEP = {
    "data": {"batch_size": 1, "episodes_per_epoch": 1, "val_episodes": 1, "test_episodes": 1, "workers": 0, "size": 33},
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "num_sanity_val_steps": 0}
    | dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False),
}
# One of each table, and what is special about it: other data, a fusion, scales, boxes, a resized target, an adapter.
REPRESENTATIVES = {
    **{"1": "baseline_r50_5shot", "2": "dpcn_r50_1shot", "3": "ffm_dcm", "4": "kernel_3", "5": "asymmetric"},
    **{"7": "vote", "A1": "parallel", "A2": "panet_box", "A3": "coco_r50_single"},
    **{"A4": "pfenet_dcm_5shot", "A5": "resized_5shot"},
}


def settings_on_top(settings, real_data, cache):
    """What makes of a row's settings those of a small network that sees one small image of fold 2 at a time."""
    network = settings["model"]["network"]
    family, adapter = network.split("_")[0], network.endswith("_dcm")
    if settings["data"]["source"]["class_path"].endswith("Coco20i"):
        source = {"root": str(real_data / "coco_subset"), "min_area": 1, "cache": str(cache), **COCO_FILES}
    else:
        source = {"root": str(real_data / "voc2012_subset"), "classes": ["cat", "sheep", "sofa", "dog", "horse"]}
    on_top = {
        "model.network": f"{family}_small{'_dcm' * adapter}",
        **{f"model.overrides.{key}": value for key, value in {"weights": None, **SMALL[family]}.items()},
        **{f"data.source.init_args.{key}": value for key, value in source.items()},
        **{f"{section}.{key}": value for section in STEP for key, value in STEP[section].items()},
        "data.scales": [41] * len(settings["data"]["scales"]),
    }
    if settings["data"]["train_transform"]:
        on_top |= {f"data.train_transform.init_args.{key}": 33 for key in ("size", "long_side")}
    return on_top


@pytest.fixture(scope="module")
def small_tables(tmp_path_factory, parsed):
    """tables.yaml with every row for a small network; a config that is in no table becomes a small one beside it."""
    root = tmp_path_factory.mktemp("tables")
    real_data = Path(__file__).resolve().parents[3] / "shared" / "data"
    made = yaml.safe_load(FILE.read_text())
    for table, rows in made.items():
        for name, block in rows.items():
            if "configs" in block:
                on_top = settings_on_top(parsed(ROWS[f"{table}/{name}"].tested), real_data, root / "masks")
                block["overrides"] = {**block.get("overrides", {}), **on_top}
    panet = yaml.safe_load((EXAMPLES / "configs" / "panet.yaml").read_text())
    for key, value in made["A2"]["panet_box"]["overrides"].items():
        *sections, last = key.split(".")
        inside = panet
        for section in sections:
            inside = inside.setdefault(section, {})
        inside[last] = value
    panet["data"].pop("annotation")
    made["A2"]["panet_box"]["trained_as"] = str(root / "panet.yaml")
    (root / "panet.yaml").write_text(yaml.safe_dump(panet))
    (root / "tables.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    return root / "tables.yaml"


@pytest.mark.real_data
@pytest.mark.parametrize("table", REPRESENTATIVES)
def test_a_row_of_each_table_trains_a_step_and_tests_an_episode(real_data, small_tables, parsed, capsys, table):
    runs, name = small_tables.parent / "runs", REPRESENTATIVES[table]
    arguments = [table, "--only", name, "--folds=2", f"--tables={small_tables}", f"--runs={runs}"]
    assert table_script.main(arguments, main) == 0, capsys.readouterr().err
    assert "(1 of 4)" in capsys.readouterr().out
    row = table_script.read_table(small_tables, table)[name]
    asked = parsed(row.tested)
    result = json.loads((row.tested.folder(runs, 2) / "test.json").read_text())
    protocol = result["runs"][0]["protocol"]
    assert all(protocol[key] == asked["data"][key] for key in ("annotation", "shot", "target", "scales"))
    assert result["fusion"] == asked["model"]["fusion"]
    assert result["network"] == asked["model"]["network"]
    given = {key: value for key, value in asked["model"]["overrides"].items() if value is not None}
    assert {key: result["settings"][key] for key in given} == given
    checkpoint = torch.load(result["checkpoint"]["file"], weights_only=True)
    assert checkpoint["global_step"] == 1
    assert Path(result["checkpoint"]["file"]).is_relative_to(row.trained.folder(runs, 2))


TINY = {
    "data.size": 32,
    **{f"data.{part}_episodes": 2 for part in ("val", "test")},
    **{"data.batch_size": 2, "data.episodes_per_epoch": 6, "data.workers": 0, "data.source.init_args.image_size": 32},
    **{"data.train_transform.init_args.size": 32, "trainer.max_epochs": 1},
    **{"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False},
}
ONE = {
    **{"row": "one shot", "configs": ["shapes.yaml"], "overrides": TINY},
    "paper": {"miou": 50.0, "fb_iou": 60.0, "folds": [49, 50, 50, 51]},
}
TWO = {
    **{"row": "two shots", "configs": ["shapes.yaml"], "overrides": {**TINY, "data.shot": 2}, "trained_as": "T/one"},
    "paper": {"miou": 55.5},
}
THREE = {"row": "the same", "same_as": "T/one", "paper": {"miou": 50.0}}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes a table of made-up rows; gives what runs it, and the list of what it called."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def call(arguments):
        calls.append(arguments)
        return main(arguments)

    def run(*arguments, **rows):
        if rows:
            Path("tables.yaml").write_text(yaml.safe_dump({"T": rows}, sort_keys=False))
        return table_script.main(["T", "--tables=tables.yaml", "--runs=runs", *arguments], call)

    run.calls = calls
    return run


def test_before_any_run_it_says_not_run_beside_the_paper(table, capsys):
    assert table("--print", one=ONE, two=TWO) == 0
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
            table(*handed_on, one=ONE, two=TWO, three=THREE)
    last = Path("runs", "T", "one", "fold_0", "checkpoints", "last.ckpt").absolute()
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert table(*handed_on) == 0
    fits = [arguments for arguments in table.calls if arguments[0] == "fit"]
    tests = [arguments for arguments in table.calls if arguments[0] == "test"]
    assert [f"--ckpt_path={last}" in arguments for arguments in fits] == [False, True, False]
    assert torch.load(last, weights_only=True)["global_step"] == 3
    assert len(tests) == 4  # the third row repeats the first one
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
    broken = {**ONE, "row": "broken", "overrides": {**TINY, "model.network": "dpcn_smal"}}
    after = {**TWO, "trained_as": "T/broken"}
    assert table("--folds", "3", broken=broken, after=after, one=ONE) == 1
    printed = capsys.readouterr()
    assert "Did you mean 'dpcn_small'" in printed.err
    assert printed.err.count("failed: ") == printed.err.count("failed: fit of T/broken/fold_3") == 1
    assert printed.out.count("(1 of 4)") == 2
    assert [arguments[0] for arguments in table.calls] == ["fit", "fit", "test"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paper": {"fb_iou": 1}}, "T/one: expected ``row``, and ``paper`` with miou"),
        ({"paper": {"miou": 1, "miuo": 1}}, "in ``paper`` miou, miuo"),
        ({"paper": {"miou": 1, "folds": [1, 2]}}, "expected 4 numbers or none, got 2"),
        ({"changes": {}}, "expected a row with configs and no keys but .*got .*changes"),
        ({"configs": None, "same_as": None}, "T/one: expected a row with configs"),
        ({"trained_as": "T/gone"}, "T/gone: expected a row with configs .*got None"),
        ({"trained_as": "T/two"}, "T/two: expected a row with configs .*got .*trained_as"),
        ({"trained_as": "B/one"}, "B/one: expected a row with configs .*got None"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(table, capsys, change, message):
    row = {key: value for key, value in {**ONE, **change}.items() if value is not None}
    assert table("--print", one=row, two=TWO) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in message.split(".*"))


def test_unknown_tables_rows_and_files_are_named(capsys):
    assert table_script.main(["A6", "--print"]) == 2
    assert "expected one of 1, 2, 3, 4, 5, 7, A1, A2, A3, A4, A5, got 'A6'" in capsys.readouterr().err
    assert table_script.main(["A4", "--only", "pfenet_1shots", "--print"]) == 2
    assert "pfenet_5shot, pfenet_dcm_5shot, got pfenet_1shots" in capsys.readouterr().err
    assert table_script.main(["A4", "--tables=gone.yaml", "--print"]) == 2
    assert "gone.yaml" in capsys.readouterr().err


def test_a_process_gives_its_status_and_is_told_to_end(capfd):
    assert table_script.run_process(["fitt"]) == 2
    assert "fitt" in capfd.readouterr().err
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    timer.start()
    with pytest.raises(SystemExit, match="the same command goes on"):
        table_script.run_process(["fit", f"--config={EXAMPLES / 'configs' / 'shapes.yaml'}", "--print_config"])
    timer.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_finds_the_mark_of_the_end_of_a_training(capfd):
    marking = json.dumps({"class_path": "paper.table.MarkTrained", "init_args": {"path": "trained"}})
    config = f"--config={EXAMPLES / 'configs' / 'shapes.yaml'}"
    assert table_script.run_process(["fit", config, f"--trainer.callbacks+={marking}", "--print_config"]) == 0
    assert "paper.table.MarkTrained" in capfd.readouterr().out
