"""The masks of COCO's instances, drawn once and cached."""

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dpcn_modules._checks import VOID, some
from dpcn_modules.data.datasets.coco_instances import Crowd, Drawing, Instances, Overlap, check_crowds, draw
from dpcn_modules.data.datasets.files import LabelledFile, check_mask_size, replacing
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.data.decoding import image_size
from dpcn_modules.data.io import load_mask
from dpcn_modules.data.listing import without_leftovers
from dpcn_modules.errors import InputError, InputFileError, WriteError

Progress = Callable[[Iterable[str]], Iterable[str]]

_RENDERER = 2  # increase with every change of what is drawn, so that cached masks are drawn again
_MANIFEST = "manifest.json"


class Record(NamedTuple):
    """The manifest's entry for a mask: its image, the pixels of every class, and a checksum of all pixels."""

    image_id: int
    areas: dict[int, int]
    checksum: int

    @property
    def file_name(self) -> str:
        return f"{self.image_id:012d}.png"


class CocoMasks:
    """The masks of the images of an instances file; a call with a `LabelledFile` returns its mask.

    In the folder ``cache``, masks are saved as PNGs, with a manifest of what they were drawn from; without it, they are
    drawn anew each time. The instances file is parsed only if masks must be drawn. See `Coco20i` for the arguments.
    """

    def __init__(
        self,
        annotations: Path,
        images: Path,
        *,
        overlap: Overlap,
        crowd: Crowd,
        cache: Path | None,
        progress: Progress | None,
    ) -> None:
        self._annotations = annotations
        self._images = images
        self._overlap: Overlap = overlap
        self._crowd: Crowd = crowd
        self._digest = file_digest(annotations)
        self._folder = None if cache is None else mask_folder(cache, self._digest, overlap, crowd)
        rules = {"overlap": overlap, "crowd": crowd, "renderer": _RENDERER}
        self._source = {"annotations_sha256": self._digest, **rules}
        self._instances: Instances | None = None
        self._drawings: dict[str, Drawing] = {}
        self._records = self._cached_records()
        if self._records:
            self._check_images_present(self._records)
        else:
            self._draw_all(progress)

    @property
    def files(self) -> list[LabelledFile]:
        """The images in the order of their ids."""
        return [
            LabelledFile(name, self._images / name, self._path(record) or self._annotations)
            for name, record in self._records.items()
        ]

    @property
    def areas(self) -> list[dict[int, int]]:
        """For every image, class id to number of pixels; classes that are absent are left out."""
        return [record.areas for record in self._records.values()]

    def __call__(self, file: LabelledFile) -> Tensor:
        """The mask of class ids, ``(H, W)`` uint8 with 255 as void; a damaged one in the cache is drawn again."""
        record = self._records[file.name]
        path = self._path(record)
        if path is None:
            mask = torch.from_numpy(draw(self._drawings[file.name]))
        else:
            cached = _read_cached(path, record.checksum)
            mask = self._draw_again(file.name, path) if cached is None else cached
        check_mask_size(file.image, mask, f"in {self._annotations}")
        return mask

    def _path(self, record: Record) -> Path | None:
        return None if self._folder is None else self._folder / record.file_name

    def _cached_records(self) -> dict[str, Record]:
        """The records of the manifest; empty if it is damaged, of another source, or masks are missing."""
        if self._folder is None:
            return {}
        try:
            manifest = json.loads((self._folder / _MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        if not isinstance(manifest, dict) or manifest.get("source") != self._source:
            return {}
        records = {
            name: Record(image_id, {int(value): area for value, area in areas.items()}, checksum)
            for name, (image_id, areas, checksum) in manifest["masks"].items()
        }
        self._check_crowds({int(value): counts for value, counts in manifest["crowds"].items()})
        present = set(os.listdir(self._folder))
        return records if all(record.file_name in present for record in records.values()) else {}

    def _draw_all(self, progress: Progress | None) -> None:
        """Draw the masks of all images, and write the manifest last."""
        instances = Instances(self._annotations, self._overlap, self._crowd)
        self._check_crowds(instances.crowds)
        names = list(instances.ids)
        self._check_images_present(names)
        self._check_image_sizes(instances)
        for name in names if progress is None else progress(names):
            drawing = instances.drawing(name)
            mask = draw(drawing)
            counts = np.bincount(mask.ravel(), minlength=VOID + 1)
            areas = {value: int(counts[value]) for value in range(1, len(COCO_CLASSES) + 1) if counts[value]}
            record = self._records[name] = Record(instances.ids[name], areas, zlib.crc32(mask.tobytes()))
            path = self._path(record)
            if path is None:
                self._drawings[name] = drawing
            else:
                _save(path, _png(mask))
        if self._folder is not None:
            about = {"source": self._source, "annotations": self._annotations.name, "crowds": instances.crowds}
            manifest = {**about, "masks": self._records}
            _save(self._folder / _MANIFEST, json.dumps(manifest).encode())

    def _draw_again(self, name: str, path: Path) -> Tensor:
        """Draw a mask of the cache that is damaged."""
        if self._instances is None:
            if file_digest(self._annotations) != self._digest:
                raise InputError(
                    f"{self._annotations} has changed since its masks were drawn, and one of the masks is damaged "
                    f"({path}): restart, so that all of them are drawn again."
                )
            self._instances = Instances(self._annotations, self._overlap, self._crowd)
        mask = draw(self._instances.drawing(name))
        _save(path, _png(mask))
        return torch.from_numpy(mask)

    def _check_crowds(self, crowds: Mapping[int, Sequence[int]]) -> None:
        if self._crowd == "void":
            check_crowds(self._annotations, crowds)

    def _check_images_present(self, names: Collection[str]) -> None:
        missing = [name for name in names if not (self._images / name).is_file()]
        if missing:
            found = some([path.name for path in without_leftovers(self._images.iterdir())]) or "nothing"
            raise InputFileError(
                f"{self._annotations} does not match the images in {self._images}: {len(missing)} of its {len(names)} "
                f"images are missing: {some(missing)}. The folder holds {found}; take both of one year and one split."
            )

    def _check_image_sizes(self, instances: Instances) -> None:
        odd = []
        for name in instances.ids:
            (height, width), (real_height, real_width) = instances.size(name), image_size(self._images / name)
            if (real_height, real_width) != (height, width):
                odd.append(f"{name} is {real_width} x {real_height} (width x height), not {width} x {height}")
        if odd:
            raise InputError(
                f"{self._annotations} does not match the images in {self._images}: {len(odd)} of its "
                f"{len(instances.ids)} images have another size: {some(odd)}. Use the original images: the polygons do "
                f"not fit resized or rotated ones."
            )


def file_digest(path: Path) -> str:
    """The sha256 hash of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mask_folder(cache: Path, digest: str, overlap: Overlap, crowd: Crowd = "void") -> Path:
    """The folder in the cache for the masks of an instances file with this `file_digest`."""
    rules = overlap if crowd == "void" else f"{overlap}_crowd_{crowd}"
    return cache / f"masks_{rules}_{digest[:12]}"


def _read_cached(path: Path, checksum: int) -> Tensor | None:
    """A mask of the cache, or None if it is missing or differs from what was written."""
    try:
        mask = load_mask(path)
    except (FileNotFoundError, ValueError):
        return None
    return mask if zlib.crc32(mask.numpy().tobytes()) == checksum else None


def _png(mask: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def _save(path: Path, content: bytes) -> None:
    """Write a file of the cache; the error names the option that avoids it."""
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise WriteError(
            error.errno,
            f"{path.parent}: the masks cannot be saved there ({error.strerror}); name a writable folder with "
            f"``cache=``, or pass cache=None to draw them anew each time",
        ) from error
