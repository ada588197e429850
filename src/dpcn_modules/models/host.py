"""The base class of the published networks to which DCM can be added: the adapter's place, and released weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from dpcn_modules.errors import InputFileError
from dpcn_modules.models.backbones import Backbone
from dpcn_modules.models.network import FewShotNetwork
from dpcn_modules.models.settings import CANetSettings, PFENetSettings
from dpcn_modules.models.weights import check_entries, plain_name, read_state_dict
from dpcn_modules.modules import DCMInteraction


class BeforeAdapter(NamedTuple):
    """What :func:`dpcn_modules.models.add_dcm` changed about a host network beside the adapter, as it was.

    Attributes:
        trainable: names of the parameters that it froze.
        frozen_norm: of the backbone.
        settings: of the host network.
    """

    trainable: tuple[str, ...]
    frozen_norm: bool
    settings: PFENetSettings | CANetSettings | None


class HostNetwork(FewShotNetwork):
    """A published network with one place where DCM can be added.

    Args:
        backbone: as of :class:`FewShotNetwork`.
        channels: C of the query and support feature at that place.

    Attributes:
        interaction: the adapter, or None; :func:`dpcn_modules.models.add_dcm` puts it in.
        before_adapter: how the host network was before :func:`dpcn_modules.models.add_dcm`, or None.
    """

    settings: PFENetSettings | CANetSettings | None

    def __init__(self, backbone: Backbone, *, channels: int) -> None:
        super().__init__(backbone)
        self.channels = channels
        self.interaction: DCMInteraction | None = None
        self.before_adapter: BeforeAdapter | None = None

    def load_published_state_dict(self, state: Mapping[str, Tensor] | str | Path) -> None:
        """Take the weights of the published network, as its authors name them.

        Parts that the published code does not have (the adapter, CANet's attention over shots) stay as they are.

        Args:
            state: tensors by published name, with or without DataParallel's ``module.``; or a file with them,
                plain or under ``"state_dict"``.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file cannot be read, or entries are unknown, missing or misshaped, which are named.
        """
        source = "a state dict"
        if not isinstance(state, Mapping):
            source, path = str(state), Path(state)
            if not path.is_file():
                raise InputFileError(f"``state``: no file {path}; give the path of the published checkpoint.")
            state = read_state_dict(path)
        given = {plain_name(name): value for name, value in state.items()}
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
        """The adapter's kernels, from features ``(B, K, C, H, W)`` and masks at any resolution."""
        return () if self.interaction is None else self.interaction.generator(support_feat, support_masks)

    def _interact(self, query_feat: Tensor, kernels: tuple[Tensor, ...]) -> Tensor:
        """The query feature as the adapter changes it."""
        return query_feat if self.interaction is None else self.interaction.interact(query_feat, kernels)
