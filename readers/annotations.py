"""Polygons that users draw: annotations and areas of interest, and their place on an image.

They come as GeoJSON, or in another format that `vectors` turns into it. Maps are annotated in longitude and latitude
(RFC 7946, or the `crs` member of GeoJSON 2008, which QGIS still writes), all other images in pixels, as QuPath exports
them.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import errno
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .areas import POLYGON, polygon_edges
from .errors import ReadError, RequestError, excerpt
from .files import MAX_FILE_BYTES, parse_json, read_file
from .geodesy import from_lonlat, lonlat_or_nan, on_earth, to_lonlat
from .geometry import Placement, Points
from .image import ImageInfo
from .vectors import read_vector, split_layer, vector_driver

Frame = Literal["lonlat", "pixels"]
Bounds = tuple[float, float, float, float]

TITLES: Final[Mapping[Frame, str]] = {
    "lonlat": "Findings in WGS84 longitude and latitude",
    "pixels": "Findings in pixels, for QuPath",
}
"""Titles of limner's own GeoJSON, in its member `limner`."""
_DECIMALS: Final = 2  # of pixels, as QuPath writes them; degrees have more
_WGS84: Final = ('CRS84"', 'EPSG:4326"', 'EPSG::4326"')  # how names end in the `crs` member of older GeoJSON
_PIECES: Final = 64  # of an edge that is straight in a projected CRS: its bow shrinks by the square of that
_TOLERANCE: Final = 0.05  # pixels between a drawn edge and the same edge on the image
_SAMPLES: Final = 65  # per side of the grid of pixels that finds an image's longitudes and latitudes
_ROUNDS: Final = 20
_NOTHING: Final = object()  # the coordinates of a feature that has none


@dataclass(frozen=True, slots=True)
class AnnotatedPolygon:
    """One polygon of a file, whose places are those in the GeoJSON that it is or becomes."""

    where: str
    """Its place in the file, such as "features[3].geometry"."""
    feature: str
    """The place of its feature."""
    geometry: BaseGeometry
    """In longitude and latitude, or in pixels."""
    properties: Mapping[str, Any]
    """The properties of its feature."""
    source: BaseGeometry
    """As the file has it."""
    crs: str = ""
    """The CRS of `source`, where that is not the frame of `geometry`."""


def read_polygons(path: str, subject: str, frame: Frame, *, keep_empty: bool = False) -> list[AnnotatedPolygon]:
    """Read all polygons of a file, in the file's order; `subject` names the file in errors.

    path: GeoJSON, or GeoPackage, FlatGeobuf, Shapefile or KML, whose CRS is respected; a layer is named as in
    `vectors.split_layer`.

    Reads Polygon, MultiPolygon, Feature, FeatureCollection and GeometryCollection. In the frame "pixels" also lists of
    features and `.gz`, as QuPath exports them; points and lines are skipped and self-intersections repaired. Heights
    and features without geometry are dropped. Polygons across the antimeridian must be split (RFC 7946 §3.1.9).

    Raises `RequestError` with the place in the file for anything else: invalid polygons of maps, coordinates outside
    ±180 or ±90, an unknown CRS, any CRS in the frame "pixels".

    With `keep_empty`, a feature without a polygon has one that is empty, so that no feature is lost.
    """
    return _GeoJson(path, subject, frame, keep_empty).polygons()


def read_roi(path: str) -> BaseGeometry:
    """Read an area of interest: the union of the polygons of a file, in WGS84 longitude and latitude.

    Raises `RequestError` as `read_polygons` does, and for a file without polygons.
    """
    subject = f"the area of interest {path}"
    found = read_polygons(path, subject, "lonlat")
    if not found:
        raise RequestError(subject, "must contain a polygon", remedy="Draw a polygon in QGIS and save it as GeoPackage")
    return shapely.union_all([one.geometry for one in found])


