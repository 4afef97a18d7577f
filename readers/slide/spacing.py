"""Micrometres a pixel: what a slide's file says, whether it can be believed, and what a person says instead."""

import csv
import io
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ..errors import RequestError, excerpt
from ..geometry import Placement

FINEST, COARSEST = 0.05, 10.0  # µm/px: no light microscope sees finer, and nothing coarser is a slide's level 0
_SKEW: Final = 0.05  # relative: scanners' pixels are square within this
_LONGEST: Final = 16 << 20  # bytes of a table of slides
_AGREE: Final = 0.01  # relative: an override that differs by less says the same

NOTE: Final = "Spacing:"
"""How notes on a slide's pixel size begin."""

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


def place_slide(found: Spacing | None) -> tuple[Placement, tuple[str, ...]]:
    """The placement of a slide by what its file says, in µm where that is plausible, else in pixels; and notes."""
    remedy = "state it with --microns-per-pixel or the reader option spacing_csv."
    if found is None:
        return Placement.pixels(), (f"{NOTE} the file states none, so sizes are in pixels; {remedy}",)
    if found.doubt:
        doubted = f"{NOTE} the file says {found}, which is not believed: {found.doubt}. Sizes are in pixels; {remedy}"
        return Placement.pixels(), (doubted,)
    return place(found), ()


def place(spacing: Spacing) -> Placement:
    """The placement of a slide with that spacing."""
    return Placement(((spacing.x, 0.0, 0.0), (0.0, spacing.y, 0.0)), "um", source=spacing.source)


def differ(one: Spacing, other: Spacing) -> bool:
    """Whether two spacings say something else."""
    return max(abs(one.x / other.x - 1), abs(one.y / other.y - 1)) > _AGREE


@dataclass(frozen=True, slots=True)
class SpacingTable:
    """A table of slides in `path`, read: line numbers and rows."""

    path: str
    rows: tuple[tuple[int, dict[str, str]], ...]

    @classmethod
    def read(cls, path: str) -> Self:
        """The table in a CSV file. Raises `RequestError` where it is none."""
        subject = f"table of slides {path}"
        try:
            reader = csv.DictReader(io.StringIO(_text(Path(path)), newline=""))
            columns = tuple(reader.fieldnames or ())
            rows = tuple((reader.line_num, row) for row in reader)
        except (OSError, ValueError, csv.Error) as error:  # ValueError: no UTF-8
            raise _unreadable(subject, error) from error
        if not {"mpp_x", "mpp_y"} <= set(columns) or not {"path", "name"} & set(columns):
            raise RequestError(
                subject,
                "it has the columns path or name, mpp_x and mpp_y",
                value=", ".join(columns),
                remedy="Correct its head",
            )
        for line, row in rows:
            _ = _number(row["mpp_x"], f"{subject}, line {line}"), _number(row["mpp_y"], f"{subject}, line {line}")
        return cls(path, rows)

    def find(self, uri: str) -> Spacing | None:
        """The row of a slide: by its path (counted from the table's folder), else by its file name or stem."""
        slide, beside = Path(uri).resolve(), Path(self.path).parent
        try:
            by_path = [row for row in self.rows if row[1].get("path") and (beside / row[1]["path"]).resolve() == slide]
        except (OSError, ValueError) as error:  # a path that cannot be
            raise _unreadable(f"table of slides {self.path}", error) from error
        chosen = by_path or [row for row in self.rows if row[1].get("name") in {slide.name, slide.stem}]
        found = {(float(row["mpp_x"]), float(row["mpp_y"])) for _, row in chosen}
        if len(found) > 1:
            raise RequestError(
                f"table of slides {self.path}",
                "a slide has one spacing",
                value=f"lines {', '.join(str(line) for line, _ in chosen)} for one slide",
                remedy="Keep one, or give paths",
            )
        return Spacing(*found.pop(), "table of slides") if found else None


def _unreadable(subject: str, error: Exception) -> RequestError:
    return RequestError(subject, "it must be a readable CSV file", value=excerpt(str(error)), remedy="Check the path")


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


def _number(text: str | None, subject: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise RequestError(subject, "micrometres a pixel are a positive number", value=text or "", remedy="Correct it")
    return value
