"""Episodes: what is sampled, and that it depends on (seed, epoch, index) only."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from episode_helpers import episodes_of, same_episode
from torch import Tensor

from dpcn_modules.data.boxes import annotate
from dpcn_modules.data.datasets.class_folders import ClassFolders
from dpcn_modules.data.datasets.pascal import Pascal5i
from dpcn_modules.data.datasets.shapes import Shapes
from dpcn_modules.data.episodes.batches import collate_episodes
from dpcn_modules.data.episodes.sampling import sample_episode
from dpcn_modules.data.object_masks import target_mask
from dpcn_modules.data.source import ImageSource
from dpcn_modules.data.transforms import TestTransform


@pytest.mark.parametrize("sampling", ["class", "image"])
@pytest.mark.parametrize("shot", [1, 3])
def test_query_is_never_among_supports_and_supports_never_repeat(source: ImageSource, sampling: str, shot: int) -> None:
    for index in range(400):
        spec = sample_episode(source, shot=shot, seed=0, epoch=0, index=index, sampling=sampling)  # type: ignore[arg-type]
        assert spec.query not in spec.supports
        assert len(set(spec.supports)) == shot
        assert set(spec.supports) <= set(source.images_of(spec.class_id))
        assert spec.class_id in source.classes_of(spec.query)


@pytest.mark.parametrize("sampling", ["class", "image"])
def test_sampling_depends_on_seed_epoch_and_index_only(source: ImageSource, sampling: str) -> None:
    def specs(seed: int, epoch: int) -> list[object]:
        return [
            sample_episode(source, shot=1, seed=seed, epoch=epoch, index=i, sampling=sampling)  # type: ignore[arg-type]
            for i in range(30)
        ]

    expected = specs(1, 2)
    torch.rand(5)
    assert specs(1, 2) == expected
    assert specs(1, 2)[::-1] == expected[::-1]
    assert specs(2, 2) != expected
    assert specs(1, 3) != expected
    assert len(set(map(str, expected))) > 15


def test_sampling_reads_no_image(source: ImageSource) -> None:
    dataset = episodes_of(source)
    for item in range(20):
        dataset.spec(item)
    assert source.reads == 0


def test_sampling_by_class_is_uniform_over_classes_and_their_images(source: ImageSource) -> None:
    specs = [sample_episode(source, shot=1, seed=0, epoch=0, index=i) for i in range(3000)]
    classes = Counter(spec.class_id for spec in specs)
    assert {each: pytest.approx(1000, abs=100) for each in (1, 2, 3)} == classes
    queries = Counter(spec.query for spec in specs if spec.class_id == 3)
    assert set(queries) == {4, 7, 9, 11}  # the images where it is tiny are never sampled
    assert all(count == pytest.approx(250, abs=60) for count in queries.values())
    supports = Counter(spec.supports[0] for spec in specs if spec.class_id == 3)
    assert all(count == pytest.approx(250, abs=60) for count in supports.values())


def test_sampling_by_image_is_uniform_over_images_then_their_classes(source: ImageSource) -> None:
    specs = [sample_episode(source, shot=1, seed=0, epoch=0, index=i, sampling="image") for i in range(3600)]
    queries = Counter(spec.query for spec in specs)
    assert {each: pytest.approx(300, abs=70) for each in range(12)} == queries
    tiny = Counter(spec.class_id for spec in specs if spec.query == 0)
    assert tiny == {1: pytest.approx(150, abs=45), 3: pytest.approx(150, abs=45)}
    assert {spec.supports[0] for spec in specs if spec.class_id == 3} == {4, 7, 9, 11}


def test_sampling_rejects_unknown_rule_and_poor_class(source: ImageSource) -> None:
    with pytest.raises(ValueError, match=r"``sampling``: expected one of class, image, got 'pixel'"):
        sample_episode(source, shot=1, seed=0, epoch=0, index=0, sampling="pixel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"memory: a 20-shot episode needs 21 images"):
        sample_episode(source, shot=20, seed=0, epoch=0, index=0)


def test_episode_has_the_promised_shapes_and_types(source: ImageSource) -> None:
    dataset = episodes_of(source)
    assert len(dataset) == 6
    spec, episode = dataset.spec(4), dataset[4]
    assert (episode.query_image.shape, episode.query_image.dtype) == ((3, 32, 32), torch.float32)
    assert (episode.query_mask.shape, episode.query_mask.dtype) == ((32, 32), torch.int64)
    assert (episode.support_images.shape, episode.support_images.dtype) == ((2, 3, 32, 32), torch.float32)
    assert (episode.support_masks.shape, episode.support_masks.dtype) == ((2, 32, 32), torch.int64)
    assert episode.query_size.tolist() == [32, 32]
    assert (episode.class_id, episode.index) == (spec.class_id, 4)
    assert episode.query_name == f"image {spec.query}"
    assert episode.support_names == tuple(f"image {each}" for each in spec.supports)


def test_masks_hold_target_one_and_void_and_other_classes_as_background(source: ImageSource) -> None:
    dataset = episodes_of(source, transform=TestTransform(size=64), original_query_mask=True, episodes=20)
    for item in range(20):
        spec, episode = dataset.spec(item), dataset[item]
        _, mask = source.load(spec.query)
        expected = torch.where(mask == spec.class_id, 1, torch.where(mask == 255, 255, 0))
        assert torch.equal(episode.query_mask, expected)
        assert episode.query_size.tolist() == list(mask.shape)
        assert episode.query_mask.dtype == torch.int64
        assert set(torch.unique(episode.support_masks).tolist()) <= {0, 1, 255}


def test_target_mask_takes_class_ids_beyond_a_byte() -> None:
    mask = torch.tensor([[0, 300, 255, 44]], dtype=torch.int16)
    assert target_mask(mask, 300).tolist() == [[0, 1, 255, 0]]
    assert target_mask(mask, 44).tolist() == [[0, 0, 255, 1]]


def test_item_is_made_from_its_index_whatever_came_before(source: ImageSource) -> None:
    dataset = episodes_of(source)
    alone = dataset[11]
    torch.manual_seed(99)
    backwards = [dataset[item] for item in range(12, 9, -1)]
    assert same_episode(backwards[1], alone)


def test_epochs_and_seeds_differ_in_the_images_and_in_the_transform(source: ImageSource) -> None:
    dataset = episodes_of(source, episodes=1)
    queries = [dataset[epoch].query_image for epoch in range(10)]
    distinct = [all(not torch.equal(each, other) for other in queries[:i]) for i, each in enumerate(queries)]
    assert all(distinct)
    assert not torch.equal(episodes_of(source, episodes=1, seed=4)[0].query_image, queries[0])


def test_query_and_supports_are_augmented_independently(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    first = source.load(0)
    monkeypatch.setattr(source, "load", lambda image_id: first)
    episode = episodes_of(source, shot=2, episodes=1)[0]
    images = [episode.query_image, *episode.support_images]
    assert not any(torch.equal(images[i], images[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_making_an_episode_leaves_the_global_generators_alone(source: ImageSource) -> None:
    dataset = episodes_of(source)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


def test_making_an_episode_does_not_seed_the_accelerators(source: ImageSource, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    torch.manual_seed(1)
    assert seeded == [1]
    episodes_of(source)[0]
    assert seeded == [1]


@pytest.mark.parametrize("annotation", ["box", "class_box"])
@pytest.mark.parametrize("shot", [1, 5])
def test_annotation_makes_support_masks_boxes_and_changes_nothing_else(annotation: str, shot: int) -> None:
    settings = {"shot": shot, "transform": TestTransform(64), "original_query_mask": True}
    images = Shapes(0, image_size=64).split("test")
    precise = episodes_of(images, **settings)
    annotated = episodes_of(images, **settings, annotation=annotation)
    for expected, episode in zip(precise, annotated, strict=True):
        boxes = [annotate(mask, annotation) for mask in expected.support_masks]  # type: ignore[arg-type]
        assert torch.equal(episode.support_masks, torch.stack(boxes))
        assert not torch.equal(episode.support_masks, expected.support_masks)
        assert same_episode(episode._replace(support_masks=expected.support_masks), expected)


def test_boxes_are_filled_before_the_transform_crops() -> None:
    def corner(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return image[:, :32, :32].float(), mask[:32, :32].long()

    images = Shapes(0, image_size=64).split("test")
    whole = episodes_of(images, transform=TestTransform(64), annotation="box")
    drawn_after = 0
    for expected, episode, precise in zip(
        whole,
        episodes_of(images, transform=corner, annotation="box"),
        episodes_of(images, transform=corner),
        strict=True,
    ):
        assert torch.equal(episode.support_masks, expected.support_masks[:, :32, :32])
        boxes = torch.stack([annotate(mask, "box") for mask in precise.support_masks])
        drawn_after += torch.equal(episode.support_masks, boxes)
    assert drawn_after < 6


def test_boxes_leave_the_augmented_query_as_it_is() -> None:
    images = Shapes(0, image_size=64).split("train")
    for expected, episode in zip(episodes_of(images), episodes_of(images, annotation="box"), strict=True):
        assert torch.equal(episode.query_image, expected.query_image)
        assert torch.equal(episode.query_mask, expected.query_mask)
        assert not torch.equal(episode.support_masks, expected.support_masks)


def test_iterating_gives_one_epoch(source: ImageSource) -> None:
    dataset = episodes_of(source)
    assert [episode.index for episode in dataset] == list(range(6))


def test_negative_item_is_an_error(source: ImageSource) -> None:
    with pytest.raises(IndexError, match=r"episode -1: expected epoch \* 6 \+ index"):
        episodes_of(source)[-1]


def test_sampled_episodes_never_change(source: ImageSource) -> None:
    """A change of these numbers changes every published episode and needs a new protocol name."""
    sampled = [tuple(sample_episode(source, shot=2, seed=321, epoch=1, index=i)) for i in range(3)]
    assert sampled == [(1, 3, (1, 5)), (1, 4, (7, 5)), (1, 0, (7, 1))]


def test_dataset_names_all_classes_with_too_few_images(voc: Path) -> None:
    source = Pascal5i(voc, 0, min_area=300).split("test")
    with pytest.raises(
        ValueError, match=r"fold 0 test.*a 5-shot episode needs 6 .*: aeroplane \(3\), bicycle \(3\).*``classes``"
    ):
        episodes_of(source, shot=5)


@pytest.mark.real_data
def test_dataset_names_classes_that_real_images_lack(real_data: Path) -> None:
    source = Pascal5i(real_data / "voc2012_subset", 0, test_list="all").split("test")
    with pytest.raises(ValueError, match=r"have fewer: aeroplane \(0\)\. Add images.*leave these classes out"):
        episodes_of(source, shot=1)


def test_dataset_without_images_is_an_error(voc: Path) -> None:
    source = Pascal5i(voc, 0, min_area=100_000).split("test")
    with pytest.raises(ValueError, match=r"no image has one of its classes \(aeroplane.*``min_area``"):
        episodes_of(source)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shot": 0}, r"``shot``: expected at least 1, got 0"),
        ({"episodes": 0}, r"``episodes``: expected at least 1, got 0"),
        ({"seed": -1}, r"``seed``: expected at least 0, got -1"),
        ({"sampling": "pixel"}, r"``sampling``: expected one of class, image, got 'pixel'"),
        ({"annotation": "classbox"}, r"``annotation``: .* mask, box, class_box, got 'classbox'\. .* 'class_box'\?"),
    ],
)
def test_dataset_rejects_settings_out_of_range(source: ImageSource, changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        episodes_of(source, **changes)


def test_dataset_takes_a_folder_of_own_classes(class_folders: Path) -> None:
    source = ClassFolders(class_folders, test_classes=["cup", "knife"]).split("test")
    batch = collate_episodes(list(episodes_of(source, shot=3)))
    assert isinstance(batch.class_id, torch.Tensor)
    assert set(batch.class_id.tolist()) == {2, 4}
    assert bool((batch.support_masks == 1).any(dim=(-2, -1)).all())
