"""Strips of areas along the edge of the tissue: the mask's edge is no object.

Tissue is found on an overview, so its edge is known to some micrometres only, and glass lies inside of it in places.
There a network answers for the edge itself: a ribbon of one class that may go round a whole slide.
"""
# scipy states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ...readers.regions import Grid, Region, Span
from ..class_maps import trace
from ..coverage import difference_parts
from ..findings_table import FindingsTable, Floats, objects
from ..merged_findings import MergedFindings
from ..views import roi_mask
from .outlines import Numbered, UprightEdges

_BLOCK: Final = 1024  # grid pixels

Masks = npt.NDArray[np.bool_]


def find_strips(
    found: MergedFindings, bounds: Floats, grid: Grid, tissue: BaseGeometry, width: float
) -> Mapping[int, list[Polygon]]:
    """The parts of areas that are no more than a strip along the edge of `tissue` (level-0 pixels), by their place.

    A part is one that is connected with the edge within `width` grid pixels of it, and lies farther than `width` from
    where the same area is deeper inside. `bounds` (N, 4) are those of the findings, in level-0 pixels. The picture's
    own border is no edge. Each block of the grid is worked on with a margin that decides all that is in it.
    """
    strips: dict[int, list[Polygon]] = defaultdict(list)
    steps = math.ceil(1.5 * width)
    margin = steps + math.ceil(width) + 2
    corners_xy = grid.from_level0(bounds.reshape(-1, 2)).reshape(-1, 2, 2)
    low, high = corners_xy.min(axis=1), corners_xy.max(axis=1)
    edges, loaded = UprightEdges.of(objects(()), np.empty(0, np.intp), grid), np.zeros(len(bounds), dtype=np.bool_)
    for x0, y0, x1, y1 in _blocks(grid, tissue, margin):
        left, top = max(0, x0 - margin), max(0, y0 - margin)
        right, bottom = min(grid.shape[0], x1 + margin), min(grid.shape[1], y1 + margin)
        region = Region(grid, Span(left, right, left, right, 1), Span(top, bottom, top, bottom, 1))
        inside = roi_mask(region, tissue)
        near = ((low < (right, bottom)) & (high > (left, top))).all(axis=1)
        if inside.all():
            continue
        if not np.array_equal(near, loaded):  # blocks that are neighbours often have the same areas
            edges = edges.and_more(_upright(found, np.flatnonzero(near & ~loaded), grid), near)
            loaded = near
        if not len(edges.row):
            continue
        numbered, rows = edges.draw((left, top, right, bottom))
        thin = _strips(numbered, inside, width, steps)
        here = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        traced = trace(np.ascontiguousarray(numbered[here]), np.ascontiguousarray(thin[here]))
        level0 = shapely.transform(traced.outlines, lambda xy, x=x0, y=y0: grid.to_level0(xy + np.array([x, y])))
        for shape, number in zip(level0, traced.values.tolist(), strict=True):
            strips[int(rows[number - 1])].append(shape)
    return strips


def _upright(found: MergedFindings, rows: npt.NDArray[np.intp], grid: Grid) -> UprightEdges:
    """Those of some findings that are areas and follow pixels."""
    table = found.take(rows)
    areas = np.flatnonzero(table.is_area)
    return UprightEdges.of(table.geometries[areas], rows[areas], grid)


def _blocks(grid: Grid, tissue: BaseGeometry, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """The blocks of the grid that the edge of the tissue comes near to."""
    edge = shapely.transform(tissue.boundary, grid.from_level0)
    shapely.prepare(edge)
    for y in range(0, grid.shape[1], _BLOCK):
        for x in range(0, grid.shape[0], _BLOCK):
            block = x, y, min(x + _BLOCK, grid.shape[0]), min(y + _BLOCK, grid.shape[1])
            if edge.intersects(shapely.box(block[0] - margin, block[1] - margin, block[2] + margin, block[3] + margin)):
                yield block


def _strips(areas: Numbered, inside: Masks, width: float, steps: int) -> Masks:
    """Where (H, W) areas, by number, are strips along the edge of what is `inside`."""
    from scipy.ndimage import distance_transform_edt

    distance = np.asarray(distance_transform_edt(inside))
    band = (areas > 0) & inside & (distance <= width)
    deep = (areas > 0) & ~band
    reached = _spread(band & (distance < 1.5), areas, steps) & band
    return reached & ~_spread(deep, areas, steps)


def _spread(seeds: Masks, areas: Numbered, steps: int) -> Masks:
    """The pixels that a seed of the same area reaches in so many steps to one of four neighbours."""
    found = seeds.copy()
    same = [areas[:, 1:] == areas[:, :-1], areas[1:] == areas[:-1]]
    for _ in range(steps):
        before = found.copy()
        found[:, 1:] |= before[:, :-1] & same[0]
        found[:, :-1] |= before[:, 1:] & same[0]
        found[1:] |= before[:-1] & same[1]
        found[:-1] |= before[1:] & same[1]
        if (found == before).all():
            break
    return found


def without_strips(table: FindingsTable, strips: Mapping[int, list[Polygon]]) -> FindingsTable:
    """The findings of a table without their strips, by row: each part that is left is a row; amounts are shared out."""
    kept = np.setdiff1d(np.arange(len(table)), list(strips))
    rows, parts, shares = [kept], [table.geometries[kept]], [np.ones(len(kept))]
    for row, gone in sorted(strips.items()):
        shape = table.geometries[row]
        left = difference_parts(shape, objects(gone))
        rows.append(np.full(len(left), row))
        parts.append(left)
        shares.append(shapely.area(left) / shape.area)
    made, share = table.take(np.concatenate(rows)), np.concatenate(shares)
    numbers = {name: values * share for name, values in made.numbers.items()}
    return replace(made, shapes=np.concatenate(parts), numbers=numbers)
