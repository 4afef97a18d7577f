"""Coordinate reference systems, longitude and latitude, and true distances on the ellipsoid.

PROJ is used without network: datum shifts use the best transformation whose grids are installed, so that two machines
may differ by a metre or two between old national datums and WGS84 (not at all for UTM on WGS84). Distances and areas,
which `areas` has, need no datum shift. PROJ is loaded for what has a CRS only: slides and studies have none.
"""
# pyproj leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .errors import ReadError, RequestError, excerpt
from .geometry import Placement, Points
from .raster.metadata import Crs, names_local_file

if TYPE_CHECKING:
    import pyproj

Values = npt.NDArray[np.float64]

METRES: Final = {"um": 1e-6, "mm": 1e-3, "m": 1.0}
"""Metres per unit of placements without a CRS."""

_EARTH_RADIUS: Final = 6378137.0
_STENCIL: Final = 100.0  # metres between the points of a finite difference, whose error is then below 1e-10


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """The ellipsoid of a CRS and the way from its coordinates to longitude and latitude."""

    axis: float
    """Semi-major axis in metres; 0 for a local (engineering) CRS, a plane that is tied to no body."""
    eccentricity2: float
    """Eccentricity squared; NaN for a local CRS."""
    geodetic: "pyproj.Transformer | None"
    """Transformation to longitude and latitude of the same datum; None where coordinates already are."""
    angle: float
    """Radians per unit of longitude and latitude; NaN for a local CRS."""
    metres: float
    """Metres per unit of the CRS's axes, at the equator where that is an angle."""

    @property
    def is_plane(self) -> bool:
        """Whether the CRS is a local plane."""
        return self.axis == 0.0

    def lonlat(self, world: Points) -> Points:
        """World (N, 2) → longitude and latitude of the CRS's own datum, in radians."""
        if self.geodetic is None:
            return world * self.angle
        lon, lat = self.geodetic.transform(world[:, 0], world[:, 1])
        return np.stack([lon, lat], axis=1) * self.angle

    def geocentric(self, world: Points) -> Points:
        """World (N, 2) → geocentric position (N, 3) in metres; NaN off the map."""
        lon, lat = self.lonlat(world).T
        with np.errstate(invalid="ignore"):  # PROJ returns infinity off the map
            normal = self.axis / np.sqrt(1.0 - self.eccentricity2 * np.sin(lat) ** 2)
            across = normal * np.cos(lat)
            return np.stack(
                [across * np.cos(lon), across * np.sin(lon), normal * (1.0 - self.eccentricity2) * np.sin(lat)], axis=1
            )

    def zone_area(self, lat: Values) -> Values:
        """Area in m² per radian of longitude between the equator and a latitude in radians, clipped at the poles."""
        e2 = self.eccentricity2
        sine = np.sin(np.clip(lat, -np.pi / 2, np.pi / 2))
        if e2 == 0.0:
            return self.axis**2 * sine
        e = np.sqrt(e2)
        return self.axis**2 * (1.0 - e2) / 2.0 * (sine / (1.0 - e2 * sine**2) + np.arctanh(e * sine) / e)


def load_proj() -> None:
    """Load PROJ and open its database, which otherwise the first CRS does."""
    parse_crs("EPSG:4326")


def parse_crs(text: str) -> "pyproj.CRS":
    """Parse a CRS. Raises `ReadError` where PROJ cannot, or where it refers to files other than PROJ's own."""
    import pyproj
    from pyproj.exceptions import ProjError

    try:
        crs = pyproj.CRS.from_user_input(text)
        texts = (text, crs.to_wkt())
    except (ProjError, UnicodeError) as error:
        raise _unusable_crs(text, str(error)) from error
    if any(map(names_local_file, texts)):
        raise _unusable_crs(text, "it refers to a file that is not one of PROJ's own")
    return crs


def stated_crs(text: str) -> Crs:
    """Parse the CRS in --crs. Raises `RequestError`."""
    try:
        crs = parse_crs(text)
    except ReadError as error:
        remedy = "Give an EPSG code, such as --crs EPSG:32618"
        raise RequestError("--crs", "must be a CRS that PROJ can read", value=error.value, remedy=remedy) from error
    axis = crs.axis_info[0]
    name, factor = axis.unit_name.lower(), axis.unit_conversion_factor
    if crs.is_geographic:
        return Crs(crs.to_wkt(), "deg" if name == "degree" else "crs", crs.to_string())
    return Crs(crs.to_wkt(), "m" if factor == 1.0 and name in {"metre", "meter", "m"} else "crs", crs.to_string())


