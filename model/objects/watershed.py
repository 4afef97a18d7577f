"""Splits areas into objects where they are narrow: a watershed of the distance to what is outside.

Every pixel leads to the one of its four neighbours that is farthest from the outside, and so on to a summit: those that
lead to one summit are a part. Two parts that meet in a neck are one object where the neck is hardly narrower than the
smaller of them (Vincent & Soille 1991, Watersheds in digital spaces; the order of joining is that of topological
persistence, Edelsbrunner et al. 2002). An area is worked on alone, so its objects depend on nothing but its pixels.
"""
# scipy states no types:
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import shapely

from ...readers.regions import Grid
from ..class_maps import trace
from ..findings_table import FindingsTable, Flags, Floats, Objects
from .outlines import Numbered, Outlines, Whole, follow_pixels, pack

LARGEST: Final = 2**24
"""Grid pixels of the box around the largest area that is split: 4,096 × 4,096."""

NECK: Final = 0.75
"""Of the width of the smaller part: a neck that is narrower parts two objects."""

PERIMETER: Final = "object.perimeter"
"""The number of an object that has its perimeter in grid pixels: columns of reports follow from it."""

MEAN: Final = "object.mean."
"""Begins the name of a number of an object that has its mean in a channel."""

_NOISE: Final = 1.0  # grid pixels of half width, by which a part must be wider than a neck: less is the pixels' own
_AT_ONCE: Final = 2**22  # grid pixels of areas that are worked on together
_ROW: Final = 2048


def split(table: FindingsTable, chosen: Flags, grid: Grid, neck: float = NECK) -> tuple[FindingsTable, Flags]:
    """Split the chosen areas of a table, if they are polygons along the lines of the grid, into objects, each a row.

    An object has the numbers "pixels" and `PERIMETER`, both in grid pixels, and everything else of its area; numbers
    that are amounts are shared out by pixels. Also returns which rows of the given table were too large to be split.
    """
    rows = np.flatnonzero(chosen & follow_pixels(table.geometries, grid))
    large = np.zeros(len(table), dtype=np.bool_)
    if not len(rows):
        return table, large
    outlines = Outlines.of(table.geometries[rows], grid)
    bounds = outlines.bounds
    boxes = np.prod(bounds[:, 2:] - bounds[:, :2] + 1, axis=1)
    large[rows[boxes > LARGEST]] = True
    whole = np.ones(len(rows), dtype=np.bool_)
    parts: list[_Parts] = []
    fitting = np.flatnonzero(boxes <= LARGEST)
    batch = np.cumsum(boxes[fitting]) // _AT_ONCE
    for start, stop in pairwise([*np.flatnonzero(np.diff(batch, prepend=-1)).tolist(), len(fitting)]):
        here = fitting[start:stop]
        places, shape = pack(bounds[here, 2:] - bounds[here, :2], _ROW)
        shift = np.zeros((len(rows), 2), dtype=np.int64)
        shift[here] = places - bounds[here, :2]
        numbers = np.zeros(len(rows), dtype=np.int32)
        numbers[here] = here + 1
        numbered = outlines.draw(numbers, shift, shape, here)
        objects, owner = watershed(numbered, neck)
        several = np.bincount(owner - 1, minlength=len(rows)) > 1
        whole &= ~several
        parts.append(_Parts.traced(objects, (objects > 0) & several[numbered - 1], owner, shift, grid))
    one = np.flatnonzero(whole)
    parts.insert(0, _Parts(one, table.geometries[rows[one]], outlines.areas()[one], outlines.perimeters()[one]))
    owner = rows[np.concatenate([part.owner for part in parts])]
    pixels = np.concatenate([part.pixels for part in parts])
    made = table.take(owner)
    share = pixels / np.bincount(owner, pixels, minlength=len(table))[owner]
    perimeter = np.concatenate([part.perimeter for part in parts])
    amounts = {name: values * share for name, values in made.numbers.items()}
    shapes = np.concatenate([part.shapes for part in parts])
    made = replace(made, shapes=shapes, numbers={**amounts, "pixels": pixels, PERIMETER: perimeter})
    others = np.ones(len(table), dtype=np.bool_)
    others[rows] = False
    return FindingsTable.concatenated([table.take(np.flatnonzero(others)), made]), large


