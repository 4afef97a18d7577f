"""What reports say of findings in numbers: areas, boxes, and one point on each in every frame.

Vertices of many findings are transformed in one call, so that a hundred thousand findings take seconds.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from ..model.finding import Finding
from ..readers import geodesy
from ..readers.errors import ReadError
from ..readers.geometry import Placement, Points
from .writer import Area, ImageRecord, Record

Shapes = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.float64]

_ROOT_ID = re.compile(r'(?:ID|AUTHORITY)\s*\[\s*"(\w+)"\s*,\s*"?(\w+)"?\s*\]\s*\]\s*$')
_ROOT_NAME = re.compile(r'^\s*\w+\s*\[\s*"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Measures:
    """A row a finding, in the findings' order; NaN where the placement does not tell.

    `area_px` in level-0 pixels and `area_m2` on the ellipsoid; `bounds` (N, 4) the bounding box x0, y0, x1, y1 and
    `point` (N, 2) a point on the finding, both in level-0 pixels; `lonlat` (N, 2) that point in WGS84 degrees and
    `world` (N, 2) in the placement's unit.
    """

    area_px: Numbers
    area_m2: Numbers
    bounds: Numbers
    point: Points
    lonlat: Points
    world: Points


def measure(findings: Sequence[Finding], placement: Placement) -> Measures:
    """Measure findings of one image.

    The point is the centroid where that lies on the finding, else one inside (GEOS's point on surface): the middle of
    a bay's widest part, say.
    """
    geometries = shapes(findings)
    unknown = np.full((len(geometries), 2), np.nan)
    middle = shapely.centroid(geometries)
    outside = ~shapely.intersects(geometries, middle)
    middle[outside] = shapely.point_on_surface(geometries[outside])
    point = shapely.get_coordinates(middle).reshape(-1, 2)
    return Measures(
        area_px=shapely.area(geometries),
        area_m2=areas_m2(geometries, placement),
        bounds=shapely.bounds(geometries).reshape(-1, 4),
        point=point,
        lonlat=lonlat(placement, point),
        world=placement.to_world(point) if placement.known and len(placement.matrix) == 2 else unknown,  # noqa: PLR2004 - a plane
    )


def shapes(findings: Sequence[Finding]) -> Shapes:
    """The findings' geometries, in order."""
    geometries = np.empty(len(findings), dtype=object)
    geometries[:] = [finding.geometry for finding in findings]
    return geometries


def areas_m2(geometries: Shapes, placement: Placement) -> Numbers:
    """Areas of geometries in level-0 pixels, in m² on the ellipsoid; NaN where the placement does not tell."""
    areas = geodesy.areas_m2(geometries, placement)
    return np.full(len(geometries), np.nan) if areas is None else areas


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
    pixels, m2 = shapely.area(geometries) * valid, areas_m2(geometries, image.info.placement) * valid
    analysed = total(area for area in image.areas if area.status == "analysed")
    labels = np.array([finding.label for finding in findings], dtype=object)
    within = np.array([finding.kind != "region" for finding in findings], dtype=np.bool_)
    counted = within if within.any() else ~within
    result: list[LabelArea] = []
    for label in all_labels(record, labels.tolist()):
        here = labels == label
        spread = here & counted
        covered = math.fsum(pixels[spread]), math.nan if math.isnan(analysed[1]) else math.fsum(m2[spread])
        result.append(LabelArea(label, int(here.sum()), *covered, share(covered, analysed)))
    return result


def total(areas: Iterable[Area]) -> tuple[float, float]:
    """Pixels and m² of areas; m² is NaN where one is not known."""
    every = list(areas)
    return (
        math.fsum(area.pixels for area in every),
        math.fsum(math.nan if area.m2 is None else area.m2 for area in every),
    )


def share(part: tuple[float, float], whole: tuple[float, float]) -> float:
    """The part of a whole, both in pixels and m²: by m² where known, else by pixels; NaN of nothing."""
    a, b = (part[0], whole[0]) if math.isnan(whole[1]) else (part[1], whole[1])
    return a / b if b else math.nan


def all_labels(record: Record, found: Sequence[str]) -> list[str]:
    """The model's labels in its order, then others that were found, sorted."""
    return [*record.labels, *sorted(set(found) - set(record.labels))]


def further_columns(record: Record) -> tuple[list[str], list[str]]:
    """Names of the findings' `numbers` and `notes` in the whole record, each sorted."""
    numbers: set[str] = set()
    notes: set[str] = set()
    for image in record.images:
        for finding in image.findings():
            numbers.update(finding.numbers)
            notes.update(finding.notes)
    return sorted(numbers), sorted(notes)
