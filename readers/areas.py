"""Areas on the ground, on the ellipsoid of an image's CRS.

Areas are those of polygons whose edges are straight in pixel space, not geodesics between their vertices. The area of a
pixel is |∂P/∂x × ∂P/∂y| of its geocentric position P (the surface element of differential geometry); small polygons
have that at their centroid times their pixels. Wide ones have the area of geodesic polygons through points on their
edges, and those of a plain geographic CRS the closed form of the zone between two parallels (Snyder 1987, Map
Projections: A Working Manual, eq. 3-12).
"""
# shapely and pyproj leave their functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from .geodesy import METRES, Ellipsoid, Values, ellipsoid_of, tangents
from .geometry import Placement, Points

Index = npt.NDArray[np.intp]
Geometries = Sequence[BaseGeometry] | npt.NDArray[np.object_]

POLYGON: Final = 3
"""shapely's type number of a polygon; types above it are collections."""

_FLAT: Final = 3000.0  # metres: for smaller polygons the area element at the centroid is right to 1e-7
_PIECES: Final = (64, 4000, 1 << 18)  # an edge as long as the polygon is cut into: at first, at least, at most
_PIECE: Final = 250.0  # metres, between the first two
_CONVERGED: Final = 1e-7  # relative change of an area when its pieces are halved
_ROUNDING: Final = 2e-7  # m² per vertex
_WIDEST: Final = 1e7  # metres: wider polygons may cover more than half of the globe, and are cut


def _pixel_m2(placement: Placement, xy: Points) -> Values:
    """Area in m² of a pixel's parallelogram at level-0 points (N, 2), where the placement has a unit."""
    vectors = tangents(placement, xy)
    if vectors is None:
        msg = "a placement without a physical unit has no areas"
        raise ValueError(msg)
    x, y = vectors[:, 0], vectors[:, 1]
    gram = (x * x).sum(axis=1) * (y * y).sum(axis=1) - (x * y).sum(axis=1) ** 2
    return np.sqrt(np.maximum(gram, 0.0))


def areas_m2(
    geometries: Geometries, placement: Placement, centroids: npt.NDArray[np.object_] | None = None
) -> Values | None:
    """Areas (N,) in m² of shapely geometries in level-0 pixels, on the CRS's own ellipsoid.

    Holes are subtracted; points and lines have no area. Right to 1e-6 (tested against densified geodesic polygons,
    Karney 2013). NaN for a geometry that leaves the map; None where the placement has no physical unit. The area of a
    geometry does not depend on the others of the call, bit for bit. Centroids (N,), shapely's, are not made again where
    they are known.
    """
    shapes = np.asarray(geometries, dtype=object)
    if tangents(placement, []) is None:
        return None
    ellipsoid = ellipsoid_of(placement)
    on_plane = ellipsoid is None or ellipsoid.is_plane
    if ellipsoid is not None and not on_plane and ellipsoid.geodetic is None and placement.warp is None:
        return _zonal_areas(shapes, placement, ellipsoid)
    areas = np.asarray(shapely.area(shapes), dtype=np.float64)
    solid = areas > 0
    if placement.warp is None and on_plane:
        areas[solid] *= _pixel_m2(placement, np.zeros((1, 2)))
        return areas
    small = solid & _is_small(np.asarray(shapely.bounds(shapes), dtype=np.float64), placement, ellipsoid)
    centres = shapely.centroid(shapes[small]) if centroids is None else centroids[small]
    areas[small] *= _pixel_m2(placement, shapely.get_coordinates(centres))
    wide = np.flatnonzero(solid & ~small)
    ring_area = _ring_area(placement, ellipsoid)
    scale = np.linalg.norm(np.asarray(placement.matrix)[:, :2], axis=0)
    unit = METRES[placement.unit] if ellipsoid is None else ellipsoid.metres
    areas[wide] = [polygon_area(shape, ring_area, float(scale.max()) * unit) for shape in shapes[wide]]
    return areas


def _is_small(bounds: Values, placement: Placement, ellipsoid: Ellipsoid | None) -> npt.NDArray[np.bool_]:
    """Whether what has these bounds (N, 4) is flat on the ground, as far as its area is concerned."""
    scale = np.linalg.norm(np.asarray(placement.matrix)[:, :2], axis=0)
    unit = METRES[placement.unit] if ellipsoid is None else ellipsoid.metres
    sides = (bounds[:, 2:] - bounds[:, :2]) * scale
    return np.asarray(unit * np.hypot(sides[:, 0], sides[:, 1]) <= _FLAT)


def area_m2(geometry: BaseGeometry, placement: Placement) -> float | None:
    """Area in m² of one shapely geometry in level-0 pixels, as `areas_m2`; None where it is unknown."""
    areas = areas_m2([geometry], placement)
    return None if areas is None or np.isnan(areas[0]) else float(areas[0])