def _transformer(wkt: str, source: "pyproj.CRS", target: "pyproj.CRS | str") -> "pyproj.Transformer":
    import pyproj
    from pyproj.exceptions import ProjError
    from pyproj.network import set_network_enabled  # pyright: ignore[reportPrivateImportUsage] - documented

    set_network_enabled(active=False)  # results must not depend on a server
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except (ProjError, UnicodeError) as error:
        raise _unusable_crs(wkt, str(error)) from error


def _unusable_crs(text: str, why: str) -> ReadError:
    return ReadError(
        "the coordinate reference system",
        "must be one that PROJ can read",
        value=f"{excerpt(text, 120)} ({excerpt(why, 200)})",
        remedy="Give the file a CRS that `projinfo` accepts, or remove its georeference to work in pixels",
    )


@lru_cache(maxsize=64)
def _ellipsoid(wkt: str) -> Ellipsoid:
    crs = parse_crs(wkt)
    derived = crs.is_geographic and crs.is_derived is True  # a rotated pole, say: not yet longitude and latitude
    base = crs.source_crs if derived else crs.geodetic_crs
    unit = float(crs.axis_info[0].unit_conversion_factor)
    if base is None or crs.ellipsoid is None:
        return Ellipsoid(0.0, math.nan, None, math.nan, metres=unit)
    a, b = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
    geodetic = None if crs.is_geographic and not derived else _transformer(wkt, crs, base)
    angle = float(base.axis_info[0].unit_conversion_factor)
    return Ellipsoid(a, 1.0 - (b / a) ** 2, geodetic, angle, metres=unit * a if crs.is_geographic else unit)


def ellipsoid_of(placement: Placement) -> Ellipsoid | None:
    """The ellipsoid of an image's CRS; None without a CRS."""
    return None if placement.crs is None else _ellipsoid(placement.crs)


@lru_cache(maxsize=64)
def _wgs84_transformer(wkt: str) -> "pyproj.Transformer":
    crs = parse_crs(wkt)
    horizontal = crs.sub_crs_list[0] if crs.is_compound else crs  # grids for heights may be missing
    return _transformer(wkt, horizontal, "EPSG:4326")


def on_earth(placement: Placement) -> bool:
    """Whether the CRS is on the Earth: its semi-major axis within 0.5 % of WGS84's, as PROJ decides."""
    ellipsoid = ellipsoid_of(placement)
    return ellipsoid is not None and abs(ellipsoid.axis / _EARTH_RADIUS - 1.0) < 0.005


def _to_wgs84(placement: Placement) -> "pyproj.Transformer":
    """The transformation from the CRS to WGS84. Raises `ReadError` without a CRS on the Earth."""
    subject = f"the placement from {placement.source}"
    if placement.crs is None:
        rule = "must have a coordinate reference system for longitude and latitude"
        raise ReadError(subject, rule, remedy="Name it with --crs (--crs EPSG:32633, say), or work in pixels")
    if not on_earth(placement):
        axis = _ellipsoid(placement.crs).axis
        rule = "must be on the Earth for WGS84 longitude and latitude"
        value = f"{parse_crs(placement.crs).name}, semi-major axis {axis:.0f} m"
        remedy = "Use reports in the source CRS (GeoPackage) for other bodies and for local grids"
        raise ReadError(subject, rule, value=value, remedy=remedy)
    return _wgs84_transformer(placement.crs)


def lonlat_or_nan(placement: Placement, xy: npt.ArrayLike) -> Points:
    """As `to_lonlat`, with NaN for pixels off the map, such as space around the Earth's disc."""
    transformer = _to_wgs84(placement)
    world = placement.to_world(xy)
    lonlat = np.stack(transformer.transform(world[:, 0], world[:, 1]), axis=1)
    lonlat[~np.isfinite(lonlat[:, 0] + lonlat[:, 1])] = np.nan
    outside = np.abs(lonlat[:, 0]) > 180.0
    lonlat[outside, 0] = (lonlat[outside, 0] + 180.0) % 360.0 - 180.0
    return lonlat


def to_lonlat(placement: Placement, xy: npt.ArrayLike) -> Points:
    """Level-0 pixels (N, 2) → WGS84 longitude and latitude in degrees (N, 2), longitude within ±180.

    Raises `ReadError` without a CRS, for a CRS that is not on the Earth, and for a pixel off the map.
    """
    lonlat = lonlat_or_nan(placement, xy)
    lost = np.isnan(lonlat[:, 0])
    if lost.any():
        raise ReadError(
            f"every pixel used of the placement from {placement.source}",
            "must lie on the Earth",
            value=f"pixel {np.asarray(xy, dtype=np.float64).reshape(-1, 2)[lost][0].tolist()}",
            remedy="Limit the work with --area to the part of the image that shows ground",
        )
    return lonlat


