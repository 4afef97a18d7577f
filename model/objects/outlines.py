"""Outlines of pixel edges in whole grid pixels: drawing them, packing them side by side, and their perimeters."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import shapely

from ...readers.regions import Grid
from ..findings_table import Flags, Objects

Whole = npt.NDArray[np.int64]
Numbered = npt.NDArray[np.int32]

_ISOTROPIC: Final = np.pi * (1 + np.sqrt(2)) / 8
"""The mean ratio of a smooth outline's length to that of steps of 0°, 45° and 90° along it (Kulpa 1977)."""

POLYGON: Final = 3
"""Shapely's type number."""

_ALIGNED: Final = 1e-3  # grid pixels from a line that count as none

_CHUNK: Final = 1 << 22  # rows of edges that are numbered at a time


@dataclass(frozen=True, slots=True)
class Outlines:
    """Polygons of pixel edges: exteriors and holes run in opposite directions."""

    xy: Whole
    """(V, 2) vertices in grid pixels; each ring ends with its first one."""
    ring: Whole
    """(V,) the ring of each vertex."""
    polygon: Whole
    """(V,) the polygon of each vertex."""
    count: int

    @classmethod
    def of(cls, polygons: Objects, grid: Grid) -> Self:
        """The outlines of polygons (N,) in level-0 pixels, on the grid on which they were traced."""
        turned = shapely.orient_polygons(shapely.transform(polygons, grid.from_level0))
        rings, owner = shapely.get_rings(turned, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        return cls(np.rint(xy).astype(np.int64), ring.astype(np.int64), owner.astype(np.int64)[ring], len(polygons))

    @property
    def bounds(self) -> Whole:
        """(N, 4) x0, y0, x1, y1 of each polygon; none may be empty."""
        starts = np.flatnonzero(np.diff(self.polygon, prepend=-1))
        low, high = np.minimum.reduceat(self.xy, starts), np.maximum.reduceat(self.xy, starts)
        return np.concatenate([low, high], axis=1)

    @property
    def _edges(self) -> Whole:
        """The first vertex of each edge."""
        return np.flatnonzero(self.ring[:-1] == self.ring[1:])

    def perimeters(self) -> npt.NDArray[np.float64]:
        """(N,) the length in grid pixels of a smooth outline through the middles of the edges of pixels.

        Steps along it are 1 or √½ long. Their sum is too long for outlines that run in other directions, on the average
        by a factor that is taken out (Kulpa 1977, Area and perimeter measurement of blobs in discrete binary pictures).
        """
        first = self._edges
        lengths = np.abs(self.xy[first + 1] - self.xy[first]).sum(axis=1)
        steps = lengths - 1 + np.sqrt(0.5)
        return np.bincount(self.polygon[first], steps, minlength=self.count) * _ISOTROPIC

    def areas(self) -> npt.NDArray[np.float64]:
        """(N,) grid pixels within, without holes."""
        first = self._edges
        (x0, y0), (x1, y1) = self.xy[first].T, self.xy[first + 1].T
        return np.abs(np.bincount(self.polygon[first], x0 * y1 - x1 * y0, minlength=self.count)) / 2

    def draw(
        self,
        numbers: Numbered,
        shift: Whole,
        shape: tuple[int, int],
        chosen: npt.NDArray[np.intp] | slice = slice(None),
    ) -> Numbered:
        """A map (H, W) with the number of the polygon that covers each pixel, 0 elsewhere; polygons must not overlap.

        `numbers` (N,) and `shift` (N, 2), which is added to the vertices, are those of each polygon; `chosen` are the
        polygons to draw. What lies outside of the map is cut off.
        """
        first = self._edges
        first = first[(self.xy[first, 0] == self.xy[first + 1, 0])]
        numbered = np.zeros(self.count, dtype=np.bool_)
        numbered[chosen] = True
        first = first[numbered[self.polygon[first]]]
        of = self.polygon[first]
        x = np.clip(self.xy[first, 0] + shift[of, 0], 0, None)
        start, stop = (np.clip(self.xy[at, 1] + shift[of, 1], 0, shape[0]) for at in (first, first + 1))
        return _filled(x, start, stop, numbers[of], shape)


def _filled(x: Whole, start: Whole, stop: Whole, number: Numbered, shape: tuple[int, int]) -> Numbered:
    """A map (H, W) of areas by the number of each of their upright edges (E,), which lie in it or right of it."""
    height, width = shape
    value = np.where(stop < start, number, -number).astype(np.int32)
    top, length = np.minimum(start, stop), np.where(x < width, np.abs(stop - start), 0)
    canvas = np.zeros((height, width), dtype=np.int32)
    cuts = np.flatnonzero(np.diff(np.cumsum(length) // _CHUNK, prepend=-1)).tolist()
    for a, b in pairwise([*cuts, len(x)]):
        runs = length[a:b]
        within = np.arange(int(runs.sum()), dtype=np.int64) - np.repeat(np.cumsum(runs) - runs, runs)
        flat = (np.repeat(top[a:b], runs) + within) * width + np.repeat(x[a:b], runs)
        np.add.at(canvas.reshape(-1), flat, np.repeat(value[a:b], runs))
    return np.cumsum(canvas, axis=1, out=canvas)


@dataclass(frozen=True, slots=True)
class UprightEdges:
    """What drawing areas of pixels needs, in few bytes: their upright edges, in whole grid pixels."""

    x: Numbered
    """(E,)."""
    start: Numbered
    """(E,): the y where each begins, the larger one on the left of an area."""
    stop: Numbered
    row: Numbered
    """(E,): the row of its area."""

    @classmethod
    def of(cls, shapes: Objects, rows: npt.NDArray[np.intp], grid: Grid) -> Self:
        """Those of shapes (N,) in level-0 pixels, on these rows; without those that do not follow pixels."""
        solid = np.flatnonzero(shapely.get_type_id(shapes) == POLYGON)
        if not len(solid):
            return cls(*np.zeros((4, 0), dtype=np.int32))
        _, xy, (ends, parts) = shapely.to_ragged_array(shapes[solid], include_z=False)
        whole, apart = np.empty((len(xy), 2), dtype=np.int32), np.empty(len(xy), dtype=np.bool_)
        for begin in range(0, len(xy), _CHUNK >> 4):
            here = slice(begin, begin + (_CHUNK >> 4))
            pixels = grid.from_level0(xy[here])
            whole[here] = np.rint(pixels)
            apart[here] = np.any(np.abs(pixels - whole[here]) > _ALIGNED, axis=1)
        del xy
        x, y = whole.T
        within = np.ones(len(whole) - 1, dtype=np.bool_)
        within[ends[1:-1] - 1] = False  # from one ring to the next
        upright = within & (x[1:] == x[:-1])
        apart[:-1] |= within & ~upright & (y[1:] != y[:-1])
        bad = np.logical_or.reduceat(apart, ends[parts[:-1]])
        strips = np.where(within, x[:-1] * np.diff(y).astype(np.int64), 0)
        holes = np.ones(len(ends) - 1, dtype=np.bool_)
        holes[parts[:-1]] = False
        turned = (np.add.reduceat(strips, ends[:-1]) > 0) == holes
        ring = np.repeat(np.arange(len(holes), dtype=np.int32), np.diff(ends))[:-1]
        of = np.repeat(np.arange(len(solid), dtype=np.int32), np.diff(parts))
        first = np.flatnonzero(upright & ~bad[of[ring]])
        ring = ring[first]
        begin, end = first + turned[ring], first + ~turned[ring]
        return cls(x[first], y[begin], y[end], rows[solid[of[ring]]].astype(np.int32))

    def and_more(self, others: Self, kept: Flags) -> Self:
        """Those whose row is to be kept, and others."""
        here = kept[self.row]
        names = ("x", "start", "stop", "row")
        columns = [(getattr(self, name)[here], getattr(others, name)) for name in names]
        return type(self)(*map(np.concatenate, columns))

    def draw(self, box: tuple[int, int, int, int]) -> tuple[Numbered, npt.NDArray[np.int32]]:
        """A map (H, W) of a box (x0, y0, x1, y1) with a number from 1 on for each area, 0 elsewhere; and their rows."""
        x0, y0, x1, y1 = box
        here = np.flatnonzero(
            (np.maximum(self.start, self.stop) > y0) & (np.minimum(self.start, self.stop) < y1) & (self.x < x1)
        )
        start, stop = (np.clip(at[here], y0, y1).astype(np.int64) - y0 for at in (self.start, self.stop))
        x = np.maximum(self.x[here], x0).astype(np.int64) - x0
        rows, place = np.unique(self.row[here], return_inverse=True)
        return _filled(x, start, stop, (place + 1).astype(np.int32), (y1 - y0, x1 - x0)), rows


def follow_pixels(shapes: Objects, grid: Grid) -> Flags:
    """(N,): which shapes are polygons whose edges lie on lines of the grid, as those that were traced on it are."""
    found: Flags = np.equal(shapely.get_type_id(shapes), POLYGON, dtype=np.bool_)
    rings, owner = shapely.get_rings(shapes[found], return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    pixels = grid.from_level0(xy)
    whole = np.rint(pixels)
    apart: Flags = np.any(np.abs(pixels - whole) > _ALIGNED, axis=1)
    first = np.flatnonzero(ring[:-1] == ring[1:])
    apart[first] |= np.all(whole[first] != whole[first + 1], axis=1)
    found[np.flatnonzero(found)[np.unique(owner[ring[apart]])]] = False
    return found


def pack(sizes: Whole, width: int) -> tuple[Whole, tuple[int, int]]:
    """Places (N, 2) of boxes (N, 2) of (width, height) side by side in rows, a pixel apart; and the map's (H, W).

    A pixel around everything is free. Rows are `width` long, or as long as the longest box.
    """
    width = max(width, int(sizes[:, 0].max()) + 2)
    places = np.empty_like(sizes)
    x, y, highest = 1, 1, 0
    for i in np.argsort(-sizes[:, 1], kind="stable").tolist():
        across, down = sizes[i].tolist()
        if x + across + 1 > width:
            x, y, highest = 1, y + highest + 1, 0
        places[i] = x, y
        x, highest = x + across + 1, max(highest, down)
    return places, (y + highest + 1, width)
