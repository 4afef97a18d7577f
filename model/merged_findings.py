"""The findings of an image in the order of reports, read in batches from wherever they are kept."""
# scipy states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, Self, get_args, overload

import numpy as np
import numpy.typing as npt
import shapely

from .finding import Finding, Kind
from .findings_table import Chunk, FindingsTable, Flags, Floats, Index
from .scores import round_scores

BATCH: Final = 10_000
"""Findings that are in memory at a time, where all are gone through."""

BATCH_VERTICES: Final = 250_000
"""Vertices of the findings that are in memory at a time, where all are gone through, if one alone has no more."""

_CACHED: Final = 64 << 20  # bytes of chunks that stay in memory
_KINDS: Final = sorted(get_args(Kind))
_ROWS: Final = [np.dtype(one) for one in ("i4", "i4", "i1", "4f8", "i4", "?", "?", "i4", "i4")]


@dataclass(slots=True)
class _Chunks:
    """Chunks, of which those that were read last stay in memory."""

    chunks: Sequence[Chunk]
    tables: OrderedDict[int, FindingsTable] = field(default_factory=OrderedDict[int, FindingsTable])
    cached: int = 0

    def read(self, number: int) -> FindingsTable:
        if number in self.tables:
            self.tables.move_to_end(number)
            return self.tables[number]
        table = self.chunks[number].read()
        self.tables[number] = replace(table)  # without the geometries that are parsed of it
        self.cached += table.memory
        while self.cached > _CACHED and len(self.tables) > 1:
            self.cached -= self.tables.popitem(last=False)[1].memory
        return table

    def and_more(self, table: FindingsTable) -> "_Chunks":
        """With one more chunk."""
        return replace(self, chunks=[*self.chunks, table])

    def take(self, chunk: npt.NDArray[np.int32], row: npt.NDArray[np.int32]) -> FindingsTable:
        """Rows of chunks, in the given order."""
        order = np.argsort(chunk, kind="stable")
        ends = np.flatnonzero(np.diff(chunk[order])) + 1
        parts = [part for part in np.split(order, ends) if len(part)]
        table = FindingsTable.concatenated([self.read(int(chunk[part[0]])).take(row[part]) for part in parts])
        back = np.empty(len(order), dtype=np.intp)
        back[order] = np.arange(len(order))
        return table.take(back)


@dataclass(frozen=True, eq=False)
class MergedFindings(Sequence[Finding]):
    """Findings that are read from chunks as they are asked for; a slice of them is a table."""

    _chunks: _Chunks
    _chunk: npt.NDArray[np.int32]
    _row: npt.NDArray[np.int32]
    vertices: npt.NDArray[np.int32]
    """(N,): the vertices of each."""
    numbers: tuple[str, ...]
    """The names of all their numbers, sorted."""
    notes: tuple[str, ...]
    planes: tuple[int, ...]
    """The planes that have findings, sorted."""
    polygonal: bool
    """Whether all geometries are polygons or multipolygons."""

    def forget(self) -> None:
        """Free the memory of the chunks that were read last."""
        self._chunks.tables.clear()
        self._chunks.cached = 0

    def take(self, places: Index | slice) -> FindingsTable:
        """The findings at some places, in the given order."""
        return in_normal_form(self._chunks.take(self._chunk[places], self._row[places]))

    def subset(self, kept: Flags, planes: tuple[int, ...]) -> Self:
        """Those that are kept, which are on these planes, in the same order."""
        return replace(
            self, _chunk=self._chunk[kept], _row=self._row[kept], vertices=self.vertices[kept], planes=planes
        )

    def __len__(self) -> int:
        return len(self._row)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> FindingsTable: ...
    def __getitem__(self, index: int | slice) -> Finding | FindingsTable:
        if isinstance(index, slice):
            return self.take(index)
        return self.take(np.array([range(len(self))[index]]))[0]

    def __iter__(self) -> Iterator[Finding]:
        for _, table in in_batches(self):
            yield from table


def spans(vertices: npt.NDArray[np.integer[Any]], rows: int | None = None, most: int | None = None) -> Iterator[slice]:
    """Parts of a sequence of shapes with so many vertices each (N,), which have at most so many rows and vertices.

    A shape with more vertices is a part alone. Without numbers, parts are of `BATCH` and `BATCH_VERTICES`.
    """
    rows, most = rows or BATCH, most or BATCH_VERTICES
    ends, start = np.cumsum(vertices, dtype=np.int64), 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, start := min(stop, start + rows, len(ends)))


def in_batches(found: FindingsTable | MergedFindings) -> Iterator[tuple[int, FindingsTable]]:
    """Findings in parts, as `spans` has them, each with the place of its first."""
    return ((span.start, found[span]) for span in spans(found.vertices))


