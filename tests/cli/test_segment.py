"""`dpcn segment`: masks and overlays of every image that can be read, and no file of the user's replaced."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpcn_modules.cli import segment
from dpcn_modules.data.io import load_image, load_mask
from dpcn_modules.models import build_model
from dpcn_modules.segmenter import FewShotSegmenter
from dpcn_modules.viz import overlay


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build_model("dpcn_small")
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    parameters = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save(
        {"network": model.name, "settings": dataclasses.asdict(model.settings), "size": 64, "state_dict": parameters},
        path,
    )
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two support images with masks (one black and white, one of class ids), and three queries."""
    rng = np.random.default_rng(0)
    images = {"cup.png": (40, 50), "mug.png": (30, 60), "queries/a.jpg": (48, 80), "queries/b.PNG": (70, 33)}
    (tmp_path / "queries").mkdir()
    for name, size in images.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / name)
    for name, size, value in (
        ("cup_mask.png", (40, 50), 255),
        ("mug_mask.png", (30, 60), 255),
        ("ids.png", (40, 50), 15),
    ):
        mask = np.zeros(size, dtype=np.uint8)
        mask[10:20, 10:30] = value
        Image.fromarray(mask).save(tmp_path / name)
    (tmp_path / "queries" / "notes.txt").write_text("no image")
    return tmp_path


def run(checkpoint: Path, folder: Path, *arguments: str | Path, query: str = "queries", output: str = "out") -> int:
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    given = ["--checkpoint", checkpoint, "--query", folder / query, "--output", folder / output, "--device", "cpu"]
    given += arguments if "--support" in arguments else support(folder, "cup", *arguments)
    return segment.run(parser.parse_args([str(argument) for argument in given]))


