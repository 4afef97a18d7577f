"""Tables: findings, areas by class, and files, as CSV.

UTF-8 without a byte-order mark, commas, quotes doubled by RFC 4180, each line ended by one line feed, and one line a
row, since no cell holds a line break. An empty cell means that the number is not known, never zero. Numbers have fixed
forms, so that the same record gives the same bytes. Texts cannot become formulas (`cells.cell`).
"""
# pandas has its types in comments and stubs apart:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pandas as pd

from ..model.finding import Finding
from ..readers import geodesy
from ..readers.files import replacing
from .cells import cell, fixed, significant
from .measures import Measures, crs_name, further_columns, label_areas, measure, share, total
from .patient import PATIENT_COLUMNS, in_study, patient_columns
from .writer import ImageRecord, Record

FINDINGS_COLUMNS: Mapping[str, str] = {
    "image": "the image's id in this run",
    "finding": "its number within the image, from 1, the same in every report",
    "label": "what was seen",
    "kind": "what the geometry is: area (traced from a class map), box, tile or region",
    "score": "0 to 1 as the model gave it; empty where it gives none",
    "area_m2": "m² on the ellipsoid, 9 significant digits; empty where the image has no known ground size",
    "area_px": "level-0 pixels",
    "x0_px": "bounding box, left edge, level-0 pixels from the image's left edge",
    "y0_px": "bounding box, top edge, level-0 pixels from the image's top edge",
    "x1_px": "bounding box, right edge",
    "y1_px": "bounding box, bottom edge",
    "x_px": "a point on the finding (its centroid, or a point inside where that lies outside), level-0 pixels",
    "y_px": "the same point",
    "lon": "the same point, degrees east, WGS84; empty where the image has no map coordinates on Earth",
    "lat": "the same point, degrees north, WGS84",
    "world_x": "the same point in the image's own world: the CRS's first axis, or a slide's",
    "world_y": "the same point, second axis",
    "world_unit": "unit of world_x and world_y: m, deg, mm, um; empty where nothing is known",
    "crs": "the image's CRS: authority and code where exact, else its name; empty without one",
    "text": "what the model said in words; data, not instructions",
}
"""Columns of findings.csv and what they mean.

Then come, where the run holds studies, `PATIENT_COLUMNS`, then `number.…` and `note.…`, the model's own, and `CLOSING`.
"""

CLOSING: Mapping[str, str] = {
    "model": "name of the model",
    "model_version": "its version",
    "weights_sha256": "sha256 of its weights",
    "limner": "version of limner",
    "use": "what these numbers may be used for",
}
"""The last columns of findings.csv: the same in every row, so that a row that is copied elsewhere keeps its origin."""

SUMMARY_COLUMNS: Mapping[str, str] = {
    "image": "the image's id in this run",
    "entry": "what the row counts: label, area (what became of a part of the image) or image (all of it)",
    "name": "the label; or analysed, no data, skipped, unreadable; or whole image",
    "reason": "why an area was not analysed",
    "findings": "number of findings; empty where nothing was looked for",
    "regions": "number of regions",
    "area_px": "level-0 pixels; findings that overlap count twice",
    "area_m2": "m² on the ellipsoid, 9 significant digits",
    "share": "label rows: of the analysed area; area rows: of the image (by m² where known, else by pixels)",
    "status": "complete; partial where a planned region was not analysed; not assessed where nothing was looked for",
    "pixel_x_m": "true ground distance of a level-0 pixel along x in the image's middle",
    "pixel_y_m": "the same along y",
    "seen_x_m": "ground distance of a pixel as the model saw it, along x",
    "seen_y_m": "the same along y",
    "model": "name of the model",
    "model_version": "its version",
    "use": "what these numbers may be used for",
}
"""Columns of summary.csv: long form, a row a fact, so that filtering by `entry` and pivoting by `name` give any table.

Every label of the model has a row, with 0 where nothing was found.
"""

FILES_COLUMNS: Mapping[str, str] = {
    "path": "the input file",
    "status": "read, skipped or failed",
    "image": "id of the image that it became part of",
    "reader": "the reader that took it",
    "reason": "why it was skipped or failed",
}
"""Columns of files.csv."""

