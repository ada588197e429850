"""Class folders: both layouts of masks, held-out classes, and images without a matching mask."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpcn_modules.data.datasets.class_folders import ClassFolders


def test_class_ids_follow_sorted_names(class_folders: Path) -> None:
    source = ClassFolders(class_folders).split("train")
    assert source.class_names == {1: "bowl", 2: "cup", 3: "fork", 4: "knife"}


def test_test_classes_are_held_out(class_folders: Path) -> None:
    data = ClassFolders(class_folders, test_classes=["knife", "cup"])
    train, test = data.split("train"), data.split("test")
    assert train.class_names == {1: "bowl", 3: "fork"}
    assert test.class_names == {2: "cup", 4: "knife"}
    assert train.name == "table train, 2 classes (8 images)"


def test_all_classes_are_in_both_splits_without_test_classes(class_folders: Path) -> None:
    data = ClassFolders(class_folders)
    assert data.split("test").class_names == data.split("train").class_names
    assert data.split("test").name == "table all classes, 4 classes (16 images)"


@pytest.mark.parametrize(
    ("class_id", "first"), [(1, "bowl/0.jpg"), (2, "cup/0.jpg"), (3, "fork/0.jpg"), (4, "knife/0.png")]
)
def test_masks_of_either_layout_hold_the_class_id(class_folders: Path, class_id: int, first: str) -> None:
    source = ClassFolders(class_folders).split("test")
    images = source.images_of(class_id)
    assert len(images) == 4
    image, mask = source.load(images[0])
    assert source.image_name(images[0]) == first
    assert source.classes_of(images[0]) == [class_id]
    assert image.shape == (3, 60, 80)
    assert torch.unique(mask).tolist() == [0, class_id]
    assert int((mask == class_id).sum()) == 400


def test_void_stays_void(class_folders: Path) -> None:
    pixels = np.array(Image.open(class_folders / "bowl" / "0.png"))
    pixels[0] = 255
    Image.fromarray(pixels).save(class_folders / "bowl" / "0.png")
    with pytest.raises(ValueError, match=r"0\.png: 400 pixels have the value 1 and 80 the value 255.*``void=255``"):
        ClassFolders(class_folders).split("test")
    _, mask = ClassFolders(class_folders, void=255).split("test").load(0)
    assert torch.unique(mask).tolist() == [0, 1, 255]
    _, mask = ClassFolders(class_folders, object=255).split("test").load(0)
    assert int((mask == 1).sum()) == 80


def test_image_without_foreground_is_not_sampled(class_folders: Path) -> None:
    Image.new("L", (80, 60)).save(class_folders / "cup" / "2.png")
    source = ClassFolders(class_folders).split("test")
    assert [source.image_name(each) for each in source.images_of(2)] == [
        "cup/0.jpg",
        "cup/1.jpg",
        "cup/3.jpg",
    ]


def test_more_classes_than_a_byte_holds_skip_the_void_value(tmp_path: Path) -> None:
    for number in range(257):
        folder = tmp_path / "many" / f"{number:03d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(folder / "a.jpg")
        Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8)).save(folder / "a.png")
    source = ClassFolders(tmp_path / "many").split("test")
    assert list(source.class_names) == [*range(1, 255), 256, 257, 258]
    for class_id in (254, 256, 258):
        _, mask = source.load(source.images_of(class_id)[0])
        assert mask.tolist() == [[0, class_id], [0, class_id]]


@pytest.mark.parametrize("make", [False, True])
def test_missing_or_empty_folder_shows_expected_tree(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError, match=r"mine: there (is|are) no (.|\n)*cup/1\.jpg, cup/1\.png"):
        ClassFolders(tmp_path / "mine")


def test_unknown_classes_are_named(class_folders: Path) -> None:
    text = r"``test_classes``: 1 of its 2 classes .*: cups\. Did you mean 'cup'\? The folders: bowl, "
    with pytest.raises(ValueError, match=text):
        ClassFolders(class_folders, test_classes=["bowl", "cups"])
    with pytest.raises(ValueError, match=r"``train_classes``: 7 of its 7 .*a, b, c, d, e and 2 more\. The"):
        ClassFolders(class_folders, train_classes=list("abcdefg"))


def test_classes_on_neither_side_are_left_out(class_folders: Path) -> None:
    data = ClassFolders(class_folders, train_classes=["fork", "bowl"], test_classes=["knife"])
    assert data.split("train").class_names == {1: "bowl", 3: "fork"}
    assert data.split("test").class_names == {4: "knife"}


def test_classes_not_trained_on_are_held_out_where_none_are_named(class_folders: Path) -> None:
    data = ClassFolders(class_folders, train_classes=["fork", "bowl"])
    assert data.split("test").class_names == {2: "cup", 4: "knife"}
    assert data.split("test").name == "table test, 2 classes (8 images)"


def test_class_on_both_sides_is_an_error(class_folders: Path) -> None:
    with pytest.raises(ValueError, match=r"``test_classes``: 1 of them are in ``train_classes`` too: cup;"):
        ClassFolders(class_folders, train_classes=["cup", "bowl"], test_classes=["cup"])


@pytest.mark.parametrize("kind", [str, Path])
def test_classes_are_read_from_a_text_file(class_folders: Path, tmp_path: Path, kind: type) -> None:
    path = tmp_path / "held_out.txt"
    path.write_text("\ufeffknife\r\n\n  cup \n", encoding="utf-8")
    data = ClassFolders(class_folders, test_classes=kind(path))
    assert data.split("test").class_names == {2: "cup", 4: "knife"}
    assert data.split("train").class_names == {1: "bowl", 3: "fork"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_classes_are_read_from_a_text_file_of_a_windows_editor(
    class_folders: Path, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "held_out.txt"
    path.write_bytes("knife\r\ncup\r\n".encode(encoding))
    assert ClassFolders(class_folders, test_classes=path).split("test").class_names == {2: "cup", 4: "knife"}


def test_leftovers_of_systems_are_neither_classes_nor_images(class_folders: Path) -> None:
    expected = ClassFolders(class_folders).split("test")
    for folder in ("__MACOSX/cup", "@eaDir", ".ipynb_checkpoints", "cup/@eaDir", "$RECYCLE.BIN"):
        (class_folders / folder).mkdir(parents=True)
    for name in ("__MACOSX/cup/._0.jpg", "cup/._0.jpg", "cup/._0.png", "cup/.DS_Store", "fork/._1_mask.png"):
        (class_folders / name).write_bytes(b"\0\5\x16\7Mac OS X")
    source = ClassFolders(class_folders).split("test")
    assert source.class_names == expected.class_names
    assert [source.image_name(each) for each in source.images] == [expected.image_name(each) for each in source.images]


def in_folders_of_their_own(folder: Path, images: str = "images", masks: str = "masks") -> None:
    """Move the images and masks of cup or fork into two folders."""
    for below, pattern in ((images, "*.jpg"), (masks, "*.png")):
        (folder / below).mkdir()
        for path in folder.glob(pattern):
            path.rename(folder / below / path.name)


@pytest.mark.parametrize(("name", "below"), [("cup", ("images", "masks")), ("fork", ("Images", "Masks"))])
def test_images_and_masks_may_lie_in_folders_of_their_own(
    class_folders: Path, name: str, below: tuple[str, str]
) -> None:
    before = ClassFolders(class_folders, train_classes=[name]).split("train")
    expected = [before.load(each) for each in before.images]
    in_folders_of_their_own(class_folders / name, *below)
    (class_folders / name / below[0] / "._0.jpg").write_bytes(b"\0\5")
    after = ClassFolders(class_folders, train_classes=[name]).split("train")
    assert [after.image_name(each) for each in after.images] == [f"{name}/{below[0]}/{each}.jpg" for each in range(4)]
    for each, old in zip(after.images, expected, strict=True):
        assert all(map(torch.equal, after.load(each), old))


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (
            lambda cup: (cup / "masks/1.png").unlink(),
            r"1\.jpg: expected one mask, 1\.png or 1_mask\.png in masks, got n",
        ),
        (lambda cup: (cup / "images/1.jpg").unlink(), r"masks/1\.png: a mask without its image"),
        (lambda cup: (cup / "images/1.jpg").rename(cup / "1.jpg"), r"cup: holds images/ and masks/, and 1\.jpg beside"),
        (
            lambda cup: (cup / "images/1.jpg").rename(cup / "images/0.jpeg"),
            r"0\.png: the mask of 0\.jpeg and of 0\.jpg;",
        ),
        (
            lambda cup: (cup / "masks").rename(cup / "labels"),
            r"cup: a class folder without .* holds the folders images, l",
        ),
    ],
)
def test_folders_of_images_and_masks_that_do_not_match_are_named(
    class_folders: Path, act: Callable[[Path], object], text: str
) -> None:
    in_folders_of_their_own(class_folders / "cup")
    act(class_folders / "cup")
    with pytest.raises(ValueError, match=text):
        ClassFolders(class_folders).split("test")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ("images", "masks"),
            r"expected one folder per class, got images, masks; .*table/cup/images and table/cup/masks",
        ),
        (("Images", "notes", "GT"), r"expected one folder per class, got GT, Images, notes"),
        (("train", "val"), r"expected one folder per class, got train, val, which are names of splits"),
        (("test",), r"expected one folder per class, got test, which"),
    ],
)
def test_folders_that_are_not_classes_are_named(tmp_path: Path, names: tuple[str, ...], text: str) -> None:
    for name in names:
        (tmp_path / "table" / name).mkdir(parents=True)
    with pytest.raises(ValueError, match=text):
        ClassFolders(tmp_path / "table")


def test_mask_saved_as_jpeg_is_named(class_folders: Path) -> None:
    path = class_folders / "fork" / "1_mask.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    with pytest.raises(
        ValueError, match=r"1\.jpg: expected one mask.*If 1_mask\.jpg is its mask, save it as a PNG: JPEG"
    ):
        ClassFolders(class_folders).split("test")


def test_text_file_that_cannot_be_used_is_named(class_folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "held_out.txt"
    with pytest.raises(FileNotFoundError, match=r"``test_classes``: there is no file .*held_out\.txt; write one"):
        ClassFolders(class_folders, test_classes=path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"``test_classes`` of .*held_out\.txt: expected one class name a line"):
        ClassFolders(class_folders, test_classes=path)
    path.write_text("knife\nplate\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"held_out\.txt: 1 of its 2 classes have no folder in .*: plate\. The"):
        ClassFolders(class_folders, test_classes=path)


def test_one_name_without_a_list_is_an_error(class_folders: Path) -> None:
    with pytest.raises(ValueError, match=r"``test_classes``: expected names or the path of a \.txt file, got 'cup'"):
        ClassFolders(class_folders, test_classes="cup")


@pytest.mark.parametrize(("test_classes", "split"), [([], "test"), (["bowl", "cup", "fork", "knife"], "train")])
def test_split_without_classes_is_an_error(class_folders: Path, test_classes: list[str], split: str) -> None:
    data = ClassFolders(class_folders, test_classes=test_classes)
    with pytest.raises(ValueError, match=rf"``test_classes``: no class is left for {split}; .*bowl, cup"):
        data.split(split)  # type: ignore[arg-type]


def test_unknown_split_is_an_error(class_folders: Path) -> None:
    with pytest.raises(ValueError, match=r"``split``: expected one of train, test, got 'val'"):
        ClassFolders(class_folders).split("val")  # type: ignore[arg-type]


def test_class_folder_without_images_is_named(class_folders: Path) -> None:
    (class_folders / "plate").mkdir()
    (class_folders / "plate" / "notes.txt").write_text("none yet", encoding="utf-8")
    with pytest.raises(ValueError, match=r"plate: a class folder without images"):
        ClassFolders(class_folders).split("train")


@pytest.mark.parametrize(
    ("lost", "text"),
    [
        ("cup/1.png", r"1\.jpg: expected one mask, 1\.png or 1_mask\.png, beside the image, got neither"),
        ("fork/1_mask.png", r"1\.jpg: expected one mask, 1\.png or 1_mask\.png, .* got neither"),
        ("knife/1_mask.png", r"1\.png: expected one mask, 1_mask\.png, .* got neither"),
        ("cup/1.jpg", r"1\.png: expected one mask, .*If it is itself a mask, its image 1\.jpg is missing"),
        ("fork/1.jpg", r"1_mask\.png: a mask without its image"),
    ],
)
def test_file_without_partner_is_named(class_folders: Path, lost: str, text: str) -> None:
    (class_folders / lost).unlink()
    with pytest.raises(ValueError, match=text):
        ClassFolders(class_folders).split("train")


def test_image_with_two_masks_is_named(class_folders: Path) -> None:
    Image.new("L", (80, 60)).save(class_folders / "cup" / "1_mask.png")
    with pytest.raises(ValueError, match=r"1\.jpg: expected one mask.*got 1\.png and 1_mask\.png"):
        ClassFolders(class_folders).split("train")


def test_mask_with_other_values_is_named(class_folders: Path) -> None:
    Image.fromarray(np.full((60, 80), 9, np.uint8)).save(class_folders / "cup" / "1.png")
    with pytest.raises(ValueError, match=r"cup/1\.png: expected the mask of one object.*got 9"):
        ClassFolders(class_folders).split("train")


def test_mask_of_another_size_is_named(class_folders: Path) -> None:
    Image.new("L", (60, 80)).save(class_folders / "cup" / "1.png")
    with pytest.raises(ValueError, match=r"cup/1\.jpg is 80 x 60 .*cup/1\.png is 60 x 80"):
        ClassFolders(class_folders).split("train")
