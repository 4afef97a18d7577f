"""The local engine: spawned processes on this machine, each with its own handles and its own copy of the model.

A process that dies costs its batch, whose regions are tried once more one by one in new processes.
"""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from ..model.finding import Result
from ..readers.errors import LimnerError, ModelError
from ..readers.regions import Region
from .engine import Job

_OF_THE_TERMINAL = tuple(
    number for name in ("SIGINT", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)  # they reach the whole group; the parent decides
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class WorkerFaultError(RuntimeError):
    """A mistake of ours, or of a plug-in, in a worker process; the message is its traceback."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Works in `workers` spawned processes with `threads` computing threads each."""

    job: Job
    workers: int
    threads: int

    def annotate(self, batches: Iterable[Sequence[Region]]) -> Generator[list[Result], None, None]:
        """See `Engine`. A region whose process died twice is a failed result that says how it died."""
        waiting = _Queue(iter(batches))
        crew: list[_Worker] = []
        try:
            while True:
                while len(crew) < self.workers and waiting.more(sum(worker.task is None for worker in crew)):
                    crew.append(_Worker.start(self.job, self.threads))
                for worker in crew:
                    if worker.ready and worker.task is None and (task := waiting.next()) is not None:
                        worker.give(task)
                if not any(worker.task or not worker.ready for worker in crew):
                    return
                for connection in wait([worker.connection for worker in crew]):
                    worker = next(one for one in crew if one.connection is connection)
                    try:
                        results = worker.hear()
                    except (EOFError, OSError):
                        crew.remove(worker)
                        results = waiting.after_death(worker)
                    if results:
                        yield results
        finally:
            for worker in crew:
                worker.stop()


@dataclass(frozen=True, slots=True)
class _Task:
    regions: Sequence[Region]
    again: bool = False


@dataclass(slots=True)
class _Queue:
    """What is still to be done: new batches, after regions whose process died."""

    batches: Iterator[Sequence[Region]]
    again: deque[_Task] = field(default_factory=deque[_Task])
    ahead: deque[_Task] = field(default_factory=deque[_Task])

    def more(self, count: int) -> bool:
        """Whether more than `count` tasks wait: it is worth starting another process."""
        while len(self.again) + len(self.ahead) <= count:
            batch = next(self.batches, None)
            if batch is None:
                return False
            self.ahead.append(_Task(batch))
        return True

    def next(self) -> _Task | None:
        if not self.again and not self.more(0):
            return None
        return (self.again or self.ahead).popleft()

    def after_death(self, worker: "_Worker") -> list[Result]:
        """Queue the dead worker's regions again, or say that they failed."""
        reason = worker.epitaph()
        if not worker.ready:
            raise ModelError(
                "local worker", "it must start", value=reason, remedy="Try --engine inline, which shows the cause"
            )
        if worker.task is None:
            return []
        if not worker.task.again:
            self.again.extend(_Task([region], again=True) for region in worker.task.regions)
            return []
        return [
            Result(region.key, region.grid.image, "failed", error=f"worker process: it must not die ({reason}), twice")
            for region in worker.task.regions
        ]


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    task: _Task | None = None

    @classmethod
    def start(cls, job: Job, threads: int) -> "_Worker":
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, job), daemon=True)
        with _thread_limits(threads), _deaf():
            process.start()
        there.close()
        return cls(process, here)

    def give(self, task: _Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # a process that just died is noticed when it is listened to
            self.connection.send(task.regions)

    def hear(self) -> list[Result]:
        """The results of its task; [] when it has just become ready. Raises what stopped it."""
        kind, content = cast("tuple[str, Any]", self.connection.recv())
        if kind == "raised":
            raise content
        if kind == "fault":
            raise WorkerFaultError(content)
        if kind == "ready":
            self.ready = True
            return []
        self.task = None
        return content

    def epitaph(self) -> str:
        """How the process ended, in words."""
        self.connection.close()
        self.process.join(10)
        code = self.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
        return f"exit code {code}"

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, job: Job) -> None:
    """A worker's life: begin the job, then answer batches until the parent lets go, or dies."""
    for one in _OF_THE_TERMINAL:
        signal.signal(one, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OF_THE_TERMINAL)
    try:
        work = job.begin()
        connection.send(("ready", None))
        while True:
            try:
                regions = connection.recv()
            except EOFError:
                return
            connection.send(("results", work.annotate(work.look(regions))))
    except LimnerError as error:
        connection.send(("raised", error))
    except (BrokenPipeError, ConnectionError):
        return
    except Exception:  # noqa: BLE001 - whatever it is goes to the parent, which stops the run with it
        connection.send(("fault", traceback.format_exc()))


@contextlib.contextmanager
def _deaf() -> Generator[None, None, None]:
    """Let a process that starts within inherit that the terminal's signals wait, until it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _thread_limits(threads: int) -> Generator[None, None, None]:
    """Let a process that starts within inherit how many computing threads its libraries may use."""
    before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
