"""examples/paper/figures.py: what is drawn of logs, results and checkpoints, and what the caption says of it."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer
from matplotlib.image import imread

from dpcn_modules.cli.main import main as dpcn
from dpcn_modules.data import Shapes
from dpcn_modules.evaluation import EpisodeIoU, logits_at_original_size
from dpcn_modules.evaluation.results import file_hash, software
from dpcn_modules.models import build_model, load_model, settings_of
from dpcn_modules.training import EpisodeDataModule, FewShotTask

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
figures, runs = importlib.import_module("paper.figures"), importlib.import_module("paper.runs")
TINY = [
    *(f"--config={EXAMPLES / 'configs' / 'shapes.yaml'}", "--data.source.init_args.image_size=32", "--data.size=48"),
    *("--data.test_episodes=12", "--data.workers=0"),
]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained networks, each in its own file."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate(("dpcn_small", "baseline_small", "pfenet_small")):
        torch.manual_seed(seed)
        model = build_model(name)
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        content = {"network": name, "settings": dataclasses.asdict(model.settings), "state_dict": state}
        torch.save(content, folder / f"{name}.ckpt")
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """What was drawn: the function's first argument and the figure it gave, for every file."""
    seen = []

    def watch(name):
        draw = getattr(figures, name)

        def watched(content, path, **options):
            seen.append((content, draw(content, path, **options)))

        monkeypatch.setattr(figures, name, watched)

    for name in ("fold_curves", "sweep_curve", "episode_strip"):
        watch(name)
    return seen


