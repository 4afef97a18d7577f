"""Findings as columns, so that a million can be sorted, merged and written without an object for each."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Protocol, Self, overload

import numpy as np
import numpy.typing as npt
import shapely

from .finding import Finding

Objects = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp] | npt.NDArray[np.int32]

BATCH: Final = 10_000
"""Findings that are in memory at a time, where all are gone through."""

BATCH_VERTICES: Final = 250_000
"""Vertices of the findings that are in memory at a time, where all are gone through, if one alone has no more."""

POLYGONAL: Final = frozenset({3, 6})
"""Shapely's type numbers of Polygon and MultiPolygon."""

_OBJECTS: Final = ("label", "kind", "text")
_ROW: Final = 200  # bytes of a finding, beside its geometry


@dataclass(frozen=True, eq=False)
class FindingsTable(Sequence[Finding]):
    """Findings of one image, a row each. As a sequence it makes each finding when it is asked for."""

    label: Objects
    kind: Objects
    score: Floats
    """NaN where the model gives none."""
    text: Objects
    text_cut: Flags
    cut: Flags
    plane: npt.NDArray[np.int64]
    window: Floats
    """(N, 4): NaN where there is none."""
    shapes: Objects = field(repr=False)
    """The geometries, or all of them as WKB, which is parsed when `geometries` is first used."""
    numbers: Mapping[str, Floats]
    """NaN where a finding has none of that name."""
    notes: Mapping[str, Objects]
    """None where a finding has none of that name."""

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Self:
        """A table of findings, in order."""
        rows = list(findings)
        shapes = objects(row.geometry for row in rows)
        names = [sorted({name for row in rows for name in getattr(row, part)}) for part in ("numbers", "notes")]
        return cls(
            **{name: objects(getattr(row, name) for row in rows) for name in _OBJECTS},
            score=_floats(row.score for row in rows),
            text_cut=np.array([row.text_cut for row in rows], dtype=np.bool_),
            cut=np.array([row.cut for row in rows], dtype=np.bool_),
            plane=np.array([row.plane for row in rows], dtype=np.int64),
            window=np.array([row.window or (np.nan,) * 4 for row in rows], dtype=np.float64).reshape(-1, 4),
            shapes=shapes,
            numbers={name: _floats(row.numbers.get(name) for row in rows) for name in names[0]},
            notes={name: objects(row.notes.get(name) for row in rows) for name in names[1]},
        )

    @classmethod
    def concatenated(cls, tables: Sequence[Self]) -> Self:
        """The rows of several tables, one after the other."""
        if len(tables) == 1:
            return tables[0]
        if not tables:
            return cls.of(())
        encoded = all(isinstance(table.shapes[0], bytes) for table in tables if len(table))
        plain = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _PLAIN}
        names = [sorted({name for table in tables for name in getattr(table, part)}) for part in ("numbers", "notes")]
        return cls(
            **plain,
            shapes=np.concatenate([table.shapes if encoded else table.geometries for table in tables]),
            numbers={
                name: np.concatenate([table.numbers.get(name, np.full(len(table), np.nan)) for table in tables])
                for name in names[0]
            },
            notes={
                name: np.concatenate([table.notes.get(name, np.full(len(table), None)) for table in tables])
                for name in names[1]
            },
        )

    def take(self, rows: Index | slice) -> Self:
        """The given rows, in the given order. Columns of the model's own that are then empty stay."""
        return type(self)(
            **{name: getattr(self, name)[rows] for name in _PLAIN},
            shapes=self.shapes[rows],
            numbers={name: values[rows] for name, values in self.numbers.items()},
            notes={name: values[rows] for name, values in self.notes.items()},
        )

    @cached_property
    def geometries(self) -> Objects:
        """(N,) shapely geometries in level-0 pixels. Raises `ShapelyError` where WKB is damaged."""
        return shapely.from_wkb(self.shapes) if len(self) and isinstance(self.shapes[0], bytes) else self.shapes

    @property
    def encoded(self) -> Self:
        """The same findings with their geometries as WKB, which takes less memory."""
        return replace(self, shapes=objects(shapely.to_wkb(self.geometries)))

    @cached_property
    def bounds(self) -> Floats:
        """(N, 4) bounding boxes x0, y0, x1, y1 in level-0 pixels; NaN where a geometry is empty."""
        return shapely.bounds(self.geometries).reshape(-1, 4)

    @cached_property
    def vertices(self) -> npt.NDArray[np.int32]:
        """(N,): the vertices of each geometry."""
        return shapely.get_num_coordinates(self.geometries)

    @property
    def memory(self) -> int:
        """Bytes that the findings take, roughly."""
        encoded = len(self) and isinstance(self.shapes[0], bytes)
        return _ROW * len(self) + (sum(map(len, self.shapes)) if encoded else 16 * int(self.vertices.sum()))

    @property
    def number_rows(self) -> list[dict[str, float]]:
        """The numbers of each finding."""
        return _dictionaries(self.numbers, len(self))

    @property
    def note_rows(self) -> list[dict[str, str]]:
        """The notes of each finding."""
        return _dictionaries(self.notes, len(self))

    @property
    def polygonal(self) -> bool:
        """Whether all geometries are polygons or multipolygons."""
        return set(shapely.get_type_id(self.geometries).tolist()) <= POLYGONAL

    @property
    def is_area(self) -> Flags:
        """(N,): whether each was traced from a class map."""
        return self.kind == "area"

    def read(self) -> Self:
        """The table itself: it is a `Chunk`."""
        return self

    def __len__(self) -> int:
        return len(self.label)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Finding | Self:
        if isinstance(index, slice):
            return self.take(index)
        return next(iter(self.take(np.array([range(len(self))[index]]))))

    def __iter__(self) -> Iterator[Finding]:
        plain: list[list[Any]] = [getattr(self, name).tolist() for name in ("label", "kind", "text", "text_cut", "cut")]
        scores = [None if math.isnan(score) else score for score in self.score.tolist()]
        windows = [None if math.isnan(window[0]) else tuple(window) for window in self.window.tolist()]
        rows = zip(
            *plain, self.geometries, scores, self.number_rows, self.note_rows, windows, self.plane.tolist(), strict=True
        )
        for label, kind, text, text_cut, cut, geometry, score, own, said, window, plane in rows:
            yield Finding(label, geometry, kind, score, text, text_cut, cut, own, said, window, plane)


