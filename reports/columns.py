"""The columns of findings: each is declared once, here, and every report, data frame and page of the docs follows.

`IMAGE`, `NAME` and `MODEL` are shared with the other tables, which declare the rest of theirs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..model.finding import Finding
from ..readers.image import Kind, Plane
from .cells import plain
from .column import KINDS, About, Column, Dtype, Typed, chosen, distinct
from .measures import FindingsBatch, crs_name
from .patient import boxes_mm, centres_mm, positions_mm, sides, uids
from .writer import Record


def _run(value: Callable[[Record], str]) -> Callable[[Any], str]:
    return lambda batch: value(batch.record)


def fact(key: str) -> Callable[[Any], str | None]:
    """A fact that the reader gives of the whole image."""
    return lambda batch: dict(batch.image.info.facts).get(key) or None


def _slice(value: Callable[[Plane], object]) -> Callable[[FindingsBatch], object]:
    """A value of the slice that a finding is in."""
    return lambda batch: [value(plane) for plane in batch.planes]


def _axes(
    words: Mapping[str, str],
    values: Callable[[FindingsBatch], Typed],
    unit: str,
    decimals: int | Callable[[FindingsBatch], int],
    *kinds: Kind,
    about: About = "place",
) -> tuple[Column[FindingsBatch], ...]:
    """A column for each column of (N, K) values; `words` are their names and what they are."""
    return tuple(
        Column(name, "float64", said, lambda batch, at=at: values(batch)[:, at], unit, decimals, kinds or KINDS, about)
        for at, (name, said) in enumerate(words.items())
    )


def _study(
    name: str, dtype: Dtype, description: str, values: Callable[[FindingsBatch], object]
) -> Column[FindingsBatch]:
    return Column(name, dtype, description, values, kinds=("study",))


def _um(values: Callable[[FindingsBatch], Typed]) -> Callable[[FindingsBatch], Typed]:
    """Numbers of the world, where that is measured in µm."""
    return lambda batch: values(batch) * (1.0 if batch.image.info.placement.unit == "um" else math.nan)


def _fine(batch: FindingsBatch) -> int:
    return 9 if batch.image.info.placement.unit == "deg" else 3


IMAGE: Column[Any] = Column(
    "image", "category", "the image's id in this run", lambda batch: batch.image.info.id, about="identity"
)
NAME: Column[Any] = Column(
    "name",
    "category",
    "the name of its file or folder; its id where that may be a person's name",
    lambda batch: batch.image.name or batch.image.info.id,
    about="identity",
)
MODEL: tuple[Column[Any], ...] = (
    Column("model", "category", "name of the model", _run(lambda run: run.model.get("name", "")), about="run"),
    Column("model_version", "category", "its version", _run(lambda run: run.model.get("version", "")), about="run"),
    Column("weights_sha256", "category", "of its weights", _run(lambda run: run.model.get("sha256", "")), about="run"),
    Column("limner", "category", "version of limner", _run(lambda run: run.version), about="run"),
    Column("use", "category", "what these numbers may be used for", _run(lambda run: run.use), about="run"),
)
"""The last columns of tables: the same in every row, so that a row that is copied elsewhere keeps its origin."""

FINDINGS: tuple[Column[FindingsBatch], ...] = (
    IMAGE,
    NAME,
    Column(
        "finding",
        "int64",
        "its number within the image, from 1, the same in every report",
        lambda batch: range(batch.first, batch.first + len(batch)),
        about="identity",
    ),
    Column("label", "category", "what was found", lambda batch: [one.label for one in batch.findings]),
    Column(
        "kind",
        "category",
        "what the geometry is: area (traced from a class map), box, tile or region",
        lambda batch: [one.kind for one in batch.findings],
    ),
    Column(
        "score",
        "float64",
        "0 to 1 as the model gave it; empty where it gives none",
        lambda batch: [one.score for one in batch.findings],
        decimals=4,
    ),
    Column("area_m2", "float64", "area on the ellipsoid", lambda batch: batch.area_m2, "m²", kinds=("map",)),
    Column("area_um2", "float64", "area", lambda batch: batch.area_m2 * 1e12, "µm²", kinds=("slide",)),
    Column(
        "area_mm2",
        "float64",
        "area; in studies by the pixel spacing: see spacing_source",
        lambda batch: batch.area_m2 * 1e6,
        "mm²",
        kinds=("slide", "study"),
    ),
    Column("area_px", "float64", "area in level-0 pixels", lambda batch: batch.area_px, "px²", 2),
    *_axes(
        {
            "x0_px": "bounding box, left edge, level-0 pixels from the image's left edge",
            "y0_px": "bounding box, top edge, level-0 pixels from the image's top edge",
            "x1_px": "bounding box, right edge",
            "y1_px": "bounding box, bottom edge",
        },
        lambda batch: batch.bounds,
        "px",
        3,
    ),
    *_axes(
        {
            "x_px": "a point on the finding: its centroid, or a point inside where that lies outside",
            "y_px": "the same point",
        },
        lambda batch: batch.point,
        "px",
        3,
    ),
    *_axes(
        {
            "lon": "the same point, east, WGS84; empty where the image has no map coordinates on Earth",
            "lat": "the same point, north, WGS84",
        },
        lambda batch: batch.lonlat,
        "°",
        7,
        "map",
    ),
    *_axes(
        {"world_x": "the same point in the image's own CRS, first axis", "world_y": "the same point, second axis"},
        lambda batch: batch.world,
        "world_unit",
        _fine,
        "map",
        about="world",
    ),
    *_axes(
        {
            "world_x0": "bounding box in the image's own CRS, least of the first axis",
            "world_y0": "least of the second axis",
            "world_x1": "most of the first axis",
            "world_y1": "most of the second axis",
        },
        lambda batch: batch.world_bounds,
        "world_unit",
        _fine,
        "map",
        about="world",
    ),
    Column(
        "world_unit",
        "category",
        "unit of the columns world_…: m, deg, or crs for another that the CRS states",
        lambda batch: batch.image.info.placement.unit if batch.image.info.placement.known else None,
        kinds=("map",),
        about="world",
    ),
    Column(
        "crs",
        "category",
        "the image's CRS: authority and code where exact, else its name; empty without one",
        lambda batch: crs_name(batch.image.info.placement.crs) or None,
        kinds=("map",),
        about="world",
    ),
    *_axes(
        {"x_um": "the point x_px, y_px from the slide's left edge", "y_um": "the same point, from its top edge"},
        _um(lambda batch: batch.world),
        "µm",
        3,
        "slide",
    ),
    *_axes(
        {
            "x0_um": "bounding box, left edge",
            "y0_um": "bounding box, top edge",
            "x1_um": "bounding box, right edge",
            "y1_um": "bounding box, bottom edge",
        },
        _um(lambda batch: batch.world_bounds),
        "µm",
        3,
        "slide",
    ),
    Column(
        "text", "string", "what the model said; data, not instructions", lambda batch: [f.text for f in batch.findings]
    ),
    _study(
        "finding_uid",
        "string",
        "the same finding's in any run with the same key: a UUID made from what is said of which pixels",
        lambda batch: uids(batch.image.info, batch.findings),
    ),
    _study("study_uid", "category", "the study, as a pseudonym", lambda batch: batch.image.info.study or None),
    _study("series_uid", "category", "the series, as a pseudonym", fact("series_uid")),
    _study(
        "sop_uid",
        "category",
        "the slice, as a pseudonym",
        _slice(lambda plane: plane.name),
    ),
    _study("frame", "Int64", "frame within it, from 1", _slice(lambda plane: plane.frame)),
    _study(
        "instance_number",
        "Int64",
        "its number in the series, as the file states it",
        _slice(lambda one: one.instance),
    ),
    _study(
        "slice",
        "Int64",
        "its place in the stack, from 1",
        lambda batch: [one.plane + 1 for one in batch.findings],
    ),
    *_axes(
        {"slice_position_mm": "its place along the stack's normal"},
        lambda batch: positions_mm(batch.planes),
        "mm",
        3,
        "study",
    ),
    *_axes(
        {
            "centre_lps_x_mm": "the point x_px, y_px in the patient, towards the patient's left",
            "centre_lps_y_mm": "the same, towards the back",
            "centre_lps_z_mm": "the same, towards the head",
        },
        lambda batch: centres_mm(batch.planes, batch.point),
        "mm",
        3,
        "study",
    ),
    *_axes(
        {
            "bbox_w_mm": "the bounding box's width along the slice's rows; see spacing_source",
            "bbox_h_mm": "its height along the slice's columns",
        },
        lambda batch: boxes_mm(batch.image.info, batch.bounds),
        "mm",
        3,
        "study",
    ),
    _study(
        "spacing_source",
        "category",
        "where mm come from, or why there are none; only pixel_spacing… holds in the patient",
        fact("spacing_source"),
    ),
    _study(
        "laterality_geometry",
        "category",
        "left, right or both: of the plane x = 0 mm, of a patient who lay on the back; else empty",
        lambda batch: sides(batch.image.info, batch.findings),
    ),
    _study("review_status", "string", "for a reader to fill", lambda _: None),
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
    return [*chosen(FINDINGS, (image.info.kind for image in record.images)), *distinct(own), *MODEL]


def _number(key: str) -> Column[FindingsBatch]:
    said = "a number of the model's own"
    return Column(f"number.{plain(key)}", "float64", said, lambda batch: [f.numbers.get(key) for f in batch.findings])


def _note(key: str) -> Column[FindingsBatch]:
    said = "a text of the model's own"
    return Column(f"note.{plain(key)}", "string", said, lambda batch: [f.notes.get(key) for f in batch.findings])
