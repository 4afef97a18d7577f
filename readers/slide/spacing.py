"""Pixel spacing of slides in µm/px: from the file where it is plausible, or as the user states it."""

import csv
import io
import math
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ..errors import RequestError, excerpt
from ..geometry import Placement

MIN_MPP, MAX_MPP = 0.05, 10.0  # µm/px of level 0: no light microscope resolves finer, no slide scanner is coarser
_MAX_ANISOTROPY: Final = 0.05  # relative: scanners' pixels are square within this
_SAME: Final = 0.01  # relative difference up to which two spacings agree
_MAX_TABLE_BYTES: Final = 16 << 20

NOTE_PREFIX: Final = "Spacing:"
"""How notes on a slide's pixel spacing begin."""

_UM: Final = {
    "pm": 1e-6, "nm": 1e-3, "Å": 1e-4, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6,
    "in": 25400.0, "inch": 25400.0, "centimeter": 1e4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spacing:
    """Level-0 pixel spacing in µm/px along x and y."""

    x: float
    y: float
    source: str
    """Where the numbers come from: a tag, a header, an option."""

    def __str__(self) -> str:
        return f"{self.x:.6g} × {self.y:.6g} µm/px ({self.source})"

    @property
    def implausible(self) -> str:
        """Why this is no slide's spacing, as a clause; "" where it may be."""
        if not (math.isfinite(self.x) and math.isfinite(self.y) and min(self.x, self.y) > 0):
            return "the numbers are not positive"
        if min(self.x, self.y) < MIN_MPP or max(self.x, self.y) > MAX_MPP:
            return f"level 0 of a slide has {MIN_MPP:g} to {MAX_MPP:g} µm/px"
        if max(self.x, self.y) / min(self.x, self.y) - 1 > _MAX_ANISOTROPY:
            return f"x and y differ by more than {_MAX_ANISOTROPY:.0%}"
        return ""

    def placement(self) -> Placement:
        """The placement of a slide with this spacing."""
        return Placement(((self.x, 0.0, 0.0), (0.0, self.y, 0.0)), "um", source=self.source)

    def differs_from(self, other: Self) -> bool:
        """Whether two spacings disagree."""
        return max(abs(self.x / other.x - 1), abs(self.y / other.y - 1)) > _SAME


def to_micrometres(value: str | float | None, unit: str) -> float | None:
    """A length in µm; None where it is no number or the unit is unknown.

    >>> to_micrometres("0.25", "µm"), to_micrometres("0.25", "furlong")
    (0.25, None)
    """
    try:
        return None if value is None else float(value) * _UM[unit.strip()]
    except (KeyError, ValueError):
        return None


STORED: Final = "stored_spacing"
"""The entry of `ImageInfo.facts` for the µm/px, x and y, that a picture states without being known as a slide."""


def stored_spacing(facts: Sequence[tuple[str, str]]) -> Spacing | None:
    """The spacing in a picture's facts, which is used only to be compared with what the user states."""
    numbers = dict(facts).get(STORED, "").split()
    return Spacing(float(numbers[0]), float(numbers[1]), "TIFF resolution tag") if numbers else None


def slide_placement(stored: Spacing | None) -> tuple[Placement, tuple[str, ...]]:
    """The placement of a slide in µm where the spacing in its file is plausible, else in pixels; and notes."""
    advice = "state it with --microns-per-pixel or --reader-options spacing_csv=FILE."
    if stored is None:
        note = f"{NOTE_PREFIX} the file states none, so sizes are in pixels; {advice}"
    elif stored.implausible:
        why = stored.implausible
        note = f"{NOTE_PREFIX} {stored} is implausible ({why}) and not used. Sizes are in pixels; {advice}"
    else:
        return stored.placement(), ()
    return Placement.pixels(), (note,)


@dataclass(frozen=True, slots=True)
class SpacingTable:
    """A CSV table of the spacing of slides."""

    path: str
    rows: tuple[tuple[int, dict[str, str]], ...]
    """Line numbers and rows."""

    @classmethod
    def read(cls, path: str) -> Self:
        """The table in a CSV file. Raises `RequestError` where it is invalid."""
        subject = f"table of slides {path}"
        try:
            reader = csv.DictReader(io.StringIO(_read_text(Path(path)), newline=""))
            columns = tuple(reader.fieldnames or ())
            rows = tuple((reader.line_num, row) for row in reader)
        except (OSError, ValueError, csv.Error) as error:  # ValueError: no UTF-8
            raise _unreadable(path, error) from error
        if not {"mpp_x", "mpp_y"} <= set(columns) or not {"path", "name"} & set(columns):
            rule = "must have the columns mpp_x, mpp_y, and path or name"
            raise RequestError(subject, rule, value=", ".join(columns), remedy="Correct its header")
        for line, row in rows:
            for text in (row["mpp_x"], row["mpp_y"]):
                if not _is_positive(text):
                    rule = "must have positive numbers of µm/px"
                    raise RequestError(f"{subject}, line {line},", rule, value=text or "", remedy="Correct it")
        return cls(path, rows)

    def find(self, uri: str) -> Spacing | None:
        """The spacing of a slide: by its path (relative to the table's folder), else by its file name or stem."""
        slide, folder = Path(uri).resolve(), Path(self.path).parent
        try:
            by_path = [row for row in self.rows if row[1].get("path") and (folder / row[1]["path"]).resolve() == slide]
        except (OSError, ValueError) as error:  # an impossible path
            raise _unreadable(self.path, error) from error
        chosen = by_path or [row for row in self.rows if row[1].get("name") in {slide.name, slide.stem}]
        found = {(float(row["mpp_x"]), float(row["mpp_y"])) for _, row in chosen}
        if len(found) > 1:
            lines = f"lines {', '.join(str(line) for line, _ in chosen)} for one slide"
            rule, remedy = "must state one spacing for each slide", "Keep one of the lines, or give paths"
            raise RequestError(f"table of slides {self.path}", rule, value=lines, remedy=remedy)
        return Spacing(*found.pop(), "table of slides") if found else None


def _unreadable(path: str, error: Exception) -> RequestError:
    rule = "must be a readable CSV file"
    return RequestError(f"table of slides {path}", rule, value=excerpt(str(error)), remedy="Check the path")


def _read_text(table: Path) -> str:
    """The text of a file. Raises `OSError` where it is not regular, `ValueError` where it is too long or not UTF-8."""
    if not stat.S_ISREG(table.stat().st_mode):
        raise OSError("not a regular file")
    with table.open("rb") as file:
        content = file.read(_MAX_TABLE_BYTES + 1)
    if len(content) > _MAX_TABLE_BYTES:
        raise ValueError(f"more than {_MAX_TABLE_BYTES} bytes")
    return content.decode("utf-8-sig")


def _is_positive(text: str | None) -> bool:
    try:
        value = float(text or "")
    except ValueError:
        return False
    return math.isfinite(value) and value > 0
