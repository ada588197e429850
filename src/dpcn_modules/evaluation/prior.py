"""A baseline without training: the prior mask of a network's features, cut at a threshold."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dpcn_modules._checks import VOID
from dpcn_modules.data import Episode, View
from dpcn_modules.evaluation.predict import Predictor, logits_at_original_size
from dpcn_modules.functional import prior_mask
from dpcn_modules.functional.pooling import resize
from dpcn_modules.interface import EncodeDecodeModel

THRESHOLDS = tuple(i / 20 for i in range(1, 20))


@torch.no_grad()
def best_prior_threshold(
    model: EncodeDecodeModel, batches: Iterable[Episode], thresholds: Sequence[float] = THRESHOLDS
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
    predictor = Predictor(model)
    sums: dict[int, Tensor] = {}  # by class: intersections and unions, (2, thresholds)
    for batch in batches:
        query, support = predictor.encode(View(batch.query_image, batch.support_images, batch.support_masks))
        prior = resize(prior_mask(query.high, support.high, batch.support_masks), batch.query_image.shape[-2:])
        class_ids = torch.as_tensor(batch.class_id, device=prior.device).tolist()
        for i, (height, width) in enumerate(batch.query_size.tolist()):
            # The same way back to the image as the logits take; a map is one channel of two.
            score = logits_at_original_size(prior[i].expand(2, -1, -1), (height, width))[0]
            target = batch.query_mask[i, :height, :width].to(score.device)
            cuts = torch.tensor(thresholds, device=score.device).reshape(-1, 1, 1)
            found, wanted = (score > cuts) & (target != VOID), target == 1
            counts = torch.stack([(found & wanted).sum((1, 2)), (found | wanted).sum((1, 2))])
            sums[class_ids[i]] = sums.get(class_ids[i], torch.zeros_like(counts)) + counts
    miou = torch.stack([counts[0] / counts[1].clamp(min=1) for counts in sums.values()]).mean(0)
    best = int(miou.argmax())
    return float(miou[best]), float(thresholds[best])
