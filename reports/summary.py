"""What a run found in each image, in two forms: `SUMMARY`, a row an image, and `AREAS`, a row a fact."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..readers import geodesy
from ..readers.image import Kind
from .columns import IMAGE, MAP, MODEL, NAME, SLIDE, STUDY, TISSUE
from .csv_safety import clean_text
from .measures import LabelArea, area_share, label_areas, total_area
from .table import KINDS, Column, Dtype, attribute, columns_for, with_unique_names
from .writer import ImageRecord, Record

_KM2, _MM2 = 1e-6, 1e6  # of a m²


@dataclass(frozen=True)
class ImageSummary:
    """One image's row: `labels` are the areas of its labels by name, `findings` counts all, None without a model."""

    record: Record
    image: ImageRecord
    labels: dict[str, LabelArea]
    findings: int | None

    @classmethod
    def of(cls, record: Record, image: ImageRecord) -> "ImageSummary":
        """The row of an image, whose findings are read once."""
        findings = image.findings()
        labels = {of.label: of for of in label_areas(record, image, findings)}
        return cls(record, image, labels, record.count(len(findings)))

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

    def label(self, name: str) -> LabelArea:
        """What a label covers: nothing, where it was not found."""
        nothing = (0.0, 0.0 * self.analysed[1])
        return self.labels.get(name) or LabelArea(name, 0, *nothing, area_share(nothing, self.analysed))

    def density(self, of: LabelArea, unit: float) -> float:
        """Findings for each unit of the analysed area, of which a m² has `unit`."""
        area = self.analysed[1] * unit
        return of.findings / area if area else math.nan

    @property
    def regions(self) -> int:
        """Number of the image's regions."""
        return sum(area.regions for area in self.image.areas)

    @cached_property
    def pixels(self) -> tuple[float, ...]:
        """Metres of a level-0 pixel in the image's middle and of one as the model saw it (x, y, x, y); NaN unknown."""
        (width, height), scale = self.image.info.size, self.image.scale
        ground = geodesy.metres_per_pixel(self.image.info.placement, (width / 2, height / 2)) or (math.nan, math.nan)
        return (*ground, ground[0] * scale[0], ground[1] * scale[1])


def _pixels(unit: str, per_metre: float, kinds: tuple[Kind, ...]) -> list[Column[ImageSummary]]:
    """The columns of an image's pixel size, in the unit of its kind."""

    def column(name: str, said: str, at: int) -> Column[ImageSummary]:
        suffix = f"{'xyxy'[at]}_{unit.replace('µ', 'u')}"

        def value(row: ImageSummary) -> float:
            return float(f"{row.pixels[at] * per_metre:.6g}")

        return Column(f"{name}_{suffix}", "float64", said, value, unit, kinds=kinds)

    first = [column("pixel", "size of a level-0 pixel in the image's middle", at) for at in (0, 1)]
    return first + [column("seen", "size of a pixel as the model saw it", at) for at in (2, 3)]


_STATUS = "complete; partial where a planned region was not analysed; not assessed where nothing was looked for"
_COUNTED = "findings; empty where nothing was looked for"

SUMMARY: tuple[Column[ImageSummary], ...] = (
    IMAGE,
    NAME,
    Column("kind", "category", "map, slide or study", lambda row: row.kind),
    Column("status", "category", _STATUS, lambda row: row.record.status_of([row.image])),
    Column("findings", "Int64", _COUNTED, lambda row: row.findings),
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
    *_pixels("m", 1.0, MAP),
    *_pixels("µm", 1e6, SLIDE),
    *_pixels("mm", 1e3, STUDY),
)
"""Columns of the summary, a row an image. After them come `label_columns` for each label, then `MODEL`."""


def label_columns(label: str) -> list[Column[ImageSummary]]:
    """The columns of one label in the summary. Findings that overlap count twice."""

    def column(
        name: str,
        said: str,
        value: Callable[[ImageSummary, LabelArea], object],
        unit: str = "",
        kinds: tuple[Kind, ...] = KINDS,
    ) -> Column[ImageSummary]:
        dtype: Dtype = "Int64" if name == "count" else "float64"
        decimals = 6 if name == "share" else None
        told = f"{name}.{clean_text(label)}"
        return Column(told, dtype, said, lambda row: value(row, row.label(label)), unit, decimals, kinds)

    return [
        column("count", _COUNTED, lambda row, of: row.record.count(of.findings)),
        column("area_m2", "their area", lambda _, of: of.m2, "m²", MAP),
        column("area_km2", "the same", lambda _, of: of.m2 * _KM2, "km²", MAP),
        column("area_mm2", "their area", lambda _, of: of.m2 * _MM2, "mm²", TISSUE),
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
class AreaFact:
    """One row of `AREAS`: what a label covers, what became of a part of an image, or all of it."""

    entry: Literal["label", "area", "image"]
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
class AreaFacts:
    """The rows of one image."""

    record: Record
    image: ImageRecord
    rows: Sequence[AreaFact]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def kind(self) -> Kind:
        """The kind of the image."""
        return self.image.info.kind

    @classmethod
    def of(cls, row: ImageSummary) -> "AreaFacts":
        """The rows of an image: its labels, its areas, and all of it."""
        facts = [
            AreaFact("label", of.label, of.pixels, of.m2, of.share, findings=of.findings) for of in row.labels.values()
        ]
        facts += [
            AreaFact(
                "area",
                one.status,
                *total_area([one]),
                area_share(total_area([one]), row.whole),
                one.reason,
                regions=one.regions,
            )
            for one in row.image.areas
        ]
        everything = AreaFact(
            "image",
            "whole image",
            *row.whole,
            area_share(row.whole, row.whole),
            findings=row.findings,
            regions=row.regions,
        )
        return cls(row.record, row.image, [*facts, everything])


AREAS: tuple[Column[AreaFacts], ...] = (
    IMAGE,
    NAME,
    Column(
        "entry", "category", "label, area (what became of a part of the image) or image (all of it)", attribute("entry")
    ),
    Column(
        "item", "category", "the label; analysed, no data, skipped or unreadable; or whole image", attribute("item")
    ),
    Column("reason", "string", "why an area was not analysed", attribute("reason")),
    Column("findings", "Int64", _COUNTED, attribute("findings")),
    Column("regions", "Int64", "regions", attribute("regions")),
    Column("area_px", "float64", "level-0 pixels; findings that overlap count twice", attribute("area_px"), "px²", 2),
    Column("area_m2", "float64", "area on the ellipsoid", attribute("area_m2"), "m²", kinds=MAP),
    Column("area_mm2", "float64", "area", attribute("area_mm2"), "mm²", kinds=TISSUE),
    Column(
        "share",
        "float64",
        "of the analysed area for a label, else of the image (by area where known, else by pixels)",
        attribute("share"),
        decimals=6,
    ),
    Column("status", "category", "the image's, as in summary.csv", lambda batch: batch.record.status_of([batch.image])),
    *MODEL,
)
"""Columns of areas.csv: filtering by `entry` and pivoting by `item` give any table."""
