"""Tables on the page of a run: a row per image, and a row per image and label."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from ...readers.image import Kind
from ..columns import MAP, TISSUE
from ..measures import LabelArea
from ..palette import Palette
from ..summary import SUMMARY, ImageSummary
from ..table import KINDS, Column, Dtype, Rows
from ..writer import Record
from .tables import PageTable, Shown, Style, page_table

_MOST_ROWS: Final = 2000
_IMAGES: Final[dict[str, tuple[str, Style]]] = {
    "image": ("image", "label"),
    "name": ("name", "label"),
    "kind": ("kind", ""),
    "status": ("status", ""),
    "findings": ("findings", "number"),
    "regions": ("regions", "number"),
    "failures": ("failed", "number"),
    "analysed_km2": ("analysed", "number"),
    "analysed_mm2": ("analysed", "number"),
    "analysed_share": ("share analysed", "number"),
    "pixel_x_m": ("pixel", "number"),
    "seen_x_m": ("pixel in the analysis", "number"),
    "pixel_x_um": ("pixel", "number"),
    "seen_x_um": ("pixel in the analysis", "number"),
    "pixel_x_mm": ("pixel", "number"),
    "seen_x_mm": ("pixel in the analysis", "number"),
}
"""Columns of summary.csv on the page, and their headings."""


def images_table(record: Record, rows: Sequence[ImageSummary], *, shown: int) -> PageTable:
    """A row per image; the first `shown` lead to their pictures."""
    columns = {column.name: column for column in SUMMARY}
    places = {id(row): place for place, row in enumerate(rows)}

    def links(row: ImageSummary) -> list[str]:
        place = places[id(row)]
        return [f"image-{place + 1}" if place < shown else ""]

    same = all(row.image.name in {"", row.image.info.id} for row in rows)
    chosen = [
        Shown(columns[name], *heading, links=links if name == "image" else None)
        for name, heading in _IMAGES.items()
        if not (same and name == "name")
    ]
    note = "" if record.assessed else "No model was chosen: nothing was assessed."
    if len(rows) > _MOST_ROWS:
        note = f"The first {_MOST_ROWS:,} of {len(rows):,} are listed. All are in summary.csv."
    return page_table("images", "Images", chosen, list(islice(rows, _MOST_ROWS)), note=note, rest="summary.csv")


@dataclass(frozen=True, slots=True)
class _LabelRow:
    """A label of an image."""

    summary: ImageSummary
    area: LabelArea


def _column(
    name: str,
    value: Callable[[_LabelRow], object],
    dtype: Dtype = "float64",
    unit: str = "",
    kinds: tuple[Kind, ...] = KINDS,
) -> Column[Any]:
    """A column, which is empty in the rows of images of other kinds."""

    def values(rows: Rows[_LabelRow]) -> list[object]:
        return [_readable(value(row)) if row.summary.kind in kinds else None for row in rows.rows]

    return Column(name, dtype, "", values, unit, 4 if name == "share" else None)


def _readable(value: object) -> object:
    """A number with five digits, which a person can compare; areas.csv has nine."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def labels_table(record: Record, rows: Sequence[ImageSummary], palette: Palette) -> PageTable:
    """A row per image and label: number, area, share of the analysed area, density."""
    every = [_LabelRow(row, area) for row in rows for area in row.labels.values()] if record.assessed else []
    found = [row for row in every if row.area.findings] if len(every) > _MOST_ROWS else every
    listed = Rows(found[:_MOST_ROWS])

    def colours(_: object) -> list[str]:
        return [palette[row.area.label] for row in listed.rows]

    columns: list[Shown[Any]] = [
        Shown(_column("label", lambda row: row.area.label or "(no label)", "string"), "label", "label", colours),
        *(
            [Shown(_column("image", lambda row: row.summary.image.info.id, "string"), "image", "label")]
            if len(rows) > 1
            else []
        ),
        Shown(_column("findings", lambda row: row.area.findings, "Int64"), "findings", "number"),
        Shown(_column("km2", lambda row: row.area.m2 * 1e-6, unit="km²", kinds=MAP), "area", "number"),
        Shown(_column("mm2", lambda row: row.area.m2 * 1e6, unit="mm²", kinds=TISSUE), "area", "number"),
        Shown(_column("px", lambda row: row.area.pixels, unit="px²"), "area", "number"),
        Shown(_column("ml", lambda row: row.area.ml, unit="ml"), "volume", "number"),
        Shown(_column("share", lambda row: row.area.share), "share of the analysed area", "number"),
        Shown(
            _column("per_km2", lambda row: row.summary.density(row.area, 1e-6), unit="1/km²", kinds=MAP),
            "density",
            "number",
        ),
        Shown(
            _column("per_mm2", lambda row: row.summary.density(row.area, 1e6), unit="1/mm²", kinds=TISSUE),
            "density",
            "number",
        ),
    ]
    note = "Findings that overlap count twice."
    if len(found) > _MOST_ROWS or len(found) < len(every):
        note += f" {len(listed):,} of {len(every):,} rows are listed, of labels that were found. All are in areas.csv."
    return page_table("areas", "Labels: counts, areas and densities", columns, [listed] if found else [], note=note)