def figure_note(figure) -> str:
    """The small print, unwrapped."""
    return " ".join(figure.get_supxlabel().split())


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def training(folder: Path, network: str, fold: int, weight: float = 1.0) -> Path:
    """What a training leaves behind, as far as figures look at it."""
    folder.mkdir(parents=True)
    source = {"class_path": "dpcn_modules.data.Shapes", "init_args": {"fold": fold}}
    config = {"model": {"network": network, "reverse_weight": weight}, "data": {"source": source}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text("epoch,step,train/loss_epoch,val/miou\n0,9,1.5,\n0,9,,0.25\n")
    return folder


def test_curves_have_a_panel_for_each_fold_with_its_networks(tmp_path: Path, drawn: list) -> None:
    runs = [
        training(tmp_path / f"{name}{fold}", name, fold) for fold in (0, 1) for name in ("dpcn_small", "canet_small")
    ]
    runs.append(training(tmp_path / "again", "dpcn_small", 1))
    runs.append(training(tmp_path / "demo", "dpcn_small", 1))
    (tmp_path / "demo" / "config.yaml").unlink()
    assert figures.main(["curves", "--runs", *map(str, runs), "--output", str(tmp_path / "new" / "curves")]) == 0
    figure = drawn[0][1]
    assert titles(figure) == ["Shapes, fold 0", "Shapes, fold 1", "demo"]
    assert [list(panel) for panel in drawn[0][0].values()] == [
        ["dpcn_small", "canet_small"],
        ["dpcn_small", "canet_small", "dpcn_small, again"],
        ["demo"],
    ]
    assert imread(tmp_path / "new" / "curves.png").shape[2] == 4
    assert (tmp_path / "new" / "curves.pdf").read_bytes().startswith(b"%PDF")
    caption = (tmp_path / "new" / "curves.txt").read_text().splitlines()
    assert f"Shapes, fold 1: canet_small, {runs[3]}" in caption
    assert f"demo: demo, {runs[5]} (no config.yaml: named by its folder)" in caption


def test_sweep_takes_the_weight_from_the_trainings(tmp_path: Path, drawn: list, capsys) -> None:
    results = []
    for weight in (2.0, 0.0, 0.5):
        run = training(tmp_path / f"{weight}", "dpcn_small", 0, weight)
        checkpoint = {"file": str(run / "checkpoints" / "last.ckpt"), "sha256": "ee5fdbdfb622"}
        protocol = {"data": "shapes fold 0 test (seed 0)", "classes": ["ring"], "shot": 1, "seed": 0, "id": "c1aa5e"}
        tests = [{"miou": 0.25 + weight / 8, "protocol": protocol, "episodes": "4f7d532ae460"}]
        results.append(run / "test.json")
        content = {"runs": tests, "miou": tests[0]["miou"], "fusion": "concat", "checkpoint": checkpoint}
        content["versions"] = {"dpcn_modules": "0.1.0", "torch": "2.9"}
        results[-1].write_text(
            json.dumps({**content, "fb_iou": 0.5, "network": "dpcn_small", "settings": {"kernel_size": 5}})
        )
    command = ["sweep", "--results", *map(str, results), "--output", str(tmp_path / "sweep.png")]
    assert figures.main([*command, "--x", "reverse_weight"]) == 0
    ((axis,),) = [figure.axes for _, figure in drawn]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["0", "0.5", "2"]
    assert list(axis.lines[0].get_ydata()) == [25, 31.25, 50]
    assert not (tmp_path / "sweep.pdf").exists()
    note = figure_note(drawn[0][1])
    assert (
        note == "protocol c1aa5e episodes 4f7d532ae460; checkpoint sha256 ee5fdbdfb622; dpcn_modules 0.1.0, torch 2.9"
    )
    caption = (tmp_path / "sweep.txt").read_text()
    assert f"reverse_weight 0.5 ({tmp_path / '0.5' / 'config.yaml'}): mIoU 31.2 %" in caption
    assert "protocol c1aa5e episodes 4f7d532ae460" in caption
    assert "sha256 ee5fdbdfb622" in caption
    # The network's own settings need no config.yaml.
    assert figures.main([*command, "--x", "kernel_size"]) == 2
    assert "expected points at two values of kernel_size or more" in capsys.readouterr().err


def test_strips_show_what_each_network_says_at_the_images_own_size(tmp_path: Path, checkpoints, drawn) -> None:
    named = [f"baseline={checkpoints / 'baseline_small.ckpt'}", f"DPCN={checkpoints / 'dpcn_small.ckpt'}"]
    assert figures.main(["strips", *TINY, "--checkpoint", *named, "--output", str(tmp_path / "strips")]) == 0
    rows, figure = drawn[0]
    assert titles(figure) == ["support", "query", "baseline", "DPCN", "ground truth"]
    assert imread(tmp_path / "strips.png").shape[2] == 4
    assert (tmp_path / "strips.pdf").read_bytes().startswith(b"%PDF")

    data = EpisodeDataModule(Shapes(0, image_size=32), size=48, test_episodes=12)
    dataset = data.test_dataset()
    classes = [dataset.spec(index).class_id for index in range(12)]
    indices = [classes.index(class_id) for class_id in list(dict.fromkeys(classes))[:3]]
    names = [dataset.source.class_names[classes[index]] for index in indices]
    assert [row.label for row in rows] == [f"{name}\nepisode {i}" for name, i in zip(names, indices, strict=True)]
    model = load_model(checkpoints / "dpcn_small.ckpt")
    for row, index in zip(rows, indices, strict=True):
        image, mask = dataset.source.load(dataset.spec(index).query)
        assert torch.equal(row.query_image, image)
        assert torch.equal(row.target, (mask == classes[index]).long())
        seen = dataset[index]
        with torch.no_grad():
            logits = model(seen.query_image[None], seen.support_images[None], seen.support_masks[None]).logits[0]
        assert torch.equal(row.prediction["DPCN"], logits_at_original_size(logits, (32, 32)).argmax(0))

    caption = (tmp_path / "strips.txt").read_text()
    assert f"[{data.protocol().id}]; episodes " in caption
    assert f"episode {indices[2]}: {names[2]}, query {dataset[indices[2]].query_name}, supports " in caption
    assert f"sha256 {file_hash(checkpoints / 'baseline_small.ckpt')}" in caption


def test_strips_replay_the_episodes_of_a_file_shot_by_shot(tmp_path: Path, checkpoints, drawn, capsys) -> None:
    episodes = str(tmp_path / "episodes.jsonl")
    shots = ["--data.shot=2", "--data.annotation=box"]
    assert dpcn(["episodes", *TINY, *shots, "--data.test_seed=3", f"--output={episodes}"]) == 0
    digest = capsys.readouterr().out.split("hash ")[1].split(":")[0]
    command = ["strips", *TINY, *shots, "--episodes", episodes, "--indices", "4", "0"]
    more = ["--model.fusion=or", "--data.scales=[32]", "--data.target=resized"]
    checkpoint = f"PFENet={checkpoints / 'pfenet_small.ckpt'}"
    assert figures.main([*command, *more, "--checkpoint", checkpoint, "--output", str(tmp_path / "a.png")]) == 0
    (rows, figure) = drawn[0]
    assert titles(figure) == ["support 1", "support 2", "query", "PFENet", "ground truth"]
    assert [row.label.split()[-1] for row in rows] == ["4", "0"]
    for mask in rows[0].support_mask:
        inside = mask.nonzero()
        (top, left), (bottom, right) = inside.min(0).values, inside.max(0).values
        assert mask[top : bottom + 1, left : right + 1].all()  # a filled box
    caption = (tmp_path / "a.txt").read_text()
    assert f"manifest {digest}, seen at 48 and 32 px, supports annotated by box, scored at original size" in caption
    assert f"one-shot masks fused by or; episodes {digest}" in caption
    note = figure_note(figure)
    protocol = next(line for line in caption.splitlines() if line.startswith("protocol: "))
    file_digest = file_hash(checkpoints / "pfenet_small.ckpt")
    assert f"{protocol}; PFENet sha256 {file_digest}; {software()}" in note


def test_strips_show_the_masks_that_a_test_scores(tmp_path: Path, checkpoints, drawn) -> None:
    file, settings = checkpoints / "baseline_small.ckpt", {"size": 48, "scales": [32], "shot": 2, "test_episodes": 12}
    task = FewShotTask(load_model(file), fusion="average")
    data = EpisodeDataModule(Shapes(0, image_size=32), **settings)
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(task, data, verbose=False)
    command = ["strips", *TINY, "--data.shot=2", "--data.scales=[32]", "--model.fusion=average"]
    indices = [str(index) for index in range(12)]
    output = f"--output={tmp_path / 'a.png'}"
    assert figures.main([*command, "--checkpoint", f"A={file}", "--indices", *indices, output]) == 0
    metric, dataset = EpisodeIoU(), data.test_dataset()
    for index, row in enumerate(drawn[0][0]):
        class_id = torch.tensor([dataset.spec(index).class_id])
        metric.update(row.prediction["A"][None], row.target[None], class_id)
    assert metric.compute().miou.item() == pytest.approx(task.test_score.miou.item())


def test_activations_show_the_maps_of_a_network_on_the_query(tmp_path: Path, checkpoints, drawn) -> None:
    checkpoint = f"DPCN={checkpoints / 'dpcn_small.ckpt'}"
    output = str(tmp_path / "maps.png")
    assert figures.main(["activations", *TINY, "--checkpoint", checkpoint, "--indices", "1", "--output", output]) == 0
    ((row,), figure) = drawn[0]
    assert titles(figure) == ["support", "query", "5x1", "3x3", "1x5", "$M_0$", "$M_r$", "DPCN", "ground truth"]
    assert row.activation_maps.shape == (3, 32, 32)
    torch.testing.assert_close(row.initial_mask, row.activation_maps.mean(0), atol=1e-5, rtol=0)
    assert row.refined_mask.shape == (32, 32)
    assert "episode 1: " in (tmp_path / "maps.txt").read_text()


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        ("activations", ["--checkpoint", "A={}/baseline_small.ckpt"], "maps (dpcn_*), got A, which is baseline_small"),
        ("activations", ["--checkpoint", "A={}/pfenet_small.ckpt"], "`figures.py strips` draws its predictions"),
        (
            "activations",
            ["--checkpoint", "A={}/dpcn_small.ckpt", "B={}/dpcn_small.ckpt"],
            "expected one for activations",
        ),
        ("strips", ["--checkpoint", "{}/dpcn_small.ckpt"], "``--checkpoint``: expected NAME=FILE, each"),
        ("strips", ["--checkpoint", "A={}/dpcn_small.ckpt", "A={}/dpcn_small.ckpt"], "a name of its own, got 'A="),
        ("strips", ["--checkpoint", "A={}/gone.ckpt"], "gone.ckpt"),
        ("strips", ["--checkpoint", "A={}/dpcn_small.ckpt", "--indices", "3", "12"], "expected 0 to 11, .* got [12]"),
        ("strips", ["--checkpoint", "query={}/dpcn_small.ckpt"], "``prediction``: expected one or several by names"),
    ],
)
def test_episodes_name_what_is_wrong(
    tmp_path: Path, checkpoints, capsys, kind: str, arguments: list, text: str
) -> None:
    arguments = [argument.format(checkpoints) for argument in arguments]
    assert figures.main([kind, *TINY, *arguments, "--output", str(tmp_path / "a.png")]) == 2
    printed = capsys.readouterr().err
    assert all(part in printed for part in text.split(" .* "))
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["a.docx", "lambda_0.5"])
def test_other_formats_are_refused_before_anything_is_read(tmp_path: Path, capsys, name: str) -> None:
    assert figures.main(["curves", "--runs", str(tmp_path / "gone"), "--output", str(tmp_path / name)]) == 2
    assert "``--output``: expected a name that ends in .png or .pdf, or has no suffix" in capsys.readouterr().err


