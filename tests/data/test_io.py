"""Reading images and masks of all pixel formats, and broken files."""

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpcn_modules.data.decoding import image_size
from dpcn_modules.data.io import as_image, as_mask, check_same_size, load_image, load_mask, warn_of_orientation

ORIENTATION = 0x0112


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def write_png_16_bit_rgb(path: Path, pixels: np.ndarray) -> None:
    """A file in a format that PIL can read but not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)))
    body = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*chunks, (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(body)


def test_load_image_reads_rgb(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert torch.equal(image, channels_first(colours))


def test_load_image_drops_alpha_and_keeps_colours(tmp_path: Path, colours: np.ndarray) -> None:
    alpha = np.arange(54, dtype=np.uint8).reshape(6, 9, 1)
    Image.fromarray(np.concatenate([colours, alpha], axis=2)).save(tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png"), channels_first(colours))


@pytest.mark.parametrize("transparency", [None, bytes(range(0, 250, 50))])
def test_load_image_looks_up_palette(tmp_path: Path, transparency: bytes | None) -> None:
    palette = [10, 20, 30, 40, 50, 60, 70, 80, 90]
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    image.putpalette(palette)
    image.save(tmp_path / "a.png", **({} if transparency is None else {"transparency": transparency}))
    assert load_image(tmp_path / "a.png")[:, 0].T.flatten().tolist() == palette


def test_load_image_repeats_grey(tmp_path: Path, colours: np.ndarray) -> None:
    grey = colours[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert torch.equal(load_image(tmp_path / "a.png"), channels_first(np.stack([grey] * 3, axis=2)))


def test_load_image_scales_16_bit_grey(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 1100, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").tolist() == [[[0, 1, 4, 128, 255]]] * 3


def test_load_image_scales_16_bit_rgb(tmp_path: Path) -> None:
    write_png_16_bit_rgb(tmp_path / "a.png", np.array([[[0, 32896, 65535], [257, 257, 51400]]]))
    assert load_image(tmp_path / "a.png").tolist() == [[[0, 1]], [[128, 1]], [[255, 200]]]


def test_load_image_converts_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = load_image(tmp_path / "a.jpg").float().mean(dim=(1, 2)).tolist()
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize(
    ("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)], ids=["upright", "half", "right", "left"]
)
def test_load_image_applies_exif_rotation(tmp_path: Path, colours: np.ndarray, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(colours).save(tmp_path / "a.png", exif=exif)
    turned = channels_first(np.rot90(colours, turns))
    assert torch.equal(load_image(tmp_path / "a.png"), turned)
    with Image.open(tmp_path / "a.png") as image:
        assert torch.equal(as_image(image), turned)


@pytest.mark.parametrize("load", [load_image, load_mask])
def test_load_names_missing_file(tmp_path: Path, load: object) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png: there is no such file"):
        load(tmp_path / "nowhere.png")  # type: ignore[operator]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_load_names_truncated_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for load in (load_image, load_mask):
        with pytest.raises(ValueError, match=rf"cut\.{suffix}: cannot be decoded.*truncated"):
            load(path)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_load_names_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"text\.jpg: cannot be decoded .* not an image"):
        load_image(tmp_path / "text.jpg")


def test_load_rejects_floating_point_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: images in PIL's mode 'F'"):
        load_image(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: a mask in PIL's mode 'F'"):
        load_mask(tmp_path / "a.tiff")


def test_load_image_rejects_32_bit_pixels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: expected at most 16 bits per pixel.*0 to 70000"):
        load_image(tmp_path / "a.tiff")


IDS = np.array([[0, 3, 20], [255, 254, 1]], dtype=np.uint8)


@pytest.mark.parametrize("kind", ["palette", "grey", "rgb", "rgba", "16-bit"])
def test_load_mask_keeps_class_ids(tmp_path: Path, kind: str) -> None:
    if kind == "palette":
        image = Image.fromarray(IDS)
        image.putpalette([(91 * i) % 256 for i in range(768)])
    elif kind == "16-bit":
        image = Image.fromarray(IDS.astype(np.uint16))
    else:
        image = Image.fromarray(IDS).convert({"grey": "L", "rgb": "RGB", "rgba": "RGBA"}[kind])
    image.save(tmp_path / "m.png")
    mask = load_mask(tmp_path / "m.png")
    assert mask.dtype == torch.uint8
    assert mask.tolist() == IDS.tolist()


def test_load_mask_reads_one_bit_as_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[0, 1]]


def test_load_mask_rejects_colours(tmp_path: Path, colours: np.ndarray) -> None:
    Image.fromarray(colours).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: a mask holds one class id.*greyscale or palette PNG"):
        load_mask(tmp_path / "m.png")


@pytest.mark.parametrize(("mode", "channel"), [("RGB", 0), ("RGB", 1), ("RGB", 2), ("RGBA", 1), ("RGBA", 2)])
def test_load_mask_rejects_one_channel_that_differs(tmp_path: Path, mode: str, channel: int) -> None:
    pixels = np.full((4, 4, len(mode)), 255, dtype=np.uint8)
    pixels[0, 0, channel] = 0
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="red, green and blue differ"):
        load_mask(tmp_path / "m.png")


def test_load_mask_reads_an_opaque_empty_mask(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (0, 0, 0, 255)).save(tmp_path / "m.png")
    assert load_mask(tmp_path / "m.png").tolist() == [[0, 0, 0], [0, 0, 0]]


def test_load_mask_rejects_object_hidden_in_alpha(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[1:3, 1:3, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: the colours of this mask are all 0, and only its alpha"):
        load_mask(tmp_path / "m.png")


def test_load_mask_rejects_ids_above_255(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256, 300]], dtype=np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"m\.png: expected class ids from 0 to 255, got 256, 300;"):
        load_mask(tmp_path / "m.png")
    Image.fromarray(np.array([[255, 256]], dtype=np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"got 256;"):
        load_mask(tmp_path / "m.png")


def test_check_same_size_names_both_files_and_sizes() -> None:
    check_same_size((3, 4), (3, 4), image_name="a.jpg", mask_name="a.png")
    with pytest.raises(ValueError, match=r"a\.jpg is 4 x 3 .*a\.png is 3 x 4: .*EXIF orientation"):
        check_same_size((3, 4), (4, 3), image_name="a.jpg", mask_name="a.png")


def test_as_image_takes_every_kind(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(colours).save(path)
    expected = channels_first(colours)
    kinds = (
        path,
        str(path),
        Image.open(path),
        colours,
        colours / 255,
        (colours / 255).astype(np.float32),
        expected,
        expected / 255,
        np.broadcast_to(colours, colours.shape),
        colours[::-1][::-1],
    )
    for kind in kinds:
        assert torch.equal(as_image(kind), expected)


def test_as_image_takes_an_image_of_one_row() -> None:
    assert as_image(torch.zeros(3, 1, 5)).shape == (3, 1, 5)


def test_as_image_repeats_grey_array(colours: np.ndarray) -> None:
    assert torch.equal(as_image(colours[..., 1]), torch.from_numpy(colours[..., 1].copy()).expand(3, 6, 9))


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (np.zeros((3, 6, 9), np.uint8), ValueError, r"``photo``: expected an array \(H, W, 3\).*\(3, 6, 9\)"),
        (np.zeros((6, 9, 4), np.uint8), ValueError, r"drop alpha"),
        (np.zeros((0, 9, 3), np.uint8), ValueError, r"got shape \(0, 9, 3\)"),
        (torch.zeros(6, 9, 3), ValueError, r"``photo``: expected a tensor \(3, H, W\).*permute"),
        (torch.zeros(1, 3, 6, 9), ValueError, r"one by one"),
        (np.zeros((6, 9, 3), np.int64), TypeError, r"expected uint8 or floating point.*torch\.int64"),
        (np.zeros((6, 9, 3), np.uint16), TypeError, r"got torch\.uint16"),
        (np.full((6, 9, 3), 200.0), ValueError, r"``photo``: expected .* values in \[0, 1\], got 200 to 200"),
        (torch.full((3, 6, 9), -2.0), ValueError, r"``photo``: expected .*before it was normalised"),
        (torch.full((3, 6, 9), float("nan")), ValueError, r"got nan to nan"),
        (np.zeros((6, 9, 3), object), TypeError, r"``photo``: expected booleans, integers or floating-point .*object"),
        (torch.zeros(3, 6, 9, dtype=torch.complex64), TypeError, r"got torch\.complex64"),
        (17, TypeError, r"``photo``: expected a path, a PIL image, an array or a tensor, got int"),
    ],
)
def test_as_image_rejects_other_shapes_types_and_ranges(image: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        as_image(image, "photo")  # type: ignore[arg-type]


def test_as_mask_takes_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    Image.fromarray(IDS).save(path)
    tensor = torch.from_numpy(IDS.copy())
    big_endian = IDS.astype(">u2")
    for kind in (
        path,
        str(path),
        Image.open(path),
        IDS,
        IDS.astype(np.uint16),
        big_endian,
        tensor,
        tensor.to(torch.int64),
    ):
        mask = as_mask(kind)
        assert mask.dtype == torch.uint8
        assert torch.equal(mask, tensor)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64])
def test_as_mask_reads_true_and_one_alike(dtype: torch.dtype) -> None:
    mask = torch.tensor([[0, 1]]).to(dtype)
    assert as_mask(mask).tolist() == [[0, 1]]
    assert as_mask(mask.numpy()).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("mask", "error", "text"),
    [
        (np.zeros((6, 9, 1), np.uint8), ValueError, r"``m``: expected one class id per pixel.*\(6, 9, 1\)"),
        (torch.zeros(1, 6, 9), ValueError, r"got shape \(1, 6, 9\).*squeeze"),
        (np.array([[0, 300]]), ValueError, r"class ids from 0 to 255, got 300;"),
        (np.array([[0, 256]]), ValueError, r"class ids from 0 to 255, got 256;"),
        (np.array([[0, -1]]), ValueError, r"got -1;"),
        (np.array([[0.5, 1.0]]), ValueError, r"0\.0 or 1\.0 in a floating-point mask, got 0\.5; threshold"),
        (torch.tensor([[float("nan")]]), ValueError, r"got nan;"),
        (None, TypeError, r"got NoneType"),
        (np.array([["0"]]), TypeError, r"``m``: expected booleans, integers or floating-point numbers, got <U1"),
        (np.array([[1j]]), TypeError, r"got complex128"),
    ],
)
def test_as_mask_rejects_other_shapes_types_and_ranges(mask: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        as_mask(mask, "m")  # type: ignore[arg-type]


def test_as_image_names_truncated_pil_image(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with Image.open(path) as image, pytest.raises(ValueError, match=r"cut\.jpg: cannot be decoded"):
        as_image(image)


def save_with_orientation(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.new("L", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_of_the_image_alone_is_a_warning(tmp_path: Path, orientation: int) -> None:
    image = save_with_orientation(tmp_path / "a.png", orientation)
    upright, alike = (
        save_with_orientation(tmp_path / "m.png", 1),
        save_with_orientation(tmp_path / "n.png", orientation),
    )
    names = {"image_name": "a.png", "mask_name": "m.png"}
    warn_of_orientation(image, alike, **names)
    warn_of_orientation(image, np.zeros((8, 8)), **names)
    if orientation == 1:
        warn_of_orientation(image, upright, **names)
    else:
        with pytest.warns(
            UserWarning, match=rf"a\.png is rotated .*EXIF orientation \({orientation}\), and its mask m"
        ):
            warn_of_orientation(image, upright, **names)


def test_where_height_and_width_change_places_the_sizes_tell(tmp_path: Path) -> None:
    image, mask = tmp_path / "a.png", tmp_path / "m.png"
    names = {"image_name": "a.png", "mask_name": "m.png"}
    for orientation, warned in ((6, False), (3, True)):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        Image.new("L", (9, 6)).save(image, exif=exif)
        Image.new("L", (6, 9) if orientation == 6 else (9, 6)).save(mask)
        assert image_size(image) == image_size(mask) == tuple(load_mask(image).shape)
        with pytest.warns(UserWarning, match="EXIF") if warned else contextlib.nullcontext():
            warn_of_orientation(image, mask, **names)


def test_an_image_without_exif_is_upright(tmp_path: Path) -> None:
    for name in ("a.png", "m.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    warn_of_orientation(tmp_path / "a.png", tmp_path / "m.png", image_name="a.png", mask_name="m.png")


def test_an_open_file_is_named_in_errors(tmp_path: Path) -> None:
    (tmp_path / "upload.png").write_bytes(b"no image")
    with (tmp_path / "upload.png").open("rb") as file, pytest.raises(ValueError, match=r"upload\.png: cannot be dec"):
        as_mask(file)


def test_an_image_beyond_pillows_limit_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colours: np.ndarray
) -> None:
    Image.fromarray(colours).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for read in (load_image, image_size):
        with pytest.raises(ValueError, match=r"a\.png: .*54 pixels.*MAX_IMAGE_PIXELS") as caught:
            read(tmp_path / "a.png")
        assert "damaged" not in str(caught.value)


def test_as_image_reads_bytes_and_open_files(tmp_path: Path, colours: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(colours).save(path)
    expected = load_image(path)
    assert torch.equal(as_image(path.read_bytes()), expected)
    with path.open("rb") as file:
        assert torch.equal(as_image(file), expected)
    with pytest.raises(ValueError, match="upload: cannot be decoded"):
        as_image(b"no image", "upload")


@pytest.mark.real_data
def test_load_mask_of_voc_gives_class_ids_and_void(real_data: Path) -> None:
    folder = real_data / "voc2012_subset"
    mask = load_mask(folder / "SegmentationClass" / "2007_000063.png")
    image = load_image(folder / "JPEGImages" / "2007_000063.jpg")
    assert set(torch.unique(mask).tolist()) <= {*range(21), 255}
    assert 255 in mask
    assert image.shape == (3, *mask.shape)
