"""COCO-20i: folds, drawn masks and their cache, and invalid files."""

import importlib.util
import json
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dpcn_modules.data.datasets import coco_instances, coco_masks
from dpcn_modules.data.datasets.coco import Coco20i
from dpcn_modules.data.datasets.folds import COCO_CLASSES, coco_classes
from dpcn_modules.data.episodes.dataset import EpisodeDataset
from dpcn_modules.data.transforms import TestTransform
from dpcn_modules.errors import WriteError

# COCO's own category ids leave out these numbers.
IDS = [each for each in range(1, 91) if each not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
HEIGHT, WIDTH = 40, 50
PERSON, BICYCLE, AIRPLANE, TOOTHBRUSH = 1, 2, 5, 80
ONE_FILE = {
    **{"train_annotations": "annotations/instances.json", "test_annotations": "annotations/instances.json"},
    **{"train_images": "images", "test_images": "images"},
}
Content = dict[str, list[dict[str, Any]]]


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    """A polygon that covers these columns and rows, the last ones left out."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(*lengths: int) -> dict[str, Any]:
    """Run lengths down the columns, background first."""
    return {"size": [HEIGHT, WIDTH], "counts": [*lengths, HEIGHT * WIDTH - sum(lengths)]}


def annotation(number: int, image_id: int, class_id: int, shape: object, *, crowd: bool = False) -> dict[str, Any]:
    category = IDS[class_id - 1]
    values = {"id": number, "image_id": image_id, "category_id": category, "segmentation": shape}
    return {**values, "iscrowd": int(crowd), "area": 1.0, "bbox": [0, 0, 1, 1]}


def tiny_content() -> Content:
    """Four images with annotations and one without.

    The first two hold a person of 600 px; a bicycle of 100 px within it comes first (image 3) or last (image 7).
    The third has a crowd of persons (8 columns) under an airplane, the fourth a toothbrush and a person.
    """
    images = [
        {"id": each, "file_name": f"{each:012d}.jpg", "height": HEIGHT, "width": WIDTH} for each in (11, 3, 7, 20, 99)
    ]
    annotations = [
        annotation(1, 3, BICYCLE, box(10, 10, 20, 20)),
        annotation(2, 3, PERSON, box(5, 5, 25, 35)),
        annotation(3, 7, PERSON, box(5, 5, 25, 35)),
        annotation(4, 7, BICYCLE, box(10, 10, 20, 20)),
        annotation(5, 11, AIRPLANE, box(4, 0, 30, 20)),
        annotation(6, 11, PERSON, runs(0, 8 * HEIGHT), crowd=True),
        annotation(7, 20, TOOTHBRUSH, [*box(0, 0, 10, 10), *box(30, 30, 40, 40)]),
        annotation(8, 20, PERSON, box(12, 0, 32, 20)),
    ]
    categories = [{"id": each, "name": name} for each, name in zip(IDS, COCO_CLASSES, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories[::-1]}


def write_json(root: Path, content: object) -> None:
    (root / "annotations" / "instances.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one annotation file and its images."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "images").mkdir()
    content = tiny_content()
    write_json(root, content)
    for image in content["images"]:
        noise = np.random.default_rng(image["id"]).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "images" / image["file_name"])
    return root


def tiny(root: Path, fold: int = 0, **changes: Any) -> Coco20i:
    return Coco20i(root, fold, **{**ONE_FILE, "min_area": 50, **changes})


def masks_of(source: Any) -> dict[int, np.ndarray]:
    """COCO's image id to mask."""
    return {int(source.image_name(i).split(".")[0]): source.load(i)[1].numpy() for i in source.images}


def kept_folder(root: Path) -> Path:
    (folder,) = root.glob("masks_*")
    return folder


@pytest.mark.parametrize("folds", ["interleaved", "contiguous"])
@pytest.mark.parametrize("fold", range(4))
def test_coco_classes_are_disjoint_and_complete_in_every_fold(fold: int, folds: Any) -> None:
    train, test = coco_classes(fold, "train", folds), coco_classes(fold, "test", folds)
    expected = range(fold + 1, 81, 4) if folds == "interleaved" else range(20 * fold + 1, 20 * fold + 21)
    assert list(test) == list(expected)
    assert not train.keys() & test.keys()
    assert {**train, **test} == dict(enumerate(COCO_CLASSES, start=1))


def test_coco_classes_rejects_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"``fold``: expected 0, 1, 2 or 3, got 4"):
        coco_classes(4, "test")
    with pytest.raises(ValueError, match=r"``split``: expected one of train, test, got 'val'"):
        coco_classes(0, "val")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"``folds``: expected one of interleaved, contiguous, got 'panet'"):
        coco_classes(0, "test", "panet")  # type: ignore[arg-type]


