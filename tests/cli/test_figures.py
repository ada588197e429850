"""`dpcn figures`: what is drawn of logs, results and checkpoints, and what the caption says of it."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer
from matplotlib.image import imread

from dpcn_modules.cli import figures
from dpcn_modules.cli.main import main
from dpcn_modules.data import Shapes
from dpcn_modules.evaluation import EpisodeIoU, logits_at_original_size
from dpcn_modules.evaluation.results import file_hash
from dpcn_modules.models import build_model
from dpcn_modules.training import EpisodeDataModule, FewShotTask

RECIPE = Path(__file__).resolve().parents[2] / "examples" / "configs" / "shapes.yaml"
TINY = [
    *(f"--config={RECIPE}", "--data.source.init_args.image_size=32", "--data.size=48"),
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
        torch.save({"recipe": model.recipe, "state_dict": state}, folder / f"{name}.ckpt")
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
    assert main(["figures", "curves", "--runs", *map(str, runs), "--output", str(tmp_path / "new" / "curves")]) == 0
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
        results[-1].write_text(json.dumps({**content, "recipe": {"name": "dpcn_small"}}))
    command = ["figures", "sweep", "--results", *map(str, results), "--output", str(tmp_path / "sweep.png")]
    assert main([*command, "--x", "reverse_weight"]) == 0
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
    assert main([*command, "--x", "kernel_size"]) == 2
    assert "expected points at two values of kernel_size or more" in capsys.readouterr().err


def test_strips_show_what_each_network_says_at_the_images_own_size(tmp_path: Path, checkpoints, drawn) -> None:
    named = [f"baseline={checkpoints / 'baseline_small.ckpt'}", f"DPCN={checkpoints / 'dpcn_small.ckpt'}"]
    assert main(["figures", "strips", *TINY, "--checkpoint", *named, "--output", str(tmp_path / "strips")]) == 0
    rows, figure = drawn[0]
    assert titles(figure) == ["support", "query", "baseline", "DPCN", "target"]
    assert imread(tmp_path / "strips.png").shape[2] == 4
    assert (tmp_path / "strips.pdf").read_bytes().startswith(b"%PDF")

    data = EpisodeDataModule(Shapes(0, image_size=32), size=48, test_episodes=12)
    dataset = data.test_dataset()
    classes = [dataset.spec(index).class_id for index in range(12)]
    indices = [classes.index(class_id) for class_id in list(dict.fromkeys(classes))[:3]]
    names = [dataset.source.class_names[classes[index]] for index in indices]
    assert [row.label for row in rows] == [f"{name}\nepisode {i}" for name, i in zip(names, indices, strict=True)]
    model = figures.load_model(checkpoints / "dpcn_small.ckpt")
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
    assert main(["episodes", *TINY, *shots, "--data.test_seed=3", f"--output={episodes}"]) == 0
    digest = capsys.readouterr().out.split("hash ")[1].split(":")[0]
    command = ["figures", "strips", *TINY, *shots, "--episodes", episodes, "--indices", "4", "0"]
    more = ["--model.fusion=or", "--data.scales=[32]", "--data.target=resized"]
    checkpoint = f"PFENet={checkpoints / 'pfenet_small.ckpt'}"
    assert main([*command, *more, "--checkpoint", checkpoint, "--output", str(tmp_path / "a.png")]) == 0
    (rows, figure) = drawn[0]
    assert titles(figure) == ["support 1", "support 2", "query", "PFENet", "target"]
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
    assert f"{protocol}; PFENet sha256 {file_digest}; dpcn_modules 0.1.0, torch {torch.__version__}" in note


def test_strips_show_the_masks_that_a_test_scores(tmp_path: Path, checkpoints, drawn) -> None:
    file, settings = checkpoints / "baseline_small.ckpt", {"size": 48, "scales": [32], "shot": 2, "test_episodes": 12}
    task = FewShotTask(figures.load_model(file), fusion="average")
    data = EpisodeDataModule(Shapes(0, image_size=32), **settings)
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False).test(task, data, verbose=False)
    command = ["figures", "strips", *TINY, "--data.shot=2", "--data.scales=[32]", "--model.fusion=average"]
    indices = [str(index) for index in range(12)]
    output = f"--output={tmp_path / 'a.png'}"
    assert main([*command, "--checkpoint", f"A={file}", "--indices", *indices, output]) == 0
    metric, dataset = EpisodeIoU(), data.test_dataset()
    for index, row in enumerate(drawn[0][0]):
        class_id = torch.tensor([dataset.spec(index).class_id])
        metric.update(row.prediction["A"][None], row.target[None], class_id)
    assert metric.compute().miou.item() == pytest.approx(task.test_score.miou.item())


def test_activations_show_the_maps_of_a_network_on_the_query(tmp_path: Path, checkpoints, drawn) -> None:
    checkpoint = f"DPCN={checkpoints / 'dpcn_small.ckpt'}"
    output = str(tmp_path / "maps.png")
    assert (
        main(["figures", "activations", *TINY, "--checkpoint", checkpoint, "--indices", "1", "--output", output]) == 0
    )
    ((row,), figure) = drawn[0]
    assert titles(figure) == ["support", "query", "5x1", "3x3", "1x5", "$M_0$", "$M_r$", "DPCN", "target"]
    assert row.activation_maps.shape == (3, 32, 32)
    torch.testing.assert_close(row.initial_mask, row.activation_maps.mean(0), atol=1e-5, rtol=0)
    assert row.refined_mask.shape == (32, 32)
    assert "episode 1: " in (tmp_path / "maps.txt").read_text()


@pytest.mark.parametrize(
    ("kind", "arguments", "text"),
    [
        ("activations", ["--checkpoint", "A={}/baseline_small.ckpt"], "maps (dpcn_*), got A, which is baseline_small"),
        ("activations", ["--checkpoint", "A={}/pfenet_small.ckpt"], "`dpcn figures strips` draws its predictions"),
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
    assert main(["figures", kind, *TINY, *arguments, "--output", str(tmp_path / "a.png")]) == 2
    printed = capsys.readouterr().err
    assert all(part in printed for part in text.split(" .* "))
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", ["a.docx", "lambda_0.5"])
def test_other_formats_are_refused_before_anything_is_read(tmp_path: Path, capsys, name: str) -> None:
    assert main(["figures", "curves", "--runs", str(tmp_path / "gone"), "--output", str(tmp_path / name)]) == 2
    assert "``--output``: expected a name that ends in .png or .pdf, or has no suffix" in capsys.readouterr().err


def test_a_run_without_log_is_named(tmp_path: Path, capsys) -> None:
    assert main(["figures", "curves", "--runs", str(tmp_path / "gone"), "--output", str(tmp_path / "a.png")]) == 2
    assert "gone/metrics.csv: there is no such file" in capsys.readouterr().err


def test_without_a_kind_the_kinds_are_listed(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["figures", "--help"])
    assert "{curves,sweep,strips,activations}" in capsys.readouterr().out


def test_without_matplotlib_the_pip_command_is_given(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("dpcn_modules.cli.main.require", refuse_viz)
    assert main(["figures", "curves"]) == 2
    assert "pip install 'dpcn_modules[viz]'" in capsys.readouterr().err


def refuse_viz(*packages: str, extra: str) -> None:
    if extra == "viz":
        raise ModuleNotFoundError(f"needs {', '.join(packages)}: pip install 'dpcn_modules[{extra}]'")
