"""K-shot fusion: one mask of the predictions of K single shots."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from dpcn_modules._checks import check_choice, check_shapes
from dpcn_modules.errors import InputError

Fusion = Literal["concat", "vote", "average", "or"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


def fuse_shots(logits: Tensor, fusion: Fusion) -> Tensor:
    """Fuse the predictions of K single shots into one mask.

    A position is foreground where, of the K shots,

    - "vote": more than half predict foreground; with an even K, a tie is background,
    - "average": the mean probability of foreground is above 0.5,
    - "or": any predicts foreground.

    A shot predicts foreground where its foreground logit is the larger one, so for K = 1 all three are the argmax.

    Args:
        logits: of K one-shot predictions, ``(..., K, 2, H, W)``.
        fusion: one of the three; "concat" is no fusion of masks.

    Returns:
        ``(..., H, W)`` int64 in {0, 1}.

    Raises:
        ValueError: another shape, no shot, or another ``fusion``.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.0, 0.1], [0.0, 0.2], [3.0, 0.0]]).reshape(3, 2, 1, 1)
        >>> [fuse_shots(logits, fusion).item() for fusion in ("vote", "average", "or")]
        [1, 0, 1]

    Reference: Liu et al., CVPR 2022, table 7.
    """
    check_choice("fusion", fusion, FUSIONS)
    if fusion == "concat":
        raise InputError(
            "``fusion``: expected one of vote, average, or, which fuse masks of single shots, got 'concat'; that is "
            "the network's own forward on all shots at once."
        )
    leading = [f"axis{i}" for i in range(logits.ndim - 4)]
    lengths = check_shapes(logits=(logits, " ".join([*leading, "K 2 H W"])))
    if lengths["K"] == 0:
        raise InputError(f"``logits``: expected one shot or more (K 2 H W), got shape {tuple(logits.shape)}.")
    background, foreground = logits.to(torch.promote_types(logits.dtype, torch.float32)).unbind(-3)  # each ... K H W
    margin = foreground - background
    return _RULES[fusion](margin).long()


_RULES: dict[Fusion, Callable[[Tensor], Tensor]] = {
    "vote": lambda margin: 2 * (margin > 0).sum(-3) > margin.shape[-3],
    # tanh(margin / 2) is 2 p - 1, and unlike p it keeps its sign where p would be rounded to 0.5.
    "average": lambda margin: torch.tanh(margin / 2).mean(-3) > 0,
    "or": lambda margin: (margin > 0).any(-3),
}
"""From the margins of K shots, foreground minus background ``(..., K, H, W)``, to the fused foreground."""
