"""Generated shapes: reproducible images, correct labels, disjoint folds and distinct outlines."""

import itertools
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcn_modules.data.datasets.shape_outlines import Pose, draw_mask, place_objects, shape_outlines
from dpcn_modules.data.datasets.shapes import SHAPE_NAMES, ShapeImages, Shapes

HARDER: dict[str, Any] = {
    **{"image_size": 96, "distractors": (2, 4), "rotation": 180, "mirror": True},
    **{"clutter": 1.0, "texture": 0.6, "lighter": False},
}
CROWDED: dict[str, Any] = {"image_size": 48, "distractors": (8, 8), "object_size": (0.5, 1.0)}
ALONE: dict[str, Any] = {"distractors": (0, 0)}


def spread(images: ShapeImages, count: int = 30) -> list[int]:
    return np.linspace(0, len(images.images) - 1, count).astype(int).tolist()


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("split", ["train", "test"])
def test_image_is_the_same_in_two_instances_in_any_order(split):
    one, other = Shapes(1, seed=3).split(split), Shapes(1, seed=3).split(split)
    first = {image_id: one.load(image_id) for image_id in spread(one)}
    second = {image_id: other.load(image_id) for image_id in reversed(spread(other))}
    assert all(same(first[image_id], second[image_id]) for image_id in first)