def test_a_run_without_log_is_named(tmp_path: Path, capsys) -> None:
    assert figures.main(["curves", "--runs", str(tmp_path / "gone"), "--output", str(tmp_path / "a.png")]) == 2
    assert "gone/metrics.csv: there is no such file" in capsys.readouterr().err


def test_without_a_kind_the_kinds_are_listed(capsys) -> None:
    with pytest.raises(SystemExit):
        figures.main(["--help"])
    assert "{curves,sweep,strips,activations}" in capsys.readouterr().out


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


def one_run(seed: int = 0, miou: float = 0.5, data: str = "shapes fold 0 test (image_size 32)", **protocol) -> dict:
    scored = {"data": data, "classes": ["ring"], "shot": 1, "seed": seed, "name": "demo", "id": "c1aa5e", **protocol}
    return {"miou": miou, "protocol": scored, "episodes": "4f7d532ae460"}


def result_file(
    folder: Path, weight: float, *runs: dict, overrides: dict | None = None, tested_with: float | None = None
) -> Path:
    """A training with that weight, and its test's result."""
    write(folder / "training" / "config.yaml", {"model": {"reverse_weight": weight}})
    if tested_with is not None:
        write(folder / "test" / "config.yaml", {"model": {"reverse_weight": tested_with}})
    content = {
        "runs": list(runs) or [one_run()],
        "miou": sum(each["miou"] for each in runs or [one_run()]) / len(runs or [one_run()]),
        "fb_iou": 0.5,
        "network": "dpcn_small",
        "settings": json.loads(json.dumps(dataclasses.asdict(settings_of("dpcn_small", **(overrides or {}))))),
        "fusion": "concat",
        "versions": {"dpcn_modules": "0.1.0", "torch": "2.9"},
        "checkpoint": {"file": str(folder / "training" / "checkpoints" / "last.ckpt"), "sha256": "ee5fdbdfb622"},
    }
    return write(folder / "test" / "test.json", content)


