"""What a test says: printed, and written with everything that decided it."""

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dpcn_modules import __version__
from dpcn_modules.cli.tables import score_table, table
from dpcn_modules.evaluation import Protocol
from dpcn_modules.training import Score


class Run(NamedTuple):
    """One test: how it was made, the hash of its episodes, and what came out."""

    protocol: Protocol
    episodes: str
    score: Score


def report(runs: Sequence[Run], class_names: Mapping[int, str], *, fusion: str, checkpoint: str) -> str:
    """The table of one test, or of several seeds with mean and standard deviation, and what it was made with."""
    if len(runs) == 1:
        lines = [score_table(runs[0].score, class_names)]
    else:
        rows = [(f"seed {run.protocol.seed}", *_percents(run.score)) for run in runs]
        columns = list(zip(*([100 * value for value in _means(run.score)] for run in runs), strict=True))
        rows.append(("mean", *(f"{statistics.mean(column):.1f}" for column in columns)))
        rows.append(("standard deviation", *(f"{statistics.stdev(column):.1f}" for column in columns)))
        lines = [table(("", "mIoU %", "FB-IoU %"), rows)]
    fused = "" if fusion == "concat" else f"; one-shot masks fused by {fusion}"
    lines += [f"protocol: {run.protocol}{fused}; episodes {run.episodes}" for run in runs]
    lines.append(f"checkpoint: {checkpoint}, sha256 {_known_hash(checkpoint)}; {software()}")
    return "\n".join(lines)


def as_json(
    runs: Sequence[Run], class_names: Mapping[int, str], *, recipe: dict[str, Any], fusion: str, checkpoint: str
) -> str:
    """The same with recipe, checkpoint and versions."""
    result = {
        "runs": [
            {
                "miou": run.score.miou.item(),
                "fb_iou": run.score.fb_iou.item(),
                "class_iou": {class_names[class_id]: iou.item() for class_id, iou in run.score.class_iou.items()},
                "protocol": dataclasses.asdict(run.protocol) | {"id": run.protocol.id},
                "episodes": run.episodes,
            }
            for run in runs
        ],
        "miou": statistics.mean(run.score.miou.item() for run in runs),
        "fb_iou": statistics.mean(run.score.fb_iou.item() for run in runs),
        "fusion": fusion,
        "recipe": recipe,
        "checkpoint": {"file": checkpoint, "sha256": _known_hash(checkpoint)},
        "versions": {
            "dpcn_modules": __version__,
            "torch": torch.__version__,
            **{name: version(name) for name in ("torchvision", "lightning", "torchmetrics", "numpy")},
        },
    }
    return json.dumps(result, indent=1)


def file_hash(path: str | Path) -> str:
    """Twelve hexadecimal digits of a file's SHA-256."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def software() -> str:
    """What made a number, for the line below a table or a picture."""
    return f"dpcn_modules {__version__}, torch {torch.__version__}"


def _known_hash(checkpoint: str) -> str | None:
    path = Path(checkpoint)
    return file_hash(path) if path.is_file() else None  # "hpc" is Lightning's to find


def _means(score: Score) -> tuple[float, float]:
    return score.miou.item(), score.fb_iou.item()


def _percents(score: Score) -> tuple[str, ...]:
    return tuple(f"{100 * value:.1f}" for value in _means(score))
