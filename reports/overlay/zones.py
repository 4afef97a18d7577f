"""The findings of a run by zone: areas, shares, counts and mean scores by label, and how much was analysed.

Findings and the analysed part are cut along the zones' edges exactly. In memory are the zones, their sums, and one
batch of findings.
"""
# shapely and numpy leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from ...readers.errors import RequestError
from ...readers.image import ImageInfo, Kind
from ...readers.zones import Zones
from ..columns import IMAGE, MAP, MODEL, NAME, SLIDE
from ..csv_safety import clean_text
from ..measures import FindingsBatch, Numbers, Shapes, all_labels, areas_m2, batches
from ..table import KINDS, Column, Dtype, columns_for, with_unique_names
from ..writer import ImageRecord, Record
from .analysed import analysed_outlines
from .pieces import Index, Overlay

_WHOLE: Final = 1e-6  # of a zone's area: what rounding may leave


@dataclass(slots=True)
class _Sums:
    """Sums over the findings of one label, (N,) by zone."""

    findings: npt.NDArray[np.int64]
    pixels: Numbers
    m2: Numbers
    scores: Numbers
    """Scores times areas in pixels."""
    scored: Numbers
    """The areas of findings with a score, in pixels."""

    @classmethod
    def of(cls, zones: int) -> "_Sums":
        return cls(np.zeros(zones, dtype=np.int64), *(np.zeros(zones) for _ in range(4)))


class ZoneTotals:
    """Sums over the findings of one image, by zone and label, batch by batch."""

    def __init__(self, placed: Shapes, info: ImageInfo) -> None:
        self._info = info
        self._placed = placed
        self._overlay, self._tree = Overlay(placed), shapely.STRtree(placed)
        shapely.prepare(placed)
        self._sums: dict[tuple[str, bool], _Sums] = {}
        self.inside = shapely.area(placed), areas_m2(placed, info)
        """(N,) areas of the zones' parts on the image, in level-0 pixels and m²."""
        self.analysed = np.zeros(len(placed)), np.zeros(len(placed))
        """(N,) of those, what was analysed."""

    def add_analysed(self, shapes: Shapes) -> None:
        """Add a part of the analysed area."""
        _, zone, pieces = self._overlay.pieces(shapes)
        np.add.at(self.analysed[0], zone, shapely.area(pieces))
        np.add.at(self.analysed[1], zone, areas_m2(pieces, self._info))

    def add(self, batch: FindingsBatch) -> None:
        """Add findings. Tiles and regions count with the share of them that is valid."""
        table = batch.table
        row, zone, pieces = self._overlay.pieces(batch.geometries)
        valid = table.numbers.get("valid", np.full(len(batch), np.nan))[row]
        valid = np.where(np.isnan(valid), 1.0, valid)
        pixels, m2 = shapely.area(pieces) * valid, areas_m2(pieces, self._info) * valid
        score = table.score[row]
        scored = np.where(np.isnan(score), 0.0, pixels)
        counted, at = self._counted(batch)
        whole = table.kind == "region"
        for label, is_region in sorted({*zip(table.label.tolist(), whole.tolist(), strict=True)}):
            chosen = (table.label == label) & (whole == is_region)
            sums = self._sums.setdefault((label, is_region), _Sums.of(len(self._placed)))
            here = chosen[row]
            np.add.at(sums.findings, at[chosen[counted]], 1)
            np.add.at(sums.pixels, zone[here], pixels[here])
            np.add.at(sums.m2, zone[here], m2[here])
            np.add.at(sums.scores, zone[here], (np.nan_to_num(score) * scored)[here])
            np.add.at(sums.scored, zone[here], scored[here])

    def _counted(self, batch: FindingsBatch) -> tuple[Index, Index]:
        """Findings and the zones that they are counted in: those around their point.

        A point on the border of zones counts in the first of them alone.
        """
        points: Any = shapely.points(batch.point)
        row, zone = self._tree.query(points, predicate="intersects")
        within = shapely.contains_properly(self._placed[zone], points[row])
        border = np.flatnonzero(~within & ~np.isin(row, row[within]))
        first = border[np.lexsort((zone[border], row[border]))]
        _, start = np.unique(row[first], return_index=True)
        chosen = np.concatenate([np.flatnonzero(within), first[start]])
        return row[chosen], zone[chosen]

    @property
    def labels(self) -> list[str]:
        """The labels that were found."""
        return sorted({label for label, _ in self._sums})

    def of(self, label: str) -> _Sums:
        """The sums of a label. Areas of whole regions count only where no finding is smaller than one."""
        counted = all(is_region for _, is_region in self._sums)
        sums = replace(self._sums.get((label, counted)) or _Sums.of(len(self._placed)))
        other = self._sums.get((label, not counted))
        sums.findings = sums.findings + (0 if other is None else other.findings)
        return sums


