"""The ground under the pixels: true distances and areas on the ellipsoid, and longitudes and latitudes.

Nothing here uses a network: datum shifts use the best transformation whose grids are
on this machine, so two machines may differ by what is installed (a metre or two between old national datums and
WGS84; nothing at all for UTM on WGS84). Distances and areas need no datum shift and are not affected.

How areas are made. Pixel edges are straight in pixel space, and the polygon that is measured is the polygon of those
edges, not of geodesics between its corners. The area of a pixel on the ellipsoid is |∂P/∂x × ∂P/∂y| of its position
P in space (the surface element of any textbook on differential geometry), and a small polygon has as many times that
as it has pixels; a wide one's area is that of geodesics between points on its edges (`polygon_area`). In a plain
geographic CRS it is the closed form of the zone between two parallels (Snyder 1987, Map Projections: A Working Manual,
eq. 3-12).
"""
# shapely and pyproj leave their functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from .crs import parse_crs, transformer
from .errors import ReadError
from .geometry import Placement, Points

Values = npt.NDArray[np.float64]
Geometries = Sequence[BaseGeometry] | npt.NDArray[np.object_]

_METRES: Final = {"um": 1e-6, "mm": 1e-3, "m": 1.0}
_EARTH_RADIUS: Final = 6378137.0
_STENCIL: Final = 100.0  # metres between the points of a difference: its own error is below 1e-10
_FLAT: Final = 3000.0  # metres across: below it the area element at the centroid is right to 1e-7
_HALVINGS: Final = 12
_SHORT: Final = 4.0  # pixels
_QUARTER_TURN: Final = 90.0  # degrees


@dataclass(frozen=True, slots=True)
class _Ground:
    """What a CRS stands on.

    `axis` is the semi-major axis in metres and `eccentricity2` its eccentricity squared; `geodetic` takes the CRS to
    longitude and latitude of its own datum (None where it is already there); `angle` is radians per unit of those.
    `metres` is what a unit of the CRS's own axes is, where it is an angle at the equator. A local (engineering) CRS
    has no ellipsoid: its `axis` is 0.
    """

    axis: float
    eccentricity2: float
    geodetic: pyproj.Transformer | None
    angle: float
    metres: float

    @property
    def flat(self) -> bool:
        """Whether the CRS is a plane that nothing ties to a body."""
        return self.axis == 0.0

    def lonlat(self, world: Points) -> Points:
        """World (N, 2) → longitude and latitude of the CRS's own datum, in radians."""
        if self.geodetic is None:
            return world * self.angle
        lon, lat = self.geodetic.transform(world[:, 0], world[:, 1])
        return np.stack([lon, lat], axis=1) * self.angle

    def in_space(self, world: Points) -> Points:
        """World (N, 2) → geocentric position (N, 3) in metres; NaN where the CRS has no such place."""
        lon, lat = self.lonlat(world).T
        with np.errstate(invalid="ignore"):  # PROJ answers infinity off the map
            normal = self.axis / np.sqrt(1.0 - self.eccentricity2 * np.sin(lat) ** 2)
            across = normal * np.cos(lat)
            return np.stack(
                [across * np.cos(lon), across * np.sin(lon), normal * (1.0 - self.eccentricity2) * np.sin(lat)], axis=1
            )

    def zone(self, lat: Values) -> Values:
        """Area in m² per radian of longitude from the equator to a latitude in radians, which stops at the poles."""
        e2 = self.eccentricity2
        sine = np.sin(np.clip(lat, -np.pi / 2, np.pi / 2))
        if e2 == 0.0:
            return self.axis**2 * sine
        e = np.sqrt(e2)
        return self.axis**2 * (1.0 - e2) / 2.0 * (sine / (1.0 - e2 * sine**2) + np.arctanh(e * sine) / e)


@lru_cache(maxsize=64)
def _ground(wkt: str) -> _Ground:
    crs = parse_crs(wkt)
    derived = crs.is_geographic and crs.is_derived is True  # a rotated pole, say: not yet longitude and latitude
    base = crs.source_crs if derived else crs.geodetic_crs
    unit = float(crs.axis_info[0].unit_conversion_factor)
    if base is None or crs.ellipsoid is None:
        return _Ground(0.0, 0.0, None, 1.0, metres=unit)
    a, b = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
    geodetic = None if crs.is_geographic and not derived else transformer(wkt, crs, base)
    angle = float(base.axis_info[0].unit_conversion_factor)
    return _Ground(a, 1.0 - (b / a) ** 2, geodetic, angle, metres=unit * a if crs.is_geographic else unit)


