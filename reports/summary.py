"""Tables of a whole run: summary.csv (a row per image), areas.csv (a row per label or status), files.csv (per file)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from ..readers import geodesy
from ..readers.image import Kind
from .columns import COUNTED, IMAGE, MAP, MODEL, NAME, SLIDE, STUDY, TISSUE
from .csv_safety import clean_text
from .measures import LabelArea, LabelTotals, area_share, label_areas, total_area
from .streams import Stream, write_stream
from .table import KINDS, Column, Dtype, Rows, attribute, columns_for, with_unique_names, write_csv
from .writer import FileRow, ImageRecord, Record

_KM2, _MM2 = 1e-6, 1e6  # per m²


@dataclass(frozen=True)
class ImageSummary:
    """One image's row of summary.csv."""

    record: Record
    image: ImageRecord
    labels: dict[str, LabelArea]
    """The area of each label by name."""
    findings: int | None
    """The number of all findings; None without a model."""

    @classmethod
    def of(cls, record: Record, image: ImageRecord) -> Self:
        """The row of an image, whose findings are read once."""
        return cls.of_areas(record, image, label_areas(record, image))

    @classmethod
    def of_areas(cls, record: Record, image: ImageRecord, areas: Sequence[LabelArea]) -> Self:
        """The row of an image with these areas of its labels."""
        return cls(record, image, {of.label: of for of in areas}, record.count(sum(of.findings for of in areas)))

    def __len__(self) -> int:
        return 1

    @property
    def kind(self) -> Kind:
        """The kind of the image."""
        return self.image.info.kind

    @cached_property
    def whole(self) -> tuple[float, float]:
        """The image's area in level-0 pixels and m², NaN where not known."""
        return total_area(self.image.areas)

    @cached_property
    def analysed(self) -> tuple[float, float]:
        """The analysed area in level-0 pixels and m², NaN where not known."""
        return total_area(area for area in self.image.areas if area.status == "analysed")

    @property
    def facts(self) -> dict[str, str]:
        """Metadata of the image that its reader states."""
        return dict(self.image.info.facts)

    def label(self, name: str) -> LabelArea:
        """The area of a label: 0 where it was not found."""
        nothing = (0.0, 0.0 * self.analysed[1])
        return self.labels.get(name) or LabelArea(name, 0, *nothing, area_share(nothing, self.analysed))

    def density(self, of: LabelArea, per_m2: float) -> float:
        """Findings per unit of the analysed area, of which a m² has `per_m2`."""
        area = self.analysed[1] * per_m2
        return of.findings / area if area else math.nan

    @property
    def regions(self) -> int:
        """Number of the image's regions."""
        return sum(area.regions for area in self.image.areas)

    @cached_property
    def pixel_sizes(self) -> tuple[float, ...]:
        """Metres of a level-0 pixel in the image's middle, and of a pixel in the analysis (x, y, x, y); NaN unknown."""
        (width, height), scale = self.image.info.size, self.image.scale
        x, y = geodesy.metres_per_pixel(self.image.info.placement, (width / 2, height / 2)) or (math.nan, math.nan)
        return x, y, x * scale[0], y * scale[1]


def _pixel_columns(unit: str, per_metre: float, kinds: tuple[Kind, ...]) -> list[Column[ImageSummary]]:
    """The columns of an image's pixel size, in the unit of its kind."""
    level_0, analysis = "size of a level-0 pixel in the image's middle", "size of a pixel in the analysis"
    names = [("pixel_x", level_0), ("pixel_y", level_0), ("seen_x", analysis), ("seen_y", analysis)]

    def value(at: int) -> Callable[[ImageSummary], float]:
        return lambda row: float(f"{row.pixel_sizes[at] * per_metre:.6g}")

    suffix = unit.replace("µ", "u")
    return [
        Column(f"{name}_{suffix}", "float64", description, value(at), unit, kinds=kinds)
        for at, (name, description) in enumerate(names)
    ]


_STATUS = (
    "complete; partial where a planned region was not analysed; doubtful where there are warnings; not assessed "
    "without a model"
)

_ICC = "the file's ICC profile: applied or not, its size and sha256; empty where it has none"

