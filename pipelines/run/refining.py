"""Makes objects of an image's joined areas, as the settings of objects ask, and keeps account of what that changed.

In this order: strips along the edge of the tissue go; areas that are too small go; holes are filled; areas are split
into instances, of which too small ones go; their intensities are measured; corners of pixels are cut; outlines are
simplified. All of it follows from the joined areas and from the image, and so not from regions or engines. Findings are
gone through a few thousand at a time, and those that change are kept outside of memory where there are many.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely

from ...model.findings_table import BATCH, BATCH_VERTICES, Chunk, FindingsTable, Flags, Floats, Index, Objects, spans
from ...model.merged_findings import MergedFindings, arranged, in_batches
from ...model.objects.borders import MOST_VERTICES, fill_holes, simplify, smooth
from ...model.objects.edge import find_strips, without_strips
from ...model.objects.outlines import follow_pixels
from ...model.objects.watershed import LARGEST, split
from ...model.sorting import connected
from ...readers.errors import LimnerError
from ...readers.image import ImageInfo
from ...reports.measures import areas_m2, exact_sum
from ...reports.writer import Change
from ..object_settings import ALL, Amount, ObjectSettings
from .analysed import MaskedCores, masked_polygons
from .object_pixels import mean_intensities
from .plan import ImagePlan

_ROUNDING: Final = 1e-6  # of a pixel: what shapes that only touch may share

NO_AREAS: Final = "nothing changed: no finding is an area of a class map"
TOO_LARGE: Final = f"not split: the box around it has more than {LARGEST:,} pixels"
UNREADABLE: Final = "intensities not measured: the image cannot be read as it was"
_ROUNDED: Final = 1e-12  # of an area: what sums of its parts may differ from it by
TOO_MANY: Final = f"outlines not changed: those that touch have more than {MOST_VERTICES:,} vertices"


@dataclass
class _Sums:
    """What something changed of the findings of a label."""

    findings: int = 0
    pixels: list[float] = field(default_factory=list[float])
    m2: list[float] = field(default_factory=list[float])
    mentioned: bool = False
    """Whether there is something to tell of it in any case."""


@dataclass
class _Account:
    """What was changed, by label and phrase."""

    info: ImageInfo
    sums: dict[tuple[str, str], _Sums] = field(default_factory=lambda: defaultdict[tuple[str, str], _Sums](_Sums))

    def note(self, what: str, before: FindingsTable, after: FindingsTable) -> None:
        """What became of some findings."""
        for sign, table in ((-1, before), (1, after)):
            pixels, m2 = shapely.area(table.geometries), areas_m2(table.geometries, self.info)
            for label in sorted(set(table.label.tolist())):
                here, sums = table.label == label, self.sums[label, what]
                sums.findings += sign * int(here.sum())
                sums.pixels += exact_sum(sign * pixels[here])
                sums.m2 += exact_sum(sign * m2[here])

    def mention(self, what: str, labels: Sequence[str]) -> None:
        """That something was not done, to a finding of each of these labels."""
        for label in labels:
            self.sums[label, what].mentioned = True

    def changes(self) -> tuple[Change, ...]:
        """All of it that changed anything, by label."""
        found: list[Change] = []
        for (label, what), sums in sorted(self.sums.items()):
            pixels, m2 = round(math.fsum(sums.pixels), 6), math.fsum(sums.m2)
            if abs(m2) <= _ROUNDED * math.fsum(map(abs, sums.m2)):
                m2 = 0.0  # areas that were only divided
            if sums.findings or pixels or sums.mentioned:
                found.append(Change(label, what, sums.findings, pixels, m2))
        return tuple(found)


@dataclass
class Refiner:
    """Makes the objects of one image."""

    plan: ImagePlan
    settings: ObjectSettings
    keep: Callable[[FindingsTable], Chunk]
    """Keeps findings until they are read again."""
    original: Callable[[], ImageInfo]
    """The image's metadata with real paths. Raises `LimnerError`."""
    masked: MaskedCores | None = None
    """What a mask excludes of the cores of regions; None without one."""

    def __post_init__(self) -> None:
        self._account = _Account(self.plan.info)
        sx, sy = self.plan.grid.scale
        self._pixel = sx * sy
        self._patches: shapely.STRtree | None = None

    def __call__(self, found: MergedFindings) -> tuple[MergedFindings, tuple[Change, ...]]:
        """The objects that are made of findings, and what has changed by that."""
        of, settings = self.plan, self.settings
        if of.spec.volume is not None or not len(found):
            return found, ()
        if settings.chosen and not any(table.is_area.any() for _, table in in_batches(found)):
            self._account.mention(NO_AREAS, [""])
            return found, self._account.changes()
        found = self._without_strips(found)
        found = self._without_small(found)
        if settings.fill_holes or settings.instances:
            found = self._filled_and_split(found)
        if settings.instances:
            found = self._with_intensities(self._without_small(found))
        if settings.smooth or settings.simplify:
            found = self._redrawn(found)
        return found, self._account.changes()

    def _rewritten(
        self, found: MergedFindings, change: Callable[[FindingsTable, int], FindingsTable]
    ) -> MergedFindings:
        chunks = [self.keep(change(table, at)) for at, table in in_batches(found)]
        return arranged(chunks)

    def _without_strips(self, found: MergedFindings) -> MergedFindings:
        width, tissue = self.settings.tissue_edge, self.plan.area
        if width is None or not self.plan.tissue or tissue is None or len(self.plan.info.planes) > 1:
            return found
        pixels = width.value if width.unit == "px" else self._grid_pixels(width)
        if not pixels > 0:
            return found
        bounds = np.concatenate([table.bounds for _, table in in_batches(found)])
        strips = find_strips(found, bounds, self.plan.grid, tissue, pixels)
        if not strips:
            return found
        what = f"along the edge of the tissue, up to {width} deep"

        def change(table: FindingsTable, first: int) -> FindingsTable:
            here = {row: strips[first + row] for row in range(len(table)) if first + row in strips}
            if not here:
                return table
            made = without_strips(table, here)
            self._account.note(what, table, made)
            return made

        return self._rewritten(found, change)

    def _grid_pixels(self, length: Amount) -> float:
        """A length in pixels of the analysis; NaN where their size is not known."""
        metres = self.plan.analysis_metres
        return math.nan if metres is None else length.metres / math.sqrt(metres[0] * metres[1])

    def _sizes(self, shapes: Objects, least: Amount) -> Floats:
        """Areas (N,) in the unit of a setting."""
        if least.unit == "px":
            return shapely.area(shapes) / self._pixel
        return areas_m2(shapes, self.plan.info) / (least.metres / least.value)

    def _without_small(self, found: MergedFindings) -> MergedFindings:
        least = self.settings.min_area
        if least is None:
            return found
        kept, planes, largest = np.ones(len(found), dtype=np.bool_), set[int](), 0.0
        for at, table in in_batches(found):
            sizes = self._sizes(table.geometries, least)
            small = table.is_area & (sizes < least.value * (1 - 1e-9))
            largest = max([largest, *sizes[table.is_area].tolist()])
            kept[at : at + len(table)] = ~small
            planes.update(table.plane[~small].tolist())
            if small.any():
                self._account.note(f"smaller than {least}", table.take(np.flatnonzero(small)), FindingsTable.of(()))
        if not kept.any():
            self._account.mention(f"no area is left: the largest has {largest:.6g} {str(least).split()[1]}", [""])
        return found.subset(kept, tuple(sorted(planes)))

    def _filled_and_split(self, found: MergedFindings) -> MergedFindings:
        settings, grid = self.settings, self.plan.grid
        occupied: list[dict[int, shapely.STRtree]] = [self._points(found)] if settings.fill_holes else []

        def change(table: FindingsTable, _: int) -> FindingsTable:
            if settings.fill_holes:
                shapes = table.geometries.copy()
                for plane, tree in occupied[0].items():
                    here = np.flatnonzero(table.is_area & (table.plane == plane) & _polygons(table))
                    shapes[here] = fill_holes(shapes[here], self._fillable, tree)[0]
                table = self._noted("holes filled", table, replace(table, shapes=shapes))
            if settings.instances:
                chosen = table.is_area & (np.isin(table.label, settings.instances) | (ALL in settings.instances))
                made, large = split(table, chosen, grid, settings.neck)
                self._account.mention(TOO_LARGE, sorted(set(table.label[large].tolist())))
                table = self._noted("split into instances", table, made)
            return table

        return self._rewritten(found, change)

    def _noted(self, what: str, before: FindingsTable, after: FindingsTable) -> FindingsTable:
        self._account.note(what, before, after)
        return after

    def _points(self, found: MergedFindings) -> dict[int, shapely.STRtree]:
        """A point on each area, by plane."""
        points: dict[int, list[Objects]] = defaultdict(list)
        for _, table in in_batches(found):
            for plane in np.unique(table.plane[table.is_area]).tolist():
                here = table.is_area & (table.plane == plane)
                points[plane].append(shapely.point_on_surface(table.geometries[here]))
        return {plane: shapely.STRtree(np.concatenate(parts)) for plane, parts in points.items()}

    def _fillable(self, holes: Objects) -> Flags:
        """Which holes are small enough, and within what was analysed as far as that is known without the image."""
        most, area = self.settings.fill_holes, self.plan.area
        small = np.ones(len(holes), dtype=np.bool_)
        if isinstance(most, Amount):
            small = self._sizes(holes, most) <= most.value * (1 + 1e-9)
        if area is not None:
            shapely.prepare(area)
            small[small] = shapely.covers(area, holes[small])
        if self.masked is not None and small.any():
            small[small] = ~self._under_mask(holes[small])
        return small

    def _under_mask(self, holes: Objects) -> Flags:
        """Which holes have a masked pixel, which nobody's finding may cover."""
        if self._patches is None:
            self._patches = shapely.STRtree(masked_polygons(() if self.masked is None else self.masked()))
        hole, patch = self._patches.query(holes, predicate="intersects")
        shared = shapely.area(shapely.intersection(holes[hole], self._patches.geometries[patch]))
        found = np.zeros(len(holes), dtype=np.bool_)
        found[hole[shared > _ROUNDING * self._pixel]] = True
        return found

    def _with_intensities(self, found: MergedFindings) -> MergedFindings:
        try:
            means = mean_intensities(found, self.plan, self.original())
        except LimnerError:
            self._account.mention(UNREADABLE, [""])
            return found

        def change(table: FindingsTable, at: int) -> FindingsTable:
            rows = slice(at, at + len(table))
            measured = {name: values[rows] for name, values in means.items()}
            return replace(table, numbers={**table.numbers, **measured})

        return self._rewritten(found, change)

    def _redrawn(self, found: MergedFindings) -> MergedFindings:
        """With corners cut and outlines simplified, by sets of areas that touch."""
        pixel, length = self.plan.grid.scale, self.settings.simplify
        tolerance = 0.0 if length is None else length.value if length.unit == "px" else self._grid_pixels(length)
        chunks: list[Chunk] = []
        for rows, few in self._sets(found):
            if not few:
                for span in spans(found.vertices[rows]):
                    table = found.take(rows[span])
                    self._account.mention(TOO_MANY, sorted(set(table.label.tolist())))
                    chunks.append(self.keep(table))
                continue
            table = found.take(rows)
            here = np.flatnonzero(table.is_area & follow_pixels(table.geometries, self.plan.grid))
            shapes = table.geometries.copy()
            for plane in np.unique(table.plane[here]).tolist():
                of = here[table.plane[here] == plane]
                if self.settings.smooth:
                    shapes[of] = smooth(shapes[of], pixel)
            table = self._noted("corners of pixels cut", table, replace(table, shapes=shapes))
            if tolerance > 0:
                shapes = shapes.copy()
                for plane in np.unique(table.plane[here]).tolist():
                    of = here[table.plane[here] == plane]
                    shapes[of] = simplify(shapes[of], tolerance, pixel)
                table = self._noted("outlines simplified", table, replace(table, shapes=shapes))
            chunks.append(self.keep(table))
        return arranged(chunks)

    def _sets(self, found: MergedFindings) -> Iterator[tuple[npt.NDArray[np.intp], bool]]:
        """The findings in parts of whole sets of areas that touch; and whether a part has few enough vertices."""
        parts: list[tuple[Floats, npt.NDArray[np.int64]]] = []
        for at, table in in_batches(found):
            alone = -1 - np.arange(at, at + len(table))
            group = np.where(table.is_area, table.plane, alone)
            parts.append((table.bounds, group))
        bounds, group = (np.concatenate(part) for part in zip(*parts, strict=True))

        def touch(a: Index, b: Index) -> Flags:
            same = np.zeros(len(a), dtype=np.bool_)
            for span in spans(found.vertices[a] + found.vertices[b]):
                rows, place = np.unique(np.stack([a[span], b[span]]).astype(np.intp), return_inverse=True)
                shapes = found.take(rows).geometries
                same[span] = shapely.intersects(*shapes[place.reshape(2, -1)])
            return same

        number = connected(bounds, group, touch)
        _, first, index = np.unique(number, return_index=True, return_inverse=True)
        order = np.argsort(first[index], kind="stable")
        ends = [*(np.flatnonzero(np.diff(first[index][order])) + 1).tolist(), len(order)]
        vertices = [0, *np.cumsum(found.vertices[order], dtype=np.int64).tolist()]  # up to each
        start = 0
        for before, end in pairwise([0, *ends]):
            many = end - start >= BATCH or vertices[end] - vertices[start] >= BATCH_VERTICES
            if vertices[end] - vertices[before] > MOST_VERTICES:
                if before > start:
                    yield order[start:before], True
                yield order[before:end], False
                start = end
            elif many or (end == len(order) and end > start):
                yield order[start:end], True
                start = end


def _polygons(table: FindingsTable) -> npt.NDArray[np.bool_]:
    return shapely.get_type_id(table.geometries) == 3