@pytest.mark.parametrize("cache", [".", None])
@pytest.mark.parametrize("overlap", ["smaller_on_top", "annotation_order"])
def test_overlap_rule_decides_which_instance_is_seen(root: Path, overlap: str, cache: str | None) -> None:
    masks = masks_of(tiny(root, overlap=overlap, cache=cache).split("test"))
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[5:35, 5:25] = PERSON
    bicycle_last = expected.copy()
    bicycle_last[10:20, 10:20] = BICYCLE
    np.testing.assert_array_equal(masks[7], bicycle_last)
    np.testing.assert_array_equal(masks[3], bicycle_last if overlap == "smaller_on_top" else expected)


def test_later_of_two_equal_instances_is_on_top(root: Path) -> None:
    content = tiny_content()
    content["annotations"].append(annotation(9, 20, AIRPLANE, box(12, 0, 32, 20)))
    write_json(root, content)
    assert set(np.unique(masks_of(tiny(root).split("test"))[20])) == {0, AIRPLANE, TOOTHBRUSH}


def test_crowd_is_void_and_never_covers_an_instance(root: Path) -> None:
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[:, :8] = 255
    expected[:20, 4:30] = AIRPLANE
    np.testing.assert_array_equal(masks_of(tiny(root).split("test"))[11], expected)


def test_compressed_run_lengths_are_read(root: Path) -> None:
    from pycocotools import mask as encoding

    content = tiny_content()
    shape = encoding.frPyObjects(runs(0, 8 * HEIGHT), HEIGHT, WIDTH)
    content["annotations"][5]["segmentation"] = {**shape, "counts": shape["counts"].decode()}
    before = masks_of(tiny(root).split("test"))[11]
    write_json(root, content)
    np.testing.assert_array_equal(masks_of(tiny(root).split("test"))[11], before)


def test_shapes_without_area_cover_nothing(root: Path) -> None:
    before = masks_of(tiny(root).split("test"))[20]
    content = tiny_content()
    content["annotations"][6]["segmentation"].insert(0, [0, 20, 50, 20])
    content["annotations"].append(annotation(9, 20, BICYCLE, [[30, 30, 30, 30, 30, 30], [1, 1]]))
    write_json(root, content)
    np.testing.assert_array_equal(masks_of(tiny(root).split("test"))[20], before)


def test_images_without_annotations_are_left_out_and_the_rest_sorted(root: Path) -> None:
    source = tiny(root, min_area=1).split("test")
    assert source.name == (
        "coco20i fold 0 (interleaved) test, instances.json (4 images, area >= 1 px, overlap: smaller_on_top)"
    )
    assert [source.image_name(each) for each in source.images] == [f"{each:012d}.jpg" for each in (3, 7, 11, 20)]


def test_split_offers_the_classes_of_the_fold(root: Path) -> None:
    data = tiny(root, 0, folds="contiguous")
    train, test = data.split("train"), data.split("test")
    assert train.class_names == coco_classes(0, "train", "contiguous")
    assert test.class_names == coco_classes(0, "test", "contiguous")
    assert train.name == (
        "coco20i fold 0 (contiguous) train, instances.json "
        "(4 images, area >= 50 px, overlap: smaller_on_top, held-out classes: keep)"
    )
    assert [train.image_name(each) for each in train.images_of(TOOTHBRUSH)] == ["000000000020.jpg"]
    assert test.classes_of(0) == [PERSON, BICYCLE]


