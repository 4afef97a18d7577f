"""The findings of one image as a page asks for them: filtered, sorted, with what a reviewer decided."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...reports.html.layers import Filter, Flags, Layers, Rows, View

OUTCOMES: Final = ("", "accepted", "rejected", "relabelled")
"""What a reviewer may decide of a finding, by the code that a page gets; "" is not reviewed."""

_KEPT: Final = 6  # filters, and orders of a table, that are kept


@dataclass(frozen=True, slots=True)
class Query:
    """Which findings a page shows, and in which order."""

    filter: Filter = field(default_factory=Filter)
    outcomes: frozenset[int] = frozenset(range(len(OUTCOMES)))
    """Places in `OUTCOMES`."""
    column: int = -1
    """By which a table is sorted: see `Layers.sorted_rows`."""
    down: bool = False
    words: bool = False
    """Whether only findings with words of the model's are listed."""


class ImageFindings:
    """The findings of an image. Thread-safe."""

    def __init__(self, layers: Layers) -> None:
        self.layers = layers
        self._outcomes: npt.NDArray[np.uint8] = np.zeros(layers.count, np.uint8)
        self._changes = 0
        self._lock = threading.Lock()
        self._masks: OrderedDict[object, Flags] = OrderedDict()
        self._orders: OrderedDict[object, Rows] = OrderedDict()

    def decide(self, row: int, outcome: str) -> None:
        """Note what was decided of a finding."""
        with self._lock:
            self._outcomes[row] = OUTCOMES.index(outcome)
            self._changes += 1

    @property
    def reviewed(self) -> int:
        """How many findings were decided on."""
        return int(np.count_nonzero(self._outcomes))

    def shown(self, query: Query) -> Flags:
        """(N,): which findings a query leaves."""
        every = len(query.outcomes) == len(OUTCOMES)
        key = (query.filter, query.outcomes, query.words, 0 if every else self._changes)

        def find() -> Flags:
            found = self.layers.visible(query.filter)
            if not every:
                found &= np.isin(self._outcomes, list(query.outcomes))
            return found & self.layers.with_words() if query.words else found

        return self._kept(self._masks, key, find)

    def rows(self, query: Query) -> Rows:
        """The findings that a query leaves, in its order."""
        every = len(query.outcomes) == len(OUTCOMES)
        key = (query, 0 if every else self._changes)
        order = query.column, query.down
        return self._kept(
            self._orders, key, lambda: self.layers.sorted_rows(self.shown(query), order[0], down=order[1])
        )

    def in_view(self, query: Query, view: View, extra: int) -> bytes:
        """What of them is in view: see `Layers.in_view`."""
        return self.layers.in_view(view, self.shown(query), extra, self._outcomes)

    def table(self, query: Query, start: int, count: int) -> dict[str, Any]:
        """Some rows of the table, and how many there are."""
        rows = self.rows(query)
        return {"total": len(rows), "rows": self._listed(rows[start : start + count])}

    def step(self, query: Query, row: int, by: int) -> dict[str, Any]:
        """The finding `by` places after another one in the table, round its ends, and its place there; {} without any.

        From a finding that is not in the table: the first one, or the last one if `by` is negative.
        """
        rows = self.rows(query)
        if not len(rows):
            return {}
        found = np.flatnonzero(rows == row)
        if len(found):
            place = (int(found[0]) + by) % len(rows)
        elif by:
            place = 0 if by > 0 else len(rows) - 1
        else:
            return {**self._listed(np.array([row]))[0], "place": -1} if 0 <= row < self.layers.count else {}
        return {**self._listed(rows[place : place + 1])[0], "place": place}

    def at(self, query: Query, point: tuple[float, float], near: float, plane: int) -> int:
        """The smallest finding shown whose box holds a point, with `near` pixels around it; -1 for none."""
        x, y = point
        rows = self.layers.rows_in(View((x - near, y - near, x + near, y + near), near, plane), self.shown(query))
        if not len(rows):
            return -1
        b = self.layers.bounds[rows]
        return int(rows[np.lexsort((rows, (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])))[0]])

    def _listed(self, rows: Rows) -> list[dict[str, Any]]:
        codes = self._outcomes[rows].tolist()
        return [{**row, "outcome": code} for row, code in zip(self.layers.table(rows), codes, strict=True)]

    def _kept(self, cache: OrderedDict[object, Any], key: object, find: Callable[[], Any]) -> Any:
        with self._lock:
            if key in cache:
                cache.move_to_end(key)
                return cache[key]
        found = find()
        with self._lock:
            cache[key] = found
            while len(cache) > _KEPT:
                cache.popitem(last=False)
        return found
