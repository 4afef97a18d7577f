"""Outlines of findings as single closed polylines, which is what a structured report can hold."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false

from itertools import chain
from typing import cast

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from ...readers.geometry import Points


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
    rings = [shapely.get_coordinates(ring) for part in parts for ring in chain([part.exterior], part.interiors)]
    path = rings[0]
    for ring in rings[1:]:
        path = _joined(path, ring)
    return path, len(rings)


def _joined(path: Points, ring: Points) -> Points:
    """A closed path that leaves `path` where `ring` is nearest, runs around it, and returns."""
    from scipy.spatial import KDTree

    distances, nearest = map(np.asarray, cast("tuple[Points, Points]", KDTree(path).query(ring)))
    start = int(np.argmin(distances))
    at = int(nearest[start])
    around = np.concatenate([ring[start:-1], ring[: start + 1]])
    return np.concatenate([path[: at + 1], around, path[at:]])
