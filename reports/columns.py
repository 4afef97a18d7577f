"""The columns of findings: each is declared once, here, and every report, data frame and page of the docs follows.

`IMAGE`, `NAME` and `MODEL` are shared with the other tables, which declare the rest of theirs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..model.finding import Finding
from ..model.merged_findings import columnar
from ..model.objects.watershed import MEAN, PERIMETER
from ..readers.geometry import crs_name
from ..readers.image import Kind
from ..readers.slide.tma import CoreGrid
from .csv_safety import clean_text
from .measures import FindingsBatch
from .patient_geometry import box_sizes_mm, centres_lps_mm, lateralities, slice_positions_mm
from .streams import Stream, write_stream
from .table import Column, Topic, Typed, columns_for, csv_table, with_unique_names
from .writer import Record

MAP: tuple[Kind, ...] = ("map",)
SLIDE: tuple[Kind, ...] = ("slide",)
STUDY: tuple[Kind, ...] = ("study",)
TISSUE: tuple[Kind, ...] = ("slide", "study")
COUNTED = "findings; empty without a model"

Numbers = Callable[[FindingsBatch], Typed]


def fact(key: str) -> Callable[[Any], str | None]:
    """A fact of the image, as its reader states it."""
    return lambda batch: dict(batch.image.info.facts).get(key) or None


def _model(key: str) -> Callable[[Any], str]:
    return lambda batch: batch.record.model.get(key, "")


def _finding(name: str) -> Callable[[FindingsBatch], object]:
    return lambda batch: getattr(batch.table, name)


def _text_cut(batch: FindingsBatch) -> list[bool | None]:
    pairs = zip(batch.table.text.tolist(), batch.table.text_cut.tolist(), strict=True)
    return [cut if text else None for text, cut in pairs]


def _plane(name: str) -> Callable[[FindingsBatch], object]:
    """An attribute of the slice of each finding."""
    return lambda batch: [getattr(plane, name) for plane in batch.planes]


def _axes(
    names: str, description: str, values: Numbers, unit: str, decimals: int | Callable[[FindingsBatch], int] = 3
) -> list[Column[FindingsBatch]]:
    """A column for each column of values (N, K)."""
    return [
        Column(name, "float64", description, lambda b, at=at: values(b)[:, at], unit, decimals, topic="place")
        for at, name in enumerate(names.split())
    ]


def _only(
    kinds: tuple[Kind, ...], columns: Sequence[Column[FindingsBatch]], topic: Topic | None = None
) -> list[Column[FindingsBatch]]:
    """The columns, for some kinds of image only."""
    return [replace(one, kinds=kinds, topic=topic or one.topic) for one in columns]


def _um(values: Numbers) -> Numbers:
    """World coordinates where they are in µm, else NaN."""
    return lambda batch: values(batch) * (1.0 if batch.image.info.placement.unit == "um" else math.nan)


def _world_decimals(batch: FindingsBatch) -> int:
    return 9 if batch.image.info.placement.unit == "deg" else 3


def _world_unit(batch: FindingsBatch) -> str | None:
    placement = batch.image.info.placement
    return placement.unit if placement.has_unit else None


_NAME = "its file or folder, with folders above where names are equal; a pseudonym or its id where personal"

IMAGE: Column[Any] = Column(
    "image", "category", "the image's id in this run", lambda b: b.image.info.id, topic="identity"
)
NAME: Column[Any] = Column("name", "category", _NAME, lambda b: b.image.name or b.image.info.id, topic="identity")
MODEL: tuple[Column[Any], ...] = (
    Column("model", "category", "name of the model", _model("name"), topic="run"),
    Column("model_version", "category", "its version", _model("version"), topic="run"),
    Column("weights_sha256", "category", "of its weights", _model("sha256"), topic="run"),
    Column("limner", "category", "version of limner", lambda batch: batch.record.version, topic="run"),
    Column("use", "category", "what these numbers may be used for", lambda batch: batch.record.use, topic="run"),
)
"""The last columns of tables: the same in every row, so that a row that is copied elsewhere keeps its origin."""

_NUMBER = "its number within the image, from 1"
_KIND = "of the geometry: area (traced from a class map), box, tile or region"
_AREA = "area; in studies see spacing_source"
_UID = "the same finding's in any run with the same key: a UUID of its study, slice, geometry and texts"
_SIDE = "left, right or both: of the plane x = 0 mm, of a patient who lay supine; else empty"
_SPACING = "where mm come from, or why there are none; only pixel_spacing… holds in the patient"
_CRS = "authority and code of the image's CRS where exact, else its name; empty without one"
_WORLD = "the same point in the image's CRS"
_WORLD_AXES = "world_x0 world_y0 world_x1 world_y1"
_LPS = "the point in the patient (LPS): towards left, posterior and superior"
_LPS_AXES = "centre_lps_x_mm centre_lps_y_mm centre_lps_z_mm"
_CUT = "whether the text ended at the limit of tokens (max_tokens); empty without a text"
_SIZE = "the box along the slice's rows and columns; see spacing_source"
_WORLD_BOX = "bounding box in the image's CRS: least and most of its axes"

FINDINGS: tuple[Column[FindingsBatch], ...] = (
    IMAGE,
    NAME,
    Column("finding", "int64", _NUMBER, lambda b: b.first + np.arange(len(b)), topic="identity"),
    Column("label", "category", "the class", _finding("label")),
    Column("kind", "category", _KIND, _finding("kind")),
    Column("score", "float64", "0 to 1 as the model gave it; empty where it gives none", _finding("score"), decimals=4),
    Column("area_m2", "float64", "area on the ellipsoid", lambda b: b.area_m2, "m²", kinds=MAP),
    Column("area_um2", "float64", "area", lambda b: b.area_m2 * 1e12, "µm²", kinds=SLIDE),
    Column("area_mm2", "float64", _AREA, lambda b: b.area_m2 * 1e6, "mm²", kinds=TISSUE),
    Column("area_px", "float64", "area in level-0 pixels", lambda b: b.area_px, "px²", 2),
    *_axes("x0_px y0_px x1_px y1_px", "bounding box from the image's upper left", lambda b: b.bounds, "px"),
    *_axes("x_px y_px", "a point on the finding: its centroid, or one inside", lambda b: b.point, "px"),
    *_only(MAP, _axes("lon lat", "the same point, WGS84; empty off the Earth", lambda b: b.lonlat, "°", 7)),
    *_only(
        MAP,
        [
            *_axes("world_x world_y", _WORLD, lambda b: b.world, "world_unit", _world_decimals),
            *_axes(_WORLD_AXES, _WORLD_BOX, lambda b: b.world_bounds, "world_unit", _world_decimals),
            Column("world_unit", "category", "m, deg, or crs for another that the CRS states", _world_unit),
            Column("crs", "category", _CRS, lambda b: crs_name(b.image.info.placement.crs) or None),
        ],
        "world",
    ),
    *_only(
        SLIDE,
        [
            *_axes("x_um y_um", "the point from the slide's upper left", _um(lambda b: b.world), "µm"),
            *_axes("x0_um y0_um x1_um y1_um", "bounding box", _um(lambda b: b.world_bounds), "µm"),
        ],
    ),
    Column("text", "string", "the model's text; data, not instructions", _finding("text")),
    Column("cut", "boolean", _CUT, _text_cut),
    *_only(
        STUDY,
        [
            Column("finding_uid", "string", _UID, lambda b: b.uids),
            Column("study_uid", "category", "the study, as a pseudonym", lambda b: b.image.info.study or None),
            Column("series_uid", "category", "the series, as a pseudonym", fact("series_uid")),
            Column("sop_uid", "category", "the slice, as a pseudonym", _plane("name")),
            Column("frame", "Int64", "frame within it, from 1", _plane("frame")),
            Column("instance_number", "Int64", "as the file states it", _plane("instance")),
            Column("slice", "Int64", "its place in the stack, from 1", lambda b: b.table.plane + 1),
            *_axes("slice_position_mm", "along the stack's normal", lambda b: slice_positions_mm(b.planes), "mm"),
            *_axes(_LPS_AXES, _LPS, lambda b: centres_lps_mm(b.planes, b.point), "mm"),
            *_axes("bbox_w_mm bbox_h_mm", _SIZE, lambda b: box_sizes_mm(b.image.info, b.bounds), "mm"),
            Column("spacing_source", "category", _SPACING, fact("spacing_source")),
            Column("laterality_geometry", "category", _SIDE, lambda b: lateralities(b.image.info, b.table)),
            Column("review_status", "string", "for the radiologist to fill in", lambda _: None),
        ],
    ),
)
"""Columns of findings. After them come `CORE`, those of `INSTANCES`, the model's own columns, then `MODEL`."""


