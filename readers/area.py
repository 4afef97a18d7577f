"""An area of interest: read from GeoJSON in longitude and latitude, placed on a picture in level-0 pixels."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .annotations import AnnotationFile
from .errors import ReadError, RequestError
from .geodesy import from_lonlat, lonlat_or_nan
from .geometry import Placement
from .image import ImageInfo
from .polygon_area import polygon_edges

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
