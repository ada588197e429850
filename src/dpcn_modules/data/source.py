"""The interface between data sets and the episodes sampled from them."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from torch import Tensor

Split = Literal["train", "test"]


class ImageSource(Protocol):
    """The labelled images of one split of one fold, whose classes may be targets.

    Attributes:
        name: a description for logs and result files (``"pascal5i fold 0 test, val.txt (192 images)"``).
        class_names: class id (the value stored in the masks) to name, for the classes of this split.
        images: the ids of all images that may be a query, in a fixed order.
    """

    name: str
    class_names: Mapping[int, str]
    images: Sequence[int]

    def images_of(self, class_id: int) -> Sequence[int]:
        """Ids of the images in which a class is large enough to count, in a fixed order."""
        ...

    def classes_of(self, image_id: int) -> Sequence[int]:
        """The classes of this split that are present in an image, whatever their area."""
        ...

    def image_name(self, image_id: int) -> str:
        """A name that identifies the image (a file name without folder, or a seed)."""
        ...

    def load(self, image_id: int) -> tuple[Tensor, Tensor]:
        """The image, ``(3, H, W)`` uint8, and its mask of class ids, ``(H, W)`` uint8 with 255 as void."""
        ...


class FoldedData(Protocol):
    """A data set with folds, which gives the labelled images of either split."""

    def split(self, split: Split) -> ImageSource:
        """The images whose targets are the training or the held-out classes of the fold."""
        ...
