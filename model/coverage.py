"""The union of areas that share edges but not the vertices on them, as the pieces of a class map do.

Where areas only touch, nothing has to be intersected: shared edges cancel each other, once each has the vertices of the
other. That takes a fraction of the time and memory of an overlay, which matters for areas of millions of vertices.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.errors import GEOSException

from .findings_table import Objects

Index = npt.NDArray[np.int64]

_ROUNDING: Final = 1e-9  # of an area
_POLYGON: Final = 3  # shapely's type number


def union_parts(polygons: Objects) -> Objects:
    """The polygons (M,) of the union of valid polygons (N,), without vertices on straight edges along an axis.

    Those that touch at a corner only stay apart.
    """
    union: Any = None
    if (noded := _noded(polygons)) is not None:
        with suppress(GEOSException):
            union = shapely.coverage_union_all(noded)
    # of polygons that overlap, edges cancel where they must not: the area is less, or parts overlap
    whole = math.fsum(shapely.area(polygons))
    if union is None or not (math.isclose(union.area, whole, rel_tol=_ROUNDING) and union.is_valid):
        union = shapely.disjoint_subset_union_all(polygons)
    return without_straight_vertices(shapely.get_parts(union))


def without_straight_vertices(polygons: Objects) -> Objects:
    """Polygons (N,) without vertices on straight edges along an axis, which an overlay leaves."""
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    opened = np.flatnonzero(ring[1:] == ring[:-1])  # without the last vertex of each, which is the first
    here, ring = xy[opened], ring[opened]
    length = np.bincount(ring)[ring]
    start = np.searchsorted(ring, ring)
    place = np.arange(len(ring)) - start
    before, after = (here[start + (place + step) % length] for step in (-1, 1))
    kept = ~((before == here) & (here == after)).any(axis=1)
    turning: Any = shapely.linearrings(here[kept], indices=ring[kept])
    return np.asarray(shapely.polygons(turning, indices=polygon), dtype=object)


def _noded(polygons: Objects) -> Objects | None:
    """Polygons whose edges run along the axes, with all vertices of others that lie on them; None for others."""
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    edge = np.flatnonzero(ring[1:] == ring[:-1])  # its first vertex
    codes = np.stack([np.unique(axis, return_inverse=True)[1].astype(np.int64) for axis in xy.T], axis=1)
    upright, level = (codes[edge, axis] == codes[edge + 1, axis] for axis in (0, 1))
    if not (upright ^ level).all() or (shapely.get_type_id(polygons) != _POLYGON).any():
        return None
    first: list[Index] = []
    places: list[Index] = []
    for axis, along in ((0, upright), (1, level)):
        line, way = codes[:, axis], codes[:, 1 - axis]
        size = int(way.max()) + 1
        keys, vertex = np.unique(line * size + way, return_index=True)
        here = edge[along]
        begin, end = way[here], way[here + 1]
        low = np.searchsorted(keys, line[here] * size + np.minimum(begin, end), side="right")
        count = np.searchsorted(keys, line[here] * size + np.maximum(begin, end), side="left") - low
        rank = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        backward = count.repeat(count) - 1 - rank
        place = low.repeat(count) + np.where((begin > end).repeat(count), backward, rank)
        first.append(np.repeat(here, count))
        places.append(vertex[place])
    of = np.concatenate([np.arange(len(xy)), *first])
    order = np.argsort(of, kind="stable")
    made: Any = shapely.linearrings(np.concatenate([xy, xy[np.concatenate(places)]])[order], indices=ring[of[order]])
    return np.asarray(shapely.polygons(made, indices=polygon), dtype=object)
