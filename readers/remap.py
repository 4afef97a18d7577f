"""Outlines of one image laid on another: vertices are mapped, and added where an edge would bend.

Mapped vertices are rounded to 2^-20 pixels, so that grids that have pixel corners in common also have equal numbers
there: overlays of such outlines then have no slivers of rounding errors.
"""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from .annotations import lonlat_bounds
from .areas import POLYGON, polygon_edges
from .errors import RequestError
from .geodesy import from_lonlat, on_earth, parse_crs, to_lonlat
from .geometry import Placement, Points
from .image import ImageInfo

Shapes = npt.NDArray[np.object_]

TOLERANCE: Final = 1e-4
"""Pixels between a mapped edge and the straight edge that stands for it."""

STEP: Final = 2.0**-20
"""Pixels to which mapped vertices are rounded."""

_ROUNDS: Final = 6


@dataclass(frozen=True, slots=True)
class PixelMapping:
    """The way from the level-0 pixels of one image to those of another."""

    points: Callable[[Points], Points]
    """Maps pixels (N, 2). Raises `ReadError` where the other image's CRS is not defined."""
    straight: bool
    """Whether straight edges stay straight."""

    def __call__(self, shapes: Shapes) -> Shapes:
        """Outlines (N,) of the one image on the other, valid, to within `TOLERANCE`."""
        dense = shapes if self.straight else _dense(shapes, self.points)
        return snapped(shapely.transform(dense, self.points))


def pixel_mapping(source: ImageInfo, target: ImageInfo) -> PixelMapping:
    """The mapping from `source` to `target`. Raises `RequestError` where the two have no place in common."""
    a, b = source.placement, target.placement
    if a == b:
        return PixelMapping(lambda xy: xy, straight=True)
    if a.crs and b.crs and same_crs(a.crs, b.crs):
        return PixelMapping(lambda xy: b.to_pixel(a.to_world(xy)), straight=a.warp is None and b.warp is None)
    if on_earth(a) and on_earth(b):
        return PixelMapping(_by_degrees(a, target), straight=False)
    raise RequestError(
        f"{source.id} and {target.id}",
        "must lie in one coordinate reference system, or both on the Earth",
        value=" and ".join(parse_crs(one.crs).name if one.crs else "none" for one in (a, b)),
        remedy="State the CRS with --crs when the images are run",
    )


def same_crs(first: str, second: str) -> bool:
    """Whether two CRSs, in any notation of PROJ, are the same but for the order in which axes are written."""
    return first == second or parse_crs(first).equals(parse_crs(second), ignore_axis_order=True)


def snapped(shapes: Shapes) -> Shapes:
    """Polygons (N,) with vertices rounded to `STEP`, valid; empty where nothing is left."""
    rounded = np.asarray(shapely.transform(shapes, lambda xy: np.round(xy / STEP) * STEP), dtype=object)
    broken = np.flatnonzero(~shapely.is_valid(rounded))
    for place in broken.tolist():
        rounded[place] = polygonal(np.asarray([shapely.make_valid(rounded[place])], dtype=object))[0]
    return rounded


def polygonal(shapes: Shapes) -> Shapes:
    """Results of overlays (N,) without their points and lines: polygons and multipolygons, or empty."""
    kinds = shapely.get_type_id(shapes)
    mixed = np.flatnonzero((kinds != POLYGON) & (kinds != 6))
    if not len(mixed):
        return shapes
    result = shapes.copy()
    for place in mixed.tolist():
        parts = shapely.get_parts(shapes[place])
        while (shapely.get_type_id(parts) > POLYGON).any():
            parts = shapely.get_parts(parts)
        result[place] = shapely.union_all(parts[shapely.get_type_id(parts) == POLYGON])
        if shapely.is_empty(result[place]):
            result[place] = shapely.Polygon()
    return result


def _by_degrees(source: Placement, target: ImageInfo) -> Callable[[Points], Points]:
    """By longitude and latitude; where the target's longitudes may run beyond ±180, those nearest to its middle."""
    west, _, east, _ = lonlat_bounds(target)
    middle = (west + east) / 2 if target.placement.unit == "deg" else None

    def mapped(xy: Points) -> Points:
        lonlat = to_lonlat(source, xy)
        if middle is not None:
            lonlat[:, 0] = middle + (lonlat[:, 0] - middle + 180.0) % 360.0 - 180.0
        return from_lonlat(target.placement, lonlat)

    return mapped


def _dense(shapes: Shapes, mapping: Callable[[Points], Points]) -> Any:
    """Polygons with vertices added until the middle of each mapped edge is within the tolerance of the straight one."""
    dense = np.array(shapes, dtype=object)
    for _ in range(_ROUNDS):
        owner, start, end = polygon_edges(dense)
        if not len(owner):
            return dense
        ends, middle = mapping(np.concatenate([start, end])), mapping((start + end) / 2)
        off = np.hypot(*(middle - (ends[: len(start)] + ends[len(start) :]) / 2).T)
        if not (off > TOLERANCE).any():
            return dense
        pieces = np.ceil(np.sqrt(np.maximum(off / TOLERANCE, 1.0)) * 1.1)  # a bow shrinks with the square of its length
        longest = np.full(len(dense), np.inf)
        np.minimum.at(longest, owner, np.where(off > TOLERANCE, np.hypot(*(end - start).T) / pieces, np.inf))
        bent = np.flatnonzero(np.isfinite(longest))
        dense[bent] = shapely.segmentize(dense[bent], longest[bent])
    return dense
