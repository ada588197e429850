"""From a network's square output back to the picture as it was."""

import torch.nn.functional as F
from torch import Tensor

from dpcn_modules._checks import check_shapes


def logits_at_original_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo the test transform: resize the square canvas to the picture's long side, and cut the padding off.

    Args:
        logits: of one picture on its square canvas, ``(2, S, S)``, the picture at the top left.
        size: ``(Hi, Wi)`` of the original picture.

    Returns:
        ``(2, Hi, Wi)``, float32.

    Raises:
        ValueError: ``logits`` is no square.

    Example:
        >>> import torch
        >>> logits_at_original_size(torch.zeros(2, 64, 64), (100, 75)).shape
        torch.Size([2, 100, 75])
    """
    side = max(size)
    check_shapes(logits=(logits, f"2 {logits.shape[-1]} S"))
    square = logits.float().unsqueeze(0)
    if logits.shape[-1] != side:
        # Half-pixel centres, as the picture was shrunk; the published code aligns corners, up to half a pixel off.
        square = F.interpolate(square, (side, side), mode="bilinear", align_corners=False)
    return square[0, :, : size[0], : size[1]]
