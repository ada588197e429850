"""Features of images, kept in memory, so that a test encodes each image once and not once an episode."""

import re
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from dpcn_modules._checks import check_shapes
from dpcn_modules.errors import InputError, InputTypeError
from dpcn_modules.interface import EncodeDecodeModel, ImageFeatures

_UNITS = ("B", "KB", "MB", "GB", "TB")
_TEXT = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?B)?\s*", re.IGNORECASE)


def parse_bytes(amount: int | str, name: str = "budget") -> int:
    """Read an amount of memory.

    Args:
        amount: bytes, or a number with a unit of B, KB, MB, GB or TB, in either case. A unit is 1024 of the one before,
            as memory is counted: 1 GB is ``2**30`` bytes. The result is rounded down.
        name: what errors call it.

    Raises:
        TypeError: neither a whole number nor text.
        ValueError: a negative number, or other text.

    Example:
        >>> parse_bytes("1.5KB"), parse_bytes("0"), parse_bytes(512)
        (1536, 0, 512)
    """
    rule = f"``{name}``: expected 0 or more bytes, or a number with a unit of {', '.join(_UNITS)} such as '4GB'"
    if isinstance(amount, bool) or not isinstance(amount, int | str):
        raise InputTypeError(f"{rule}, got {amount!r} ({type(amount).__name__}).")
    found = _TEXT.fullmatch(str(amount))
    if found is None:
        raise InputError(f"{rule}, got {amount!r}; 0 keeps nothing.")
    scale = 1024 ** _UNITS.index((found["unit"] or "B").upper())
    return int(found["number"]) * scale if found["number"].isdigit() else int(float(found["number"]) * scale)


class FeatureCache:
    """Keep the features of images up to a budget of memory; those not used for longest go first.

    Features stay on the device that made them, and are those of one network with the weights of that moment:
    :meth:`clear` it whenever either changes. Beside the budget, a batch needs memory for its own features.

    Args:
        budget: bytes, or text such as "4GB", read by :func:`parse_bytes`, which raises for what is no amount of memory.
            An image whose features exceed it is not kept.

    Attributes:
        bytes: what the kept features take.
        hits: how often features were there.
        misses: how often they were not, and an image had to be encoded.
        needed: the budget with which every image so far would have been kept.

    Example:
        >>> import torch
        >>> cache = FeatureCache("1KB")
        >>> for name in ("first.jpg", "second.jpg"):
        ...     kept = cache.put(name, ImageFeatures(torch.zeros(8, 4, 4), torch.zeros(2, 4, 4)))  # 640 bytes
        >>> cache.get("first.jpg") is None, cache.bytes, cache.needed
        (True, 640, 1280)
    """

    def __init__(self, budget: int | str) -> None:
        self.budget = parse_bytes(budget)
        self.clear()

    def clear(self) -> None:
        """Forget all features and counts."""
        self._kept: OrderedDict[Hashable, ImageFeatures] = OrderedDict()  # the next to go first
        self._sizes: dict[Hashable, int] = {}  # of every image so far, kept or not
        self.bytes = self.hits = self.misses = self.needed = 0

    def __len__(self) -> int:
        """Number of images kept."""
        return len(self._kept)

    def get(self, key: Hashable) -> ImageFeatures | None:
        """The features of an image, or None; counts a hit or a miss."""
        if key not in self._kept:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: Hashable, features: ImageFeatures) -> ImageFeatures:
        """Keep the features of one image, mid ``(C, H, W)`` and high ``(C_h, H, W)``, if the budget allows.

        The result is the same features in memory of their own, whether they were kept or not.
        """
        features = _own(features)
        self._drop(key)
        size = _bytes_of(features)
        self.needed += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        if size <= self.budget:
            while self.bytes + size > self.budget:
                self._drop(next(iter(self._kept)))
            self._kept[key] = features
            self.bytes += size
        return features

    @torch.no_grad()
    def encode(
        self,
        model: EncodeDecodeModel,
        query_image: Tensor,
        support_images: Tensor,
        *,
        query_names: Sequence[str],
        support_names: Sequence[Sequence[str]],
    ) -> tuple[ImageFeatures, ImageFeatures]:
        """Give the features of a batch of episodes; images that are not there are encoded, each once, B at a time.

        An image is known by its name, its size and its content: two images of one name, or one at two sizes, are two.

        Args:
            model: the network; put it into evaluation mode first.
            query_image: ``(B, 3, Hi, Wi)``, normalised as the network wants it.
            support_images: ``(B, K, 3, Hi, Wi)``, likewise.
            query_names: B of them.
            support_names: B times K.

        Returns:
            Features of the queries, mid ``(B, C, H, W)``, and of the supports, mid ``(B, K, C, H, W)``; no gradient.

        Raises:
            ValueError: shapes disagree, or there are not as many names as images.
        """
        lengths = check_shapes(query_image=(query_image, "B 3 Hi Wi"), support_images=(support_images, "B K 3 Hi Wi"))
        B, K = lengths["B"], lengths["K"]
        if len(query_names) != B or [len(names) for names in support_names] != [K] * B:
            raise InputError(
                f"``query_names`` and ``support_names``: expected {B} and {B} times {K}, as there are images, got "
                f"{len(query_names)} and {[len(names) for names in support_names]}."
            )
        images = torch.cat([query_image, support_images.flatten(0, 1)])
        keys = _keys([*query_names, *(name for names in support_names for name in names)], images)
        places = {key: i for i, key in enumerate(keys)}
        self.hits += len(keys) - len(places)
        found = {key: features for key in places if (features := self.get(key)) is not None}
        missing = [key for key in places if key not in found]
        for start in range(0, len(missing), B):
            chunk = missing[start : start + B]
            encoded = model.encode_image(images[[places[key] for key in chunk]])
            for i, key in enumerate(chunk):
                found[key] = self.put(key, ImageFeatures(*(feat[i] for feat in encoded)))
        each = [found[key] for key in keys]
        support = ImageFeatures(*(feat.reshape(B, K, *feat.shape[1:]) for feat in _stacked(each[B:])))
        return _stacked(each[:B]), support

    def report(self) -> str:
        """One line: what was encoded, what was found, what is held, and the budget that would have held all."""
        more = f"; {_text(self.needed)} would have held all {len(self._sizes)}" if self.needed > self.budget else ""
        held = f"{_text(self.bytes)} of {_text(self.budget)} held{more}"
        return f"feature cache: {self.misses} images encoded, {self.hits} taken from it, {held}"

    def _drop(self, key: Hashable) -> None:
        if key in self._kept:
            self.bytes -= _bytes_of(self._kept.pop(key))


