"""Segment a new class in images, given a few masked images of it."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor, nn

from dpcn_modules._checks import VOID, check_integer, some
from dpcn_modules.data.boxes import Annotation, annotate
from dpcn_modules.data.decoding import is_encoded, source_name
from dpcn_modules.data.io import ImageLike, as_image, as_mask, check_same_size, warn_of_orientation
from dpcn_modules.data.object_masks import binary_mask, target_mask
from dpcn_modules.data.transforms import TestTransform
from dpcn_modules.errors import InputError
from dpcn_modules.evaluation import Predictor
from dpcn_modules.interface import SupportFeatures
from dpcn_modules.models import read_checkpoint
from dpcn_modules.models.checkpoint import restore_model

_FIELD_SIZE = 473  # the square that the field trains and tests at


class FewShotSegmenter:
    """Segment a new class in images, given a few masked images of it.

    The support is encoded once, and every later image once. Images of any size are laid on a square canvas for
    the network, and the result has the image's own size.

    Args:
        model: the network, with the encode / decode API; one that ``torch.compile`` returned runs compiled. It is put
            into evaluation mode and onto the device, and must not be trained while it is used here (give a copy). Its
            weights may be float32, float64, bfloat16 or float16.
        size: side of the square that the network sees; best the one it was trained at.
        batch_size: images that are segmented at a time.
        device: where it runs; None: where the network is.

    Raises:
        ValueError: ``size`` is not positive, or the device is not there.

    Example:
        >>> import torch
        >>> from dpcn_modules.models import build_model
        >>> segmenter = FewShotSegmenter(build_model("dpcn_small"), size=64)
        >>> image, mask = torch.rand(3, 60, 80), torch.zeros(60, 80)
        >>> mask[20:40, 30:50] = 1
        >>> segmenter.set_support(image, mask)
        >>> segmenter.segment(torch.rand(3, 100, 70)).shape
        torch.Size([100, 70])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        size: int = _FIELD_SIZE,
        batch_size: int = 8,
        device: str | torch.device | None = None,
    ) -> None:
        self._transform = TestTransform(size)
        self.size = size
        check_integer("batch_size", batch_size)
        self.batch_size = batch_size
        self.device = next(model.parameters()).device if device is None else _present(torch.device(device))
        self.model = model.to(self.device).eval()
        self._predictor = Predictor(self.model)
        self._support: SupportFeatures | None = None

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, size: int | None = None, device: str | torch.device | None = None
    ) -> Self:
        """Build a segmenter from a checkpoint.

        Args:
            checkpoint: a file that ``dpcn fit`` wrote.
            size: as above; None: the size that the network was trained at, or 473 if the checkpoint does not record it.
            device: where it runs; None: the GPU where there is one, else the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no checkpoint of this library, or as above.
        """
        content = read_checkpoint(checkpoint)
        model = restore_model(content, source=str(checkpoint))
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model, size=(content.size or _FIELD_SIZE) if size is None else size, device=device)

    def set_support(
        self,
        images: ImageLike | Iterable[ImageLike],
        masks: ImageLike | Iterable[ImageLike],
        *,
        class_id: int | Sequence[int] | None = None,
        void: int | None = None,
        object: int | None = None,
        annotation: Annotation = "mask",
    ) -> None:
        """Show what to segment. Replaces the support that was set before; an error leaves that as it was.

        Args:
            images: one image, or several (a list); each a path, the bytes of a file, an open file, a PIL image, a numpy
                array ``(H, W, 3)`` or a tensor ``(3, H, W)`` (uint8, or floating point in [0, 1]). They may differ in
                size.
            masks: as many masks, each of its image's size, likewise; arrays and tensors are ``(H, W)``. The object is 1
                or 255, and 0 is background; masks with both 1 and 255 need ``void`` or ``object``.
            class_id: where the masks hold class ids, and 255 for void (PASCAL VOC's palette PNGs), the id of the
                object; several ids are one object together.
            void: the value of mask pixels that do not count, 0-255, where the masks hold one object.
            object: the value of the object in such masks, 0-255.
            annotation: turns precise masks into boxes, to try how well boxes would do: "mask" leaves them, "box" fills
                the box of each connected object, "class_box" the one around all. A box that was drawn as a filled
                rectangle is a mask like any other and needs no setting.

        Raises:
            FileNotFoundError: there is no such file.
            ModuleNotFoundError: "box" without scipy.
            TypeError: an image or mask is none of these kinds.
            ValueError: no support, another number of masks than images, an image and a mask of different size, an
                image or mask that cannot be read, mask values other than the above, a mask without ``class_id``,
                ``class_id`` together with ``void`` or ``object``, no mask with foreground, or an unknown
                ``annotation``.

        Note:
            A mask without foreground does not count; the others are used, with a warning that names it.
        """
        listed_images, listed_masks = _listed(images), _listed(masks)
        if len(listed_images) != len(listed_masks) or not listed_images:
            raise InputError(
                f"``images`` and ``masks``: expected one mask for each of one or more images, got {len(listed_images)} "
                f"images and {len(listed_masks)} masks; several go in as two lists in the same order."
            )
        if class_id is not None and not (void is None and object is None):
            raise InputError(
                f"``class_id``: expected the id of the object, or ``void`` and ``object`` for masks of one object, got "
                f"class_id={class_id}, void={void} and object={object}."
            )
        read = [
            _read_pair(image, mask, number, class_id, void, object)
            for number, (image, mask) in enumerate(zip(listed_images, listed_masks, strict=True), 1)
        ]
        empty = [number for number, (_, mask) in enumerate(read, 1) if not bool((mask == 1).any())]
        if empty:
            shown = f"``masks``: {len(empty)} of {len(read)} show nothing of the object (mask {some(empty)})"
            if len(empty) == len(read):
                raise InputError(f"{shown}; at least one needs pixels of it.")
            warnings.warn(f"{shown}, and do not count.", stacklevel=2)
        pairs = [self._transform(image, annotate(mask, annotation)) for image, mask in read]
        support = (torch.stack(each).unsqueeze(0).to(self.device) for each in zip(*pairs, strict=True))
        self._support = self._predictor.encode_support(*support)  # 1 K 3 S S and 1 K S S

    @overload
    def segment(self, image: ImageLike, *, threshold: float = 0.5) -> Tensor: ...

    @overload
    def segment(self, image: list[ImageLike], *, threshold: float = 0.5) -> list[Tensor]: ...

    def segment(self, image: ImageLike | list[ImageLike], *, threshold: float = 0.5) -> Tensor | list[Tensor]:
        """Segment an image, or a list of images of any sizes in batches.

        Args:
            image: as one of the support's ``images``, or a list of them.
            threshold: probability above which a pixel is the object, 0-1.

        Returns:
            ``(H, W)`` of the image, uint8 in {0, 1}, on the CPU; for a list, a list of them.

        Raises:
            RuntimeError: there is no support yet.
            FileNotFoundError, TypeError, ValueError: as above, or ``threshold`` is out of its range.
        """
        if not 0 <= threshold <= 1:
            raise InputError(
                f"``threshold``: expected a probability from 0 to 1, got {threshold}; 0.5 is the usual one."
            )
        if isinstance(image, list):
            return [(each > threshold).to(torch.uint8) for each in self.probability(image)]
        return (self.probability(image) > threshold).to(torch.uint8)

    @overload
    def probability(self, image: ImageLike) -> Tensor: ...

    @overload
    def probability(self, image: list[ImageLike]) -> list[Tensor]: ...

    def probability(self, image: ImageLike | list[ImageLike]) -> Tensor | list[Tensor]:
        """Give the probability of the object at every pixel, as :meth:`segment` cuts it at its threshold.

        Returns:
            ``(H, W)`` of the image, float32 in [0, 1], on the CPU; for a list, a list of them.
        """
        if self._support is None:
            raise RuntimeError("there is no support yet: call set_support(images, masks) first.")
        images = image if isinstance(image, list) else [image]
        found = []
        for start in range(0, len(images), self.batch_size):
            read = [as_image(each) for each in images[start : start + self.batch_size]]
            sizes = [(each.shape[-2], each.shape[-1]) for each in read]
            seen = [self._transform(each, torch.zeros(each.shape[-2:], dtype=torch.uint8))[0] for each in read]
            logits = self._predictor.query_logits(torch.stack(seen).to(self.device), self._support, sizes)
            found += [each.softmax(0)[1].cpu() for each in logits]
        return found if isinstance(image, list) else found[0]


