"""What the published networks share that DCM can be put into: a place for the plug, their pooling, their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dpcn_modules._checks import check_finite, check_mask_values, check_shapes
from dpcn_modules.models._network import FewShotNetwork, resize
from dpcn_modules.models._weights import check_entries, read_state_dict
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.modules import DCMInteraction

_AREA_EPS = 0.0005


class BeforePlug(NamedTuple):
    """What :func:`dpcn_modules.adapters.add_dcm` changed about a host beside the plug, as it was.

    Attributes:
        trainable: names of the parameters that it froze.
        frozen_norm: of the backbone.
        recipe: of the host.
    """

    trainable: tuple[str, ...]
    frozen_norm: bool
    recipe: dict[str, Any]


class Host(FewShotNetwork):
    """A published network with one place where DCM can be plugged in.

    Args:
        backbone: gives the features of three stages, shared by query and support.
        channels: C of the query and support feature at that place.

    Attributes:
        channels: C.
        interaction: the plug, or None; :func:`dpcn_modules.adapters.add_dcm` puts it in.
        before_plug: how the host was before :func:`dpcn_modules.adapters.add_dcm`, or None.
    """

    def __init__(self, backbone: Backbone, *, channels: int) -> None:
        super().__init__(backbone)
        self.channels = channels
        self.interaction: DCMInteraction | None = None
        self.before_plug: BeforePlug | None = None

    def load_published_state_dict(self, state: Mapping[str, Tensor] | str | Path) -> None:
        """Take the weights of the published network, as its authors name them.

        Parts that the published code does not have (the plug, CANet's attention over shots) stay as they are.

        Args:
            state: tensors by published name, with or without DataParallel's ``module.`` in front; or a file with
                them, plain or under ``"state_dict"``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file cannot be read, or entries are unknown, missing or misshaped, which are named.
        """
        source = "a state dict"
        if not isinstance(state, Mapping):
            source, path = str(state), Path(state)
            if not path.is_file():
                raise FileNotFoundError(f"``state``: no file {path}; give the path of the published checkpoint.")
            state = read_state_dict(path)
        given = {name.removeprefix("module."): value for name, value in state.items()}
        names, own = self.published_names(), self.state_dict()
        check_entries({names[name]: own[name] for name in names}, given, argument="state", source=source)
        # Only counts of batches can be missing here, and the parts that were never published.
        self.load_state_dict({name: given[names[name]] for name in names if names[name] in given}, strict=False)

    def published_names(self) -> dict[str, str]:
        """The entries of the state dict that the published network has too: our name to its."""
        names = {}
        for own in self.state_dict():
            renamed = (theirs + own.removeprefix(ours) for ours, theirs in self._renamings() if own.startswith(ours))
            if (published := next(renamed, None)) is not None:
                names[own] = published
        return names

    def _renamings(self) -> list[tuple[str, str]]:
        """Prefixes, ours and theirs; the first that fits counts, and what has none was not published."""
        raise NotImplementedError

    def _make_kernels(self, support_feat: Tensor, support_masks: Tensor) -> tuple[Tensor, ...]:
        """The plug's kernels, from features ``(B, K, C, H, W)`` and masks at any resolution."""
        return () if self.interaction is None else self.interaction.generate_kernels(support_feat, support_masks)

    def _interact(self, query_feat: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """The query feature as the plug changes it."""
        return query_feat if self.interaction is None else self.interaction.apply_kernels(query_feat, kernels)


def soft_masks(support_feat: Tensor, support_masks: Tensor) -> Tensor:
    """Bring masks to feature size as the published hosts do: bilinear, corners aligned, and no threshold.

    Args:
        support_feat: ``(B, K, C, H, W)``.
        support_masks: ``(B, K, Hi, Wi)`` in {0, 1, 255}; void counts as not foreground.

    Returns:
        ``(B, K, H, W)`` in [0, 1], the dtype of the feature.

    Raises:
        ValueError: shapes disagree, a mask value is not 0, 1 or 255, or a feature is not finite.
    """
    check_shapes(support_feat=(support_feat, "B K C H W"), support_masks=(support_masks, "B K Hi Wi"))
    check_mask_values("support_masks", support_masks)
    check_finite("support_feat", support_feat)
    return resize((support_masks == 1).to(support_feat.dtype), support_feat.shape[-2:])


def weighted_average(feat: Tensor, weight: Tensor) -> Tensor:
    """Average features under a soft mask, by its area + 0.0005, as the published hosts do.

    Args:
        feat: ``(B, K, C, H, W)``.
        weight: ``(B, K, H, W)`` in [0, 1].

    Returns:
        One prototype for each shot, ``(B, K, C)``; zero where there is no foreground.
    """
    area = weight.sum((-2, -1)).unsqueeze(-1)  # B K 1
    return torch.einsum("bkchw,bkhw->bkc", feat, weight) / (area + _AREA_EPS)
