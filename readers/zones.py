"""Zones: polygons such as fields, districts or compartments, for each of which the findings of a run are added up.

A zone is a feature of a file that `annotations.read_polygons` reads, with all its polygons. Its edges are straight in
the CRS of its file, or in pixels.
"""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from .annotations import AnnotatedPolygon, Frame, lonlat_bounds, polygons_to_pixels, read_polygons
from .areas import areas_m2
from .errors import RequestError, did_you_mean, excerpt
from .geodesy import stated_crs
from .geometry import Placement
from .image import ImageInfo
from .remap import PixelMapping, Shapes, polygonal, same_crs
from .vectors import vector_digest

WGS84: Final = "EPSG:4326"


@dataclass(frozen=True)
class Zones:
    """The zones of a file, in its order."""

    subject: str
    """Names the file in errors."""
    ids: tuple[str, ...]
    """Of the column that was asked for; all "" without one."""
    source: Shapes
    """(N,) as the file has them; empty for a feature without a polygon."""
    lonlat: Shapes | None
    """(N,) in longitude and latitude; None where zones are in pixels."""
    crs: str
    """The CRS of `source` in any notation of PROJ; "" in pixels."""
    sha256: str
    """Of the file."""

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def placement(self) -> Placement:
        """The placement of `source`."""
        if self.lonlat is None:
            return Placement.pixels()
        crs = stated_crs(self.crs)
        return Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), crs.unit, crs.wkt, source=self.subject)

    @cached_property
    def areas_m2(self) -> Any:
        """(N,) areas of whole zones in m² on the ellipsoid; NaN in pixels."""
        found = areas_m2(self.source, self.placement)
        return np.full(len(self), np.nan) if found is None else found

    @cached_property
    def overlaps(self) -> Any:
        """(N,) of how many other zones each covers a part, but for slivers of a millionth of the smaller."""
        counts = np.zeros(len(self), dtype=np.int64)
        a, b = shapely.STRtree(self.source).query(self.source, predicate="intersects")
        pairs = a < b
        a, b = a[pairs], b[pairs]
        apart = shapely.touches(self.source[a], self.source[b])
        a, b = a[~apart], b[~apart]
        common = shapely.area(shapely.intersection(self.source[a], self.source[b]))
        real = common > 1e-6 * np.minimum(shapely.area(self.source[a]), shapely.area(self.source[b]))
        for side in (a[real], b[real]):
            np.add.at(counts, side, 1)
        return counts

    def on(self, info: ImageInfo) -> Shapes:
        """The zones (N,) in level-0 pixels of an image, clipped to it; empty for those beside it.

        Raises `ReadError` for zones of the Earth on an image that has no place there.
        """
        image = shapely.box(0.0, 0.0, *info.size)
        if self.lonlat is None:
            moved: Any = shapely.transform(self.source, lambda xy: xy + info.origin)  # QuPath counts from there
            return polygonal(shapely.intersection(moved, image))
        placement = info.placement
        if placement.crs and placement.warp is None and placement.unit != "deg" and same_crs(self.crs, placement.crs):
            return polygonal(shapely.intersection(PixelMapping(placement.to_pixel, straight=True)(self.source), image))
        west, south, east, north = lonlat_bounds(info)
        x0, y0, x1, y1 = shapely.bounds(self.lonlat).T
        near = np.zeros(len(self), dtype=np.bool_)
        with np.errstate(invalid="ignore"):  # empty ones have no bounds
            for turn in (-360.0, 0.0, 360.0):
                near |= (x0 + turn <= east) & (x1 + turn >= west) & (y0 <= north) & (y1 >= south)
        placed = np.full(len(self), shapely.Polygon(), dtype=object)
        rows = np.flatnonzero(near)
        placed[rows] = polygons_to_pixels(self.lonlat[rows].tolist(), info)
        return placed


def read_zones(path: str, frame: Frame, *, column: str = "") -> Zones:
    """Read the zones of a file; with `column` each has the id that stands there, which no other zone may have.

    path: as for `annotations.read_polygons`, which states the formats and the layers.

    Raises `RequestError` as `read_polygons` does, and for a file without zones, an unknown column, a zone without an id
    and two with the same.
    """
    subject = f"the zones {path}"
    found = read_polygons(path, subject, frame, keep_empty=True)
    features: dict[str, list[AnnotatedPolygon]] = {}
    for one in found:
        features.setdefault(one.feature, []).append(one)
    if not any(not one.geometry.is_empty for one in found):
        value = f"{len(features)} features without one" if features else "no features"
        raise RequestError(subject, "must contain a polygon", value=value, remedy="Draw the zones as polygons")
    systems = {one.crs for one in found if not one.geometry.is_empty}
    same = len(systems) == 1
    source = [_joined(subject, [one.source if same else one.geometry for one in parts]) for parts in features.values()]
    lonlat = [_joined(subject, [one.geometry for one in parts]) for parts in features.values()]
    return Zones(
        subject,
        _ids(column, [parts[0].properties for parts in features.values()]),
        np.array([*source, None], dtype=object)[:-1],
        None if frame == "pixels" else np.array([*lonlat, None], dtype=object)[:-1],
        "" if frame == "pixels" else (systems.pop() if same else "") or WGS84,
        vector_digest(path),
    )


def _joined(subject: str, polygons: Sequence[BaseGeometry]) -> BaseGeometry:
    """The polygons of one zone as one geometry. Raises `RequestError` where they overlap."""
    if len(polygons) == 1:
        return polygons[0]
    parts = [part for one in polygons for part in shapely.get_parts(one).tolist()]
    whole = shapely.MultiPolygon(parts)
    if whole.is_valid:
        return whole
    united = shapely.union_all(parts)
    if united.area >= shapely.area(whole) * (1 - 1e-9):  # they only share edges
        return united
    remedy = "Repair it, for example with Fix geometries in QGIS"
    value = shapely.is_valid_reason(whole)
    raise RequestError(subject, "must be made of polygons whose parts do not overlap", value=value, remedy=remedy)


def _ids(column: str, properties: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    if not column:
        return ("",) * len(properties)
    known = sorted({name for row in properties for name in row})
    if column not in known:
        remedy = f"{did_you_mean(column, known)}Columns: {excerpt(', '.join(known) or 'none', 300)}"
        raise RequestError(f"--id {column}", "must be a column of the zones", remedy=remedy)
    ids = tuple(_text(row.get(column)) for row in properties)
    if empty := [str(number) for number, one in enumerate(ids, 1) if not one]:
        value = f"none for {len(empty)} of {len(ids)}, zone {empty[0]} first"
        remedy = "Fill the column, or leave --id out to number the zones"
        raise RequestError(f"--id {column}", "must have a value for every zone", value=value, remedy=remedy)
    if twice := [(one, count) for one, count in Counter(ids).items() if count > 1]:
        value = f"{excerpt(twice[0][0])} for {twice[0][1]} zones"
        remedy = "Choose a column whose values differ, dissolve zones of one id, or leave --id out"
        raise RequestError(f"--id {column}", "must be different for every zone", value=value, remedy=remedy)
    return ids


def _text(value: object) -> str:
    """A value as an id: QuPath's classification by its name, and whole numbers without decimals."""
    if isinstance(value, dict):
        value = cast("Mapping[str, Any]", value).get("name")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()