def test_class_counts_from_min_area_on_of_what_is_seen(root: Path) -> None:
    def images(min_area: int) -> list[int]:
        return list(tiny(root, min_area=min_area).split("test").images_of(PERSON))

    assert len(images(400)) == 3
    assert len(images(401)) == 2
    assert len(images(500)) == 2
    assert images(501) == []


def test_novel_rule_drops_training_images_with_held_out_classes(root: Path) -> None:
    assert len(tiny(root).split("train").images_of(BICYCLE)) == 2
    source = tiny(root, novel="drop").split("train")
    assert list(source.images) == []
    assert "(0 images" in source.name
    dropped = tiny(root, 2, novel="drop", classes=["bicycle"]).split("train")
    assert len(dropped.images) == 2
    assert tiny(root, novel="drop").split("test").images == tiny(root).split("test").images


def test_classes_restrict_both_splits_and_stay_on_their_side(root: Path) -> None:
    data = tiny(root, classes=["airplane", "bicycle"])
    assert data.split("test").class_names == {AIRPLANE: "airplane"}
    assert data.split("train").class_names == {BICYCLE: "bicycle"}
    with pytest.raises(ValueError, match=r"none of bicycle is a test class of fold 0; these are: person, airplane"):
        tiny(root, classes=["bicycle"]).split("test")


def test_load_gives_image_and_mask(root: Path) -> None:
    image, mask = tiny(root).split("test").load(0)
    assert image.dtype == mask.dtype == torch.uint8
    assert image.shape == (3, *mask.shape) == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("cache", [".", None])
def test_source_survives_pickling(root: Path, cache: str | None) -> None:
    source = tiny(root, cache=cache).split("test")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.images == source.images
    assert torch.equal(copy.load(0)[1], source.load(0)[1])


