"""Overlays: fill, outline and the black line around it."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from dpcn_modules.viz import overlay

RED = (200, 0, 0)


def grey(height: int = 9, width: int = 12) -> Tensor:
    return torch.full((3, height, width), 50, dtype=torch.uint8)


def square(height: int = 9, width: int = 12) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[2:7, 3:8] = 1
    return mask


def test_overlay_paints_fill_outline_and_line_around_and_leaves_the_rest() -> None:
    painted = overlay(grey(), square(), colour=RED, alpha=0.4)
    assert painted.dtype == torch.uint8
    red, green, _ = painted
    fill, outline = red[3:6, 4:7], square().clone()
    outline[3:6, 4:7] = 0
    assert fill.unique().tolist() == [110]  # 0.6 * 50 + 0.4 * 200
    assert red[outline == 1].unique().tolist() == [200]
    assert green[outline == 1].unique().tolist() == [0]
    line = torch.zeros(9, 12, dtype=torch.bool)
    line[1:8, 2:9] = True
    line &= square() == 0
    assert painted[:, line].unique().tolist() == [0]
    ground = ~line & (square() == 0)
    assert painted[:, ground].unique().tolist() == [50]


def test_overlay_is_as_wide_as_asked() -> None:
    painted = overlay(grey(), square(), colour=RED, alpha=0.4, width=2)
    assert painted[0, 4].tolist() == [50, 0, 0, 200, 200, 110, 200, 200, 0, 0, 50, 50]


def test_outline_grows_with_the_image() -> None:
    mask = torch.zeros(1200, 20)
    mask[600:] = 1
    painted = overlay(grey(1200, 20), mask, colour=RED, alpha=0)
    assert (painted[0] == 200).sum(0).unique().tolist() == [4]  # 1200 / 300


@pytest.mark.parametrize("value", [0, 255])
def test_mask_without_foreground_leaves_the_image_as_it_is(value: int) -> None:
    assert torch.equal(overlay(grey(), torch.full((9, 12), value)), grey())


def test_whole_image_as_foreground_has_fill_and_no_outline() -> None:
    painted = overlay(grey(), torch.ones(9, 12), colour=RED, alpha=0.4)
    assert painted[0].unique().tolist() == [110]


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_overlay_takes_masks_of_any_dtype_and_edits_neither_argument(dtype: torch.dtype) -> None:
    image, mask = grey(), square().to(dtype)
    assert torch.equal(overlay(image, mask), overlay(grey(), square()))
    assert torch.equal(image, grey())
    assert torch.equal(mask, square().to(dtype))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"image": grey().float()}, TypeError, "``image``: expected uint8, got torch.float32; .*denormalise"),
        ({"image": grey()[:1]}, ValueError, "``image``: expected 3"),
        ({"mask": square(8)}, ValueError, r"``mask``: expected H=9 .* comes from ``image``"),
        ({"mask": 7 * square()}, ValueError, r"``mask``: expected only the values 0 .* got \[7\]"),
        ({"colour": (0, 0, 256)}, ValueError, r"``colour``: .* from 0 to 255, got \(0, 0, 256\)"),
        ({"colour": (0, 0)}, ValueError, r"``colour``: .* got \(0, 0\)"),
        ({"alpha": 1.2}, ValueError, "``alpha``: expected 0 to 1, got 1.2"),
        ({"width": 0}, ValueError, "``width``: expected at least 1, got 0"),
    ],
)
def test_overlay_rejects_invalid_arguments(arguments: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        overlay(**{"image": grey(), "mask": square(), **arguments})


def test_overlay_works_without_matplotlib() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch; from dpcn_modules.viz import overlay\n"
        "overlay(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.ones(4, 4))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
