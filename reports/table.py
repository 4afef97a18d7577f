"""What a column of a table is, and how tables are written as CSV; `columns` declares the columns of findings.

CSV is UTF-8 without a byte-order mark, with commas, quotes doubled by RFC 4180, and one line per row: no cell holds a
line break. An empty cell means that the value is not known, never zero. Number formats are fixed, so that the
same record gives the same bytes, and no text can become a formula (`csv_safety.csv_cell`).
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..readers.files import atomic_path
from ..readers.image import Kind
from .cells import Cells, joined, number_cells, significant_cells, text_cells
from .csv_safety import clean_text, csv_cell

Dtype = Literal["int64", "Int64", "float64", "boolean", "string", "category"]
"""The type's name in pandas: all but "int64" hold missing values; "category" is a text of few values."""

Topic = Literal["identity", "finding", "place", "world", "run"]
"""What a column describes: which finding it is, what was found, where it lies in the image and on Earth, or in the
image's own CRS, or the run (the same in every row)."""

Typed = npt.NDArray[Any]

KINDS: tuple[Kind, ...] = ("map", "slide", "study")
DIGITS = 9
"""Significant digits of numbers whose decimals are not stated."""
_POWERS = 10.0 ** np.arange(23)  # all exact
_QUOTE = '"'
_TYPES = {
    "int64": "whole number",
    "Int64": "whole number",
    "float64": "number",
    "boolean": "true or false",
    "string": "text",
    "category": "text",
}


class Batch(Protocol):
    """Rows from which columns compute their values."""

    @property
    def kind(self) -> Kind | None:
        """The kind of image of all rows; None where they are of none."""
        ...

    def __len__(self) -> int: ...


B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)
B = TypeVar("B", bound=Batch)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Column(Generic[B_contra]):
    """One column of a table."""

    name: str
    dtype: Dtype
    description: str
    values: Callable[[B_contra], object]
    """A value for each row of a batch, or one for all of them; None or NaN where it is not known."""
    unit: str = ""
    decimals: int | Callable[[B_contra], int] | None = None
    """Decimals of numbers, where the unit decides a function of the batch; None for 9 significant digits."""
    kinds: tuple[Kind, ...] = KINDS
    """The kinds of image that have it: it is in a table only with one of those, and empty for the others."""
    topic: Topic = "finding"

    def array(self, batch: B_contra) -> Typed:
        """The values of a batch (N,), rounded: float64 with NaN, or int64, or objects (int, bool or str) with None.

        A batch may have a dictionary `shared`, in which they are kept for other tables: they are not to be changed.
        """
        shared: dict[object, Typed] = getattr(batch, "shared", {})
        if self not in shared:
            shared[self] = self._array(batch)
        return shared[self]

    def _array(self, batch: B_contra) -> Typed:
        values: Any = None if batch.kind is not None and batch.kind not in self.kinds else self.values(batch)
        single = isinstance(values, str | int | float | None)
        if self.dtype == "float64":
            numbers = np.array([values] if single else values, dtype=np.float64)
            rounded = _rounded(numbers, self._decimals(batch))
            return np.repeat(rounded, len(batch)) if single else rounded
        if self.dtype == "int64":
            return np.full(len(batch), values, dtype=np.int64) if single else np.array(values, dtype=np.int64)
        if single:
            one = np.array([clean_text(values) if isinstance(values, str) else values], dtype=object)
            return np.broadcast_to(one, len(batch))
        rows: list[object] = values.tolist() if isinstance(values, np.ndarray) else list(values)
        clean: dict[object, object] = {one: clean_text(one) if isinstance(one, str) else one for one in set(rows)}
        objects = np.empty(len(batch), dtype=object)
        objects[:] = [clean[one] for one in rows]
        return objects

    def csv_cells(self, batch: B_contra) -> list[str]:
        """The values of a batch as fields of CSV: empty where not known; no text can become a formula."""
        return self._cells(batch, _field)

    def csv_bytes(self, batch: B_contra) -> Cells:
        """The same as bytes."""
        values, decimals = self.array(batch), 0 if self.dtype == "int64" else self._decimals(batch)
        if self.dtype in {"float64", "int64"}:
            numbers = values.astype(np.float64)
            cells = significant_cells(numbers, DIGITS, 0) if decimals is None else number_cells(numbers, decimals)
            if cells is not None:
                return cells
        if is_constant(values) and self.dtype in {"string", "category"}:
            return _field(values[0] or "").encode()
        return text_cells(self.csv_cells(batch))

    def texts(self, batch: B_contra) -> list[str]:
        """The values of a batch as texts on one line, "" where not known: not for spreadsheets, as `csv_cells` are."""
        return self._cells(batch, str)

    def _cells(self, batch: B_contra, of_text: Callable[[str], str]) -> list[str]:
        values = self.array(batch)
        if self.dtype == "float64":
            return _number_cells(values, self._decimals(batch))
        if self.dtype == "int64":
            return list(map(str, values.tolist()))
        if is_constant(values):
            return [of_text(values[0]) if isinstance(values[0], str) else plain_text(values[0])] * len(values)
        rows: list[object] = values.tolist()
        cells = {one: of_text(one) if isinstance(one, str) else plain_text(one) for one in set(rows)}
        return [cells[one] for one in rows]

    def json_values(self, batch: B_contra) -> list[Any]:
        """The values of a batch for JSON: None where not known."""
        values = self.array(batch)
        rows: list[Any] = values.tolist()
        for place in np.flatnonzero(np.isnan(values)).tolist() if self.dtype == "float64" else ():
            rows[place] = None
        return rows

    def _decimals(self, batch: B_contra) -> int | None:
        return self.decimals(batch) if callable(self.decimals) else self.decimals


