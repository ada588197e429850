"""COCO's instances as masks of class ids, drawn once and kept."""

import contextlib
import hashlib
import io
import json
import os
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dpcn_modules._checks import VOID, require
from dpcn_modules.data.datasets.files import LabelledFile, check_image_sizes, check_images_present
from dpcn_modules.data.datasets.folds import COCO_CLASSES
from dpcn_modules.data.decoding import image_size
from dpcn_modules.data.io import check_same_size, load_mask

Overlap = Literal["smaller_on_top", "annotation_order"]
Progress = Callable[[Iterable[str]], Iterable[str]]

_RENDERER = 1  # one more with every change of what is drawn: kept masks are then drawn again
_MANIFEST = "manifest.json"


class Drawing(NamedTuple):
    """What is painted for an image, in this order, on background: mask values and compressed run lengths."""

    size: tuple[int, int]
    objects: list[tuple[int, bytes]]


class Record(NamedTuple):
    """What is known of a mask without reading it: the pixels of every class, and a checksum of all pixels."""

    image_id: int
    areas: dict[int, int]
    checksum: int

    @property
    def file_name(self) -> str:
        return f"{self.image_id:012d}.png"


def draw(drawing: Drawing) -> NDArray[np.uint8]:
    """The mask of class ids, ``(H, W)``, 255 void."""
    mask = np.zeros(drawing.size, dtype=np.uint8)
    for value, counts in drawing.objects:
        mask[_decoded({"size": list(drawing.size), "counts": counts}) == 1] = value
    return mask


def _decoded(encoded: dict[str, Any]) -> NDArray[np.uint8]:
    from pycocotools import mask as runs

    with warnings.catch_warnings():
        # pycocotools 2.0.11 speaks to numpy 2 in the manner of numpy 1.
        warnings.simplefilter("ignore", DeprecationWarning)
        decoded: NDArray[np.uint8] = runs.decode(encoded)
    return decoded


