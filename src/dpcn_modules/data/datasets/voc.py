"""The folder, lists and palette masks of VOC 2012."""

import re
from pathlib import Path

from PIL import Image
from torch import Tensor

from dpcn_modules.data.listing import read_lines
from dpcn_modules.data.palettes import VOC_COLOURS
from dpcn_modules.errors import InputError, InputFileError

VOC_LISTS = Path("ImageSets", "Segmentation")
_OTHER_YEARS = {(209, 213): 2007, (511, 512): 2008, (749, 750): 2009, (964, 964): 2010, (1112, 1111): 2011}
_VOC_TREE = """Expected tree (VOCtrainval_11-May-2012.tar; see docs/data.md):
  VOC2012/
    JPEGImages/2007_000032.jpg ...
    SegmentationClass/2007_000032.png ...
    ImageSets/Segmentation/train.txt, val.txt"""


def check_voc_folder(root: Path, tree: str) -> None:
    """Raise FileNotFoundError, with the expected tree, unless a folder holds ``JPEGImages``."""
    if not (root / "JPEGImages").is_dir():
        below = [path for path in (root / "VOC2012", root / "VOCdevkit" / "VOC2012") if path.is_dir()]
        hint = f" Did you mean {below[0]}?" if below else ""
        raise InputFileError(f"{root}: there is no VOC folder (no JPEGImages in it).{hint}\n{tree}")


class VocFolder:
    """The images, masks and segmentation lists (ids of ``train`` and ``val``) in the folder of VOC 2012.

    Raises:
        FileNotFoundError: the folder is not a VOC folder, or lacks lists or masks.
        ValueError: a list is malformed, or the data is the VOC of another year.
    """

    def __init__(self, root: Path) -> None:
        check_voc_folder(root, _VOC_TREE)
        needed = [root / VOC_LISTS / "train.txt", root / VOC_LISTS / "val.txt", root / "SegmentationClass"]
        absent = [str(path) for path in needed if not path.exists()]
        if absent:
            raise InputFileError(f"{', '.join(absent)}: not there; extract VOC's archive again.\n{_VOC_TREE}")
        self.root = root
        self.train, self.val = (frozenset(read_ids(path)) for path in needed[:2])
        sizes = len(self.train), len(self.val)
        year = 2007 if all(re.fullmatch(r"\d{6}", name) for name in self.train) else _OTHER_YEARS.get(sizes)
        if year is not None:
            raise InputError(
                f"{root}: expected VOC 2012 (1464 ids in train.txt, 1449 in val.txt), got VOC {year} "
                f"({sizes[0]} and {sizes[1]}); give the folder VOCdevkit/VOC2012."
            )

    def image(self, name: str) -> Path:
        """The path of an image."""
        return self.root / "JPEGImages" / f"{name}.jpg"

    def own_mask(self, name: str) -> Path:
        """The path of VOC's mask of an image; the file may be absent."""
        return self.root / "SegmentationClass" / f"{name}.png"


def read_ids(path: Path) -> list[str]:
    """Read a list with one image id a line; ValueError if a line has more, the list is empty, or as `read_lines`."""
    ids = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) > 1:
            advice = "use the list as it was published"
            raise InputError(f"{path}, line {number}: expected one image id, got {line!r}; {advice}.")
        ids += words
    if not ids:
        raise InputError(f"{path}: the list is empty; extract the archive again.")
    return ids


def save_class_mask(mask: Tensor, path: Path) -> None:
    """Write class ids, ``(H, W)`` uint8, as a PNG in VOC's colours."""
    image = Image.fromarray(mask.numpy())
    image.putpalette([part for colour in VOC_COLOURS for part in colour])
    image.save(path, format="PNG")
