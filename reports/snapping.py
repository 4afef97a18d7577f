"""Polygons snapped to a fine grid, as `shapely.set_precision` does it, which takes long.

Where no vertex comes near another one or an edge, snapping only rounds vertices. GEOS then returns an exterior
clockwise and a hole counter-clockwise, from its second vertex on (JTS, `OverlayEdgeRing`), which a test compares.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from .measures import Numbers, Shapes

Index = npt.NDArray[np.int64]

_POLYGON: Final = 3  # shapely's type number
_ROOM: Final = 3.0  # sides of a cell of the grid: vertices move by half its diagonal, and snap over as much
_ROUNDING: Final = 1e-6


def only_rounded(shapes: Shapes, scale: tuple[float, float], grid: float) -> npt.NDArray[np.intp]:
    """The places of polygons (N,) in level-0 pixels that snapping to a grid only rounds, as far as that is told fast.

    These are valid polygons: boxes, and those whose vertices are corners of analysed pixels, of `scale` level-0 pixels
    (x, y), or halfway between them. On such a lattice the distance from a vertex to an edge is a multiple of a side of
    its cell, or where the edge is oblique, of the area of the cell by the length of the edge. It may be none where a
    hole touches another ring; with holes, all edges must be parallel to an axis, which rounding leaves them.
    """
    places = np.flatnonzero((shapely.get_type_id(shapes) == _POLYGON) & (shapely.get_num_coordinates(shapes) > 3))
    if not len(places):
        return places
    polygons = shapes[places]
    xy, starts = shapely.get_coordinates(polygons), _starts(polygons)
    steps = np.diff(xy, axis=0, append=xy[-1:])
    steps[_starts(shapely.get_rings(polygons)) - 1] = np.nan  # between rings
    length = np.nan_to_num(np.where((steps != 0).all(axis=1), np.hypot(*steps.T), 0.0))
    longest, clearance = np.maximum.reduceat(length, starts), np.zeros(len(places))
    for cell in (np.asarray(scale) / 2, np.asarray(scale)):
        on = np.abs(xy / cell - np.rint(xy / cell)).max(axis=1) < _ROUNDING
        least = np.minimum(cell.prod() / np.maximum(longest, 1e-9), cell.min())
        clearance = np.where(np.logical_and.reduceat(on, starts), least, clearance)
    sides = np.diff(shapely.bounds(polygons).reshape(-1, 2, 2), axis=1)[:, 0]
    boxes = (shapely.get_num_coordinates(polygons) == 5) & (shapely.area(polygons) == sides.prod(axis=1))
    clearance[boxes] = np.maximum(clearance, sides.min(axis=1))[boxes]
    clearance[np.logical_or.reduceat((steps == 0).all(axis=1), starts)] = 0.0  # a vertex that is repeated
    clearance[(shapely.get_num_interior_rings(polygons) > 0) & (longest > 0)] = 0.0
    whole = shapely.set_coordinates(polygons, np.rint(xy / np.asarray(scale) * 2))  # without errors of rounding
    return places[(clearance > _ROOM * grid) & (boxes | shapely.is_valid(whole))]


def snapped_rings(polygons: Shapes, grid: float) -> tuple[Numbers, Index, Index]:
    """The closed rings (V, 2) of polygons of `only_rounded` on the grid, and where each ring and each polygon ends."""
    rounded = shapely.set_precision(polygons, grid, mode="pointwise")
    rings, polygon = shapely.get_rings(rounded, return_index=True)
    xy, count = shapely.get_coordinates(rings), shapely.get_num_coordinates(rings).astype(np.int64)
    ends = np.cumsum(count)
    start, length = np.repeat(ends - count, count), np.repeat(count - 1, count)
    place = np.arange(len(xy)) - start
    hole = np.diff(polygon, prepend=-1) == 0
    backwards = np.repeat(shapely.is_ccw(rings) != hole, count)
    ordered = xy[start + np.where(backwards, length - 1 - place, place + 1) % length]
    return ordered, ends, ends[np.flatnonzero(np.diff(polygon, append=-1))]


def _starts(polygons: Shapes) -> Index:
    count = shapely.get_num_coordinates(polygons).astype(np.int64)
    return np.cumsum(count) - count