@dataclass(frozen=True, slots=True)
class _Parts:
    """Objects, a row each."""

    owner: npt.NDArray[np.intp]
    """The area that each is of."""
    shapes: Objects
    """In level-0 pixels."""
    pixels: Floats
    perimeter: Floats

    @classmethod
    def traced(cls, objects: Numbered, mask: Flags, owner: Whole, shift: Whole, grid: Grid) -> Self:
        """Those of a map (H, W) within a mask; `owner` is the number of the area of each, `shift` where that lies."""
        traced = trace(objects, mask)
        if not len(traced.outlines):
            return cls(np.empty(0, np.intp), traced.outlines, np.empty(0), np.empty(0))
        of = owner[traced.values - 1] - 1
        ring = np.repeat(np.arange(len(traced.rings) - 1), np.diff(traced.rings))
        polygon = np.repeat(np.arange(len(of)), np.diff(traced.polygons))[ring]
        outlines = Outlines(traced.xy.astype(np.int64) - shift[of[polygon]], ring, polygon, len(of))
        xy = grid.to_level0(outlines.xy.astype(np.float64))
        shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (traced.rings, traced.polygons))
        return cls(of, shapes, outlines.areas(), outlines.perimeters())


def watershed(areas: Numbered, neck: float) -> tuple[Numbered, Whole]:
    """Split the areas of a map (H, W), which are numbered from 1 and lie apart, on ground that is 0 and goes all round.

    Returns a map of objects, numbered from 1 in the order of their first summits, and the area of each.
    """
    from scipy.ndimage import distance_transform_edt

    width = areas.shape[1]
    distance = np.asarray(distance_transform_edt(areas > 0))
    squared = np.rint(distance * distance).astype(np.int32).reshape(-1)
    inside = np.flatnonzero(areas)
    place = np.zeros(areas.size, dtype=np.int32)
    place[inside] = np.arange(len(inside), dtype=np.int32)
    height = squared[inside]
    leads, best = np.arange(len(inside), dtype=np.int32), height.copy()
    for step in (-width, -1, 1, width):  # of equals the first, so that a level leads to its first pixel
        beside = squared[inside + step]
        better = (beside > best) | ((beside == best) & (beside > 0) & (place[inside + step] < leads))
        best = np.where(better, beside, best)
        leads = np.where(better, place[inside + step], leads)
    while True:
        further = leads[leads]
        if (further == leads).all():
            break
        leads = further
    summits, part = np.unique(leads, return_inverse=True)
    merged = _joined(height[summits], _necks(inside, place, areas, height, part), neck)
    _, first, number = np.unique(merged, return_index=True, return_inverse=True)
    made = np.zeros(areas.size, dtype=np.int32)
    made[inside] = (number + 1)[part]
    return made.reshape(areas.shape), areas.reshape(-1)[inside[summits[first]]].astype(np.int64)


def _necks(
    inside: npt.NDArray[np.intp], place: Numbered, areas: Numbered, height: Numbered, part: npt.NDArray[np.intp]
) -> Whole:
    """(E, 3): pairs of parts that touch, and the squared half width of the widest place where they do."""
    flat, width = areas.reshape(-1), areas.shape[1]
    found: list[Whole] = []
    for step in (1, width):
        a = np.flatnonzero(flat[inside + step])
        b = place[inside[a] + step]
        apart = part[a] != part[b]
        a, b = a[apart], b[apart]
        low, high = np.minimum(part[a], part[b]), np.maximum(part[a], part[b])
        found.append(np.stack([low, high, np.minimum(height[a], height[b])], axis=1).astype(np.int64))
    pairs = np.concatenate(found)
    order = np.lexsort((-pairs[:, 2], pairs[:, 1], pairs[:, 0]))
    pairs = pairs[order]
    return pairs[np.flatnonzero(np.diff(pairs[:, :2], axis=0, prepend=-1).any(axis=1))]


def _joined(summits: Numbered, necks: Whole, neck: float) -> Whole:
    """For each part the least of those that it is one object with."""
    parent = list(range(len(summits)))
    half = (np.sqrt(summits) - 0.5).tolist()
    order = np.lexsort((necks[:, 1], necks[:, 0], -necks[:, 2]))
    pairs, widths = necks[order], np.sqrt(necks[order, 2]) - 0.5

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for (a, b), at in zip(pairs[:, :2].tolist(), widths.tolist(), strict=True):
        low, high = sorted((root(a), root(b)))
        smaller = min(half[low], half[high])
        if low != high and (at >= neck * smaller or smaller - at < _NOISE):
            parent[high] = low
            half[low] = max(half[low], half[high])
    return np.array([root(one) for one in range(len(parent))], dtype=np.int64)
