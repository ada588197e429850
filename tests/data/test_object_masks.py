"""From the values of a mask to one object."""

import pytest
import torch

from dpcn_modules.data.object_masks import binary_mask, target_mask


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1], [0, 1]), ([0, 255], [0, 1]), ([255], [1]), ([0], [0]), ([1], [1])],
)
def test_binary_mask_reads_one_or_white_as_object(values: list[int], expected: list[int]) -> None:
    mask = binary_mask(torch.tensor([values], dtype=torch.uint8), "m.png")
    assert mask.dtype == torch.uint8
    assert mask.tolist() == [expected]


def test_binary_mask_rejects_other_values() -> None:
    mask = torch.tensor([[0, 1, 2, 7]], dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"cups/3\.png: expected the mask of one object.*got 2, 7\."):
        binary_mask(mask, "cups/3.png")


def test_two_whites_and_ones_need_a_word() -> None:
    mask = torch.tensor([[0, 0, 1, 255, 255, 255]], dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"m\.png: 1 pixels have the value 1 and 3 .*void=255.*object=255"):
        binary_mask(mask, "m.png")
    assert binary_mask(mask, "m.png", void=255).tolist() == mask.tolist()
    assert binary_mask(mask, "m.png", object=255).tolist() == [[0, 0, 0, 1, 1, 1]]
    with pytest.raises(ValueError, match=r"void=255"):
        binary_mask(mask[:, 2:], "m.png")


def test_trimap_names_its_void() -> None:
    mask = torch.tensor([[0, 128, 255]], dtype=torch.uint8)
    assert binary_mask(mask, "m.png", void=128).tolist() == [[0, 255, 1]]
    assert binary_mask(mask, "m.png", void=255, object=128).tolist() == [[0, 1, 255]]
    with pytest.raises(ValueError, match="``object`` and ``void``: expected different values, got 255 twice"):
        binary_mask(mask, "m.png", void=255, object=255)
    for name in ("void", "object"):
        with pytest.raises(ValueError, match=f"``{name}``: expected 0 to 255, got 256"):
            binary_mask(mask, "m.png", **{name: 256})


def test_target_mask_takes_several_ids_as_one_object() -> None:
    mask = torch.tensor([[0, 7, 8, 9, 255]])
    assert target_mask(mask, 7).tolist() == [[0, 1, 0, 0, 255]]
    assert target_mask(mask, [7, 9]).tolist() == [[0, 1, 0, 1, 255]]
    assert target_mask(torch.tensor([[300, 44]], dtype=torch.int16), 300).tolist() == [[1, 0]]
