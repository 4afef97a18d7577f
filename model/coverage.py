"""Unions of areas that share edges but not the vertices on them, as pieces of a class map do, and what is left of one.

Where areas only touch, nothing has to be intersected: shared edges cancel each other, once each has the vertices of the
other. That takes a fraction of the time and memory of an overlay, which matters for areas of millions of vertices.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from typing import Final

import numpy as np
import shapely
from shapely.geometry import Polygon

from .findings_table import Objects, objects
from .shared_edges import Index, Rings, Uncovered, turning
from .sorting import connected_pairs

_POLYGON: Final = 3  # shapely's type number


def union_parts(polygons: Objects) -> tuple[Objects, Index]:
    """The polygons (M,) of the union of valid polygons (N,), and for each of those (N,) the one that it is part of.

    They have no vertices on straight edges along an axis. Those that touch at a corner only stay apart.
    """
    if (made := _united(polygons)) is not None:
        return made
    parts = without_straight_vertices(shapely.get_parts(shapely.disjoint_subset_union_all(polygons)))
    of_part, of_polygon = shapely.STRtree(shapely.point_on_surface(polygons)).query(parts, predicate="contains")
    member = np.empty(len(polygons), dtype=np.int64)
    member[of_polygon] = of_part
    return parts, member


def difference_parts(polygon: Polygon, gone: Objects) -> Objects:
    """The polygons (M,) that are left of one without others, which lie in it and do not overlap.

    They have no vertices on straight edges along an axis.
    """
    rings = Rings.of(objects([polygon, *gone]))
    left = None if rings is None else rings.uncovered(np.arange(len(gone) + 1) > 0)
    del rings
    if left is not None and (part := left.rings.nested(left.shell)) is not None:
        parts = _checked(left, part)
        if parts is not None:
            return parts
    parts = shapely.get_parts(shapely.difference(polygon, shapely.union_all(gone)))
    return without_straight_vertices(parts[(shapely.get_type_id(parts) == _POLYGON) & (shapely.area(parts) > 0)])


def without_straight_vertices(polygons: Objects) -> Objects:
    """Polygons (N,) without vertices on straight edges along an axis, which an overlay leaves."""
    if not len(polygons):
        return polygons
    _, xy, (ends, parts) = shapely.to_ragged_array(polygons)
    return shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, *turning(xy, ends.astype(np.int64), parts.astype(np.int64))
    )


def _united(polygons: Objects) -> tuple[Objects, Index] | None:
    """As `union_parts`; None for polygons that overlap, or have edges that run along no axis."""
    rings = Rings.of(polygons)
    left = None if rings is None else rings.uncovered(np.zeros(len(polygons), dtype=np.bool_))
    del rings
    if left is None:
        return None
    member = connected_pairs(len(polygons), *left.shared)
    part = member[left.rings.polygon]
    if (np.bincount(part[left.shell], minlength=int(member.max()) + 1) != 1).any():
        return None
    parts = _checked(left, part)
    return None if parts is None else (parts, member)


def _checked(left: Uncovered, part: Index) -> Objects | None:
    """The polygons of these parts (R,); None where they are not valid or overlap: those of areas that overlap."""
    shells = left.rings.assembled(part, left.shell, left.shell | left.changed)
    return left.rings.assembled(part, left.shell) if shapely.is_valid(shapely.multipolygons(shells)) else None