def roi_to_pixels(roi: BaseGeometry, info: ImageInfo) -> BaseGeometry:
    """Map an area of interest in longitude and latitude to polygons in level-0 pixels, clipped to the image.

    Edges are straight in longitude and latitude (RFC 7946), to within 0.05 px. Raises `RequestError` for an image
    without a CRS or not on the Earth, and for an area outside the image.
    """
    subject = f"the area of interest on {info.id or info.uri}"
    try:
        [placed] = polygons_to_pixels([roi], info)
    except ReadError as error:
        named = f"{error.subject} of {info.id or info.uri}"
        raise RequestError(named, error.rule, value=error.value, remedy=error.remedy) from error
    if placed.is_empty:
        value = f"the area spans {format_bounds(roi.bounds)}, the image {format_bounds(lonlat_bounds(info))}"
        remedy = "Give an area inside the image, with longitude before latitude, or leave --area out"
        raise RequestError(subject, "must overlap the image", value=value, remedy=remedy)
    return placed


def in_pixels(info: ImageInfo) -> bool:
    """Whether polygons on an image are in pixels: those of slides, studies, and maps that are not on the Earth."""
    return info.kind != "map" or not on_earth(info.placement)


def check_pixels(polygons: Sequence[BaseGeometry], info: ImageInfo, subject: str) -> str:
    """What to tell of polygons in pixels that may be in degrees, since their file states no CRS; "" for others.

    RFC 7946 says that GeoJSON is in degrees, and QuPath writes pixels without saying so. Raises `RequestError` where
    they cannot be pixels: all lie within ±180 and ±90, and each is smaller than one, or the middle of all is negative.
    """
    if not polygons:
        return ""
    x0, y0, x1, y1 = shapely.total_bounds(polygons).tolist()
    if x0 < -180 or y0 < -90 or x1 > 180 or y1 > 90:
        return ""
    boxes = shapely.bounds(polygons)
    small = bool((boxes[:, 2:] - boxes[:, :2] < 1).all())
    spans = f"x {x0:.7g} to {x1:.7g}, y {y0:.7g} to {y1:.7g}"
    crs = "State the image's coordinate reference system with --crs, or draw" if info.kind == "map" else "Draw"
    remedy = f"{crs} the polygons on the image in pixels, as QuPath exports them"
    if small or x0 + x1 < 0 or y0 + y1 < 0:
        why = "smaller than a pixel" if small else "beside the image"
        rule = "must be in pixels, since the image has no place on the Earth"
        raise RequestError(f"{subject} for {info.id or info.uri}", rule, value=f"{spans}, {why}", remedy=remedy)
    points = shapely.get_coordinates(polygons)
    if (points == np.round(points, _DECIMALS)).all() or max(info.size) <= 360:
        return ""
    return f"The positions of {subject} are taken as pixels, but may be degrees: {spans}. {remedy}."


def polygons_to_pixels(polygons: Sequence[BaseGeometry], info: ImageInfo) -> list[BaseGeometry]:
    """Map polygons in longitude and latitude to level-0 pixels as `roi_to_pixels` does; empty outside the image.

    Raises `ReadError` for an image without a CRS or not on the Earth.
    """
    bounds = lonlat_bounds(info)
    frame, image = shapely.box(*bounds), shapely.box(0.0, 0.0, *info.size)
    placed: list[BaseGeometry] = []
    for polygon in polygons:
        turned = (
            shapely.transform(polygon, lambda lonlat, turn=turn: np.add(lonlat, (turn, 0.0)))
            for turn in (-360.0, 0.0, 360.0)
        )
        pieces = [piece for one in turned if not (piece := _polygonal(one.intersection(frame))).is_empty]
        mapped = shapely.union_all([_to_pixels(piece, info.placement) for piece in pieces])
        placed.append(_polygonal(mapped.intersection(image)) if pieces else shapely.Polygon())
    return placed


