"""Tables of radiology studies: studies.csv, and series.csv with a row per stack; findings.csv has their findings.

Identifiers are the reader's: pseudonyms unless the user chose to show names. No date, name or free text of a file is in
these tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..readers.image import Kind
from .columns import COUNTED, IMAGE, MODEL, NAME, fact
from .table import Column, write_csv
from .writer import AnalysisStatus, ImageRecord, Record

_FACTS: Mapping[str, str] = {
    "modality": "as the file codes it",
    "body_part": "as the file codes it, where that is a usual code",
    "laterality": "R, L, U (unpaired) or B (both), as the file codes it",
    "view": "view position of a projection",
    "patient_orientation": "directions of rows and columns of a projection",
    "patient_position": "as the file codes it",
    "n_images": "slices or frames",
    "rows": "pixels of a slice, down",
    "columns": "pixels of a slice, across",
    "sort_basis": "what the order of slices is based on",
    "split_by": "the attributes by which the series, and slices at the same positions, were split into stacks",
    "split_value": "their values in this stack, with units, in the same order; times by the clock from the earliest",
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
    "recognisable_features": "YES or NO as the file states",
    "identity_removed": "YES or NO as the file states",
    "transfer_syntax": "UID of the encoding of the pixels",
    "lossy": "01 where pixels were once compressed with loss, 00 where not, as the file states",
    "decoder": "codecs for it, in the order in which they are tried",
    "quantity": "the unit of grey values: HU, …, or number",
    "padding": "whether the file marks padding",
    "window_used": "centre/width, or a table's entries, and function and source of the VOI window",
}
"""Columns of series.csv whose values are facts of the image, as its reader states them."""


@dataclass(frozen=True)
class StudyRow:
    """One study: its images in a run. A row of series.csv has one image."""

    record: Record
    images: Sequence[ImageRecord]

    def __len__(self) -> int:
        return 1

    @property
    def kind(self) -> Kind:
        """Always a study."""
        return "study"

    @property
    def image(self) -> ImageRecord:
        """The first image."""
        return self.images[0]

    @cached_property
    def facts(self) -> Sequence[Mapping[str, str]]:
        """The facts of each image."""
        return [dict(image.info.facts) for image in self.images]

    def largest(self, fact: str) -> int:
        """The study's number of files: each image states it, for the input that it came from."""
        return max(int(one.get(fact, "0")) for one in self.facts)

    def distinct(self, fact: str) -> list[str]:
        """The distinct values of a fact, sorted."""
        return sorted({one[fact] for one in self.facts if one.get(fact)})

    @property
    def related(self) -> str:
        """Objects of the study that are not images: the longest list of an image."""
        return max(self.distinct("study_related"), key=len, default="")

    @property
    def findings(self) -> int | None:
        """Findings in all its images; None without a model."""
        return self.record.count(sum(len(image.findings()) for image in self.images))

    @property
    def status(self) -> AnalysisStatus:
        """Whether all of it was analysed."""
        return self.record.status_of(self.images)


_STATUS = (
    "complete; partial where a file or a planned region failed; doubtful where an image has warnings; not assessed "
    "without a model"
)
_STUDY: Column[StudyRow] = Column(
    "study_uid", "category", "the study, as a pseudonym", lambda row: row.image.info.study
)


def _status(row: StudyRow) -> str:
    return "partial" if row.status in {"complete", "doubtful"} and row.largest("study_failed") else row.status


STUDIES: tuple[Column[StudyRow], ...] = (
    _STUDY,
    Column("modalities", "category", "of its images, sorted", lambda row: " ".join(row.distinct("modality"))),
    Column("n_series", "Int64", "series with images", lambda row: len(row.distinct("series_uid"))),
    Column("n_stacks", "Int64", "stacks of one geometry, and single images", lambda row: len(row.images)),
    Column("n_instances", "Int64", "slices and frames", lambda row: sum(len(one.info.planes) for one in row.images)),
    Column("n_read", "Int64", "files read", lambda row: row.largest("study_read")),
    Column("n_skipped", "Int64", "files left out: files.csv has reasons", lambda row: row.largest("study_skipped")),
    Column("n_failed", "Int64", "files that failed: files.csv has reasons", lambda row: row.largest("study_failed")),
    Column("related", "string", "objects of the study that are not images", lambda row: row.related),
    Column("n_findings", "Int64", COUNTED, lambda row: row.findings),
    Column("status", "category", _STATUS, _status),
    Column("warnings", "Int64", "notes in series.csv", lambda row: sum(len(one.info.notes) for one in row.images)),
    *MODEL,
)
"""Columns of studies.csv."""

SERIES: tuple[Column[StudyRow], ...] = (
    _STUDY,
    Column("series_uid", "category", "the series, as a pseudonym", fact("series_uid")),
    IMAGE,
    NAME,
    *(Column(key, "category", description, fact(key)) for key, description in _FACTS.items()),
    Column("n_findings", "Int64", COUNTED, lambda row: row.findings),
    Column("status", "category", "as in summary.csv", lambda row: row.status),
    Column("notes", "string", "warnings about order, position and values", lambda row: "; ".join(row.image.info.notes)),
)
"""Columns of series.csv."""


@dataclass(frozen=True, slots=True)
class StudiesCsv:
    """studies.csv, a row per study, and series.csv, a row per stack of slices or single image."""

    name: str = "studies-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write both tables into `folder`; nothing where no image belongs to a study."""
        images = [image for image in record.images if image.info.kind == "study"]
        if not images:
            return []
        by_study: dict[str, list[ImageRecord]] = {}
        for image in images:
            by_study.setdefault(image.info.study, []).append(image)
        studies = [StudyRow(record, members) for _, members in sorted(by_study.items())]
        series = [StudyRow(record, [image]) for image in images]
        return [
            write_csv(folder / "studies.csv", STUDIES, studies),
            write_csv(folder / "series.csv", SERIES, series),
        ]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that belong to no study, where others do."""
        others = {one.info.id: "it belongs to no study" for one in record.images if one.info.kind != "study"}
        return others if len(others) < len(record.images) else {}
