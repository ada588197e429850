"""Colours and patterns of generated images, and their cluttered ground."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Rng = np.random.Generator


def draw_ground(rng: Rng, colour: Floats, size: int, clutter: float) -> Floats:
    """A textured ground ``(3, S, S)`` with strokes and blobs, more of them and stronger with the clutter."""
    image = texture(rng, size, colour, 0.6 * clutter)
    # The fourth channel counts what is drawn over; averaging down leaves the colours weighted by it.
    layer = Image.new("RGBX", (2 * size, 2 * size))
    pencil = ImageDraw.Draw(layer)
    for _ in range(round(4 * clutter)):
        tints = colour + np.float32(0.1 + 0.8 * clutter) * (rng.random((2, 3), dtype=np.float32) * 255 - colour)
        stroke, blob = ((*map(int, tint), 255) for tint in tints.tolist())
        *line, width = (rng.random(5) * (2 * size)).tolist()
        pencil.line(line, fill=stroke, width=2 + int(width / 16))
        pencil.polygon(_blob(rng, 2 * size), fill=blob)
    drawn = np.asarray(layer.reduce(2)).transpose(2, 0, 1).astype(np.float32)  # (4, S, S)
    covered = drawn[3] / 255
    image *= 1 - covered
    image += drawn[:3]
    shade = _pattern(rng, size) * covered * np.float32(0.6 * clutter)
    image += shade * (random_colour(rng) - colour)[:, None, None]
    return image


def _blob(rng: Rng, size: int) -> list[float]:
    """Corners of a random blob: a circle whose radius wanders."""
    x, y, radius, *wander = rng.random(15).tolist()
    radius = size * (0.05 + 0.15 * radius)
    corners = []
    for index, share in enumerate(wander):
        angle = 2 * math.pi * index / len(wander)
        reach = radius * (0.6 + 0.8 * share)
        corners += [size * x + reach * math.cos(angle), size * y + reach * math.sin(angle)]
    return corners


def random_colour(rng: Rng) -> Floats:
    """Three channels, 0 to 255."""
    return rng.random(3, dtype=np.float32) * np.float32(255)


def texture(rng: Rng, size: int, colour: Floats, contrast: float) -> Floats:
    """A whole image ``(3, S, S)`` of one colour with a second one in a random pattern."""
    step = np.float32(contrast) * (random_colour(rng) - colour)
    return _pattern(rng, size) * step[:, None, None] + colour[:, None, None]


def _pattern(rng: Rng, size: int) -> Floats:
    """How much of the second colour shows, 0 to 1: none, noise, a gradient, stripes or checks."""
    kind = int(rng.integers(5))
    if kind == 0:
        return np.zeros((size, size), dtype=np.float32)
    if kind == 1:
        cells = int(rng.integers(8, 25))
        coarse = Image.fromarray(rng.integers(0, 256, size=(cells, cells), dtype=np.uint8))
        return np.asarray(coarse.resize((size, size), Image.Resampling.BILINEAR)) * np.float32(1 / 255)
    angle = rng.random() * 2 * math.pi
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    pixels = np.arange(size, dtype=np.float32)
    along = pixels * cos + pixels[:, None] * sin
    if kind == 2:
        return np.asarray((along - along.min()) / (along.max() - along.min()))
    period = np.float32((0.08 + 0.17 * rng.random()) * size)
    shade = _stripes(along, period)
    if kind == 4:
        shade *= 2 * _stripes(pixels[:, None] * cos - pixels * sin, period)
    return shade + np.float32(0.5)


def _stripes(along: Floats, period: np.float32) -> Floats:
    """-0.5 and 0.5 in turn, one period for both, with borders one pixel wide."""
    turns = along / period
    wave = np.abs(turns - np.floor(turns) - np.float32(0.5)) - np.float32(0.25)
    stripes: Floats = np.clip(wave * period, np.float32(-0.5), np.float32(0.5))
    return stripes