def is_constant(values: Typed) -> bool:
    """Whether all values were made of one."""
    return len(values) > 0 and values.strides == (0,)


def _field(text: str) -> str:
    """A text as a field of CSV, in quotes where it needs them: `csv.writer` takes three times as long for a table."""
    cell = csv_cell(text)
    return f'"{cell.replace(_QUOTE, 2 * _QUOTE)}"' if _QUOTE in cell or "," in cell else cell


def plain_text(value: object) -> str:
    """A whole number as text, and true, false, or "" for None."""
    return "" if value is None else str(value).lower()


def _rounded(values: npt.NDArray[np.float64], decimals: int | None) -> npt.NDArray[np.float64]:
    values[~np.isfinite(values)] = np.nan
    if decimals is not None:
        return np.round(values, decimals) + 0.0  # never -0
    size = np.abs(values)
    power = DIGITS - 1 - np.floor(np.log10(np.where(size > 0, size, 1.0)))  # decimals
    scale = _POWERS[np.clip(np.nan_to_num(power), 0, len(_POWERS) - 1).astype(np.intp)]
    whole, scaled = np.rint(size * scale), size * scale
    near = (
        np.abs(np.abs(scaled - whole) - 0.5) < 1e-5
    )  # which way it is rounded may depend on the product's own rounding
    exact = (power >= 0) & (power < len(_POWERS)) & (whole >= 10.0 ** (DIGITS - 1)) & (whole <= 10.0**DIGITS) & ~near
    made = np.copysign(whole / scale, values)
    others = np.flatnonzero(~exact & (size > 0))
    made[others] = [float(text) for text in _formatted(values[others], f"%.{DIGITS}g")]
    return np.where(np.isnan(values), np.nan, made) + 0.0


def _formatted(values: npt.NDArray[np.float64], number_format: str) -> list[str]:
    """Numbers as texts, all at once, which is faster than one by one."""
    return (f"{number_format}\n" * len(values) % tuple(values.tolist())).split("\n")[:-1]


def _number_cells(values: npt.NDArray[np.float64], decimals: int | None) -> list[str]:
    cells = _formatted(values, f"%.{DIGITS}g" if decimals is None else f"%.{decimals}f")
    for place in np.flatnonzero(np.isnan(values)).tolist():
        cells[place] = ""
    if decimals is None:
        for place, cell in enumerate(cells):
            if "e" in cell:
                cells[place] = np.format_float_positional(float(values[place]), trim="-")
    return cells


@dataclass(frozen=True, slots=True)
class Rows(Generic[R]):
    """A batch whose rows are objects."""

    rows: Sequence[R]
    kind: Kind | None = None

    def __len__(self) -> int:
        return len(self.rows)


def attribute(name: str) -> Callable[[Any], object]:
    """The attribute `name` of each of a batch's `rows`."""
    return lambda batch: [getattr(row, name) for row in batch.rows]


def columns_for(columns: Iterable[Column[B_contra]], kinds: Iterable[Kind]) -> list[Column[B_contra]]:
    """The columns of tables that hold these kinds of image; without any, the columns that all kinds have."""
    present = set(kinds)
    return [one for one in columns if (present & {*one.kinds} if present else one.kinds == KINDS)]


def with_unique_names(columns: Iterable[Column[B_contra]]) -> list[Column[B_contra]]:
    """Columns whose names differ: a later one that has the name of another gets a number."""
    taken: set[str] = set()
    result: list[Column[B_contra]] = []
    for one in columns:
        name, count = one.name, 1
        while name in taken:
            count += 1
            name = f"{one.name}_{count}"
        taken.add(name)
        result.append(replace(one, name=name))
    return result


@contextmanager
def csv_table(path: Path, columns: Sequence[Column[B]]) -> Generator[Callable[[B], None]]:
    """Write a CSV table of the batches that the function it gives is called with."""
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(",".join(_field(column.name) for column in columns).encode() + b"\n")

        def write(batch: B) -> None:
            if len(batch):
                cells = [part for column in columns for part in (column.csv_bytes(batch), b",")]
                file.write(joined([*cells[:-1], b"\n"], len(batch)))

        yield write


def write_csv(path: Path, columns: Sequence[Column[B]], batches: Iterable[B]) -> Path:
    """Write a CSV table, batch by batch; returns its path."""
    with csv_table(path, columns) as write:
        for batch in batches:
            write(batch)
    return path


def markdown(columns: Iterable[Column[Any]]) -> str:
    """The columns as a table for the documentation."""
    lines = ["| column | type | unit | of | what it is |", "| --- | --- | --- | --- | --- |"]
    plural = {"map": "maps", "slide": "slides", "study": "studies"}
    for one in columns:
        decimals = f", {one.decimals} decimals" if isinstance(one.decimals, int) else ""
        kinds = "" if one.kinds == KINDS else ", ".join(plural[kind] for kind in one.kinds)
        cells = (f"`{one.name}`", _TYPES[one.dtype] + decimals, one.unit, kinds, one.description)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |")
