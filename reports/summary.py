"""What a run found in each image, in two forms: `SUMMARY`, a row an image, and `AREAS`, a row a fact."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ..readers import geodesy
from ..readers.image import Kind
from .cells import plain
from .column import Column, chosen, distinct, each
from .columns import IMAGE, MODEL, NAME
from .measures import LabelArea, label_areas, share, total
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
        return total(self.image.areas)

    @cached_property
    def analysed(self) -> tuple[float, float]:
        """The analysed area in level-0 pixels and m², NaN where not known."""
        return total(area for area in self.image.areas if area.status == "analysed")

    def label(self, name: str) -> LabelArea:
        """What a label covers: nothing, where it was not found."""
        nothing = (0.0, 0.0 * self.analysed[1])
        return self.labels.get(name) or LabelArea(name, 0, *nothing, share(nothing, self.analysed))

    def density(self, findings: int, unit: float) -> float:
        """Findings for each unit of the analysed area, of which a m² has `unit`."""
        area = self.analysed[1] * unit
        return findings / area if area else math.nan

    @cached_property
    def pixel(self) -> tuple[float, float]:
        """Metres (x, y) of a level-0 pixel in the image's middle, NaN where not known."""
        width, height = self.image.info.size
        return geodesy.metres_per_pixel(self.image.info.placement, (width / 2, height / 2)) or (math.nan, math.nan)


def _pixels(kind: Kind, unit: str, said: str, per_metre: float) -> Iterator[Column[ImageSummary]]:
    """The columns of an image's pixel size, in the unit of its kind."""
    for axis, at in (("x", 0), ("y", 1)):
        for name, words, seen in (
            (f"pixel_{axis}_{unit}", f"size of a level-0 pixel along {axis} in the image's middle", False),
            (f"seen_{axis}_{unit}", f"size of a pixel as the model saw it, along {axis}", True),
        ):

            def value(row: ImageSummary, at: int = at, *, seen: bool = seen) -> float:
                return float(f"{row.pixel[at] * per_metre * (row.image.scale[at] if seen else 1.0):.6g}")

            yield Column(name, "float64", words, value, said, kinds=(kind,))


SUMMARY: tuple[Column[ImageSummary], ...] = (
    IMAGE,
    NAME,
    Column("kind", "category", "map, slide or study", lambda row: row.kind),
    Column(
        "status",
        "category",
        "complete; partial where a planned region was not analysed; not assessed where nothing was looked for",
        lambda row: row.record.standing([row.image]),
    ),
    Column("findings", "Int64", "number of findings; empty where nothing was looked for", lambda row: row.findings),
    Column("regions", "Int64", "number of regions", lambda row: sum(area.regions for area in row.image.areas)),
    Column("failures", "Int64", "regions that failed: areas.csv has the reasons", lambda row: len(row.image.failures)),
    Column("analysed_px", "float64", "analysed area in level-0 pixels", lambda row: row.analysed[0], "px²", 2),
    Column("analysed_km2", "float64", "analysed area", lambda row: row.analysed[1] * _KM2, "km²", kinds=("map",)),
    Column(
        "analysed_mm2", "float64", "analysed area", lambda row: row.analysed[1] * _MM2, "mm²", kinds=("slide", "study")
    ),
    Column(
        "analysed_share",
        "float64",
        "its part of the image, by area where known, else by pixels",
        lambda row: share(row.analysed, row.whole),
        decimals=6,
    ),
    *_pixels("map", "m", "m", 1.0),
    *_pixels("slide", "um", "µm", 1e6),
    *_pixels("study", "mm", "mm", 1e3),
)
"""Columns of the summary, a row an image. After them come `label_columns` for each label, then `MODEL`."""


def label_columns(label: str) -> tuple[Column[ImageSummary], ...]:
    """The columns of one label in the summary. Findings that overlap count twice."""
    told = plain(label)
    return (
        Column(
            f"count.{told}",
            "Int64",
            "findings with this label; empty where nothing was looked for",
            lambda row: row.record.count(row.label(label).findings),
        ),
        Column(f"area_m2.{told}", "float64", "their area", lambda row: row.label(label).m2, "m²", kinds=("map",)),
        Column(
            f"area_km2.{told}", "float64", "the same", lambda row: row.label(label).m2 * _KM2, "km²", kinds=("map",)
        ),
        Column(
            f"area_mm2.{told}",
            "float64",
            "their area",
            lambda row: row.label(label).m2 * _MM2,
            "mm²",
            kinds=("slide", "study"),
        ),
        Column(
            f"share.{told}", "float64", "its part of the analysed area", lambda row: row.label(label).share, decimals=6
        ),
        Column(
            f"per_km2.{told}",
            "float64",
            "findings per km² of the analysed area",
            lambda row: row.density(row.label(label).findings, _KM2),
            "1/km²",
            kinds=("map",),
        ),
        Column(
            f"per_mm2.{told}",
            "float64",
            "findings per mm² of the analysed area",
            lambda row: row.density(row.label(label).findings, _MM2),
            "1/mm²",
            kinds=("slide", "study"),
        ),
    )


def summary_columns(record: Record, rows: Sequence[ImageSummary]) -> list[Column[ImageSummary]]:
    """The columns of a run's summary: those of each label that the model has, or that was found."""
    labels = dict.fromkeys([*record.labels, *sorted({label for row in rows for label in row.labels})])
    own = [column for label in labels for column in label_columns(label)]
    return [*chosen([*SUMMARY, *distinct(own)], {row.kind for row in rows}), *MODEL]


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
            AreaFact("area", one.status, *total([one]), share(total([one]), row.whole), one.reason, regions=one.regions)
            for one in row.image.areas
        ]
        regions = sum(area.regions for area in row.image.areas)
        everything = AreaFact(
            "image", "whole image", *row.whole, share(row.whole, row.whole), findings=row.findings, regions=regions
        )
        return cls(row.record, row.image, [*facts, everything])


AREAS: tuple[Column[AreaFacts], ...] = (
    IMAGE,
    NAME,
    Column(
        "entry",
        "category",
        "what the row counts: label, area (what became of a part of the image) or image (all of it)",
        each("entry"),
    ),
    Column(
        "item",
        "category",
        "the label; or analysed, no data, skipped, unreadable; or whole image",
        each("item"),
    ),
    Column("reason", "string", "why an area was not analysed", each("reason")),
    Column("findings", "Int64", "number of findings; empty where nothing was looked for", each("findings")),
    Column("regions", "Int64", "number of regions", each("regions")),
    Column("area_px", "float64", "level-0 pixels; findings that overlap count twice", each("area_px"), "px²", 2),
    Column("area_m2", "float64", "area on the ellipsoid", each("area_m2"), "m²", kinds=("map",)),
    Column("area_mm2", "float64", "area", each("area_mm2"), "mm²", kinds=("slide", "study")),
    Column(
        "share",
        "float64",
        "label rows: of the analysed area; area rows: of the image (by area where known, else by pixels)",
        each("share"),
        decimals=6,
    ),
    Column("status", "category", "the image's, as in summary.csv", lambda batch: batch.record.standing([batch.image])),
    *MODEL,
)
"""Columns of areas.csv: filtering by `entry` and pivoting by `item` give any table."""
