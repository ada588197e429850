"""What a collection of labelled pictures offers to the episodes that are drawn from it."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor

Split = Literal["train", "test"]


class PictureSource(Protocol):
    """The labelled pictures of one split of one fold: only its classes may be a target.

    Attributes:
        name: what the pictures are, in a few words, for logs and result files
            (``"pascal5i fold 0 test, val.txt (192 pictures)"``).
        class_names: class id (the value stored in the masks) to name, this split's classes only.
        pictures: the ids of all pictures that may be a query, in a fixed order.
    """

    name: str
    class_names: Mapping[int, str]
    pictures: Sequence[int]

    def pictures_of(self, class_id: int) -> Sequence[int]:
        """Ids of the pictures in which a class counts (the area rule applied), in a fixed order."""
        ...

    def classes_of(self, picture: int) -> Sequence[int]:
        """This split's classes present in a picture, whatever their area."""
        ...

    def picture_name(self, picture: int) -> str:
        """A name that finds the picture again (a file name without folder, or a seed)."""
        ...

    def load(self, picture: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 ``(3, H, W)``, and its mask of class ids, uint8 ``(H, W)``, 255 void."""
        ...


class FoldedData(Protocol):
    """A data set with folds: gives the labelled pictures of either split."""

    def split(self, split: Split) -> PictureSource:
        """The pictures whose targets are the fold's training or held-out classes."""
        ...
