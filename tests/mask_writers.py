"""Mask files as other programs write them and PIL cannot: PNG of few bits, TIFF with its tags."""

import struct
import zlib
from pathlib import Path

import numpy as np


def pack(pixels: np.ndarray, bits: int) -> bytes:
    """Rows of ``bits`` per pixel, the first pixel in the highest bits, each row padded to whole bytes."""
    planes = (pixels[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(planes.reshape(pixels.shape[0], -1), axis=1).tobytes()


def write_png(
    path: Path,
    pixels: np.ndarray,
    bits: int,
    *,
    palette: list[tuple[int, ...]] | None = None,
    transparent: bytes | None = None,
) -> None:
    """A grey PNG, or one with a palette, of 1, 2, 4 or 8 bits per pixel."""
    height, width = pixels.shape
    kind = 0 if palette is None else 3
    packed = pack(pixels, bits)
    stride = len(packed) // height
    rows = b"".join(b"\0" + packed[row * stride : (row + 1) * stride] for row in range(height))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    if palette is not None:
        chunks.append((b"PLTE", bytes(value for colour in palette for value in colour)))
    if transparent is not None:
        chunks.append((b"tRNS", transparent))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        body += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(body)


def write_tiff(path: Path, pixels: np.ndarray, bits: int, *, photometric: int, software: str = "") -> None:
    """An uncompressed grey TIFF of one strip; ``photometric`` 0: zero is white, 1: zero is black."""
    height, width = pixels.shape
    data, text = pack(pixels, bits), software.encode() + b"\0"
    strip, words = 8, 8 + len(data)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    entries += [(273, 4, 1, strip), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(data))]
    if software:
        entries.append((305, 2, len(text), words))
    directory = words + len(text) + (words + len(text)) % 2
    body = b"II*\0" + struct.pack("<I", directory) + data + text
    body = body.ljust(directory, b"\0") + struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHI", tag, kind, count) + struct.pack(
            "<HH" if kind == 3 else "<I", *([value, 0] if kind == 3 else [value])
        )
    path.write_bytes(body + struct.pack("<I", 0))
