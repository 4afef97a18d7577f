"""What reports say of findings in numbers: areas, boxes, and one point on each in every frame.

Vertices of many findings are transformed in one call, so that a hundred thousand findings take seconds.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from ..model.finding import Finding
from ..readers import geodesy
from ..readers.errors import ReadError
from ..readers.geometry import Placement, Points
from ..readers.image import ImageInfo, Kind, Plane
from .patient_geometry import pixel_area_m2, planes_of
from .writer import Area, ImageRecord, Record

Shapes = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.float64]

_ROOT_ID = re.compile(r'(?:ID|AUTHORITY)\s*\[\s*"(\w+)"\s*,\s*"?(\w+)"?\s*\]\s*\]\s*$')
_ROOT_NAME = re.compile(r'^\s*\w+\s*\[\s*"([^"]*)"')


@dataclass(frozen=True)
class FindingsBatch:
    """Findings of one image, and what is measured of them, each when it is first asked for: a row a finding, in order.

    `first` is the number of the first one within the image. Where a place or size is not known, numbers are NaN.
    """

    record: Record
    image: ImageRecord
    findings: Sequence[Finding]
    first: int = 1

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def kind(self) -> Kind:
        """The kind of image that the findings are of."""
        return self.image.info.kind

    @cached_property
    def geometries(self) -> Shapes:
        """(N,) shapely geometries in level-0 pixels."""
        return shapes(self.findings)

    @cached_property
    def area_px(self) -> Numbers:
        """(N,) areas in level-0 pixels."""
        return shapely.area(self.geometries)

    @cached_property
    def area_m2(self) -> Numbers:
        """(N,) areas in m²: see `areas_m2`."""
        return areas_m2(self.geometries, self.image.info)

    @cached_property
    def bounds(self) -> Numbers:
        """(N, 4) bounding boxes x0, y0, x1, y1 in level-0 pixels."""
        return shapely.bounds(self.geometries).reshape(-1, 4)

    @cached_property
    def point(self) -> Points:
        """(N, 2) a level-0 pixel on each finding: its centroid, or GEOS's point on surface where that lies outside."""
        middle = shapely.centroid(self.geometries)
        outside = ~shapely.intersects(self.geometries, middle)
        middle[outside] = shapely.point_on_surface(self.geometries[outside])
        return shapely.get_coordinates(middle).reshape(-1, 2)

    @cached_property
    def lonlat(self) -> Points:
        """(N, 2) the point in WGS84 degrees."""
        return lonlat(self.image.info.placement, self.point)

    @cached_property
    def world(self) -> Points:
        """(N, 2) the point in the placement's unit."""
        placement = self.image.info.placement
        return placement.to_world(self.point) if on_plane(placement) else np.full((len(self), 2), np.nan)

    @cached_property
    def world_bounds(self) -> Numbers:
        """(N, 4) bounding boxes of the vertices in the placement's unit: least x and y, most x and y."""
        placement = self.image.info.placement
        vertices, owner = shapely.get_coordinates(self.geometries, return_index=True)
        bounds = np.full((len(self), 4), np.nan)
        if on_plane(placement) and len(vertices):
            world = placement.to_world(vertices)
            whose, starts = np.unique(owner, return_index=True)
            bounds[whose, :2] = np.minimum.reduceat(world, starts)
            bounds[whose, 2:] = np.maximum.reduceat(world, starts)
        return bounds

    @cached_property
    def planes(self) -> list[Plane]:
        """The plane of each finding."""
        return planes_of(self.image.info, self.findings)


def on_plane(placement: Placement) -> bool:
    """Whether the world is known, and has two axes."""
    return placement.has_unit and len(placement.matrix) == 2


def shapes(findings: Sequence[Finding]) -> Shapes:
    """The findings' geometries, in order."""
    geometries = np.empty(len(findings), dtype=object)
    geometries[:] = [finding.geometry for finding in findings]
    return geometries


def areas_m2(geometries: Shapes, info: ImageInfo) -> Numbers:
    """Areas (N,) of geometries in level-0 pixels, in m²: on the ellipsoid for maps; NaN where no pixel size is known.

    A study without a place in the patient has the areas that follow from its pixel spacing.
    """
    areas = geodesy.areas_m2(geometries, info.placement)
    if areas is None:
        return shapely.area(geometries) * (pixel_area_m2(info) or math.nan)
    return areas


def lonlat(placement: Placement, xy: Points) -> Points:
    """Level-0 pixels (N, 2) → WGS84 degrees (N, 2); NaN off the Earth: without a CRS on it, or beyond its limb."""
    if not geodesy.on_earth(placement):
        return np.full((len(xy), 2), np.nan)
    try:
        return geodesy.to_lonlat(placement, xy)
    except ReadError:  # some pixel looks past the Earth: find out which
        if len(xy) == 1:
            return np.full((1, 2), np.nan)
        middle = len(xy) // 2
        return np.concatenate([lonlat(placement, xy[:middle]), lonlat(placement, xy[middle:])])


def crs_name(crs: str | None) -> str:
    """A CRS in a word: "EPSG:32618" where its WKT says that it is exactly that, else its name; "" without one."""
    if not crs:
        return ""
    code = _ROOT_ID.search(crs)
    if code:
        return f"{code[1]}:{code[2]}"
    name = _ROOT_NAME.match(crs)
    return name[1] if name else crs


@dataclass(frozen=True, slots=True)
class LabelArea:
    """What one label covers in one image: `m2` is NaN where unknown; findings that overlap count twice.

    `share` is the part of the analysed area, by m² where known, else by pixels; NaN where nothing was analysed.
    """

    label: str
    findings: int
    pixels: float
    m2: float
    share: float


def label_areas(record: Record, image: ImageRecord, findings: Sequence[Finding]) -> list[LabelArea]:
    """What each label covers, in report order: also the model's labels that were not found.

    A tile or region counts with the part of it that is valid, and a region not where there are findings within regions.
    """
    geometries = shapes(findings)
    valid = np.array([finding.numbers.get("valid", 1.0) for finding in findings], dtype=np.float64)
    pixels, m2 = shapely.area(geometries) * valid, areas_m2(geometries, image.info) * valid
    analysed = total_area(area for area in image.areas if area.status == "analysed")
    labels = np.array([finding.label for finding in findings], dtype=object)
    within = np.array([finding.kind != "region" for finding in findings], dtype=np.bool_)
    counted = within if within.any() else ~within
    result: list[LabelArea] = []
    for label in all_labels(record, labels.tolist()):
        here = labels == label
        spread = here & counted
        covered = math.fsum(pixels[spread]), math.nan if math.isnan(analysed[1]) else math.fsum(m2[spread])
        result.append(LabelArea(label, int(here.sum()), *covered, area_share(covered, analysed)))
    return result


def total_area(areas: Iterable[Area]) -> tuple[float, float]:
    """Pixels and m² of areas; m² is NaN where one is not known."""
    every = list(areas)
    return (
        math.fsum(area.pixels for area in every),
        math.fsum(math.nan if area.m2 is None else area.m2 for area in every),
    )


def area_share(part: tuple[float, float], whole: tuple[float, float]) -> float:
    """The part of a whole, both in pixels and m²: by m² where known, else by pixels; NaN of nothing."""
    a, b = (part[0], whole[0]) if math.isnan(whole[1]) else (part[1], whole[1])
    return a / b if b else math.nan


def all_labels(record: Record, found: Sequence[str]) -> list[str]:
    """The model's labels in its order, then others that were found, sorted."""
    return [*record.labels, *sorted(set(found) - set(record.labels))]
