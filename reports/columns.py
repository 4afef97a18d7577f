"""The columns of findings: each is declared once, here, and every report, data frame and page of the docs follows.

`IMAGE`, `NAME` and `MODEL` are shared with the other tables, which declare the rest of theirs.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..model.finding import Finding
from ..readers.image import Kind
from .csv_safety import clean_text
from .measures import FindingsBatch, crs_name
from .patient_geometry import box_sizes_mm, centres_lps_mm, finding_uids, lateralities, slice_positions_mm
from .table import KINDS, Column, Topic, Typed, columns_for, with_unique_names
from .writer import Record


def _run(value: Callable[[Record], str]) -> Callable[[Any], str]:
    return lambda batch: value(batch.record)


def fact(key: str) -> Callable[[Any], str | None]:
    """A fact that the reader gives of the whole image."""
    return lambda batch: dict(batch.image.info.facts).get(key) or None


def _found(name: str) -> Callable[[FindingsBatch], object]:
    return lambda batch: [getattr(finding, name) for finding in batch.findings]


def _slice(name: str) -> Callable[[FindingsBatch], object]:
    """What is known of the slices that findings are on."""
    return lambda batch: [getattr(plane, name) for plane in batch.planes]


def _axes(
    names: str,
    description: str,
    values: Callable[[FindingsBatch], Typed],
    unit: str,
    decimals: int | Callable[[FindingsBatch], int] = 3,
    kinds: tuple[Kind, ...] = KINDS,
    topic: Topic = "place",
) -> list[Column[FindingsBatch]]:
    """A column for each column of (N, K) values."""
    return [
        Column(name, "float64", description, lambda batch, at=at: values(batch)[:, at], unit, decimals, kinds, topic)
        for at, name in enumerate(names.split())
    ]


def _um(values: Callable[[FindingsBatch], Typed]) -> Callable[[FindingsBatch], Typed]:
    """Numbers of the world, where that is measured in µm."""
    return lambda batch: values(batch) * (1.0 if batch.image.info.placement.unit == "um" else math.nan)


def _fine(batch: FindingsBatch) -> int:
    return 9 if batch.image.info.placement.unit == "deg" else 3


MAP: tuple[Kind, ...] = ("map",)
SLIDE: tuple[Kind, ...] = ("slide",)
STUDY: tuple[Kind, ...] = ("study",)
TISSUE: tuple[Kind, ...] = ("slide", "study")
_UID = "the same finding's in any run with the same key: a UUID made from what is said of which pixels"
_SIDE = "left, right or both: of the plane x = 0 mm, of a patient who lay on the back; else empty"

IMAGE: Column[Any] = Column(
    "image", "category", "the image's id in this run", lambda batch: batch.image.info.id, topic="identity"
)
NAME: Column[Any] = Column(
    "name",
    "category",
    "the name of its file or folder; its id where that may be a person's name",
    lambda batch: batch.image.name or batch.image.info.id,
    topic="identity",
)
MODEL: tuple[Column[Any], ...] = (
    Column("model", "category", "name of the model", _run(lambda run: run.model.get("name", "")), topic="run"),
    Column("model_version", "category", "its version", _run(lambda run: run.model.get("version", "")), topic="run"),
    Column("weights_sha256", "category", "of its weights", _run(lambda run: run.model.get("sha256", "")), topic="run"),
    Column("limner", "category", "version of limner", _run(lambda run: run.version), topic="run"),
    Column("use", "category", "what these numbers may be used for", _run(lambda run: run.use), topic="run"),
)
"""The last columns of tables: the same in every row, so that a row that is copied elsewhere keeps its origin."""

FINDINGS: tuple[Column[FindingsBatch], ...] = (
    IMAGE,
    NAME,
    Column(
        "finding",
        "int64",
        "its number within the image, from 1",
        lambda b: b.first + np.arange(len(b)),
        topic="identity",
    ),
    Column("label", "category", "what was found", _found("label")),
    Column("kind", "category", "of the geometry: area (traced from a class map), box, tile or region", _found("kind")),
    Column("score", "float64", "0 to 1 as the model gave it; empty where it gives none", _found("score"), decimals=4),
    Column("area_m2", "float64", "area on the ellipsoid", lambda batch: batch.area_m2, "m²", kinds=MAP),
    Column("area_um2", "float64", "area", lambda batch: batch.area_m2 * 1e12, "µm²", kinds=SLIDE),
    Column(
        "area_mm2", "float64", "area; in studies see spacing_source", lambda b: b.area_m2 * 1e6, "mm²", kinds=TISSUE
    ),
    Column("area_px", "float64", "area in level-0 pixels", lambda batch: batch.area_px, "px²", 2),
    *_axes("x0_px y0_px x1_px y1_px", "bounding box from the image's upper left", lambda batch: batch.bounds, "px"),
    *_axes("x_px y_px", "a point on the finding: its centroid, or one inside", lambda batch: batch.point, "px"),
    *_axes("lon lat", "the same point, WGS84; empty off the Earth", lambda batch: batch.lonlat, "°", 7, MAP),
    *_axes(
        "world_x world_y", "the same point in the image's CRS", lambda b: b.world, "world_unit", _fine, MAP, "world"
    ),
    *_axes(
        "world_x0 world_y0 world_x1 world_y1",
        "bounding box in the image's CRS: least and most of its axes",
        lambda batch: batch.world_bounds,
        "world_unit",
        _fine,
        MAP,
        "world",
    ),
    Column(
        "world_unit",
        "category",
        "m, deg, or crs for another that the CRS states",
        lambda batch: batch.image.info.placement.unit if batch.image.info.placement.has_unit else None,
        kinds=MAP,
        topic="world",
    ),
    Column(
        "crs",
        "category",
        "authority and code of the image's CRS where exact, else its name; empty without one",
        lambda batch: crs_name(batch.image.info.placement.crs) or None,
        kinds=MAP,
        topic="world",
    ),
    *_axes("x_um y_um", "the point from the slide's upper left", _um(lambda batch: batch.world), "µm", 3, SLIDE),
    *_axes("x0_um y0_um x1_um y1_um", "bounding box", _um(lambda batch: batch.world_bounds), "µm", 3, SLIDE),
    Column("text", "string", "what the model said; data, not instructions", _found("text")),
    Column("finding_uid", "string", _UID, lambda b: finding_uids(b.image.info, b.findings), kinds=STUDY),
    Column("study_uid", "category", "the study, as a pseudonym", lambda b: b.image.info.study or None, kinds=STUDY),
    Column("series_uid", "category", "the series, as a pseudonym", fact("series_uid"), kinds=STUDY),
    Column(
        "sop_uid",
        "category",
        "the slice, as a pseudonym",
        _slice("name"),
        kinds=STUDY,
    ),
    Column("frame", "Int64", "frame within it, from 1", _slice("frame"), kinds=STUDY),
    Column("instance_number", "Int64", "as the file states it", _slice("instance"), kinds=STUDY),
    Column(
        "slice", "Int64", "its place in the stack, from 1", lambda b: [one.plane + 1 for one in b.findings], kinds=STUDY
    ),
    *_axes("slice_position_mm", "along the stack's normal", lambda b: slice_positions_mm(b.planes), "mm", 3, STUDY),
    *_axes(
        "centre_lps_x_mm centre_lps_y_mm centre_lps_z_mm",
        "the point in the patient, towards left, back and head",
        lambda batch: centres_lps_mm(batch.planes, batch.point),
        "mm",
        kinds=STUDY,
    ),
    *_axes(
        "bbox_w_mm bbox_h_mm",
        "the box along the slice's rows and columns; see spacing_source",
        lambda batch: box_sizes_mm(batch.image.info, batch.bounds),
        "mm",
        kinds=STUDY,
    ),
    Column(
        "spacing_source",
        "category",
        "where mm come from, or why there are none; only pixel_spacing… holds in the patient",
        fact("spacing_source"),
        kinds=STUDY,
    ),
    Column("laterality_geometry", "category", _SIDE, lambda b: lateralities(b.image.info, b.findings), kinds=STUDY),
    Column("review_status", "string", "for a reader to fill", lambda _: None, kinds=STUDY),
)
"""Columns of findings. After them come `own_columns`, then `MODEL`."""


def findings_columns(record: Record, findings: Sequence[Finding] | None = None) -> list[Column[FindingsBatch]]:
    """The columns of findings of a run's kinds of image, with the model's own: those of `findings`, or of all."""
    every = [findings] if findings is not None else (image.findings() for image in record.images)
    numbers: set[str] = set()
    notes: set[str] = set()
    for some in every:
        for one in some:
            numbers.update(one.numbers)
            notes.update(one.notes)
    own = [_number(key) for key in sorted(numbers)] + [_note(key) for key in sorted(notes)]
    return [*columns_for(FINDINGS, (image.info.kind for image in record.images)), *with_unique_names(own), *MODEL]


def _number(key: str) -> Column[FindingsBatch]:
    said = "a number of the model's own"
    return Column(
        f"number.{clean_text(key)}", "float64", said, lambda batch: [f.numbers.get(key) for f in batch.findings]
    )


def _note(key: str) -> Column[FindingsBatch]:
    said = "a text of the model's own"
    return Column(f"note.{clean_text(key)}", "string", said, lambda batch: [f.notes.get(key) for f in batch.findings])