_PLAIN: Final = ("label", "kind", "score", "text", "text_cut", "cut", "plane", "window")


class Chunk(Protocol):
    """A part of an image's findings, which is read when it is needed."""

    def __len__(self) -> int: ...

    def read(self) -> FindingsTable:
        """The findings."""
        ...


def spans(vertices: npt.NDArray[np.integer[Any]], rows: int | None = None, most: int | None = None) -> Iterator[slice]:
    """Parts of a sequence of shapes with so many vertices each (N,), which have at most so many rows and vertices.

    A shape with more vertices is a part alone. Without numbers, parts are of `BATCH` and `BATCH_VERTICES`.
    """
    rows, most = rows or BATCH, most or BATCH_VERTICES
    start = 0
    while start < len(vertices):
        sums = np.cumsum(vertices[start : start + rows], dtype=np.int64)
        yield slice(start, start := start + max(1, int(np.searchsorted(sums, most, side="right"))))


def objects(values: Iterable[object]) -> Objects:
    """Values as an array of objects, whatever they are."""
    rows = list(values)
    made = np.empty(len(rows), dtype=object)
    made[:] = rows
    return made


def _floats(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _dictionaries(columns: Mapping[str, npt.NDArray[Any]], length: int) -> list[dict[str, Any]]:
    """The values of each row by name, without those that it does not have."""
    made: list[dict[str, Any]] = [{} for _ in range(length)]
    for name, values in columns.items():
        for row, value in zip(made, values.tolist(), strict=True):
            if value is not None and value == value:  # noqa: PLR0124 - NaN
                row[name] = value
    return made