def test_image_is_the_same_in_another_process():
    script = (
        "import sys; from dpcn_modules.data.datasets.shapes import Shapes; "
        "image, mask = Shapes(2, seed=5).split('test').load(77); "
        "sys.stdout.buffer.write(image.numpy().tobytes() + mask.numpy().tobytes())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    written = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    image, mask = Shapes(2, seed=5).split("test").load(77)
    assert written.stdout == image.numpy().tobytes() + mask.numpy().tobytes()


def test_image_is_the_same_after_pickling_for_a_worker():
    images = Shapes(0).split("train")
    assert same(pickle.loads(pickle.dumps(images)).load(123), images.load(123))


def test_number_of_images_does_not_change_a_class_s_first_image():
    few, many = (Shapes(0, images_per_class=count).split("test") for count in (3, 50))
    assert same(few.load(few.images_of(1)[0]), many.load(many.images_of(1)[0]))


@pytest.mark.parametrize(
    ("shapes", "split", "image_id"),
    [(Shapes(0, seed=1), "test", 4), (Shapes(1), "test", 4), (Shapes(0), "train", 4), (Shapes(0), "test", 5)],
    ids=["seed", "fold", "split", "image"],
)
def test_image_differs_with_every_part_of_its_identity(shapes, split, image_id):
    image, _ = Shapes(0).split("test").load(4)
    assert not torch.equal(shapes.split(split).load(image_id)[0], image)


def test_folds_hold_out_every_class_once_and_train_on_the_rest():
    held_out = [list(Shapes(fold).split("test").class_names) for fold in range(4)]
    assert sorted(itertools.chain(*held_out)) == list(range(1, 21))
    for fold in range(4):
        assert held_out[fold] == list(range(5 * fold + 1, 5 * fold + 6))
        train = Shapes(fold).split("train").class_names
        assert set(train) == set(range(1, 21)) - set(held_out[fold])
        assert all(SHAPE_NAMES[class_id - 1] == name for class_id, name in train.items())


@pytest.mark.parametrize("fold", range(4))
def test_train_images_hold_no_held_out_class(fold):
    images = Shapes(fold).split("train")
    seen = set()
    for image_id in spread(images, 60):
        seen |= set(images.load(image_id)[1].unique().tolist())
    assert len(seen) > 10
    assert seen <= {0, *images.class_names}


def test_test_images_take_distractors_from_all_other_classes():
    images = Shapes(3, image_size=32).split("test")
    seen = set()
    for image_id in images.images_of(17)[:150]:
        seen |= set(images.load(image_id)[1].unique().tolist())
    assert seen == set(range(21))


@pytest.mark.parametrize("settings", [{}, HARDER, CROWDED, ALONE], ids=["default", "harder", "crowded", "alone"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_classes_of_agrees_with_the_mask(split, settings):
    images = Shapes(1, **settings).split(split)
    for image_id in spread(images):
        _, mask = images.load(image_id)
        visible = set(mask.unique().tolist()) & set(images.class_names)
        classes = images.classes_of(image_id)
        assert len(classes) == len(set(classes))
        assert set(classes) == visible
        assert image_id in images.images_of(classes[0])


@pytest.mark.parametrize("settings", [{}, HARDER, CROWDED, ALONE], ids=["default", "harder", "crowded", "alone"])
def test_images_of_a_class_show_it_on_at_least_one_percent(settings):
    images = Shapes(2, **settings).split("test")
    for class_id in images.class_names:
        for image_id in images.images_of(class_id)[:8]:
            _, mask = images.load(image_id)
            assert (mask == class_id).sum() >= 0.01 * mask.numel()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("object_size", [(0.4, 0.65), (1.0, 1.0)], ids=["default", "too large to fit"])
def test_every_object_shows_most_of_itself(count, object_size):
    for seed in range(15):
        rng = np.random.default_rng((count, seed))
        names = rng.permutation(SHAPE_NAMES)[:count]
        outlines = [shape_outlines()[name] for name in names]
        masks, order, labels = place_objects(rng, outlines, object_size, 64)
        assert sorted(order) == list(range(count))
        for index, mask in enumerate(masks):
            visible = np.count_nonzero(labels == index + 1)
            assert visible >= 0.6 * np.count_nonzero(mask >= 0.5)
            assert visible >= 0.01 * 64 * 64


def test_images_and_masks_have_the_promised_form():
    images = Shapes(0, image_size=80).split("test")
    for image_id in spread(images, 10):
        image, mask = images.load(image_id)
        assert image.shape == (3, 80, 80)
        assert mask.shape == (80, 80)
        assert image.dtype == mask.dtype == torch.uint8
        assert image.is_contiguous()
        assert mask.max() <= 20
        assert (mask == 0).any()


def test_number_of_distractors_spans_its_range():
    images = Shapes(0, distractors=(1, 3), images_per_class=20).split("train")
    assert {len(images.classes_of(image_id)) for image_id in images.images} == {2, 3, 4}


def test_without_clutter_and_texture_background_and_object_are_plain():
    images = Shapes(0, clutter=0, texture=0, **ALONE).split("test")
    for image_id in spread(images, 10):
        image, mask = images.load(image_id)
        for part in (mask == 0, mask > 0):
            _, counts = image[:, part].unique(dim=1, return_counts=True)
            # All pixels but those at the edges, where object and background mix.
            assert counts.max() >= 0.4 * part.sum()


def test_object_stands_out_from_a_plain_background():
    images = Shapes(1, clutter=0, texture=0, **ALONE).split("test")
    for image_id in spread(images):
        image, mask = images.load(image_id)
        middle = [image[:, part].float().median(dim=1).values for part in (mask == 0, mask > 0)]
        assert (middle[0] - middle[1]).norm() >= 90


def test_names_and_ids_find_images_again():
    images = Shapes(1, seed=4, images_per_class=7).split("test")
    assert len(images.images) == 35
    assert list(itertools.chain(*map(images.images_of, images.class_names))) == list(images.images)
    assert images.image_name(8) == "letter_S_fold1_test_seed4_000008"
    assert images.name.startswith("shapes fold 1 test (image_size 64, ")
    assert images.name.endswith(", seed 4, 35 images)")


def test_no_two_outlines_agree_under_rotation_and_mirroring():
    def drawn(name: str, angle: float, mirrored: bool) -> np.ndarray:
        return draw_mask(shape_outlines()[name], Pose((0.5, 0.5), 0.45, angle, 1.0, 0.0, mirrored), 32).ravel() >= 0.5

    angles = np.radians(np.arange(0, 360, 10))
    upright = {name: drawn(name, 0.0, False) for name in SHAPE_NAMES}
    for name in SHAPE_NAMES:
        turned = np.stack([drawn(name, angle, flip) for angle in angles for flip in (False, True)])
        for other, mask in upright.items():
            overlap = ((turned & mask).sum(axis=1) / (turned | mask).sum(axis=1)).max()
            assert (overlap > 0.95) if name == other else (overlap < 0.85), (name, other, overlap)


@pytest.mark.parametrize("name", ["ring", "triangle_frame", "square_frame", "gear", "star"])
def test_middle_hole_is_open_in_small_objects(name):
    mask = draw_mask(shape_outlines()[name], Pose((0.5, 0.5), 0.2, 0.3, 1.1, 0.1, True), 64)
    rows, columns = np.nonzero(mask >= 0.5)
    assert mask[round(rows.mean()), round(columns.mean())] == 0


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_object_stays_in_the_disc_of_its_pose(name):
    mask = draw_mask(shape_outlines()[name], Pose((0.4, 0.6), 0.3, 2.0, 0.87, 0.2, False), 64)
    rows, columns = np.nonzero(mask)
    reach = np.hypot(columns + 0.5 - 0.4 * 64, rows + 0.5 - 0.6 * 64).max()
    assert 0.26 * 64 <= reach <= 0.3 * 64 + 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 4}, "``fold``: expected 0, 1, 2 or 3, got 4"),
        ({"fold": -1}, "``fold``: expected 0, 1, 2 or 3, got -1"),
        ({"image_size": 16}, "``image_size``: expected at least 32, got 16; holes close"),
        ({"images_per_class": 0}, "``images_per_class``: expected at least 1, got 0"),
        ({"distractors": (2, 1)}, r"``distractors``: expected the least and the most, 0 to 8, got \(2, 1\)"),
        ({"distractors": (-1, 1)}, r"``distractors``: .* got \(-1, 1\)"),
        ({"distractors": (1, 9)}, r"``distractors``: .* got \(1, 9\)"),
        ({"object_size": (0.6, 0.5)}, r"``object_size``: .* 0.2 to 1, got \(0.6, 0.5\)"),
        ({"object_size": (0.1, 0.5)}, r"``object_size``: .* got \(0.1, 0.5\)"),
        ({"object_size": (0.5, 1.5)}, r"``object_size``: .* got \(0.5, 1.5\)"),
        ({"clutter": 1.5}, r"``clutter``: expected 0 to 1, got 1.5"),
        ({"texture": -0.5}, r"``texture``: expected 0 to 1, got -0.5"),
        ({"seed": -3}, "``seed``: expected at least 0, got -3"),
    ],
)
def test_shapes_rejects_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**{"fold": 0, **settings})


def test_shapes_rejects_an_unknown_split():
    with pytest.raises(ValueError, match=r"``split``: expected one of train, test, got 'tests'. Did you mean 'test'"):
        Shapes(0).split("tests")


@pytest.mark.parametrize("image_id", [-1, 10_000])
@pytest.mark.parametrize("ask", ["load", "classes_of", "image_name"])
def test_images_reject_an_id_that_is_none(ask, image_id):
    images = Shapes(0).split("test")
    with pytest.raises(ValueError, match=rf"``image_id``: expected 0 to 9999 \(shapes fold 0 test.*got {image_id}"):
        getattr(images, ask)(image_id)


def test_images_of_rejects_a_class_of_the_other_split():
    with pytest.raises(ValueError, match=r"``class_id``: expected one of \[1, 2, 3, 4, 5\].*got 6"):
        Shapes(0).split("test").images_of(6)
