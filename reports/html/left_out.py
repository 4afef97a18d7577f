"""What was not assessed: tables of the parts of stacks, of slices, and of files that a run left out, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..measures import area_share, total_area
from ..overview.scale_bar import format_share
from ..table import Column, Rows, attribute
from ..writer import ImageRecord, Record
from .page import shorten
from .tables import PageTable, Shown, Style, page_table

_MOST_ROWS: Final = 200
_MOST_PARTS: Final = 2000
_MOST_NAMES: Final = 5
_MOST_RANGES: Final = 40


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of any of the tables."""

    image: str = ""
    status: str = ""
    reason: str = ""
    what: str = ""
    count: int = 0


def _column(name: str, heading: str, style: Style = "") -> Shown[Rows[_Row]]:
    column: Column[Any] = Column(name, "Int64" if style == "number" else "string", heading, attribute(name))
    return Shown(column, heading, style)


def coverage_table(record: Record, images: Sequence[ImageRecord], noun: str = "stack") -> PageTable:
    """What became of the area of each image, which `noun` names: the parts sum to the whole."""
    rows = [
        _Row(image.info.id, area.status, area.reason, format_share(area_share(total_area([area]), whole)))
        for image in images
        if (whole := total_area(image.areas))
        for area in image.areas
        if area.pixels
    ]
    columns = [_column("image", noun), _column("status", "became"), _column("what", "share of its area", "number")]
    note = "" if record.assessed else "No model was chosen: nothing was assessed."
    if len(rows) > _MOST_PARTS:
        rows, note = rows[:_MOST_PARTS], f"{_MOST_PARTS:,} of {len(rows):,} parts are listed: areas.csv has all."
    return page_table(
        "coverage",
        f"What became of each {noun}",
        [*columns, _column("reason", "reason", "text")],
        [Rows(rows)],
        note=note,
    )


def slice_table(images: Sequence[ImageRecord]) -> PageTable:
    """Slices of which not all was analysed, by reason."""
    found: dict[tuple[str, str, str], set[int]] = {}
    for image in images:
        for region in image.unanalysed:
            found.setdefault((image.info.id, region.status, region.reason), set()).add(region.plane + 1)
    rows = [_Row(*key, ranges(sorted(planes)), len(planes)) for key, planes in list(found.items())[:_MOST_ROWS]]
    note = ""
    if len(found) > len(rows):
        note = f"{len(rows)} of {len(found)} reasons are listed: slices.csv has all."
    columns = [_column("image", "stack"), _column("status", "became"), _column("count", "slices", "number")]
    columns += [_column("what", "which", "text"), _column("reason", "reason", "text")]
    caption = "Slices left out or unreadable, whole or in part"
    return page_table("slices-left-out", caption, columns, [Rows(rows)], note=note)


def failure_table(images: Sequence[ImageRecord]) -> PageTable:
    """Regions that failed, by reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for image in images:
        for region, error in image.failures:
            found.setdefault((image.info.id, error), []).append(region)
    rows = [
        _Row(image, "", reason, _names(regions), len(regions))
        for (image, reason), regions in list(found.items())[:_MOST_ROWS]
    ]
    note = f"{_MOST_ROWS} of {len(found)} reasons are listed: areas.csv has all." if len(found) > _MOST_ROWS else ""
    columns = [_column("image", "image"), _column("count", "regions", "number"), _column("reason", "reason", "text")]
    columns += [_column("what", "such as", "text")]
    return page_table("regions-failed", "Regions that failed", columns, [Rows(rows)], note=note)


def file_table(record: Record) -> PageTable:
    """Files of the run that became no image, by reason. Which study they belong to is not always known."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in record.files:
        if row.status != "read":
            found.setdefault((row.status, row.reason), []).append(row.path)
    rows = [
        _Row("", status, reason, _names(paths), len(paths))
        for (status, reason), paths in sorted(found.items())[:_MOST_ROWS]
    ]
    note = "Of the whole run, since a file that cannot be read names no study. files.csv lists each."
    columns = [_column("status", "became"), _column("count", "files", "number"), _column("reason", "reason", "text")]
    return page_table(
        "files-left-out",
        "Files that became no image",
        [*columns, _column("what", "such as", "text")],
        [Rows(rows)],
        note=note,
    )


def _names(paths: Sequence[str]) -> str:
    shown = ", ".join(shorten(path, 120) for path in paths[:_MOST_NAMES])
    return shown if len(paths) <= _MOST_NAMES else f"{shown}, …"


def ranges(numbers: Sequence[int]) -> str:
    """Sorted whole numbers with runs as ranges, shortened where there are very many.

    >>> ranges([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    texts = ["-".join(map(str, run)) for run in runs]
    return ", ".join(texts) if len(texts) <= _MOST_RANGES else f"{', '.join(texts[:_MOST_RANGES])}, …"
