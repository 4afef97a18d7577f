"""Outlines of areas as single rings, for objects whose polygons cannot have holes.

A hole is joined to its outer ring by a line that is run through there and back ("keyhole"): the ring encloses what the
polygon does, by any rule of filling, and all its vertices are those of the polygon.
"""
# scipy and shapely state few types:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon

from .masks import Shapes

_POLYGON: Final = 3  # shapely's type number
Numbers = npt.NDArray[np.float64]


class Rings(NamedTuple):
    """The outlines of geometries, a ring for each polygon of which they consist."""

    vertices: Numbers
    """(N, 2) those of all rings, one after the other; the last one of a ring is joined to its first."""
    counts: npt.NDArray[np.intp]
    """How many of them each ring has."""
    owners: npt.NDArray[np.intp]
    """The place of each ring's geometry."""
    polygons: Shapes
    """What each ring encloses."""

    def each(self) -> list[Numbers]:
        """The vertices of each ring."""
        return np.split(self.vertices, np.cumsum(self.counts)[:-1]) if len(self.counts) else []


def rings(geometries: Shapes) -> Rings:
    """The rings of polygons and multipolygons; other parts of geometries are left out."""
    parts, owners = shapely.get_parts(geometries, return_index=True)
    parts, inner = shapely.get_parts(parts, return_index=True)
    kept = (shapely.get_type_id(parts) == _POLYGON) & ~shapely.is_empty(parts)
    polygons, owners = parts[kept], owners[inner[kept]]
    plain = polygons.copy()
    for at in np.flatnonzero(shapely.get_num_interior_rings(polygons)).tolist():
        plain[at] = shapely.polygons(keyhole(polygons[at]))
    vertices, ring = shapely.get_coordinates(plain, return_index=True)
    last = np.append(ring[1:] != ring[:-1], True) if len(ring) else np.empty(0, dtype=np.bool_)
    return Rings(vertices[~last], np.bincount(ring[~last], minlength=len(plain)), owners, polygons)


def keyhole(polygon: Polygon) -> Numbers:
    """A polygon as a single ring."""
    polygon = shapely.orient_polygons(polygon)
    outer = shapely.get_coordinates(polygon.exterior)[:-1]
    if not polygon.interiors:
        return outer
    from scipy.spatial import KDTree

    holes: list[Numbers] = [shapely.get_coordinates(ring)[:-1] for ring in polygon.interiors]
    distances, nearest = map(np.atleast_1d, KDTree(outer).query(np.concatenate(holes)))
    detours: dict[int, list[Numbers]] = {}
    start = 0
    for hole in holes:
        here = start + int(np.argmin(distances[start : start + len(hole)]))
        turned = np.roll(hole, start - here, axis=0)
        at = int(nearest[here])
        detours.setdefault(at, []).append(np.concatenate([turned, turned[:1], outer[at : at + 1]]))
        start += len(hole)
    pieces: list[Numbers] = []
    done = 0
    for at in sorted(detours):
        pieces += [outer[done : at + 1], *detours[at]]
        done = at + 1
    return np.concatenate([*pieces, outer[done:]])