@lru_cache(maxsize=64)
def _to_wgs84(wkt: str) -> pyproj.Transformer:
    crs = parse_crs(wkt)
    horizontal = crs.sub_crs_list[0] if crs.is_compound else crs  # the grids that heights ask for may be missing
    return transformer(wkt, horizontal, "EPSG:4326")


def on_earth(placement: Placement) -> bool:
    """Whether the placement's CRS stands on the Earth.

    Judged by its ellipsoid: within 0.5 % of WGS84's semi-major axis, the rule by which PROJ tells bodies apart. False
    without a CRS.
    """
    if placement.crs is None:
        return False
    return abs(_ground(placement.crs).axis / _EARTH_RADIUS - 1.0) < 0.005


def _earthly(placement: Placement) -> pyproj.Transformer:
    if placement.crs is None:
        raise ReadError(
            f"placement from {placement.source}",
            "longitude and latitude need a coordinate reference system",
            remedy="Name it with --crs (--crs EPSG:32633, say), or work in pixels",
        )
    if not on_earth(placement):
        ground = _ground(placement.crs)
        raise ReadError(
            f"placement from {placement.source}",
            "WGS84 longitude and latitude exist on the Earth only",
            value=f"{parse_crs(placement.crs).name}, semi-major axis {ground.axis:.0f} m",
            remedy="Use reports in the source CRS (GeoPackage) for other bodies and for local grids",
        )
    return _to_wgs84(placement.crs)


def lonlat_or_nan(placement: Placement, xy: npt.ArrayLike) -> Points:
    """As `to_lonlat`, with NaN for a pixel that is not on the map (space around the Earth's disc, say)."""
    transformer = _earthly(placement)
    world = placement.to_world(xy)
    lonlat = np.stack(transformer.transform(world[:, 0], world[:, 1]), axis=1)
    lonlat[~np.isfinite(lonlat).all(axis=1)] = np.nan
    beyond = np.abs(lonlat[:, 0]) > 180.0
    lonlat[beyond, 0] = (lonlat[beyond, 0] + 180.0) % 360.0 - 180.0
    return lonlat


def to_lonlat(placement: Placement, xy: npt.ArrayLike) -> Points:
    """Level-0 pixels (N, 2) → WGS84 longitude and latitude in degrees (N, 2), longitude within ±180.

    Raises `ReadError` where there is no CRS, the CRS is not on the Earth, or a pixel is not on the map.
    """
    lonlat = lonlat_or_nan(placement, xy)
    lost = np.isnan(lonlat).any(axis=1)
    if lost.any():
        raise ReadError(
            f"placement from {placement.source}",
            "every pixel that is asked for must lie on the Earth",
            value=f"pixel {np.asarray(xy, dtype=np.float64).reshape(-1, 2)[lost][0].tolist()} does not",
            remedy="Limit the work to the part of the picture that shows ground, with an area of interest",
        )
    return lonlat


def from_lonlat(placement: Placement, lonlat: npt.ArrayLike) -> Points:
    """WGS84 longitude and latitude in degrees (N, 2) → level-0 pixels (N, 2): the inverse of `to_lonlat`.

    In a picture whose longitudes run beyond ±180, add the whole turn in degrees yourself: nothing here knows how wide
    the picture is. Raises `ReadError` as `to_lonlat` does, and where the CRS cannot hold the point.
    """
    transformer = _earthly(placement)
    points = np.asarray(lonlat, dtype=np.float64).reshape(-1, 2)
    world = np.stack(transformer.transform(points[:, 0], points[:, 1], direction="INVERSE"), axis=1)
    if not np.isfinite(world).all():
        raise ReadError(
            f"placement from {placement.source}",
            "every point must lie where the picture's CRS is defined",
            value=f"longitude, latitude {points[~np.isfinite(world).all(axis=1)][0].tolist()}",
            remedy="Keep coordinates near the picture",
        )
    return placement.to_pixel(world)


