"""Areas of polygons whose straight edges are bent on the ground.

Edges are cut into pieces, each nearly a geodesic, until the area no longer changes; the error of a piece falls with the
square of its length, and what is left of it is extrapolated away (Richardson 1911). Rounding costs geodesics' areas
some 1e-7 m² a vertex: nothing for what is kilometres wide, too much for a pixel.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from .geometry import Points

Index = npt.NDArray[np.intp]

_PIECES: Final = (64, 4000, 1 << 18)  # of an edge as long as the polygon: at first, at least and at most; ever
_PIECE: Final = 250.0  # metres, between these
_SETTLED: Final = 1e-7  # of an area: where pieces of half the length change it less, the next ones hardly do
_ROUNDED: Final = 2e-7  # m² a vertex: what rounding may change it
_WIDEST: Final = 1e7  # metres: what is wider may cover more than half of the globe, and is cut
_POLYGON: Final = 3  # shapely's type number; those above it have parts


def polygon_edges(geometries: npt.NDArray[Any]) -> tuple[Index, Points, Points]:
    """Directed edges of all polygons in shapely geometries (N,): outer rings one way round, holes the other.

    Returns each edge's place in the array (E,), its start and its end (E, 2). Points and lines have none.
    """
    rings, owner = _rings(geometries)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    inside = np.flatnonzero(ring[1:] == ring[:-1])
    return owner[ring[inside]], points[inside], points[inside + 1]


def polygon_area(geometry: BaseGeometry, ring_area: Callable[[Points], float], metres: float) -> float:
    """Area in m² of a geometry whose units are about `metres`.

    `ring_area` is the signed area in m² of the polygon between points (N, 2), the last of them the first. Relative
    error about 1e-8 where it is kilometres wide. NaN where a vertex is not on the map, or where pieces however short
    still change the area.
    """
    if geometry.is_empty:
        return 0.0
    x0, y0, x1, y1 = geometry.bounds
    across = math.hypot(x1 - x0, y1 - y0)
    if across * metres > _WIDEST:
        x, y = (x0 + x1) / 2.0, (y0 + y1) / 2.0
        halves = [(x0, y0, x, y1), (x, y0, x1, y1)] if x1 - x0 > y1 - y0 else [(x0, y0, x1, y), (x0, y, x1, y1)]
        return sum(polygon_area(geometry & shapely.box(*half), ring_area, metres) for half in halves)
    rings, _ = _rings(np.array([geometry], dtype=object))
    few, many, most = _PIECES
    step, before, count = min(across / few, max(across / many, _PIECE / metres)), math.nan, 0
    while step * most >= across:
        fine = [shapely.get_coordinates(ring) for ring in shapely.segmentize(rings, step)]
        area, points = abs(math.fsum(map(ring_area, fine))), sum(map(len, fine))
        if math.isnan(area) or points == count:
            return area
        if abs(area - before) <= _SETTLED * area + _ROUNDED * points:
            return area + (area - before) / 3.0
        step, before, count = step / 2.0, area, points
    return math.nan


def _rings(geometries: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Index]:
    """All polygons' rings in geometries (N,), however nested, and each ring's place in the array."""
    parts, owner = geometries, np.arange(len(geometries))
    while (shapely.get_type_id(parts) > _POLYGON).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    solid = shapely.get_type_id(parts) == _POLYGON
    rings, index = shapely.get_rings(shapely.orient_polygons(parts[solid]), return_index=True)
    return rings, owner[solid][index]
