"""PASCAL-5i from the raw downloads: lists, masks, existing files and incomplete downloads."""

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from dpcn_modules.data.datasets.pascal import Pascal5i
from dpcn_modules.data.datasets.prepare_pascal import FULL, PascalReport, PreparedList, prepare_pascal
from dpcn_modules.data.io import load_mask
from dpcn_modules.data.palettes import VOC_COLOURS

LISTS = Path("ImageSets", "Segmentation")
VOC_TRAIN = ["2007_000001", "2008_000001"]
VOC_VAL = ["2007_000002", "2008_000002", "2008_000003"]
SBD_TRAIN = ["2008_000001", "2008_000002", "2009_000001", "2009_000002"]
SBD_VAL = ["2008_000003", "2010_000001", "2010_000002"]
SBD_TRAIN_NOVAL = ["2008_000001", "2009_000001", "2010_000001"]
VOC_MAIN_VAL = ["2008_000002", "2008_000003", "2009_000002", "2010_000002"]

TRAINAUG = ["2007_000001", "2008_000001", "2009_000001", "2009_000002", "2010_000001", "2010_000002"]
PFENET = ["2007_000001", "2008_000001", "2009_000001", "2010_000001"]
EVERY_MASK = sorted({*TRAINAUG, *VOC_VAL})


def mask_of(name: str, *, void: bool) -> np.ndarray:
    """A square of one class; its place and class follow from the name."""
    year, number = int(name[2:4]), int(name[-1])
    mask = np.zeros((40, 50), np.uint8)
    mask[5 : 15 + year, 10 : 20 + number] = year + number
    mask[0] = 255 if void else 0
    return mask