def tangents(placement: Placement, xy: npt.ArrayLike) -> Values | None:
    """Metres of ground per pixel along pixel x and y at level-0 pixels (N, 2), as vectors: (N, 2, 2 or 3).

    Five-point central differences of the position in space over about 400 m (Abramowitz & Stegun 1964, 25.3.6); NaN
    off the map. None where the placement has no physical unit.
    """
    points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    linear = np.asarray(placement.matrix, dtype=np.float64)[:, :2]
    ground = None if placement.crs is None else _ground(placement.crs)
    if ground is None or ground.flat:
        metres = ground.metres if ground is not None else _METRES.get(placement.unit)
        if metres is None:
            return None
        if placement.warp is None:
            return np.broadcast_to(linear.T * metres, (len(points), 2, len(linear)))
        return placement.warp.jacobian(points).transpose(0, 2, 1) * metres
    result = np.empty((len(points), 2, 3))
    for axis in (0, 1):
        step = np.zeros(2)
        step[axis] = _STENCIL / (ground.metres * float(np.linalg.norm(linear[:, axis])))
        far_back, back, ahead, far_ahead = (
            ground.in_space(placement.to_world(points + t * step)) for t in (-2.0, -1.0, 1.0, 2.0)
        )
        result[:, axis] = (8.0 * (ahead - back) - (far_ahead - far_back)) / (12.0 * step[axis])
    return result


def metres_per_pixel(placement: Placement, xy: npt.ArrayLike) -> tuple[float, float] | None:
    """True ground distance in metres per pixel along pixel x and y, at one level-0 point.

    On the CRS's own ellipsoid whatever its units; by the matrix where there is a unit and no CRS. None where the unit
    is pixels or the point is not on the map.
    """
    vectors = tangents(placement, xy)
    if vectors is None or not np.isfinite(vectors[0]).all():
        return None
    along_x, along_y = np.linalg.norm(vectors[0], axis=1)
    return float(along_x), float(along_y)


def _pixel_m2(placement: Placement, xy: Points) -> Values:
    """Area in m² of a pixel's parallelogram at level-0 points (N, 2)."""
    vectors = tangents(placement, xy)
    if vectors is None:
        msg = "a placement without a physical unit has no areas"
        raise ValueError(msg)
    x, y = vectors[:, 0], vectors[:, 1]
    gram = (x * x).sum(axis=1) * (y * y).sum(axis=1) - (x * y).sum(axis=1) ** 2
    return np.sqrt(np.maximum(gram, 0.0))


def areas_m2(geometries: Geometries, placement: Placement) -> Values | None:
    """Areas (N,) in m² of shapely geometries in level-0 pixels, on the CRS's own ellipsoid.

    Holes subtract, parts add, points and lines have none. Right to 1e-6 (checked against densified geodesic polygons,
    Karney 2013, in the tests). NaN for a geometry that leaves the map; None where the placement has no physical unit.
    The number for a geometry does not depend on the others of the call, bit for bit.
    """
    shapes = np.asarray(geometries, dtype=object)
    if tangents(placement, np.zeros((1, 2))) is None:
        return None
    ground = None if placement.crs is None else _ground(placement.crs)
    if ground is not None and not ground.flat and ground.geodetic is None and placement.warp is None:
        return _zonal_areas(shapes, placement, ground)
    areas = np.asarray(shapely.area(shapes), dtype=np.float64)
    solid = areas > 0
    if placement.warp is None and (ground is None or ground.flat):
        areas[solid] *= _pixel_m2(placement, np.zeros((1, 2)))[0]
        return areas
    bounds = np.asarray(shapely.bounds(shapes), dtype=np.float64)
    scale = np.linalg.norm(np.asarray(placement.matrix)[:, :2], axis=0)
    unit = _METRES[placement.unit] if ground is None else ground.metres
    across = unit * np.hypot((bounds[:, 2] - bounds[:, 0]) * scale[0], (bounds[:, 3] - bounds[:, 1]) * scale[1])
    small = solid & (across <= _FLAT)
    areas[small] *= _pixel_m2(placement, shapely.get_coordinates(shapely.centroid(shapes[small])))
    wide = np.flatnonzero(solid & ~small)
    areas[wide] = [
        polygon_area(shape, _ring_area(placement, ground), float(scale.max()) * unit) for shape in shapes[wide]
    ]
    return areas