def _read_pair(
    image: ImageLike,
    mask: ImageLike,
    number: int,
    class_id: int | Sequence[int] | None,
    void: int | None,
    object: int | None,
) -> tuple[Tensor, Tensor]:
    """A support image ``(3, H, W)`` and its mask ``(H, W)`` in {0, 1, 255}, both uint8."""
    names = {
        "image_name": source_name(image, f"support image {number}"),
        "mask_name": source_name(mask, f"support mask {number}"),
    }
    mask_name = names["mask_name"]
    pixels = as_image(image, names["image_name"])
    values = as_mask(mask, mask_name, palette="object" if class_id is None else "ids")
    check_same_size(tuple(pixels.shape[-2:]), tuple(values.shape), **names)
    warn_of_orientation(image, mask, **names)
    if class_id is None:
        return pixels, binary_mask(values, mask_name, void=void, object=object)
    there = [value for value in torch.unique(values).tolist() if value not in (0, VOID)]
    wanted = [class_id] if isinstance(class_id, int) else class_id
    if not set(there) & set(wanted):
        raise InputError(f"{mask_name}: expected pixels of ``class_id`` {some(wanted)}, got only the ids {there}.")
    return pixels, target_mask(values, class_id)


def _listed(value: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    # A path, an open file, an array and a tensor can be iterated over too, and are one image.
    if is_encoded(value) or isinstance(value, np.ndarray | Tensor) or not isinstance(value, Iterable):
        return [value]  # type: ignore[list-item]
    return list(value)


def _present(device: torch.device) -> torch.device:
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"``device``: expected one that is there, got {str(device)!r}, and PyTorch finds "
            f"{torch.cuda.device_count()} CUDA devices; `dpcn info` says why, and device='cpu' works everywhere."
        )
    return device