def _cores(batch: FindingsBatch) -> list[str | None] | None:
    """The name of the core of each finding, None of an image without cores."""
    grid = CoreGrid.of(batch.image.info)
    return grid and [grid.cores[at].name if at >= 0 else None for at in map(int, grid.places(batch.point))]


_CORE = "of a tissue microarray: the core in whose place the point lies; empty beside all of them"

CORE: Column[FindingsBatch] = Column("core", "category", _CORE, _cores, topic="identity", kinds=SLIDE)
"""A column of runs in which cores were looked for."""

_PERIMETER = "of a smooth outline through the edges of the analysed pixels that it was traced from"
_CIRCULARITY = "4π area / perimeter² of the same, at most 1: that of a disc"


def _perimeter(per_metre: float) -> Callable[[FindingsBatch], object]:
    """The perimeter in a unit of which a metre has so many; analysed pixels are square on the ground."""

    def values(batch: FindingsBatch) -> object:
        across, down = batch.image.scale
        pixel = np.sqrt(across * down * batch.area_m2 / np.where(batch.area_px > 0, batch.area_px, math.nan))
        return batch.table.numbers.get(PERIMETER, math.nan) * pixel * per_metre

    return values


def _circularity(batch: FindingsBatch) -> object:
    perimeter = batch.table.numbers.get(PERIMETER, np.full(len(batch), math.nan))
    return np.minimum(1.0, 4 * math.pi * batch.table.numbers.get("pixels", math.nan) / perimeter**2)