def _ring_area(placement: Placement, ground: _Ground | None) -> Callable[[Points], float]:
    """What tells the signed area in m² of a ring of level-0 pixels (N, 2): by geodesics, or on a plane without CRS."""
    geod = None if ground is None or ground.flat else pyproj.Geod(a=ground.axis, es=ground.eccentricity2)
    metres = _METRES[placement.unit] if ground is None else ground.metres

    def area(xy: Points) -> float:
        world = placement.to_world(xy)
        if ground is None or geod is None:
            x, y = (world - world[0]).T * metres
            return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2.0
        lonlat = np.degrees(ground.lonlat(world))
        return float(geod.polygon_area_perimeter(*lonlat.T)[0]) if np.isfinite(lonlat).all() else np.nan

    return area


def area_m2(geometry: BaseGeometry, placement: Placement) -> float | None:
    """Area in m² of one shapely geometry in level-0 pixels, as `areas_m2`; None where it is unknown."""
    areas = areas_m2([geometry], placement)
    return None if areas is None or np.isnan(areas[0]) else float(areas[0])


def box_areas_m2(boxes: npt.ArrayLike, placement: Placement) -> Values | None:
    """Areas (N,) in m² of boxes (N, 4) = x0, y0, x1, y1 in level-0 pixels, as `areas_m2`."""
    x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).T
    return areas_m2(np.asarray(shapely.box(x0, y0, x1, y1), dtype=object), placement)


def _zonal_areas(shapes: npt.NDArray[np.object_], placement: Placement, ground: _Ground) -> Values:
    """∮ zone(latitude) dλ around each geometry's rings, for pixels that are affine in longitude and latitude."""
    owner, start, end = polygon_edges(shapes)
    start, end = (ground.lonlat(placement.to_world(points)) for points in (start, end))
    along = end[:, 0] - start[:, 0]
    rise = end[:, 1] - start[:, 1]
    zone = ground.zone(start[:, 1])
    oblique = (along != 0) & (rise != 0)
    nodes, weights = np.polynomial.legendre.leggauss(16)  # the zone is analytic: 16 points serve an edge of any length
    lat = start[oblique, 1, None] + rise[oblique, None] * (nodes + 1.0) / 2.0
    zone[oblique] = (ground.zone(lat) * weights).sum(axis=1) / 2.0
    return np.abs(np.bincount(owner, weights=zone * along, minlength=len(shapes)))


def densify_all(geometries: Geometries, placement: Placement, tolerance_px: float = 0.05) -> npt.NDArray[np.object_]:
    """Geometries (N,) in level-0 pixels with vertices added so that they stay true in longitude and latitude.

    Each straight pixel edge stays within `tolerance_px` pixels of the straight line in longitude and latitude between
    its mapped vertices, and no piece spans more than a quarter turn of longitude. Vertices stay where they are.
    Edges of up to 4 px are left alone, which matters only within some 40 px of a pole. An edge is cut into at most
    4096 pieces, which only one through a pole reaches. Raises `ReadError` as `to_lonlat` does.
    """
    _earthly(placement)
    shapes = np.array(geometries, dtype=object)
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    inside = owner[1:] == owner[:-1]  # also joins a polygon's rings: at worst a polygon is looked at in vain
    start, end = points[:-1][inside], points[1:][inside]
    bent = _strayed(start, end, placement) > tolerance_px
    for index in np.unique(owner[:-1][inside][bent]):
        shapes[index] = _densified(shapes[index], placement, tolerance_px)
    return shapes


def densify(geometry: BaseGeometry, placement: Placement, tolerance_px: float = 0.05) -> BaseGeometry:
    """One geometry with vertices added, as `densify_all`."""
    return densify_all([geometry], placement, tolerance_px)[0]


def _densified(geometry: Any, placement: Placement, tolerance_px: float) -> Any:
    if isinstance(geometry, shapely.Polygon):
        shell = _dense_line(geometry.exterior, placement, tolerance_px)
        return shapely.Polygon(shell, [_dense_line(ring, placement, tolerance_px) for ring in geometry.interiors])
    if isinstance(geometry, shapely.LineString):
        return shapely.LineString(_dense_line(geometry, placement, tolerance_px))
    if shapely.get_dimensions(geometry) < 1:
        return geometry
    return type(geometry)([_densified(part, placement, tolerance_px) for part in geometry.geoms])


