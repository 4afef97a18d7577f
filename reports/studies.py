"""Tables of radiology studies: studies.csv, series.csv with a row per stack, slices.csv; findings.csv has findings.

Identifiers are the reader's: pseudonyms unless the user chose to show names. No date, name or free text of a file is in
these tables.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from ..readers.image import Kind, Plane
from ..readers.pseudonyms import is_pseudonym
from .columns import COUNTED, IMAGE, MODEL, NAME, fact
from .patient_geometry import centres_lps_mm, slice_positions_mm
from .streams import Stream, write_stream
from .table import Column, write_csv
from .writer import AnalysisStatus, ImageRecord, Record, UnanalysedRegion

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


@dataclass(frozen=True)
class SliceRows:
    """The slices of one stack: a row of slices.csv each."""

    record: Record
    image: ImageRecord
    counts: npt.NDArray[np.int64]
    """Findings of each slice."""

    def __len__(self) -> int:
        return len(self.image.info.planes)

    @property
    def kind(self) -> Kind:
        """Always a study."""
        return "study"

    @property
    def planes(self) -> Sequence[Plane]:
        """The slices in order."""
        return self.image.info.planes

    @property
    def findings(self) -> list[int | None]:
        """Findings of each slice; None without a model."""
        return [self.record.count(int(count)) for count in self.counts]

    def values(self, name: str) -> list[float]:
        """A value of each slice; NaN where it has none."""
        return [dict(plane.values).get(name, math.nan) for plane in self.planes]

    @cached_property
    def outcomes(self) -> list[tuple[str, str]]:
        """The status of each slice, and why where it is not analysed."""
        left: dict[int, list[UnanalysedRegion]] = {}
        for region in self.image.unanalysed:
            left.setdefault(region.plane, []).append(region)
        whole = math.prod(self.image.info.size)
        return [_outcome(left.get(plane, []), whole) for plane in range(len(self))]

    @property
    def corners(self) -> npt.NDArray[np.float64]:
        """(N, 3): the centre of each slice's first pixel in the patient (LPS, mm); NaN without a place."""
        return centres_lps_mm(self.planes, np.full((len(self), 2), 0.5))


def _outcome(left: Sequence[UnanalysedRegion], whole: float) -> tuple[str, str]:
    """The status of a slice of `whole` px², and the reasons of its regions that were not analysed."""
    if not left:
        return "analysed", ""
    reason = "; ".join(sorted({region.reason for region in left}))
    if sum(region.box.width * region.box.height for region in left) < whole * (1 - _ROUNDED):
        return "partial", reason
    return "unreadable" if any(region.status == "unreadable" for region in left) else "skipped", reason


_ROUNDED: Final = 1e-9
_TIME: Final = "by the clock, from the earliest of the series"
SLICE_VALUES: Mapping[str, tuple[str, str, str]] = {
    "echo time": ("echo_time_ms", "ms", "effective where the file states it"),
    "inversion time": ("inversion_time_ms", "ms", "of MR"),
    "b-value": ("b_value_s_mm2", "s/mm²", "of diffusion MR"),
    "time offset": ("time_offset_s", "s", "of its temporal position"),
    "temporal position": ("temporal_position", "", "its number in time"),
    "trigger time": ("trigger_time_ms", "ms", "after the R wave"),
    "cardiac phase": ("cardiac_phase_percent", "%", "of the R-R interval"),
    "frame reference time": ("frame_reference_time_ms", "ms", "of PET, as the file states it"),
    "energy window": ("energy_window", "", "of nuclear medicine: its number"),
    "R-R interval": ("rr_interval", "", "of nuclear medicine: its number"),
    "time slot": ("time_slot", "", "of nuclear medicine: its number"),
    "acquisition": ("acquisition_number", "", "as the file states it"),
    "acquisition time": ("acquisition_time_s", "s", _TIME),
    "content time": ("content_time_s", "s", _TIME),
}
"""Value of a slice by which stacks are told apart → its column, unit and what it is."""
_SLICE_STATUS = (
    "analysed; partial; skipped; or unreadable: of its regions, as in areas.csv. Of a volume, the whole stack's"
)