INSTANCES: tuple[Column[FindingsBatch], ...] = (
    Column("perimeter_m", "float64", _PERIMETER, _perimeter(1.0), "m", kinds=MAP),
    Column("perimeter_um", "float64", _PERIMETER, _perimeter(1e6), "µm", kinds=SLIDE),
    Column("perimeter_mm", "float64", _PERIMETER, _perimeter(1e3), "mm", kinds=STUDY),
    Column("circularity", "float64", _CIRCULARITY, _circularity, decimals=4),
)
"""Columns of areas that were split into instances. After them comes the mean of each channel, `mean.CHANNEL`."""

REVIEWED: Final = "limner."
"""What the names of the notes and numbers of a review begin with, to tell them from a model's own."""


def _review(name: str, description: str) -> Column[FindingsBatch]:
    return Column(name, "category", description, lambda batch: batch.table.notes.get(REVIEWED + name))


_REVIEW_KINDS = "accepted, rejected, relabelled, drawn, conflict (reviewers decide differently) or not reviewed"

REVIEW: tuple[Column[FindingsBatch], ...] = (
    _review("review", _REVIEW_KINDS),
    _review("review_label", "the label that reviewers confirmed or gave; empty without one"),
    _review("reviewer", "who decided that, with commas between several"),
    _review("reviewed_at", "when, the last of them (UTC, ISO 8601)"),
    _review("review_comment", "their comment"),
    _review("model_label", "the model's class: `label` is that after the review; empty for a drawn finding"),
    Column(
        "run_finding",
        "Int64",
        "its number in the run's own tables; empty for a drawn finding",
        lambda batch: _whole(batch.table.numbers.get(f"{REVIEWED}run_finding", np.full(len(batch), math.nan))),
        topic="identity",
    ),
)
"""Columns of findings that were reviewed."""


def _whole(values: Typed) -> list[int | None]:
    return [None if math.isnan(one) else round(one) for one in values.tolist()]


def findings_columns(record: Record, findings: Sequence[Finding] | None = None) -> list[Column[FindingsBatch]]:
    """The columns of findings of a run's kinds of image, with the model's own: those of `findings`, or of all."""
    every = [findings] if findings is not None else (image.findings() for image in record.images)
    numbers: set[str] = set()
    notes: set[str] = set()
    for found in every:
        known = columnar(found)
        numbers.update(known.numbers)
        notes.update(known.notes)
    reviewed = f"{REVIEWED}review" in notes
    numbers = {key for key in numbers if not (reviewed and key.startswith(REVIEWED))}
    notes = {key for key in notes if not (reviewed and key.startswith(REVIEWED))}
    means = sorted(key for key in numbers if key.startswith(MEAN))
    own = [_mean(key) for key in means] + [_number(key) for key in sorted(numbers - {PERIMETER, *means})]
    own += [_note(key) for key in sorted(notes)]
    tma = any(CoreGrid.of(image.info) is not None for image in record.images)
    declared = [
        *FINDINGS,
        *([CORE] if tma else ()),
        *(INSTANCES if PERIMETER in numbers else ()),
        *(REVIEW if reviewed else ()),
    ]
    return [*columns_for(declared, (image.info.kind for image in record.images)), *with_unique_names(own), *MODEL]


def _mean(key: str) -> Column[FindingsBatch]:
    name, description = f"mean.{clean_text(key.removeprefix(MEAN))}", "the mean of its pixels in this channel"
    return Column(name, "float64", description, lambda batch: batch.table.numbers.get(key, math.nan), decimals=3)


def _number(key: str) -> Column[FindingsBatch]:
    name, description = f"number.{clean_text(key)}", "a number of the model's own"
    return Column(name, "float64", description, lambda batch: batch.table.numbers.get(key, math.nan))


def _note(key: str) -> Column[FindingsBatch]:
    name, description = f"note.{clean_text(key)}", "a text of the model's own"
    return Column(name, "string", description, lambda batch: batch.table.notes.get(key))


@dataclass(frozen=True, slots=True)
class FindingsCsv:
    """findings.csv: a row per finding, in the order of images and findings."""

    name: str = "findings-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.csv into `folder`."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write findings.csv batch by batch."""
        path = folder / "findings.csv"
        with csv_table(path, findings_columns(record)) as write:
            while (batch := (yield)) is not None:
                write(batch)
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - the table holds findings of any image
        """Nothing: the table holds findings of any image."""
        return {}