def _keys(names: Sequence[str], images: Tensor) -> list[Hashable]:
    """Name, size and a check sum for each of ``(N, 3, H, W)``, since a source may give two images one name."""
    size = tuple(images.shape[1:])
    # Sums of integers, which have no order and no rounding; odd weights, so that no change of one element is lost.
    bits = images.float().contiguous().flatten(1).view(torch.int32)
    weights = torch.arange(1, 2 * bits.shape[1], 2, dtype=torch.int32, device=bits.device)
    sums: list[int] = (bits * weights).sum(1).tolist()
    return [(name, size, number) for name, number in zip(names, sums, strict=True)]


def _own(features: ImageFeatures) -> ImageFeatures:
    """Copies without unused storage; one tensor for both levels stays one."""
    places = [(feat.data_ptr(), feat.shape, feat.stride(), feat.dtype) for feat in features]
    mid = _owned(features.mid)
    return ImageFeatures(mid, mid if places[0] == places[1] else _owned(features.high))


def _owned(feat: Tensor) -> Tensor:
    return feat.clone() if feat.untyped_storage().nbytes() > feat.nbytes else feat


def _bytes_of(features: ImageFeatures) -> int:
    storages = {feat.untyped_storage().data_ptr(): feat.untyped_storage().nbytes() for feat in features}
    return sum(storages.values())


def _stacked(features: Sequence[ImageFeatures]) -> ImageFeatures:
    return ImageFeatures(*(torch.stack(feats) for feats in zip(*features, strict=True)))


def _text(amount: int) -> str:
    """An amount in the form of :func:`parse_bytes`, rounded up, so that a budget of it is sufficient."""
    power = min(max(amount.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    tenths = -(-10 * amount // 1024**power)
    return f"{tenths / 10:g}{_UNITS[power]}"