def from_lonlat(placement: Placement, lonlat: npt.ArrayLike) -> Points:
    """WGS84 longitude and latitude in degrees (N, 2) → level-0 pixels (N, 2): the inverse of `to_lonlat`.

    For an image whose longitudes run beyond ±180, the caller adds the full turn. Raises `ReadError` as `to_lonlat`
    does, and for points where the CRS is not defined.
    """
    transformer = _to_wgs84(placement)
    points = np.asarray(lonlat, dtype=np.float64).reshape(-1, 2)
    world = np.stack(transformer.transform(points[:, 0], points[:, 1], direction="INVERSE"), axis=1)
    lost = ~np.isfinite(world).all(axis=1)
    if lost.any():
        subject = f"every point on the placement from {placement.source}"
        value, remedy = f"longitude, latitude {points[lost][0].tolist()}", "Keep coordinates near the image"
        raise ReadError(subject, "must lie where its CRS is defined", value=value, remedy=remedy)
    return placement.to_pixel(world)


def pixels_on(target: Placement, source: Placement, xy: npt.ArrayLike, width: int) -> Points:
    """Level-0 pixels (N, 2) of one image → those of another on the Earth, `width` px wide; NaN where there are none.

    Directly where both have the same CRS, else through WGS84 longitude and latitude, of which a grid of longitudes may
    have the one that is a whole turn away. Raises `ReadError` without a CRS on the Earth for both, unless it is one.
    """
    if source.crs is not None and target.crs is not None and _same_crs(source.crs, target.crs):
        return target.to_pixel(source.to_world(xy))
    lonlat, transformer = lonlat_or_nan(source, xy), _to_wgs84(target)
    world = np.stack(transformer.transform(lonlat[:, 0], lonlat[:, 1], direction="INVERSE"), axis=1)
    world[~np.isfinite(world).all(axis=1)] = np.nan
    found = target.to_pixel(world)
    if target.unit == "deg":
        for turn in (360.0, -360.0):
            outside = (found[:, 0] < 0) | (found[:, 0] >= width)
            if outside.any():
                other = target.to_pixel(world[outside] + (turn, 0.0))
                inside = (other[:, 0] >= 0) & (other[:, 0] < width)
                found[np.flatnonzero(outside)[inside]] = other[inside]
    return found


@lru_cache(maxsize=64)
def _same_crs(one: str, other: str) -> bool:
    return one == other or bool(parse_crs(one) == parse_crs(other))


def tangents(placement: Placement, xy: npt.ArrayLike) -> Values | None:
    """Metres on the ground per pixel along pixel x and y at level-0 pixels (N, 2), as vectors: (N, 2, 2 or 3).

    Five-point central differences of the geocentric position over about 400 m (Abramowitz & Stegun 1964, 25.3.6). NaN
    off the map; None where the placement has no physical unit.
    """
    points = np.asarray(xy, dtype=np.float64).reshape(-1, 2)
    linear = np.asarray(placement.matrix, dtype=np.float64)[:, :2]
    ellipsoid = ellipsoid_of(placement)
    if ellipsoid is None or ellipsoid.is_plane:
        metres = ellipsoid.metres if ellipsoid is not None else METRES.get(placement.unit)
        if metres is None:
            return None
        if placement.warp is None:
            return np.broadcast_to(linear.T * metres, (len(points), 2, len(linear)))
        return placement.warp.jacobian(points).transpose(0, 2, 1) * metres
    result = np.empty((len(points), 2, 3))
    for axis in (0, 1):
        step = np.zeros(2)
        step[axis] = _STENCIL / (ellipsoid.metres * float(np.linalg.norm(linear[:, axis])))
        far_back, back, ahead, far_ahead = (
            ellipsoid.geocentric(placement.to_world(points + t * step)) for t in (-2.0, -1.0, 1.0, 2.0)
        )
        result[:, axis] = (8.0 * (ahead - back) - (far_ahead - far_back)) / (12.0 * step[axis])
    return result


def metres_per_pixel(placement: Placement, xy: npt.ArrayLike) -> tuple[float, float] | None:
    """True ground distance in metres per pixel along pixel x and y, at one level-0 point.

    On the CRS's ellipsoid; by the matrix where there is a unit and no CRS. None without a unit, or off the map.
    """
    vectors = tangents(placement, xy)
    if vectors is None or not np.isfinite(vectors[0]).all():
        return None
    along_x, along_y = np.linalg.norm(vectors[0], axis=1)
    return float(along_x), float(along_y)
