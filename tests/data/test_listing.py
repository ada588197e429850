"""Lists in the encodings that editors write, and folders with what systems leave in them."""

import codecs
from pathlib import Path

import pytest

from dpcn_modules.data.listing import image_files, read_lines, without_leftovers

NAMES = ["img_0", "Tür", "img_2"]
LEFTOVERS = ("._0.jpg", ".DS_Store", ".0.png", "__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_lines_are_read_in_every_encoding_and_with_every_line_end(tmp_path: Path, encoding: str, ends: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes((ends.join(NAMES) + ends).encode(encoding))
    assert read_lines(path) == NAMES


def test_big_endian_utf_16_with_a_mark_and_marks_within_the_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(codecs.BOM_UTF16_BE + "a\r\nb".encode("utf-16-be"))
    assert read_lines(path) == ["a", "b"]
    path.write_bytes(2 * "a\n".encode("utf-8-sig"))
    assert read_lines(path) == ["a", "a"]


@pytest.mark.parametrize("content", ["Tür\n".encode("latin-1"), b"img_0\nimg_1\0\n", b"\xff\xfea\0b"])
def test_text_of_another_encoding_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.txt: expected text in UTF-8 or UTF-16 .*save the file as UTF-8"):
        read_lines(path)


def test_leftovers_of_systems_are_no_files_of_the_user(tmp_path: Path) -> None:
    for name in (*LEFTOVERS, "b.JPG", "a.tif", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in without_leftovers(tmp_path.iterdir())] == [
        *("a.tif", "b.JPG", "folder.png", "notes.txt")
    ]
    assert [path.name for path in image_files(tmp_path)] == ["a.tif", "b.JPG"]
