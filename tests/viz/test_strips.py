"""Episode strips: panels, their contents, and the layout."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dpcn_modules.viz import EpisodeRow, episode_strip

TITLES = ["support", "query", "5x1", "3x3", "1x5", "$M_0$", "$M_r$", "prediction", "ground truth"]


def box(height: int, width: int, left: int) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.long)
    mask[4:12, left : left + 8] = 1
    return mask


def episode(**changes: object) -> EpisodeRow:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(5, 8, 8, generator=generator)
    return EpisodeRow(
        support_image=torch.full((3, 20, 30), 90, dtype=torch.uint8),
        support_mask=box(20, 30, 5),
        query_image=torch.full((3, 40, 32), 60, dtype=torch.uint8),
        prediction=box(40, 32, 8),
        target=box(40, 32, 4),
        activation_maps=maps[:3],
        initial_mask=maps[3],
        refined_mask=maps[4],
        label="a long name of a class",
    )._replace(**changes)


def without_maps() -> EpisodeRow:
    return episode(activation_maps=None, initial_mask=None, refined_mask=None)


@pytest.fixture(scope="module")
def one_row(tmp_path_factory: pytest.TempPathFactory):
    return episode_strip([episode()], tmp_path_factory.mktemp("strip") / "strip.png")


def shown(figure) -> dict[str, Tensor]:
    """Title to content of the panels in the first row."""
    axes = [axis for axis in figure.axes if axis.get_title()]
    return {axis.get_title(): torch.tensor(axis.images[0].get_array().data) for axis in axes}


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


@pytest.mark.parametrize(("name", "start"), [("strip.png", b"\x89PNG"), ("new/folder/strip.pdf", b"%PDF")])
def test_strip_is_written_in_the_format_of_the_suffix(tmp_path: Path, name: str, start: bytes) -> None:
    episode_strip([episode()], tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize("rows", [1, 2])
def test_strip_has_a_labelled_panel_for_everything_and_one_scale(tmp_path: Path, rows: int) -> None:
    figure = episode_strip([episode(label="ring")] * rows, tmp_path / "strip.png")
    assert titles(figure) == TITLES
    panels, (bar,) = figure.axes[:-1], figure.axes[-1:]
    assert len(panels) == 9 * rows
    assert [axis.get_ylabel() for axis in panels[::9]] == ["ring"] * rows
    assert bar.get_xlabel() == "activation and pseudo masks"
    for row in range(rows):
        for axis in panels[9 * row + 2 : 9 * row + 7]:
            assert axis.images[0].get_clim() == (0, 1)


def test_strip_shows_the_maps_in_the_order_of_their_titles(one_row) -> None:
    row, panels = episode(), shown(one_row)
    assert row.activation_maps is not None
    for title, expected in zip(TITLES[2:7], [*row.activation_maps, row.initial_mask, row.refined_mask], strict=True):
        torch.testing.assert_close(panels[title], expected)


def test_strip_names_the_windows_it_is_given(tmp_path: Path) -> None:
    prior = episode(activation_maps=torch.rand(1, 8, 8))
    figure = episode_strip([prior], tmp_path / "strip.png", windows=((1, 1),))
    assert titles(figure) == ["support", "query", "1x1", *TITLES[5:]]


def test_strip_gives_the_iou_without_void_pixels(tmp_path: Path) -> None:
    target = box(40, 32, 4)
    target[4:8] = 255
    rows = [episode(), episode(target=target), episode(prediction=torch.zeros(40, 32), target=torch.zeros(40, 32))]
    figure = episode_strip(rows, tmp_path / "strip.png")
    # 4 of 12 columns overlap; void rows do not change that; two empty masks agree.
    assert [axis.get_xlabel() for axis in figure.axes[7:-1:9]] == ["IoU 0.33", "IoU 0.33", "IoU 1.00"]


def test_support_and_ground_truth_have_one_colour_and_predictions_another(one_row) -> None:
    panels = shown(one_row)
    blue, orange = torch.tensor([0, 160, 255]), torch.tensor([255, 85, 0])
    assert panels["query"].unique().tolist() == [60]
    for title, colour, other in (
        ("support", blue, orange),
        ("ground truth", blue, orange),
        ("prediction", orange, blue),
    ):
        assert (panels[title] == colour).all(-1).any()
        assert not (panels[title] == other).all(-1).any()


def test_networks_have_a_column_each_with_their_own_iou(tmp_path: Path) -> None:
    rows = [without_maps()._replace(prediction={"baseline": box(40, 32, 8), "DPCN": box(40, 32, 4)})]
    figure = episode_strip(rows, tmp_path / "strip.png")
    assert titles(figure) == ["support", "query", "baseline", "DPCN", "ground truth"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "IoU 0.33", "IoU 1.00", ""]


def test_shots_have_a_column_each_and_fewer_shots_leave_columns_empty(tmp_path: Path) -> None:
    image = torch.full((3, 20, 30), 90, dtype=torch.uint8)
    three = without_maps()._replace(support_image=[image] * 3, support_mask=[box(20, 30, left) for left in (2, 8, 15)])
    figure = episode_strip([three, without_maps()], tmp_path / "strip.png")
    assert titles(figure) == ["support 1", "support 2", "support 3", "query", "prediction", "ground truth"]
    shots = [torch.tensor(axis.images[0].get_array().data) for axis in figure.axes[:3]]
    assert not torch.equal(shots[0], shots[1])
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes[6:9]] == [[], ["none"], ["none"]]


def test_maps_say_which_values_they_have(tmp_path: Path) -> None:
    dark = torch.linspace(0.01, 0.12, 64).reshape(8, 8)
    figure = episode_strip([episode(refined_mask=dark)], tmp_path / "strip.png")
    assert figure.axes[6].get_xlabel() == "0.01 to 0.12"


def test_rows_are_as_high_as_their_images(tmp_path: Path) -> None:
    flat = EpisodeRow(*(torch.zeros(size) for size in [(3, 20, 40), (20, 40), (3, 20, 40), (20, 40), (20, 40)]))
    flat = flat._replace(support_image=torch.zeros(3, 20, 40).byte(), query_image=torch.zeros(3, 20, 40).byte())
    figure = episode_strip([flat, without_maps()], tmp_path / "strip.png")
    heights = [figure.axes[place].get_position().height for place in (1, 5)]
    assert heights[0] < 0.6 * heights[1]


def test_label_keeps_its_line_breaks(tmp_path: Path) -> None:
    figure = episode_strip([episode(label="a class with a long name\nepisode 6")], tmp_path / "strip.png")
    assert figure.axes[0].get_ylabel() == "a class with a\nlong name\nepisode 6"


def test_columns_that_no_row_has_are_left_out(tmp_path: Path) -> None:
    figure = episode_strip([without_maps(), without_maps()], tmp_path / "strip.png")
    assert titles(figure) == ["support", "query", "prediction", "ground truth"]
    assert len(figure.axes) == 8


def test_row_without_maps_beside_one_with_says_none(tmp_path: Path) -> None:
    figure = episode_strip([without_maps(), episode()], tmp_path / "strip.png")
    assert titles(figure) == TITLES
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes[:-1]]
    assert texts == [[], [], *[["none"]] * 5, [], [], *[[]] * 9]
    assert figure.axes[-1].get_xlabel() == "activation and pseudo masks"


@pytest.mark.parametrize("rows", [[episode()], [without_maps()], [episode()] * 3])
@pytest.mark.parametrize("note", ["", "a protocol_of $many words, scored " * 12])
def test_nothing_is_cut_off(tmp_path: Path, rows: list[EpisodeRow], note: str) -> None:
    figure = episode_strip(rows, tmp_path / "strip.png", note=note)
    assert figure.get_supxlabel().split() == note.split()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize(
    ("rows", "name", "text"),
    [
        ([], "strip.png", "``rows``: expected at least one episode, got none"),
        ([episode(activation_maps=torch.rand(2, 8, 8))], "strip.png", r"``activation_maps``: expected 3 .*\(2, 8, 8\)"),
        ([episode(initial_mask=torch.rand(1, 8, 8))], "strip.png", r"``initial_mask``: expected 2 axes"),
        ([episode(refined_mask=torch.rand(8))], "strip.png", r"``refined_mask``: expected 2 axes"),
        ([episode(target=box(39, 32, 4))], "strip.png", r"``target``: expected H=40 .* comes from ``prediction``"),
        ([episode(prediction={})], "strip.png", "``prediction``: expected one or several by names .* got none"),
        ([episode(prediction={"query": box(40, 32, 4)})], "strip.png", "``prediction``: .* other than .* got query"),
        ([episode(support_mask=[])], "strip.png", "``support_mask``: expected one for each .* 0 masks and 1 images"),
        ([episode()], "strip.docx", r"``path``: expected a suffix among .*pdf, .*png, .* got '.*strip.docx'"),
        ([episode()], "strip", r"``path``: expected a suffix among"),
    ],
)
def test_strip_rejects_invalid_arguments(tmp_path: Path, rows: list[EpisodeRow], name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        episode_strip(rows, tmp_path / name)


def test_strip_without_matplotlib_gives_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs matplotlib: pip install 'dpcn_modules\[viz\]'"):
        episode_strip([episode()], tmp_path / "strip.png")
