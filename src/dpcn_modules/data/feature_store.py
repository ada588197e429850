"""Features of frozen backbone stages on disk: computed once for each image and view, and read by many trainings.

A store is a folder with a description, `store.json`, and parts. A part is three files: features and masks, which are
memory-mapped, and their index, which is written last. What has no index is not there; so a killed writer leaves
nothing that is read, and the next one continues after the last complete part.
"""

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dpcn_modules.data.datasets.files import replacing
from dpcn_modules.errors import InputError, InputFileError, WriteError

DESCRIPTION = "store.json"
_REMEDY = "write it again with `dpcn features`, into an empty folder"


class Record(NamedTuple):
    """One view of an image with its mask.

    Attributes:
        key: what `sample_key` gives for the image and its mask.
        view: number of the view.
        stages: features of the stages, each ``(C, H, W)``, floating point.
        mask: ``(S, S)`` in {0, 1, 255}.
    """

    key: str
    view: int
    stages: Sequence[Tensor]
    mask: Tensor


def sample_key(image: Tensor, target: Tensor) -> str:
    """Identify an image ``(3, H, W)`` uint8 and its target mask ``(H, W)`` uint8 by their content."""
    digest = hashlib.sha256()
    for tensor in (image, target):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:32]


class FeatureStore:
    """Open a store, or begin one; one process or many may read it while others write.

    Args:
        path: the folder.
        key: what the features depend on beside the image and its view: backbone, weights, transform, version. The
            store must have the same, and may have more.
        write: begin the store with this key if there is none.

    Attributes:
        key: of the store.
        bytes: the size of all complete parts.

    Raises:
        FileNotFoundError: there is no store, and ``write`` is False.
        ValueError: the store has another key, or a part of it is damaged.
        OSError: the folder cannot be written.
    """

    def __init__(self, path: str | Path, key: Mapping[str, Any], *, write: bool = False) -> None:
        self.path = Path(path)
        description = self.path / DESCRIPTION
        if not description.is_file():
            if not write:
                raise InputFileError(f"``features``: {self.path} has no {DESCRIPTION}; write it with `dpcn features`.")
            _write(description, json.dumps(dict(key), indent=1).encode())
        self.key: dict[str, Any] = _read_json(description)
        self.check(key)
        self.bytes = 0
        self._parts: list[dict[str, Any]] = []
        self._places: dict[str, tuple[int, int, int]] = {}
        self._maps: dict[int, tuple[Any, Any]] = {}
        for index in sorted(self.path.glob("*.index.json")):
            self._add(index)

    def __contains__(self, place: tuple[str, int]) -> bool:
        """Whether a key and view is there."""
        return _place(*place) in self._places

    def __len__(self) -> int:
        """Number of views with their masks."""
        return len(self._places)

    def check(self, key: Mapping[str, Any]) -> None:
        """Raise ValueError unless the store has this key."""
        for name, expected in json.loads(json.dumps(dict(key))).items():
            if self.key.get(name) != expected:
                raise InputError(
                    f"``features``: {self.path} holds features of another {name}: expected {expected!r}, got "
                    f"{self.key.get(name)!r}; {_REMEDY}."
                )

    def finish(self, content: str) -> None:
        """Note that all views of some images, named by what they are, are there."""
        _write(self._marker(content), content.encode())

    def finished(self, content: str) -> bool:
        """Whether `finish` has noted these images."""
        return self._marker(content).is_file()

    def read(self, key: str, view: int) -> tuple[list[Tensor], Tensor] | None:
        """The features, each ``(C, H, W)`` float16, and the mask ``(S, S)`` uint8 of a view; None if it is not there.

        The tensors are copies.
        """
        if (found := self._places.get(_place(key, view))) is None:
            return None
        number, feature, mask = found
        if number not in self._maps:
            self._maps[number] = self._open(self._parts[number])
        features, masks = self._maps[number]
        stages = [torch.from_numpy(np.array(features[feature][name])) for name in features.dtype.names]
        return stages, torch.from_numpy(np.array(masks[mask]))

    def write(self, records: Sequence[Record], *, budget: int | None = None) -> None:
        """Add a part; views of equal features, as an image has for each of its classes, are stored once.

        Args:
            records: views, all of the same shapes.
            budget: the most bytes that the whole store may take.

        Raises:
            ValueError: a feature is not finite in half precision, or the part would exceed the budget.
            OSError: the disk is full, or the folder cannot be written.
        """
        arrays = [[_half(stage, each.key) for stage in each.stages] for each in records]
        kept: dict[bytes, int] = {}
        rows: list[bytes] = []
        places: dict[str, tuple[int, int]] = {}
        for number, (record, stages) in enumerate(zip(records, arrays, strict=True)):
            row = b"".join(stage.tobytes() for stage in stages)
            digest = hashlib.sha256(row).digest()
            if digest not in kept:
                kept[digest] = len(rows)
                rows.append(row)
            places[_place(record.key, record.view)] = (kept[digest], number)
        masks = b"".join(each.mask.to(torch.uint8).contiguous().numpy().tobytes() for each in records)
        part = {
            "name": hashlib.sha256("".join(sorted(places)).encode()).hexdigest()[:16],
            "stages": [list(stage.shape) for stage in arrays[0]],
            "features": len(rows),
            "masks": [len(records), *records[0].mask.shape],
            "places": places,
        }
        index = json.dumps(part).encode()
        size = sum(map(len, rows)) + len(masks) + len(index)
        if budget is not None and self.bytes + size > budget:
            raise InputError(
                f"``--budget``: expected room for the next part ({size} bytes) beside the {self.bytes} bytes that "
                f"{self.path} has, got {budget}; raise it, or lower --views. Everything written so far is complete."
            )
        files = self._files(part)
        try:
            _write(files[0], *rows)
            _write(files[1], masks)
            _write(files[2], index)
        except WriteError:
            for file in files[:2]:
                file.unlink(missing_ok=True)
            raise
        self._add(files[2])

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map is a copy of its file.
        return {**self.__dict__, "_maps": {}}

    def _add(self, index: Path) -> None:
        part = _read_json(index)
        number = len(self._parts)
        self._parts.append(part)
        features, masks, _ = self._files(part)
        expected = (part["features"] * _row(part).itemsize, int(np.prod(part["masks"])))
        found = tuple(file.stat().st_size if file.is_file() else 0 for file in (features, masks))
        if found != expected:
            raise InputError(f"{features} and {masks.name}: expected {expected} bytes, got {found}; {_REMEDY}.")
        self.bytes += sum(expected) + index.stat().st_size
        self._places |= {place: (number, *rows) for place, rows in part["places"].items()}

    def _open(self, part: dict[str, Any]) -> tuple[Any, Any]:
        features, masks, _ = self._files(part)
        shape = tuple(part["masks"])
        return np.memmap(features, _row(part), "r", shape=(part["features"],)), np.memmap(masks, "u1", "r", shape=shape)

    def _marker(self, content: str) -> Path:
        return self.path / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.complete"

    def _files(self, part: dict[str, Any]) -> tuple[Path, Path, Path]:
        features, masks, index = (self.path / f"{part['name']}.{end}" for end in ("features", "masks", "index.json"))
        return features, masks, index


