"""The outlines of the 20 shape classes, their placement in an image, and their masks.

No two outlines are the same after rotation, mirroring and mild stretching.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.float64]
Mask = NDArray[np.float32]

# Every fold of five has one shape of each kind, so that folds are equally hard: a closed frame, a letter, a toothed or
# pointed shape, a tool and a curved shape.
SHAPE_NAMES = (
    *("ring", "letter_E", "gear", "key", "crescent"),
    *("wheel", "letter_S", "cross", "fork", "pie"),
    *("triangle_frame", "letter_H", "star", "spectacles", "spiral"),
    *("square_frame", "letter_K", "propeller", "arrow", "horseshoe"),
)

# Masks are drawn at this multiple of the image's size and averaged down, for smooth edges.
SUPERSAMPLING = 2
# The least visible share of every object, and the least share of the image that it covers.
MIN_VISIBLE = 0.6
MIN_AREA = 0.01
# The least distance of two objects as a share of the sum of their radii; later attempts use larger ones.
SPACINGS = (0.9, 1.0, 1.05)
PLACES_TRIED = 32


class Outline(NamedTuple):
    """The polygons of a shape, each ``(N, 2)`` as x, y: solid ones, and holes that are drawn over them."""

    solids: Sequence[Points]
    holes: Sequence[Points] = ()


class Pose(NamedTuple):
    """Position and deformation of an object; lengths are shares of the image's side, angles are in radians."""

    centre: tuple[float, float]
    radius: float
    angle: float
    stretch: float
    shear: float
    mirrored: bool


def draw_mask(outline: Outline, pose: Pose, size: int) -> Mask:
    """The share ``(S, S)`` of every pixel that an object covers, for an image with sides of ``size`` pixels.

    The outline is centred in its bounding box and scaled so that its farthest corner is at ``pose.radius``, so that
    every object stays within that disc.
    """
    side = size * SUPERSAMPLING
    cos, sin = math.cos(pose.angle), math.sin(pose.angle)
    wide, high = pose.stretch * (-1 if pose.mirrored else 1), 1 / pose.stretch
    # Rotation times (stretch, shear, mirror), transposed because points are rows.
    turned = np.array([[cos * wide, sin * wide], [cos * pose.shear - sin * high, sin * pose.shear + cos * high]])
    polygons = [*outline.solids, *outline.holes]
    points = np.concatenate(polygons) @ turned  # (N, 2)
    points -= (points.max(axis=0) + points.min(axis=0)) / 2
    reach = math.sqrt((points**2).sum(axis=1).max())
    points = points * (pose.radius * side / reach) + np.array(pose.centre) * side
    canvas = Image.new("L", (side, side))
    pencil = ImageDraw.Draw(canvas)
    ends = np.cumsum([len(polygon) for polygon in polygons])
    for index, corners in enumerate(np.split(points, ends[:-1])):
        pencil.polygon(corners.ravel().tolist(), fill=255 if index < len(outline.solids) else 0)
    return np.asarray(canvas.reduce(SUPERSAMPLING)) * np.float32(1 / 255)


def place_objects(
    rng: np.random.Generator,
    outlines: Sequence[Outline],
    object_size: tuple[float, float],
    size: int,
    turning: tuple[float, bool] = (180.0, True),
) -> tuple[list[Mask], list[int], NDArray[np.intp]]:
    """Place objects in an image so that enough of each is visible.

    Args:
        rng: source of all random numbers.
        outlines: the shapes of the objects, at most 9.
        object_size: least and greatest diameter, as a share of the side.
        size: side of the image in pixels.
        turning: largest rotation in either direction in degrees, and whether half of the objects are mirrored.

    Returns:
        The coverage ``(S, S)`` of every object, 0 to 1; the order in which to paint them; and a map ``(S, S)`` of the
        visible objects: index in ``outlines`` from 1, or 0.
    """
    count = len(outlines)
    for spacing in (*SPACINGS, None):
        centres, radii = _cells(rng, count) if spacing is None else _scatter(rng, count, object_size, spacing)
        masks = [
            draw_mask(outline, _pose(rng, centre, radius, turning), size)
            for outline, centre, radius in zip(outlines, centres.tolist(), radii.tolist(), strict=True)
        ]
        covered = [mask >= 0.5 for mask in masks]
        order = rng.permutation(count).tolist()
        labels = np.zeros((size, size), dtype=np.intp)
        for index in order:
            labels[covered[index]] = index + 1
        visible = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        whole = np.array([np.count_nonzero(area) for area in covered])
        if (visible >= MIN_VISIBLE * whole).all() and (visible >= MIN_AREA * size**2).all():
            break
    return masks, order, labels


