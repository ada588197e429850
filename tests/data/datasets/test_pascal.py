"""PASCAL-5i: folds, lists, the area and novel-class rules, and invalid folders."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpcn_modules.data.datasets.files import FileImages
from dpcn_modules.data.datasets.folds import PASCAL_CLASSES, pascal_classes
from dpcn_modules.data.datasets.pascal import Pascal5i

LISTS = Path("ImageSets", "Segmentation")


def classes_in(voc: Path, source: FileImages, image_id: int) -> set[int]:
    name = Path(source.image_name(image_id)).stem
    mask = np.array(Image.open(voc / "SegmentationClassAug" / f"{name}.png"))
    return set(np.unique(mask).tolist()) - {0, 255}


@pytest.mark.parametrize("fold", range(4))
def test_pascal_classes_are_disjoint_and_complete_in_every_fold(fold: int) -> None:
    train, test = pascal_classes(fold, "train"), pascal_classes(fold, "test")
    assert list(test) == [5 * fold + i for i in range(1, 6)]
    assert not train.keys() & test.keys()
    assert {**train, **test} == dict(enumerate(PASCAL_CLASSES, start=1))


def test_pascal_classes_follow_voc_order() -> None:
    assert pascal_classes(3, "test") == {
        16: "pottedplant",
        17: "sheep",
        18: "sofa",
        19: "train",
        20: "tvmonitor",
    }


@pytest.mark.parametrize("fold", [-1, 4, "0"])
def test_pascal_classes_rejects_unknown_fold(fold: int) -> None:
    with pytest.raises(ValueError, match=rf"``fold``: expected 0, 1, 2 or 3, got {fold!r}"):
        pascal_classes(fold, "test")


def test_pascal_classes_rejects_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"``split``: expected one of train, test, got 'val'"):
        pascal_classes(0, "val")  # type: ignore[arg-type]


@pytest.mark.parametrize("fold", range(4))
def test_splits_offer_disjoint_classes(voc: Path, fold: int) -> None:
    data = Pascal5i(voc, fold, min_area=300)
    train, test = data.split("train"), data.split("test")
    assert train.class_names == pascal_classes(fold, "train")
    assert test.class_names == pascal_classes(fold, "test")
    for source in (train, test):
        offered = {each for image_id in source.images for each in source.classes_of(image_id)}
        assert offered == set(source.class_names)


def test_split_indexes_what_the_masks_hold(voc: Path) -> None:
    source = Pascal5i(voc, 1, min_area=300).split("train")
    assert source.name == "pascal5i fold 1 train, trainaug.txt (60 images, area >= 300 px, held-out classes: keep)"
    for image_id in source.images:
        present = classes_in(voc, source, image_id) & set(source.class_names)
        assert set(source.classes_of(image_id)) == present
        for class_id in source.class_names:
            assert (image_id in source.images_of(class_id)) == (class_id in present)


def test_load_gives_image_and_mask_of_class_ids(voc: Path) -> None:
    source = Pascal5i(voc, 0, min_area=300).split("test")
    image_id = source.images_of(3)[0]
    image, mask = source.load(image_id)
    assert image.dtype == mask.dtype == torch.uint8
    assert image.shape == (3, *mask.shape) == (3, 60, 80)
    assert torch.unique(mask).tolist() == [0, 3, 255]
    assert source.image_name(image_id) == "val_002.jpg"


def test_class_counts_from_min_area_on(voc: Path) -> None:
    def images(min_area: int) -> list[int]:
        return list(Pascal5i(voc, 0, min_area=min_area).split("test").images_of(1))

    assert len(images(400)) == 3
    assert images(401) == []


def test_tiny_class_is_present_but_does_not_count(voc: Path) -> None:
    path = voc / "SegmentationClassAug" / "val_000.png"
    mask = np.array(Image.open(path))
    mask[50, :10] = 2
    Image.fromarray(mask).save(path)
    source = Pascal5i(voc, 0, min_area=300).split("test")
    assert source.classes_of(0) == [1, 2]
    assert 0 in source.images_of(1)
    assert 0 not in source.images_of(2)


def test_novel_rule_keeps_or_drops_training_images_with_held_out_classes(voc: Path) -> None:
    kept = Pascal5i(voc, 0, min_area=300).split("train")
    dropped = Pascal5i(voc, 0, min_area=300, novel="drop").split("train")
    held_out = set(pascal_classes(0, "test"))

    def names(source: FileImages, *, clean: bool) -> set[str]:
        return {
            source.image_name(image_id)
            for image_id in source.images
            if not (clean and classes_in(voc, source, image_id) & held_out)
        }

    assert names(dropped, clean=False) == names(kept, clean=True)
    assert len(dropped.images) < len(kept.images)


def test_novel_rule_leaves_test_images_alone(voc: Path) -> None:
    sources = [Pascal5i(voc, 0, min_area=300, novel=rule).split("test") for rule in ("keep", "drop")]
    assert sources[0].images == sources[1].images


def test_novel_rule_drops_images_of_held_out_classes_that_were_not_asked_for(voc: Path) -> None:
    data = Pascal5i(voc, 0, min_area=300, novel="drop", classes=["bird", "sheep"])
    source = data.split("train")
    held_out = set(pascal_classes(0, "test"))
    assert len(source.images) > 0
    assert not any(classes_in(voc, source, image_id) & held_out for image_id in source.images)


def test_classes_restrict_both_splits_and_stay_on_their_side(voc: Path) -> None:
    data = Pascal5i(voc, 0, min_area=300, classes=["sheep", "bird", "dog"])
    assert data.split("train").class_names == {12: "dog", 17: "sheep"}
    test = data.split("test")
    assert test.class_names == {3: "bird"}
    assert list(test.images) == list(test.images_of(3))


def test_classes_can_be_held_out_by_name_in_place_of_the_folds(voc: Path) -> None:
    data = Pascal5i(voc, 0, min_area=300, held_out=("aeroplane", "car"))
    train, test = data.split("train"), data.split("test")
    assert set(test.class_names.values()) == {"aeroplane", "car"}
    assert set(train.class_names.values()) == set(PASCAL_CLASSES) - {"aeroplane", "car"}
    assert test.name.startswith("pascal5i without aeroplane, car, test")
    with pytest.raises(ValueError, match=r"``held_out``: expected one of .*Did you mean 'car'"):
        Pascal5i(voc, 0, held_out=("cars",))


def test_classes_rejects_unknown_name(voc: Path) -> None:
    with pytest.raises(ValueError, match=r"``classes``: .*tvmonitor, got 'airplane'\. Did you mean 'aeroplane'"):
        Pascal5i(voc, 0, classes=["dog", "airplane"])


def test_classes_that_leave_a_split_empty_are_named(voc: Path) -> None:
    with pytest.raises(ValueError, match=r"none of dog, sheep is a test class of fold 0; these are: aeroplane"):
        Pascal5i(voc, 0, classes=["dog", "sheep"]).split("test")


@pytest.mark.parametrize("slash", ["", "/"])
def test_list_of_pairs_gives_the_images_of_a_list_of_ids(voc: Path, slash: str) -> None:
    ids = (voc / LISTS / "val.txt").read_text(encoding="utf-8").split()
    lines = [f"{slash}JPEGImages/{each}.jpg {slash}SegmentationClassAug/{each}.png\n" for each in ids]
    (voc / LISTS / "val_pairs.txt").write_text("".join(lines), encoding="utf-8")
    by_id = Pascal5i(voc, 2, min_area=300).split("test")
    by_pair = Pascal5i(voc, 2, min_area=300, test_list="val_pairs").split("test")
    for class_id in by_id.class_names:
        assert by_pair.images_of(class_id) == by_id.images_of(class_id)
    assert by_pair.image_name(0) == by_id.image_name(0)


def test_list_may_be_a_path(voc: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("val_000\nval_020\n\n", encoding="utf-8")
    for test_list in (own, str(own)):
        source = Pascal5i(voc, 0, min_area=300, test_list=test_list).split("test")
        assert [source.image_name(each) for each in source.images] == ["val_000.jpg", "val_020.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("line", ["{0}", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"])
def test_list_of_a_windows_editor_is_read(voc: Path, tmp_path: Path, line: str, encoding: str) -> None:
    own = tmp_path / "own.txt"
    own.write_bytes("\r\n".join(line.format(each) for each in ("val_000", "val_020")).encode(encoding))
    source = Pascal5i(voc, 0, min_area=300, test_list=own).split("test")
    assert [source.image_name(each) for each in source.images] == ["val_000.jpg", "val_020.jpg"]


def test_masks_come_from_segmentation_class_where_aug_is_absent(make_voc: object) -> None:
    voc = make_voc("SegmentationClass")  # type: ignore[operator]
    assert len(Pascal5i(voc, 0, min_area=300).split("test").images) == 15


def test_mask_folder_can_be_named(voc: Path) -> None:
    (voc / "SegmentationClassAug").rename(voc / "MyMasks")
    assert len(Pascal5i(voc, 0, min_area=300, mask_folder="MyMasks").split("test").images) == 15
    with pytest.raises(FileNotFoundError, match=r"no mask folder SegmentationClassAug or SegmentationClass"):
        Pascal5i(voc, 0)


def test_source_survives_pickling(voc: Path) -> None:
    source = Pascal5i(voc, 0, min_area=300).split("test")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.images == source.images
    assert torch.equal(copy.load(0)[1], source.load(0)[1])


def test_missing_folder_shows_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: there is no VOC folder(.|\n)*JPEGImages/2007_000032"):
        Pascal5i(tmp_path / "nowhere", 0)


def test_missing_list_names_the_present_ones(voc: Path) -> None:
    (voc / LISTS / "._val.txt").write_bytes(b"\0\5")
    with pytest.raises(FileNotFoundError, match=r"``train_list``: there is no list 'train'.*: trainaug, val\."):
        Pascal5i(voc, 0, train_list="train").split("train")


def test_missing_files_are_counted_in_one_error(voc: Path) -> None:
    for number in range(8):
        (voc / "JPEGImages" / f"val_{number:03d}.jpg").unlink()
    (voc / "SegmentationClassAug" / "val_003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"9 of its 120 files are missing") as caught:
        Pascal5i(voc, 0).split("test")
    text = str(caught.value)
    assert "val_000.jpg" in text
    assert "val_003.png" in text
    assert "and 4 more" in text
    assert "Expected tree" in text


def test_truncated_mask_is_named_before_training(voc: Path) -> None:
    path = voc / "SegmentationClassAug" / "val_033.png"
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(ValueError, match=r"val_033\.png: cannot be decoded"):
        Pascal5i(voc, 0).split("test")


def test_mask_of_another_size_is_named_with_its_image(voc: Path) -> None:
    Image.new("RGB", (60, 80)).save(voc / "JPEGImages" / "val_007.jpg")
    with pytest.raises(ValueError, match=r"val_007\.jpg is 60 x 80 .*val_007\.png is 80 x 60"):
        Pascal5i(voc, 0).split("test")


def test_image_turned_by_exif_has_its_turned_size(voc: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 80)).save(voc / "JPEGImages" / "val_000.jpg", exif=exif)
    image, mask = Pascal5i(voc, 0, min_area=300).split("test").load(0)
    assert image.shape == (3, *mask.shape)


def test_mask_with_unknown_class_ids_is_named(voc: Path) -> None:
    Image.fromarray(np.full((60, 80), 37, np.uint8)).save(voc / "SegmentationClassAug" / "val_009.png")
    with pytest.raises(ValueError, match=r"val_009\.png: expected the class ids 1 to 20.*got 37;"):
        Pascal5i(voc, 0).split("test")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", r"own\.txt: the list is empty"),
        ("val_000\na b c\n", r"own\.txt, line 2: expected an id or 'image mask', got 'a b c'"),
        ("val_000\nval_001\nval_000\n", r"own\.txt, line 3: val_000 is listed twice"),
    ],
)
def test_malformed_list_is_named(voc: Path, tmp_path: Path, content: str, text: str) -> None:
    (tmp_path / "own.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=text):
        Pascal5i(voc, 0, test_list=tmp_path / "own.txt").split("test")


def test_constructor_rejects_unknown_rules(voc: Path) -> None:
    with pytest.raises(ValueError, match=r"``novel``: expected one of keep, drop, got 'skip'"):
        Pascal5i(voc, 0, novel="skip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"``min_area``: expected at least 1, got 0"):
        Pascal5i(voc, 0, min_area=0)
    with pytest.raises(ValueError, match=r"``fold``: expected 0, 1, 2 or 3, got 4"):
        Pascal5i(voc, 4)


# How many images hold at least 2048 pixels of a class, from the data set's own description.
REAL_COUNTS = {
    **{"aeroplane": 0, "bicycle": 7, "bird": 9, "boat": 5, "bottle": 24},
    **{"bus": 1, "car": 56, "cat": 116, "chair": 62, "cow": 62},
    **{"diningtable": 22, "dog": 136, "horse": 62, "motorbike": 9, "person": 98},
    **{"pottedplant": 52, "sheep": 62, "sofa": 62, "train": 2, "tvmonitor": 38},
}


@pytest.mark.real_data
@pytest.mark.parametrize("test_list", ["all", "all_pairs"])
def test_real_images_are_counted_as_described(real_data: Path, test_list: str) -> None:
    data = Pascal5i(real_data / "voc2012_subset", 1, train_list=test_list, test_list=test_list)
    counts = {
        name: len(source.images_of(class_id))
        for source in (data.split("train"), data.split("test"))
        for class_id, name in source.class_names.items()
    }
    assert counts == REAL_COUNTS
