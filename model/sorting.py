"""Sort findings that need not fit in memory, and find those that touch: by a record of some bytes of each.

Sorted runs of records wait in a temporary file, and are merged part by part (external merge sort).
"""
# scipy states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import shapely

from .findings_table import Flags, Floats, Index, spans

RECORD: Final = np.dtype(
    [
        *((name, np.float64) for name in ("x0", "y0", "x1", "y1")),
        *((name, np.int32) for name in ("label", "plane", "chunk", "row", "vertices", "kind")),
    ],
)
"""A finding: its bounds in level-0 pixels, a number for its label, where it is, its vertices, a number for its kind."""

ORDER: Final = ("label", "plane", "y0", "x0", "y1", "x1", "kind")
"""The fields that the order of reports follows, the first above all."""

DOWNWARD: Final = ("plane", "y0")
"""The fields of the order in which `neighbours` needs records."""

_RUN: Final = 200_000  # records that are sorted in memory

Records = npt.NDArray[np.void]


class SortedRecords:
    """Records in the order of some of their fields, the first above all. Use as a context manager."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._waiting: list[Records] = []
        self._runs: list[int] = []
        """The lengths of the runs in the file, one after the other."""
        self._file = tempfile.SpooledTemporaryFile(1)  # noqa: SIM115 - on disk once it is used; `__exit__` closes it
        self._length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def add(self, records: Records) -> None:
        """Add records. Raises `OSError` where there is no place for a temporary file."""
        self._waiting.append(records)
        self._length += len(records)
        if self._length - sum(self._runs) >= _RUN:
            self._store()

    def __iter__(self) -> Iterator[Records]:
        """All records in order, some hundred thousand at a time."""
        if not self._runs:
            if self._length:
                yield self._sort(self._waiting)
            return
        self._store()
        part = max(1, _RUN // len(self._runs))
        ends = [*accumulate(self._runs)]
        places = [end - length for end, length in zip(ends, self._runs, strict=True)]
        heads = [np.empty(0, dtype=RECORD)] * len(ends)
        while True:
            for run, (head, place, end) in enumerate(zip(heads, places, ends, strict=True)):
                if not len(head):
                    heads[run] = self._read(place, min(part, end - place))
                    places[run] += len(heads[run])
            there = [head for head in heads if len(head)]
            if not there:
                return
            until = self._sort([head[-1:] for head in there])[0]  # what follows in any run is not before it
            counts = [self._count(head, until) for head in heads]
            yield self._sort([head[:count] for head, count in zip(heads, counts, strict=True)])
            heads = [head[count:] for head, count in zip(heads, counts, strict=True)]

    def _sort(self, parts: Sequence[Records]) -> Records:
        records = np.concatenate(parts)
        return records[np.lexsort([records[key] for key in reversed(self._keys)])]

    def _count(self, records: Records, until: np.void) -> int:
        """How many of sorted records come up to another one."""
        start, stop = 0, len(records)
        for key in self._keys:
            column = records[key][start:stop]
            start, stop = (start + int(np.searchsorted(column, until[key], side)) for side in ("left", "right"))
        return stop

    def _store(self) -> None:
        if self._waiting:
            records = self._sort(self._waiting)
            self._file.seek(0, 2)
            self._file.write(records.view(np.uint8).data)
            self._runs.append(len(records))
            self._waiting = []

    def _read(self, place: int, count: int) -> Records:
        self._file.seek(place * RECORD.itemsize)
        return np.frombuffer(self._file.read(count * RECORD.itemsize), RECORD)


def neighbours(found: SortedRecords) -> Iterator[Records]:
    """Records in parts, so that those of one label and plane whose bounds touch, in a chain too, are together.

    They must come in the order of `DOWNWARD`. Only those are in memory of which some other may still touch the last.
    """
    waiting, sets = np.empty(0, dtype=RECORD), np.empty(0, dtype=np.intp)
    for batch in found:
        if len(batch) == len(found) and sum(1 for _ in spans(batch["vertices"])) == 1:
            yield batch
            return
        reach = (waiting["plane"] == batch["plane"][0]) & (waiting["y1"] >= batch["y0"][0])
        still = np.isin(sets, sets[reach])
        yield from _parts(waiting[~still], sets[~still])
        waiting, sets, reach = waiting[still], sets[still], reach[still]
        here = np.concatenate([waiting[reach], batch])
        bounds = np.stack([here[side] for side in ("x0", "y0", "x1", "y1")], axis=1)
        group = here["label"].astype(np.int64) << 32 | here["plane"]
        new = connected(bounds, group, known=sets[reach])
        known, first = np.unique(sets[reach], return_index=True)
        out_of_reach = new[first[np.searchsorted(known, sets[~reach])]]
        waiting, sets = np.concatenate([waiting[~reach], here]), np.concatenate([out_of_reach, new])
    yield from _parts(waiting, sets)


def _parts(records: Records, sets: npt.NDArray[np.intp]) -> Iterator[Records]:
    """Records in parts of whole sets, by the place of the first of each."""
    if not len(records):
        return
    _, first, index = np.unique(sets, return_index=True, return_inverse=True)
    order = np.argsort(first[index], kind="stable")
    ends = np.append(np.flatnonzero(np.diff(first[index][order])) + 1, len(records))
    starts = np.concatenate([[0], ends[:-1]])
    for whole in spans(np.add.reduceat(records["vertices"][order], starts)):
        yield records[order[starts[whole.start] : ends[whole.stop - 1]]]


_STRIP: Final = 50_000


def connected(
    bounds: Floats,
    group: npt.NDArray[np.int64],
    touch: Callable[[Index, Index], Flags] | None = None,
    known: npt.NDArray[np.intp] | None = None,
) -> npt.NDArray[np.intp]:
    """A number for each box (N, 4), the same for all of a group that touch, by way of others too.

    `touch` tells of boxes that touch, by their places, whether what is in them does; `known` are numbers of the first
    boxes, of which those with the same one are together in any case.
    """
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
    if known is not None:
        by_set = np.argsort(known, kind="stable")
        pairs.append(np.stack([by_set[:-1], by_set[1:]])[:, np.diff(known[by_set]) == 0])
    a, b = np.concatenate(pairs, axis=1)
    return connected_pairs(len(order), a, b)


def connected_pairs(
    count: int, a: npt.NDArray[np.integer[Any]], b: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.intp]:
    """(count,): a number for each of what is connected by pairs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), dtype=np.bool_), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1]
