"""Labelled images on disk: found, checked and counted before the first episode is drawn."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dpcn_modules._checks import VOID
from dpcn_modules.data.decoding import image_size
from dpcn_modules.data.io import binary_mask, check_same_size, load_image, load_mask

_THREADS = 2  # small masks spend most time under Python's lock: more threads are slower
_UINT8_IDS = 255


class LabelledFile(NamedTuple):
    """An image and its mask.

    Attributes:
        name: finds the image again.
        image: the image.
        mask: its mask, of class ids, or of one object where ``class_id`` is given.
        class_id: the class of the one object.
    """

    name: str
    image: Path
    mask: Path
    class_id: int | None = None


def read_mask(file: LabelledFile) -> Tensor:
    """The mask of class ids, ``(H, W)``, 255 void: uint8, or int16 for a class id above 255."""
    mask = load_mask(file.mask)
    if file.class_id is None:
        return mask
    mask = binary_mask(mask, str(file.mask))
    ids = mask.to(torch.uint8 if file.class_id < _UINT8_IDS else torch.int16)
    return torch.where(ids == 1, file.class_id, ids).to(ids.dtype)


def check_files_exist(files: Sequence[LabelledFile], source: str, tree: str) -> None:
    """Raise one FileNotFoundError that counts all missing images and masks and names the first few."""
    paths = [path for file in files for path in (file.image, file.mask)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        first = "\n  ".join(str(path) for path in missing[:5])
        more = f"\n  and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FileNotFoundError(
            f"{source}: {len(missing)} of its {len(paths)} files are missing:\n  {first}{more}\n{tree}"
        )


def count_pixels(files: Sequence[LabelledFile], class_ids: Collection[int]) -> list[dict[int, int]]:
    """Read every mask, and count the pixels of every class in it.

    Masks are decoded wholly, so that a broken one is named now; of images only the header is read.

    Args:
        files: the images and masks.
        class_ids: the ids that a mask may hold beside 0 and 255.

    Returns:
        For every image, class id to number of pixels; classes that are absent are left out.

    Raises:
        ValueError: a mask cannot be decoded, holds an unknown id, or differs in size from its image.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_count, class_ids=frozenset(class_ids)), files))


def _count(file: LabelledFile, class_ids: frozenset[int]) -> dict[int, int]:
    mask = read_mask(file)
    height, width = mask.shape
    check_same_size(image_size(file.image), (height, width), image_name=str(file.image), mask_name=str(file.mask))
    counts = torch.bincount(mask.flatten())
    areas = {value: int(counts[value]) for value in counts.nonzero().flatten().tolist()}
    unknown = sorted(set(areas) - class_ids - {0, VOID})
    if unknown:
        raise ValueError(
            f"{file.mask}: expected the class ids {min(class_ids)} to {max(class_ids)}, 0 (background) and "
            f"255 (void), got {unknown[:5]}; is it a mask of objects instead of classes, or of another data set?"
        )
    return {value: area for value, area in areas.items() if value in class_ids}


def check_images_present(annotations: Path, images: Path, names: Collection[str]) -> None:
    """Raise FileNotFoundError unless every image is there."""
    missing = [name for name in names if not (images / name).is_file()]
    if missing:
        found = sorted(os.listdir(images))
        holds = f"holds {first(found)}" if found else "is empty"
        raise FileNotFoundError(
            f"{annotations} does not match the images in {images}: {len(missing)} of its {len(names)} images are "
            f"missing: {first(missing)}. The folder {holds}; take both of one year and one split."
        )


def check_image_sizes(annotations: Path, images: Path, sizes: dict[str, tuple[int, int]]) -> None:
    """Raise ValueError unless every image has the size of which the annotation file speaks."""
    odd = []
    for name, (height, width) in sizes.items():
        real_height, real_width = image_size(images / name)
        if (real_height, real_width) != (height, width):
            odd.append(f"{name} is {real_width} x {real_height} (width x height), not {width} x {height}")
    if odd:
        raise ValueError(
            f"{annotations} does not match the images in {images}: {len(odd)} of its {len(sizes)} images have "
            f"another size: {first(odd)}. Take the original images: its polygons do not fit shrunk or turned ones."
        )


def first(items: Sequence[str]) -> str:
    """The first five, and how many more there are."""
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def without_classes(
    files: Sequence[LabelledFile], areas: Sequence[dict[int, int]], class_ids: Collection[int]
) -> tuple[list[LabelledFile], list[dict[int, int]]]:
    """The images, and their areas, that hold not a pixel of these classes."""
    pairs = zip(files, areas, strict=True)
    kept = [(file, area) for file, area in pairs if area.keys().isdisjoint(class_ids)]
    return [file for file, _ in kept], [area for _, area in kept]


class FileImages:
    """A `ImageSource` of files whose masks have been counted.

    Args:
        name: what the images are, in a few words.
        class_names: class id to name of the classes that may be a target.
        files: the images and masks.
        areas: the pixels of every class in them, from `count_pixels`.
        min_area: the pixels of the original mask from which on a class counts in an image.
        masks: gives the mask of a file.
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
        """Ids of the images in which a class counts, in a fixed order."""
        return self._counted[class_id]

    def classes_of(self, image_id: int) -> Sequence[int]:
        """This split's classes present in an image, whatever their area."""
        return self._present[image_id]

    def image_name(self, image_id: int) -> str:
        """The name that finds the image again."""
        return self._files[image_id].name

    def load(self, image_id: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 ``(3, H, W)``, and its mask of class ids, ``(H, W)``, 255 void."""
        file = self._files[image_id]
        return load_image(file.image), self._masks(file)
