"""The feature cache: its budget, which images it encodes, and that no logit depends on it."""

import weakref

import pytest
import torch
from models.base import episode_batch
from samples import features

from dpcn_modules.data import View
from dpcn_modules.evaluation import FeatureCache, Predictor
from dpcn_modules.evaluation.feature_cache import parse_bytes
from dpcn_modules.interface import ImageFeatures
from dpcn_modules.models import build_model
from dpcn_modules.models.network import shot_predictions

NETWORKS = ["dpcn_small", "pfenet_small", "canet_small", "panet_small"]


def image(size):
    """Features of one image that take so many bytes, half of them for either level."""
    return ImageFeatures(torch.zeros(size // 2, 1, 1, dtype=torch.uint8), torch.ones(size // 2, 1, 1).byte())


class Halves:
    """A network whose features are the halves of the image's values; it notes what it encodes."""

    def __init__(self):
        self.seen = []
        self.made = []

    def encode_image(self, image):
        self.seen.append(len(image))
        encoded = ImageFeatures(image / 2, image.repeat(1, 2, 1, 1) / 2)
        self.made += [weakref.ref(feat) for feat in encoded]
        return encoded


def batch_of(*episodes, size=4, images=None):
    """Query images, support images and their names, of episodes such as "a bc" (query a, supports b and c)."""
    pool = images or {name: features(3, size, size, seed=ord(name), dtype=torch.float32) for name in "abcdefgh"}
    queries, supports = zip(*(episode.split() for episode in episodes), strict=True)
    images = torch.stack([torch.stack([pool[name] for name in shots]) for shots in supports])
    names = {"query_names": queries, "support_names": [tuple(shots) for shots in supports]}
    return torch.stack([pool[name] for name in queries]), images, names


def encode(cache, model, *episodes, **options):
    query_images, support_images, names = batch_of(*episodes, **options)
    return cache.encode(model, query_images, support_images, **names)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("4GB", 4 * 2**30),
        ("512mb", 2**29),
        ("1.5 KB", 1536),
        ("0.1KB", 102),
        ("7B", 7),
        ("0", 0),
        (0, 0),
        ("12", 12),
        (2**40, 2**40),
        ("1TB", 2**40),
    ],
)
def test_an_amount_of_memory_is_read(amount, expected):
    assert parse_bytes(amount) == expected


@pytest.mark.parametrize("amount", ["4 parsecs", "-1", "-1GB", -1, "", "GB", "4GiB", "4e9", "1 2", "nan"])
def test_what_is_no_amount_of_memory_is_refused_with_an_example(amount):
    with pytest.raises(ValueError, match=rf"``budget``: expected 0 or more bytes, .* such as '4GB', got {amount!r}"):
        FeatureCache(amount)


@pytest.mark.parametrize("amount", [1.5, None, True])
def test_an_amount_of_another_type_is_refused(amount):
    with pytest.raises(TypeError, match=r"``budget``: .*, got .* \((float|NoneType|bool)\)"):
        FeatureCache(amount)


def test_those_not_used_for_longest_go_first():
    cache = FeatureCache(30)
    for key in "abc":
        cache.put(key, image(10))
    assert cache.get("a") is not None
    cache.put("d", image(10))
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]
    cache.put("a", image(10))  # kept anew, and used last
    cache.put("e", image(20))
    assert [key for key in "abcde" if cache.get(key) is not None] == ["a", "e"]


def test_the_budget_holds_to_the_byte():
    cache = FeatureCache(20)
    cache.put("a", image(10))
    cache.put("b", image(10))
    assert (len(cache), cache.bytes) == (2, 20)
    cache.put("c", image(2))
    assert (len(cache), cache.bytes, cache.get("a")) == (2, 12, None)
    cache.put("b", image(4))
    assert (len(cache), cache.bytes) == (2, 6)


def test_a_image_beyond_the_budget_is_not_kept_and_drives_nothing_out():
    cache = FeatureCache(20)
    cache.put("a", image(10))
    assert cache.put("b", image(22)).mid.shape == (11, 1, 1)
    assert (cache.get("b"), cache.bytes, len(cache)) == (None, 10, 1)


