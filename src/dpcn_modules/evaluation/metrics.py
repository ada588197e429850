"""mIoU and FB-IoU over episodes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from dpcn_modules._checks import VOID, check_shapes, check_values, has_values
from dpcn_modules.errors import InputError, InputTypeError


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
    (255) do not count. The counts of several processes are gathered.

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
    counts: list[Tensor] | Tensor
    """A row for each episode: class id, intersection and union of background and of foreground, ``(N, 5)``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("counts", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all episodes."""
        super().reset()
        # What a process without episodes gives must have the type and axes of what the others give.
        self.counts = [torch.zeros(0, 5, dtype=torch.long, device=self.device)]

    def update(self, predicted: Tensor, target: Tensor, class_ids: Tensor) -> None:
        """Add episodes.

        Args:
            predicted: masks in {0, 1}, ``(B, Hi, Wi)``, of any dtype.
            target: ``(B, Hi, Wi)`` in {0, 1, 255}, of any dtype.
            class_ids: ``(B,)``, whole numbers.

        Raises:
            TypeError: class ids of floating point or bool.
            ValueError: shapes disagree, a prediction is not 0 or 1, or a ground truth value is not 0, 1 or 255.
        """
        check_shapes(predicted=(predicted, "B Hi Wi"), target=(target, "B Hi Wi"), class_ids=(class_ids, "B"))
        if class_ids.is_floating_point() or class_ids.dtype == torch.bool:
            raise InputTypeError(
                f"``class_ids``: expected whole numbers, got {class_ids.dtype}; convert: class_ids.long()."
            )
        _check_predicted(predicted)
        check_values(masks={"target": target})
        counted = target != VOID
        row = [class_ids.long()]
        for label in (0, 1):
            ours, theirs = (predicted == label) & counted, (target == label)
            row += [(ours & theirs).sum((1, 2)), (ours | theirs).sum((1, 2))]
        self.counts.append(torch.stack(row, 1))  # type: ignore[union-attr]  # a list until it is gathered

    def class_sums(self) -> tuple[Tensor, Tensor]:
        """The ids of the classes, ``(N,)`` in their order, and their pixels, ``(N, 4)``: intersection and union of the
        background, intersection and union of the foreground."""
        counts = self.counts if isinstance(self.counts, Tensor) else torch.cat(self.counts)
        class_ids, place = torch.unique(counts[:, 0], return_inverse=True)
        return class_ids, counts.new_zeros(len(class_ids), 4).index_add_(0, place, counts[:, 1:])

    def compute(self) -> Score:
        """Take the ratios; NaN where no pixel was counted."""
        class_ids, by_class = self.class_sums()
        iou = by_class[:, 2] / by_class[:, 3]
        present = by_class[:, 3] > 0
        total = by_class.sum(0)
        fb = total[[0, 2]] / total[[1, 3]]
        class_iou = dict(zip(class_ids[present].tolist(), iou[present], strict=True))
        return Score(iou[present].mean(), fb.mean(), class_iou)


def _check_predicted(predicted: Tensor) -> None:
    """Raise ValueError unless a prediction holds only 0 and 1."""
    if predicted.dtype == torch.bool or not has_values(predicted):
        return
    odd = (predicted != 0) & (predicted != 1)
    if bool(odd.any()):
        raise InputError(
            f"``predicted``: expected only the values 0 (background) and 1 (foreground), got "
            f"{torch.unique(predicted[odd])[:5].tolist()}; cut a probability first, (probability > 0.5), and compare a "
            f"mask of another value with it, (mask == 255)."
        )
