"""K shots, one mask: the network's own way, or the masks of K one-shot predictions fused (Table 7)."""

from typing import Literal, cast, get_args

import torch
from torch import Tensor

from dpcn_modules._checks import check_choice, check_shapes, with_shot_axis
from dpcn_modules.interface import ImageFeatures, TwoDoorModel

Fusion = Literal["concat", "vote", "average", "or"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
DOORS = ("encode_image", "encode_support", "decode")


def fuse_shots(logits: Tensor, fusion: Fusion) -> Tensor:
    """Fuse the predictions of K single shots into one mask.

    A position is foreground where, of the K shots,

    - "vote": more than half say foreground; with an even K, a tie is background,
    - "average": the mean probability of foreground is above 0.5,
    - "or": any says foreground.

    A shot says foreground where its foreground logit is the larger one, so for K = 1 all three are the argmax.

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
        raise ValueError(
            "``fusion``: expected one of vote, average, or, which fuse masks of single shots, got 'concat'; that is "
            "the network's own forward on all shots at once."
        )
    leading = [f"axis{i}" for i in range(logits.ndim - 4)]
    lengths = check_shapes(logits=(logits, " ".join([*leading, "K 2 H W"])))
    if lengths["K"] == 0:
        raise ValueError(f"``logits``: expected one shot or more (K 2 H W), got shape {tuple(logits.shape)}.")
    background, foreground = logits.to(torch.promote_types(logits.dtype, torch.float32)).unbind(-3)  # each ... K H W
    margin = foreground - background
    if fusion == "average":
        # tanh(margin / 2) is 2 p - 1, and unlike p it keeps its sign where p would be rounded to 0.5.
        return (torch.tanh(margin / 2).mean(-3) > 0).long()
    votes = (margin > 0).sum(-3)
    return (2 * votes > lengths["K"]).long() if fusion == "vote" else (votes > 0).long()


def one_shot_logits(model: TwoDoorModel, query_image: Tensor, support_images: Tensor, support_masks: Tensor) -> Tensor:
    """Segment every query by each of its shots alone; query and supports are encoded once.

    Args:
        model: the network, with the doors of :class:`dpcn_modules.interface.TwoDoorModel`. Put it into evaluation
            mode first.
        query_image: ``(B, 3, Hi, Wi)``, normalised as the network wants it.
        support_images: ``(B, K, 3, His, Wis)``, likewise.
        support_masks: ``(B, K, His, Wis)`` in {0, 1, 255}.

    Returns:
        ``(B, K, 2, Hi, Wi)``.

    Raises:
        TypeError: the network has not got the doors.
        ValueError: shapes disagree, or there is no shot.
    """
    model = as_two_door(model)
    support_images, support_masks = with_shot_axis(support_images, support_masks)
    lengths = check_shapes(
        query_image=(query_image, "B 3 Hi Wi"),
        support_images=(support_images, "B K 3 His Wis"),
        support_masks=(support_masks, "B K His Wis"),
    )
    if lengths["K"] == 0:
        raise ValueError(f"``support_images``: expected one shot or more, got shape {tuple(support_images.shape)}.")
    query, support = model.encode_image(query_image), model.encode_image(support_images)
    size = (lengths["Hi"], lengths["Wi"])
    return logits_of_features(model, query, support, support_masks, size=size, together=False)


def logits_of_features(
    model: TwoDoorModel,
    query: ImageFeatures,
    support: ImageFeatures,
    support_masks: Tensor,
    *,
    size: tuple[int, int],
    together: bool,
) -> Tensor:
    """Segment every query by its shots, from features of pictures that were encoded before.

    Args:
        model: the network, in evaluation mode.
        query: features of ``B`` pictures.
        support: of ``B`` times K pictures.
        support_masks: ``(B, K, His, Wis)`` in {0, 1, 255}.
        size: ``(Hi, Wi)`` of the logits.
        together: by all shots at once, which are then one, as the network's forward does; else by each alone.

    Returns:
        ``(B, 1, 2, Hi, Wi)``, or ``(B, K, 2, Hi, Wi)``.
    """
    K = support_masks.shape[1]
    group = K if together else 1
    logits = []
    for k in range(0, K, group):
        shots = ImageFeatures(*(feat[:, k : k + group] for feat in support))  # B group C H W
        encoded = model.encode_support(shots, support_masks[:, k : k + group])
        logits.append(model.decode(query, encoded, size).logits)
    return torch.stack(logits, dim=1)


def as_two_door(model: object, otherwise: str = "fusion='concat'") -> TwoDoorModel:
    """Return the network as it is; TypeError, with what it lacks and what works without, unless it has the doors."""
    missing = [name for name in DOORS if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(
            f"``model``: expected a network that can encode and decode by itself, got {type(model).__name__} without "
            f"{', '.join(missing)}; give it the methods of dpcn_modules.interface.TwoDoorModel, or use {otherwise}."
        )
    return cast(TwoDoorModel, model)