def test_needed_is_the_budget_that_would_have_held_all():
    small = FeatureCache(20)
    for key, size in (("a", 10), ("b", 22), ("a", 10), ("c", 8)):
        small.put(key, image(size))
    assert small.needed == 40
    large = FeatureCache(small.needed)
    for key, size in (("a", 10), ("b", 22), ("c", 8)):
        large.put(key, image(size))
    assert (len(large), large.bytes) == (3, 40)


def test_one_tensor_for_both_levels_is_kept_and_counted_once():
    cache = FeatureCache("1KB")
    feat = torch.zeros(4, 2, 2)
    cache.put("a", ImageFeatures(feat, feat))
    assert cache.bytes == 64
    batch = torch.zeros(3, 4, 2, 2)
    cache.put("b", ImageFeatures(batch[1], batch[1]))
    assert cache.bytes == 128
    mid, high = cache.get("b")
    assert mid is high


def test_a_slice_of_a_batch_does_not_keep_the_batch():
    cache = FeatureCache("1KB")
    mid, high = torch.arange(48.0).reshape(3, 4, 2, 2), torch.zeros(3, 1, 2, 2)
    cache.put("a", ImageFeatures(mid[1], high[1]))
    assert cache.bytes == (4 + 1) * 4 * 4
    kept = cache.get("a")
    assert torch.equal(kept.mid, mid[1])
    assert [feat.untyped_storage().nbytes() for feat in kept] == [64, 16]


def test_clear_forgets_features_and_counts():
    cache, model = FeatureCache("1MB"), Halves()
    encode(cache, model, "a b")
    encode(cache, model, "a b")
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 2)
    cache.clear()
    assert (cache.hits, cache.misses, len(cache), cache.bytes, cache.needed) == (0, 0, 0, 0, 0)
    encode(cache, model, "a b")
    assert sum(model.seen) == 4


def test_features_come_in_the_order_of_the_batch():
    cache, model = FeatureCache("1MB"), Halves()
    encode(cache, model, "c d")
    query_images, support_images, names = batch_of("a bc", "b ad")
    query, support = cache.encode(model, query_images, support_images, **names)
    assert torch.equal(query.mid, query_images / 2)
    assert torch.equal(support.mid, support_images / 2)
    assert query.high.shape == (2, 6, 4, 4)
    assert torch.equal(support.high[1, 0], query.high[0])


def test_each_image_is_encoded_once_and_as_many_at_a_time_as_there_are_episodes():
    cache, model = FeatureCache("1MB"), Halves()
    encode(cache, model, "a bc", "b ad")
    assert model.seen == [2, 2]
    assert (cache.hits, cache.misses) == (2, 4)
    encode(cache, model, "d ef", "e ac")
    assert model.seen == [2, 2, 2]
    assert (cache.hits, cache.misses) == (6, 6)


def test_a_budget_of_nothing_still_encodes_a_image_once_a_batch():
    cache, model = FeatureCache(0), Halves()
    for _ in range(2):
        query, support = encode(cache, model, "a bc", "b ac")
        assert torch.equal(query.mid[0], support.mid[1, 0])
    assert model.seen == [2, 1, 2, 1]
    assert (len(cache), cache.bytes) == (0, 0)


def test_nothing_is_alive_beyond_the_budget():
    one = 3 * 4 * 4 * 4 * 3  # mid, and high of twice its size
    cache, model = FeatureCache(2 * one), Halves()
    for episodes in (("a bc", "b ad"), ("e fg", "h ab")):
        encode(cache, model, *episodes)
        assert (len(cache), cache.bytes) == (2, 2 * one)
        assert [made for made in model.made if made() is not None] == []  # the cache has copies


def test_two_images_of_one_name_are_two():
    cache, model = FeatureCache("1MB"), Halves()
    first = features(3, 4, 4, dtype=torch.float32)
    for other in (first.flip(-1), first.clone().index_put_((torch.tensor(0),) * 3, torch.tensor(7.0))):
        for image in (first, other):
            query, _ = encode(cache, model, "a b", images={"a": image, "b": first})
            assert torch.equal(query.mid[0], image / 2)
    assert (cache.misses, len(cache)) == (4, 4)


