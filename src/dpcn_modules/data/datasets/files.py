"""Labelled images on disk, which are found, checked and counted before the first episode is sampled."""

import contextlib
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dpcn_modules._checks import VOID, some
from dpcn_modules.data.decoding import image_size
from dpcn_modules.data.io import check_same_size, load_image, load_mask, warn_of_orientation
from dpcn_modules.data.object_masks import binary_mask
from dpcn_modules.errors import InputError, InputFileError

_THREADS = 2  # small masks spend most time under Python's lock: more threads are slower


class LabelledFile(NamedTuple):
    """The name and paths of an image and its mask, which holds class ids or, if ``class_id`` is given, one object.

    ``void`` and ``object`` are values in the mask of one object, see `binary_mask`.
    """

    name: str
    image: Path
    mask: Path
    class_id: int | None = None
    void: int | None = None
    object: int | None = None


def read_mask(file: LabelledFile) -> Tensor:
    """The mask of class ids, ``(H, W)`` with 255 as void: uint8, or int16 for a class id above 255."""
    if file.class_id is None:
        return load_mask(file.mask, palette="voc")
    mask = binary_mask(load_mask(file.mask, palette="object"), str(file.mask), void=file.void, object=file.object)
    ids = mask.to(torch.uint8 if file.class_id < VOID else torch.int16)
    return ids.masked_fill(ids == 1, file.class_id)


def check_mask_size(image: Path, mask: Tensor, mask_name: str) -> None:
    """Raise ValueError unless a mask ``(H, W)`` has the size of its image file."""
    check_same_size(image_size(image), mask.shape, image_name=str(image), mask_name=mask_name)


def check_files_exist(files: Sequence[LabelledFile], source: str, tree: str) -> None:
    """Raise one FileNotFoundError that counts all missing images and masks and names the first few."""
    paths = [path for file in files for path in (file.image, file.mask)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        count = f"{len(missing)} of its {len(paths)} files"
        raise InputFileError(f"{source}: {count} are missing: {some(missing)}.\n{tree}")


def count_pixels(files: Sequence[LabelledFile], class_ids: Collection[int]) -> list[dict[int, int]]:
    """For every image, class id to number of pixels in its mask; classes that are absent are left out.

    Masks are decoded completely, and headers of images read: ValueError if a mask cannot be decoded, differs in size
    from its image, or holds an id that is neither 0, 255 nor one of ``class_ids``.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_count, class_ids=frozenset(class_ids)), files))


def _count(file: LabelledFile, class_ids: frozenset[int]) -> dict[int, int]:
    mask = read_mask(file)
    check_mask_size(file.image, mask, str(file.mask))
    warn_of_orientation(file.image, file.mask, image_name=str(file.image), mask_name=str(file.mask))
    counts = torch.bincount(mask.flatten())
    areas = {value: int(counts[value]) for value in counts.nonzero().flatten().tolist()}
    unknown = sorted(set(areas) - class_ids - {0, VOID})
    if unknown:
        raise InputError(
            f"{file.mask}: expected the class ids {min(class_ids)} to {max(class_ids)}, 0 (background) and "
            f"255 (void), got {some(unknown)}; is it a mask of objects instead of classes, or of another data set?"
        )
    return {value: area for value, area in areas.items() if value in class_ids}


def without_classes(
    files: Sequence[LabelledFile], areas: Sequence[dict[int, int]], class_ids: Collection[int]
) -> tuple[list[LabelledFile], list[dict[int, int]]]:
    """The images without a single pixel of these classes, and their areas."""
    pairs = zip(files, areas, strict=True)
    kept = [(file, area) for file, area in pairs if area.keys().isdisjoint(class_ids)]
    return [file for file, _ in kept], [area for _, area in kept]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which replaces ``path`` once the block ends without an error.

    Other processes see the old file or the complete new one.
    """
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        os.replace(fresh, path)
    finally:
        # An error here would hide the one that left the file behind.
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


class FileImages:
    """An `ImageSource` of files.

    Args:
        name, class_names: as in `ImageSource`.
        files: the images and masks.
        areas: the pixels of every class in them, from `count_pixels`.
        min_area: the number of mask pixels from which a class counts in an image.
        masks: returns the mask of a file.
    """

    def __init__(
        self,
        name: str,
        class_names: Mapping[int, str],
        files: Sequence[LabelledFile],
        areas: Sequence[Mapping[int, int]],
        *,
        min_area: int,
        masks: Callable[[LabelledFile], Tensor] = read_mask,
    ) -> None:
        self.name = name
        self.class_names: Mapping[int, str] = class_names
        self._files = files
        self._masks = masks
        self._present = [[value for value in class_names if value in area] for area in areas]
        self._counted: dict[int, Sequence[int]] = {
            value: [i for i, area in enumerate(areas) if area.get(value, 0) >= min_area] for value in class_names
        }
        self.images: Sequence[int] = sorted({i for ids in self._counted.values() for i in ids})

    def images_of(self, class_id: int) -> Sequence[int]:
        return self._counted[class_id]

    def classes_of(self, image_id: int) -> Sequence[int]:
        return self._present[image_id]

    def image_name(self, image_id: int) -> str:
        return self._files[image_id].name

    def load(self, image_id: int) -> tuple[Tensor, Tensor]:
        file = self._files[image_id]
        return load_image(file.image), self._masks(file)
