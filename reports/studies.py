"""Tables of radiology studies: studies.csv, series.csv and slices.csv (a row a finding, placed in its slice).

Identifiers are those that the reader gives, which are pseudonyms unless a person asked otherwise. No date, name or free
text of a file is in them. UTF-8, commas, a line feed a row; an empty cell means not known or not assessed, never zero.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..readers.files import replacing
from ..readers.sheet import sheet_of
from .cells import cell, fixed
from .measures import measure
from .patient import centre_cells, in_study, slice_cells, spot
from .writer import ImageRecord, Record

STUDIES_COLUMNS: Mapping[str, str] = {
    "study_uid": "the study, as a pseudonym",
    "modalities": "of its images, sorted",
    "n_series": "series with images",
    "n_stacks": "stacks of one geometry, and single images",
    "n_instances": "slices and frames in them",
    "n_read": "files read",
    "n_skipped": "files left out, with their reasons in files.csv",
    "n_failed": "files that failed, with their reasons in files.csv",
    "related": "objects of the study that are no images",
    "n_findings": "findings in all its images; empty where nothing was looked for",
    "status": "complete; partial where a file or a planned region failed; not assessed where nothing was looked for",
    "warnings": "how many sentences about its images should be read (in series.csv)",
    "limner": "version of limner",
    "model": "name of the model",
    "model_version": "its version",
    "weights_sha256": "sha256 of its weights",
    "use": "what these numbers may be used for",
}
"""Columns of studies.csv and what they mean."""

_FROM_FACTS: Mapping[str, str] = {
    "modality": "as the file codes it",
    "body_part": "as the file codes it, where that is a usual code",
    "laterality": "R, L, U (unpaired) or B (both), as the file codes it",
    "view": "view position of a projection",
    "patient_orientation": "towards which side rows and columns run, of a projection",
    "patient_position": "how the patient lay",
    "n_images": "slices or frames",
    "rows": "pixels of a slice, down",
    "columns": "pixels of a slice, across",
    "sort_basis": "what the order of slices rests on",
    "split_by": "what tells the stack from others at the same places",
    "spacing_source": "of row_mm and col_mm; in the patient only pixel_spacing and pixel_spacing_calibrated hold",
    "row_mm": "mm between rows",
    "col_mm": "mm between columns",
    "step_mm_min": "mm between neighbouring slices, least",
    "step_mm_median": "the median",
    "step_mm_max": "the most",
    "tilt_deg": "degrees between the stack's direction and the slices' normal",
    "missing_slices": "slices missing at the stack's own step",
    "irregular_spacing": "whether steps differ otherwise",
    "duplicates": "files of the study left out as duplicates",
    "uid_synthesised": "whether UIDs were missing and made from content",
    "is_localiser": "yes or no",
    "is_secondary": "a capture of a screen or film: yes or no",
    "burned_in_risk": "of identifying text in the pixels: yes or none where stated, else low or high",
    "recognisable_features": "YES or NO as the file says",
    "identity_removed": "YES or NO as the file says",
    "transfer_syntax": "UID of how pixels are coded",
    "lossy": "01 where pixels were once compressed with loss, 00 where not, as the file says",
    "decoder": "codecs for it, in the order in which they are tried",
    "quantity": "what grey values are: HU, …, or number",
    "padding": "whether the file marks padding",
    "window_used": "centre/width, or a table's entries, and function and source of the rendering window",
}

SERIES_COLUMNS: Mapping[str, str] = {
    "study_uid": "the study, as a pseudonym",
    "series_uid": "the series, as a pseudonym",
    "stack_id": "the image's id in this run",
    **_FROM_FACTS,
    "n_findings": "findings in it; empty where nothing was looked for",
    "status": "complete; partial where a planned region failed; not assessed where nothing was looked for",
    "notes": "what to read before trusting the numbers",
}
"""Columns of series.csv and what they mean: a row a stack."""

SLICES_COLUMNS: Mapping[str, str] = {
    "study_uid": "the study, as a pseudonym",
    "series_uid": "the series, as a pseudonym",
    "stack_id": "the image's id in this run",
    "finding": "its number within the image, from 1, the same in every report",
    "label": "what was seen",
    "score": "0 to 1 as the model gave it; empty where it gives none",
    "n_slices": "slices that the finding's geometry touches",
    "sop_uid": "the slice, as a pseudonym; empty where the finding is of several",
    "frame": "frame within it, from 1",
    "slice": "its place in the stack, from 1",
    "slice_position_mm": "its place along the stack's normal",
    "x0_px": "bounding box in the slice's own pixels, left",
    "y0_px": "top",
    "x1_px": "right",
    "y1_px": "bottom",
    "centre_x_mm": "a point on the finding, patient coordinates (LPS), mm",
    "centre_y_mm": "the same, towards posterior",
    "centre_z_mm": "the same, towards the head",
    "spacing_source": "where mm come from; without mm, why there are none",
    "text": "what the model said in words; data, not instructions",
    "review_status": "for a reader to fill",
    "use": "what these numbers may be used for",
}
"""Columns of slices.csv and what they mean: a row a finding."""

_AS_THERE: Mapping[str, str] = {
    **{f"{edge}_px": f"bbox_{edge}_px" for edge in ("x0", "y0", "x1", "y1")},
    **{f"centre_{axis}_mm": f"centre_lps_{axis}_mm" for axis in "xyz"},
}
"""Columns of slices.csv → what findings.csv calls them, where it has others of that name."""

_NO_STUDY = "it belongs to no radiology study"


@dataclass(frozen=True, slots=True)
class StudiesCsv:
    """studies.csv, series.csv and slices.csv. Columns: `STUDIES_COLUMNS`, `SERIES_COLUMNS`, `SLICES_COLUMNS`."""

    name: str = "studies-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the three tables into `folder`; nothing where no image belongs to a study."""
        images = [image for image in record.images if in_study(image.info)]
        if not images:
            return []
        tables = (
            ("studies.csv", STUDIES_COLUMNS, _studies(record, images)),
            ("series.csv", SERIES_COLUMNS, (_series(record, image) for image in images)),
            ("slices.csv", SLICES_COLUMNS, (row for image in images for row in _slices(record, image))),
        )
        written: list[Path] = []
        for name, columns, rows in tables:
            path = folder / name
            with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, list(columns), lineterminator="\n")
                table.writeheader()
                table.writerows({key: row.get(key, "") for key in columns} for row in rows)
            written.append(path)
        return written

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that belong to no study, where others do."""
        inside = [image.info.id for image in record.images if in_study(image.info)]
        return {image.info.id: _NO_STUDY for image in record.images if inside and image.info.id not in inside}


def _studies(record: Record, images: Sequence[ImageRecord]) -> list[Mapping[str, str]]:
    by_study: dict[str, list[ImageRecord]] = {}
    for image in images:
        by_study.setdefault(image.info.study, []).append(image)
    rows: list[Mapping[str, str]] = []
    for study, members in sorted(by_study.items()):
        facts = [dict(image.info.facts) for image in members]
        failed = max(int(one.get("study_failed", "0")) for one in facts)
        standing = record.standing(members)
        rows.append(
            {
                "study_uid": cell(study),
                "modalities": " ".join(sorted({one["modality"] for one in facts if one.get("modality")})),
                "n_series": str(len({one.get("series_uid", "") for one in facts})),
                "n_stacks": str(len(members)),
                "n_instances": str(sum(len(image.info.cells) for image in members)),
                "n_read": _most(facts, "study_read"),
                "n_skipped": _most(facts, "study_skipped"),
                "n_failed": _most(facts, "study_failed"),
                "related": cell(max((one.get("study_related", "") for one in facts), key=len)),
                "n_findings": record.count(sum(len(image.findings()) for image in members)),
                "status": "partial" if standing == "complete" and failed else standing,
                "warnings": str(sum(len(image.info.notes) for image in members)),
                "limner": cell(record.version),
                "model": cell(record.model.get("name", "")),
                "model_version": cell(record.model.get("version", "")),
                "weights_sha256": cell(record.model.get("sha256", "")),
                "use": cell(record.use),
            }
        )
    return rows


def _most(facts: Iterable[Mapping[str, str]], name: str) -> str:
    """The study's count of files: each of its images states it; inputs that hold parts of it state less."""
    return str(max(int(one.get(name, "0")) for one in facts))


def _series(record: Record, image: ImageRecord) -> Mapping[str, str]:
    facts = dict(image.info.facts)
    return {
        "study_uid": cell(image.info.study),
        "series_uid": cell(facts.get("series_uid", "")),
        "stack_id": cell(image.info.id),
        **{key: cell(facts.get(key, "")) for key in _FROM_FACTS},
        "n_findings": record.count(len(image.findings())),
        "status": record.standing([image]),
        "notes": cell("; ".join(image.info.notes)),
    }


def _slices(record: Record, image: ImageRecord) -> Iterable[Mapping[str, str]]:
    findings = image.findings()
    sheet = sheet_of(image.info)
    points = measure(findings, image.info.placement).point
    for number, (finding, point) in enumerate(zip(findings, points, strict=True), 1):
        one = spot(image.info, sheet, finding)
        told = slice_cells(image.info, one) | centre_cells(one, point)
        yield {
            **told,
            **{ours: told.get(theirs, "") for ours, theirs in _AS_THERE.items()},
            "stack_id": cell(image.info.id),
            "finding": str(number),
            "label": cell(finding.label),
            "score": fixed([math.nan if finding.score is None else finding.score], 4)[0],
            "text": cell(finding.text),
            "use": cell(record.use),
        }
