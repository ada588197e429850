"""mIoU and FB-IoU over episodes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from dpcn_modules._checks import VOID, check_mask_values, check_shapes
from dpcn_modules.errors import InputError

_CLASS_IDS = 1024  # FSS-1000 has 1000


class Score(NamedTuple):
    """The score of a set of episodes, 0-1, see `EpisodeIoU`; ``class_iou`` by class id, of classes with pixels."""

    miou: Tensor
    fb_iou: Tensor
    class_iou: dict[int, Tensor]


class EpisodeIoU(Metric):
    """Intersections and unions summed over all episodes first, ratios last.

    Per class, the foreground's intersection and union are summed over all its episodes; ``miou`` is the mean over the
    classes of their ratio (a class whose union is empty, or that had no episode, is left out). ``fb_iou`` sums
    foreground and background over all episodes, whatever the class, and is the mean of the two ratios. Void pixels
    (255) do not count. The sums of several processes add up.

    Example:
        >>> import torch
        >>> metric = EpisodeIoU()
        >>> target = torch.tensor([[[1, 1], [0, 255]]])
        >>> metric.update(torch.tensor([[[1, 0], [0, 1]]]), target, torch.tensor([3]))
        >>> score = metric.compute()
        >>> round(score.miou.item(), 3), round(score.fb_iou.item(), 3)
        (0.5, 0.5)

    Reference: Shaban et al., BMVC 2017 (mIoU); Rakelly et al., 2018 (FB-IoU).
    """

    full_state_update = False
    higher_is_better = True
    intersection: Tensor
    union: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("intersection", "union"):
            zeros = torch.zeros(_CLASS_IDS, 2, dtype=torch.long)  # by class id: background, foreground
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, predicted: Tensor, target: Tensor, class_ids: Tensor) -> None:
        """Add episodes.

        Args:
            predicted: masks in {0, 1}, ``(B, Hi, Wi)``.
            target: ``(B, Hi, Wi)`` in {0, 1, 255}.
            class_ids: ``(B,)``, 0-1023.

        Raises:
            ValueError: shapes disagree, a ground truth value is not 0, 1 or 255, or a class id is out of its range.
        """
        check_shapes(predicted=(predicted, "B Hi Wi"), target=(target, "B Hi Wi"), class_ids=(class_ids, "B"))
        check_mask_values("target", target)
        if bool(((class_ids < 0) | (class_ids >= _CLASS_IDS)).any()):
            raise InputError(f"``class_ids``: expected 0 to {_CLASS_IDS - 1}, got {class_ids.tolist()}.")
        counted = target != VOID
        for label in (0, 1):
            ours, theirs = (predicted == label) & counted, (target == label)
            self.intersection[:, label].index_add_(0, class_ids, (ours & theirs).sum((1, 2)))
            self.union[:, label].index_add_(0, class_ids, (ours | theirs).sum((1, 2)))

    def compute(self) -> Score:
        """Take the ratios; NaN where no pixel was counted."""
        iou = self.intersection[:, 1] / self.union[:, 1]
        present = self.union[:, 1] > 0
        fb = self.intersection.sum(0) / self.union.sum(0)
        class_iou = {int(i): iou[i] for i in present.nonzero().flatten()}
        return Score(iou[present].mean(), fb.mean(), class_iou)
