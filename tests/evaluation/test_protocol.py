"""Protocols: ids that were published stay, and what a box changes."""

import dataclasses
import hashlib

import pytest

from dpcn_modules.data import EpisodeDataset, Shapes
from dpcn_modules.evaluation import Protocol
from dpcn_modules.evaluation.protocols import PROTOCOLS
from dpcn_modules.training import EpisodeDataModule

PLAIN = Protocol(name="p", data="d", classes=("a", "b"), shot=1, episodes=10, seed=0, sampling="class", size=64)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def test_id_is_of_the_fields_that_every_protocol_had() -> None:
    assert PLAIN.id == sha("('d', ('a', 'b'), 1, 10, 0, 'class', 64)") == "74f058"
    assert dataclasses.replace(PLAIN, annotation="mask").id == PLAIN.id


def test_published_ids_stay() -> None:
    """These stand in docs/results.md."""
    shapes = (
        "shapes fold 0 test (image_size 64, distractors (1, 1), object_size (0.45, 0.7), rotation 30.0, "
        "mirror False, clutter 0.2, texture 0.2, lighter True, seed 0, 10000 images)"
    )
    held_out = ("ring", "letter_E", "gear", "key", "crescent")
    assert dataclasses.replace(PLAIN, data=shapes, classes=held_out, episodes=1000).id == "c1aa5e"
    pascal = "pascal5i fold 2 test, val.txt (192 images, area >= 2048 px)"
    assert (
        dataclasses.replace(PLAIN, data=pascal, classes=("dog", "horse", "person"), episodes=200, size=97).id
        == "af9143"
    )


def test_a_resized_target_keeps_the_id_it_was_published_with() -> None:
    assert dataclasses.replace(PLAIN, target="resized").id == sha(
        "('d', ('a', 'b'), 1, 10, 0, 'class', 64, ('truth', 'resized'))"
    )


def test_boxes_change_id_and_line() -> None:
    boxes, class_boxes = (dataclasses.replace(PLAIN, annotation=each) for each in ("box", "class_box"))
    assert boxes.id == sha("('d', ('a', 'b'), 1, 10, 0, 'class', 64, ('annotation', 'box'))")
    assert len({PLAIN.id, boxes.id, class_boxes.id}) == 3
    assert "annotated" not in str(PLAIN)
    assert str(boxes) == (
        f"p: d, 2 classes, 1-shot, 10 episodes, seed 0, sampled by class, seen at 64 px, supports annotated by box, "
        f"masks resized by nearest, scored at original size [{boxes.id}]"
    )


def test_a_later_field_counts_only_away_from_its_default() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Later(Protocol):
        zoom: tuple[float, ...] = (1.0,)

    settings = {field.name: getattr(PLAIN, field.name) for field in dataclasses.fields(PLAIN)}
    assert Later(**settings).id == PLAIN.id
    assert Later(**settings, zoom=(0.7, 1.0)).id == sha(
        "('d', ('a', 'b'), 1, 10, 0, 'class', 64, ('zoom', (0.7, 1.0)))"
    )


@pytest.mark.parametrize("annotation", ["mask", "box", "class_box"])
def test_data_module_hands_the_annotation_to_protocol_training_and_test(annotation: str) -> None:
    data = EpisodeDataModule(Shapes(0, image_size=32), size=32, annotation=annotation)  # type: ignore[arg-type]
    assert data.protocol().annotation == annotation
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert isinstance(loader.dataset, EpisodeDataset)
        assert loader.dataset.annotation == annotation


def test_data_module_rejects_an_unknown_annotation_when_a_loader_is_made() -> None:
    data = EpisodeDataModule(Shapes(0, image_size=32), size=32, annotation="boxes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"``annotation``: .* got 'boxes'\. Did you mean 'box'\?"):
        data.val_dataloader()


def test_beside_a_manifest_seed_and_sampling_do_not_change_the_id() -> None:
    fixed = dataclasses.replace(PLAIN, manifest="abc123")
    assert fixed.id != PLAIN.id
    assert dataclasses.replace(fixed, seed=7, sampling="image").id == fixed.id
    assert dataclasses.replace(PLAIN, seed=7).id != PLAIN.id


def test_only_the_published_protocols_shift_masks() -> None:
    shifted = {name for name, protocol in PROTOCOLS.items() if protocol.mask_interpolation == "nearest"}
    assert shifted == {"pfenet", "pfenet_coco", "hsnet", "bam"}
    assert PROTOCOLS["pfenet"].data_settings()["mask_interpolation"] == "nearest"
    exact = dataclasses.replace(PLAIN, mask_interpolation="nearest-exact")
    assert exact.id != PLAIN.id
    assert "nearest" not in str(exact)