def box_areas_m2(boxes: npt.ArrayLike, placement: Placement) -> Values | None:
    """Areas (N,) in m² of boxes (N, 4) = x0, y0, x1, y1 in level-0 pixels, as `areas_m2`."""
    bounds = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    x0, y0, x1, y1 = bounds.T
    ellipsoid = ellipsoid_of(placement)
    zonal = ellipsoid is not None and not ellipsoid.is_plane and ellipsoid.geodetic is None
    known, areas = tangents(placement, []) is not None, (x1 - x0) * (y1 - y0)
    if known and not zonal and bool((areas > 0).all()) and bool(_is_small(bounds, placement, ellipsoid).all()):
        return areas * _pixel_m2(placement, (bounds[:, :2] + bounds[:, 2:]) / 2)  # many boxes, without their outlines
    return areas_m2(np.asarray(shapely.box(x0, y0, x1, y1), dtype=object), placement)


def _zonal_areas(shapes: npt.NDArray[np.object_], placement: Placement, ellipsoid: Ellipsoid) -> Values:
    """∮ zone_area(latitude) dλ around each geometry's rings, for pixels that are affine in longitude and latitude."""
    owner, start, end = polygon_edges(shapes)
    start, end = (ellipsoid.lonlat(placement.to_world(points)) for points in (start, end))
    along = end[:, 0] - start[:, 0]
    rise = end[:, 1] - start[:, 1]
    zone = ellipsoid.zone_area(start[:, 1])
    oblique = np.logical_and(along, rise)  # both are other than 0
    nodes, weights = np.polynomial.legendre.leggauss(16)  # enough for an edge of any length, the zone being analytic
    lat = start[oblique, 1, None] + rise[oblique, None] * (nodes + 1.0) / 2.0
    zone[oblique] = (ellipsoid.zone_area(lat) * weights).sum(axis=1) / 2.0
    return np.abs(np.bincount(owner, weights=zone * along, minlength=len(shapes)))


def _ring_area(placement: Placement, ellipsoid: Ellipsoid | None) -> Callable[[Points], float]:
    """A function for the signed area in m² of a ring of level-0 pixels (N, 2): geodesic, or on a plane."""
    geod = None
    if ellipsoid is not None and not ellipsoid.is_plane:
        import pyproj

        geod = pyproj.Geod(a=ellipsoid.axis, es=ellipsoid.eccentricity2)
    metres = METRES[placement.unit] if ellipsoid is None else ellipsoid.metres

    def area(xy: Points) -> float:
        world = placement.to_world(xy)
        if ellipsoid is None or geod is None:
            x, y = (world - world[0]).T * metres
            return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2.0
        lonlat = np.degrees(ellipsoid.lonlat(world))
        return float(geod.polygon_area_perimeter(*lonlat.T)[0]) if np.isfinite(lonlat).all() else np.nan

    return area


def polygon_area(geometry: BaseGeometry, ring_area: Callable[[Points], float], metres: float) -> float:
    """Area in m² of a polygonal geometry whose straight edges are curved on the ground.

    ring_area: the signed area in m² of a closed ring of points (N, 2).
    metres: approximate size of the geometry's unit.

    Edges are cut until the area converges; the error of a piece falls with the square of its length and is extrapolated
    (Richardson 1911). Relative error about 1e-8 for kilometres; rounding of geodesic areas costs some 1e-7 m² a vertex.
    NaN for a vertex off the map, and where the area does not converge.
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
        if abs(area - before) <= _CONVERGED * area + _ROUNDING * points:
            return area + (area - before) / 3.0
        step, before, count = step / 2.0, area, points
    return math.nan


def polygon_edges(geometries: npt.NDArray[Any]) -> tuple[Index, Points, Points]:
    """Directed edges of all polygons in geometries (N,): exterior rings in one direction, interior ones in the other.

    Returns the index of each edge's geometry (E,), and its start and end (E, 2). Points and lines have no edges.
    """
    rings, owner = _rings(geometries)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    inside = np.flatnonzero(ring[1:] == ring[:-1])
    return owner[ring[inside]], points[inside], points[inside + 1]


def _rings(geometries: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Index]:
    """The rings of all polygons in geometries (N,), however nested, and the index of each ring's geometry."""
    parts, owner = geometries, np.arange(len(geometries))
    while (shapely.get_type_id(parts) > POLYGON).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    solid = shapely.get_type_id(parts) == POLYGON
    rings, index = shapely.get_rings(shapely.orient_polygons(parts[solid]), return_index=True)
    return rings, owner[solid][index]