class Instances:
    """The annotated images of a checked annotation file, and what is to be painted for each."""

    def __init__(self, path: Path, content: dict[str, Any], overlap: Overlap) -> None:
        require("pycocotools", extra="coco")
        from pycocotools.coco import COCO

        self._path = path
        self._overlap = overlap
        self._coco = COCO()
        self._coco.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco.createIndex()
        self._numbers = {each: number for number, each in enumerate(sorted(self._coco.cats), start=1)}
        # File name to id, in the order of the ids. An image without annotations can never be part of an episode.
        self.ids = {str(self._coco.imgs[each]["file_name"]): int(each) for each in sorted(self._coco.imgToAnns)}

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of an image, as the file has them."""
        image = self._coco.imgs[self.ids[name]]
        return image["height"], image["width"]

    def drawing(self, name: str) -> Drawing:
        """What is to be painted for an image: crowds as void, and its instances over them."""
        from pycocotools import mask as runs

        size = self.size(name)
        crowds, instances = [], []
        for annotation in self._coco.imgToAnns[self.ids[name]]:
            encoded = self._encoded(annotation, size)
            if annotation.get("iscrowd", 0):
                crowds.append((VOID, encoded["counts"]))
            else:
                pixels = int(runs.area(encoded))
                instances.append((pixels, self._numbers[annotation["category_id"]], encoded["counts"]))
        if self._overlap == "smaller_on_top":
            instances.sort(key=lambda instance: -instance[0])
        return Drawing(size, [*crowds, *((value, counts) for _, value, counts in instances)])

    def _encoded(self, annotation: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
        """The run lengths of an annotation, ``{"size": [H, W], "counts": bytes}``."""
        from pycocotools import mask as runs

        shape = annotation["segmentation"]
        if isinstance(shape, list) and all(isinstance(each, list) and len(each) % 2 == 0 for each in shape):
            # pycocotools takes four numbers for a box; a polygon of two points covers nothing.
            polygons = [each for each in shape if len(each) >= 6]
            if not polygons:
                return dict(runs.encode(np.zeros(size, dtype=np.uint8, order="F")))
            return dict(self._coco.annToRLE({**annotation, "segmentation": polygons}))
        if isinstance(shape, dict) and shape.get("size") == list(size) and "counts" in shape:
            encoded = dict(self._coco.annToRLE(annotation))
            if isinstance(encoded["counts"], str):
                encoded["counts"] = encoded["counts"].encode()
            # pycocotools leaves the pixels after the last run as they come.
            with contextlib.suppress(ValueError):
                if int(_decoded(encoded).sum()) == int(runs.area(encoded)):
                    return encoded
        raise ValueError(
            f"{self._path}: annotation {annotation['id']}: expected polygons [[x, y, x, y, ...], ...] or run lengths "
            f"of all {size[0]} x {size[1]} (height x width) pixels as its segmentation, got {str(shape)[:60]}; "
            f"repair it or fetch the file again."
        )


class CocoMasks:
    """The masks of the images of an annotation file; called with a `LabelledFile`, gives its mask.

    With a folder, masks are drawn once and kept as PNGs, beside a manifest that says what they were drawn from.

    Args:
        annotations: COCO's instances json.
        images: the folder of its images.
        read: reads and checks the annotation file; called only where something is to be drawn.
        overlap: "smaller_on_top" or "annotation_order".
        cache: the folder in which the folder of the masks is made; None draws them anew each time.
        progress: is given the names of the images to draw, and passes them on.
    """

    def __init__(
        self,
        annotations: Path,
        images: Path,
        *,
        read: Callable[[Path], dict[str, Any]],
        overlap: Overlap,
        cache: Path | None,
        progress: Progress | None = None,
    ) -> None:
        self._annotations = annotations
        self._images = images
        self._read = read
        self._overlap: Overlap = overlap
        self._digest = _digest(annotations)
        self._folder = None if cache is None else cache / f"masks_{overlap}_{self._digest[:12]}"
        self._source = {"annotations_sha256": self._digest, "overlap": overlap, "renderer": _RENDERER}
        self._instances: Instances | None = None
        self._drawings: dict[str, Drawing] = {}
        self._records = self._kept_records()
        if self._records:
            check_images_present(annotations, images, self._records)
        else:
            self._draw_all(progress)

    @property
    def files(self) -> list[LabelledFile]:
        """The images, in the order of their ids."""
        return [
            LabelledFile(name, self._images / name, self._path(record) or self._annotations)
            for name, record in self._records.items()
        ]

    @property
    def areas(self) -> list[dict[int, int]]:
        """For every image, class id to number of pixels; classes that are absent are left out."""
        return [record.areas for record in self._records.values()]

    def __call__(self, file: LabelledFile) -> Tensor:
        """The mask of class ids, uint8 ``(H, W)``, 255 void; a kept one that is damaged is drawn again."""
        record = self._records[file.name]
        path = self._path(record)
        if path is None:
            mask = torch.from_numpy(draw(self._drawings[file.name]))
        else:
            kept = _read_kept(path, record.checksum)
            mask = self._draw_again(file.name, path) if kept is None else kept
        height, width = mask.shape
        source = f"as {self._annotations} has it"
        check_same_size(image_size(file.image), (height, width), image_name=str(file.image), mask_name=source)
        return mask

    def _path(self, record: Record) -> Path | None:
        return None if self._folder is None else self._folder / record.file_name

    def _kept_records(self) -> dict[str, Record]:
        """The records of the manifest; none where it is damaged, of another source, or masks have gone."""
        if self._folder is None or not (self._folder / _MANIFEST).is_file():
            return {}
        try:
            manifest = json.loads((self._folder / _MANIFEST).read_bytes())
        except ValueError:
            return {}
        if not isinstance(manifest, dict) or manifest.get("source") != self._source:
            return {}
        records = {
            name: Record(image_id, {int(value): area for value, area in areas.items()}, checksum)
            for name, (image_id, areas, checksum) in manifest["masks"].items()
        }
        present = set(os.listdir(self._folder))
        return records if all(record.file_name in present for record in records.values()) else {}

    def _draw_all(self, progress: Progress | None) -> None:
        """Draw the masks of all images, and write the manifest last."""
        instances = Instances(self._annotations, self._read(self._annotations), self._overlap)
        names = list(instances.ids)
        check_images_present(self._annotations, self._images, names)
        check_image_sizes(self._annotations, self._images, {name: instances.size(name) for name in names})
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
                _replace(path, _png(mask))
        if self._folder is not None:
            manifest = {"source": self._source, "annotations": self._annotations.name, "masks": self._records}
            _replace(self._folder / _MANIFEST, json.dumps(manifest).encode())

    def _draw_again(self, name: str, path: Path) -> Tensor:
        """Draw a kept mask that is damaged."""
        if self._instances is None:
            if _digest(self._annotations) != self._digest:
                raise ValueError(
                    f"{self._annotations} has changed since its masks were drawn, and one of these is damaged "
                    f"({path}): start anew."
                )
            self._instances = Instances(self._annotations, self._read(self._annotations), self._overlap)
        mask = draw(self._instances.drawing(name))
        _replace(path, _png(mask))
        return torch.from_numpy(mask)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_kept(path: Path, checksum: int) -> Tensor | None:
    """A kept mask, or None where it has gone or is not what was written."""
    try:
        mask = load_mask(path)
    except (FileNotFoundError, ValueError):
        return None
    return mask if zlib.crc32(mask.numpy().tobytes()) == checksum else None


def _png(mask: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return file.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Write a file at one stroke, so that another process sees the old one or the new one and never a half."""
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with _writing(path.parent):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(content)
            os.replace(fresh, path)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Word the errors of writing as one that names the way out."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{folder}: the masks cannot be kept there ({error.strerror}); name a folder that can be written with "
            f"``cache=``, or pass cache=None to draw them anew each time",
        ) from error
