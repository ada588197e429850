"""`dpcn prepare`: its report, its exit status, and the data sets it lists."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dpcn_modules.cli import prepare
from dpcn_modules.cli.main import main
from dpcn_modules.data.prepare_pascal import FULL

LISTS = Path("ImageSets", "Segmentation")
NUMBERS = {
    **{"VOC train": 1, "VOC val": 1, "VOC masks": 2, "SBD train": 2, "SBD val": 1, "SBD train_noval": 2},
    **{"SegmentationClassAug": 5, "trainaug": 4, "pfenet": 3},
}


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VOC with a training and a test picture, SBD with three more, whose numbers count as the full ones."""
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
    """What was printed below a title."""
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
    assert "\nmissing\n  pictures  1 of 5 are not in " in printed


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
    kept = rows(capsys, "kept as it was there (--force replaces it)")
    assert kept == {"pfenet": f"{pfenet} is another list", "SegmentationClassAug": "1 masks are others: a"}
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