def lonlat_bounds(info: ImageInfo) -> Bounds:
    """The west, south, east and north of an image in degrees, slightly enlarged.

    Longitudes are those that map back to the image's own pixels: a grid from 0 to 360 has none below 0. Raises
    `ReadError` as `polygons_to_pixels` does.
    """
    x, y = (np.linspace(0.0, side, _SAMPLES) for side in info.size)
    pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    lonlat = lonlat_or_nan(info.placement, pixels)
    on_map = np.flatnonzero(np.isfinite(lonlat).all(axis=1))
    if not on_map.size:
        subject = f"a part of the image placed by {info.placement.source}"
        raise ReadError(subject, "must lie on the Earth", remedy="Leave --area out")
    middle = on_map[np.abs(on_map - len(pixels) // 2).argmin()]
    turns = (0.0, 360.0, -360.0)
    misses = [
        np.abs(from_lonlat(info.placement, lonlat[middle] + (turn, 0.0)) - pixels[middle]).max() for turn in turns
    ]
    centre = lonlat[middle, 0] + turns[int(np.argmin(misses))]
    lon = centre + (lonlat[on_map, 0] - centre + 180.0) % 360.0 - 180.0
    lat = lonlat[on_map, 1]
    west, south, east, north = lon.min(), lat.min(), lon.max(), lat.max()
    pad = 1e-6 + max(east - west, north - south) / (_SAMPLES // 2)
    return float(west - pad), float(max(-90.0, south - pad)), float(east + pad), float(min(90.0, north + pad))


def format_bounds(bounds: Bounds) -> str:
    """Bounds (west, south, east, north) in words."""
    west, south, east, north = bounds
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"


def from_crs(crs: str, xy: Points) -> Points:
    """Points (N, 2) of a CRS in any notation of PROJ, x first → WGS84 longitude and latitude (N, 2).

    Raises `ReadError` for a CRS that is unknown or not on the Earth, and for points where it is not defined.
    """
    return to_lonlat(Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "crs", crs=crs, source=f"the CRS {crs}"), xy)


def _to_pixels(polygon: BaseGeometry, placement: Placement) -> BaseGeometry:
    """Longitude and latitude → level-0 pixels, with vertices added until edges are within the tolerance."""
    west, south, east, north = polygon.bounds
    step = max(east - west, north - south)
    dense = polygon
    for _ in range(_ROUNDS):
        deviation = _deviation(dense, placement)
        if deviation <= _TOLERANCE:
            break
        step /= min(8.0, 1.2 * math.sqrt(deviation / _TOLERANCE))
        dense = shapely.segmentize(polygon, step)
    return _polygonal(shapely.transform(dense, lambda lonlat: from_lonlat(placement, lonlat)))


def _deviation(polygon: BaseGeometry, placement: Placement) -> float:
    """The largest distance in pixels of an edge in longitude and latitude from the straight edge in pixels."""
    _, first, last = polygon_edges(np.asarray([polygon], dtype=object))
    start = from_lonlat(placement, first)
    chord = from_lonlat(placement, last) - start
    length = np.hypot(chord[:, 0], chord[:, 1])
    worst = 0.0
    for t in (0.25, 0.5, 0.75):
        off = from_lonlat(placement, first + (last - first) * t) - start
        across = np.abs(off[:, 0] * chord[:, 1] - off[:, 1] * chord[:, 0])
        distance = np.divide(across, length, out=np.hypot(off[:, 0], off[:, 1]), where=length > 0)
        worst = max(worst, float(distance.max()))
    return worst


def _polygonal(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons of a geometry, made valid where edges cross; empty where they enclose nothing."""
    parts = np.asarray([shapely.make_valid(geometry)], dtype=object)
    while (shapely.get_type_id(parts) > POLYGON).any():
        parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.get_type_id(parts) == POLYGON])


@dataclass(frozen=True, slots=True)
class _Position:
    """A place in a GeoJSON file, and what its members inherit."""

    where: str = ""
    feature: str = ""
    properties: Mapping[str, Any] | None = None
    crs: str = ""
    """Name of a CRS other than WGS84."""

    def member(self, name: str, index: int | None = None) -> str:
        """The place of a member."""
        inside = f"{self.where}.{name}" if self.where else name
        return inside if index is None else f"{inside}[{index}]"


@dataclass(frozen=True, slots=True)
class _GeoJson:
    """A GeoJSON file, its name in errors, the frame of its coordinates, and whether features without polygons count."""

    path: str
    subject: str
    frame: Frame
    keep_empty: bool

    def polygons(self) -> list[AnnotatedPolygon]:
        """See `read_polygons`."""
        record = self._record()
        self._check_title(record)
        if self.frame == "pixels" and isinstance(record, list):
            record = cast("object", {"type": "FeatureCollection", "features": record})
        found = [self._annotated(at, rings) for at, rings in self._walk(_Position(), record)]
        return [one for one in found if self.keep_empty or not one.geometry.is_empty]

    def _annotated(self, at: _Position, rings: object) -> AnnotatedPolygon:
        source = shapely.Polygon() if rings is _NOTHING else self._polygon(at, rings)
        placed = self._to_lonlat(at, source) if at.crs and not source.is_empty else source
        return AnnotatedPolygon(at.where, at.feature or at.where, placed, at.properties or {}, source, at.crs)

    def _check_title(self, record: object) -> None:
        """Refuse a file that limner wrote in the other frame."""
        about = cast("dict[str, object]", record).get("limner") if isinstance(record, dict) else None
        title = cast("dict[str, object]", about).get("title") if isinstance(about, dict) else None
        if title in set(TITLES.values()) - {TITLES[self.frame]}:
            units = "pixels" if self.frame == "pixels" else "longitude and latitude"
            raise self._error("", f"must be in {units}, as the image is", f"limner's own {title!r}")

    def _record(self) -> object:
        file, layer = split_layer(self.path)
        try:
            if driver := vector_driver(file):
                return read_vector(self.path, driver, self.subject, placed=self.frame == "lonlat")
            if layer:
                raise ValueError("GeoJSON has no layers")  # noqa: TRY301 - as a file that is no GeoJSON
            content = read_file(self.path)
            if content.startswith(b"PK"):
                raise ValueError("a ZIP archive, which is to be unpacked")  # noqa: TRY301 - likewise
            if self.path.endswith(".gz") and self.frame == "pixels":
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES // 2**20} MiB")  # noqa: TRY301 - as `read_file`
            return parse_json(content.decode("utf-8-sig"), allow_nan=True)  # QuPath writes NaN measurements
        except (OSError, EOFError, zlib.error, ValueError) as error:
            rule = "must be a GeoJSON file, or a GeoPackage, FlatGeobuf, Shapefile or KML"
            raise self._error("", rule, excerpt(str(error))) from error

    def _error(self, where: str, rule: str, value: str) -> RequestError:
        remedy = "Give GeoJSON polygons in WGS84 longitude and latitude, such as QGIS saves with RFC 7946 ticked"
        if self.frame == "pixels":
            remedy = "Give GeoJSON polygons in pixels, such as QuPath exports"
        return RequestError(f"{self.subject}{f' at {where}' if where else ''}", rule, value=value, remedy=remedy)

    def _walk(self, at: _Position, record: object) -> Iterator[tuple[_Position, object]]:
        """(position, coordinates) of every polygon in a GeoJSON object, and of features without one that are kept."""
        fields = cast("dict[str, object]", record) if isinstance(record, dict) else {}
        kind = fields.get("type")
        if not isinstance(kind, str):
            raise self._error(at.where, "must be a GeoJSON object with a type", json.dumps(record)[:80])
        at = replace(at, crs=self._crs(at, fields.get("crs")))
        match kind:
            case "FeatureCollection" | "GeometryCollection":
                name = "features" if kind == "FeatureCollection" else "geometries"
                for index, item in enumerate(self._list(at.member(name), fields.get(name))):
                    yield from self._walk(replace(at, where=at.member(name, index)), item)
            case "Feature":
                yield from self._walk_feature(at, fields)
            case "Polygon":
                yield at, fields.get("coordinates")
            case "MultiPolygon":
                for index, rings in enumerate(self._list(at.member("coordinates"), fields.get("coordinates"))):
                    yield replace(at, where=at.member("coordinates", index), feature=at.feature or at.where), rings
            case "Point" | "MultiPoint" | "LineString" | "MultiLineString" if self.frame == "pixels":
                yield from [(at, _NOTHING)] if self.keep_empty else []
            case _:
                raise self._error(at.where, "must be made of polygons", kind)

    def _walk_feature(self, at: _Position, fields: Mapping[str, object]) -> Iterator[tuple[_Position, object]]:
        given = fields.get("properties")
        properties = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        inner = _Position(at.member("geometry"), at.where or "the feature", properties, at.crs)
        if fields.get("geometry") is not None:
            yield from self._walk(inner, fields["geometry"])
        elif self.keep_empty:
            yield inner, _NOTHING

    def _crs(self, at: _Position, member: object) -> str:
        """The name of a CRS other than WGS84 longitude and latitude; "" for that, and in the frame "pixels"."""
        if member is None:
            return at.crs
        text = json.dumps(member)
        if self.frame == "pixels":
            raise self._error(at.where, "must be in pixels, since the image has no place on the Earth", text[:160])
        if any(name in text for name in _WGS84):
            return ""
        named = cast("dict[str, Any]", member).get("properties") if isinstance(member, dict) else None
        name = cast("dict[str, Any]", named).get("name") if isinstance(named, dict) else None
        if not isinstance(name, str) or not name:
            raise self._error(at.where, "must give its crs by name", text[:160])
        return name

    def _list(self, where: str, value: object) -> list[object]:
        if not isinstance(value, list):
            raise self._error(where, "must be a list", json.dumps(value)[:80])
        return cast("list[object]", value)

    def _polygon(self, at: _Position, rings: object) -> BaseGeometry:
        """A valid polygon of GeoJSON coordinates, in the frame."""
        lines = [
            self._ring(at, f"{at.where} ring {index}".strip(), ring)
            for index, ring in enumerate(self._list(at.where, rings))
        ]
        if not lines:
            raise self._error(at.where, "must have a ring", "none")
        polygon = shapely.Polygon(lines[0], lines[1:])
        if self.frame == "pixels":
            return _polygonal(polygon)
        if not polygon.is_valid:
            raise self._error(at.where, "must be a valid polygon", shapely.is_valid_reason(polygon))
        return polygon

    def _to_lonlat(self, at: _Position, polygon: BaseGeometry) -> BaseGeometry:
        """A polygon in another CRS in longitude and latitude, with vertices that keep its edges straight there."""
        x0, y0, x1, y1 = polygon.bounds
        dense = shapely.segmentize(polygon, max(x1 - x0, y1 - y0) / _PIECES)
        try:
            return shapely.transform(dense, lambda xy: from_crs(at.crs, xy))
        except ReadError as error:
            rule = "must be in a CRS of the Earth that PROJ can read, where that is defined"
            raise self._error(at.where, rule, error.value or at.crs) from error

    def _ring(self, at: _Position, where: str, positions: object) -> Points:
        """A closed ring (N, 2) of GeoJSON positions."""
        try:
            pairs = [(float(p[0]), float(p[1])) for p in cast("list[Any]", positions)]
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            order = "longitude, latitude" if self.frame == "lonlat" else "x, y"
            raise self._error(where, f"must hold positions {order}", json.dumps(positions)[:80]) from error
        points = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
        if len(points) < 4 or (points[0] != points[-1]).any():
            rule = "must have four positions or more and end where it begins"
            raise self._error(where, rule, f"{len(points)} positions")
        if not at.crs and self.frame == "lonlat":
            outside = ~(np.abs(points) <= (180.0, 90.0)).all(axis=1)
            if outside.any():
                rule = "must have longitudes within ±180 and latitudes within ±90"
                raise self._error(where, rule, str(points[outside][0].tolist()))
        elif not np.isfinite(points).all():
            raise self._error(where, "must have finite positions", str(points.tolist())[:80])
        return points
