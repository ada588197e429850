"""The result of a test: printed as a table, written to test.json and read back."""

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dpcn_modules import __version__
from dpcn_modules._checks import some
from dpcn_modules.data.datasets.files import replacing
from dpcn_modules.errors import InputError, InputFileError
from dpcn_modules.evaluation.protocols import Protocol
from dpcn_modules.models.settings import Settings

if TYPE_CHECKING:
    from dpcn_modules.evaluation.metrics import Score

_KEYS = ("runs", "miou", "fb_iou", "network", "settings", "fusion", "checkpoint", "versions")


class Run(NamedTuple):
    """One test: how it was made, the hash of its episodes, and its score."""

    protocol: Protocol
    episodes: str
    score: "Score"


class Result(NamedTuple):
    """What decided a test, and its runs, one for each seed.

    Class names are by id, of the classes that were scored; a network that was built by hand has no settings.
    """

    runs: Sequence[Run]
    class_names: Mapping[int, str]
    network: str
    settings: Settings | None
    fusion: str
    checkpoint: str

    def table(self) -> str:
        """One test by class, or several seeds with mean and standard deviation, and what they were made with."""
        if len(self.runs) == 1:
            lines = [_class_table(self.runs[0].score, self.class_names)]
        else:
            scores = [(100 * run.score.miou.item(), 100 * run.score.fb_iou.item()) for run in self.runs]
            rows = [(f"seed {run.protocol.seed}", *pair) for run, pair in zip(self.runs, scores, strict=True)]
            columns = list(zip(*scores, strict=True))
            rows.append(("mean", *map(statistics.mean, columns)))
            rows.append(("standard deviation", *map(statistics.stdev, columns)))
            lines = [text_table(("", "mIoU %", "FB-IoU %"), [(name, f"{a:.1f}", f"{b:.1f}") for name, a, b in rows])]
        fused = "" if self.fusion == "concat" else f"; one-shot masks fused by {self.fusion}"
        lines += [f"protocol: {run.protocol}{fused}; episodes {run.episodes}" for run in self.runs]
        lines.append(f"checkpoint: {self.checkpoint}, sha256 {_known_hash(self.checkpoint)}; {software()}")
        return "\n".join(lines)

    def write(self, path: str | Path) -> None:
        """Write all of it as JSON; :func:`read_result` reads it."""
        content = {
            "runs": [
                {
                    "miou": run.score.miou.item(),
                    "fb_iou": run.score.fb_iou.item(),
                    "class_iou": {self.class_names[each]: iou.item() for each, iou in run.score.class_iou.items()},
                    "protocol": dataclasses.asdict(run.protocol) | {"id": run.protocol.id},
                    "episodes": run.episodes,
                }
                for run in self.runs
            ],
            "miou": statistics.mean(run.score.miou.item() for run in self.runs),
            "fb_iou": statistics.mean(run.score.fb_iou.item() for run in self.runs),
            "fusion": self.fusion,
            "network": self.network,
            "settings": None if self.settings is None else dataclasses.asdict(self.settings),
            "checkpoint": {"file": self.checkpoint, "sha256": _known_hash(self.checkpoint)},
            "versions": {"dpcn_modules": __version__, "torch": torch.__version__}
            | {name: version(name) for name in ("torchvision", "lightning", "torchmetrics", "numpy")},
        }
        with replacing(Path(path)) as part:
            part.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a test.json that `dpcn test` wrote, in the form that :meth:`Result.write` gives it; scores are 0-1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is another file, or one of version 0.1.0.
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError(f"{path}: there is no such file; `dpcn test` writes a test.json beside its logs.")
    rule = f"{path}: expected a test.json that `dpcn test` wrote, got"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in _KEYS if key not in content]
    except (ValueError, TypeError) as error:
        raise InputError(f"{rule} another file ({error}).") from error
    if not isinstance(content, dict) or missing:
        older = isinstance(content, dict) and "recipe" in content
        hint = " It is of version 0.1.0: test the checkpoint again." if older else ""
        raise InputError(f"{rule} a file without {some(missing)}.{hint}")
    return content


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (head, ["-" * width for width in widths], *rows)
    )


def file_hash(path: str | Path) -> str:
    """Twelve hexadecimal digits of a file's SHA-256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def software() -> str:
    """The versions that made a number, for the line below a table or a figure."""
    return f"dpcn_modules {__version__}, torch {torch.__version__}"


def _class_table(score: "Score", class_names: Mapping[int, str]) -> str:
    iou = {name: score.class_iou.get(class_id) for class_id, name in class_names.items()}
    iou |= {"mIoU": score.miou, "FB-IoU": score.fb_iou}
    rows = [(name, "no pixels" if value is None else f"{100 * float(value):.1f}") for name, value in iou.items()]
    return text_table(("class", "IoU %"), rows)


def _known_hash(checkpoint: str) -> str | None:
    path = Path(checkpoint)
    return file_hash(path) if path.is_file() else None  # "hpc" is Lightning's to find
