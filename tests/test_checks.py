"""The helpers that check arguments and word the errors."""

import warnings

import pytest
import torch

from dpcn_modules._checks import (
    check_choice,
    check_mask_values,
    check_odd,
    check_shapes,
    check_values,
    with_shot_axis,
)


def test_check_shapes_returns_the_letters() -> None:
    bound = check_shapes(a=(torch.zeros(2, 3, 5), "B C 5"), b=(torch.zeros(3, 7), "C N"))
    assert {letter: bound[letter] for letter in "BCN"} == {"B": 2, "C": 3, "N": 7}


def test_check_shapes_takes_axes_of_length_zero() -> None:
    assert check_shapes(a=(torch.zeros(0, 3), "B C"), b=(torch.zeros(0), "B")) == {"B": 0, "C": 3}


@pytest.mark.parametrize(
    ("shape", "letters", "message"),
    [
        ((2, 4), "B C", r"``b``: expected C=3 \(B C\), got shape \(2, 4\); C=3 comes from ``a`` \(2, 3\)\."),
        ((2, 1), "B 7", r"``b``: expected 7 \(B 7\), got shape \(2, 1\)\."),
        ((2,), "B C", r"``b``: expected 2 axes \(B C\), got shape \(2,\)\."),
        ((4, 5), "N N", r"``b``: expected N=4 \(N N\), got shape \(4, 5\)\."),
    ],
)
def test_check_shapes_names_both_tensors(shape: tuple[int, ...], letters: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_shapes(a=(torch.zeros(2, 3), "B C"), b=(torch.zeros(shape), letters))


def test_check_shapes_rejects_what_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"``a``: expected a tensor \(B C\), got ndarray\."):
        check_shapes(a=(torch.zeros(2, 3).numpy(), "B C"))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32, torch.bool])
def test_check_mask_values_takes_masks_of_any_dtype(dtype: torch.dtype) -> None:
    check_mask_values("mask", torch.tensor([0, 1, 255]).to(dtype))
    check_mask_values("mask", torch.zeros(0, 4, 4, dtype=dtype))


@pytest.mark.parametrize("value", [2, 254, -1, 0.5, float("nan")])
def test_check_mask_values_rejects_other_values_and_shows_them(value: float) -> None:
    mask = torch.tensor([0, 1, 255, value])
    with pytest.raises(ValueError, match=r"``mask``: expected only the values 0 .* \(mask == class_id\)") as raised:
        check_mask_values("mask", mask)
    assert f"got [{value}" in str(raised.value)


def test_check_mask_values_shows_five_values_at_most() -> None:
    with pytest.raises(ValueError, match=r"got \[2, 3, 4, 5, 6\];"):
        check_mask_values("mask", torch.arange(200))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_check_values_rejects_one_bad_value_among_many(value: float) -> None:
    feat = torch.zeros(1000)
    feat[321] = value
    with pytest.raises(ValueError, match=r"``query_feat``: expected finite values, got NaN or infinity; look at the"):
        check_values(features={"query_feat": feat})


def test_check_values_rejects_infinities_that_cancel() -> None:
    with pytest.raises(ValueError, match="expected finite values"):
        check_values(features={"x": torch.tensor([float("inf"), -float("inf")])})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_check_values_takes_values_whose_sum_overflows_their_dtype(dtype: torch.dtype) -> None:
    check_values(features={"x": torch.full((100,), torch.finfo(dtype).max, dtype=dtype)})


def test_check_choice_lists_the_known_and_names_the_nearest() -> None:
    message = r"``generation``: expected one of serial, parallel, got 'seriel'\. Did you mean 'serial'\?"
    with pytest.raises(ValueError, match=message):
        check_choice("generation", "seriel", ("serial", "parallel"))
    with pytest.raises(ValueError, match=r"expected one of serial, parallel, got 'xyz'\.$"):
        check_choice("generation", "xyz", ("serial", "parallel"))
    check_choice("generation", "parallel", iter(("serial", "parallel")))


@pytest.mark.parametrize(("value", "nearest"), [(4, 5), (2, 3), (0, 1), (-1, 1), (-2, 1)])
def test_check_odd_rejects_sides_without_a_centre(value: int, nearest: int) -> None:
    with pytest.raises(ValueError, match=rf"``side``: expected a positive odd number.*, got {value}; try {nearest}\."):
        check_odd("side", value)


@pytest.mark.parametrize("value", [1, 3, 9])
def test_check_odd_takes_odd_sides(value: int) -> None:
    check_odd("side", value)


def test_with_shot_axis_adds_it_only_where_it_is_left_out() -> None:
    feat, mask = torch.zeros(2, 3, 4, 5), torch.zeros(2, 8, 9)
    with_axis = with_shot_axis(feat, mask)
    assert [tuple(x.shape) for x in with_axis] == [(2, 1, 3, 4, 5), (2, 1, 8, 9)]
    assert [tuple(x.shape) for x in with_shot_axis(*with_axis)] == [(2, 1, 3, 4, 5), (2, 1, 8, 9)]


def test_check_shapes_rejects_a_support_set_without_shots() -> None:
    with pytest.raises(ValueError, match=r"``feat``: expected one shot or more \(B K C\), got K=0\."):
        check_shapes(feat=(torch.zeros(2, 0, 3), "B K C"))


def test_int8_cannot_hold_255_and_its_minus_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got \[-1\]"):
        check_mask_values("mask", torch.tensor([0, 1, -1], dtype=torch.int8))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("values", [[0, 255], [255, 255]])
def test_a_batch_with_255_and_no_1_warns_by_name(values: list[int], dtype: torch.dtype) -> None:
    mask = torch.tensor([values, values]).to(dtype)
    with pytest.warns(UserWarning, match=r"``mask``: holds 255 \(void\) and no 1 .* If 255 is the object, .*== 255"):
        check_values(masks={"mask": mask}, features={"x": torch.zeros(2)})


@pytest.mark.parametrize("values", [[[255, 255], [0, 1]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
def test_a_void_crop_beside_a_1_and_an_empty_mask_do_not_warn(values: list[list[int]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_values(masks={"mask": torch.tensor(values)})
        check_mask_values("mask", torch.tensor([0, 255]))  # of a single image, where void alone is nothing unusual