def test_nothing_is_printed(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny(root).split("test")
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize("year", ["2014", "2017", 2017])
def test_files_of_a_year_are_found_by_their_usual_names(root: Path, year: Any) -> None:
    for split in ("train", "val"):
        os.link(root / "annotations" / "instances.json", root / "annotations" / f"instances_{split}{year}.json")
        (root / f"{split}{year}").symlink_to(root / "images")
    data = Coco20i(root, 0, year=year, min_area=50)
    assert f"train, instances_train{year}.json (4 images" in data.split("train").name
    assert f"test, instances_val{year}.json (4 images" in data.split("test").name


# --- the cache of the masks


def test_masks_are_drawn_once_and_the_second_start_reads_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def progress(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            drawn.append(name)
            yield name

    first = tiny(root, progress=progress).split("test")
    expected = masks_of(first)
    assert drawn == [f"{each:012d}.jpg" for each in (3, 7, 11, 20)]
    monkeypatch.setattr(coco_instances, "read_instances", None)
    monkeypatch.setattr(coco_masks, "load_mask", None)
    second = tiny(root, 1, progress=progress).split("train")
    assert len(drawn) == 4
    assert second.images_of(PERSON) == first.images_of(PERSON)
    monkeypatch.undo()
    np.testing.assert_array_equal(masks_of(second)[7], expected[7])


def test_kept_masks_and_drawn_ones_are_equal(root: Path) -> None:
    kept, fresh = tiny(root).split("test"), tiny(root, cache="none").split("test")
    assert len(list(root.glob("masks_*"))) == 1
    assert kept.images == fresh.images
    for number, mask in masks_of(kept).items():
        np.testing.assert_array_equal(mask, masks_of(fresh)[number])


def test_each_rule_and_each_source_has_its_own_masks(root: Path, tmp_path: Path) -> None:
    for overlap in ("smaller_on_top", "annotation_order"):
        tiny(root, overlap=overlap, cache=tmp_path / "kept").split("test")
    content = tiny_content()
    content["annotations"] = content["annotations"][1:]
    write_json(root, content)
    assert BICYCLE not in masks_of(tiny(root, cache=tmp_path / "kept").split("test"))[3]
    assert len(list((tmp_path / "kept").glob("masks_*"))) == 3
    assert list(root.glob("masks_*")) == []


@pytest.mark.parametrize("change", ["renderer", "damaged", "list", "mask gone"])
def test_manifest_that_does_not_fit_makes_the_masks_anew(root: Path, change: str) -> None:
    expected = masks_of(tiny(root).split("test"))
    manifest = kept_folder(root) / "manifest.json"
    content = json.loads(manifest.read_text())
    if change == "renderer":
        content["source"]["renderer"] += 1
    mask = kept_folder(root) / "000000000007.png"
    Image.new("L", (WIDTH, HEIGHT), 3).save(mask)
    if change == "mask gone":
        mask.unlink()
    texts = {"damaged": manifest.read_text()[:-9], "list": "[]"}
    manifest.write_text(texts.get(change, json.dumps(content)))
    drawn: list[str] = []
    source = tiny(root, progress=lambda names: drawn.extend(names) or names).split("test")
    assert len(drawn) == 4
    np.testing.assert_array_equal(np.array(Image.open(mask)), expected[7])
    assert source.classes_of(1) == [PERSON]


def repaint(path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), PERSON).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("damage", [repaint, cut, Path.unlink])
def test_damaged_mask_is_drawn_again_when_it_is_loaded(root: Path, damage: Callable[[Path], None]) -> None:
    source = tiny(root).split("test")
    expected = masks_of(source)[7]
    path = kept_folder(root) / "000000000007.png"
    damage(path)
    np.testing.assert_array_equal(masks_of(source)[7], expected)
    np.testing.assert_array_equal(np.array(Image.open(path)), expected)


def test_damaged_mask_is_not_drawn_from_another_source(root: Path) -> None:
    source = tiny(root).split("test")
    cut(kept_folder(root) / "000000000007.png")
    content = tiny_content()
    content["annotations"].pop()
    write_json(root, content)
    with pytest.raises(ValueError, match=r"instances\.json has changed since its masks were drawn.*07\.png"):
        source.load(1)


def test_folder_that_cannot_be_written_is_named_with_a_remedy(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match=r"file/masks_smaller_on_top_\w{12}: the masks cannot .*``cache=``"):
        tiny(root, cache=tmp_path / "file").split("test")


def test_full_disk_leaves_no_half_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=r"cannot be saved there \(No space left on device\); .*cache=None"):
        tiny(root).split("test")
    assert list(kept_folder(root).iterdir()) == []


