"""What masks mean that other programs wrote: palettes, few bits per pixel, photometric tags, alpha, lossy formats."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mask_writers import write_png, write_tiff
from PIL import Image

from dpcn_modules.data.io import as_mask, load_mask
from dpcn_modules.data.object_masks import binary_mask
from dpcn_modules.data.palettes import VOC_COLOURS

OBJECT = np.zeros((40, 60), dtype=np.uint8)
OBJECT[10:30, 20:50] = 255
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def foreground(path: Path) -> np.ndarray:
    return (binary_mask(as_mask(path, palette="object"), str(path)) == 1).numpy()


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def rgba(object_colour: tuple[int, ...], around: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(OBJECT[..., None] > 0, object_colour, around).astype(np.uint8))


@pytest.mark.parametrize("inside", [OBJECT, 255 - OBJECT], ids=["small", "large"])
@pytest.mark.parametrize("kind", ["white first", "black first", "quantize", "adaptive", "grey palette", "web", "gif"])
def test_black_and_white_palettes_are_read_by_colour(tmp_path: Path, kind: str, inside: np.ndarray) -> None:
    grey = Image.fromarray(inside)
    path = tmp_path / "m.png"
    if kind == "white first":
        write_png(path, (inside == 0).astype(np.uint8), 1, palette=[WHITE, BLACK])
    elif kind == "black first":
        write_png(path, (inside > 0).astype(np.uint8), 1, palette=[BLACK, WHITE])
    elif kind == "quantize":
        saved(grey.convert("RGB").quantize(2), path)
    elif kind == "adaptive":
        saved(grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2), path)
    elif kind == "grey palette":
        saved(grey.convert("P"), path)
    elif kind == "web":
        saved(grey.convert("RGB").convert("P"), path)
    else:
        path = saved(grey.convert("RGB"), tmp_path / "m.gif")
    assert np.array_equal(foreground(path), inside > 0)


VOC_MASK = np.array([[0, 0, 15, 15], [255, 1, 1, 255]], dtype=np.uint8)


def renumbered(path: Path, ids: np.ndarray) -> Path:
    """A VOC mask as programs that make files smaller write it: the colours stay, the indices count from 0."""
    used, indices = np.unique(ids, return_inverse=True)
    write_png(path, indices.reshape(ids.shape), 4, palette=[VOC_COLOURS[value] for value in used])
    return path


def test_voc_palette_keeps_its_indices(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", VOC_MASK, 8, palette=VOC_COLOURS)
    assert load_mask(tmp_path / "m.png").tolist() == VOC_MASK.tolist()


def test_grey_ramp_keeps_its_indices(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", VOC_MASK, 8, palette=[(value,) * 3 for value in range(256)])
    assert load_mask(tmp_path / "m.png").tolist() == VOC_MASK.tolist()


def test_renumbered_voc_mask_with_void_is_read_by_colour(tmp_path: Path) -> None:
    assert load_mask(renumbered(tmp_path / "m.png", VOC_MASK)).tolist() == VOC_MASK.tolist()


def test_renumbered_voc_mask_without_void_is_refused_unless_the_reading_is_named(tmp_path: Path) -> None:
    ids = np.where(VOC_MASK == 255, 0, VOC_MASK)
    path = renumbered(tmp_path / "m.png", ids)
    with pytest.raises(ValueError, match=r"m\.png: its pixels have the palette indices 0, 1, 2.* the ids 0, 1, 15;"):
        load_mask(path)
    assert load_mask(path, palette="voc").tolist() == ids.tolist()
    assert load_mask(path, palette="index").unique().tolist() == [0, 1, 2]


def test_renumbered_grey_levels_are_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", np.array([[0, 1, 2]]), 2, palette=[BLACK, (7, 7, 7), (90, 90, 90)])
    with pytest.raises(ValueError, match=r"m\.png: .*the ids 0, 7, 90;.*greyscale PNG"):
        load_mask(tmp_path / "m.png")


def test_own_palette_keeps_its_indices(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", np.array([[0, 1, 2]]), 2, palette=[BLACK, (220, 20, 60), (1, 2, 3)])
    assert load_mask(tmp_path / "m.png").tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match=r"m\.png: expected PASCAL VOC's palette, got .*\(220, 20, 60\)"):
        load_mask(tmp_path / "m.png", palette="voc")


def test_one_colour_beside_black_is_the_object_by_either_reading(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", (OBJECT > 0).astype(np.uint8), 1, palette=[BLACK, (0, 128, 0)])
    assert np.array_equal(foreground(tmp_path / "m.png"), OBJECT > 0)
    with pytest.raises(ValueError, match="palette indices 0, 1"):
        load_mask(tmp_path / "m.png")


def test_unknown_palette_reading_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", VOC_MASK, 8, palette=[BLACK] * 256)
    with pytest.raises(ValueError, match="``palette``: expected one of ids, object, voc, index, got 'color'"):
        load_mask(tmp_path / "m.png", palette="color")  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("loaded", ["path", "open", "decoded"])
def test_few_bits_per_pixel_keep_their_values(tmp_path: Path, bits: int, loaded: str) -> None:
    ids = np.arange(2**bits, dtype=np.uint8)[None].repeat(3, 0)
    write_png(tmp_path / "m.png", ids, bits)
    source: object = tmp_path / "m.png"
    if loaded != "path":
        source = Image.open(tmp_path / "m.png")
    if loaded == "decoded":
        source.load()  # type: ignore[attr-defined]
    assert as_mask(source).tolist() == ids.tolist()  # type: ignore[arg-type]
    write_tiff(tmp_path / "m.tif", ids, bits, photometric=1)
    assert load_mask(tmp_path / "m.tif").tolist() == ids.tolist()


def test_semitransparent_pixels_of_a_palette_keep_their_ids(tmp_path: Path) -> None:
    colours = [BLACK, (250, 0, 0), (0, 250, 0)]
    write_png(tmp_path / "m.png", np.array([[0, 1, 2]]), 2, palette=colours, transparent=b"\0\x01")
    assert load_mask(tmp_path / "m.png").tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("highest", [300, 1000, 65535])
def test_pgm_of_two_bytes_keeps_its_values(tmp_path: Path, highest: int) -> None:
    values = np.array([0, 1, 3, 200], dtype=">u2").tobytes()
    (tmp_path / "m.pgm").write_bytes(b"P5\n4 1\n%d\n" % highest + values)
    assert load_mask(tmp_path / "m.pgm").tolist() == [[0, 1, 3, 200]]


@pytest.mark.parametrize("highest", [1, 15, 200])
def test_pgm_keeps_its_values(tmp_path: Path, highest: int) -> None:
    (tmp_path / "m.pgm").write_bytes(b"P5\n3 1\n%d\n" % highest + bytes([0, 1, highest]))
    assert load_mask(tmp_path / "m.pgm").tolist() == [[0, 1, highest]]


def test_tiff_of_booleans_by_tifffile_is_not_inverted(tmp_path: Path) -> None:
    write_tiff(tmp_path / "m.tif", (OBJECT > 0).astype(np.uint8), 1, photometric=0, software="tifffile.py")
    assert np.array_equal(foreground(tmp_path / "m.tif"), OBJECT > 0)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_whose_zero_is_white_is_refused(tmp_path: Path, bits: int) -> None:
    write_tiff(tmp_path / "m.tif", (OBJECT > 0).astype(np.uint8), bits, photometric=0, software="a scanner")
    with pytest.raises(ValueError, match=r"m\.tif: this TIFF declares 0 to be white .*shown like this: "):
        load_mask(tmp_path / "m.tif")


def test_fax_is_read_as_it_is_shown(tmp_path: Path) -> None:
    path = saved(Image.fromarray(OBJECT).convert("1"), tmp_path / "m.tif", compression="group4")
    assert np.array_equal(foreground(path), OBJECT > 0)


def test_transparent_pixels_are_background(tmp_path: Path) -> None:
    path = saved(rgba((255, 255, 255, 255), (0, 0, 0, 0)), tmp_path / "m.png")
    assert np.array_equal(foreground(path), OBJECT > 0)


@pytest.mark.parametrize(
    "kind", ["RGBA", "LA", "palette", "two alphas", "key of a palette", "key of grey", "key of RGB"]
)
def test_black_object_on_transparent_white_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.png"
    shown = Image.fromarray(255 - OBJECT)
    if kind == "RGBA":
        saved(rgba((0, 0, 0, 255), (255, 255, 255, 0)), path)
    elif kind == "LA":
        saved(Image.fromarray(np.stack([255 - OBJECT, OBJECT], -1), "LA"), path)
    elif kind == "palette":
        write_png(path, (OBJECT == 0).astype(np.uint8), 1, palette=[BLACK, WHITE], transparent=b"\xff\0")
    elif kind == "two alphas":
        write_png(path, (OBJECT == 0).astype(np.uint8), 1, palette=[BLACK, WHITE], transparent=b"\x80\0")
    elif kind == "key of a palette":
        saved(shown.convert("P"), path, transparency=255)
    elif kind == "key of grey":
        saved(shown, path, transparency=255)
    else:
        saved(shown.convert("RGB"), path, transparency=(255, 255, 255))
    with pytest.raises(ValueError, match=r"m\.png: 1800 transparent pixels have the values (1|255) and 600 .*opaque"):
        load_mask(path)


@pytest.mark.parametrize("quality", [75, 100])
@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("png", "JPEG"), ("webp", "WEBP"), ("tif", "JPEG")])
def test_lossy_files_are_refused_whatever_their_values(tmp_path: Path, suffix: str, kind: str, quality: int) -> None:
    path = tmp_path / f"m.{suffix}"
    options = {"compression": "jpeg"} if suffix == "tif" else {"format": kind}
    Image.new("L", (32, 32), 255).save(path, quality=quality, **options)
    with pytest.raises(ValueError, match=rf"m\.{suffix}: a mask must be stored without loss.* is a .*{kind}"):
        load_mask(path)
    with Image.open(path) as image, pytest.raises(ValueError, match="without loss"):
        as_mask(image)


def test_a_png_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    path = saved(Image.fromarray(OBJECT), tmp_path / "m.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"m\.png: cannot be decoded .*damaged"):
        load_mask(path)
    with pytest.raises(ValueError, match="damaged"):
        as_mask(path.read_bytes())
    Image.fromarray(OBJECT).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") - 5] ^= 1  # of the checksum itself, which decoding does not look at
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        load_mask(path)


@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(OBJECT), Image.fromarray(255 - OBJECT)]
    frames[0].save(tmp_path / f"m.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf"m\.{suffix}: expected one mask, got a file of 2 frames"):
        load_mask(tmp_path / f"m.{suffix}")


def test_bytes_and_open_files_are_read_like_paths(tmp_path: Path) -> None:
    path = saved(Image.fromarray(OBJECT), tmp_path / "m.png")
    expected = load_mask(path)
    assert torch.equal(as_mask(path.read_bytes()), expected)
    assert torch.equal(as_mask(io.BytesIO(path.read_bytes())), expected)
    with path.open("rb") as file:
        for _ in range(2):
            assert torch.equal(as_mask(file), expected)


@st.composite
def id_masks(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    bits = draw(st.sampled_from([1, 2, 4, 8]))
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return draw(arrays(np.uint8, shape, elements=st.integers(0, 2**bits - 1))), bits


@settings(deadline=None)
@given(mask=id_masks(), tiff=st.booleans())
def test_grey_files_of_any_depth_keep_ids(
    tmp_path_factory: pytest.TempPathFactory, mask: tuple[np.ndarray, int], tiff: bool
) -> None:
    ids, bits = mask
    path = tmp_path_factory.getbasetemp() / ("any.tif" if tiff else "any.png")
    if tiff:
        write_tiff(path, ids, bits, photometric=1)
    else:
        write_png(path, ids, bits)
    assert load_mask(path).tolist() == ids.tolist()


@settings(deadline=None)
@given(mask=id_masks(), order=st.randoms(use_true_random=False))
def test_voc_colours_in_any_order_keep_ids_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, mask: tuple[np.ndarray, int], order: object
) -> None:
    ids, _ = mask
    used = np.unique(ids).tolist()
    order.shuffle(used)  # type: ignore[attr-defined]
    table = np.zeros(256, dtype=np.uint8)
    table[used] = np.arange(len(used))
    path = tmp_path_factory.getbasetemp() / "voc.png"
    write_png(path, table[ids], 8, palette=[VOC_COLOURS[value] for value in used])
    assert load_mask(path, palette="voc").tolist() == ids.tolist()
    with contextlib.suppress(ValueError):  # refused: an answer, where there is one, is right
        assert load_mask(path).tolist() == ids.tolist()
