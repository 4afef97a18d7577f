"""What a person drew: the polygons of a GeoJSON file with what is written beside them. The one way of reading it.

Two frames, as the picture has them: longitude and latitude for maps (RFC 7946, or the `crs` member that GeoJSON of
2008 had and QGIS still writes), pixels for all else, as QuPath exports them.
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
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .errors import ReadError, RequestError, excerpt
from .files import MAX_FILE_BYTES, parse_json, read_file
from .geodesy import from_lonlat, lonlat_or_nan, polygon_edges, to_lonlat
from .geometry import Placement, Points
from .image import ImageInfo

Frame = Literal["lonlat", "pixels"]

_WGS84: Final = ('CRS84"', 'EPSG:4326"', 'EPSG::4326"')  # how names end in the `crs` member of older GeoJSON
_PIECES: Final = 64  # edges straight in a projected CRS are bent by less than that squared of a polygon's own bow


@dataclass(frozen=True, slots=True)
class AnnotatedPolygon:
    """One polygon of a file. `where` is its place in it, `feature` the place of what it is a part of.

    `geometry` is in longitude and latitude or in pixels, as the file was read. `properties` are its feature's.
    """

    where: str
    feature: str
    geometry: BaseGeometry
    properties: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a file one is, and what holds from there downwards."""

    where: str = ""
    feature: str = ""
    properties: Mapping[str, Any] | None = None
    crs: str = ""

    def at(self, name: str, index: int | None = None) -> str:
        """The place of a member."""
        inside = f"{self.where}.{name}" if self.where else name
        return inside if index is None else f"{inside}[{index}]"


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A file, what it is called in errors, and the frame in which it is read."""

    path: str
    subject: str
    frame: Frame

    def shapes(self) -> list[AnnotatedPolygon]:
        """All polygons, in the file's order.

        Takes Polygon, MultiPolygon, Feature, FeatureCollection and GeometryCollection; for pixels also a list of
        those and `.gz`, as QuPath exports them, with points and lines passed over and crossed rings mended. A polygon
        over the antimeridian comes split, as RFC 7946 §3.1.9 has it. Heights are dropped, features without geometry
        passed over. Raises `RequestError`, with the place in the file, for anything else: invalid polygons of
        maps, coordinates beyond ±180 or ±90, a CRS that is not known, and any CRS where pixels are meant.
        """
        record = self._record()
        if self.frame == "pixels" and isinstance(record, list):
            record = cast("object", {"type": "FeatureCollection", "features": record})
        found = [
            AnnotatedPolygon(
                place.where, place.feature or place.where, self._solid(place, rings), place.properties or {}
            )
            for place, rings in self._polygons(_Place(), record)
        ]
        return [shape for shape in found if not shape.geometry.is_empty]

    def _record(self) -> object:
        try:
            content = read_file(self.path)
            if self.path.endswith(".gz") and self.frame == "pixels":
                content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, f"it has more than {MAX_FILE_BYTES // 2**20} MiB")  # noqa: TRY301 - as `read_file` does
            return parse_json(content.decode("utf-8-sig"), constants=True)  # QuPath measures NaN
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise RequestError(
                self.subject,
                "it must be a GeoJSON file",
                value=excerpt(str(error)),
                remedy=f"Give a file of {self._wanted}",
            ) from error

    @property
    def _wanted(self) -> str:
        return "polygons in longitude and latitude" if self.frame == "lonlat" else "polygons in pixels"

    def _refusal(self, where: str, rule: str, value: str) -> RequestError:
        remedy = "Give GeoJSON polygons in WGS84 longitude and latitude, such as QGIS saves with RFC 7946 ticked"
        if self.frame == "pixels":
            remedy = "Give GeoJSON polygons in pixels, such as QuPath exports"
        return RequestError(f"{self.subject}{f' at {where}' if where else ''}", rule, value=value, remedy=remedy)

    def _polygons(self, place: _Place, record: object) -> Iterator[tuple[_Place, object]]:
        """(place, coordinates) of every polygon in a GeoJSON object."""
        fields = cast("dict[str, object]", record) if isinstance(record, dict) else {}
        kind = fields.get("type")
        if not isinstance(kind, str):
            raise self._refusal(place.where, "it must be a GeoJSON object with a type", json.dumps(record)[:80])
        crs = self._crs(place, fields.get("crs"))
        match kind:
            case "FeatureCollection" | "GeometryCollection":
                name = "features" if kind == "FeatureCollection" else "geometries"
                for index, item in enumerate(self._listed(place.at(name), fields.get(name))):
                    inner = _Place(place.at(name, index), place.feature, place.properties, crs)
                    yield from self._polygons(inner, item)
            case "Feature":
                if fields.get("geometry") is not None:
                    beside = fields.get("properties")
                    properties = cast("dict[str, Any]", beside) if isinstance(beside, dict) else {}
                    inner = _Place(place.at("geometry"), place.where or "the feature", properties, crs)
                    yield from self._polygons(inner, fields["geometry"])
            case "Polygon":
                yield _Place(place.where, place.feature, place.properties, crs), fields.get("coordinates")
            case "MultiPolygon":
                for index, rings in enumerate(self._listed(place.at("coordinates"), fields.get("coordinates"))):
                    whole = place.feature or place.where
                    yield _Place(place.at("coordinates", index), whole, place.properties, crs), rings
            case "Point" | "MultiPoint" | "LineString" | "MultiLineString" if self.frame == "pixels":
                return
            case _:
                raise self._refusal(place.where, "an area must be made of polygons", kind)

    def _crs(self, place: _Place, member: object) -> str:
        """The name of a CRS that is not longitude and latitude on WGS84; "" for those and for pixels."""
        if member is None:
            return place.crs
        text = json.dumps(member)
        if self.frame == "pixels":
            raise self._refusal(place.where, "a picture without a place on the Earth is drawn on in pixels", text[:160])
        if any(name in text for name in _WGS84):
            return ""
        named = cast("dict[str, Any]", member).get("properties") if isinstance(member, dict) else None
        name = cast("dict[str, Any]", named).get("name") if isinstance(named, dict) else None
        if not isinstance(name, str) or not name:
            raise self._refusal(place.where, "a crs must be named", text[:160])
        return name

    def _listed(self, where: str, value: object) -> list[object]:
        if not isinstance(value, list):
            raise self._refusal(where, "it must be a list", json.dumps(value)[:80])
        return cast("list[object]", value)

    def _solid(self, place: _Place, rings: object) -> BaseGeometry:
        """A valid polygon of GeoJSON coordinates, in the frame."""
        where = place.where
        lines = [self._ring(place, f"{where} ring {i}".strip(), r) for i, r in enumerate(self._listed(where, rings))]
        if not lines:
            raise self._refusal(where, "a polygon must have a ring", "none")
        polygon = shapely.Polygon(lines[0], lines[1:])
        if self.frame == "pixels":
            return _mended(polygon)
        if not polygon.is_valid:
            raise self._refusal(where, "a polygon must be valid", shapely.is_valid_reason(polygon))
        return self._unprojected(polygon, place) if place.crs else polygon

    def _ring(self, place: _Place, where: str, positions: object) -> Points:
        """A closed ring (N, 2) of GeoJSON positions."""
        try:
            pairs = [(float(p[0]), float(p[1])) for p in cast("list[Any]", positions)]
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            rule = "positions must be longitude, latitude" if self.frame == "lonlat" else "positions must be x, y"
            raise self._refusal(where, rule, json.dumps(positions)[:80]) from error
        points = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
        if len(points) < 4 or (points[0] != points[-1]).any():
            rule = "a ring must have four positions or more and end where it begins"
            raise self._refusal(where, rule, f"{len(points)}")
        if not place.crs and self.frame == "lonlat":
            beyond = ~(np.abs(points) <= (180.0, 90.0)).all(axis=1)
            if beyond.any():
                rule = "longitude must lie within ±180 and latitude within ±90"
                raise self._refusal(where, rule, str(points[beyond][0].tolist()))
        elif not np.isfinite(points).all():
            raise self._refusal(where, "positions must be finite numbers", str(points.tolist())[:80])
        return points

    def _unprojected(self, polygon: BaseGeometry, place: _Place) -> BaseGeometry:
        """A polygon of a CRS in longitude and latitude, with vertices so close that its edges stay where they were."""
        x0, y0, x1, y1 = polygon.bounds
        dense = shapely.segmentize(polygon, max(x1 - x0, y1 - y0) / _PIECES)
        try:
            return shapely.transform(dense, lambda xy: from_crs(place.crs, xy))
        except ReadError as error:
            raise self._refusal(place.where, error.rule, error.value or place.crs) from error


def from_crs(crs: str, xy: Points) -> Points:
    """Points (N, 2) of a CRS, by any name that PROJ knows, x first → longitude and latitude on WGS84 (N, 2).

    Raises `ReadError` for an unknown CRS, one that is not on the Earth, and points where it is not defined.
    """
    return to_lonlat(Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "crs", crs=crs, source=f"the CRS {crs}"), xy)


def _mended(polygon: BaseGeometry) -> BaseGeometry:
    """The polygons in what a hand drew, where its line may cross itself; empty where it encloses nothing."""
    parts = np.asarray([shapely.make_valid(polygon)], dtype=object)
    while (shapely.get_type_id(parts) > 3).any():
        parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.get_type_id(parts) == 3])


_TOLERANCE: Final = 0.05  # pixels an edge may stray from the straight line in longitude and latitude
_SAMPLES: Final = 65  # a side, of the picture's outline and inside
_ROUNDS: Final = 20
_POLYGON: Final = 3  # shapely's type number; those above it have parts


def read_roi(path: str) -> BaseGeometry:
    """The union of the polygons in a GeoJSON file, in longitude and latitude on WGS84.

    Raises `RequestError` as `AnnotationFile.shapes` does, and where there is no polygon.
    """
    subject = f"area of interest {path}"
    shapes = AnnotationFile(path, subject, "lonlat").shapes()
    if not shapes:
        raise RequestError(
            subject, "it must hold a polygon", value="none", remedy="Draw where it is worth looking, and save that"
        )
    return shapely.union_all([shape.geometry for shape in shapes])


def roi_to_pixels(area: BaseGeometry, info: ImageInfo) -> BaseGeometry:
    """The part of an area in longitude and latitude that lies on the picture, as polygons in level-0 pixels.

    Edges are straight in longitude and latitude, as RFC 7946 says, and stay so within 0.05 px. Raises `RequestError`
    where the picture has no CRS, is not on the Earth, or the area does not touch it.
    """
    subject = f"area of interest on {info.id or info.uri}"
    try:
        [placed] = polygons_to_pixels([area], info)
    except ReadError as error:
        raise RequestError(subject, error.rule, value=error.value, remedy=error.remedy) from error
    if placed.is_empty:
        raise RequestError(
            subject,
            "it must touch the picture",
            value=f"the area spans {format_bounds(area.bounds)}, the picture {format_bounds(lonlat_bounds(info))}",
            remedy="Give an area inside the scene, or leave the option out; GeoJSON says longitude first",
        )
    return placed


def polygons_to_pixels(areas: Sequence[BaseGeometry], info: ImageInfo) -> list[BaseGeometry]:
    """For each area in longitude and latitude what `roi_to_pixels` says, empty where it does not touch the picture.

    Raises `ReadError` where the picture has no CRS or is not on the Earth.
    """
    outline = _Outline.of(info)
    picture = shapely.box(0.0, 0.0, *info.size)
    placed: list[BaseGeometry] = []
    for area in areas:
        pieces = [_placed(piece, info.placement) for piece in outline.near(area)]
        placed.append(_solid(shapely.union_all(pieces).intersection(picture)) if pieces else shapely.Polygon())
    return placed


def lonlat_bounds(info: ImageInfo) -> tuple[float, float, float, float]:
    """The longitudes and latitudes in which a picture lies, generously: west, south, east, north in degrees.

    Raises `ReadError` as `polygons_to_pixels` does.
    """
    return _Outline.of(info).bounds


def format_bounds(bounds: tuple[float, float, float, float]) -> str:
    """Bounds (west, south, east, north) in words."""
    west, south, east, north = bounds
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"


@dataclass(frozen=True, slots=True)
class _Outline:
    """The longitudes and latitudes a picture lies in, generously: (west, south, east, north) in degrees.

    Longitudes are those that lead to the picture's own pixels: a grid from 0 to 360 has none below 0.
    """

    bounds: tuple[float, float, float, float]

    @classmethod
    def of(cls, info: ImageInfo) -> "_Outline":
        """The outline of a picture. Raises `ReadError` where it has no place on the Earth."""
        x, y = (np.linspace(0.0, side, _SAMPLES) for side in info.size)
        pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        lonlat = lonlat_or_nan(info.placement, pixels)
        on_map = np.flatnonzero(np.isfinite(lonlat).all(axis=1))
        if not on_map.size:
            raise ReadError(
                f"placement from {info.placement.source}",
                "some of the picture must lie on the Earth",
                remedy="Leave the area of interest out",
            )
        middle = on_map[np.abs(on_map - len(pixels) // 2).argmin()]
        centre = lonlat[middle, 0]
        turns = (0.0, 360.0, -360.0)
        misses = [
            np.abs(from_lonlat(info.placement, lonlat[middle] + (turn, 0.0)) - pixels[middle]).max() for turn in turns
        ]
        centre += turns[int(np.argmin(misses))]
        lon = centre + (lonlat[on_map, 0] - centre + 180.0) % 360.0 - 180.0
        lat = lonlat[on_map, 1]
        west, south, east, north = lon.min(), lat.min(), lon.max(), lat.max()
        pad = 1e-6 + max(east - west, north - south) / (_SAMPLES // 2)
        west, south, east, north = west - pad, max(-90.0, south - pad), east + pad, min(90.0, north + pad)
        return cls((float(west), float(south), float(east), float(north)))

    def near(self, area: BaseGeometry) -> list[BaseGeometry]:
        """The parts of an area that lie in the outline, each with the longitudes of the picture."""
        frame = shapely.box(*self.bounds)
        turned = (
            shapely.transform(area, lambda lonlat, turn=turn: np.add(lonlat, (turn, 0.0)))
            for turn in (-360.0, 0.0, 360.0)
        )
        pieces = (_solid(piece.intersection(frame)) for piece in turned)
        return [piece for piece in pieces if not piece.is_empty]


def _placed(area: BaseGeometry, placement: Placement) -> BaseGeometry:
    """Longitude and latitude → level-0 pixels, with vertices added until edges stay within the tolerance."""
    west, south, east, north = area.bounds
    step = max(east - west, north - south)
    dense = area
    for _ in range(_ROUNDS):
        bow = _bow(dense, placement)
        if bow <= _TOLERANCE:
            break
        step /= min(8.0, 1.2 * math.sqrt(bow / _TOLERANCE))
        dense = shapely.segmentize(area, step)
    return _solid(shapely.transform(dense, lambda lonlat: from_lonlat(placement, lonlat)))


def _bow(area: BaseGeometry, placement: Placement) -> float:
    """How many pixels any edge, straight in longitude and latitude, strays from the straight line in pixels."""
    _, first, last = polygon_edges(np.asarray([area], dtype=object))
    start = from_lonlat(placement, first)
    chord = from_lonlat(placement, last) - start
    length = np.hypot(chord[:, 0], chord[:, 1])
    worst = 0.0
    for t in (0.25, 0.5, 0.75):
        off = from_lonlat(placement, first + (last - first) * t) - start
        across = np.abs(off[:, 0] * chord[:, 1] - off[:, 1] * chord[:, 0])
        stray = np.divide(across, length, out=np.hypot(off[:, 0], off[:, 1]), where=length > 0)
        worst = max(worst, float(stray.max()))
    return worst


def _solid(geometry: BaseGeometry) -> BaseGeometry:
    """The polygons in a geometry, made valid where a map folded them."""
    parts = np.asarray([shapely.make_valid(geometry)], dtype=object)
    while (shapely.get_type_id(parts) > _POLYGON).any():
        parts = shapely.get_parts(parts)
    return shapely.union_all(parts[shapely.get_type_id(parts) == _POLYGON])
