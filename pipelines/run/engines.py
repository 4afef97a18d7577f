"""Engines run a job over batches of regions: inline in this process, or in a pool of worker processes.

Every engine gives the same results, in any order, one list per batch. What happens to a region is up to the job.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

from ...model.finding import Result
from ...readers.errors import LimnerError, ModelError
from ...readers.regions import Region

_TERMINAL_SIGNALS = tuple(
    number for name in ("SIGINT", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)  # a terminal sends them to the whole process group; the parent decides
_THREAD_VARIABLES: tuple[str, ...] = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
TASKS_HELD = 2
"""Tasks of a worker process: the one that is annotated, and the next one, which is read meanwhile."""


class Job(Protocol):
    """What is done to regions. Pickles until it has begun; begun once in each process.

    `read` may run in a thread of its own, one call at a time; so may `annotate`.
    """

    def begin(self) -> None:
        """Load the model; open no image yet. Raises `LimnerError` where no work is possible at all."""
        ...

    def read(self, regions: Sequence[Region]) -> Sequence[Any]:
        """Read the regions: one view each, in order."""
        ...

    def annotate(self, views: Sequence[Any]) -> list[Result]:
        """A result for each view, in order. Failures of a region are results; exceptions stop the run."""
        ...

    def close(self) -> None:
        """Release models and files."""
        ...


class Engine(Protocol):
    """Runs a job over batches of regions."""

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """Yield the results of each batch when it is done, and an empty list when a process has loaded its model.

        Closing the generator stops the work.
        """
        ...


@dataclass(frozen=True, slots=True)
class InlineEngine:
    """Works in this process, reading the next batch while the current one is annotated."""

    job: Job
    room: Callable[[], bool] = lambda: True
    """Whether there is memory to read ahead."""

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """See `Engine`."""
        job = self.job
        job.begin()
        pending: deque[Future[Sequence[Any]]] = deque()
        reader = ThreadPoolExecutor(1, thread_name_prefix="read")
        try:
            yield []
            for batch in batches:
                if pending and not self.room():
                    yield job.annotate(pending.popleft().result())
                pending.append(reader.submit(job.read, batch))
                if len(pending) > 1:
                    yield job.annotate(pending.popleft().result())
            while pending:
                yield job.annotate(pending.popleft().result())
        finally:
            reader.shutdown(wait=True, cancel_futures=True)
            job.close()


class WorkerFaultError(RuntimeError):
    """A bug of limner or of a plug-in in a worker process; the message is its traceback."""


@dataclass(frozen=True, slots=True)
class Task:
    """A batch for one worker."""

    regions: Sequence[Region]
    deaths: int = 0
    """How many workers died while they worked on it."""
    alone: bool = False
    """Whether its worker must have no other task: one that had others has died."""


class Worker(Protocol):
    """A process that runs a job, on this machine or another, as `run_pool` uses it."""

    @property
    def ready(self) -> bool:
        """Whether the job has begun."""
        ...

    @property
    def tasks(self) -> Sequence[Task]:
        """What it works on, the first of them now."""
        ...

    def send(self, task: Task) -> None:
        """Give it a task."""
        ...

    def receive(self) -> list[Result]:
        """The results of a task, [] when it has just become ready. Raises `EOFError` or `OSError` where it has died."""
        ...

    def exit_reason(self) -> str:
        """How it died."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


