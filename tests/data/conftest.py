"""Small data sets on disk, written for every test."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpcn_modules.data.palettes import VOC_COLOURS

VocMaker = Callable[..., Path]
LISTS = Path("ImageSets", "Segmentation")


def paint(classes: Sequence[int], *, number: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A mask with one 20 x 20 square per class and a void row; the number varies the position."""
    mask = np.zeros(size, dtype=np.uint8)
    for position, class_id in enumerate(classes):
        left = 2 + 22 * position + number % 3
        mask[10 + number % 5 : 30 + number % 5, left : left + 20] = class_id
    mask[0] = 255
    return mask


def write_voc_image(root: Path, name: str, classes: Sequence[int], number: int, masks: str) -> None:
    """One image and its palette mask."""
    mask = paint(classes, number=number)
    noise = np.random.default_rng(number).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "JPEGImages" / f"{name}.jpg")
    image = Image.fromarray(mask)
    image.putpalette([part for colour in VOC_COLOURS for part in colour])
    image.save(root / masks / f"{name}.png")


@pytest.fixture
def make_voc(tmp_path: Path) -> VocMaker:
    """Writes a VOC folder: ``train`` images with two classes each, ``val`` images with one, each class three times."""

    def make(masks: str = "SegmentationClassAug") -> Path:
        root = tmp_path / "VOC2012"
        for folder in ("JPEGImages", masks, LISTS):
            (root / folder).mkdir(parents=True)
        names: dict[str, list[str]] = {"trainaug": [], "val": []}
        for number in range(60):
            first, second = number % 20 + 1, (number + 7) % 20 + 1
            for list_name, classes in (("trainaug", (first, second)), ("val", (first,))):
                name = f"{list_name}_{number:03d}"
                write_voc_image(root, name, classes, number, masks)
                names[list_name].append(name)
        for list_name, ids in names.items():
            (root / LISTS / f"{list_name}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
        return root

    return make


@pytest.fixture
def voc(make_voc: VocMaker) -> Path:
    """A VOC folder with masks in SegmentationClassAug."""
    return make_voc()


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Four classes of four images: bowl and cup in FSS-1000's layout, fork and knife with ``_mask``."""
    root = tmp_path / "table"
    for class_number, name in enumerate(("bowl", "cup", "fork", "knife")):
        (root / name).mkdir(parents=True)
        for number in range(4):
            mask = paint([255 if name == "cup" else 1], number=number)
            mask[0] = 0
            noise = np.random.default_rng(10 * class_number + number).integers(0, 256, (*mask.shape, 3))
            marked = name in ("fork", "knife")
            suffix = "png" if name == "knife" else "jpg"
            Image.fromarray(noise.astype(np.uint8)).save(root / name / f"{number}.{suffix}")
            Image.fromarray(mask).save(root / name / (f"{number}_mask.png" if marked else f"{number}.png"))
    return root


class MemorySource:
    """Images in memory with the given classes; the tiny ones are present but too small to count."""

    name = "memory"

    def __init__(self, counted: list[set[int]], tiny: list[set[int]] | None = None) -> None:
        self._counted = counted
        self._tiny = tiny or [set() for _ in counted]
        self.class_names = {each: f"class {each}" for each in sorted(set().union(*counted, *self._tiny))}
        self.images = [image_id for image_id, classes in enumerate(counted) if classes]
        self.reads = 0

    def images_of(self, class_id: int) -> list[int]:
        return [image_id for image_id, classes in enumerate(self._counted) if class_id in classes]

    def classes_of(self, image_id: int) -> list[int]:
        return sorted(self._counted[image_id] | self._tiny[image_id])

    def image_name(self, image_id: int) -> str:
        return f"image {image_id}"

    def load(self, image_id: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.reads += 1
        height, width = 40 + image_id, 50
        mask = torch.zeros(height, width, dtype=torch.uint8)
        for position, class_id in enumerate(self.classes_of(image_id)):
            mask[5:25, 15 * position : 15 * position + 12] = class_id
        mask[-1] = 255
        return (mask * 10).expand(3, -1, -1).contiguous(), mask


@pytest.fixture
def source() -> MemorySource:
    """Twelve images; class 1 in eight, class 2 in six, class 3 in four, tiny class 3 in two more."""
    counted = [{1}, {1, 2}, {1}, {1, 2}, {1, 3}, {1, 2}, {1}, {1, 3}, {2}, {2, 3}, {2}, {3}]
    tiny = [set() for _ in counted]
    tiny[0], tiny[2] = {3}, {3}
    return MemorySource(counted, tiny)
