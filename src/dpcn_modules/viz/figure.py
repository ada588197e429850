"""Figures without pyplot, which therefore need no window system and leave no global state."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from dpcn_modules._checks import require
from dpcn_modules.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_NOTE_SIZE, _NOTE_LETTERS = 6, 19  # points, and letters of that size per inch
# Okabe and Ito's palette for colour-blind readers, without yellow, which is hard to see on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("-", "--", ":", "-.")


def line_style(number: int) -> dict[str, str]:
    """Colour and dashes of a line; they repeat after 24 lines."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number // len(COLOURS) % len(_LINES)]}


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of a size in inches, whose layout avoids overlapping or cut-off labels; needs matplotlib."""
    require("matplotlib", extra="viz")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def save_figure(figure: "Figure", path: str | Path, note: str = "") -> None:
    """Write a figure in the format of the file's suffix, with a note in small print below; missing folders are created.

    Raises:
        ValueError: matplotlib does not support the format.
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise InputError(f"``path``: expected a suffix among {', '.join(sorted(known))}, got {str(path)!r}.")
    if note:
        letters = round(_NOTE_LETTERS * figure.get_figwidth())
        lines = [textwrap.fill(line, letters) for line in note.splitlines()]
        figure.supxlabel("\n".join(lines), fontsize=_NOTE_SIZE, color="0.35", x=0.01, ha="left", parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