W = TypeVar("W", bound=Worker)


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many workers a pool has, and what becomes of those that die."""

    workers: int
    tasks: int = 1
    """Tasks that a worker has at a time."""
    retries: int = 1
    """How often a region is tried again, alone, after its worker died."""
    restarts: int = 0
    """How many workers may die before they are ready."""
    room: Callable[[], bool] = lambda: True
    """Whether there is memory for a worker to read a further task."""


def run_pool(
    batches: Iterable[Sequence[Region]],
    limits: PoolLimits,
    *,
    start: Callable[[], W],
    wait: Callable[[Sequence[W]], Sequence[W]],
) -> Generator[list[Result], None, None]:
    """Yield the results of batches from a pool of workers, see `Engine`.

    `wait` returns the workers that have something to receive. A region whose workers died too often is a failed result
    with the exit reason. Raises `ModelError` where workers do not start.
    """
    queue = _TaskQueue(iter(batches), limits)
    workers: list[W] = []
    try:
        while True:
            while len(workers) < limits.workers and queue.has_more(sum(not worker.tasks for worker in workers)):
                workers.append(start())
            queue.send(workers)
            if not any(worker.tasks for worker in workers) and not queue.has_more(0):
                return
            for worker in wait(workers):
                try:
                    results = worker.receive()
                except (EOFError, OSError):
                    workers.remove(worker)
                    results = queue.retry_tasks_of(worker)
                if results or worker.ready:
                    yield results
    finally:
        for worker in workers:
            worker.stop()


@dataclass(slots=True)
class _TaskQueue:
    """Pending tasks: retries first, then new batches."""

    batches: Iterator[Sequence[Region]]
    limits: PoolLimits
    retries: deque[Task] = field(default_factory=deque[Task])
    fetched: deque[Task] = field(default_factory=deque[Task])
    failed_starts: int = 0

    def has_more(self, count: int) -> bool:
        """Whether more than `count` tasks are pending, so that another process is worth starting."""
        while len(self.retries) + len(self.fetched) <= count:
            batch = next(self.batches, None)
            if batch is None:
                return False
            self.fetched.append(Task(batch))
        return True

    def send(self, workers: Sequence[Worker]) -> None:
        """Give tasks to the workers that are ready: each has one before any has two."""
        for count in range(self.limits.tasks):
            for worker in workers:
                if not worker.ready or len(worker.tasks) != count or (count and not self.limits.room()):
                    continue
                if (task := self._pop(worker.tasks)) is not None:
                    worker.send(task)

    def _pop(self, others: Sequence[Task]) -> Task | None:
        """The next task for a worker that has `others`. A retry is its only one, so that it dies for no other."""
        if any(task.alone for task in others) or not self.has_more(0) or (others and self.retries):
            return None
        return (self.retries or self.fetched).popleft()

    def retry_tasks_of(self, worker: Worker) -> list[Result]:
        """Queue the regions of a dead worker again; those that were retried too often become failed results."""
        reason = worker.exit_reason()
        if not worker.ready:
            self.failed_starts += 1
            if self.failed_starts > self.limits.restarts:
                remedy = "Try --engine inline, which shows the cause"
                raise ModelError("worker process", "must start", value=reason, remedy=remedy)
        failed: Sequence[Region] = ()
        for place, task in enumerate(worker.tasks):
            if place:
                self.retries.append(replace(task, alone=True))
            elif task.deaths < self.limits.retries:
                self.retries.extend(Task([region], task.deaths + 1, alone=True) for region in task.regions)
            else:
                failed = task.regions
        times = {1: "twice"}.get(self.limits.retries, f"{self.limits.retries + 1} times")
        error = f"The worker process died {times} ({reason})."
        return [Result(region.key, region.grid.image, "failed", error=error) for region in failed]


@dataclass(frozen=True, slots=True)
class ProcessPoolEngine:
    """Works in `workers` spawned processes with `threads` computing threads each.

    The regions of a process that dies are retried once, one by one, in new processes.
    """

    job: Job
    workers: int
    threads: int
    room: Callable[[], bool] = lambda: True
    """Whether there is memory to read ahead."""

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """See `Engine`. A region whose process died twice is a failed result with the exit reason."""

        def start() -> WorkerProcess:
            return WorkerProcess.start(self.job, self.threads)

        return run_pool(
            batches, PoolLimits(self.workers, tasks=TASKS_HELD, room=self.room), start=start, wait=_wait_for_processes
        )


@dataclass(slots=True)
class WorkerProcess:
    """A spawned process that runs a job, and the connection to it."""

    process: SpawnProcess
    connection: Connection
    ready: bool = False
    """Whether the job has begun."""
    tasks: deque[Task] = field(default_factory=deque[Task])
    """What it works on, and what it reads meanwhile."""

    @classmethod
    def start(cls, job: Job, threads: int) -> "WorkerProcess":
        """Spawn a process with so many computing threads, 0 for the default."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, job), daemon=True)
        limits: dict[str, str] = dict.fromkeys(_THREAD_VARIABLES, str(threads)) if threads else {}
        before = {name: os.environ.get(name) for name in limits}
        os.environ.update(limits)  # inherited
        try:
            with _blocked_signals():
                process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})
        there.close()
        return cls(process, here)

    def send(self, task: Task) -> None:
        """Give it a task."""
        self.tasks.append(task)
        with contextlib.suppress(OSError):  # a process that has died is noticed by `receive`
            self.connection.send(task.regions)

    def receive(self) -> list[Result]:
        """The results of its first task, or [] when it has just become ready. Raises what stopped it."""
        kind, content = cast("tuple[str, Any]", self.connection.recv())
        if kind == "raised":
            raise content
        if kind == "fault":
            raise WorkerFaultError(content)
        if kind == "ready":
            self.ready = True
            return []
        self.tasks.popleft()
        return content

    def exit_reason(self) -> str:
        """How the process ended."""
        self.connection.close()
        self.process.join(10)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return f"killed by {name}" + (", perhaps out of memory" if name == "SIGKILL" else "")
        return f"exit code {code}"

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.terminate()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _wait_for_processes(workers: Sequence[WorkerProcess]) -> Sequence[WorkerProcess]:
    found = wait([worker.connection for worker in workers])
    return [worker for worker in workers if worker.connection in found]


def _serve(connection: Connection, job: Job) -> None:
    """Main function of a worker process: begin the job, then annotate batches until the parent closes or dies."""
    logging.lastResort = None  # as in `cli.terminal`: libraries log file names
    for number in _TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINAL_SIGNALS)
    try:
        job.begin()
        connection.send(("ready", None))
        reads: SimpleQueue[Future[Sequence[Any] | None]] = SimpleQueue()
        threading.Thread(target=_read_tasks, args=(connection, job, reads), name="read", daemon=True).start()
        while (views := reads.get().result()) is not None:
            connection.send(("results", job.annotate(views)))
    except LimnerError as error:
        connection.send(("raised", error))
    except (BrokenPipeError, ConnectionError):
        return
    except Exception:  # noqa: BLE001 - any bug is reported to the parent, which stops the run
        connection.send(("fault", traceback.format_exc()))


def _read_tasks(connection: Connection, job: Job, reads: "SimpleQueue[Future[Sequence[Any] | None]]") -> None:
    """Read the regions of each task as it arrives: the parent sends one while another is annotated, and no more.

    Puts the views, or what reading raised, into the queue; None when the parent is gone.
    """
    while True:
        read: Future[Sequence[Any] | None] = Future()
        try:
            read.set_result(job.read(connection.recv()))
        except (EOFError, ConnectionError):
            read.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            read.set_exception(error)
        reads.put(read)
        if read.exception() is not None or read.result() is None:
            return


@contextlib.contextmanager
def _blocked_signals() -> Generator[None, None, None]:
    """Block the terminal's signals in a process that starts within, until it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
