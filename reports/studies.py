"""Tables of radiology studies: studies.csv, and series.csv with a row a stack; findings.csv has their findings.

Identifiers are those that the reader gives, which are pseudonyms unless a person asked otherwise. No date, name or free
text of a file is in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..readers.image import Kind
from .columns import IMAGE, MODEL, NAME, fact
from .csv_tables import write_table
from .table import Column
from .writer import AnalysisStatus, ImageRecord, Record

_FACTS: Mapping[str, str] = {
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
"""Columns of series.csv whose texts the reader gives as facts of the image."""


@dataclass(frozen=True)
class StudyRow:
    """One study: the images of a run that belong to it."""

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
        """The first of its images, which is all of them in a row of series.csv."""
        return self.images[0]

    @cached_property
    def facts(self) -> Sequence[Mapping[str, str]]:
        """What the reader knows of each image."""
        return [dict(image.info.facts) for image in self.images]

    def most(self, fact: str) -> int:
        """The study's count of files: each of its images states it; inputs that hold parts of it state less."""
        return max(int(one.get(fact, "0")) for one in self.facts)

    def known(self, fact: str) -> list[str]:
        """The values of a fact in its images, sorted, each once."""
        return sorted({one[fact] for one in self.facts if one.get(fact)})

    @property
    def related(self) -> str:
        """Objects of the study that are no images: the longest list that an image has."""
        return max(self.known("study_related"), key=len, default="")

    @property
    def findings(self) -> int | None:
        """Findings in all its images; None where nothing was looked for."""
        return self.record.count(sum(len(image.findings()) for image in self.images))

    @property
    def status(self) -> AnalysisStatus:
        """Whether all of it was analysed."""
        return self.record.status_of(self.images)


_COUNTED = "findings; empty where nothing was looked for"
_FAILED = "complete; partial where a file or a planned region failed; not assessed where nothing was looked for"
_STUDY: Column[StudyRow] = Column(
    "study_uid", "category", "the study, as a pseudonym", lambda row: row.image.info.study
)

STUDIES: tuple[Column[StudyRow], ...] = (
    _STUDY,
    Column("modalities", "category", "of its images, sorted", lambda row: " ".join(row.known("modality"))),
    Column("n_series", "Int64", "series with images", lambda row: len(row.known("series_uid"))),
    Column("n_stacks", "Int64", "stacks of one geometry, and single images", lambda row: len(row.images)),
    Column(
        "n_instances", "Int64", "slices and frames in them", lambda row: sum(len(one.info.planes) for one in row.images)
    ),
    Column("n_read", "Int64", "files read", lambda row: row.most("study_read")),
    Column("n_skipped", "Int64", "files left out: files.csv has reasons", lambda row: row.most("study_skipped")),
    Column("n_failed", "Int64", "files that failed: files.csv has reasons", lambda row: row.most("study_failed")),
    Column("related", "string", "objects of the study that are no images", lambda row: row.related),
    Column("n_findings", "Int64", _COUNTED, lambda row: row.findings),
    Column(
        "status",
        "category",
        _FAILED,
        lambda row: "partial" if row.status == "complete" and row.most("study_failed") else row.status,
    ),
    Column("warnings", "Int64", "notes in series.csv", lambda row: sum(len(one.info.notes) for one in row.images)),
    *MODEL,
)
"""Columns of studies.csv."""

SERIES: tuple[Column[StudyRow], ...] = (
    _STUDY,
    Column("series_uid", "category", "the series, as a pseudonym", fact("series_uid")),
    IMAGE,
    NAME,
    *(Column(key, "category", words, fact(key)) for key, words in _FACTS.items()),
    Column("n_findings", "Int64", _COUNTED, lambda row: row.findings),
    Column("status", "category", "as in summary.csv", lambda row: row.status),
    Column("notes", "string", "what to read before trusting the numbers", lambda row: "; ".join(row.image.info.notes)),
)
"""Columns of series.csv."""


@dataclass(frozen=True, slots=True)
class StudiesCsv:
    """studies.csv, a row a study, and series.csv, a row a stack of slices or a single image."""

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
            write_table(folder / "studies.csv", STUDIES, studies),
            write_table(folder / "series.csv", SERIES, series),
        ]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that belong to no study, where others do."""
        others = {one.info.id: "it belongs to no study" for one in record.images if one.info.kind != "study"}
        return others if len(others) < len(record.images) else {}
