"""Masks painted on their images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules._checks import check_integer, check_mask_values, check_number, check_shapes
from dpcn_modules.errors import InputError, InputTypeError

_ORANGE = (255, 85, 0)


def overlay(
    image: Tensor, mask: Tensor, *, colour: tuple[int, int, int] = _ORANGE, alpha: float = 0.4, width: int | None = None
) -> Tensor:
    """Paint the foreground of a mask with a translucent fill and an opaque outline.

    The outline lies inside the foreground. A black line surrounds it, so that it is visible on any background.

    Args:
        image: ``(3, H, W)``, uint8.
        mask: ``(H, W)`` in {0, 1, 255}; 1 is painted.
        colour: red, green and blue, 0 to 255.
        alpha: opacity of the fill, 0 (outline only) to 1.
        width: width of the outline and of the black line in pixels; None: about 1/300 of the image's long side.

    Returns:
        ``(3, H, W)``, uint8, on the image's device.

    Raises:
        TypeError: an argument has the wrong type, or ``image`` is not uint8.
        ValueError: shapes disagree, a mask value is not 0, 1 or 255, or ``colour``, ``alpha`` or ``width`` is out of
            range.

    Example:
        >>> import torch
        >>> image, mask = torch.full((3, 3, 6), 50, dtype=torch.uint8), torch.zeros(3, 6)
        >>> mask[:, :3] = 1
        >>> overlay(image, mask, colour=(200, 0, 0), alpha=0.4)[0, 0]  # fill, fill, outline, black line, image, image
        tensor([110, 110, 200,   0,  50,  50], dtype=torch.uint8)
    """
    check_shapes(image=(image, "3 H W"), mask=(mask, "H W"))
    check_mask_values("mask", mask)
    if image.dtype != torch.uint8:
        raise InputTypeError(
            f"``image``: expected uint8, got {image.dtype}; dpcn_modules.data.denormalise converts a normalised image."
        )
    if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
        raise InputError(f"``colour``: expected red, green and blue from 0 to 255, got {colour}.")
    check_number("alpha", alpha, lowest=0, highest=1)
    if width is None:
        width = max(1, round(max(mask.shape) / 300))
    check_integer("width", width)
    foreground = (mask == 1).to(image.device)
    outline = foreground & _near(~foreground, width)
    around = ~foreground & _near(foreground, width)
    opacity = alpha * foreground + (1 - alpha) * outline
    paint = torch.tensor(colour, device=image.device)[:, None, None]
    painted = image * (1 - opacity) + paint * opacity
    return painted.masked_fill(around, 0).round().to(torch.uint8)


def _near(mask: Tensor, distance: int) -> Tensor:
    """The pixels ``(H, W)`` with a set mask pixel in the square that extends ``distance`` to all sides."""
    grown = mask[None, None].float()
    side = 2 * distance + 1
    # Rows, then columns: the same maximum as over the square, from far fewer values.
    grown = F.max_pool2d(grown, (1, side), stride=1, padding=(0, distance))
    grown = F.max_pool2d(grown, (side, 1), stride=1, padding=(distance, 0))
    return grown[0, 0] > 0
