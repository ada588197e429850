"""Images from the raw downloads to a score, by the commands that a user types; and data that cannot be used."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpcn_modules.cli.main import main
from dpcn_modules.evaluation import PROTOCOLS

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"
SMALL = [
    *("--data.size=65", "--data.train_transform.init_args.size=65", "--data.train_transform.init_args.long_side=65"),
    *("--data.batch_size=2", "--data.test_batch_size=2", "--data.workers=0"),
    *("--data.episodes_per_epoch=6", "--data.val_episodes=4", "--data.test_episodes=5"),
    *("--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
]
SOURCE = "--data.source.init_args"
# The options of a test, and what its protocol must then say.
TESTS = {
    "one shot": ([], {"shot": 1, "annotation": "mask", "scales": [], "target": "original"}),
    "boxes": (["--data.annotation=box"], {"shot": 1, "annotation": "box"}),
    "scales": (["--data.scales=[49]", "--data.target=resized"], {"scales": [49], "target": "resized"}),
    "five shots": (["--data.shot=5"], {"shot": 5, "annotation": "mask"}),
    "all": (
        ["--data.shot=5", "--model.fusion=vote", "--data.annotation=class_box", "--data.scales=[49]"],
        {"shot": 5, "annotation": "class_box", "scales": [49], "target": "original"},
    ),
}
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers, loggers and paths


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last_result(folder):
    """What the latest test wrote."""
    paths = sorted(folder.glob("runs/dpcn/version_*/test.json"), key=lambda path: int(path.parent.name.split("_")[1]))
    return json.loads(paths[-1].read_text())


def check_tests(folder, config, checkpoint):
    """Test a checkpoint in all ways; what was asked for is in the protocol of each."""
    results = {}
    for name, (options, expected) in TESTS.items():
        assert main(["test", *config, f"--ckpt_path={checkpoint}", *options]) == 0
        results[name] = last_result(folder)
        (run,) = results[name]["runs"]
        assert {key: run["protocol"][key] for key in expected} == expected
        assert 0 <= run["miou"] <= 1
        assert 0 < run["fb_iou"] <= 1
        assert results[name]["fusion"] == ("vote" if name == "all" else "concat")
    # Neither annotation nor scales nor fusion choose the episodes; the number of shots does.
    drawn = {name: result["runs"][0]["episodes"] for name, result in results.items()}
    assert drawn["one shot"] == drawn["boxes"] == drawn["scales"] != drawn["five shots"] == drawn["all"]
    assert len({result["runs"][0]["protocol"]["id"] for result in results.values()}) == len(TESTS)
    return results


def check_replay(folder, config, checkpoint, options, result, capsys):
    """Write the episodes of a test, and give them to another one that would draw others: the number is the same."""
    capsys.readouterr()
    assert main(["episodes", *config, *options, "--output=episodes.jsonl"]) == 0
    digest = re.search(r"5 episodes, hash ([0-9a-f]{12})", capsys.readouterr().out).group(1)
    assert digest == result["runs"][0]["episodes"]
    replay = ["--episodes=episodes.jsonl", "--data.test_seed=7"]
    assert main(["test", *config, f"--ckpt_path={checkpoint}", *options, *replay]) == 0
    (replayed,) = last_result(folder)["runs"]
    assert replayed["episodes"] == digest
    for key in ("miou", "fb_iou", "class_iou"):
        assert replayed[key] == result["runs"][0][key]


def check_protocols(folder, config, checkpoint):
    """Test by every named protocol, with fewer episodes and smaller images."""
    for name, protocol in PROTOCOLS.items():
        small = ["--data.test_episodes=2", "--data.size=65", f"--data.scales={[49] * len(protocol.scales)}"]
        arguments = [f"--ckpt_path={checkpoint}", f"--protocol={name}", *small]
        assert main(["test", *config, *arguments]) == 0
        runs = [run["protocol"] for run in last_result(folder)["runs"]]
        assert [run["seed"] for run in runs] == list(protocol.seeds)
        for run in runs:
            assert (run["name"], run["sampling"], run["target"]) == (name, protocol.sampling, protocol.target)
            assert run["scales"] == [49] * len(protocol.scales)


@pytest.mark.real_data
def test_voc_from_the_download_to_replayed_scores(here, real_data, capsys):
    voc = real_data / "voc2012_subset"
    assert main(["prepare", "pascal", f"--voc={voc}", f"--out={here / 'voc'}"]) == 1
    assert re.search(r"trainaug +262 of 10582 \(partial download\?", capsys.readouterr().out)
    train_list = here / "voc" / "ImageSets" / "Segmentation" / "trainaug.txt"
    config = [f"--config={CONFIGS / 'pascal5i_short.yaml'}", *SMALL, f"{SOURCE}.root={voc}"]
    assert main(["fit", *config, f"{SOURCE}.train_list={train_list}"]) == 0
    checkpoint = here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    results = check_tests(here, config, checkpoint)
    assert set(results["one shot"]["runs"][0]["class_iou"]) <= {"dog", "horse", "person"}
    check_replay(here, config, checkpoint, *(TESTS["all"][0], results["all"]), capsys)
    check_protocols(here, config, checkpoint)


@pytest.mark.real_data
def test_coco_from_the_download_to_replayed_scores(here, real_data, capsys):
    coco = real_data / "coco_subset"
    files = ["--annotations=annotations/instances.json", "--images=images"]
    prepare = ["prepare", "coco", f"--root={coco}", *files, f"--cache={here / 'masks'}"]
    assert main(prepare) == 0
    assert "272 masks: 272 drawn, 0 kept" in capsys.readouterr().out
    (kept,) = (here / "masks").glob("masks_*/manifest.json")
    written = kept.stat().st_mtime_ns
    config = [f"--config={CONFIGS / 'coco20i_short.yaml'}", *SMALL]
    config += [f"{SOURCE}.root={coco}", f"{SOURCE}.cache={here / 'masks'}"]
    assert main(["fit", *config]) == 0
    checkpoint = here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    results = check_tests(here, config, checkpoint)
    held_out = {"person", "boat", "dog", "wine glass", "spoon", "chair", "dining table", "refrigerator"}
    assert set(results["one shot"]["runs"][0]["class_iou"]) <= held_out
    check_replay(here, config, checkpoint, *(TESTS["one shot"][0], results["one shot"]), capsys)
    assert kept.stat().st_mtime_ns == written


def write_classes(root, count):
    """FSS-1000's layout with three images of a class, and the second half of the names in held_out.txt."""
    names = [f"class_{number:03d}" for number in range(count)]
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    mask = np.zeros((24, 24, 3), np.uint8)
    mask[4:20, 4:20] = 255
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(1, 4):
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
            Image.fromarray(mask).save(root / name / f"{number}.png")
    (root.parent / "held_out.txt").write_text("\n".join(names[count // 2 :]) + "\n", encoding="utf-8")


def test_classes_of_fss1000_are_held_out_by_a_text_file(here, capsys):
    write_classes(here / "fewshot_data", 6)
    config = [f"--config={CONFIGS / 'fss1000.yaml'}", f"{SOURCE}.root=fewshot_data", *SMALL[3:], "--data.size=33"]
    config += ["--model.network=dpcn_small", "--model.overrides.weights=null", "--trainer.accelerator=cpu"]
    held_out = f"{SOURCE}.test_classes=held_out.txt"
    assert main(["fit", *config, held_out]) == 0
    checkpoint = here / "runs" / "dpcn" / "version_0" / "checkpoints" / "last.ckpt"
    assert main(["test", *config, held_out, f"--ckpt_path={checkpoint}"]) == 0
    (run,) = last_result(here)["runs"]
    assert run["protocol"]["classes"] == ["class_003", "class_004", "class_005"]

    assert main(["fit", *config, held_out, f"{SOURCE}.train_classes=[class_000,class_003]"]) == 2
    assert "1 of them are in ``train_classes`` too: class_003" in capsys.readouterr().err
    assert main(["fit", *config, f"{SOURCE}.test_classes=gone.txt"]) == 2
    assert "``test_classes``: there is no file gone.txt" in capsys.readouterr().err


NO_FILES = [f"{SOURCE}.{side}_{kind}=null" for side in ("train", "test") for kind in ("annotations", "images")]


@pytest.mark.real_data
@pytest.mark.parametrize("command", ["fit", "episodes"])
@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("coco20i", NO_FILES, r"no annotation file .*instances_(train|val)2014\.json .* no folder of images"),
        ("coco20i", [*NO_FILES, f"{SOURCE}.year=2017"], r"no annotation file .*2017\.json(.|\n)*pass year=\"2014\""),
        ("coco20i", [f"{SOURCE}.{side}_images=masks" for side in ("train", "test")], "272 of its 272 images are mis"),
        ("coco20i", ["--data.shot=5", f"{SOURCE}.classes=[person,airplane,cup]"], r"have fewer: airplane \(4\)\. Add"),
        (
            "pascal5i",
            ["--data.shot=5", f"{SOURCE}.classes=null"],
            r"5-shot .* 6 .* fewer: (diningtable \(3\), motorbike \(3\)\.|aeroplane \(0\), b)",
        ),
        ("pascal5i", [f"{SOURCE}.{side}_list=cut.txt" for side in ("train", "test")], "1 of its 4 files are missing"),
        ("pascal5i", [f"{SOURCE}.{side}_list=trainval07" for side in ("train", "test")], "no list 'trainval07'; lists"),
    ],
)
def test_unusable_data_is_one_error_and_the_status_is_2(here, real_data, capsys, command, config, options, message):
    root = real_data / ("coco_subset" if config == "coco20i" else "voc2012_subset")
    first = (real_data / "voc2012_subset" / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[0]
    mask = f"SegmentationClassAug/{first}.png"
    Path("cut.txt").write_text(f"JPEGImages/{first}.jpg {mask}\nJPEGImages/gone.jpg {mask}\n")
    given = [f"--config={CONFIGS / config}_short.yaml", *SMALL, f"{SOURCE}.root={root}", *options]
    given += [f"{SOURCE}.cache={here / 'masks'}"] if config == "coco20i" else []
    given += ["--output=episodes.jsonl"] if command == "episodes" else []
    assert main([command, *given]) == 2
    printed = capsys.readouterr().err
    assert re.search(message, printed)
    assert printed.count("dpcn: error:") == 1