def support(folder: Path, name: str, *arguments: str | Path) -> list[str | Path]:
    return ["--support", folder / f"{name}.png", "--mask", folder / f"{name}_mask.png", *arguments]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_segment_writes_mask_and_overlay_of_every_image_in_a_folder(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("._a.jpg", ".hidden.png"):
        (folder / "queries" / name).write_bytes(b"\0\5\x16\7Mac OS X")
    assert run(checkpoint, folder) == 0
    assert files(folder / "out") == ["a.png", "a_overlay.jpg", "b.png", "b_overlay.jpg"]
    segmenter = FewShotSegmenter.from_checkpoint(checkpoint, device="cpu")
    segmenter.set_support(folder / "cup.png", folder / "cup_mask.png")
    lines = capsys.readouterr().out.splitlines()
    for line, query in zip(lines, ("a.jpg", "b.PNG"), strict=True):
        image = load_image(folder / "queries" / query)
        expected = segmenter.segment(image)
        stem = folder / "out" / query[0]
        assert torch.equal(load_mask(stem.with_suffix(".png")), 255 * expected)
        painted = load_image(f"{stem}_overlay.jpg").float()
        assert painted.shape == image.shape
        assert (painted - overlay(image, expected)).abs().mean() < 10  # JPEG
        assert line == f"{folder / 'queries' / query}: {expected.float().mean():.1%} foreground -> {stem}.png"


def test_segment_takes_several_shots(checkpoint: Path, folder: Path) -> None:
    shots = ["--support", folder / "cup.png", folder / "mug.png"]
    masks = ["--mask", folder / "cup_mask.png", folder / "mug_mask.png"]
    assert run(checkpoint, folder, *shots, *masks, query="queries/a.jpg") == 0
    segmenter = FewShotSegmenter.from_checkpoint(checkpoint, device="cpu")
    segmenter.set_support(shots[1:], masks[1:])
    assert torch.equal(load_mask(folder / "out" / "a.png"), 255 * segmenter.segment(folder / "queries" / "a.jpg"))


def test_segment_takes_one_class_of_a_mask_of_class_ids(checkpoint: Path, folder: Path) -> None:
    run(checkpoint, folder)
    ids = ["--support", folder / "cup.png", "--mask", folder / "ids.png", "--class-id", "15"]
    run(checkpoint, folder, *ids, output="by_class")
    assert torch.equal(load_mask(folder / "by_class" / "a.png"), load_mask(folder / "out" / "a.png"))
    with pytest.raises(ValueError, match=r"ids.png: expected pixels of ``class_id`` 3, got only the ids \[15\]"):
        run(checkpoint, folder, *ids[:-1], "3")


def test_segment_asks_what_255_means_beside_a_1(checkpoint: Path, folder: Path) -> None:
    mask = np.array(Image.open(folder / "cup_mask.png"))
    mask[0, 0] = 1
    Image.fromarray(mask).save(folder / "cup_mask.png")
    with pytest.raises(ValueError, match=r"cup_mask\.png: 1 pixels have the value 1 and 200 .*--object 255"):
        run(checkpoint, folder)
    assert run(checkpoint, folder, "--object", "255") == 0
    assert run(checkpoint, folder, "--void", "255", output="void") == 0


@pytest.mark.parametrize(("threshold", "value"), [("0", 255), ("1", 0)])
def test_segment_applies_the_threshold(checkpoint: Path, folder: Path, threshold: str, value: int) -> None:
    run(checkpoint, folder, "--threshold", threshold)
    assert load_mask(folder / "out" / "a.png").unique().tolist() == [value]


def test_segment_uses_the_asked_size(checkpoint: Path, folder: Path) -> None:
    run(checkpoint, folder, "--size", "96", query="queries/a.jpg")
    segmenter = FewShotSegmenter.from_checkpoint(checkpoint, size=96, device="cpu")
    segmenter.set_support(folder / "cup.png", folder / "cup_mask.png")
    assert torch.equal(load_mask(folder / "out" / "a.png"), 255 * segmenter.segment(folder / "queries" / "a.jpg"))


def test_broken_image_is_named_the_others_are_done_and_the_status_is_1(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (folder / "queries" / "a.jpg").read_bytes()
    (folder / "queries" / "aa.jpg").write_bytes(whole[: len(whole) // 2])
    assert run(checkpoint, folder) == 1
    assert files(folder / "out") == ["a.png", "a_overlay.jpg", "b.png", "b_overlay.jpg"]
    errors = capsys.readouterr().err
    assert "skipped: " in errors
    assert "aa.jpg: cannot be decoded" in errors
    assert "1 of 3 images could not be read" in errors


def test_missing_query_is_named_and_the_status_is_1(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, folder, query="queries/z.jpg") == 1
    assert "z.jpg: there is no such file" in capsys.readouterr().err


def test_segment_makes_missing_output_folders_and_replaces_its_own_results(checkpoint: Path, folder: Path) -> None:
    for _ in range(2):
        assert run(checkpoint, folder, output="new/folder") == 0
    assert len(files(folder / "new" / "folder")) == 4


@pytest.mark.parametrize("threatened", ["a.png", "a_overlay.jpg"])
def test_segment_never_replaces_a_file_beside_the_queries(checkpoint: Path, folder: Path, threatened: str) -> None:
    (folder / "queries" / threatened).write_bytes(b"precious")
    with pytest.raises(ValueError, match=rf"``--output``: .*{threatened} would be replaced, .* choose another folder"):
        run(checkpoint, folder, query="queries/a.jpg", output="queries")
    assert (folder / "queries" / threatened).read_bytes() == b"precious"
    assert len(files(folder / "queries")) == 4


def test_segment_never_replaces_a_support_image(checkpoint: Path, folder: Path) -> None:
    (folder / "queries" / "a.jpg").rename(folder / "queries" / "cup.jpg")
    before = (folder / "cup.png").read_bytes()
    with pytest.raises(ValueError, match=r"cup.png would be replaced"):
        run(checkpoint, folder, output=".")
    assert (folder / "cup.png").read_bytes() == before


def test_segment_writes_beside_the_queries_where_nothing_is_in_the_way(checkpoint: Path, folder: Path) -> None:
    assert run(checkpoint, folder, query="queries/a.jpg", output="queries") == 0
    assert {"a.jpg", "a.png", "a_overlay.jpg"} <= set(files(folder / "queries"))


def test_queries_whose_results_have_one_name_are_an_error_before_anything_is_written(
    checkpoint: Path, folder: Path
) -> None:
    Image.open(folder / "queries" / "a.jpg").save(folder / "queries" / "a.bmp")
    with pytest.raises(ValueError, match=r"``--query``: .*a.bmp and .*a.jpg, which would both be written to .*a.png"):
        run(checkpoint, folder)
    assert not (folder / "out").exists()


def test_query_folder_without_images_is_an_error(checkpoint: Path, folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"``--query``: no images \(.jpg, .*\) in the folder .*empty"):
        run(checkpoint, folder, query="empty")


def test_support_and_mask_of_different_number_are_an_error(checkpoint: Path, folder: Path) -> None:
    shots = ["--support", folder / "cup.png", folder / "mug.png", "--mask", folder / "cup_mask.png"]
    with pytest.raises(ValueError, match="got 2 images and 1 masks"):
        run(checkpoint, folder, *shots)
    assert not (folder / "out").exists()


def test_missing_checkpoint_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.ckpt"):
        run(folder / "nowhere.ckpt", folder)


@pytest.mark.real_data
def test_segment_does_real_images_by_a_voc_mask(checkpoint: Path, tmp_path: Path, real_data: Path) -> None:
    voc = real_data / "voc2012_subset"
    shot, query = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[:2]
    mask = voc / "SegmentationClass" / f"{shot}.png"
    class_id = next(value for value in load_mask(mask).unique().tolist() if value not in (0, 255))
    image = voc / "JPEGImages" / f"{query}.jpg"
    shots = ["--support", voc / "JPEGImages" / f"{shot}.jpg", "--mask", mask, "--class-id", str(class_id)]
    assert run(checkpoint, tmp_path, *shots, "--query", image) == 0
    assert load_mask(tmp_path / "out" / f"{query}.png").shape == load_image(image).shape[1:]