SUMMARY: tuple[Column[ImageSummary], ...] = (
    IMAGE,
    NAME,
    Column("kind", "category", "map, slide or study", lambda row: row.kind),
    Column("status", "category", _STATUS, lambda row: row.record.status_of([row.image])),
    Column(
        "warnings", "string", "why the results must not be believed unseen", lambda row: " ".join(row.image.warnings)
    ),
    Column("findings", "Int64", COUNTED, lambda row: row.findings),
    Column("regions", "Int64", "regions", lambda row: row.regions),
    Column("failures", "Int64", "regions that failed: areas.csv has reasons", lambda row: len(row.image.failures)),
    Column("analysed_px", "float64", "analysed area in level-0 pixels", lambda row: row.analysed[0], "px²", 2),
    Column("analysed_km2", "float64", "analysed area", lambda row: row.analysed[1] * _KM2, "km²", kinds=MAP),
    Column("analysed_mm2", "float64", "analysed area", lambda row: row.analysed[1] * _MM2, "mm²", kinds=TISSUE),
    Column(
        "analysed_share",
        "float64",
        "its part of the image, by area where known, else by pixels",
        lambda row: area_share(row.analysed, row.whole),
        decimals=6,
    ),
    *_pixel_columns("m", 1.0, MAP),
    *_pixel_columns("µm", 1e6, SLIDE),
    *_pixel_columns("mm", 1e3, STUDY),
    Column(
        "icc_profile", "string", _ICC, lambda row: dict(row.image.info.facts).get("icc_profile") or None, kinds=SLIDE
    ),
)
"""Columns of summary.csv. After them come `label_columns` for each label, then `MODEL`."""


def label_columns(label: str) -> list[Column[ImageSummary]]:
    """The columns of one label in summary.csv. Findings that overlap count twice."""

    def column(
        name: str,
        description: str,
        value: Callable[[ImageSummary, LabelArea], object],
        unit: str = "",
        kinds: tuple[Kind, ...] = KINDS,
    ) -> Column[ImageSummary]:
        dtype: Dtype = "Int64" if name == "count" else "float64"
        decimals = 6 if name == "share" else None
        full_name = f"{name}.{clean_text(label)}"
        return Column(full_name, dtype, description, lambda row: value(row, row.label(label)), unit, decimals, kinds)

    return [
        column("count", COUNTED, lambda row, of: row.record.count(of.findings)),
        column("area_m2", "their area", lambda _, of: of.m2, "m²", MAP),
        column("area_km2", "the same", lambda _, of: of.m2 * _KM2, "km²", MAP),
        column("area_mm2", "their area", lambda _, of: of.m2 * _MM2, "mm²", TISSUE),
        column("volume_ml", "volume of its voxels in a stack annotated as a volume", lambda _, of: of.ml, "ml", STUDY),
        column("share", "its part of the analysed area", lambda _, of: of.share),
        column("per_km2", "findings per km² analysed", lambda row, of: row.density(of, _KM2), "1/km²", MAP),
        column("per_mm2", "findings per mm² analysed", lambda row, of: row.density(of, _MM2), "1/mm²", TISSUE),
    ]


def summary_columns(record: Record, rows: Sequence[ImageSummary]) -> list[Column[ImageSummary]]:
    """The columns of a run's summary: those of each label that the model has, or that was found."""
    labels = dict.fromkeys([*record.labels, *sorted({label for row in rows for label in row.labels})])
    own = [column for label in labels for column in label_columns(label)]
    return [*columns_for([*SUMMARY, *with_unique_names(own)], {row.kind for row in rows}), *MODEL]


@dataclass(frozen=True, slots=True)
class AreaRow:
    """One row of areas.csv: the area of a label, of a status, or of the whole image."""

    entry: Literal["label", "change", "area", "image"]
    item: str
    area_px: float
    area_m2: float
    share: float
    reason: str = ""
    findings: int | None = None
    regions: int | None = None

    @property
    def area_mm2(self) -> float:
        """The area in mm²."""
        return self.area_m2 * _MM2


