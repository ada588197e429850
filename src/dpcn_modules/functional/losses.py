"""The loss of an episode (Eq. 12-14)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules._checks import VOID, check_shapes, check_values, with_shot_axis
from dpcn_modules.functional.pooling import resize
from dpcn_modules.interface import Prediction


def mask_loss(logits: Tensor, mask: Tensor, *, validate: bool = True) -> Tensor:
    """Two-class cross-entropy, the mean over the pixels that are not void.

    Args:
        logits: ``(B, 2, H, W)``; brought to the size of the mask if they are smaller or larger.
        mask: ``(B, Hi, Wi)`` in {0, 1, 255}, of any dtype.
        validate: check the values of the mask, which waits for the device; False where the caller has done so.

    Returns:
        A scalar, float32 (float64 for float64 logits); 0 where every pixel is void.

    Raises:
        ValueError: shapes disagree, or a mask value is not 0, 1 or 255.

    Reference: Liu et al., CVPR 2022, eq. 12 and 13.
    """
    check_shapes(logits=(logits, "B 2 H W"), mask=(mask, "B Hi Wi"))
    if validate:
        check_values(masks={"mask": mask})
    mask = mask.to(torch.long)
    logits = resize(logits, mask.shape[-2:])
    logits = logits if logits.element_size() >= 4 else logits.float()
    summed = F.cross_entropy(logits, mask, ignore_index=VOID, reduction="sum")
    return summed / (mask != VOID).sum().clamp(min=1)  # the mean over no pixels would be NaN


def episode_loss(
    prediction: Prediction,
    query_mask: Tensor,
    support_masks: Tensor,
    *,
    reverse_weight: float = 1.0,
    auxiliary_weight: float = 1.0,
) -> dict[str, Tensor]:
    """``L = L(s->q) + lambda L(q->s)``, and the mean of the auxiliary outputs' losses where a network has them.

    Args:
        prediction: what the network gave in training.
        query_mask: ``(B, Hi, Wi)`` in {0, 1, 255}, of any dtype.
        support_masks: ``(B, K, Hi, Wi)`` or ``(B, K, 1, Hi, Wi)``, likewise; for K = 1 also ``(B, Hi, Wi)``.
        reverse_weight: lambda.
        auxiliary_weight: of the auxiliary outputs.

    Returns:
        ``"loss"``, their sum, and each part that is there: ``"query"``, ``"support"``, ``"auxiliary"``.

    Raises:
        ValueError: shapes disagree, or a mask value is not 0, 1 or 255.

    Reference: Liu et al., CVPR 2022, eq. 12-14.
    """
    masks = {"query_mask": query_mask}
    if prediction.support_logits is not None:
        logits, support_masks = with_shot_axis(prediction.support_logits, support_masks)
        check_shapes(support_logits=(logits, "B K 2 H W"), support_masks=(support_masks, "B K Hi Wi"))
        masks["support_masks"] = support_masks
    check_values(masks=masks)
    parts = {"query": mask_loss(prediction.logits, query_mask, validate=False)}
    total = parts["query"]
    if prediction.support_logits is not None:
        support_logits = prediction.support_logits.flatten(0, 1)
        parts["support"] = mask_loss(support_logits, support_masks.flatten(0, 1), validate=False)
        total = total + reverse_weight * parts["support"]
    if prediction.auxiliary_logits:
        losses = [mask_loss(logits, query_mask, validate=False) for logits in prediction.auxiliary_logits]
        parts["auxiliary"] = sum(losses[1:], losses[0]) / len(losses)
        total = total + auxiliary_weight * parts["auxiliary"]
    return {"loss": total, **parts}