def _paths(rows: SliceRows) -> list[str | None]:
    """The file of each slice where it may be shown: as the table of files has it or its archive, or a pseudonym."""
    known = {row.path for row in rows.record.files if row.path}

    def shown(source: str) -> bool:
        return source in known or is_pseudonym(source) or any(map(source.startswith, known))

    return [source if shown(source) else None for source in (plane.source for plane in rows.planes)]


def _plane(name: str) -> Callable[[SliceRows], object]:
    return lambda rows: [getattr(plane, name) for plane in rows.planes]


def _corner(axis: int) -> Callable[[SliceRows], object]:
    return lambda rows: rows.corners[:, axis]


def _value(name: str) -> Callable[[SliceRows], object]:
    return lambda rows: rows.values(name)


SLICES: tuple[Column[SliceRows], ...] = (
    Column("study_uid", "category", "the study, as a pseudonym", lambda rows: rows.image.info.study or None),
    Column("series_uid", "category", "the series, as a pseudonym", fact("series_uid")),
    IMAGE,
    Column("slice", "int64", "its place in the stack, from 1", lambda rows: np.arange(len(rows)) + 1),
    Column(
        "path",
        "string",
        "its file, as files.csv names it; a member of an archive has a pseudonym of its own",
        _paths,
    ),
    Column("sop_uid", "string", "the SOP instance, as a pseudonym", _plane("name")),
    Column("frame", "int64", "frame within it, from 1", _plane("frame")),
    Column("instance_number", "Int64", "as the file states it", _plane("instance")),
    Column(
        "slice_position_mm",
        "float64",
        "along the stack's normal",
        lambda r: slice_positions_mm(r.planes)[:, 0],
        "mm",
        3,
    ),
    *(
        Column(f"corner_lps_{axis}_mm", "float64", "Image Position (Patient)", _corner(at), "mm", 3)
        for at, axis in enumerate("xyz")
    ),
    Column("split_by", "category", "what its series was split by, as in series.csv", fact("split_by")),
    Column("split_value", "category", "the values in this stack, likewise", fact("split_value")),
    *(Column(column, "float64", text, _value(name), unit) for name, (column, unit, text) in SLICE_VALUES.items()),
    Column("status", "category", _SLICE_STATUS, lambda rows: [status for status, _ in rows.outcomes]),
    Column("reason", "category", "why not all of it was analysed", lambda rows: [why for _, why in rows.outcomes]),
    Column("n_findings", "Int64", COUNTED, lambda rows: rows.findings),
)
"""Columns of slices.csv."""


@dataclass(frozen=True, slots=True)
class StudiesCsv:
    """studies.csv, a row per study; series.csv, a row per stack of slices or single image; slices.csv, per slice."""

    name: str = "studies-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write the tables into `folder`; nothing where no image belongs to a study."""
        return write_stream(self.stream(record, folder), record)

    def stream(self, record: Record, folder: Path) -> Stream:
        """Write the tables, with the findings counted batch by batch."""
        images = [image for image in record.images if image.info.kind == "study"]
        counts = {image.info.id: np.zeros(len(image.info.planes), np.int64) for image in images}
        while (batch := (yield)) is not None:
            if (counted := counts.get(batch.image.info.id)) is not None:
                counted += np.bincount(batch.table.plane, minlength=len(counted))
        if not images:
            return []
        by_study: dict[str, list[ImageRecord]] = {}
        for image in images:
            by_study.setdefault(image.info.study, []).append(image)
        studies = [StudyRow(record, members) for _, members in sorted(by_study.items())]
        series = [StudyRow(record, [image]) for image in images]
        slices = [SliceRows(record, image, counts[image.info.id]) for image in images]
        return [
            write_csv(folder / "studies.csv", STUDIES, studies),
            write_csv(folder / "series.csv", SERIES, series),
            write_csv(folder / "slices.csv", SLICES, slices),
        ]

    def omitted(self, record: Record) -> Mapping[str, str]:
        """Images that belong to no study, where others do."""
        others = {one.info.id: "it belongs to no study" for one in record.images if one.info.kind != "study"}
        return others if len(others) < len(record.images) else {}
