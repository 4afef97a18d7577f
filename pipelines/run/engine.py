"""Engines: who does the work. One method over batches of regions; every engine gives the same results.

An engine knows batches, never what happens to one: that is the job's. Results come in any order, one list a batch.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from ...model.finding import Result
from ...readers.regions import Region


class Job(Protocol):
    """What is done to regions. It pickles until it has begun, and is begun once in each process that does some of it.

    `look` may run in a thread of its own, one call at a time; so may `annotate`.
    """

    def begin(self) -> None:
        """Load what it needs; open nothing yet. Raises `LimnerError` where there can be no work at all."""
        ...

    def read(self, regions: Sequence[Region]) -> Sequence[Any]:
        """Read the regions: one look each, in order."""
        ...

    def annotate(self, looks: Sequence[Any]) -> list[Result]:
        """A result for each look, in order. Failures of a region are results; anything raised stops the run."""
        ...

    def close(self) -> None:
        """Let go of what was loaded and opened."""
        ...


class Engine(Protocol):
    """Does a job over batches of regions."""

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """Yield the results of each batch as it is done, and an empty list where a process has loaded what it needs.

        Closing the generator stops the work.
        """
        ...


@dataclass(frozen=True, slots=True)
class InlineEngine:
    """Works in this process; the next batch is read while this one is annotated."""

    job: Job

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """See `Engine`."""
        job = self.job
        job.begin()
        coming: deque[Future[Sequence[Any]]] = deque()
        reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        try:
            yield []
            for batch in batches:
                coming.append(reader.submit(job.read, batch))
                if len(coming) > 1:
                    yield job.annotate(coming.popleft().result())
            while coming:
                yield job.annotate(coming.popleft().result())
        finally:
            reader.shutdown(wait=True, cancel_futures=True)
            job.close()
