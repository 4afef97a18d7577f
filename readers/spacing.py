"""Micrometres a pixel: what a slide's file says, whether it can be believed, and what a person says instead."""

import csv
import io
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .errors import RequestError, shown
from .geometry import Placement

FINEST, COARSEST = 0.05, 10.0  # µm/px: no light microscope sees finer, and nothing coarser is a slide's level 0
_SKEW: Final = 0.05  # relative: scanners' pixels are square within this
_LONGEST: Final = 16 << 20  # bytes of a table of slides
_AGREE: Final = 0.01  # relative: an override that differs by less says the same

OPTIONS = ("microns_per_pixel", "spacing_csv")
"""The reader options that override what files say."""

_UM: Final = {
    "pm": 1e-6, "nm": 1e-3, "Å": 1e-4, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6,
    "in": 25400.0, "inch": 25400.0, "centimeter": 1e4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spacing:
    """Micrometres a level-0 pixel along x and y, and where the two numbers were read."""

    x: float
    y: float
    source: str

    def __str__(self) -> str:
        return f"{self.x:.6g} × {self.y:.6g} µm/px ({self.source})"

    @property
    def doubt(self) -> str:
        """Why these numbers cannot be a slide's, in words; "" where they can."""
        if not (math.isfinite(self.x) and math.isfinite(self.y) and min(self.x, self.y) > 0):
            return "they are not positive numbers"
        if min(self.x, self.y) < FINEST or max(self.x, self.y) > COARSEST:
            return f"a slide's level 0 has {FINEST:g} to {COARSEST:g} µm/px"
        if max(self.x, self.y) / min(self.x, self.y) - 1 > _SKEW:
            return f"x and y differ by more than {_SKEW:.0%}"
        return ""


def in_micrometres(value: str | float | None, unit: str) -> float | None:
    """A length in µm; None where it is no number, or its unit no length that is known.

    >>> in_micrometres("0.25", "µm"), in_micrometres("0.25", "furlong")
    (0.25, None)
    """
    try:
        return None if value is None else float(value) * _UM[unit.strip()]
    except (KeyError, ValueError):
        return None


def place_slide(uri: str, found: Spacing | None, options: Mapping[str, str]) -> tuple[Placement, tuple[str, ...]]:
    """The placement of a slide, in µm where its spacing is known and plausible, else in pixels; and notes.

    `found` is what the file says. What a person says (reader options `microns_per_pixel`: one number, or two as x,y;
    `spacing_csv`: a table of slides with columns `path` or `name`, `mpp_x` and `mpp_y`) goes before it, whatever it
    is; a note tells where the two disagree. Raises `RequestError` where an option cannot be understood.
    """
    stated = _stated(uri, options)
    notes: list[str] = []
    if stated is not None:
        if found is not None and not found.doubt and _differ(stated, found):
            notes.append(f"Spacing: {stated} is used as stated; the file says {found}.")
        if stated.doubt:
            notes.append(f"Spacing: {stated} is used as stated, although {stated.doubt}.")
        return _placement(stated), tuple(notes)
    if found is None:
        return Placement.pixels(), ("Spacing: the file states none, so sizes are in pixels; " + _REMEDY,)
    if found.doubt:
        refused = (
            f"Spacing: the file says {found}, which is not believed: {found.doubt}. Sizes are in pixels; {_REMEDY}"
        )
        return Placement.pixels(), (refused,)
    return _placement(found), ()


_REMEDY: Final = "state it with the reader option microns_per_pixel or spacing_csv."


def _placement(spacing: Spacing) -> Placement:
    return Placement(((spacing.x, 0.0, 0.0), (0.0, spacing.y, 0.0)), "um", source=spacing.source)


def _differ(one: Spacing, other: Spacing) -> bool:
    return max(abs(one.x / other.x - 1), abs(one.y / other.y - 1)) > _AGREE


def _stated(uri: str, options: Mapping[str, str]) -> Spacing | None:
    """What a person says of this slide: its row in the table goes before the number for all slides."""
    table = options.get("spacing_csv", "")
    row = _row(uri, table) if table else None
    if row is not None:
        return row
    text = options.get("microns_per_pixel", "")
    if not text:
        return None
    parts = text.split(",")
    values = [_number(part, "reader option microns_per_pixel") for part in parts]
    if len(values) > 2:  # noqa: PLR2004 - x and y
        raise RequestError(
            "reader option microns_per_pixel", "it is one number, or two as x,y", value=text, remedy="Correct it"
        )
    return Spacing(values[0], values[-1], "reader option microns_per_pixel")


def _row(uri: str, table: str) -> Spacing | None:
    """The row of a slide: by its path (counted from the table's folder), else by its file name or stem."""
    thing = f"table of slides {table}"
    try:
        reader = csv.DictReader(io.StringIO(_text(Path(table)), newline=""))
        columns = tuple(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
        slide = Path(uri).resolve()
        beside = Path(table).parent
        by_path = [row for row in rows if row[1].get("path") and (beside / row[1]["path"]).resolve() == slide]
    except (OSError, ValueError, csv.Error) as error:  # ValueError: no UTF-8, or a path that cannot be
        raise RequestError(
            thing, "it must be a readable CSV file", value=shown(str(error)), remedy="Check the path"
        ) from error
    if not {"mpp_x", "mpp_y"} <= set(columns) or not {"path", "name"} & set(columns):
        raise RequestError(
            thing,
            "it has the columns path or name, mpp_x and mpp_y",
            value=", ".join(columns),
            remedy="Correct its head",
        )
    chosen = by_path or [row for row in rows if row[1].get("name") and row[1]["name"] in {slide.name, slide.stem}]
    found = {
        (_number(row["mpp_x"], f"{thing}, line {line}"), _number(row["mpp_y"], f"{thing}, line {line}"))
        for line, row in chosen
    }
    if len(found) > 1:
        raise RequestError(
            thing,
            "a slide has one spacing",
            value=f"lines {', '.join(str(line) for line, _ in chosen)} for one slide",
            remedy="Keep one, or give paths",
        )
    return Spacing(*found.pop(), "table of slides") if found else None


def _text(table: Path) -> str:
    """What a table says. Raises `OSError` where it is no file, and `ValueError` where it is too long, or no UTF-8."""
    if not stat.S_ISREG(table.stat().st_mode):
        msg = "it is no regular file"
        raise OSError(msg)
    with table.open("rb") as file:
        content = file.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        msg = f"it holds more than {_LONGEST} bytes"
        raise ValueError(msg)
    return content.decode("utf-8-sig")


def _number(text: str | None, thing: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise RequestError(thing, "micrometres a pixel are a positive number", value=text or "", remedy="Correct it")
    return value