@dataclass(frozen=True)
class ZoneBatch:
    """The zones on one image, or those on none: rows of the table of zones."""

    record: Record
    image: ImageRecord | None
    zones: Zones
    rows: Index
    """(N,) the places of the zones in their file."""
    totals: ZoneTotals | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> Kind | None:
        """The kind of the image."""
        return None if self.image is None else self.image.info.kind

    @cached_property
    def whole(self) -> tuple[Numbers, Numbers]:
        """(N,) areas of whole zones in level-0 pixels and m², where known: also of what lies beside the image."""
        none = np.full(len(self), np.nan)
        if self.totals is None:
            return none, self.zones.areas_m2[self.rows]
        pixels, m2 = (values[self.rows] for values in self.totals.inside)
        if self.zones.lonlat is None:
            every = shapely.area(self.zones.source[self.rows])
            return every, m2 / pixels * every
        every = self.zones.areas_m2[self.rows]
        within = np.abs(m2 / every - 1) < _WHOLE
        return np.where(within, pixels, np.nan), np.where(within, m2, every)

    @cached_property
    def analysed(self) -> tuple[Numbers, Numbers]:
        """(N,) of it what was analysed, in level-0 pixels and m²."""
        if self.totals is None:
            return np.zeros(len(self)), np.zeros(len(self))
        return self.totals.analysed[0][self.rows], self.totals.analysed[1][self.rows]

    @cached_property
    def share(self) -> Numbers:
        """(N,) of the whole zone, by m² where known, else by pixels."""
        by = 0 if np.isnan(self.whole[1]).any() else 1
        share = self.analysed[by] / self.whole[by]
        return np.where(share > 1 - _WHOLE, 1.0, share)

    @cached_property
    def status(self) -> list[str]:
        """(N,) "analysed", "partly analysed", "not analysed" or "outside", which is on no image."""
        if self.totals is None:
            empty = shapely.is_empty(self.zones.source[self.rows])
            return ["no polygon" if one else "outside" for one in empty.tolist()]
        words = np.where(self.share == 1, "analysed", np.where(self.analysed[0] > 0, "partly analysed", "not analysed"))
        return words.tolist()

    def sums(self, label: str, name: str) -> Numbers:
        """(N,) sums of a label; NaN where nothing was analysed, or there was no model."""
        if self.totals is None or not self.record.assessed:
            return np.full(len(self), np.nan)
        found = np.asarray(getattr(self.totals.of(label), name), dtype=np.float64)[self.rows]
        return np.where(self.analysed[0] > 0, found, np.nan)

    def label_share(self, label: str) -> Numbers:
        """(N,) the area of a label by that which was analysed."""
        by = 0 if np.isnan(self.analysed[1]).any() else 1
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums(label, ("pixels", "m2")[by]) / self.analysed[by]

    def mean_score(self, label: str) -> Numbers:
        """(N,) the mean score of a label, weighted by area; NaN without one."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums(label, "scores") / self.sums(label, "scored")


@dataclass(frozen=True)
class ZoneTable:
    """The zones of a run."""

    record: Record
    zones: Zones
    batches: tuple[ZoneBatch, ...]
    """A batch for each image with zones, in the order of the run, then one of the zones on no image."""
    omitted: dict[str, str] = field(default_factory=dict[str, str])
    """Image id → why it has no zones."""

    @cached_property
    def columns(self) -> list[Column[ZoneBatch]]:
        """The columns of the run's kinds of image."""
        kinds: set[Kind] = {batch.kind for batch in self.batches if batch.kind is not None}
        found = [label for batch in self.batches if batch.totals is not None for label in batch.totals.labels]
        labels = all_labels(self.record, found)
        own = [column for label in labels for column in label_columns(label)]
        return [*columns_for([*ZONES, *with_unique_names(own)], kinds), *MODEL]

    @property
    def statements(self) -> list[str]:
        """What a reader of the table must know."""
        statuses = [status for batch in self.batches for status in batch.status]
        found: list[str] = []
        names = {"outside": "on no image", "no polygon": "without a polygon", "not analysed": "not analysed at all"}
        for status, words in names.items():
            if count := statuses.count(status):
                found.append(f"{_zones(count)} {words}: cells are empty, not 0.")
        if count := statuses.count("partly analysed"):
            found.append(f"{_zones(count)} analysed in part: areas are of that part, see analysed_share.")
        if count := int((self.zones.overlaps > 0).sum()):
            found.append(f"{_zones(count)} overlap others: sums over zones count what they share more than once.")
        several = np.unique(np.concatenate([batch.rows for batch in self.batches]), return_counts=True)[1]
        if count := int((several > 1).sum()):
            found.append(
                f"{_zones(count)} lie on several images and have a row for each: where images overlap, join them with"
                " limner merge first."
            )
        return found


def _zones(count: int) -> str:
    return f"{count} {'zone' if count == 1 else 'zones'}"


