"""Vertices added to outlines, so that edges that are straight in pixels follow the ground in longitude and latitude."""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from .areas import Geometries
from .geodesy import Values, lonlat_or_nan, to_lonlat
from .geometry import Placement, Points

_HALVINGS: Final = 12
_SHORT: Final = 4.0  # pixels
_PROBE: Final = 32.0  # pixels: the length of edges that are tried for all others, where there are many points
_TRIED: Final = 5000
_SAFETY: Final = 16.0
_POLAR: Final = 75.0  # degrees of latitude
_QUARTER_TURN: Final = 90.0  # degrees


def densify_all(geometries: Geometries, placement: Placement, tolerance_px: float = 0.05) -> npt.NDArray[np.object_]:
    """Add vertices to geometries (N,) in level-0 pixels, so that they can be mapped to longitude and latitude.

    Each straight pixel edge then stays within `tolerance_px` pixels of the straight line in longitude and latitude
    between its mapped vertices, and no piece spans more than a quarter turn of longitude. Existing vertices stay. Edges
    of up to 4 px are left alone, which matters only within some 40 px of a pole. An edge is cut into at most 4096
    pieces, which only one through a pole needs. Raises `ReadError` as `to_lonlat` does.
    """
    to_lonlat(placement, np.empty((0, 2)))  # raises where there is none
    shapes = np.array(geometries, dtype=object)
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    long = long_edges(points, owner, _straight_length(points, placement, tolerance_px))
    curved = long[_deviation(points[long], points[long + 1], placement) > tolerance_px]
    for index in np.unique(owner[curved]):
        shapes[index] = _densified(shapes[index], placement, tolerance_px)
    return shapes


def long_edges(points: Points, owner: npt.NDArray[np.intp], length: float) -> npt.NDArray[np.intp]:
    """The places of vertices (N, 2) that are farther than `length` from the next one of the same owner (N,).

    The rings of a polygon count as joined, so that there may be some in vain.
    """
    x, y = np.diff(points, axis=0).T
    return np.flatnonzero((x * x + y * y > length * length) & (owner[1:] == owner[:-1]))


def densify(geometry: BaseGeometry, placement: Placement, tolerance_px: float = 0.05) -> BaseGeometry:
    """Add vertices to one geometry, as `densify_all`."""
    return densify_all([geometry], placement, tolerance_px)[0]


def _densified(geometry: Any, placement: Placement, tolerance_px: float) -> Any:
    if isinstance(geometry, shapely.Polygon):
        shell, *holes = _dense_lines(shapely.get_rings(geometry), placement, tolerance_px)
        return shapely.Polygon(shell, holes)
    if isinstance(geometry, shapely.LineString):
        return shapely.LineString(_dense_lines([geometry], placement, tolerance_px)[0])
    if shapely.get_dimensions(geometry) < 1:
        return geometry
    return type(geometry)([_densified(part, placement, tolerance_px) for part in geometry.geoms])


def _dense_lines(lines: Geometries, placement: Placement, tolerance_px: float) -> list[Points]:
    """The vertices of each line with its edges halved until every piece is within the tolerance."""
    points, line = shapely.get_coordinates(lines, return_index=True)
    edge = np.flatnonzero(line[1:] == line[:-1])
    low, high = np.zeros(len(edge)), np.ones(len(edge))
    places = [np.arange(len(points), dtype=np.float64)]  # edge number + share of the edge
    for _ in range(_HALVINGS):
        start, along = points[edge], points[edge + 1] - points[edge]
        curved = _deviation(start + along * low[:, None], start + along * high[:, None], placement) > tolerance_px
        if not curved.any():
            break
        edge, low, high = edge[curved], low[curved], high[curved]
        middle = (low + high) / 2.0
        places.append(edge + middle)
        edge, low, high = np.tile(edge, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
    place = np.sort(np.concatenate(places))
    first = np.minimum(np.floor(place).astype(np.intp), len(points) - 2)
    dense = points[first] + (points[first + 1] - points[first]) * (place - first)[:, None]
    dense[-1] = points[-1]
    of = line[np.floor(place).astype(np.intp)]
    return np.split(dense, np.flatnonzero(np.diff(of)) + 1)


def _straight_length(points: Points, placement: Placement, tolerance_px: float) -> float:
    """A length in pixels up to which edges around these points (N, 2) are surely straight enough, at least 4.

    Edges in four directions are tried on a grid over the points' bounding box. The deviation grows with the square of
    the length, and by much less than the `_SAFETY` from one point of the grid to the next, unless a pole or the edge of
    the map is near: where that may be, and on images with control points, every edge has to be tried.
    """
    if len(points) < _TRIED or placement.warp is not None:
        return _SHORT
    least, most = np.array([(axis.min(), axis.max()) for axis in points.T]).T  # much faster than along an axis of two
    middle = least + np.indices((9, 9)).reshape(2, -1).T[:, None] / 8 * (most - least)
    along = np.array([(1, 0), (0, 1), (0.7, 0.7), (0.7, -0.7)]) * _PROBE / 2
    start, end = (middle - along).reshape(-1, 2), (middle + along).reshape(-1, 2)
    lat = lonlat_or_nan(placement, np.concatenate([start, end]))[:, 1]
    if not (np.abs(lat).max() < _POLAR and np.ptp(lat) < _POLAR / 2):  # also for NaN
        return _SHORT
    worst = float(_deviation(start, end, placement).max())
    return max(_SHORT, _PROBE * min(8.0, math.sqrt(tolerance_px / max(_SAFETY * worst, 1e-12))))


def _deviation(start: Points, end: Points, placement: Placement) -> Values:
    """Distance (N,) in pixels of edges from the straight line in longitude and latitude between their ends.

    Measured at three points, so that neither a bow nor an S is missed. Infinite for more than a quarter turn.
    """
    along = end - start
    length = np.hypot(along[:, 0], along[:, 1])
    result = np.zeros(len(start))
    long = np.flatnonzero(length > _SHORT)
    start, along, length = start[long, None], along[long, None], length[long, None, None]
    t = np.array([0.0, 0.25, 0.5, 0.75, 1.0])[:, None]
    on = start + along * t
    off = on[:, 2:3] + np.stack([-along[..., 1], along[..., 0]], axis=-1) / length  # a pixel beside the middle
    lonlat, beside = (lonlat_or_nan(placement, xy.reshape(-1, 2)).reshape(xy.shape) for xy in (on, off))
    lonlat[..., 0] = np.unwrap(lonlat[..., 0], period=360.0)
    chord = lonlat[:, -1:] - lonlat[:, :1]
    stray = lonlat - (lonlat[:, :1] + chord * t)
    pixel = beside - lonlat[:, 2:3]
    pixel[..., 0] = (pixel[..., 0] + 180.0) % 360.0 - 180.0
    with np.errstate(invalid="ignore", divide="ignore"):  # at a pole
        distance = np.abs(_cross(chord, stray) / _cross(chord, pixel))
    worst = np.fmax.reduce(distance[:, 1:-1], axis=1, initial=0.0)
    worst[np.abs(chord[:, 0, 0]) > _QUARTER_TURN] = np.inf
    result[long] = worst
    return result


def _cross(a: Points, b: Points) -> Values:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
