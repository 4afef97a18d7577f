"""Measurements of findings for reports: areas, bounding boxes, and a point on each, in pixels and in the world.

Vertices of many findings are transformed in one call, so that a hundred thousand findings take seconds.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import shapely

from ..model.finding import Finding
from ..model.findings_table import FindingsTable
from ..model.merged_findings import MergedFindings, columnar, in_batches
from ..model.volume.volume import voxel_ml
from ..readers import areas, geodesy
from ..readers.errors import ReadError
from ..readers.geometry import Placement, Points
from ..readers.image import ImageInfo, Kind, Plane
from .patient_geometry import finding_uids, pixel_area_m2
from .writer import Area, ImageRecord, Record

Shapes = npt.NDArray[np.object_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FindingsBatch:
    """Findings of one image, and their measurements, computed on first use: a row per finding, NaN where not known."""

    record: Record
    image: ImageRecord
    findings: Sequence[Finding]
    first: int = 1
    """The number of the first finding within the image."""
    identifiers: Counter[uuid.UUID] = field(default_factory=Counter[uuid.UUID])
    """How often each identifier was given in earlier batches of the image."""
    label_totals: "LabelTotals" = field(default_factory=lambda: LabelTotals())  # noqa: PLW0108 - defined below
    """Of earlier batches of the image for which `totals` were asked."""
    shared: dict[object, npt.NDArray[Any]] = field(default_factory=dict[object, npt.NDArray[Any]])
    """What one report made of the batch and others need too, by what it is; not to be changed."""

    def __len__(self) -> int:
        return len(self.findings)

    @cached_property
    def table(self) -> FindingsTable:
        """The findings as columns."""
        return self.findings if isinstance(self.findings, FindingsTable) else FindingsTable.of(self.findings)

    @cached_property
    def totals(self) -> "LabelTotals":
        """Counts and areas by label of the image up to this batch, if they were asked of those before it, too."""
        self.label_totals.add(self)
        return self.label_totals

    @property
    def kind(self) -> Kind:
        """The kind of the image."""
        return self.image.info.kind

    @cached_property
    def geometries(self) -> Shapes:
        """(N,) shapely geometries in level-0 pixels."""
        return self.table.geometries

    @cached_property
    def centroids(self) -> Shapes:
        """(N,) shapely points in level-0 pixels."""
        return shapely.centroid(self.geometries)

    @cached_property
    def area_px(self) -> Numbers:
        """(N,) areas in level-0 pixels."""
        return shapely.area(self.geometries)

    @cached_property
    def area_m2(self) -> Numbers:
        """(N,) areas in m²: see `areas_m2`."""
        return areas_m2(self.geometries, self.image.info, self.centroids)

    @cached_property
    def bounds(self) -> Numbers:
        """(N, 4) bounding boxes x0, y0, x1, y1 in level-0 pixels."""
        return self.table.bounds

    @cached_property
    def point(self) -> Points:
        """(N, 2) a level-0 pixel on each finding: its centroid, or GEOS's point on surface where that lies outside."""
        points = self.centroids.copy()
        outside = ~shapely.intersects(self.geometries, points)
        points[outside] = shapely.point_on_surface(self.geometries[outside])
        return shapely.get_coordinates(points).reshape(-1, 2)

    @cached_property
    def lonlat(self) -> Points:
        """(N, 2) the point in WGS84 degrees."""
        return lonlat(self.image.info.placement, self.point)

    @cached_property
    def world(self) -> Points:
        """(N, 2) the point in the placement's unit."""
        placement = self.image.info.placement
        return placement.to_world(self.point) if _is_planar(placement) else np.full((len(self), 2), np.nan)

    @cached_property
    def vertex_bounds(self) -> Numbers:
        """(N, 4) bounding boxes of the vertices in the placement's unit: least x and y, most x and y."""
        placement, counts = self.image.info.placement, self.table.vertices
        if placement.is_upright:  # world x grows or falls with x alone, to the last bit
            corners = np.stack([placement.to_world(corner) for corner in (self.bounds[:, :2], self.bounds[:, 2:])])
            return np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
        bounds, rows = np.full((len(self), 4), np.nan), np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[rows]
        world = placement.to_world(shapely.get_coordinates(self.geometries))
        for axis, values in enumerate(world[:, :2].T) if len(rows) else ():
            bounds[rows, axis] = np.minimum.reduceat(values, starts)
            bounds[rows, 2 + axis] = np.maximum.reduceat(values, starts)
        return bounds

    @property
    def world_bounds(self) -> Numbers:
        """(N, 4) the same of a map or a slide; NaN elsewhere."""
        planar = _is_planar(self.image.info.placement)
        return self.vertex_bounds if planar else np.full((len(self), 4), np.nan)

    @cached_property
    def planes(self) -> list[Plane]:
        """The plane of each finding."""
        return [self.image.info.planes[plane] for plane in self.table.plane.tolist()]

    @cached_property
    def uids(self) -> list[str]:
        """A UID for each finding of a study: see `finding_uids`."""
        return finding_uids(self.image.info, self.findings, self.identifiers)