def _scatter(
    rng: np.random.Generator, count: int, object_size: tuple[float, float], spacing: float
) -> tuple[Points, Points]:
    """Random centres ``(N, 2)``, the first of several sets that is spaced well, and random radii ``(N,)``."""
    radii = rng.uniform(*object_size, size=count) / 2 * min(1.0, (3 / count) ** 0.5)
    span = (1 - 2 * radii)[:, None]
    places = rng.random((PLACES_TRIED, count, 2)) * span + radii[:, None]
    steps = places[:, :, None] - places[:, None]  # (tries, N, N, 2)
    apart = np.sqrt((steps**2).sum(axis=-1))
    slack = (apart - spacing * (radii[:, None] + radii) + 2 * np.eye(count)).min(axis=(1, 2))
    return places[int(np.argmax(np.minimum(slack, 0)))], radii


def _cells(rng: np.random.Generator, count: int) -> tuple[Points, Points]:
    """Centres ``(N, 2)`` and radii ``(N,)`` with a grid cell for each object, in which all are entirely visible."""
    side = math.ceil(count**0.5)
    cells = rng.permutation(side**2)[:count]
    centres = (np.stack([cells % side, cells // side], axis=1) + 0.5) / side
    return centres, np.full(count, 0.5 / side)


def _pose(rng: np.random.Generator, centre: list[float], radius: float, turning: tuple[float, bool]) -> Pose:
    angle, stretch, shear, mirror = rng.random(4).tolist()
    most, mirrors = turning
    return Pose(
        centre=(centre[0], centre[1]),
        radius=radius,
        angle=math.radians(most) * (2 * angle - 1),
        stretch=0.87 + 0.28 * stretch,
        shear=0.4 * shear - 0.2,
        mirrored=mirrors and mirror < 0.5,
    )


@cache
def shape_outlines() -> dict[str, Outline]:
    """Class name to outline, in the order of ``SHAPE_NAMES``."""
    outlines = _frames() | _letters() | _pointed() | _tools() | _curved()
    return {name: outlines[name] for name in SHAPE_NAMES}


def _frames() -> dict[str, Outline]:
    quarter = np.concatenate([np.array([[0.15, 0.15]]), _arc(0, 0, 0.72, 12, 78, 8)])
    gaps = [quarter * np.array(signs) for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    return {
        "ring": Outline([_arc(0, 0, 1, 0, 360)], [_arc(0, 0, 0.56, 0, 360)]),
        "wheel": Outline([_arc(0, 0, 1, 0, 360)], gaps),
        "triangle_frame": Outline([_arc(0, 0, 1, 0, 360, 4)], [_arc(0, 0, 0.42, 0, 360, 4)]),
        "square_frame": Outline([_box(-1, -1, 1, 1)], [_box(-0.52, -0.52, 0.52, 0.52)]),
    }


def _letters() -> dict[str, Outline]:
    spine = _box(-0.7, -1, -0.25, 1)
    arms = [_box(-0.7, top, right, top + 0.4) for top, right in ((-1, 0.7), (-0.2, 0.6), (0.6, 0.7))]
    curve = np.concatenate([_arc(0, -0.42, 0.42, -20, -270, 20), _arc(0, 0.42, 0.42, -90, 160, 20)[1:]])
    stems = [_box(-0.8, -1, -0.36, 1), _box(0.36, -1, 0.8, 1)]
    strokes = [_band(np.array(ends), 0.42) for ends in (((-0.5, 0.1), (0.6, -0.95)), ((-0.3, -0.15), (0.65, 0.95)))]
    return {
        "letter_E": Outline([spine, *arms]),
        "letter_S": Outline([_band(curve, 0.36)]),
        "letter_H": Outline([*stems, _box(-0.4, -0.2, 0.4, 0.2)]),
        "letter_K": Outline([spine, *strokes]),
    }


def _pointed() -> dict[str, Outline]:
    turns = np.arange(32) * (2 * np.pi / 32) + np.tile([0, 0.06, -0.06, 0], 8)
    gear = _polar(np.tile([0.74, 1, 1, 0.74], 8), turns)
    star = _polar(np.array([1, 0.46] * 5), np.arange(10) * (2 * np.pi / 10))
    blades = [_blade(angle) for angle in (0.0, 120.0, 240.0)]
    return {
        "gear": Outline([gear], [_arc(0, 0, 0.36, 0, 360)]),
        "cross": Outline([_box(-1, -0.3, 1, 0.3), _box(-0.3, -1, 0.3, 1)]),
        "star": Outline([star], [_arc(0, 0, 0.24, 0, 360, 16)]),
        "propeller": Outline([*blades, _arc(0, 0, 0.28, 0, 360, 16)]),
    }


def _tools() -> dict[str, Outline]:
    prongs = [_box(left, -1, left + 0.3, -0.1) for left in (-0.7, -0.15, 0.4)]
    bows = [_arc(x, 0, 0.48, 0, 360, 24) for x in (-0.56, 0.56)]
    lenses = [_arc(x, 0, 0.24, 0, 360, 20) for x in (-0.56, 0.56)]
    teeth = [_box(-0.2, -0.16, 1, 0.16), _box(0.36, 0.1, 0.6, 0.52), _box(0.76, 0.1, 1, 0.52)]  # and the shaft
    head = np.array([[0.0, -1.0], [0.75, -0.15], [-0.75, -0.15]])
    return {
        "key": Outline([_arc(-0.55, 0, 0.5, 0, 360), *teeth], [_arc(-0.55, 0, 0.22, 0, 360)]),
        "fork": Outline([*prongs, _box(-0.7, -0.25, 0.7, 0.1), _box(-0.17, 0, 0.17, 1)]),
        "spectacles": Outline([*bows, _box(-0.2, -0.1, 0.2, 0.1)], lenses),
        "arrow": Outline([head, _box(-0.22, -0.2, 0.22, 1)]),
    }


def _curved() -> dict[str, Outline]:
    crescent = np.concatenate([_arc(0, 0, 1, 58.2, 301.8), _arc(0.5, 0, 0.85, 271.9, 88.1)])
    slice_taken = np.concatenate([_arc(0, 0, 1, 40, 320), np.zeros((1, 2))])
    spiral = _polar(np.linspace(0.12, 0.86, 60), np.linspace(0, 3.2 * np.pi, 60))
    legs = np.array([[[-0.56, 0.95], [-0.56, -0.3]], [[0.56, -0.3], [0.56, 0.95]]])
    horseshoe = np.concatenate([legs[0], _arc(0, -0.35, 0.56, 180, 360, 20), legs[1]])
    return {
        "crescent": Outline([crescent]),
        "pie": Outline([slice_taken]),
        "spiral": Outline([_band(spiral, 0.24)]),
        "horseshoe": Outline([_band(horseshoe, 0.4)]),
    }


def _polar(radii: Points, angles: NDArray[np.floating[Any]]) -> Points:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _arc(x: float, y: float, radius: float, start: float, stop: float, points: int = 32) -> Points:
    """Points ``(N, 2)`` along a circle, between two angles in degrees."""
    angles = np.radians(np.linspace(start, stop, points))
    return np.asarray(_polar(np.full(points, radius), angles) + np.array([x, y]))


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _band(path: Points, width: float) -> Points:
    """The outline of a stroke of constant width along a path without sharp corners."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width / 2)
    return np.concatenate([path + across, (path - across)[::-1]])


def _blade(angle: float) -> Points:
    """An ellipse that points away from the centre, rotated by an angle in degrees."""
    turn = np.radians(angle)
    ellipse = _arc(0, 0, 1, 0, 360, 24) * np.array([0.42, 0.24]) + np.array([0.58, 0])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return np.asarray(ellipse @ rotation)
