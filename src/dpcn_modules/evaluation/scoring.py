"""Score a network on episodes, in plain PyTorch."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm  # type: ignore[import-untyped]

from dpcn_modules._checks import check_integer
from dpcn_modules.data import Episode, View, collate_episodes
from dpcn_modules.data.episodes.batches import PADDING
from dpcn_modules.evaluation.feature_cache import FeatureCache, parse_bytes
from dpcn_modules.evaluation.metrics import EpisodeIoU, Score
from dpcn_modules.evaluation.predict import Predictor
from dpcn_modules.models.fusion import Fusion


def evaluate(
    model: nn.Module,
    episodes: Dataset[Episode] | Iterable[Episode],
    *,
    batch_size: int = 1,
    fusion: Fusion = "concat",
    feature_cache: int | str = 0,
    workers: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Score:
    """Score a network on the original masks of test episodes, 0-1; needs the extra [train], but not Lightning.

    Args:
        model: any network with the forward of :class:`dpcn_modules.interface.FewShotModel`, in any mode.
        episodes: a :class:`dpcn_modules.data.EpisodeDataset` made with ``original_query_mask=True``, or single ones.
        batch_size: episodes at a time.
        fusion: how K shots become one mask, see :class:`Predictor`.
        feature_cache: memory for the features of images, bytes or text such as "4GB"; 0: off.
        workers: loader processes.
        device: where the network is moved and run; None: where it is.
        progress: show a progress bar on a terminal.

    Raises:
        TypeError: ``fusion`` or ``feature_cache`` needs the encode / decode API, which the network lacks.
        ValueError: ``batch_size`` < 1, or an unknown ``fusion``.

    Example:
        >>> from dpcn_modules import build_model
        >>> from dpcn_modules.data import EpisodeDataset, Shapes, TestTransform
        >>> images = Shapes(0).split("test")
        >>> options = {"transform": TestTransform(64), "original_query_mask": True}
        >>> episodes = EpisodeDataset(images, shot=1, episodes=4, seed=0, **options)
        >>> score = evaluate(build_model("dpcn_small"), episodes)
        >>> 0 <= score.miou <= 1
        tensor(True)
    """
    check_integer("batch_size", batch_size)
    budget = parse_bytes(feature_cache, "feature_cache")
    predictor = Predictor(model, fusion=fusion, cache=FeatureCache(budget) if budget else None)
    if device is not None:
        model.to(device)
    parameter = next(model.parameters(), None)
    place = torch.device("cpu") if parameter is None else parameter.device
    dataset = episodes if isinstance(episodes, Dataset) else list(episodes)
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate_episodes)  # type: ignore[arg-type]
    metric = EpisodeIoU().to(place)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in tqdm(loader, desc="episodes", disable=None if progress else True):
                score_batch(predictor, _to(batch, place), metric)
    finally:
        model.train(training)
    score: Score = metric.compute()
    return score


def score_batch(predictor: Predictor, batch: Episode, metric: EpisodeIoU) -> None:
    """Add a batch of collated episodes to a score, each at its original size; those of index -1 are padding."""
    class_ids = torch.as_tensor(batch.class_id, device=batch.query_mask.device)
    indices = torch.as_tensor(batch.index).tolist()
    for i, predicted in enumerate(predictor.masks(batch)):
        if indices[i] == PADDING:
            continue
        height, width = predicted.shape
        target = batch.query_mask[i, :height, :width]
        metric.update(predicted.unsqueeze(0), target.unsqueeze(0), class_ids[i : i + 1])


def _to(batch: Episode, device: torch.device) -> Episode:
    moved = batch._asdict()
    moved |= {name: value.to(device) for name, value in moved.items() if isinstance(value, torch.Tensor)}
    moved["views"] = tuple(View(*(tensor.to(device) for tensor in view)) for view in batch.views)
    return Episode(**moved)