@dataclass(frozen=True)
class AreaBatch:
    """The rows of one image in areas.csv."""

    record: Record
    image: ImageRecord
    rows: Sequence[AreaRow]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> Kind:
        """The kind of the image."""
        return self.image.info.kind

    @classmethod
    def of(cls, row: ImageSummary) -> Self:
        """The rows of an image: its labels, its areas by status, and all of it."""
        rows = [
            AreaRow("label", of.label, of.pixels, of.m2, of.share, findings=of.findings) for of in row.labels.values()
        ]
        for change in row.image.changes():
            share = area_share((change.pixels, change.m2), row.analysed)
            size = change.pixels, change.m2
            rows.append(AreaRow("change", change.label, *size, share, change.what, findings=change.findings))
        for one in row.image.areas:
            size = total_area([one])
            share = area_share(size, row.whole)
            rows.append(AreaRow("area", one.status, *size, share, one.reason, regions=one.regions))
        share = area_share(row.whole, row.whole)
        rows.append(AreaRow("image", "whole image", *row.whole, share, findings=row.findings, regions=row.regions))
        return cls(row.record, row.image, rows)


_ENTRY = (
    "label, change (what settings of objects changed of a label), area (a part of the image by what became of it) or "
    "image (all of it)"
)
_ITEM = "the label; analysed, no data, skipped or unreadable; or whole image"
_REASON = "why an area was not analysed, or what a change is"
_SHARE = "of the analysed area for a label and its changes, else of the image (by area where known, else by pixels)"

AREAS: tuple[Column[AreaBatch], ...] = (
    IMAGE,
    NAME,
    Column("entry", "category", _ENTRY, attribute("entry")),
    Column("item", "category", _ITEM, attribute("item")),
    Column("reason", "string", _REASON, attribute("reason")),
    Column("findings", "Int64", COUNTED, attribute("findings")),
    Column("regions", "Int64", "regions", attribute("regions")),
    Column("area_px", "float64", "level-0 pixels; findings that overlap count twice", attribute("area_px"), "px²", 2),
    Column("area_m2", "float64", "area on the ellipsoid", attribute("area_m2"), "m²", kinds=MAP),
    Column("area_mm2", "float64", "area", attribute("area_mm2"), "mm²", kinds=TISSUE),
    Column("share", "float64", _SHARE, attribute("share"), decimals=6),
    Column("status", "category", "the image's, as in summary.csv", lambda batch: batch.record.status_of([batch.image])),
    *MODEL,
)
"""Columns of areas.csv: filtering by `entry` and pivoting by `item` give any table."""

FILES: tuple[Column[Rows[FileRow]], ...] = (
    Column("path", "string", "the input file", attribute("path")),
    Column("status", "category", "read, skipped or failed", attribute("status")),
    Column("image", "category", "id of the image that it became part of", attribute("image")),
    Column("reader", "category", "the reader of the file", attribute("reader")),
    Column("reason", "string", "why it was skipped or failed", attribute("reason")),
)
"""Columns of files.csv."""


@dataclass(frozen=True, slots=True)
class SummaryCsv:
    """summary.csv, a row per image, and areas.csv, a row per label and status."""

    name: str = "summary-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write summary.csv and areas.csv into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Add up the batches, then write both tables."""
        totals: dict[str, LabelTotals] = {}
        while (batch := (yield)) is not None:
            totals[batch.image.info.id] = batch.totals
        found = zip(record.images, totals.values(), strict=True)
        rows = [ImageSummary.of_areas(record, image, total.areas(record, image)) for image, total in found]
        areas: list[Column[Any]] = columns_for(AREAS, {row.kind for row in rows})
        return [
            write_csv(folder / "summary.csv", summary_columns(record, rows), rows),
            write_csv(folder / "areas.csv", areas, map(AreaBatch.of, rows)),
        ]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - the table holds any image
        """Nothing: the tables hold any image."""
        return {}


@dataclass(frozen=True, slots=True)
class FilesCsv:
    """files.csv: a row per input file."""

    name: str = "files-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write files.csv into `folder`."""
        return [write_csv(folder / "files.csv", FILES, [Rows(record.files)])]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - the table holds any file
        """Nothing: every file has a row."""
        return {}