def test_a_image_at_two_sizes_is_two():
    cache, model = FeatureCache("1MB"), Halves()
    flat = {size: {name: torch.zeros(3, size, size) for name in "ab"} for size in (4, 6)}
    for size in (4, 6, 4):
        query, support = encode(cache, model, "a b", images=flat[size])
        assert query.mid.shape[-1] == support.mid.shape[-1] == size
    assert (cache.misses, cache.hits) == (4, 2)


def test_names_must_be_as_many_as_images():
    query_images, support_images, names = batch_of("a bc", "b ad")
    with pytest.raises(ValueError, match=r"expected 2 and 2 times 2, as there are images, got 2 and \[1, 2\]"):
        FeatureCache(0).encode(
            Halves(), query_images, support_images, **(names | {"support_names": [("b",), ("a", "d")]})
        )
    with pytest.raises(ValueError, match="``support_images``: expected Hi=4"):
        FeatureCache(0).encode(Halves(), query_images, support_images[..., :3, :], **names)


def test_the_report_says_which_budget_would_have_been_enough():
    small, large = FeatureCache("1KB"), FeatureCache("2.3KB")
    for cache in (small, large):
        encode(cache, Halves(), "a bc", "b ad")
    assert small.report() == (
        "feature cache: 4 images encoded, 2 taken from it, 576B of 1KB held; 2.3KB would have held all 4"
    )
    assert large.report() == "feature cache: 4 images encoded, 2 taken from it, 2.3KB of 2.3KB held"


@pytest.mark.parametrize("needed", [0, 1, 1023, 1025, 2**20 - 1, 2**20 + 1, 13 * 2**29 + 7, 2**50 + 1])
def test_the_budget_in_words_is_never_too_small(needed):
    cache = FeatureCache(needed)
    cache.needed, cache.budget = needed, -1
    words = cache.report().split("; ")[1].split()[0]
    assert needed <= parse_bytes(words) <= 1.1 * needed


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_logits_are_those_without_the_cache(name, shots):
    """Images serve as query and as support; the smaller budget has room for two of them.

    In double precision: in single, an image encoded alone differs from the same one in a batch by some 1e-6.
    """
    torch.manual_seed(0)
    model = build_model(name).eval().double()
    pool, _, masks = episode_batch(8, shots, size=32)
    pool = pool.double()
    one = FeatureCache("1GB")
    one.put("a", ImageFeatures(*(feat[0] for feat in model.encode_image(pool[:1]))))
    caches = [FeatureCache("1GB"), FeatureCache(2 * one.bytes)]
    for first in (0, 2, 1):
        queries = [first, first + 1]
        supports = [[(query + 1 + k) % 8 for k in range(shots)] for query in queries]
        view = (pool[queries], pool[torch.tensor(supports)], masks[:2])
        names = {"query_names": [f"{i}" for i in queries], "support_names": [[f"{i}" for i in s] for s in supports]}
        alone = [each.logits for each in Predictor(model, fusion="vote").predict(View(*view))]
        expected = {"concat": [model(*view).logits], "vote": alone}
        for cache in caches:
            query, support = cache.encode(model, *view[:2], **names)
            for fusion in ("concat", "vote"):
                found = shot_predictions(model, query, support, view[2], size=(32, 32), fusion=fusion)
                for prediction, logits in zip(found, expected[fusion], strict=True):
                    torch.testing.assert_close(prediction.logits, logits, atol=1e-9, rtol=0)
    assert [len(cache) for cache in caches] == [min(4 + shots, 8), 2]
    assert caches[0].misses == len(caches[0]) < caches[1].misses


def test_features_carry_no_gradient():
    model = build_model("baseline_small").eval()
    query_images, support_images, _ = episode_batch(1, 1)
    query, support = FeatureCache("1GB").encode(
        model, query_images, support_images, query_names=["a"], support_names=[["b"]]
    )
    assert not any(feat.requires_grad for feat in (*query, *support))
