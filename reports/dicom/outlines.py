"""Outlines of findings as single rings, which is what structured reports, structure sets and annotations can hold."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ...readers.geometry import Points
from .masks import Shapes, polygons_of


def outline(geometry: BaseGeometry) -> tuple[Points, int]:
    """(N, 2) vertices of a closed polyline around a geometry, the first again at the end, and the number of its rings.

    Holes and further parts are joined to the outline of the largest part by cuts, which are passed in both directions:
    they have no width, and the area inside is that of the geometry. Exteriors run counter-clockwise in x and y, holes
    clockwise. (1, 2) and 0 rings for a geometry without area.
    """
    parts = [part for part in shapely.get_parts(geometry) if isinstance(part, Polygon) and part.area > 0]
    if not parts:
        return shapely.get_coordinates(geometry)[:1], 0
    parts = [shapely.geometry.polygon.orient(part) for part in sorted(parts, key=lambda part: -part.area)]
    rings = [shapely.get_coordinates(ring)[:-1] for part in parts for ring in chain([part.exterior], part.interiors)]
    path = joined(rings)
    return np.concatenate([path, path[:1]]), len(rings)


def joined(rings: Sequence[Points]) -> Points:
    """One ring of several, none of which repeats its first vertex.

    It leaves the first ring where each of the others is nearest, runs around that one, and returns.
    """
    from scipy.spatial import KDTree

    first, others = rings[0], rings[1:]
    if not others:
        return first
    found = cast("tuple[Points, Points]", KDTree(first).query(np.concatenate(others)))
    distances, nearest = map(np.asarray, found)
    detours: dict[int, list[Points]] = {}
    start = 0
    for ring in others:
        here = start + int(np.argmin(distances[start : start + len(ring)]))
        at, around = int(nearest[here]), np.roll(ring, start - here, axis=0)
        detours.setdefault(at, []).append(np.concatenate([around, around[:1], first[at : at + 1]]))
        start += len(ring)
    pieces: list[Points] = []
    done = 0
    for at in sorted(detours):
        pieces += [first[done : at + 1], *detours[at]]
        done = at + 1
    return np.concatenate([*pieces, first[done:]])


class Rings(NamedTuple):
    """The outlines of geometries, a ring for each polygon of which they consist."""

    vertices: Points
    """(N, 2) those of all rings, one after the other; the last one of a ring is joined to its first."""
    counts: npt.NDArray[np.intp]
    """How many of them each ring has."""
    owners: npt.NDArray[np.intp]
    """The place of each ring's geometry."""
    polygons: Shapes
    """What each ring encloses."""

    def each(self) -> list[Points]:
        """The vertices of each ring."""
        return np.split(self.vertices, np.cumsum(self.counts)[:-1]) if len(self.counts) else []


def rings(geometries: Shapes) -> Rings:
    """A ring for each polygon of which geometries consist, with its holes joined to it."""
    polygons, owners = polygons_of(geometries)
    plain = polygons.copy()
    for at in np.flatnonzero(shapely.get_num_interior_rings(polygons)).tolist():
        polygon = shapely.orient_polygons(polygons[at])
        found = [shapely.get_coordinates(ring)[:-1] for ring in (polygon.exterior, *polygon.interiors)]
        plain[at] = shapely.polygons(joined(found))
    vertices, ring = shapely.get_coordinates(plain, return_index=True)
    last = np.append(ring[1:] != ring[:-1], True) if len(ring) else np.empty(0, dtype=np.bool_)
    return Rings(vertices[~last], np.bincount(ring[~last], minlength=len(plain)), owners, polygons)
