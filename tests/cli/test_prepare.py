"""`dpcn prepare`: its report, its exit status, and the data sets it lists."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dpcn_modules.cli import prepare
from dpcn_modules.cli.main import main
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.data.datasets.prepare_pascal import FULL

LISTS = Path("ImageSets", "Segmentation")
NUMBERS = {
    **{"VOC train": 1, "VOC val": 1, "VOC masks": 2, "SBD train": 2, "SBD val": 1, "SBD train_noval": 2},
    **{"SegmentationClassAug": 5, "trainaug": 4, "pfenet": 3},
}


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VOC with a training and a test image and SBD with three more; the expected full numbers are set to theirs."""
    for folder in ("voc/JPEGImages", "voc/SegmentationClass", f"voc/{LISTS}", "sbd/cls"):
        (tmp_path / folder).mkdir(parents=True)
    mask = np.full((4, 6), 3, np.uint8)
    for name in ("t", "v", "a", "b", "c"):
        Image.new("RGB", (6, 4)).save(tmp_path / "voc" / "JPEGImages" / f"{name}.jpg")
    for name in ("t", "v"):
        Image.fromarray(mask).save(tmp_path / "voc" / "SegmentationClass" / f"{name}.png")
    for name in ("a", "b", "c"):
        savemat(tmp_path / "sbd" / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": mask}})
    lists = {f"voc/{LISTS}/train": "t", f"voc/{LISTS}/val": "v"}
    lists |= {"sbd/train": "a\nb", "sbd/val": "c", "sbd/train_noval": "a\nc"}
    for name, text in lists.items():
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    for name, count in NUMBERS.items():
        monkeypatch.setitem(FULL, name, count)
    return tmp_path


def run(downloads: Path, *arguments: str, sbd: bool = True) -> int:
    given = ["--voc", str(downloads / "voc"), *(["--sbd", str(downloads / "sbd")] if sbd else [])]
    return main(["prepare", "pascal", *given, *arguments])


def rows(capsys: pytest.CaptureFixture[str], title: str) -> dict[str, str]:
    """The printed rows below a title."""
    found: dict[str, str] = {}
    current = ""
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith("  "):
            current = line
        elif current == title:
            name, _, text = line.strip().partition("  ")
            found[name] = text.strip()
    return found


def test_prepare_writes_masks_and_lists_and_the_status_is_0(
    downloads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(downloads) == 0
    lists = downloads / "voc" / LISTS
    assert (lists / "trainaug.txt").read_text() == "a\nb\nc\nt\n"
    assert (lists / "pfenet.txt").read_text() == "a\nc\nt\n"
    assert rows(capsys, "made") == {
        "SegmentationClassAug": "5 of 5 masks: 5 written, 0 unchanged, 0 kept",
        "trainaug": f"4 of 4; sha256 36fb3fe38ba9; written: {lists / 'trainaug.txt'}",
        "pfenet": f"3 of 3; sha256 bf3c8ccb3f67; written: {lists / 'pfenet.txt'}",
    }


def test_report_starts_with_what_was_found_and_leaves_empty_titles_out(
    downloads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(downloads)
    printed = capsys.readouterr()
    assert printed.out.startswith("found\n  VOC train        1 of 1\n")
    assert [line for line in printed.out.splitlines() if line[0] != " "] == ["found", "made"]
    assert printed.err == ""


def test_partial_download_is_reported_and_the_status_is_1(downloads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (downloads / "voc" / "JPEGImages" / "c.jpg").unlink()
    assert run(downloads) == 1
    printed = capsys.readouterr().out
    assert "  pfenet                2 of 3 (partial download? missing: c); sha256 " in printed
    assert "\nmissing\n  images  1 of 5 are not in " in printed


def test_list_that_is_too_long_is_no_partial_download(
    downloads: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FULL, "pfenet", 2)
    assert run(downloads) == 1
    assert rows(capsys, "made")["pfenet"].startswith("3 of 2 (not the published lists?); sha256 ")


def test_without_sbd_the_way_out_is_named_and_the_status_is_1(
    downloads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(downloads, sbd=False) == 1
    printed = capsys.readouterr().out
    assert "SBD  only VOC's own masks are there, so that no list was made: give SBD (--sbd)" in printed
    assert "  pfenet                not made\n" in printed


def test_force_replaces_what_differs(downloads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pfenet = downloads / "voc" / LISTS / "pfenet.txt"
    pfenet.write_text("v\n")
    other = downloads / "voc" / "SegmentationClassAug" / "a.png"
    other.parent.mkdir()
    Image.new("L", (6, 4)).save(other)
    assert run(downloads) == 1
    assert pfenet.read_text() == "v\n"
    kept = rows(capsys, "kept, although it differs (--force replaces it)")
    assert kept == {"pfenet": f"{pfenet} is a different list", "SegmentationClassAug": "1 masks differ: a"}
    assert run(downloads, "--force") == 0
    assert pfenet.read_text() == "a\nc\nt\n"


def test_out_is_where_things_are_written(downloads: Path) -> None:
    assert run(downloads, "--out", str(downloads / "prepared")) == 0
    assert len(list((downloads / "prepared" / "SegmentationClassAug").iterdir())) == 5
    assert not (downloads / "voc" / "SegmentationClassAug").exists()


def test_progress_is_shown_on_a_terminal(
    downloads: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run(downloads)
    assert "masks:   0%" in capsys.readouterr().err


def test_wrong_folder_is_one_error_and_the_status_is_2(downloads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "pascal", "--voc", str(downloads)]) == 2
    assert "there is no VOC folder (no JPEGImages in it)" in capsys.readouterr().err


def test_prepare_without_a_data_set_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare"]) == 2
    printed = capsys.readouterr().out
    for name, (text, _, _) in prepare.DATA_SETS.items():
        assert f"{name} " in printed
        assert text in printed


def test_unknown_data_set_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", "pascals"])
    assert "invalid choice: 'pascals'" in capsys.readouterr().err


COUNTS = {"person": 6, "airplane": 2, "bicycle": 1}
IDS = [each for each in range(1, 91) if each not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
FOLDS_TITLE = "test images (interleaved folds; a class counts from 2048 px on)"


def coco_content(prefix: str) -> dict[str, list[dict[str, Any]]]:
    """Images of 50 x 60 pixels, each with one instance of 2100 pixels."""
    names = [name for name, count in COUNTS.items() for _ in range(count)]
    images = [{"id": i, "file_name": f"{prefix}{i:012d}.jpg", "width": 60, "height": 50} for i in range(len(names))]
    outline = [[0, 0, 60, 0, 60, 35, 0, 35]]
    annotations = [
        {"id": i, "image_id": i, "category_id": IDS[COCO_CLASSES.index(name)], "segmentation": outline, "iscrowd": 0}
        for i, name in enumerate(names)
    ]
    categories = [{"id": each, "name": name} for each, name in zip(IDS, COCO_CLASSES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """COCO 2014 with nine images in either split; the expected full numbers are set to nine."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for name in ("train2014", "val2014"):
        content = coco_content(f"COCO_{name}_")
        (root / name).mkdir()
        for image in content["images"]:
            Image.new("RGB", (60, 50)).save(root / name / image["file_name"])
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setitem(prepare.COCO_FULL, "2014", {"train": 9, "test": 9})  # type: ignore[arg-type]
    return root


def run_coco(root: Path, *arguments: str) -> int:
    return main(["prepare", "coco", "--root", str(root), *arguments])


def test_prepare_coco_draws_the_masks_of_both_splits_once(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_coco(coco) == 0
    made = rows(capsys, "made")
    assert list(made) == ["instances_train2014.json", "instances_val2014.json"]
    for text in made.values():
        words, _, folder = text.rpartition(": ")
        assert words.startswith("9 masks: 9 drawn, 0 kept; 0.0 MB")
        assert Path(folder).parent == coco
        assert len(list(Path(folder).glob("*.png"))) == 9
    assert run_coco(coco) == 0
    assert all(text.startswith("9 masks: 0 drawn, 9 kept;") for text in rows(capsys, "made").values())


def test_prepare_coco_names_the_test_classes_that_five_shots_cannot_take(
    coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_coco(coco) == 0
    folds = rows(capsys, FOLDS_TITLE)
    start = "8 images of 20 classes; 5 shots need 6 images of a class, fewer have airplane (2), "
    assert folds["fold 0"].startswith(start)
    assert "person" not in folds["fold 0"]
    assert folds["fold 1"].startswith("1 images of 20 classes; ")
    assert "bicycle (1), " in folds["fold 1"]
    assert list(folds) == ["fold 0", "fold 1", "fold 2", "fold 3"]


def test_prepare_coco_takes_one_file_an_overlap_rule_and_a_cache(
    coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--annotations", "annotations/instances_train2014.json", "--images", str(coco / "train2014")]
    assert run_coco(coco, *given, "--overlap", "annotation_order", "--cache", str(coco.parent / "kept")) == 0
    assert rows(capsys, "found") == {"instances_train2014.json": "9 images with objects"}
    (folder,) = (coco.parent / "kept").iterdir()
    assert folder.name.startswith("masks_annotation_order_")
    assert not list(coco.glob("masks_*"))


def test_coco_file_of_another_length_than_published_gives_status_1(
    coco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prepare.COCO_FULL, "2014", {"train": 10, "test": 9})  # type: ignore[arg-type]
    assert run_coco(coco) == 1
    assert rows(capsys, "found") == {
        "instances_train2014.json": "9 images with objects of 10 (not the published file?)",
        "instances_val2014.json": "9 images with objects of 9",
    }


def test_coco_split_that_is_not_there_whole_is_reported_while_the_other_is_made(
    coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (coco / "train2014" / "COCO_train2014_000000000004.jpg").unlink()
    assert run_coco(coco) == 1
    printed = capsys.readouterr().out
    assert "missing\n  instances_train2014.json  " in printed
    assert "1 of its 9 images are missing: COCO_train2014_000000000004.jpg" in printed
    assert "made\n  instances_val2014.json  9 masks: 9 drawn" in printed


def test_masks_of_coco_are_shown_as_they_are_drawn_on_a_terminal(
    coco: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    run_coco(coco)
    assert "masks of instances_train2014.json:   0%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--year", "2017"], "there is no annotation file .*instances_train2017.json.*no folder of images"),
        (["--annotations", "annotations/instances_val2014.json"], "``--annotations`` and ``--images`` belong together"),
        (["--images", "val2014"], "``--annotations`` and ``--images`` belong together"),
        (["--annotations", "val2014.zip", "--images", "val2014"], "there is no annotation file .*val2014.zip"),
        (["--cache", "none"], "``--cache``: expected a folder, got 'none'"),
        (
            ["--annotations", "annotations/instances_val2014.json", "--images", "train2014"],
            "instances_val2014.json does not match the images in .*train2014: 9 of its 9 images are missing",
        ),
    ],
)
def test_wrong_arguments_of_prepare_coco_are_one_error_and_the_status_is_2(
    coco: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_coco(coco, *arguments) == 2
    printed = capsys.readouterr()
    assert re.search(message, printed.err)
    assert printed.err.count("dpcn: error:") == 1
    assert printed.out == ""


@pytest.mark.parametrize("cut", ["annotations", "images", "size"])
def test_coco_file_that_cannot_be_drawn_is_one_error_and_the_status_is_2(
    coco: Path, capsys: pytest.CaptureFixture[str], cut: str
) -> None:
    annotations = coco / "annotations" / "instances_val2014.json"
    if cut == "annotations":
        annotations.write_text(annotations.read_text()[:-5], encoding="utf-8")
        message = "instances_val2014.json: is not a json file .* it may be truncated: fetch it again"
    elif cut == "images":
        for folder in ("train2014", "val2014"):
            next((coco / folder).iterdir()).unlink()
        message = "does not match the images in .*: 1 of its 9 images are missing"
    else:
        Image.new("RGB", (50, 60)).save(coco / "val2014" / "COCO_val2014_000000000002.jpg")
        message = "1 of its 9 images have another size: COCO_val2014_000000000002.jpg is 50 x 60"
    assert run_coco(coco) == 2
    printed = capsys.readouterr()
    assert re.search(message, printed.err)
    assert printed.err.count("dpcn: error:") == 1
