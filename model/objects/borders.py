"""Changes of outlines that leave borders shared: holes filled, the corners of pixels cut, vertices left out.

Areas of a class map partition it, but an outline has vertices only where it turns, so that two neighbours of a third
meet on its straight edge. The vertices of neighbours are added first; then a vertex may be changed where all outlines
that have it go the same way, in both directions, and the change follows from its two neighbours alone:

      ───┐ A                 ───╲ A                Both A and B get the same two points for the corner between
         └───┐      ───▶         ╲──╲             them; where three areas meet, the vertex stays.
       B     │                  B    │
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import shapely

from ..findings_table import Flags, Floats, Objects

Whole = npt.NDArray[np.intp]

MOST_VERTICES: Final = 4_000_000
"""Of areas that touch, in a chain too: more are not simplified, which would take much memory."""


def fill_holes(
    polygons: Objects, fillable: Callable[[Objects], Flags], occupied: shapely.STRtree | None
) -> tuple[Objects, Flags]:
    """Fill the holes of polygons (N,) for which `fillable` is true and in which no point of `occupied` lies.

    Returns the polygons, and which of them have changed.
    """
    filled, changed = polygons.copy(), np.zeros(len(polygons), dtype=np.bool_)
    pierced = np.flatnonzero(shapely.get_num_interior_rings(polygons) > 0)
    if not len(pierced):
        return filled, changed
    rings, owner = shapely.get_rings(polygons[pierced], return_index=True)
    inner = np.flatnonzero(np.diff(owner, prepend=-1) == 0)
    holes: Objects = np.asarray(shapely.polygons(rings[inner]), dtype=object)
    gone = fillable(holes)
    if occupied is not None:
        gone[occupied.query(holes, predicate="contains")[0]] = False
    left = np.ones(len(rings), dtype=np.bool_)
    left[inner[gone]] = False
    for one in np.unique(owner[inner[gone]]).tolist():
        exterior, *others = _of(rings, owner, left, one)
        filled[pierced[one]] = shapely.polygons(exterior, holes=others or None)
    changed[pierced[np.unique(owner[inner[gone]])]] = True
    return filled, changed


def _of(rings: Objects, owner: Whole, left: Flags, one: int) -> list[Any]:
    """The rings of one polygon that are left; `owner` is sorted."""
    start, stop = np.searchsorted(owner, [one, one + 1])
    return rings[start:stop][left[start:stop]].tolist()


@dataclass(frozen=True, slots=True)
class _Rings:
    """The rings of polygons, without their last vertex, which is the first."""

    xy: Floats
    """(V, 2)."""
    after: Whole
    """(V,) the next vertex of the ring."""
    before: Whole
    ring: Whole
    """(V,), sorted."""
    polygon: Whole
    """(R,) that of each ring, sorted."""

    @classmethod
    def of(cls, polygons: Objects) -> Self:
        """The rings of polygons (N,)."""
        rings, polygon = shapely.get_rings(polygons, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        last = np.diff(ring, append=-1) != 0
        return cls.linked(xy[~last], ring[~last], polygon)

    @classmethod
    def linked(cls, xy: Floats, ring: Whole, polygon: Whole) -> Self:
        """Rings whose vertices follow each other."""
        first = np.diff(ring, prepend=-1) != 0
        last = np.roll(first, -1)
        here = np.arange(len(xy))
        after, before = here + 1, here - 1
        after[last], before[first] = here[first], here[last]
        return cls(xy, after, before, ring, polygon)

    def polygons(self) -> Objects:
        """The polygons."""
        lengths = np.bincount(self.ring, minlength=len(self.polygon)) + 1
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        closed = np.empty((offsets[-1], 2))
        ends = np.zeros(offsets[-1], dtype=np.bool_)
        ends[offsets[1:] - 1] = True
        closed[~ends], closed[ends] = self.xy, self.xy[np.flatnonzero(np.diff(self.ring, prepend=-1))]
        parts = np.concatenate([[0], np.cumsum(np.bincount(self.polygon))])
        return shapely.from_ragged_array(shapely.GeometryType.POLYGON, closed, (offsets, parts))

    def noded(self) -> Self:
        """With the vertices of all rings on each edge along an axis on which they lie."""
        every = np.arange(len(self.xy))
        owner, position, added = [every], [np.zeros(len(every))], [self.xy]
        for along, across in ((0, 1), (1, 0)):
            edge, points = _on_edges(self.xy[:, along], self.xy[:, across], self.xy[self.after], along, across)
            xy = np.empty((len(edge), 2))
            xy[:, along], xy[:, across] = points, self.xy[edge, across]
            owner.append(edge)
            position.append(np.abs(points - self.xy[edge, along]))
            added.append(xy)
        order = np.lexsort((np.concatenate(position), np.concatenate(owner)))
        return self.linked(np.concatenate(added)[order], self.ring[np.concatenate(owner)[order]], self.polygon)

    def free(self) -> Flags:
        """(V,): where all rings that have a vertex go on to the same two."""
        x, y = (np.unique(self.xy[:, axis], return_inverse=True)[1].astype(np.int64) for axis in (0, 1))
        point = np.unique(x * len(y) + y, return_inverse=True)[1]
        a, b = point[self.before], point[self.after]
        pair = np.minimum(a, b) * np.int64(len(point) + 1) + np.maximum(a, b)
        order = np.argsort(point, kind="stable")
        starts = np.flatnonzero(np.diff(point[order], prepend=-1))
        alike = np.minimum.reduceat(pair[order], starts) == np.maximum.reduceat(pair[order], starts)
        return alike[point]


def _on_edges(along: Floats, across: Floats, ends: Floats, axis: int, other: int) -> tuple[Whole, Floats]:
    """(edge, place along it) of all vertices that lie strictly within an edge along an axis, each once."""
    places, place = np.unique(along, return_inverse=True)
    line = np.unique(across, return_inverse=True)[1]
    keys = np.sort(line.astype(np.int64) * len(places) + place)
    keys = keys[np.diff(keys, prepend=-1) != 0]
    edges = np.flatnonzero((ends[:, other] == across) & (ends[:, axis] != along))
    end = np.asarray(np.searchsorted(places, ends[edges, axis]), dtype=np.int64)
    start, row = place[edges], line[edges].astype(np.int64) * len(places)
    low = np.searchsorted(keys, row + np.minimum(start, end), side="right")
    high = np.searchsorted(keys, row + np.maximum(start, end), side="left")
    count = high - low
    within = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(edges, count), places[keys[np.repeat(low, count) + within] % len(places)]


def smooth(polygons: Objects, pixel: tuple[float, float]) -> Objects:
    """Cut the corners of pixels of `pixel` level-0 pixels (x, y), half a pixel along each edge, so that steps vanish.

    Outlines stay valid: no two corners of pixels are nearer to each other than what is cut from both.
    """
    rings = _Rings.of(polygons).noded()
    free = rings.free()
    cut: list[Floats] = []
    for neighbour in (rings.xy[rings.before], rings.xy[rings.after]):
        step = neighbour - rings.xy
        share = np.asarray(pixel) / 2 / np.maximum(np.abs(step), np.finfo(float).tiny)
        share = np.where(np.abs(step) > 0, share, np.inf).min(axis=1, keepdims=True)
        cut.append(np.where(share < 0.5, rings.xy + step * share, (rings.xy + neighbour) / 2))
    one, two = cut[0] - rings.xy, cut[1] - rings.xy
    straight = one[:, 0] * two[:, 1] == one[:, 1] * two[:, 0]
    both = np.stack([np.where(free[:, None], cut[0], rings.xy), np.where(free[:, None], cut[1], rings.xy)], axis=1)
    keep = np.stack([np.ones(len(free), np.bool_), free & ~straight], axis=1)
    both[straight, 0] = rings.xy[straight]
    xy, ring = both[keep], np.repeat(rings.ring, keep.sum(axis=1))
    made = _Rings.linked(xy, ring, rings.polygon)
    double = (made.xy == made.xy[made.before]).all(axis=1)
    return _Rings.linked(xy[~double], ring[~double], rings.polygon).polygons()


def simplify(polygons: Objects, tolerance: float, pixel: tuple[float, float]) -> Objects:
    """Leave out vertices of polygons (N,) that do not overlap, so that those that share a border still do.

    A vertex goes where the triangle with its neighbours is smaller than the square of `tolerance`, in pixels of `pixel`
    level-0 pixels (x, y): the method of Visvalingam & Whyatt 1993, as GEOS has it for coverages.
    """
    noded = _Rings.of(polygons).noded()
    if pixel[0] == pixel[1]:
        return shapely.coverage_simplify(noded.polygons(), tolerance * pixel[0])
    scaled = replace(noded, xy=noded.xy / pixel).polygons()
    return shapely.transform(shapely.coverage_simplify(scaled, tolerance), lambda xy: xy * pixel)