def batches(record: Record, images: Iterable[ImageRecord] | None = None) -> Iterator[FindingsBatch]:
    """The findings of a run's images, or of some, a few thousand at a time; an empty batch for an image without any."""
    for image in record.images if images is None else images:
        findings, identifiers, totals = columnar(image.findings()), Counter[uuid.UUID](), LabelTotals()
        if not len(findings):
            yield FindingsBatch(record, image, findings, 1, identifiers, totals)
        for start, table in in_batches(findings):
            yield FindingsBatch(record, image, table, start + 1, identifiers, totals)
        if isinstance(findings, MergedFindings) and totals.findings == len(findings):
            _TOTALS[findings] = totals


def _is_planar(placement: Placement) -> bool:
    """Whether world coordinates are known, and have two axes."""
    return placement.has_unit and len(placement.matrix) == 2


def areas_m2(geometries: Shapes, info: ImageInfo, centroids: Shapes | None = None) -> Numbers:
    """Areas (N,) of geometries in level-0 pixels, in m²: on the ellipsoid for maps; NaN where no pixel size is known.

    In a study without a position in the patient they follow from its pixel spacing.
    """
    known = areas.areas_m2(geometries, info.placement, centroids)
    return shapely.area(geometries) * (pixel_area_m2(info) or math.nan) if known is None else known


def lonlat(placement: Placement, xy: Points) -> Points:
    """Level-0 pixels (N, 2) → WGS84 degrees (N, 2); NaN off the Earth: without a CRS on it, or outside its limb."""
    if not geodesy.on_earth(placement):
        return np.full((len(xy), 2), np.nan)
    try:
        return geodesy.to_lonlat(placement, xy)
    except ReadError:  # a pixel lies off the Earth: find out which
        if len(xy) == 1:
            return np.full((1, 2), np.nan)
        half = len(xy) // 2
        return np.concatenate([lonlat(placement, xy[:half]), lonlat(placement, xy[half:])])


@dataclass(frozen=True, slots=True)
class LabelArea:
    """The area of one label in one image; findings that overlap count twice."""

    label: str
    findings: int
    """The number of findings."""
    pixels: float
    m2: float
    """NaN where unknown."""
    share: float
    """Of the analysed area, by m² where known, else by pixels; NaN where nothing was analysed."""
    ml: float = math.nan
    """The volume of its voxels in ml, of a stack that was annotated as a volume; NaN for other images."""


class LabelTotals:
    """Counts and areas by label of one image, batch by batch."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, bool], tuple[list[float], list[float], list[int]]] = {}
        self.findings = 0
        """How many were added."""

    def add(self, batch: FindingsBatch) -> None:
        """Add findings. Tiles and regions count with their valid part."""
        self.findings += len(batch)
        valid = batch.table.numbers.get("valid", np.full(len(batch), np.nan))
        valid = np.where(np.isnan(valid), 1.0, valid)
        pixels, m2 = batch.area_px * valid, batch.area_m2 * valid
        whole = batch.table.kind == "region"
        for label, is_region in {*zip(batch.table.label.tolist(), whole.tolist(), strict=True)}:
            here = (batch.table.label == label) & (whole == is_region)
            sums = self._sums.setdefault((label, is_region), ([], [], []))
            sums[0].extend(exact_sum(pixels[here]))
            sums[1].extend(exact_sum(m2[here]))
            sums[2].append(int(here.sum()))

    def areas(self, record: Record, image: ImageRecord) -> list[LabelArea]:
        """The area of each label, in report order: also the model's labels that were not found.

        Regions count only where no finding is smaller than a region.
        """
        analysed = total_area(area for area in image.areas if area.status == "analysed")
        counted = all(is_region for _, is_region in self._sums)
        voxel = math.nan if image.label_maps is None else voxel_ml(image.info)  # outlines follow the edges of voxels
        result: list[LabelArea] = []
        for label in all_labels(record, [label for label, _ in self._sums]):
            pixels, m2, _ = self._sums.get((label, counted), ((), (), ()))
            number = sum(sum(self._sums.get((label, is_region), ((), (), ()))[2]) for is_region in (False, True))
            area = math.fsum(pixels), math.nan if math.isnan(analysed[1]) else math.fsum(m2)
            result.append(LabelArea(label, number, *area, area_share(area, analysed), area[0] * voxel))
        return result


def exact_sum(values: Numbers) -> tuple[float, float]:
    """A sum and what rounding left of it, so that sums of batches add up as all values would."""
    rows = values.tolist()
    total = math.fsum(rows)
    return total, math.fsum([*rows, -total])


_TOTALS: WeakKeyDictionary[MergedFindings, LabelTotals] = WeakKeyDictionary()
"""Those of all findings of images that were gone through."""


def label_areas(record: Record, image: ImageRecord) -> list[LabelArea]:
    """The area of each label of an image: see `LabelTotals`."""
    findings = image.findings()
    totals = _TOTALS.get(findings) if isinstance(findings, MergedFindings) else None
    if totals is None:
        *_, totals = (batch.totals for batch in batches(record, [image]))
    return totals.areas(record, image)


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