def build_in_step(root: Path, barrier: Any) -> None:
    """Draw each mask at the same time as the other process does."""

    def progress(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            barrier.wait(60)
            yield name

    masks_of(tiny(root, progress=progress).split("test"))


def test_two_processes_may_build_at_once(root: Path) -> None:
    expected = masks_of(tiny(root, cache=None).split("test"))
    barrier = multiprocessing.Barrier(2)
    processes = [multiprocessing.Process(target=build_in_step, args=(root, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    names = {f"{each:012d}.png" for each in (3, 7, 11, 20)} | {"manifest.json"}
    assert {path.name for path in kept_folder(root).iterdir()} == names
    for number, mask in masks_of(tiny(root).split("test")).items():
        np.testing.assert_array_equal(mask, expected[number])


# --- invalid files


def test_missing_folder_shows_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nowhere: there is no such folder\.\nExpected tree(.|\n)*year=\"2017\""
    ):
        Coco20i(tmp_path / "nowhere", 0)


def test_missing_files_are_named_with_their_arguments_and_the_tree(root: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Coco20i(root, 0, year="2017").split("test")
    text = str(caught.value)
    assert "instances_val2017.json (``test_annotations``) and no folder of images" in text
    assert "val2017 (``test_images``)" in text
    assert "val2017/000000000139.jpg" in text


def test_missing_images_are_counted_and_named_with_both_sides(root: Path) -> None:
    for each in (3, 11):
        (root / "images" / f"{each:012d}.jpg").unlink()
    text = r"instances\.json does not match the images in .*images: 2 of its 4 images are missing: 0+3\.jpg, 0+11"
    with pytest.raises(FileNotFoundError, match=text):
        tiny(root).split("test")


def test_image_that_goes_missing_later_is_named_too(root: Path) -> None:
    tiny(root).split("test")
    (root / "images" / "000000000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of its 4 images are missing: 000000000003\.jpg"):
        tiny(root).split("test")


def test_only_the_first_five_are_named(root: Path) -> None:
    content = tiny_content()
    content["annotations"] = [annotation(each, 500 + each, PERSON, box(0, 0, 9, 9)) for each in range(8)]
    write_json(root, content)
    with pytest.raises(
        ValueError, match=r"8 of its 8 annotations name an image.*\(image_id 504\) and 3 more"
    ) as caught:
        tiny(root).split("test")
    assert "505" not in str(caught.value)


def test_images_of_another_size_are_named_with_both_sides(root: Path) -> None:
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "images" / "000000000007.jpg")
    text = r"instances\.json does not match the images in .*images: 1 of its 4 .*: 0+7\.jpg is 40 x 50 .*not 50 x 40"
    with pytest.raises(ValueError, match=text):
        tiny(root).split("test")


def test_image_shrunk_after_its_mask_was_drawn_is_named_when_it_is_loaded(root: Path) -> None:
    source = tiny(root).split("test")
    Image.new("RGB", (25, 20)).save(root / "images" / "000000000007.jpg")
    with pytest.raises(ValueError, match=r"0+7\.jpg is 25 x 20 .*mask in .*instances\.json is 50 x 40"):
        source.load(1)


def change(content: Content, where: str, **values: object) -> Content:
    content[where][0].update(values)
    return content


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([], r"instances\.json: expected COCO's instances file .*got no such lists"),
        ({"images": [], "annotations": [{"id": 1, "caption": "a cup"}]}, r"got a file of captions: name another"),
        (change(tiny_content(), "annotations", keypoints=[]), r"got a file of keypoints"),
        (change(tiny_content(), "annotations", segments_info=[]), r"got a file of panoptic masks"),
        ({"images": [], "annotations": []}, r"it has no categories"),
        ({**tiny_content(), "images": [{"id": 3}]}, r"entry 0 of its images lacks \['file_name', 'height', 'width'\]"),
        ({**tiny_content(), "annotations": [7]}, r"entry 0 of its annotations lacks all"),
        ({**tiny_content(), "annotations": []}, r"there are no annotations in it"),
        ({**tiny_content(), "categories": tiny_content()["categories"][:9]}, r"expected COCO's 80 .*got 9 categories;"),
        (change(tiny_content(), "categories", name="brush"), r"got 80 categories, not COCO's: brush; COCO-20i is"),
        (
            change(tiny_content(), "annotations", image_id=4),
            r"1 of its 8 .*name an image.*annotation 1 \(image_id 4\)",
        ),
        (change(tiny_content(), "annotations", category_id=12), r"name a category .*annotation 1 \(category_id 12\)"),
        (change(tiny_content(), "images", id=3), r"1 images are listed twice.*id 3;"),
        (change(tiny_content(), "images", file_name="000000000003.jpg"), r"listed twice.*file_name 000000000003\.jpg"),
        (
            change(tiny_content(), "images", id="11"),
            r"image '11': expected whole numbers as its id and width and height, got id '11'",
        ),
    ],
)
def test_annotation_file_of_another_kind_or_with_contradictions_is_named(root: Path, content: Any, text: str) -> None:
    write_json(root, content)
    with pytest.raises(ValueError, match=text):
        tiny(root).split("test")
    assert list(root.glob("masks_*")) == []


def test_cut_annotation_file_is_named(root: Path) -> None:
    path = root / "annotations" / "instances.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"instances\.json: is not a json file .*it may be truncated"):
        tiny(root).split("test")


@pytest.mark.parametrize(
    "shape",
    [
        "polygon",
        [1, 2, 3, 4, 5, 6],
        [["1", "2", "3", "4", "5", "6"]],
        [[True, 2, 3, 4, 5, 6]],
        [[[1, 2], [3, 4], [5, 6]]],
        [[1, 2, 3, 4, 5, 6, 7]],
        {"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH], "counts": [10, 20]},
        {"size": [HEIGHT, WIDTH], "counts": [10, 20 * HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH]},
        {"counts": [HEIGHT * WIDTH]},
        {"size": [str(HEIGHT), str(WIDTH)], "counts": [HEIGHT * WIDTH]},
        {"size": [HEIGHT, WIDTH], "counts": ["10", HEIGHT * WIDTH - 10]},
        {"size": [HEIGHT, WIDTH], "counts": [-10, HEIGHT * WIDTH + 10]},
        {"size": [HEIGHT, WIDTH], "counts": "Ph"},
        {"size": [HEIGHT, WIDTH], "counts": "é"},
    ],
)
def test_segmentation_that_cannot_be_drawn_is_named(root: Path, shape: object) -> None:
    write_json(root, change(tiny_content(), "annotations", segmentation=shape))
    with pytest.raises(ValueError, match=r"annotation 1: expected polygons .*40 x 50 \(height x width\) pixels"):
        tiny(root).split("test")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"segmentation": []},
            r"1 of its 8 annotations have no segmentation, and a box alone is no mask: annotation 1;",
        ),
        ({"segmentation": None}, r"1 of its 8 annotations have no segmentation"),
        (
            {"segmentation": [[1, 1], [40, 1], [40, 30]]},
            r"annotation 1: expected at least one polygon .*points in pairs",
        ),
        ({"segmentation": [[1, 1, 40, 30]]}, r"annotation 1: expected at least one polygon .*a box is no outline"),
        ({"segmentation": [[0.1, 0.2, 0.9, 0.2, 0.9, 1]]}, r"annotation 1: .* in pixels.*multiply x by 50 and y by 40"),
        ({"segmentation": box(60, 10, 70, 20)}, r"annotation 1: .* wholly outside, at x 60 to 70 and y 10 to 20"),
        ({"segmentation": box(10, -20, 20, -9)}, r"annotation 1: .* wholly outside, at x 10 to 20 and y -20 to -9"),
        ({"segmentation": box(0, 0, 10**400, 9)}, r"annotation 1: expected points in its image of 50 x 40 .*outside"),
        ({"segmentation": [[1, 1, float("nan"), 9, 9, 9]]}, r"annotation 1: expected points in its image"),
        ({"iscrowd": "0"}, r"have another iscrowd than the numbers 0 and 1: annotation 1 \('0'\); write numbers"),
        ({"iscrowd": None}, r"annotation 1 \(None\)"),
        ({"image_id": "3"}, r"annotation 1: expected whole numbers as .*got image_id '3'; write them as numbers"),
        ({"category_id": 1.5}, r"annotation 1: expected whole numbers as .*got category_id 1\.5"),
        ({"image_id": True}, r"annotation 1: expected whole numbers as .*got image_id True"),
    ],
)
def test_annotation_of_a_labelling_tool_that_would_lose_its_object_is_named(
    root: Path, values: dict[str, object], text: str
) -> None:
    write_json(root, change(tiny_content(), "annotations", **values))
    with pytest.raises(ValueError, match=text):
        tiny(root).split("test")
    assert list(root.glob("masks_*/manifest.json")) == []


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"width": "50", "height": "40"}, r"image 11: expected whole numbers as .*got width '50', height '40'; write"),
        ({"height": None}, r"image 11: .*got height None"),
        ({"file_name": 7}, r"image 11: expected text as file_name, got 7"),
    ],
)
def test_image_of_a_labelling_tool_with_text_as_numbers_is_named(
    root: Path, values: dict[str, object], text: str
) -> None:
    write_json(root, change(tiny_content(), "images", **values))
    with pytest.raises(ValueError, match=text):
        tiny(root).split("test")


