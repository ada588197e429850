"""Manifests: written, read, and refused for other data."""

import json
from pathlib import Path

import pytest
import torch
from episode_helpers import episodes_of
from PIL import Image

from dpcn_modules.data import (
    ClassFolders,
    Shapes,
    TestTransform,
    collate_episodes,
    manifest_hash,
    manifest_lines,
    read_manifest,
)


@pytest.fixture
def dataset():
    return episodes_of(Shapes(0, image_size=32, images_per_class=20).split("test"))


def write(path: Path, lines) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("sampling", ["class", "image"])
def test_a_manifest_gives_the_same_episodes_again(tmp_path, sampling):
    images = Shapes(0, image_size=32, images_per_class=20).split("test")
    dataset = episodes_of(images, sampling=sampling)
    specs = read_manifest(write(tmp_path / "a.jsonl", manifest_lines(dataset)), images, shot=2)
    assert specs == [dataset.spec(index) for index in range(6)]
    # Another seed samples other episodes, but the manifest takes precedence.
    replayed = episodes_of(images, seed=77, specs=specs)
    assert replayed.spec(0) != episodes_of(images, seed=77).spec(0)
    assert manifest_hash(manifest_lines(replayed)) == manifest_hash(manifest_lines(dataset))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_manifest_that_a_windows_editor_saved_is_read(tmp_path, dataset, encoding):
    path = tmp_path / "a.jsonl"
    path.write_bytes("\r\n".join(manifest_lines(dataset)).encode(encoding))
    assert read_manifest(path, dataset.source, shot=2) == [dataset.spec(index) for index in range(6)]


def test_the_lines_name_class_query_and_supports(dataset):
    head, first, *_ = map(json.loads, manifest_lines(dataset))
    assert (head["shot"], head["episodes"], head["seed"]) == (2, 6, 3)
    assert head["classes"]["1"] == "ring"
    class_id, query, supports = dataset.spec(0)
    names = [dataset.source.image_name(support) for support in supports]
    assert first == {"class": class_id, "query": dataset.source.image_name(query), "supports": names}


def test_the_hash_is_of_the_episodes_and_not_of_the_head(dataset):
    head, *rows = manifest_lines(dataset)
    assert manifest_hash([head.replace("shapes", "squares"), *rows]) == manifest_hash([head, *rows])
    assert manifest_hash([head, *reversed(rows)]) != manifest_hash([head, *rows])


def test_specs_must_be_enough(dataset):
    with pytest.raises(ValueError, match="``specs``: expected one for each of 6 episodes, got 2"):
        episodes_of(dataset.source, specs=[dataset.spec(0)] * 2)


def test_a_manifest_of_other_data_is_refused_with_the_first_differences(dataset, tmp_path):
    path = write(tmp_path / "a.jsonl", manifest_lines(dataset))
    with pytest.raises(
        ValueError, match=r"expected episodes of shapes fold 1 .*not here: classes .*, line 2: .* and \d+ more"
    ):
        read_manifest(path, Shapes(1, image_size=32, images_per_class=20).split("test"), shot=2)


def test_a_name_that_is_not_here_is_named(dataset, tmp_path):
    lines = list(manifest_lines(dataset))
    row = json.loads(lines[3])
    lines[3] = json.dumps({**row, "supports": ["gone.jpg", row["supports"][1]]})
    with pytest.raises(ValueError, match=rf"not here: line 4: gone\.jpg with class {row['class']}\. Give the data"):
        read_manifest(write(tmp_path / "a.jsonl", lines), dataset.source, shot=2)


def test_another_number_of_shots_is_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match="expected episodes of ``shot`` 5, got 2-shot ones"):
        read_manifest(write(tmp_path / "a.jsonl", manifest_lines(dataset)), dataset.source, shot=5)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[1][:20], *lines[2:]],
        lambda lines: [lines[0], '{"class": 1, "query": "a"}', *lines[2:]],
        lambda lines: [],
    ],
)
def test_a_part_of_a_file_is_refused(dataset, tmp_path, spoil):
    path = write(tmp_path / "a.jsonl", spoil(list(manifest_lines(dataset))))
    with pytest.raises(ValueError, match=r"a\.jsonl: expected a complete file that `dpcn episodes` wrote"):
        read_manifest(path, dataset.source, shot=2)


def test_a_missing_file_is_named(dataset):
    with pytest.raises(FileNotFoundError, match=r"``episodes``: no file gone\.jsonl"):
        read_manifest("gone.jsonl", dataset.source, shot=2)


def test_views_show_the_same_images_at_further_sizes(dataset):
    single, double = (
        episodes_of(dataset.source, transform=TestTransform(size), further_transforms=[TestTransform(s) for s in more])
        for size, more in ((48, ()), (32, (48,)))
    )
    for alone, both in zip(single, double, strict=True):
        (view,) = both.views
        assert both.query_image.shape == (3, 32, 32)
        assert (view.query_image == alone.query_image).all()
        assert (view.support_masks == alone.support_masks).all()
    batch = collate_episodes([double[0], double[1]])
    assert batch.views[0].support_images.shape == (2, 2, 3, 48, 48)
    assert collate_episodes([single[0]]).views == ()


def test_images_of_class_folders_are_told_apart(tmp_path):
    """Images of different class folders may have the same file name."""
    for folder in ("cup", "plate"):
        (tmp_path / folder).mkdir()
        for name in ("1", "2", "3"):
            image = torch.randint(0, 255, (8, 8, 3), dtype=torch.uint8).numpy()
            Image.fromarray(image).save(tmp_path / folder / f"{name}.jpg")
            Image.fromarray(torch.eye(8, dtype=torch.uint8).numpy()).save(tmp_path / folder / f"{name}.png")
    source = ClassFolders(tmp_path).split("test")
    dataset = episodes_of(source)
    path = write(tmp_path / "a.jsonl", manifest_lines(dataset))
    assert read_manifest(path, source, shot=2) == [dataset.spec(index) for index in range(6)]