def read(file: Path, name: str = "reverse_weight") -> tuple[object, str]:
    return runs.find_setting(name, file, json.loads(file.read_text()))


def lines_of(files: list[Path], name: str = "reverse_weight") -> list:
    values = [read(file, name)[0] for file in files]
    return runs.sweep_lines([json.loads(file.read_text()) for file in files], values, name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("reverse_weight", 0.0), ("model.network", "dpcn_small"), ("fold", 2), ("max_epochs", 8), ("seed_everything", 3)],
)
def test_a_setting_is_found_with_and_without_its_section(name: str, value: object) -> None:
    assert runs.setting(CONFIG, name) == value


@pytest.mark.parametrize("name", ["gone", "model.gone", "trainer.max_time", "max_time", "model.network.gone"])
def test_a_setting_that_is_not_there_or_not_set_is_none(name: str) -> None:
    assert runs.setting(CONFIG, name) is None


def test_a_setting_of_two_sections_is_not_guessed() -> None:
    with pytest.raises(ValueError, match=r"'seed'; give one of data.seed, data.source.init_args.seed"):
        runs.setting(CONFIG, "seed")


@pytest.mark.parametrize(("text", "found"), [("[1, 2]", "got list"), ("a: [", "no YAML")])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"config.yaml: expected the config.yaml of a run, .*{found}"):
        runs.read_config(tmp_path / "config.yaml")


