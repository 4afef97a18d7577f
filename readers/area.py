"""An area of interest: read from GeoJSON in longitude and latitude, placed on a picture in level-0 pixels."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .errors import ReadError, RequestError
from .geodesy import from_lonlat, lonlat_or_nan
from .geometry import Placement, Points
from .image import ImageInfo
from .integral import Edges

_WGS84: Final = ('CRS84"', 'EPSG:4326"', 'EPSG::4326"')  # how names end in the `crs` member of older GeoJSON
_TOLERANCE: Final = 0.05  # pixels an edge may stray from the straight line in longitude and latitude
_SAMPLES: Final = 65  # a side, of the picture's outline and inside
_ROUNDS: Final = 20
_POLYGON: Final = 3  # shapely's type number; those above it have parts


def read_area(path: str) -> BaseGeometry:
    """The union of the polygons in a GeoJSON file (RFC 7946), in longitude and latitude on WGS84.

    Takes Polygon, MultiPolygon, Feature, FeatureCollection and GeometryCollection; a polygon over the antimeridian
    comes split, as RFC 7946 §3.1.9 has it. Heights are dropped, features without geometry passed over. Raises
    `RequestError`, with the place in the file, for anything that is not such a polygon, invalid ones included, for
    coordinates beyond ±180 or ±90 and for a `crs` member other than WGS84.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"area of interest {path}",
            "it must be a GeoJSON file",
            value=str(error),
            remedy="Give a file of polygons in longitude and latitude",
        ) from error
    polygons = [_polygon(path, where, rings) for where, rings in _polygons(path, "", record)]
    if not polygons:
        raise _refusal(path, "", "it must hold a polygon", "none")
    return shapely.union_all(polygons)


def place_area(area: BaseGeometry, info: ImageInfo) -> BaseGeometry:
    """The part of an area in longitude and latitude that lies on the picture, as polygons in level-0 pixels.

    Edges are straight in longitude and latitude, as RFC 7946 says, and stay so within 0.05 px. Raises `RequestError`
    where the picture has no CRS, is not on the Earth, or the area does not touch it.
    """
    try:
        outline = _Outline.of(info)
        pieces = [_placed(piece, info.placement) for piece in outline.near(area)]
    except ReadError as error:
        raise RequestError(
            f"area of interest on {info.id or info.uri}", error.rule, value=error.value, remedy=error.remedy
        ) from error
    picture = shapely.box(0.0, 0.0, *info.size)
    placed = _solid(shapely.union_all(pieces).intersection(picture)) if pieces else None
    if placed is None or placed.is_empty:
        raise RequestError(
            f"area of interest on {info.id or info.uri}",
            "it must touch the picture",
            value=f"the area spans {_spoken(area.bounds)}, the picture {_spoken(outline.bounds)}",
            remedy="Give an area inside the scene, or leave the option out; GeoJSON says longitude first",
        )
    return placed


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
    edges = Edges.of(np.asarray([area], dtype=object))
    start = from_lonlat(placement, edges.start)
    chord = from_lonlat(placement, edges.end) - start
    length = np.hypot(chord[:, 0], chord[:, 1])
    worst = 0.0
    for t in (0.25, 0.5, 0.75):
        off = from_lonlat(placement, edges.start + (edges.end - edges.start) * t) - start
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


def _spoken(bounds: tuple[float, float, float, float]) -> str:
    west, south, east, north = bounds
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"


def _refusal(path: str, where: str, rule: str, value: str) -> RequestError:
    return RequestError(
        f"area of interest {path}{f' at {where}' if where else ''}",
        rule,
        value=value,
        remedy="Give GeoJSON polygons in WGS84 longitude and latitude, such as QGIS saves with RFC 7946 ticked",
    )


def _polygons(path: str, where: str, record: object) -> Iterator[tuple[str, object]]:
    """(where, coordinates) of every polygon in a GeoJSON object."""
    fields = cast("dict[str, object]", record) if isinstance(record, dict) else {}
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise _refusal(path, where, "it must be a GeoJSON object with a type", json.dumps(record)[:80])
    crs = fields.get("crs")
    if crs is not None and not any(name in json.dumps(crs) for name in _WGS84):
        raise _refusal(path, where, "coordinates must be in WGS84", json.dumps(crs)[:160])
    inside = f"{where}." if where else ""
    match kind:
        case "FeatureCollection" | "GeometryCollection":
            name = "features" if kind == "FeatureCollection" else "geometries"
            for index, item in enumerate(_listed(path, f"{inside}{name}", fields.get(name))):
                yield from _polygons(path, f"{inside}{name}[{index}]", item)
        case "Feature":
            if fields.get("geometry") is not None:
                yield from _polygons(path, f"{inside}geometry", fields["geometry"])
        case "Polygon":
            yield where, fields.get("coordinates")
        case "MultiPolygon":
            for index, rings in enumerate(_listed(path, f"{inside}coordinates", fields.get("coordinates"))):
                yield f"{inside}coordinates[{index}]", rings
        case _:
            raise _refusal(path, where, "an area must be made of polygons", kind)


def _listed(path: str, where: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise _refusal(path, where, "it must be a list", json.dumps(value)[:80])
    return cast("list[object]", value)


def _polygon(path: str, where: str, rings: object) -> BaseGeometry:
    """A valid polygon of GeoJSON coordinates."""
    lines = [_ring(path, f"{where} ring {i}".strip(), ring) for i, ring in enumerate(_listed(path, where, rings))]
    if not lines:
        raise _refusal(path, where, "a polygon must have a ring", "none")
    polygon = shapely.Polygon(lines[0], lines[1:])
    if not polygon.is_valid:
        raise _refusal(path, where, "a polygon must be valid", shapely.is_valid_reason(polygon))
    return polygon


def _ring(path: str, where: str, positions: object) -> Points:
    """A closed ring (N, 2) of GeoJSON positions."""
    try:
        pairs = [(float(p[0]), float(p[1])) for p in cast("list[Any]", positions)]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise _refusal(path, where, "positions must be longitude, latitude", json.dumps(positions)[:80]) from error
    points = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    if len(points) < 4 or (points[0] != points[-1]).any():  # noqa: PLR2004 - a triangle, closed
        raise _refusal(path, where, "a ring must have four positions or more and end where it begins", f"{len(points)}")
    beyond = ~(np.abs(points) <= (180.0, 90.0)).all(axis=1)
    if beyond.any():
        raise _refusal(
            path, where, "longitude must lie within ±180 and latitude within ±90", str(points[beyond][0].tolist())
        )
    return points