def in_order(
    chunks: Sequence[Chunk],
    vertices: npt.NDArray[np.int32],
    *,
    numbers: Iterable[str],
    notes: Iterable[str],
    planes: Iterable[int],
    polygonal: bool,
) -> MergedFindings:
    """The findings of chunks one after the other, which are not read for it: see `MergedFindings` for the arguments."""
    lengths = [len(chunk) for chunk in chunks]
    places = [np.arange(length, dtype=np.int32) for length in lengths]
    return MergedFindings(
        _Chunks(chunks),
        np.repeat(np.arange(len(chunks), dtype=np.int32), lengths),
        np.concatenate([np.empty(0, dtype=np.int32), *places]),
        vertices,
        tuple(sorted(numbers)),
        tuple(sorted(notes)),
        tuple(sorted(planes)),
        polygonal,
    )


def arranged(chunks: Sequence[Chunk]) -> MergedFindings:
    """The findings of chunks, which are merged already, in the order of reports."""
    rows = Rows.of(chunks)
    return rows.merged(np.ones(len(rows.row), dtype=np.bool_), FindingsTable.of(()))


def columnar(findings: Sequence[Finding]) -> "FindingsTable | MergedFindings":
    """Findings with their columns: those that are a plain sequence become a table."""
    return findings if isinstance(findings, FindingsTable | MergedFindings) else FindingsTable.of(findings)


@dataclass(frozen=True, eq=False)
class Rows:
    """What sorting and merging need of every finding of some chunks."""

    chunks: _Chunks
    labels: list[str]
    label: npt.NDArray[np.int32]
    """The place of its label in `labels`, which are sorted."""
    plane: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int8]
    bounds: Floats
    vertices: npt.NDArray[np.int32]
    pieces: Flags
    """Whether it is a piece of an area that a region border cut."""
    boxes: Flags
    """Whether it is a detector's box in a tile."""
    chunk: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    numbers: set[str]
    notes: set[str]
    polygonal: bool

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Self:
        """Read every chunk once."""
        codes: dict[str, int] = {}
        kinds = {kind: code for code, kind in enumerate(_KINDS)}
        # of millions of findings, columns that grow in place take half of the memory of parts that are joined
        columns = [(bytearray(), dtype) for dtype in _ROWS]
        numbers, notes, polygonal, read = set[str](), set[str](), True, _Chunks(chunks)
        for number in range(len(chunks)):
            table = read.read(number)
            label = np.array([codes.setdefault(label, len(codes)) for label in table.label], np.int32)
            kind = np.array([kinds[kind] for kind in table.kind], np.int8)
            area = table.is_area
            boxes = (table.kind == "box") & ~np.isnan(table.window[:, 0])
            at = np.full(len(table), number, np.int32), np.arange(len(table), dtype=np.int32)
            plane = table.plane.astype(np.int32)
            values = (label, plane, kind, table.bounds, table.vertices, area & table.cut, boxes, *at)
            for (column, dtype), of_table in zip(columns, values, strict=True):
                column.extend(of_table.astype(dtype.base).tobytes())
            numbers.update(table.numbers)
            notes.update(table.notes)
            polygonal &= table.polygonal
        label, *others = (np.frombuffer(column, dtype) for column, dtype in columns)
        labels = sorted(codes)
        places = np.empty(len(codes), np.int32)
        places[[codes[label] for label in labels]] = np.arange(len(codes))
        return cls(read, labels, places[label], *others, numbers, notes, polygonal)  # pyright: ignore[reportArgumentType, reportCallIssue] - as above

    def take(self, rows: Index) -> FindingsTable:
        """Some of the findings, as they are in the chunks."""
        return self.chunks.take(self.chunk[rows], self.row[rows])

    def neighbours(self, chosen: Flags) -> Iterator[Index]:
        """The chosen findings in parts, so that those of one label whose bounds touch, in a chain too, are together."""
        rows = np.flatnonzero(chosen)
        if sum(1 for _ in spans(self.vertices[rows])) <= 1:
            yield from [rows] if len(rows) else []
            return
        set_of = connected(self.bounds[rows], self.label[rows].astype(np.int64) << 32 | self.plane[rows])
        _, first, index = np.unique(set_of, return_index=True, return_inverse=True)
        order = np.argsort(first[index], kind="stable")  # sets by their first finding, so that they lie near each other
        ends = np.flatnonzero(np.diff(first[index][order])) + 1
        ends = np.append(ends, len(rows))
        for sets in spans(np.add.reduceat(self.vertices[rows[order]], np.concatenate([[0], ends[:-1]]))):
            yield rows[order[ends[sets.start - 1] if sets.start else 0 : ends[sets.stop - 1]]]

    def merged(self, kept: Flags, others: FindingsTable) -> MergedFindings:
        """The findings that are kept, and others, in the order of reports."""
        rows = np.flatnonzero(kept)
        both = Rows.of([others]) if len(others) else None
        labels = sorted({*self.labels, *(both.labels if both else ())})
        parts = [(self, rows, 0)] + ([(both, np.arange(len(others)), len(self.chunks.chunks))] if both else [])
        code = {label: place for place, label in enumerate(labels)}

        def column(name: str, side: int | None = None) -> npt.NDArray[Any]:
            columns = [getattr(part, name) for part, _, _ in parts]
            if name == "label":
                columns = [np.array([code[one] for one in p.labels], np.int32)[p.label] for p, _, _ in parts]
            if side is not None:
                columns = [values[:, side] for values in columns]
            return np.concatenate([values[rows] for values, (_, rows, _) in zip(columns, parts, strict=True)])

        chunk = np.concatenate([p.chunk[r] + offset for p, r, offset in parts])
        keys = [("kind", None), *(("bounds", side) for side in (2, 3, 0, 1)), ("plane", None), ("label", None)]
        order = np.arange(len(chunk))
        for key in keys:  # the last one counts most; one at a time is in memory
            order = order[np.argsort(column(*key)[order], kind="stable")]
        chunk, row = chunk[order], column("row")[order]
        found = MergedFindings(
            self.chunks.and_more(replace(others)),
            chunk,
            row,
            column("vertices")[order],
            tuple(sorted({*self.numbers, *others.numbers})),
            tuple(sorted({*self.notes, *others.notes})),
            tuple(np.unique(column("plane")).tolist()),
            self.polygonal and others.polygonal,
        )
        same = np.ones(max(0, len(order) - 1), dtype=np.bool_)
        for key in keys:
            values = column(*key)[order]
            same &= values[1:] == values[:-1]
        _sort_ties(found, same, chunk, row)
        return found


