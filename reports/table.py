"""What a column of a table is; `columns` declares those of findings.

A column says its name, type, unit and meaning, of which kinds of image it speaks, and how its values are computed.
`Column.typed` gives them as numbers and texts, rounded as they are told; `Column.cells` gives the same as CSV cells.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..readers.image import Kind
from .csv_safety import clean_text, csv_cell

Dtype = Literal["int64", "Int64", "float64", "string", "category"]
"""What pandas calls the type: "Int64" holds missing values, "int64" none; "category" is a text of few values."""

Topic = Literal["identity", "finding", "place", "world", "run"]
"""What a column speaks of: which finding it is, what was found, where it lies in the picture and on Earth, or in the
image's own CRS, or the run (the same in every row)."""

Typed = npt.NDArray[Any]

KINDS: tuple[Kind, ...] = ("map", "slide", "study")
_DIGITS = 9
_TYPES = {"int64": "whole number", "Int64": "whole number", "float64": "number", "string": "text", "category": "text"}


class Batch(Protocol):
    """Rows of which columns compute their values: those of one image, `kind` says of which kind; None of none."""

    @property
    def kind(self) -> Kind | None:
        """The kind of image that the rows are of."""
        ...

    def __len__(self) -> int: ...


B_contra = TypeVar("B_contra", bound=Batch, contravariant=True)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Column(Generic[B_contra]):
    """One column of a table.

    `values` computes a value for each row of a batch, or one for all of them; None or NaN where it is not known.
    Numbers have `decimals` places (a function of the batch, where its unit decides), or 9 significant digits where that
    is None. `kinds` are the kinds of image of which it speaks: it stands in a table only where one of those does, and
    is empty for the others.
    """

    name: str
    dtype: Dtype
    description: str
    values: Callable[[B_contra], object]
    unit: str = ""
    decimals: int | Callable[[B_contra], int] | None = None
    kinds: tuple[Kind, ...] = KINDS
    topic: Topic = "finding"

    def array(self, batch: B_contra) -> Typed:
        """The values of a batch (N,): float64 with NaN, or int64, or objects (int or str) with None, all as told."""
        values = None if batch.kind is not None and batch.kind not in self.kinds else self.values(batch)
        if isinstance(values, str | int | float | None):
            values = [values] * len(batch)
        rows: Any = values
        if self.dtype == "float64":
            return _rounded(np.array(rows, dtype=np.float64), self._places(batch))
        if self.dtype == "int64":
            return np.array(rows, dtype=np.int64)
        known: dict[object, object] = {one: clean_text(one) if isinstance(one, str) else one for one in set(rows)}
        objects = np.empty(len(batch), dtype=object)
        objects[:] = [known[one] for one in rows]
        return objects

    def csv_cells(self, batch: B_contra) -> list[str]:
        """The values of a batch as cells of a spreadsheet: empty where not known; no text can become a formula."""
        values = self.array(batch).tolist()
        if self.dtype != "float64":
            known = {
                one: "" if one is None else csv_cell(one) if isinstance(one, str) else str(one) for one in set(values)
            }
            return [known[one] for one in values]
        places = self._places(batch)
        form = _digits if places is None else f"{{:.{places}f}}".format
        return [form(value) if value == value else "" for value in values]  # noqa: PLR0124 - NaN is not itself

    def json_values(self, batch: B_contra) -> list[Any]:
        """The values of a batch as JSON knows them: None where not known."""
        typed = self.array(batch)
        if self.dtype == "float64" and np.isnan(typed).any():
            return [None if math.isnan(value) else value for value in typed.tolist()]
        return typed.tolist()

    def _places(self, batch: B_contra) -> int | None:
        return self.decimals(batch) if callable(self.decimals) else self.decimals


def _rounded(values: npt.NDArray[np.float64], places: int | None) -> npt.NDArray[np.float64]:
    values[~np.isfinite(values)] = np.nan
    if places is not None:
        return np.round(values, places) + 0.0  # never -0
    return np.array([float(f"{value:.{_DIGITS}g}") for value in values.tolist()], dtype=np.float64) + 0.0


def _digits(value: float) -> str:
    text = f"{value:.{_DIGITS}g}"
    return np.format_float_positional(value, trim="-") if "e" in text else text


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
    """The columns that speak of one of these kinds of image; without any, those that speak of all."""
    there = set(kinds)
    return [one for one in columns if (there & {*one.kinds} if there else one.kinds == KINDS)]


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


def markdown(columns: Iterable[Column[Any]]) -> str:
    """The columns as a table for the documentation."""
    lines = ["| column | type | unit | of | what it is |", "| --- | --- | --- | --- | --- |"]
    for one in columns:
        form = f", {one.decimals} decimals" if isinstance(one.decimals, int) else ""
        kinds = (
            "" if one.kinds == KINDS else ", ".join({"study": "studies"}.get(kind, f"{kind}s") for kind in one.kinds)
        )
        cells = (f"`{one.name}`", _TYPES[one.dtype] + form, one.unit, kinds, one.description)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).replace("|  |", "| |").replace("|  |", "| |")