def _dense_line(line: BaseGeometry, placement: Placement, tolerance_px: float) -> Points:
    """The vertices of a line with its edges halved until every piece keeps the tolerance."""
    points = shapely.get_coordinates(line)
    edge = np.arange(len(points) - 1)
    low, high = np.zeros(len(edge)), np.ones(len(edge))
    places = [np.arange(len(points), dtype=np.float64)]
    for _ in range(_HALVINGS):
        start, along = points[edge], points[edge + 1] - points[edge]
        bent = _strayed(start + along * low[:, None], start + along * high[:, None], placement) > tolerance_px
        if not bent.any():
            break
        edge, low, high = edge[bent], low[bent], high[bent]
        middle = (low + high) / 2.0
        places.append(edge + middle)
        edge, low, high = np.tile(edge, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
    place = np.sort(np.concatenate(places))
    first = np.minimum(np.floor(place).astype(np.intp), len(points) - 2)
    dense = points[first] + (points[first + 1] - points[first]) * (place - first)[:, None]
    dense[-1] = points[-1]
    return dense


def _strayed(start: Points, end: Points, placement: Placement) -> Values:
    """How many pixels an edge lies beside the straight line in longitude and latitude between its ends (N,).

    Looked at in three places, so that neither a bow nor an S escapes. Infinite where it spans more than a quarter turn.
    """
    along = end - start
    length = np.hypot(along[:, 0], along[:, 1])
    result = np.zeros(len(start))
    seen = np.flatnonzero(length > _SHORT)
    start, along, length = start[seen, None], along[seen, None], length[seen, None, None]
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
        beyond = np.abs(_cross(chord, stray) / _cross(chord, pixel))
    worst = np.fmax.reduce(beyond[:, 1:-1], axis=1, initial=0.0)
    worst[np.abs(chord[:, 0, 0]) > _QUARTER_TURN] = np.inf
    result[seen] = worst
    return result


def _cross(a: Points, b: Points) -> Values:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


Index = npt.NDArray[np.intp]

_PIECES: Final = (64, 4000, 1 << 18)  # of an edge as long as the polygon: at first, at least and at most; ever
_PIECE: Final = 250.0  # metres, between these
_SETTLED: Final = 1e-7  # of an area: where pieces of half the length change it less, the next ones hardly do
_ROUNDED: Final = 2e-7  # m² a vertex: what rounding may change it
_WIDEST: Final = 1e7  # metres: what is wider may cover more than half of the globe, and is cut
_POLYGON: Final = 3  # shapely's type number; those above it have parts


def polygon_edges(geometries: npt.NDArray[Any]) -> tuple[Index, Points, Points]:
    """Directed edges of all polygons in shapely geometries (N,): outer rings one way round, holes the other.

    Returns each edge's place in the array (E,), its start and its end (E, 2). Points and lines have none.
    """
    rings, owner = _rings(geometries)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    inside = np.flatnonzero(ring[1:] == ring[:-1])
    return owner[ring[inside]], points[inside], points[inside + 1]


def polygon_area(geometry: BaseGeometry, ring_area: Callable[[Points], float], metres: float) -> float:
    """Area in m² of a geometry whose units are about `metres`.

    `ring_area` is the signed area in m² of the polygon between points (N, 2), the last of them the first. Relative
    error about 1e-8 where it is kilometres wide. NaN where a vertex is not on the map, or where pieces however short
    still change the area.
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
        if abs(area - before) <= _SETTLED * area + _ROUNDED * points:
            return area + (area - before) / 3.0
        step, before, count = step / 2.0, area, points
    return math.nan


def _rings(geometries: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Index]:
    """All polygons' rings in geometries (N,), however nested, and each ring's place in the array."""
    parts, owner = geometries, np.arange(len(geometries))
    while (shapely.get_type_id(parts) > _POLYGON).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    solid = shapely.get_type_id(parts) == _POLYGON
    rings, index = shapely.get_rings(shapely.orient_polygons(parts[solid]), return_index=True)
    return rings, owner[solid][index]
