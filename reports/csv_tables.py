"""Tables as CSV: findings, a summary with a row an image, areas with their reasons, and files.

UTF-8 without a byte-order mark, commas, quotes doubled by RFC 4180, each line ended by one line feed, and one line a
row, since no cell holds a line break. An empty cell means that the number is not known, never zero. Numbers have fixed
forms, so that the same record gives the same bytes. Texts cannot become formulas (`cells.cell`).
"""
# pandas has its types in comments and stubs apart:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd

from ..readers.files import atomic_path
from .columns import findings_columns
from .csv_safety import csv_cell
from .measures import FindingsBatch
from .summary import AREAS, AreaFacts, ImageSummary, summary_columns
from .table import Batch, Column, Rows, attribute, columns_for
from .writer import FileRow, Record

B = TypeVar("B", bound=Batch)

FILES: tuple[Column[Rows[FileRow]], ...] = (
    Column("path", "string", "the input file", attribute("path")),
    Column("status", "category", "read, skipped or failed", attribute("status")),
    Column("image", "category", "id of the image that it became part of", attribute("image")),
    Column("reader", "category", "the reader that took it", attribute("reader")),
    Column("reason", "string", "why it was skipped or failed", attribute("reason")),
)
"""Columns of files.csv."""


def write_table(path: Path, columns: Sequence[Column[B]], batches: Iterable[B]) -> Path:
    """Write a CSV table, batch by batch; returns its path."""
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        pd.DataFrame(columns=[csv_cell(column.name) for column in columns]).to_csv(
            file, index=False, lineterminator="\n"
        )
        for batch in batches:
            rows = {column.name: column.csv_cells(batch) for column in columns}
            pd.DataFrame(rows, dtype=object).to_csv(file, index=False, header=False, lineterminator="\n")
    return path


@dataclass(frozen=True, slots=True)
class FindingsCsv:
    """findings.csv: a row a finding, in the images' and findings' order."""

    name: str = "findings-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write findings.csv into `folder`, image by image."""
        batches = (FindingsBatch(record, image, image.findings()) for image in record.images)
        return [write_table(folder / "findings.csv", findings_columns(record), batches)]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a table holds any image
        """Nothing: a table holds findings of any image."""
        return {}


@dataclass(frozen=True, slots=True)
class SummaryCsv:
    """summary.csv, a row an image, and areas.csv, a row a fact: areas by label, and what became of each part."""

    name: str = "summary-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write summary.csv and areas.csv into `folder`."""
        rows = [ImageSummary.of(record, image) for image in record.images]
        return [
            write_table(folder / "summary.csv", summary_columns(record, rows), rows),
            write_table(folder / "areas.csv", columns_for(AREAS, {row.kind for row in rows}), map(AreaFacts.of, rows)),
        ]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a table holds any image
        """Nothing: a table holds any image."""
        return {}


@dataclass(frozen=True, slots=True)
class FilesCsv:
    """files.csv: a row an input file, whatever became of it."""

    name: str = "files-csv"

    def write(self, record: Record, folder: Path) -> Sequence[Path]:
        """Write files.csv into `folder`."""
        return [write_table(folder / "files.csv", FILES, [Rows(record.files)])]

    def omitted(self, record: Record) -> Mapping[str, str]:  # noqa: ARG002 - a table holds any file
        """Nothing: every file has a row."""
        return {}
