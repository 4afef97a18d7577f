"""Who reads next: a few readers, many requests, of which the newest are wanted most."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Reader = TypeVar("Reader")


class OutdatedError(Exception):
    """A request was given up: newer ones came, or nobody waits for its answer any more."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Reader]):
    is_open: Callable[[], bool]
    reader: Reader | None = None
    dropped: bool = False


class Turns(Generic[Reader]):
    """Lends readers, each to one thread at a time: the thread that came last is next, and of too many the first leave.

    A person who moves a picture wants what is on the screen now; what was asked for before is mostly gone from it.
    """

    def __init__(self, readers: list[Reader], most_waiting: int) -> None:
        self._free = list(readers)
        self._most = most_waiting
        self._waiting: list[_Waiting[Reader]] = []
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextmanager
    def turn(self, is_open: Callable[[], bool] = lambda: True) -> Generator[Reader]:
        """Wait for a reader. Raises `OutdatedError` where others come first, or it is not open any more."""
        reader = self._take(is_open)
        try:
            yield reader
        finally:
            with self._changed:
                self._free.append(reader)
                self._lend()

    def _take(self, is_open: Callable[[], bool]) -> Reader:
        mine = _Waiting[Reader](is_open)
        with self._changed:
            self._waiting.append(mine)
            while len(self._waiting) > self._most + len(self._free):
                self._waiting.pop(0).dropped = True
            self._lend()
            while mine.reader is None:
                if mine.dropped:
                    raise OutdatedError
                self._changed.wait()
            return mine.reader

    def _lend(self) -> None:
        """Give the free readers to those that came last."""
        while self._free and self._waiting:
            newest = self._waiting.pop()
            if newest.is_open():
                newest.reader = self._free.pop()
            else:
                newest.dropped = True
        self._changed.notify_all()
