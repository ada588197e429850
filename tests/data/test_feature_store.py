"""Features on disk: what is written is read, and what differs is refused."""

import errno
import pickle

import numpy as np
import pytest
import torch

from dpcn_modules.data import TestTransform, TrainTransform
from dpcn_modules.data.feature_store import FeatureStore, Record, describe, sample_key
from dpcn_modules.errors import WriteError

KEY = {"backbone": "small", "weights": "abc", "version": "1"}


def record(number, *, view=0, value=None, key=None):
    generator = torch.Generator().manual_seed(number if value is None else value)
    stages = [torch.randn(shape, generator=generator) for shape in ((2, 5, 5), (3, 4, 4))]
    mask = torch.randint(0, 2, (9, 9), generator=torch.Generator().manual_seed(number))
    return Record(key or f"key{number}", view, stages, mask)


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "store", KEY, write=True)


def test_a_reader_finds_what_was_written_in_half_precision(store):
    records = [record(number) for number in range(5)]
    store.write(records[:3])
    store.write(records[3:])
    for reader in (store, FeatureStore(store.path, KEY), pickle.loads(pickle.dumps(store))):
        assert len(reader) == 5
        for each in records:
            stages, mask = reader.read(each.key, each.view)
            assert all(torch.equal(got, given.half()) for got, given in zip(stages, each.stages, strict=True))
            assert torch.equal(mask, each.mask.byte())
    assert store.read("key0", 1) is None
    assert ("key0", 0) in store
    assert ("key0", 1) not in store


def test_a_pickled_store_carries_no_features(store):
    store.write([record(number) for number in range(50)])
    store.read("key0", 0)
    assert len(pickle.dumps(store)) < store.bytes


def test_views_of_equal_features_are_stored_once(store):
    store.write([record(0, value=7, key="first"), record(1, value=7, key="second")])
    (features,) = store.path.glob("*.features")
    assert features.stat().st_size == 2 * (2 * 5 * 5 + 3 * 4 * 4)
    (first, mask), (second, other) = store.read("first", 0), store.read("second", 0)
    assert torch.equal(first[1], second[1])
    assert not torch.equal(mask, other)


@pytest.mark.parametrize("name", KEY)
def test_a_store_of_another_key_is_refused_by_name(store, name):
    with pytest.raises(ValueError, match=f"features of another {name}: expected 'other', got '{KEY[name]}'"):
        FeatureStore(store.path, {**KEY, name: "other"})
    with pytest.raises(ValueError, match=f"another {name}"):
        FeatureStore(store.path, {**KEY, name: "other"}, write=True)


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no store\.json; write it with `dpcn features`"):
        FeatureStore(tmp_path, KEY)


@pytest.mark.parametrize("end", ["features", "masks"])
def test_a_part_of_another_length_is_refused(store, end):
    store.write([record(0)])
    (file,) = store.path.glob(f"*.{end}")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"expected \(196, 81\) bytes, got .*write it again"):
        FeatureStore(store.path, KEY)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a"'])
def test_a_damaged_description_is_refused(store, content):
    (store.path / "store.json").write_bytes(content)
    with pytest.raises(ValueError, match="expected a JSON object, got a damaged file"):
        FeatureStore(store.path, KEY)


def test_files_without_an_index_are_not_read_and_the_next_run_replaces_them(store):
    store.write([record(0)])
    (index,) = store.path.glob("*.index.json")
    index.unlink()
    (features,) = store.path.glob("*.features")
    features.write_bytes(b"half")
    again = FeatureStore(store.path, KEY, write=True)
    assert len(again) == again.bytes == 0
    again.write([record(0)])
    assert len(FeatureStore(store.path, KEY)) == 1


def test_a_part_beyond_the_budget_is_not_written(store):
    store.write([record(0)], budget=1000)
    before = sorted(store.path.iterdir())
    with pytest.raises(ValueError, match=r"``--budget``: expected room for the next part .* got 1000; raise it"):
        store.write([record(number) for number in range(1, 5)], budget=1000)
    assert sorted(store.path.iterdir()) == before
    assert len(FeatureStore(store.path, KEY)) == 1


@pytest.mark.parametrize("fails_at", ["features", "masks", "index.json"])
def test_a_full_disk_leaves_only_complete_parts(store, monkeypatch, fails_at):
    store.write([record(0)])
    before = sorted(store.path.iterdir())
    opened = type(store.path).open

    def full(path, *args, **kwargs):
        if f".{fails_at}." in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(type(store.path), "open", full)
    with pytest.raises(WriteError, match=r"cannot be written: the disk is full\. Everything written"):
        store.write([record(1)])
    assert sorted(store.path.iterdir()) == before
    assert len(store) == len(FeatureStore(store.path, KEY)) == 1


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_features_that_are_not_finite_in_half_precision_are_refused(store, value):
    with pytest.raises(ValueError, match="expected values that are finite in half precision"):
        store.write([record(0)._replace(stages=[torch.full((2, 5, 5), value)])])


def test_a_key_follows_from_content():
    image, target = torch.zeros(3, 4, 6, dtype=torch.uint8), torch.zeros(4, 6, dtype=torch.uint8)
    other = image.clone()
    other[2, 3, 5] = 1
    keys = [sample_key(*pair) for pair in ((image, target), (other, target), (image, other[2]), (image.mT, target.mT))]
    assert len(set(keys)) == 4
    assert keys[0] == sample_key(image.clone(), target.clone())


def test_transforms_are_described_by_every_setting():
    made = [
        TestTransform(32),
        TestTransform(33),
        TrainTransform(32),
        *(TrainTransform(32, **{name: 0.25}) for name in ("rotation_p", "blur_p", "flip_p", "degrees", "min_kept")),
        TrainTransform(32, scale=(0.5, 1.0)),
        TrainTransform(32, mask_interpolation="nearest"),
    ]
    described = [str(describe(each)) for each in made]
    assert len(set(described)) == len(made)
    assert described == [str(describe(pickle.loads(pickle.dumps(each)))) for each in made]
    assert "0x" not in str(described)
    assert describe({"a": np.float64(1.5), "b": (1, None)}) == [["a", 1.5], ["b", [1, None]]]