def _sort_ties(found: MergedFindings, same: Flags, chunk: npt.NDArray[np.int32], row: npt.NDArray[np.int32]) -> None:
    """Sort runs of findings of one label and place by whatever else differs; `same` tells whether the next is in it."""
    edges = np.diff(np.concatenate([[False], same, [False]]).astype(np.int8))
    runs = zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) + 1).tolist(), strict=True)
    for start, stop in runs:
        keys = [_tie_key(finding) for finding in found[start:stop]]
        order = start + np.array(sorted(range(stop - start), key=keys.__getitem__))
        chunk[start:stop], row[start:stop] = chunk[order], row[order]


def _tie_key(finding: Finding) -> tuple[object, ...]:
    score = -1.0 if finding.score is None else finding.score
    return finding.geometry.wkb, score, finding.text, sorted(finding.numbers.items()), sorted(finding.notes.items())


def in_normal_form(table: FindingsTable) -> FindingsTable:
    """The same findings, areas with their vertices in one canonical order, a rounded score, and not `cut`."""
    areas = np.flatnonzero(table.is_area)
    if not len(areas):
        return table
    shapes, score = table.geometries.copy(), table.score.copy()
    shapes[areas] = shapely.normalize(shapes[areas])
    score[areas] = round_scores(score[areas])
    return replace(table, shapes=shapes, score=score, cut=table.cut & ~table.is_area)


_STRIP: Final = 50_000


def connected(
    bounds: Floats, group: npt.NDArray[np.int64], touch: Callable[[Index, Index], Flags] | None = None
) -> Index:
    """A number for each box (N, 4), the same for all of a group that touch, by way of others too.

    `touch` tells of boxes that touch, by their places, whether what is in them does.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    order = np.lexsort((bounds[:, 1], group))
    waiting, pairs = order[:0], [np.empty((2, 0), dtype=np.intp)]
    for start, stop in pairwise([*range(0, len(order), _STRIP), len(order)]):
        here = np.concatenate([waiting, order[start:stop]])
        boxes = shapely.box(*bounds[here].T)
        a, b = here[shapely.STRtree(boxes).query(boxes, predicate="intersects")]
        beside = (a < b) & (group[a] == group[b])
        if touch is not None:
            beside[beside] = touch(a[beside], b[beside])
        pairs.append(np.stack([a, b])[:, beside])
        if stop < len(order):  # those that reach the next strip
            waiting = here[(group[here] == group[order[stop]]) & (bounds[here, 3] >= bounds[order[stop], 1])]
    a, b = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(a), dtype=np.bool_), (a, b)), shape=(len(order), len(order)))
    return connected_components(graph, directed=False)[1]
