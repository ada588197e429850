"""Colours, patterns and the cluttered background of generated images."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Rng = np.random.Generator


def draw_background(rng: Rng, colour: Floats, size: int, clutter: float) -> Floats:
    """A textured background ``(3, S, S)`` with strokes and blobs, whose number and contrast grow with ``clutter``."""
    image = texture(rng, size, colour, 0.6 * clutter)
    # The fourth channel marks the pixels that are drawn over; averaging down weights the colours by it.
    layer = Image.new("RGBX", (2 * size, 2 * size))
    pencil = ImageDraw.Draw(layer)
    for _ in range(round(4 * clutter)):
        tints = colour + np.float32(0.1 + 0.8 * clutter) * (rng.random((2, 3), dtype=np.float32) * 255 - colour)
        stroke, blob = ((*map(int, tint), 255) for tint in tints.tolist())
        *line, width = (rng.random(5) * (2 * size)).tolist()
        pencil.line(line, fill=stroke, width=2 + int(width / 16))
        pencil.polygon(_blob(rng, 2 * size), fill=blob)
    painted = np.asarray(layer.reduce(2)).transpose(2, 0, 1).astype(np.float32)  # (4, S, S)
    covered = painted[3] / 255
    image *= 1 - covered
    image += painted[:3]
    shade = _pattern(rng, size) * covered * np.float32(0.6 * clutter)
    image += shade * (random_colour(rng) - colour)[:, None, None]
    return image


def _blob(rng: Rng, size: int) -> list[float]:
    """Corners of a random blob: a circle with a varying radius."""
    x, y, radius, *shares = rng.random(15).tolist()
    radius = size * (0.05 + 0.15 * radius)
    corners = []
    for index, share in enumerate(shares):
        angle, reach = 2 * math.pi * index / len(shares), radius * (0.6 + 0.8 * share)
        corners += [size * x + reach * math.cos(angle), size * y + reach * math.sin(angle)]
    return corners


def random_colour(rng: Rng) -> Floats:
    """A colour ``(3,)``, each channel 0 to 255."""
    return rng.random(3, dtype=np.float32) * np.float32(255)


def texture(rng: Rng, size: int, colour: Floats, contrast: float) -> Floats:
    """An image ``(3, S, S)`` of one colour with a second colour in a random pattern."""
    step = np.float32(contrast) * (random_colour(rng) - colour)
    return _pattern(rng, size) * step[:, None, None] + colour[:, None, None]


def _pattern(rng: Rng, size: int) -> Floats:
    """The share ``(S, S)`` of the second colour, 0 to 1: none, noise, a gradient, stripes or checks."""
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
    """A square wave between -0.5 and 0.5 with edges one pixel wide."""
    turns = along / period
    wave = np.abs(turns - np.floor(turns) - np.float32(0.5)) - np.float32(0.25)
    return np.asarray(np.clip(wave * period, np.float32(-0.5), np.float32(0.5)))