def describe(value: Any) -> Any:
    """A setting, or a transform with all of its settings, in the types of JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return value.name
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return [[describe(key), describe(each)] for key, each in value.items()]
    if isinstance(value, Sequence | set):
        return [describe(each) for each in value]
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return value.tolist()
    if not hasattr(value, "__dict__"):
        return str(value)
    return {"class": type(value).__qualname__, **{name: describe(each) for name, each in vars(value).items()}}


def _place(key: str, view: int) -> str:
    return f"{key}-{view}"


def _row(part: Mapping[str, Any]) -> np.dtype[Any]:
    return np.dtype([(f"stage{i}", "<f2", tuple(shape)) for i, shape in enumerate(part["stages"])])


def _half(stage: Tensor, key: str) -> np.ndarray[Any, Any]:
    half = stage.detach().to("cpu", torch.float16).contiguous()
    if not bool(torch.isfinite(half).all()):
        raise InputError(
            f"features of the image {key}: expected values that are finite in half precision (below 65504), got up to "
            f"{float(stage.abs().max()):.3g}; train through this backbone, without a store."
        )
    return half.numpy().astype("<f2", copy=False)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got a damaged file; {_REMEDY}.")
    return content


def _write(path: Path, *content: bytes) -> None:
    try:
        with replacing(path) as part, part.open("wb") as file:
            for each in content:
                file.write(each)
    except OSError as error:
        why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error)
        raise WriteError(
            f"{path}: cannot be written: {why}. Everything written before is complete; free some space or name "
            f"another folder, and run the command again to go on."
        ) from error


def total_bytes(stages: Iterable[Sequence[int]], side: int, *, features: int, masks: int) -> int:
    """The size of features of these stages and of masks ``(side, side)``, without the index."""
    return features * sum(2 * int(np.prod(shape)) for shape in stages) + masks * side * side