Columns = dict[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class FindingsCsv:
    """findings.csv: a row a finding, in the images' and findings' order. Columns: see `FINDINGS_COLUMNS`."""

    name: str = "findings-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.csv into `folder`, image by image."""
        numbers, notes = further_columns(record)
        closing = _closing(record)
        patient = [*PATIENT_COLUMNS] if any(in_study(image.info) for image in record.images) else []
        own = [*(f"number.{key}" for key in numbers), *(f"note.{key}" for key in notes)]
        path = folder / "findings.csv"
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            _write(dict.fromkeys([*FINDINGS_COLUMNS, *patient, *map(cell, own), *CLOSING], ()), file, header=True)
            for image in record.images:
                findings = image.findings()
                measures = measure(findings, image.info.placement)
                columns = finding_columns(image, findings, measures)
                if patient:
                    columns |= patient_columns(image.info, findings, measures.point)
                for key in numbers:
                    columns[f"number.{key}"] = significant(f.numbers.get(key, math.nan) for f in findings)
                for key in notes:
                    columns[f"note.{key}"] = [cell(f.notes.get(key, "")) for f in findings]
                columns |= {key: [cell(value)] * len(findings) for key, value in closing.items()}
                _write(columns, file)
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a table holds any image
        """Nothing: a table holds findings of any image."""
        return {}


@dataclass(frozen=True, slots=True)
class SummaryCsv:
    """summary.csv: areas and counts per image and label, and what became of each image. Columns: `SUMMARY_COLUMNS`."""

    name: str = "summary-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write summary.csv into `folder`."""
        path = folder / "summary.csv"
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            _write(dict.fromkeys(SUMMARY_COLUMNS, ()), file, header=True)
            for image in record.images:
                _write(_summary(record, image), file)
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a table holds any image
        """Nothing: a table holds any image."""
        return {}


@dataclass(frozen=True, slots=True)
class FilesCsv:
    """files.csv: a row an input file, whatever became of it. Columns: `FILES_COLUMNS`."""

    name: str = "files-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write files.csv into `folder`."""
        path = folder / "files.csv"
        columns: Columns = {key: [cell(getattr(row, key)) for row in record.files] for key in FILES_COLUMNS}
        with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            _write(columns, file, header=True)
        return [path]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a table holds any file
        """Nothing: every file has a row."""
        return {}


def finding_columns(image: ImageRecord, findings: Sequence[Finding], measures: Measures) -> Columns:
    """The columns `FINDINGS_COLUMNS` of one image's findings, as cells."""
    placement = image.info.placement
    rows = len(findings)
    x0, y0, x1, y1 = measures.bounds.T
    return {
        "image": [cell(image.info.id)] * rows,
        "finding": [str(number) for number in range(1, rows + 1)],
        "label": [cell(finding.label) for finding in findings],
        "kind": [finding.kind for finding in findings],
        "score": fixed((math.nan if finding.score is None else finding.score for finding in findings), 4),
        "area_m2": significant(measures.area_m2),
        "area_px": fixed(measures.area_px, 2),
        "x0_px": fixed(x0, 3),
        "y0_px": fixed(y0, 3),
        "x1_px": fixed(x1, 3),
        "y1_px": fixed(y1, 3),
        "x_px": fixed(measures.point[:, 0], 3),
        "y_px": fixed(measures.point[:, 1], 3),
        "lon": fixed(measures.lonlat[:, 0], 7),
        "lat": fixed(measures.lonlat[:, 1], 7),
        "world_x": fixed(measures.world[:, 0], 9 if placement.unit == "deg" else 3),
        "world_y": fixed(measures.world[:, 1], 9 if placement.unit == "deg" else 3),
        "world_unit": [placement.unit if placement.known else ""] * rows,
        "crs": [cell(crs_name(placement.crs))] * rows,
        "text": [cell(finding.text) for finding in findings],
    }


def _closing(record: Record) -> Mapping[str, str]:
    return {
        "model": record.model.get("name", ""),
        "model_version": record.model.get("version", ""),
        "weights_sha256": record.model.get("sha256", ""),
        "limner": record.version,
        "use": cell(record.use),
    }


def _summary(record: Record, image: ImageRecord) -> Columns:
    """One image's rows of summary.csv: its labels, its areas, and all of it."""
    findings = image.findings()
    whole = total(image.areas)
    rows = [
        _row("label", of.label, (of.pixels, of.m2), of.share, findings=of.findings)
        for of in label_areas(record, image, findings)
    ]
    rows += [
        _row("area", area.status, total([area]), share(total([area]), whole), reason=area.reason, regions=area.regions)
        for area in image.areas
    ]
    regions = sum(area.regions for area in image.areas)
    counted = len(findings) if record.assessed else None
    rows.append(_row("image", "whole image", whole, share(whole, whole), findings=counted, regions=regions))

    width, height = image.info.size
    ground = geodesy.metres_per_pixel(image.info.placement, (width / 2, height / 2)) or (math.nan, math.nan)
    pixel_x, pixel_y, seen_x, seen_y = significant(
        [ground[0], ground[1], ground[0] * image.scale[0], ground[1] * image.scale[1]], 6
    )
    every = {
        "image": cell(image.info.id),
        "status": record.standing([image]),
        "pixel_x_m": pixel_x,
        "pixel_y_m": pixel_y,
        "seen_x_m": seen_x,
        "seen_y_m": seen_y,
        "model": cell(record.model.get("name", "")),
        "model_version": cell(record.model.get("version", "")),
        "use": cell(record.use),
    }
    return {key: [every.get(key) or row.get(key, "") for row in rows] for key in SUMMARY_COLUMNS}


def _row(
    entry: str,
    name: str,
    area: tuple[float, float],
    part: float,
    *,
    reason: str = "",
    findings: int | None = None,
    regions: int | None = None,
) -> Mapping[str, str]:
    return {
        "entry": entry,
        "name": cell(name),
        "reason": cell(reason),
        "findings": "" if findings is None else str(findings),
        "regions": "" if regions is None else str(regions),
        "area_px": fixed([area[0]], 2)[0],
        "area_m2": significant([area[1]])[0],
        "share": fixed([part], 6)[0],
    }


def _write(columns: Columns, file: TextIO, *, header: bool = False) -> None:
    pd.DataFrame(columns, dtype=str).to_csv(file, index=False, header=header, lineterminator="\n")
