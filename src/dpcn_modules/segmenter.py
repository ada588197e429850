"""Segment something new in pictures, shown by a few masked pictures of it."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from dpcn_modules.data.boxes import Annotation, annotate
from dpcn_modules.data.episodes import target_mask
from dpcn_modules.data.images import VOID, ImageLike, as_image, as_mask, binary_mask, check_same_size
from dpcn_modules.data.transforms import TestTransform
from dpcn_modules.evaluation import logits_at_original_size
from dpcn_modules.interface import SupportFeatures
from dpcn_modules.models import FewShotNetwork, read_checkpoint
from dpcn_modules.models.checkpoint import restore_model

_FIELD_SIZE = 473  # the square that the field trains and tests at


class FewShotSegmenter:
    """Segment something new in pictures, shown by a few masked pictures of it.

    The support is encoded once, and every later picture once. Pictures of any size are laid on a square canvas for
    the network, and the result has the picture's own size.

    Args:
        model: the network. It is put into evaluation mode and onto the device, and must not be trained on while it
            is used here: the encoded support would be of other parameters (give a copy of it).
        size: side of the square that the network sees; best the one it was trained at.
        device: where it runs; None: where the network is.

    Raises:
        ValueError: ``size`` is not positive, or the device is not there.

    Example:
        >>> import torch
        >>> from dpcn_modules.models import build_model
        >>> segmenter = FewShotSegmenter(build_model("dpcn_small"), size=64)
        >>> picture, mask = torch.rand(3, 60, 80), torch.zeros(60, 80)
        >>> mask[20:40, 30:50] = 1
        >>> segmenter.set_support(picture, mask)
        >>> segmenter.segment(torch.rand(3, 100, 70)).shape
        torch.Size([100, 70])
    """

    def __init__(
        self, model: FewShotNetwork, *, size: int = _FIELD_SIZE, device: str | torch.device | None = None
    ) -> None:
        self._transform = TestTransform(size)
        self.size = size
        self.device = next(model.parameters()).device if device is None else _present(torch.device(device))
        self.model = model.to(self.device).eval()
        self._support: SupportFeatures | None = None

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, size: int | None = None, device: str | torch.device | None = None
    ) -> Self:
        """Build a segmenter from a checkpoint.

        Args:
            checkpoint: a file that ``dpcn fit`` wrote.
            size: as above; None: the size that the network was trained at, or 473 if the checkpoint does not say.
            device: where it runs; None: the GPU where there is one, else the CPU.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no checkpoint of this library, or as above.
        """
        content = read_checkpoint(checkpoint)
        model = restore_model(content, source=str(checkpoint))
        if size is None:
            size = content.size or _FIELD_SIZE
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model, size=size, device=device)

    def set_support(
        self,
        images: ImageLike | Iterable[ImageLike],
        masks: ImageLike | Iterable[ImageLike],
        *,
        class_id: int | None = None,
        annotation: Annotation = "mask",
    ) -> None:
        """Show what to segment. Replaces the support that was set before; an error leaves that as it was.

        Args:
            images: one picture, or several (a list); each a path, a PIL picture, a numpy array ``(H, W, 3)``
                or a tensor ``(3, H, W)`` (uint8, or floating point in [0, 1]). They may differ in size.
            masks: as many masks, each of its picture's size: a path, a PIL picture, or an array or tensor ``(H, W)``.
                1 is the object, 0 background, 255 void; without a 1, 255 is the object (a black and white mask).
            class_id: where the masks hold class ids (PASCAL VOC's palette PNGs), the id of the object.
            annotation: turns precise masks into boxes, to try how well boxes would do: "mask" leaves them, "box" fills
                the box of each connected object, "class_box" the one around all. A box that was drawn as a filled
                rectangle is a mask like any other and needs no setting.

        Raises:
            FileNotFoundError: there is no such file.
            ModuleNotFoundError: "box" without scipy.
            TypeError: a picture or mask is none of these kinds.
            ValueError: no support, another number of masks than pictures, a picture and a mask of different size, a
                picture or mask that cannot be read, mask values other than the above, a mask without ``class_id``, or
                an unknown ``annotation``.

        Note:
            A mask without foreground is allowed. Its shot then shows nothing of the object; if no shot shows
            anything, prototype, kernels and activation are zero, and the result is defined but means nothing.
        """
        pictures, truths = _listed(images), _listed(masks)
        if len(pictures) != len(truths) or not pictures:
            raise ValueError(
                f"``images`` and ``masks``: expected one mask for each of one or more pictures, got {len(pictures)} "
                f"images and {len(truths)} masks; several go in as two lists in the same order."
            )
        pairs = [
            self._transform(*_read_pair(image, mask, number, class_id, annotation))
            for number, (image, mask) in enumerate(zip(pictures, truths, strict=True), 1)
        ]
        support_images = torch.stack([image for image, _ in pairs]).unsqueeze(0)  # 1 K 3 S S
        support_masks = torch.stack([mask for _, mask in pairs]).unsqueeze(0)  # 1 K S S
        with torch.inference_mode():
            features = self.model.encode_image(support_images.to(self.device))
            self._support = self.model.encode_support(features, support_masks.to(self.device))

    def segment(self, image: ImageLike, *, threshold: float = 0.5) -> Tensor:
        """Segment a picture.

        Args:
            image: as one of ``images`` above.
            threshold: probability above which a pixel is the object, 0-1.

        Returns:
            ``(H, W)`` of the picture, uint8 in {0, 1}, on the CPU.

        Raises:
            RuntimeError: there is no support yet.
            FileNotFoundError, TypeError, ValueError: as above, or ``threshold`` is out of its range.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(
                f"``threshold``: expected a probability from 0 to 1, got {threshold}; 0.5 is the usual one."
            )
        return (self.probability(image) > threshold).to(torch.uint8)

    def probability(self, image: ImageLike) -> Tensor:
        """Give the probability of the object at every pixel of a picture.

        Args:
            image: as one of ``images`` above.

        Returns:
            ``(H, W)`` of the picture, float32 in [0, 1], on the CPU.

        Raises:
            RuntimeError: there is no support yet.
            FileNotFoundError, TypeError, ValueError: as above.
        """
        if self._support is None:
            raise RuntimeError("there is no support yet: call set_support(images, masks) first.")
        picture = as_image(image)
        height, width = picture.shape[-2:]
        canvas, _ = self._transform(picture, torch.zeros(height, width, dtype=torch.uint8))
        with torch.inference_mode():
            query = self.model.encode_image(canvas.unsqueeze(0).to(self.device))
            prediction = self.model.decode(query, self._support, (self.size, self.size))
            logits = logits_at_original_size(prediction.logits[0], (height, width))
        # Outside inference mode, whose tensors the caller could not edit in place.
        return logits.softmax(0)[1].cpu()


def _read_pair(
    image: ImageLike, mask: ImageLike, number: int, class_id: int | None, annotation: Annotation
) -> tuple[Tensor, Tensor]:
    """A support picture ``(3, H, W)`` and its mask ``(H, W)`` in {0, 1, 255}, both uint8."""
    image_name, mask_name = _name(image, f"support image {number}"), _name(mask, f"support mask {number}")
    picture, values = as_image(image, image_name), as_mask(mask, mask_name)
    height, width = picture.shape[-2:]
    check_same_size((height, width), (values.shape[0], values.shape[1]), image_name=image_name, mask_name=mask_name)
    if class_id is None:
        return picture, annotate(binary_mask(values, mask_name), annotation)
    there = [value for value in range(1, VOID) if bool((values == value).any())]
    if class_id not in there:
        raise ValueError(f"{mask_name}: expected pixels of ``class_id`` {class_id}, got only the class ids {there}.")
    return picture, annotate(target_mask(values, class_id), annotation)


def _name(picture: ImageLike, otherwise: str) -> str:
    return str(picture) if isinstance(picture, str | PathLike) else otherwise


def _listed(value: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    # A path, an array and a tensor can be iterated over too, and are one picture.
    if isinstance(value, str | PathLike | np.ndarray | Tensor) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _present(device: torch.device) -> torch.device:
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"``device``: expected one that is there, got {str(device)!r}, and PyTorch finds "
            f"{torch.cuda.device_count()} CUDA devices; `dpcn info` says why, and device='cpu' works everywhere."
        )
    return device