def write_list(path: Path, names: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_mat(sbd: Path, name: str, mask: np.ndarray) -> None:
    target = {"Boundaries": np.zeros((20, 1)), "Segmentation": mask, "CategoriesPresent": np.array([7])}
    savemat(sbd / "cls" / f"{name}.mat", {"GTcls": target}, do_compression=True)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC 2012 with nine images, five of them with a mask."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    write_list(root / LISTS / "train.txt", VOC_TRAIN)
    write_list(root / LISTS / "val.txt", VOC_VAL)
    write_list(root / "ImageSets" / "Main" / "val.txt", VOC_MAIN_VAL)
    for name in EVERY_MASK:
        Image.new("RGB", (50, 40)).save(root / "JPEGImages" / f"{name}.jpg")
    for name in [*VOC_TRAIN, *VOC_VAL]:
        image_id = Image.fromarray(mask_of(name, void=True))
        image_id.putpalette([part for colour in VOC_COLOURS for part in colour])
        image_id.save(root / "SegmentationClass" / f"{name}.png")
    return root


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    """SBD with seven masks, three of them of images that also have a VOC mask."""
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    (root / "cls").mkdir(parents=True)
    write_list(root / "train.txt", SBD_TRAIN)
    write_list(root / "val.txt", SBD_VAL)
    write_list(root / "train_noval.txt", SBD_TRAIN_NOVAL)
    for name in [*SBD_TRAIN, *SBD_VAL]:
        write_mat(root, name, mask_of(name, void=False))
    return root


def by_name(report: PascalReport, name: str) -> PreparedList:
    return next(each for each in report.lists if each.name == name)


def ids(root: Path, name: str) -> list[str]:
    return (root / LISTS / f"{name}.txt").read_text(encoding="utf-8").split()


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def test_trainaug_is_all_of_sbd_and_voc_train_without_voc_val(voc: Path, sbd: Path) -> None:
    report = prepare_pascal(voc, sbd)
    assert ids(voc, "trainaug") == TRAINAUG == list(by_name(report, "trainaug").ids)


def test_pfenet_is_train_noval_merged_with_voc_train_without_doubles(voc: Path, sbd: Path) -> None:
    report = prepare_pascal(voc, sbd)
    assert ids(voc, "pfenet") == PFENET == list(by_name(report, "pfenet").ids)
    assert report.found["SBD train_noval"] == 3


def test_pfenet_comes_from_the_val_of_detection_where_train_noval_is_absent(voc: Path, sbd: Path) -> None:
    (sbd / "train_noval.txt").unlink()
    report = prepare_pascal(voc, sbd)
    assert ids(voc, "pfenet") == PFENET
    assert report.found["SBD without VOC's Main val"] == 3


def test_pfenet_is_not_made_without_train_noval_and_the_val_of_detection(voc: Path, sbd: Path) -> None:
    (sbd / "train_noval.txt").unlink()
    (voc / "ImageSets" / "Main" / "val.txt").unlink()
    report = prepare_pascal(voc, sbd)
    assert by_name(report, "pfenet").state == "not made"
    assert "needs SBD's train_noval.txt" in report.missing["list pfenet"]
    assert not (voc / LISTS / "pfenet.txt").exists()
    assert ids(voc, "trainaug") == TRAINAUG


def test_images_of_voc_val_are_never_trained_on(voc: Path, sbd: Path) -> None:
    write_list(sbd / "train_noval.txt", [*SBD_TRAIN_NOVAL, VOC_VAL[1]])
    prepare_pascal(voc, sbd)
    assert ids(voc, "pfenet") == PFENET


def test_digest_is_the_hash_of_the_sorted_ids(voc: Path, sbd: Path) -> None:
    made = by_name(prepare_pascal(voc, sbd), "pfenet")
    assert made.digest == "e10d16db4c0a"
    assert hashlib.sha256(made.path.read_bytes()).hexdigest().startswith(made.digest)


def test_digest_does_not_follow_the_order_of_the_downloads(voc: Path, sbd: Path, tmp_path: Path) -> None:
    digests = [each.digest for each in prepare_pascal(voc, sbd).lists]
    write_list(sbd / "train_noval.txt", SBD_TRAIN_NOVAL[::-1])
    write_list(voc / LISTS / "train.txt", VOC_TRAIN[::-1])
    assert [each.digest for each in prepare_pascal(voc, sbd, out=tmp_path / "other").lists] == digests


def test_mask_is_vocs_where_voc_has_one_else_sbds(voc: Path, sbd: Path) -> None:
    report = prepare_pascal(voc, sbd)
    assert list(report.masks["written"]) == EVERY_MASK
    for name in EVERY_MASK:
        path = voc / "SegmentationClassAug" / f"{name}.png"
        own = name in (*VOC_TRAIN, *VOC_VAL)
        assert np.array_equal(np.array(Image.open(path)), mask_of(name, void=own))
        if own:
            assert path.read_bytes() == (voc / "SegmentationClass" / f"{name}.png").read_bytes()


def test_sbd_masks_have_vocs_colours(voc: Path, sbd: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[0, :3] = 1, 15, 20
    write_mat(sbd, "2009_000001", mask)
    prepare_pascal(voc, sbd)
    image_id = Image.open(voc / "SegmentationClassAug" / "2009_000001.png")
    assert image_id.mode == "P"
    colours = np.array(image_id.convert("RGB"))[0, :4].tolist()
    assert colours == [[128, 0, 0], [192, 128, 128], [0, 64, 128], [0, 0, 0]]


@pytest.mark.parametrize("level", ["benchmark_RELEASE/dataset", "benchmark_RELEASE", "."])
def test_sbd_is_found_at_every_level_of_its_archive(voc: Path, sbd: Path, tmp_path: Path, level: str) -> None:
    assert by_name(prepare_pascal(voc, tmp_path / level), "trainaug").ids == tuple(TRAINAUG)


@pytest.mark.parametrize("name", ["pfenet", "trainaug"])
def test_pascal5i_reads_the_lists(voc: Path, sbd: Path, name: str) -> None:
    prepare_pascal(voc, sbd)
    data = Pascal5i(voc, 0, train_list=name, min_area=1)
    source = data.split("train")
    expected = PFENET if name == "pfenet" else TRAINAUG
    assert [source.image_name(each) for each in source.images] == [f"{each}.jpg" for each in expected]
    assert torch.equal(source.load(0)[1], torch.from_numpy(mask_of(expected[0], void=True)))


def test_out_leaves_voc_alone_and_its_lists_are_read_with_vocs_folder(voc: Path, sbd: Path, tmp_path: Path) -> None:
    before = snapshot(voc)
    made = by_name(prepare_pascal(voc, sbd, out=tmp_path / "deep" / "prepared"), "pfenet")
    assert snapshot(voc) == before
    assert made.path == tmp_path / "deep" / "prepared" / LISTS / "pfenet.txt"
    assert made.digest == "e10d16db4c0a"
    source = Pascal5i(voc, 0, train_list=made.path, min_area=1).split("train")
    assert [source.image_name(each) for each in source.images] == [f"{each}.jpg" for each in PFENET]
    assert torch.equal(source.load(2)[1], torch.from_numpy(mask_of("2009_000001", void=False)))


def test_lists_of_out_hold_where_voc_is_a_link(voc: Path, sbd: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "voc").symlink_to(voc)
    made = by_name(prepare_pascal(tmp_path / "links" / "voc", sbd, out=tmp_path / "prepared"), "pfenet")
    assert len(Pascal5i(tmp_path / "links" / "voc", 0, train_list=made.path, min_area=1).split("train").images) == 4


def test_out_that_is_voc_itself_gives_lists_of_ids(voc: Path, sbd: Path) -> None:
    prepare_pascal(voc, sbd, out=voc.parent / "." / voc.name)
    assert ids(voc, "pfenet") == PFENET


def test_repeat_run_changes_nothing(voc: Path, sbd: Path, tmp_path: Path) -> None:
    first = prepare_pascal(voc, sbd)
    before = snapshot(tmp_path)
    for force in (False, True):
        report = prepare_pascal(voc, sbd, force=force)
        assert snapshot(tmp_path) == before
        assert list(report.masks["unchanged"]) == EVERY_MASK
        assert [each.state for each in report.lists] == ["unchanged", "unchanged"]
        assert [each.digest for each in report.lists] == [each.digest for each in first.lists]


def test_interrupted_run_can_be_repeated(voc: Path, sbd: Path) -> None:
    def three(names: Sequence[str]) -> Iterable[str]:
        yield from names[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_pascal(voc, sbd, progress=three)
    folder = voc / "SegmentationClassAug"
    assert sorted(path.stem for path in folder.iterdir()) == EVERY_MASK[:3]
    report = prepare_pascal(voc, sbd)
    assert list(report.masks["unchanged"]) == EVERY_MASK[:3]
    assert list(report.masks["written"]) == EVERY_MASK[3:]
    assert ids(voc, "pfenet") == PFENET


def test_mask_is_never_half_written(voc: Path, sbd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(self: Image.Image, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", no_space)
    with pytest.raises(OSError, match="No space left"):
        prepare_pascal(voc, sbd)
    written = sorted(path.name for path in (voc / "SegmentationClassAug").iterdir())
    assert written == [f"{name}.png" for name in EVERY_MASK if name < "2009_000001"]


def test_files_that_differ_are_kept_until_forced(voc: Path, sbd: Path) -> None:
    other = voc / "SegmentationClassAug" / "2009_000001.png"
    other.parent.mkdir()
    Image.fromarray(np.full((40, 50), 3, np.uint8)).save(other)
    write_list(voc / LISTS / "pfenet.txt", PFENET[:2])
    before = other.read_bytes()
    report = prepare_pascal(voc, sbd)
    assert (other.read_bytes(), ids(voc, "pfenet")) == (before, PFENET[:2])
    assert list(report.masks["kept"]) == ["2009_000001"]
    assert [each.state for each in report.lists] == ["written", "kept"]
    report = prepare_pascal(voc, sbd, force=True)
    assert np.array_equal(load_mask(other).numpy(), mask_of("2009_000001", void=False))
    assert ids(voc, "pfenet") == PFENET
    assert list(report.masks["written"]) == ["2009_000001"]


def test_damaged_mask_that_is_there_counts_as_another(voc: Path, sbd: Path) -> None:
    prepare_pascal(voc, sbd)
    path = voc / "SegmentationClassAug" / "2009_000001.png"
    path.write_bytes(path.read_bytes()[:60])
    assert list(prepare_pascal(voc, sbd).masks["kept"]) == ["2009_000001"]


def test_same_ids_in_other_clothes_are_no_difference(voc: Path, sbd: Path) -> None:
    grey = voc / "SegmentationClassAug" / "2008_000001.png"
    grey.parent.mkdir()
    Image.fromarray(mask_of("2008_000001", void=True)).save(grey)
    (voc / LISTS / "trainaug.txt").write_bytes("\r\n".join(TRAINAUG[::-1]).encode())
    before = snapshot(voc)
    report = prepare_pascal(voc, sbd)
    assert list(report.masks["unchanged"]) == ["2008_000001"]
    assert by_name(report, "trainaug").state == "unchanged"
    assert {path: held for path, held in snapshot(voc).items() if path in before} == before


def test_partial_download_names_everything_missing_at_once(voc: Path, sbd: Path) -> None:
    (sbd / "img").mkdir()
    for name in ("2010_000001", "2007_000002"):
        (voc / "JPEGImages" / f"{name}.jpg").unlink()
        (sbd / "img" / f"{name}.jpg").write_bytes(b"")
    (sbd / "cls" / "2009_000001.mat").unlink()
    (voc / "SegmentationClass" / "2007_000001.png").unlink()
    report = prepare_pascal(voc, sbd)
    assert report.missing["images"].startswith(
        f"2 of 9 are not in {voc / 'JPEGImages'}: 2007_000002.jpg, 2010_000001.jpg; SBD's folder img has 2 of them"
    )
    own, mat = Path("SegmentationClass", "2007_000001.png"), Path("cls", "2009_000001.mat")
    assert report.missing["masks"] == f"2 of 9: {own}, {mat}; extract the archives again"
    assert not report.complete
    made = by_name(report, "pfenet")
    assert made.ids == ("2008_000001",)
    assert made.absent == ("2007_000001", "2009_000001", "2010_000001")
    assert len(Pascal5i(voc, 0, train_list="pfenet", min_area=1).split("train").images) == 1


def test_more_than_five_missing_files_are_counted(voc: Path, sbd: Path) -> None:
    for path in (voc / "JPEGImages").iterdir():
        path.unlink()
    report = prepare_pascal(voc, sbd)
    assert report.missing["images"].startswith("9 of 9 are not in ")
    assert "2008_000003.jpg and 4 more" in report.missing["images"]
    assert [each.state for each in report.lists] == ["not made", "not made"]


def test_missing_mask_of_voc_is_not_filled_in_from_sbd(voc: Path, sbd: Path) -> None:
    (voc / "SegmentationClass" / "2008_000002.png").unlink()
    report = prepare_pascal(voc, sbd)
    assert not (voc / "SegmentationClassAug" / "2008_000002.png").exists()
    assert "2008_000002.png" in report.missing["masks"]


def test_ids_of_train_noval_that_sbd_does_not_have_are_named(voc: Path, sbd: Path) -> None:
    write_list(sbd / "train_noval.txt", [*SBD_TRAIN_NOVAL, "2011_000001"])
    report = prepare_pascal(voc, sbd)
    assert "1 ids of train_noval.txt are in neither train.txt nor val.txt: 2011_000001" in report.missing["SBD ids"]
    assert by_name(report, "pfenet").absent == ("2011_000001",)


def test_report_is_complete_with_the_full_numbers_and_nothing_kept(
    voc: Path, sbd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"VOC train": 2, "VOC val": 3, "VOC masks": 5, "SBD train": 4, "SBD val": 3, "SBD train_noval": 3}
    counts |= {"SegmentationClassAug": 9, "trainaug": 6, "pfenet": 4}
    assert not prepare_pascal(voc, sbd).complete
    for name, count in counts.items():
        monkeypatch.setitem(FULL, name, count)
    assert prepare_pascal(voc, sbd).complete
    write_list(voc / LISTS / "pfenet.txt", PFENET[:2])
    assert not prepare_pascal(voc, sbd).complete


def test_without_sbd_only_vocs_masks_are_written(voc: Path) -> None:
    report = prepare_pascal(voc)
    assert list(report.masks["written"]) == sorted([*VOC_TRAIN, *VOC_VAL])
    assert report.missing["SBD"].startswith("only VOC's own masks are there, so that no list was made")
    assert sorted(path.name for path in (voc / LISTS).iterdir()) == ["train.txt", "val.txt"]
    assert not report.complete
    assert [each.state for each in prepare_pascal(voc).lists] == ["not made", "not made"]


def test_without_sbd_masks_that_are_there_take_its_place(voc: Path, sbd: Path) -> None:
    prepare_pascal(voc, sbd)
    for name in ("trainaug", "pfenet"):
        (voc / LISTS / f"{name}.txt").unlink()
    report = prepare_pascal(voc)
    assert (ids(voc, "trainaug"), ids(voc, "pfenet")) == (TRAINAUG, PFENET)
    assert list(report.masks["unchanged"]) == EVERY_MASK
    assert not report.missing


def test_leftovers_beside_the_masks_are_no_ids(voc: Path, sbd: Path) -> None:
    prepare_pascal(voc, sbd)
    (voc / "SegmentationClassAug" / "._2009_000001.png").write_bytes(b"\0\5\x16\7")
    report = prepare_pascal(voc)
    assert not report.missing
    assert report.found["masks beside VOC's"] == len(EVERY_MASK) - len(VOC_TRAIN) - len(VOC_VAL)


def test_voc_folder_is_checked(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no JPEGImages in it.* Did you mean {voc}\?(.|\n)*Expected tree"):
        prepare_pascal(tmp_path)
    (voc / LISTS / "val.txt").unlink()
    (voc / "SegmentationClass").rename(voc / "Masks")
    with pytest.raises(FileNotFoundError, match=r"val\.txt, .*SegmentationClass: not there; extract VOC's archive"):
        prepare_pascal(voc)


@pytest.mark.parametrize(("year", "train", "val"), [(2007, 209, 213), (2010, 964, 964), (2011, 1112, 1111)])
def test_another_years_voc_is_named(voc: Path, year: int, train: int, val: int) -> None:
    write_list(voc / LISTS / "train.txt", [f"2007_{i:06d}" for i in range(train)])
    write_list(voc / LISTS / "val.txt", [f"2006_{i:06d}" for i in range(val)])
    with pytest.raises(ValueError, match=rf"expected VOC 2012 .*, got VOC {year} \({train} and {val}\); give the"):
        prepare_pascal(voc)


def test_part_of_voc_2007_is_known_by_its_ids(voc: Path) -> None:
    write_list(voc / LISTS / "train.txt", ["000032", "000033"])
    with pytest.raises(ValueError, match=r"got VOC 2007 \(2 and 3\)"):
        prepare_pascal(voc)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"train\.txt: the list is empty"),
        ("a\nb.jpg b.png\n", r"train\.txt, line 2: expected one .* 'b.jpg b.png'"),
    ],
)
def test_malformed_list_is_named(voc: Path, text: str, message: str) -> None:
    (voc / LISTS / "train.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        prepare_pascal(voc)


def test_sbd_folder_is_checked(voc: Path, sbd: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: there is no SBD folder \(no cls in it\)(.|\n)*benchmark.tgz"):
        prepare_pascal(voc, tmp_path / "empty")
    (sbd / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"val\.txt: there is no such list; extract benchmark\.tgz again"):
        prepare_pascal(voc, sbd)
    for path in (sbd / "cls").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"cls: there are no \.mat files in it; extract benchmark\.tgz again"):
        prepare_pascal(voc, sbd)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GTinst": {"Segmentation": np.ones((40, 50), np.uint8)}}, r"expected GTcls .*, got GTinst; .* dataset/cls"),
        ({"GTcls": {"Boundaries": 1}}, r"expected GTcls with the field Segmentation, got GTcls"),
        ({"GTcls": {"Segmentation": np.ones((2, 3, 4), np.uint8)}}, r".* as a matrix of class ids, got .*\(2, 3, 4\)"),
        ({"GTcls": {"Segmentation": np.ones((40, 50))}}, r".* as a matrix of class ids, got float64"),
        ({"GTcls": {"Segmentation": np.full((40, 50), 21, np.uint8)}}, r"expected class ids from 0 to 20, got 21"),
    ],
)
def test_mat_file_with_something_else_is_named(voc: Path, sbd: Path, content: dict, message: str) -> None:
    savemat(sbd / "cls" / "2009_000001.mat", content)
    with pytest.raises(ValueError, match=rf"2009_000001\.mat: {message}"):
        prepare_pascal(voc, sbd)


@pytest.mark.parametrize("kept", [0, 30, 128, 150, 250])
def test_truncated_mat_file_is_named(voc: Path, sbd: Path, kept: int) -> None:
    path = sbd / "cls" / "2009_000001.mat"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"2009_000001\.mat: .*(benchmark\.tgz again|got nothing)"):
        prepare_pascal(voc, sbd)


def test_sbd_mask_of_another_size_is_named(voc: Path, sbd: Path) -> None:
    savemat(sbd / "cls" / "2009_000001.mat", {"GTcls": {"Segmentation": np.ones((50, 40), np.uint8)}})
    with pytest.raises(ValueError, match=r"2009_000001\.jpg is 50 x 40 .*mask .*2009_000001\.mat is 40 x 50: .*fetch"):
        prepare_pascal(voc, sbd)


def test_voc_mask_of_another_size_is_named(voc: Path, sbd: Path) -> None:
    Image.new("RGB", (40, 50)).save(voc / "JPEGImages" / "2007_000001.jpg")
    with pytest.raises(ValueError, match=r"2007_000001\.jpg is 40 x 50 .*mask .*2007_000001\.png is 50 x 40: .*fetch"):
        prepare_pascal(voc, sbd)


def test_folder_with_spaces_cannot_be_in_a_list(voc: Path, sbd: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"``out``: expected a folder without spaces .*, got '\.\./my data'"):
        prepare_pascal(voc, sbd, out=tmp_path / "my data")
    assert not os.path.exists(tmp_path / "my data")


def test_scipy_is_needed_for_sbd_only(voc: Path, sbd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name))
    assert len(prepare_pascal(voc).masks["written"]) == 5
    with pytest.raises(ModuleNotFoundError, match=r"needs scipy: pip install 'dpcn_modules\[train\]'"):
        prepare_pascal(voc, sbd)


@pytest.mark.real_data
def test_trainaug_of_real_images_is_rebuilt_from_their_masks(real_data: Path, tmp_path: Path) -> None:
    voc = real_data / "voc2012_subset"
    report = prepare_pascal(voc, out=tmp_path)
    made = by_name(report, "trainaug")
    assert sorted(made.ids) == sorted(ids(voc, "trainaug"))
    assert report.found == {"VOC train": 61, "VOC val": 192, "VOC masks": 253, "masks beside VOC's": 201}
    assert len(report.masks["written"]) == 454
    assert len(made.path.read_text(encoding="utf-8").splitlines()) == 262


@pytest.mark.real_data
def test_real_images_without_sbd_get_vocs_masks_only(real_data: Path, tmp_path: Path) -> None:
    voc = tmp_path / "VOC2012"
    voc.mkdir()
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets"):
        (voc / folder).symlink_to(real_data / "voc2012_subset" / folder)
    report = prepare_pascal(voc, out=tmp_path / "prepared")
    assert len(report.masks["written"]) == 253
    assert "only VOC's own masks are there" in report.missing["SBD"]
    assert not (tmp_path / "prepared" / "ImageSets").exists()