def test_the_value_comes_from_the_training_of_the_tested_checkpoint(tmp_path: Path) -> None:
    file = result_file(tmp_path, 0.5, tested_with=1.0)
    assert read(file) == read(file, "model.reverse_weight") == (0.5, str(tmp_path / "training" / "config.yaml"))


def test_the_value_comes_from_beside_the_result_where_the_training_is_gone(tmp_path: Path) -> None:
    file = result_file(tmp_path, 0.5, tested_with=2.0)
    (tmp_path / "training" / "config.yaml").unlink()
    assert read(file) == (2.0, str(tmp_path / "test" / "config.yaml"))


@pytest.mark.parametrize(
    ("name", "value"), [("shot", 5), ("data.shot", 5), ("fusion", "vote"), ("model.fusion", "vote")]
)
def test_what_a_test_looks_at_is_the_tests_whatever_the_training_was_given(tmp_path: Path, name, value) -> None:
    file = result_file(tmp_path, 0.5, one_run(shot=5))
    write(file, {**json.loads(file.read_text()), "fusion": "vote"})
    write(tmp_path / "training" / "config.yaml", {"data": {"shot": 1}, "model": {"fusion": "concat"}})
    assert read(file, name) == (value, str(file))


@pytest.mark.parametrize(("overrides", "size"), [({}, 5), ({"kernel_size": 3}, 3)])
@pytest.mark.parametrize("name", ["kernel_size", "model.overrides.kernel_size"])
def test_a_setting_of_the_network_comes_from_the_result(tmp_path: Path, overrides: dict, size: int, name: str) -> None:
    assert read(result_file(tmp_path, 0.5, overrides=overrides), name)[0] == size


def test_a_setting_that_is_nowhere_names_the_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'gone', which is neither in .*test.json nor in .*\(not there\)"):
        read(result_file(tmp_path, 0.5), "gone")


def test_results_that_differ_in_the_setting_alone_are_one_line(tmp_path: Path) -> None:
    files = [result_file(tmp_path / str(i), weight, one_run(miou=0.25 * i)) for i, weight in enumerate((0, 0.5, 1))]
    (line,) = lines_of(files)
    assert line.label == "dpcn_small, 1-shot, shapes fold 0 test"
    assert [tuple(point) for point in line.points] == [(0, 0.0, 0.0), (0.5, 0.25, 0.0), (1, 0.5, 0.0)]


def test_folds_are_lines_of_one_group_and_networks_are_not(tmp_path: Path) -> None:
    files = [
        result_file(tmp_path / "a", 0),
        result_file(tmp_path / "b", 0, one_run(data="shapes fold 1 test (image_size 32)")),
        result_file(tmp_path / "c", 0, overrides={"kernel_size": 3}),
    ]
    lines = lines_of(files)
    assert [line.group for line in lines] == ["dpcn_small, 1-shot"] * 2 + ["dpcn_small (kernel_size 3), 1-shot"]


def test_other_episodes_are_another_line(tmp_path: Path) -> None:
    files = [
        result_file(tmp_path / "a", 0, one_run(sampling="class")),
        result_file(tmp_path / "b", 1, one_run(sampling="image")),
    ]
    lines = lines_of(files)
    assert [line.group for line in lines] == [
        "dpcn_small, 1-shot, sampling class",
        "dpcn_small, 1-shot, sampling image",
    ]


def test_the_swept_setting_of_recipe_or_protocol_does_not_part_lines(tmp_path: Path) -> None:
    files = [result_file(tmp_path / str(k), 0, overrides={"kernel_size": k}) for k in (3, 5)]
    (line,) = lines_of(files, "kernel_size")
    assert [point.x for point in line.points] == [3, 5]
    files = [result_file(tmp_path / f"shot{k}", 0, one_run(shot=k)) for k in (1, 5)]
    (line,) = lines_of(files, "shot")
    assert line.label == "dpcn_small, shapes fold 0 test"


def test_seeds_give_mean_and_spread(tmp_path: Path) -> None:
    file = result_file(tmp_path, 0, one_run(seed=0, miou=0.25), one_run(seed=1, miou=0.75))
    ((_, (point,), _),) = lines_of([file])
    assert point.miou == 0.5
    assert point.spread == pytest.approx(0.125**0.5)
