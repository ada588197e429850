"""The names in text files and folders, however an editor or a system left them."""

import codecs
import json
from collections.abc import Iterable
from pathlib import Path

from dpcn_modules.data.io import SUFFIXES
from dpcn_modules.errors import InputError

_LEFTOVERS = {
    *("__macosx", "__pycache__", "thumbs.db", "desktop.ini", "lost+found", "system volume information"),
    *("$recycle.bin", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", "@eadir"),
}


def without_leftovers(paths: Iterable[Path]) -> list[Path]:
    """The paths in the order of their names, without hidden files (``._*``, ``.DS_Store``) and what systems create
    (``__MACOSX``, ``@eaDir``, ``Thumbs.db``)."""
    return sorted(path for path in paths if path.name[0] != "." and path.name.casefold() not in _LEFTOVERS)


def image_files(folder: Path) -> list[Path]:
    """The images in a folder, by their suffix, in the order of their names; `without_leftovers`."""
    return [path for path in without_leftovers(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file in UTF-8 or UTF-16, with or without a byte order mark and with any line ends.

    Raises:
        ValueError: the file has another encoding.
    """
    content = path.read_bytes()
    try:
        # Python's own rule for JSON files: byte order marks, and the zeros of UTF-16 without one.
        text = content.decode(json.detect_encoding(content))
        if "\0" in text:
            raise InputError("it holds zero bytes")
    except ValueError as error:
        raise InputError(f"{path}: expected text in UTF-8 or UTF-16 ({error}); save the file as UTF-8.") from error
    # Lists that were joined with `cat` have marks within the text, too.
    return text.replace(codecs.BOM_UTF8.decode(), "").splitlines()