def test_categories_that_share_an_id_are_refused(root: Path) -> None:
    content = tiny_content()
    for category, name in zip(content["categories"], COCO_CLASSES, strict=True):
        category.update(id=0, name=name)
    write_json(root, content)
    with pytest.raises(ValueError, match=r"several of its categories have the same id"):
        tiny(root).split("test")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_whole_numbers_as_floats_and_every_encoding_of_json_are_read(root: Path, encoding: str) -> None:
    expected = masks_of(tiny(root).split("test"))
    content = tiny_content()
    for entry in [*content["images"], *content["annotations"], *content["categories"]]:
        keys = ("id", "image_id", "category_id", "iscrowd", "height", "width")
        entry.update({key: float(entry[key]) for key in keys if key in entry})
    content["annotations"][5]["segmentation"]["size"] = [float(HEIGHT), float(WIDTH)]
    (root / "annotations" / "instances.json").write_bytes(json.dumps(content).encode(encoding))
    found = masks_of(tiny(root).split("test"))
    assert found.keys() == expected.keys()
    for number, mask in found.items():
        np.testing.assert_array_equal(mask, expected[number])


def test_leftovers_of_systems_are_not_named_as_images(root: Path) -> None:
    (root / "images" / "._000000000003.jpg").write_bytes(b"\0\5")
    (root / "images" / "000000000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"The folder holds 000000000007\.jpg"):
        tiny(root).split("test")


# --- crowds


def crowded(*numbers: int) -> Content:
    """The tiny content with these annotations marked as crowds, besides the sixth."""
    content = tiny_content()
    for each in content["annotations"]:
        each["iscrowd"] = int(each["id"] in numbers or each["iscrowd"])
    return content


def test_crowds_that_hide_a_class_are_counted_in_a_warning_at_every_start(root: Path) -> None:
    write_json(root, crowded(1, 2, 4))
    text = r"4 of its 8 annotations .*iscrowd = 1.*: bicycle \(2 of 2\), person \(2 of 4\)\. .*pass crowd=\"object\""
    for _ in range(2):
        with pytest.warns(UserWarning, match=text):
            source = tiny(root).split("test")
    assert source.classes_of(0) == []
    with pytest.warns(UserWarning, match=text):
        assert list(tiny(root).split("train").images_of(BICYCLE)) == []


def test_file_of_crowds_only_is_refused(root: Path) -> None:
    write_json(root, crowded(*range(1, 9)))
    with pytest.raises(ValueError, match=r"8 of its 8 annotations are marked as crowds .*pass crowd=\"object\""):
        tiny(root).split("test")
    assert list(root.glob("masks_*")) == []


@pytest.mark.parametrize("cache", [".", None])
def test_crowds_as_objects_are_drawn_like_other_instances(root: Path, cache: str | None) -> None:
    expected = tiny(root).split("test")
    masks = masks_of(expected)
    write_json(root, crowded(1, 2, 4, 7, 8))
    source = tiny(root, crowd="object", cache=cache).split("test")
    assert source.name == expected.name.replace("smaller_on_top", "smaller_on_top, crowds: object")
    found = masks_of(source)
    assert {int(number): int((mask == 255).sum()) for number, mask in found.items()} == dict.fromkeys(found, 0)
    for number in (3, 7, 20):
        np.testing.assert_array_equal(found[number], masks[number])
    # The crowd of persons in image 11 is smaller than the airplane, and now on top of it.
    assert int((found[11] == PERSON).sum()) == 8 * HEIGHT
    assert len(list(root.glob("masks_smaller_on_top_crowd_object_*"))) == (cache is not None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"crowd": "keep"}, r"``crowd``: expected one of void, object, got 'keep'"),
        ({"fold": 4}, r"``fold``: expected 0, 1, 2 or 3, got 4"),
        ({"folds": "panet"}, r"``folds``: expected one of interleaved, contiguous, got 'panet'"),
        ({"year": "2015"}, r"``year``: expected one of 2014, 2017, got '2015'"),
        ({"overlap": "larger_on_top"}, r"``overlap``: .*got 'larger_on_top'\. Did you mean 'smaller_on_top'"),
        ({"novel": "skip"}, r"``novel``: expected one of keep, drop, got 'skip'"),
        ({"min_area": 0}, r"``min_area``: expected at least 1, got 0"),
        ({"classes": ["aeroplane"]}, r"``classes``: .*got 'aeroplane'\. Did you mean 'airplane'"),
    ],
)
def test_constructor_rejects_unknown_rules(root: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tiny(root, **changes)


def test_missing_pycocotools_names_the_pip_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs pycocotools: pip install 'dpcn_modules\[coco\]'"):
        tiny(root).split("test")


# --- real images


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the real images' masks, shared by all tests."""
    return tmp_path_factory.mktemp("kept")


def on_boundary(mask: np.ndarray) -> np.ndarray:
    """The pixels with a neighbour, of eight, that has another value."""
    height, width = mask.shape
    padded = np.pad(mask, 1, mode="edge")
    shifts = [(y, x) for y in range(3) for x in range(3)]
    return np.any([padded[y : y + height, x : x + width] != mask for y, x in shifts], axis=0)


@pytest.mark.real_data
def test_real_masks_differ_from_given_ones_at_outlines_only(real_data: Path, kept: Path) -> None:
    """The given masks come from another renderer, which sets a pixel if half of it is covered (16 samples)."""
    root = real_data / "coco_subset"
    source = Coco20i(root, 0, cache=kept, min_area=1, **ONE_FILE).split("test")
    others = Coco20i(root, 0, cache=kept, min_area=1, **ONE_FILE).split("train")
    assert "(272 images" in source.name
    differing = 0
    for image_id in range(272):
        name = Path(source.image_name(image_id)).stem
        mask = source.load(image_id)[1].numpy()
        given = np.array(Image.open(root / "masks" / f"{name}.png"))
        odd = mask != given
        differing += int(odd.sum())
        assert not (odd & ~on_boundary(mask) & ~on_boundary(given)).any(), name
        # The edges change neither which classes are present nor which are large enough to count.
        found, wanted = (np.bincount(each.ravel(), minlength=256) for each in (mask, given))
        np.testing.assert_array_equal(found[:81] > 0, wanted[:81] > 0)
        np.testing.assert_array_equal(found[:81] >= 2048, wanted[:81] >= 2048)
        assert set(np.flatnonzero(found[1:81]) + 1) == {*source.classes_of(image_id), *others.classes_of(image_id)}
    assert 0 < differing < 0.002 * 272 * 480 * 640


@pytest.mark.real_data
@pytest.mark.parametrize("fold", range(4))
def test_real_folds_are_as_described_and_give_episodes(real_data: Path, kept: Path, fold: int) -> None:
    root = real_data / "coco_subset"
    described = json.loads((root / "classes.json").read_text())
    expected = {int(index): each["name"] for index, each in described.items() if each["fold"] == fold}
    assert coco_classes(fold, "test") == expected
    data = Coco20i(root, fold, cache=kept, **ONE_FILE)
    source = data.split("test")
    enough = [name for class_id, name in expected.items() if len(source.images_of(class_id)) > 1]
    assert enough
    source = Coco20i(root, fold, cache=kept, classes=enough, **ONE_FILE).split("test")
    episodes = EpisodeDataset(source, shot=1, episodes=1, seed=fold, transform=TestTransform(97))
    episode = episodes[0]
    assert expected[episode.class_id] in enough
    assert bool((episode.support_masks == 1).any())
    assert bool((episode.query_mask == 1).any())
