"""The episodes of a test as a file: which query and which supports, by name, so that anybody can repeat them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dpcn_modules.data.episodes.dataset import EpisodeDataset, EpisodeSpec
from dpcn_modules.data.source import ImageSource

_FORMAT = "dpcn_modules episodes, version 1"
_SHOWN = 3


def manifest_lines(dataset: EpisodeDataset) -> Iterator[str]:
    """Write the episodes of a data set as JSON lines: a head that says of what they are, then one line each.

    Args:
        dataset: the test's episodes; no image is read.
    """
    source = dataset.source
    classes = {str(class_id): name for class_id, name in source.class_names.items()}
    head = {"format": _FORMAT, "data": source.name, "classes": classes, "shot": dataset.shot}
    yield json.dumps({**head, "episodes": dataset.episodes, "seed": dataset.seed, "sampling": dataset.sampling})
    for index in range(dataset.episodes):
        class_id, query, supports = dataset.spec(index)
        names = [source.image_name(support) for support in supports]
        yield json.dumps({"class": class_id, "query": source.image_name(query), "supports": names})


def manifest_hash(lines: Iterable[str]) -> str:
    """Twelve hexadecimal digits of the episodes; two manifests of one hash have the same ones.

    The head does not count: the same images can lie in differently named lists.
    """
    digest = hashlib.sha256()
    for line in list(lines)[1:]:
        digest.update(f"{line.strip()}\n".encode())
    return digest.hexdigest()[:12]


def read_manifest(path: str | Path, source: ImageSource, *, shot: int) -> list[EpisodeSpec]:
    """Read episodes, and find their images again.

    Args:
        path: a file that ``dpcn episodes`` wrote.
        source: the images of the split.
        shot: number of supports, K.

    Returns:
        One `EpisodeSpec` for each episode, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no manifest, of another number of shots or other classes, or names images that the data
            does not have or in which the class is not there; the first differences are named.
    """
    head, rows = _parse(Path(path))
    classes = {int(class_id): name for class_id, name in head["classes"].items()}
    if head["shot"] != shot:
        raise ValueError(f"{path}: expected episodes of ``shot`` {shot}, got {head['shot']}-shot ones; set shot to it.")
    images = {image_id: source.image_name(image_id) for image_id in source.images}
    by_name = {name: image_id for image_id, name in images.items()}
    repeated = [name for name, count in Counter(images.values()).items() if count > 1]
    faults = (
        [] if classes == dict(source.class_names) else [f"classes {classes} there, {dict(source.class_names)} here"]
    )
    faults += [f"two images named {name} here" for name in repeated[:_SHOWN]]
    specs = []
    for number, row in enumerate(rows, start=2):
        names = [row["query"], *row["supports"]]
        found = [by_name.get(name) for name in names]
        lacking = [
            name
            for name, image_id in zip(names, found, strict=True)
            if image_id is None or row["class"] not in source.classes_of(image_id)
        ]
        faults += [f"line {number}: {name} with class {row['class']}" for name in lacking]
        if not lacking:
            query, *supports = (image_id for image_id in found if image_id is not None)
            specs.append(EpisodeSpec(row["class"], query, tuple(supports)))
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ValueError(
            f"{path}: expected episodes of {source.name}, got those of {head['data']}; not here: "
            f"{'; '.join(faults[:_SHOWN])}{more}. Give the data that the manifest was written for."
        )
    return specs


def _parse(path: Path) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    """The head and the episodes of a file."""
    if not path.is_file():
        raise FileNotFoundError(f"``episodes``: no file {path}; `dpcn episodes` writes one.")
    try:
        head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if head["format"] != _FORMAT or len(rows) != head["episodes"]:
            raise ValueError(f"{len(rows)} episodes of {head['episodes']}, format {head['format']!r}")
        if any({"class", "query", "supports"} - row.keys() or len(row["supports"]) != head["shot"] for row in rows):
            raise ValueError("an episode without class, query or all its supports")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected a whole file that `dpcn episodes` wrote ({_FORMAT}), got another or a part of one "
            f"({error})."
        ) from error
    return head, rows
