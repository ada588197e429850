"""Manifests: files that list the queries and supports of a test by name, so that others can repeat it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dpcn_modules._checks import some
from dpcn_modules.data.episodes.dataset import EpisodeDataset
from dpcn_modules.data.episodes.sampling import EpisodeSpec
from dpcn_modules.data.listing import read_lines
from dpcn_modules.data.source import ImageSource
from dpcn_modules.errors import InputError, InputFileError

_FORMAT = "dpcn_modules episodes, version 1"


def manifest_lines(dataset: EpisodeDataset) -> Iterator[str]:
    """The episodes of a test as JSON lines without newlines: a header with the settings, then one line per episode.

    No image is read.
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
    """Twelve hexadecimal digits that identify the episodes of a manifest.

    The header is left out, because the same images may come from lists with different names.
    """
    digest = hashlib.sha256()
    for line in list(lines)[1:]:
        digest.update(f"{line.strip()}\n".encode())
    return digest.hexdigest()[:12]


def read_manifest(path: str | Path, source: ImageSource, *, shot: int) -> list[EpisodeSpec]:
    """Read the episodes of a manifest, in the order of the file, and look up their images by name.

    Args:
        path: a file that ``dpcn episodes`` wrote.
        source: the images of the split.
        shot: number of supports, K.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a manifest, has another number of shots or other classes, or names images that
            the data does not have or that do not show the class; the message lists the first differences.
    """
    head, rows = _parse(Path(path))
    classes = {int(class_id): name for class_id, name in head["classes"].items()}
    if head["shot"] != shot:
        raise InputError(f"{path}: expected episodes of ``shot`` {shot}, got {head['shot']}-shot ones; set shot to it.")
    images = {image_id: source.image_name(image_id) for image_id in source.images}
    by_name = {name: image_id for image_id, name in images.items()}
    faults = [f"two images named {name} here" for name, count in Counter(images.values()).items() if count > 1]
    if classes != dict(source.class_names):
        faults.insert(0, f"classes {classes} there, {dict(source.class_names)} here")
    specs = []
    for number, row in enumerate(rows, start=2):
        found: list[int] = []
        for name in (row["query"], *row["supports"]):
            image_id = by_name.get(name)
            if image_id is None or row["class"] not in source.classes_of(image_id):
                faults.append(f"line {number}: {name} with class {row['class']}")
            else:
                found.append(image_id)
        if found:
            specs.append(EpisodeSpec(row["class"], found[0], tuple(found[1:])))
    if faults:
        raise InputError(
            f"{path}: expected episodes of {source.name}, got those of {head['data']}; not here: {some(faults, 3)}. "
            f"Give the data that the manifest was written for."
        )
    return specs


def _parse(path: Path) -> tuple[dict[str, Any], Sequence[dict[str, Any]]]:
    if not path.is_file():
        raise InputFileError(f"``episodes``: no file {path}; `dpcn episodes` writes one.")
    try:
        head, *rows = [json.loads(line) for line in read_lines(path) if line.strip()]
        if head["format"] != _FORMAT or len(rows) != head["episodes"]:
            raise InputError(f"{len(rows)} episodes of {head['episodes']}, format {head['format']!r}")
        if any({"class", "query", "supports"} - row.keys() or len(row["supports"]) != head["shot"] for row in rows):
            raise InputError("an episode without class, query or all its supports")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: expected a complete file that `dpcn episodes` wrote ({_FORMAT}), got another or a part of one "
            f"({error}); write it again."
        ) from error
    return head, rows
