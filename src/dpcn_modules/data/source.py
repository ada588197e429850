"""What a collection of labelled images offers to the episodes that are drawn from it."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor

Split = Literal["train", "test"]


class ImageSource(Protocol):
    """The labelled images of one split of one fold: only its classes may be a target.

    Attributes:
        name: what the images are, in a few words, for logs and result files
            (``"pascal5i fold 0 test, val.txt (192 images)"``).
        class_names: class id (the value stored in the masks) to name, this split's classes only.
        images: the ids of all images that may be a query, in a fixed order.
    """

    name: str
    class_names: Mapping[int, str]
    images: Sequence[int]

    def images_of(self, class_id: int) -> Sequence[int]:
        """Ids of the images in which a class counts (the area rule applied), in a fixed order."""
        ...

    def classes_of(self, image_id: int) -> Sequence[int]:
        """This split's classes present in an image, whatever their area."""
        ...

    def image_name(self, image_id: int) -> str:
        """A name that finds the image again (a file name without folder, or a seed)."""
        ...

    def load(self, image_id: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 ``(3, H, W)``, and its mask of class ids, uint8 ``(H, W)``, 255 void."""
        ...


class FoldedData(Protocol):
    """A data set with folds: gives the labelled images of either split."""

    def split(self, split: Split) -> ImageSource:
        """The images whose targets are the fold's training or held-out classes."""
        ...
