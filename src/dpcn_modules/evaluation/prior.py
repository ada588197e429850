"""What a network's features find without having been trained to segment: the prior mask, cut at a threshold."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dpcn_modules.data import Episode
from dpcn_modules.evaluation.scoring import logits_at_original_size
from dpcn_modules.functional import prior_mask
from dpcn_modules.interface import ImageFeatures

THRESHOLDS = tuple(i / 20 for i in range(1, 20))


class Encoder(Protocol):
    """A network with the door for features."""

    def encode_image(self, image: Tensor) -> ImageFeatures:
        """``(B, 3, Hi, Wi)`` or ``(B, K, 3, Hi, Wi)`` to features."""
        ...


@torch.no_grad()
def best_prior_threshold(
    model: Encoder, batches: Iterable[Episode], thresholds: Sequence[float] = THRESHOLDS
) -> tuple[float, float]:
    """Score the prior mask of a network's high-level features at several thresholds, and take the best.

    The threshold is chosen on the episodes it is scored on, which flatters the prior mask: an upper bound.

    Args:
        model: gives the features; put it into evaluation mode first.
        batches: collated test episodes, query masks at original size.
        thresholds: in [0, 1].

    Returns:
        The best mIoU (0-1) and its threshold.
    """
    cuts = torch.tensor(thresholds).reshape(-1, 1, 1)
    sums: dict[int, Tensor] = {}  # by class: intersections and unions, (2, thresholds)
    for batch in batches:
        query, support = model.encode_image(batch.query_image), model.encode_image(batch.support_images)
        prior = prior_mask(query.high, support.high, batch.support_masks)
        prior = F.interpolate(prior, batch.query_image.shape[-2:], mode="bilinear", align_corners=True)
        class_ids = torch.as_tensor(batch.class_id).tolist()
        for i, (height, width) in enumerate(batch.query_size.tolist()):
            # The same way back to the picture as the logits take; a map is one channel of two.
            score = logits_at_original_size(prior[i].expand(2, -1, -1), (height, width))[0]
            truth = batch.query_mask[i, :height, :width]
            found, wanted = (score > cuts) & (truth != 255), truth == 1
            counts = torch.stack([(found & wanted).sum((1, 2)), (found | wanted).sum((1, 2))])
            sums[class_ids[i]] = sums.get(class_ids[i], torch.zeros_like(counts)) + counts
    miou = torch.stack([counts[0] / counts[1].clamp(min=1) for counts in sums.values()]).mean(0)
    best = int(miou.argmax())
    return float(miou[best]), float(thresholds[best])
