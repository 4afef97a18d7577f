"""The findings of an image in the order of reports, read in batches from wherever they are kept."""
# scipy states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self, get_args, overload

import numpy as np
import numpy.typing as npt
import shapely

from .finding import Finding, Kind
from .findings_table import Chunk, FindingsTable, Flags, Index, spans
from .scores import round_scores
from .sorting import ORDER, RECORD, Records, SortedRecords

_CACHED: Final = 64 << 20  # bytes of chunks that stay in memory
_KINDS: Final = {kind: code for code, kind in enumerate(sorted(get_args(Kind)))}


@dataclass(slots=True)
class _Chunks:
    """Chunks, of which those that were read last stay in memory."""

    chunks: list[Chunk]
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
        _Chunks([*chunks]),
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
    with Arranger() as arranger:
        for chunk in chunks:
            arranger.add(arranger.read(chunk)[1])
        return arranger.arranged()


def columnar(findings: Sequence[Finding]) -> "FindingsTable | MergedFindings":
    """Findings with their columns: those that are a plain sequence become a table."""
    return findings if isinstance(findings, FindingsTable | MergedFindings) else FindingsTable.of(findings)


class Arranger:
    """Puts the findings of chunks into the order of reports. Use as a context manager.

    A few bytes of each finding remain in memory, and a record of each for a while in a temporary file.
    """

    def __init__(self) -> None:
        self._chunks = _Chunks([])
        self._order = SortedRecords(ORDER)
        self._codes: dict[str, int] = {}  # of labels
        self._counts = Counter[int]()  # of findings by label
        self._numbers, self._notes, self._planes, self._polygonal = set[str](), set[str](), set[int](), True

    def __enter__(self) -> Self:
        self._order.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._order.__exit__(*error)

    def read(self, chunk: Chunk, table: FindingsTable | None = None) -> tuple[FindingsTable, Records]:
        """The findings of one more chunk, or `table` where that is what it holds, and a record of each."""
        number = len(self._chunks.chunks)
        self._chunks.chunks.append(chunk)
        table = self._chunks.read(number) if table is None else table
        records = np.empty(len(table), dtype=RECORD)
        records["label"] = [self._codes.setdefault(label, len(self._codes)) for label in table.label]
        records["kind"] = [_KINDS[kind] for kind in table.kind]
        records["plane"], records["vertices"] = table.plane, table.vertices
        records["chunk"], records["row"] = number, np.arange(len(table))
        for side, values in zip(("x0", "y0", "x1", "y1"), table.bounds.T, strict=True):
            records[side] = values
        self._numbers.update(table.numbers)
        self._notes.update(table.notes)
        self._polygonal &= table.polygonal
        return table, records

    def take(self, records: Records) -> FindingsTable:
        """The findings of records, as they are in the chunks."""
        return self._chunks.take(records["chunk"], records["row"])

    def add(self, records: Records) -> None:
        """Findings that belong to the result."""
        self._order.add(records)
        self._counts.update(records["label"].tolist())
        self._planes.update(records["plane"].tolist())

    def arranged(self) -> MergedFindings:
        """All that were added: by label, plane and place, then by whatever else differs."""
        starts, at = dict[int, int](), 0
        for label in sorted(self._codes):
            starts[self._codes[label]] = at
            at += self._counts[self._codes[label]]
        chunk, row, vertices = (np.empty(at, np.int32) for _ in range(3))
        same, last = np.zeros(at, np.bool_), np.empty(0, dtype=RECORD)
        for records in self._order:
            with_last = np.concatenate([last, records])
            equal = np.arange(len(with_last)) > 0  # to the one before
            for key in ORDER:
                equal[1:] &= with_last[key][1:] == with_last[key][:-1]
            equal, last = equal[len(last) :], records[-1:]
            for part in np.split(np.arange(len(records)), np.flatnonzero(np.diff(records["label"])) + 1):
                start = starts[int(records["label"][part[0]])]
                starts[int(records["label"][part[0]])] = stop = start + len(part)
                for column, values in zip((chunk, row, vertices), ("chunk", "row", "vertices"), strict=True):
                    column[start:stop] = records[values][part]
                same[start:stop] = equal[part]
        numbers, notes, planes = tuple(sorted(self._numbers)), tuple(sorted(self._notes)), tuple(sorted(self._planes))
        found = MergedFindings(self._chunks, chunk, row, vertices, numbers, notes, planes, self._polygonal)
        _sort_ties(found, same[1:], (chunk, row, vertices))
        return found


def _sort_ties(found: MergedFindings, same: Flags, columns: Sequence[npt.NDArray[np.int32]]) -> None:
    """Sort runs of findings of one label and place by whatever else differs; `same` tells whether the next is in it."""
    edges = np.diff(np.concatenate([[False], same, [False]]).astype(np.int8))
    runs = zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) + 1).tolist(), strict=True)
    for start, stop in runs:
        keys = [_tie_key(finding) for finding in found[start:stop]]
        order = start + np.array(sorted(range(stop - start), key=keys.__getitem__))
        for column in columns:
            column[start:stop] = column[order]


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