def zone_table(
    record: Record, images: Sequence[ImageRecord], zones: Zones, on_share: Callable[[float], None] = lambda _: None
) -> ZoneTable:
    """Add up the findings of maps and slides by zone. Raises `RequestError` where no zone lies on an image."""
    found: list[ZoneBatch] = []
    for number, image in enumerate(images):
        placed = zones.on(image.info)
        rows = np.flatnonzero(shapely.area(placed) > 0)
        if not len(rows):
            continue
        totals = ZoneTotals(placed, image.info)
        for shapes in analysed_outlines(image):
            totals.add_analysed(shapes)
        for batch in batches(record, [image]):
            totals.add(batch)
            on_share((number + (batch.first - 1 + len(batch)) / max(1, len(image.findings()))) / len(images))
        found.append(ZoneBatch(record, image, zones, rows, totals))
    if not found:
        bounds = ", ".join(f"{side:.6g}" for side in shapely.total_bounds(zones.source).tolist())
        value = f"{len(zones)} beside every image: {bounds} in {zones.crs or 'pixels'}"
        remedy = "Check that they were drawn on these images, and that their file states the right CRS"
        raise RequestError(zones.subject, "must overlap an image of the run", value=value, remedy=remedy)
    beside = np.setdiff1d(np.arange(len(zones)), np.concatenate([batch.rows for batch in found]))
    if len(beside):
        found.append(ZoneBatch(record, None, zones, beside, None))
    return ZoneTable(record, zones, tuple(found))


def _of_image(column: Column[Any]) -> Column[ZoneBatch]:
    """A column of the image; empty for zones on none."""
    return replace(column, values=lambda batch: None if batch.image is None else column.values(batch))


_STATUS = "analysed, partly analysed, not analysed, outside (on no image) or no polygon"
_ID = "of the column that --id names"
_OVERLAPS = "other zones that it overlaps"
_OF_ZONE = "area of the whole zone, also beside the image"
_ANALYSED = "of it, what was analysed"
_ANALYSED_SHARE = "the part of the whole zone that was analysed"

ZONES: tuple[Column[ZoneBatch], ...] = (
    _of_image(IMAGE),
    _of_image(NAME),
    Column("zone", "int64", "its number in the file, from 1", lambda b: b.rows + 1, topic="identity"),
    Column("zone_id", "string", _ID, lambda b: [b.zones.ids[row] or None for row in b.rows.tolist()], topic="identity"),
    Column("status", "category", _STATUS, lambda b: b.status),
    Column("overlaps", "int64", _OVERLAPS, lambda b: b.zones.overlaps[b.rows]),
    Column("zone_m2", "float64", _OF_ZONE, lambda b: b.whole[1], "m²", kinds=MAP),
    Column("zone_um2", "float64", _OF_ZONE, lambda b: b.whole[1] * 1e12, "µm²", kinds=SLIDE),
    Column("analysed_m2", "float64", _ANALYSED, lambda b: b.analysed[1], "m²", kinds=MAP),
    Column("analysed_um2", "float64", _ANALYSED, lambda b: b.analysed[1] * 1e12, "µm²", kinds=SLIDE),
    Column("analysed_px", "float64", "the same in level-0 pixels", lambda b: b.analysed[0], "px²", 2),
    Column("analysed_share", "float64", _ANALYSED_SHARE, lambda b: b.share, decimals=6),
)
"""Columns of the table of zones. After them come `label_columns` for each label, then `MODEL`."""


def label_columns(label: str) -> list[Column[ZoneBatch]]:
    """The columns of one label: empty where nothing was analysed. Findings that overlap count twice."""

    def column(
        name: str, description: str, values: Callable[[ZoneBatch], Any], unit: str = "", kinds: tuple[Kind, ...] = KINDS
    ) -> Column[ZoneBatch]:
        dtype: Dtype = "Int64" if name == "count" else "float64"
        decimals = {"share": 6, "score": 4, "area_px": 2}.get(name)
        return Column(f"{name}.{clean_text(label)}", dtype, description, values, unit, decimals, kinds)

    return [
        column("count", "findings whose point lies in the zone", lambda b: _whole(b.sums(label, "findings"))),
        column("area_m2", "their area in the zone", lambda b: b.sums(label, "m2"), "m²", MAP),
        column("area_um2", "their area in the zone", lambda b: b.sums(label, "m2") * 1e12, "µm²", SLIDE),
        column("area_px", "the same in level-0 pixels", lambda b: b.sums(label, "pixels"), "px²"),
        column("share", "its part of what was analysed", lambda b: b.label_share(label)),
        column("score", "mean score of the findings in the zone, by area", lambda b: b.mean_score(label)),
    ]


def _whole(numbers: Numbers) -> list[int | None]:
    return [None if math.isnan(number) else int(number) for number in numbers.tolist()]
