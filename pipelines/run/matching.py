"""Joins a table of a run to an export of a PACS or a worklist, by the identifiers behind the run's pseudonyms.

findings.csv: study_uid = 2.25.77…  ──reveal──▶  1.2.840.113619…  ◀── StudyInstanceUID of the export
"""

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...readers.errors import RequestError, did_you_mean
from ...readers.files import atomic_path
from ...readers.user_tables import UserTable, read_user_table
from ...reports.csv_safety import csv_cell
from .reveal import RevealedName, check_private
from .run_files import as_store_errors

COLUMNS: Final[Mapping[str, tuple[str, str]]] = {
    "studyinstanceuid": ("study", "study_uid"),
    "seriesinstanceuid": ("series", "series_uid"),
    "sopinstanceuid": ("instance", "sop_uid"),
}
"""An export's column, in lower case without blanks and underscores → a kind of `RevealedName`, the run's column."""

_MAX_BYTES: Final = 2**28
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(slots=True)
class Matched:
    """What was joined, in rows."""

    rows: int = 0
    """Of the run's table, with a row of the export."""
    run_only: int = 0
    """Of the run's table, without one, or whose original is missing."""
    export_only: int = 0
    """Of the export, without one in the run's table."""


def match_export(
    folder: Path, names: Sequence[RevealedName], export: Path, *, on: str, table: str, out: Path
) -> Matched:
    """Write the rows of a table of a run, each with the row of the export that has its identifier: an outer join.

    `on` is the export's column, `table` the name of a CSV report of the run without ".csv". The first column, `match`,
    is "both", "run only" or "export only"; then come the identifier, the columns of the run's table, and those of the
    export. The file is readable by its owner only. The export is kept in memory, the run's table is not. Raises
    `RequestError` for an export or a column that does not suit, and as `check_private` does, `StoreError` where the
    file cannot be written.
    """
    check_private(out)
    kind, column = _key_of(on)
    exported = read_user_table(str(export), f"the export {export}", max_bytes=_MAX_BYTES)
    rows = _rows_by_key(exported, on, export)
    originals = {name.pseudonym: name.original for name in names if name.kind == kind}
    path = folder / f"{table}.csv"
    if Path(table).name != table or not path.is_file():
        tables = sorted(one.stem for one in folder.glob("*.csv"))
        remedy = f"{did_you_mean(table, tables)}Tables: {', '.join(tables)}"
        raise RequestError("--table", "must be a CSV report of the run", value=table, remedy=remedy)
    csv.field_size_limit(_MAX_BYTES)  # a model's text may be longer than the default
    with path.open(encoding="utf-8", newline="") as source:
        reader = csv.reader(source)
        header = next(reader, list[str]())
        if column not in header:
            rule, remedy = f"must have the column {column}", "Name another --table, or join on another column"
            raise RequestError(f"{table}.csv", rule, remedy=remedy)
        matched, used, place = Matched(), set[str](), header.index(column)
        with as_store_errors(out), atomic_path(out) as part:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["match", csv_cell(on), *header, *_export_names(exported, header, on)])
                for row in reader:
                    original = originals.get(row[place], "")
                    found = rows.get(original)
                    if found is None:
                        matched.run_only += 1
                        writer.writerow(["run only", original, *row, *[""] * (len(exported.columns) - 1)])
                    else:
                        matched.rows += 1
                        used.add(original)
                        writer.writerow(["both", original, *row, *found])
                for key, found in rows.items():
                    if key not in used:
                        matched.export_only += 1
                        writer.writerow(["export only", csv_cell(key), *[""] * len(header), *found])
    return matched


def _key_of(on: str) -> tuple[str, str]:
    """The kind of an export's column, and the run's column. Raises `RequestError` for one that is none."""
    found = COLUMNS.get(re.sub(r"[\s_]", "", on).lower())
    if found is None:
        rule = "must be StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID"
        remedy = "Rename the export's column; numbers of requests and patients are never read from the images"
        raise RequestError("--on", rule, value=on, remedy=remedy)
    return found


def _rows_by_key(table: UserTable, on: str, export: Path) -> dict[str, list[str]]:
    """The other cells of each row, which no spreadsheet takes for a formula, by its identifier."""
    if on not in table.columns:
        remedy = f"{did_you_mean(on, table.columns)}Name a column of its header"
        raise RequestError(f"the export {export}", f"must have the column {on}", remedy=remedy)
    place = table.columns.index(on)
    found: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    for line, row in table.rows:
        key = row[place].strip()
        if not key:
            raise RequestError(f"the export {export}, line {line},", f"must have {on}", remedy="Remove the row")
        if key in found:
            rule, remedy = (
                f"must have one row for each {on}",
                "Join on SeriesInstanceUID or SOPInstanceUID, or remove one",
            )
            raise RequestError(f"the export {export}", rule, value=f"lines {lines[key]} and {line}", remedy=remedy)
        found[key] = [_safe(cell) for at, cell in enumerate(row) if at != place]
        lines[key] = line
    return found


def _safe(cell: str) -> str:
    return cell if _NUMBER.fullmatch(cell) else csv_cell(cell)


def _export_names(table: UserTable, header: Sequence[str], on: str) -> Iterator[str]:
    """The export's other columns, with a mark where the run's table has one of that name."""
    taken = {"match", on, *header}
    for name in table.columns:
        if name != on:
            yield csv_cell(f"export.{name}" if name in taken else name)
