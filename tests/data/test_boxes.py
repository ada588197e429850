"""Filled boxes: examples by hand, a comparison with a flood fill, and void pixels."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor

from dpcn_modules.data.boxes import annotate, filled_boxes

VALUES = {".": 0, "#": 1, "?": 255}


def drawn(*rows: str) -> Tensor:
    """A mask from its drawing: . background, # foreground, ? void."""
    return torch.tensor([[VALUES[value] for value in row] for row in rows], dtype=torch.uint8)


def flood_filled_boxes(mask: np.ndarray) -> np.ndarray:
    """The reference: flood-fills each component in eight directions and fills its bounding box."""
    boxes, unseen = mask.copy(), mask == 1
    for seed in np.argwhere(unseen):
        flooded, todo = [], [tuple(seed)] if unseen[tuple(seed)] else []
        while todo:
            y, x = todo.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and unseen[y, x]:
                unseen[y, x] = False
                flooded.append((y, x))
                todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        for y in range(min((y for y, _ in flooded), default=0), max((y for y, _ in flooded), default=-1) + 1):
            boxes[y, min(x for _, x in flooded) : max(x for _, x in flooded) + 1] = 1
    return boxes


def random_mask(seed: int, foreground: float = 0.2) -> Tensor:
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 24, 2))
    return torch.from_numpy(rng.choice([0, 1, 255], size, p=[0.95 - foreground, foreground, 0.05]).astype(np.uint8))


@pytest.mark.parametrize(
    ("mask", "boxes", "one_box"),
    [
        pytest.param(
            drawn("##...", "#....", "....#", "...#.", "....."),
            drawn("##...", "##...", "...##", "...##", "....."),
            drawn("#####", "#####", "#####", "#####", "....."),
            id="an L and a diagonal are two objects",
        ),
        pytest.param(
            drawn("#....", ".#...", "..###", "....."),
            drawn("#####", "#####", "#####", "....."),
            drawn("#####", "#####", "#####", "....."),
            id="touching at corners is one object",
        ),
        pytest.param(
            drawn("?????", "##?.#", "#?..#", "....?"),
            drawn("?????", "##?.#", "##..#", "....?"),
            drawn("?????", "#####", "#####", "....?"),
            id="void inside becomes object, void outside stays, void does not connect",
        ),
        pytest.param(drawn("..?", "???"), drawn("..?", "???"), drawn("..?", "???"), id="no foreground"),
        pytest.param(drawn("..", ".#"), drawn("..", ".#"), drawn("..", ".#"), id="one pixel in the corner"),
        pytest.param(
            drawn("####.", "#..#.", "#..##", "####."),
            drawn("#####", "#####", "#####", "#####"),
            drawn("#####", "#####", "#####", "#####"),
            id="a hole is filled",
        ),
        pytest.param(
            drawn("###.", "#...", "#.#.", "...."),
            drawn("###.", "###.", "###.", "...."),
            drawn("###.", "###.", "###.", "...."),
            id="a box within another",
        ),
    ],
)
def test_boxes_of_masks_drawn_by_hand(mask: Tensor, boxes: Tensor, one_box: Tensor) -> None:
    before = mask.clone()
    assert torch.equal(filled_boxes(mask), boxes)
    assert torch.equal(filled_boxes(mask, one_box=True), one_box)
    assert torch.equal(mask, before)


@pytest.mark.parametrize("foreground", [0.05, 0.2, 0.4])
def test_boxes_equal_a_flood_fill(foreground: float) -> None:
    for seed in range(40):
        mask = random_mask(seed, foreground)
        expected = torch.from_numpy(flood_filled_boxes(mask.numpy()))
        assert torch.equal(filled_boxes(mask), expected)
        assert torch.equal(filled_boxes(mask.T), torch.from_numpy(flood_filled_boxes(mask.T.numpy())))


def test_boxes_contain_the_mask_and_lie_within_the_one_box_which_stays_when_drawn_again() -> None:
    for seed in range(40):
        mask = random_mask(seed)
        boxes, one_box = filled_boxes(mask), filled_boxes(mask, one_box=True)
        assert bool((boxes[mask == 1] == 1).all())
        assert bool((one_box[boxes == 1] == 1).all())
        assert torch.equal(boxes[boxes != 1], mask[boxes != 1])
        assert torch.equal(filled_boxes(one_box), one_box)
        assert torch.equal(filled_boxes(one_box, one_box=True), one_box)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("one_box", [False, True])
def test_boxes_keep_shape_and_type_of_the_mask(dtype: torch.dtype, one_box: bool) -> None:
    boxes = filled_boxes(drawn("#.", ".#", "..").to(dtype), one_box=one_box)
    assert boxes.dtype == dtype
    assert boxes.tolist() == [[1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (torch.zeros(1, 4, 4, dtype=torch.uint8), r"``mask``: expected 2 axes \(H W\), got shape \(1, 4, 4\)"),
        (torch.full((4, 4), 7, dtype=torch.uint8), r"``mask``: expected only the values 0 .* got \[7\]"),
    ],
)
def test_boxes_reject_another_shape_and_class_ids(mask: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        filled_boxes(mask)


def test_annotate_picks_the_rule() -> None:
    mask = drawn("##...", "#....", "....#")
    assert annotate(mask, "mask") is mask
    assert torch.equal(annotate(mask, "box"), filled_boxes(mask))
    assert torch.equal(annotate(mask, "class_box"), filled_boxes(mask, one_box=True))
    assert not torch.equal(annotate(mask, "box"), annotate(mask, "class_box"))


def test_annotate_names_the_nearest_of_an_unknown_annotation() -> None:
    with pytest.raises(
        ValueError, match=r"``annotation``: expected one of mask, box, class_box, got 'boxs'\. Did you mean 'box'\?"
    ):
        annotate(drawn("#"), "boxs")  # type: ignore[arg-type]


def test_without_scipy_objects_name_the_pip_command_and_one_box_works(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "scipy" else find_spec(name, *rest)
    )
    mask = drawn("#.#")
    assert annotate(mask, "mask") is mask
    assert annotate(mask, "class_box").tolist() == [[1, 1, 1]]
    with pytest.raises(ModuleNotFoundError, match=r"needs scipy: pip install 'dpcn_modules\[train\]'"):
        annotate(mask, "box")
