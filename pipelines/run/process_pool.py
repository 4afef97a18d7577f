"""The local engine: spawned processes on this machine, each with its own handles and its own copy of the model.

A process that dies costs its batch, whose regions are tried once more one by one in new processes.
"""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, cast

from ...model.finding import Result
from ...readers.errors import LimnerError, ModelError
from ...readers.regions import Region
from .engine import Job
from .machine import anonymous_memory

_OF_THE_TERMINAL = tuple(
    number for name in ("SIGINT", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)  # they reach the whole group; the parent decides
_WATCH_S = 0.02  # how often a process that is tried is looked at: between two looks it takes some tens of MB
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class WorkerFaultError(RuntimeError):
    """A mistake of ours, or of a plug-in, in a worker process; the message is its traceback."""


@dataclass(frozen=True, slots=True)
class ProcessPoolEngine:
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
                    yield results
        finally:
            for worker in crew:
                worker.stop()


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one region in a process of its own: its result, or `why` there is none.

    `peak` is the most bytes of memory that the process was seen to hold, but for cached files.
    """

    result: Result | None
    why: str
    peak: float


def try_region(
    job: Job, among: Sequence[Region], *, threads: int, seconds: float, memory: float, again: float
) -> Trial:
    """Do the first region of `among` that holds something, in a process of its own that is ended past its limits.

    The limits are `seconds` for everything, loading among it, and `memory` bytes. Where the region takes less than
    `again` seconds it is done a second time, which counts: the first time warms up. Raises `WorkerFaultError`.
    """
    worker = _Worker.start(job, threads)
    watch = _Watch(worker, time.monotonic() + seconds, memory, f"within {seconds:.0f} s")
    with contextlib.suppress(OSError):  # where memory runs out after all, this process goes first
        Path(f"/proc/{worker.process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
    try:
        watch.hear("The model was not loaded")
        for region in among:
            result = watch.do(region)
            if result.status == "done" and result.seconds < again:
                result = watch.do(region)
            if result.status != "skipped":
                failed = result.status == "failed"
                return Trial(None if failed else result, result.error, watch.peak)
        return Trial(None, "The tiles that were tried hold nothing to annotate", watch.peak)
    except _LimitError as error:
        return Trial(None, str(error), watch.peak)
    except (EOFError, OSError):
        return Trial(None, f"The process that tried it died ({worker.exit_reason()})", watch.peak)
    except LimnerError as error:
        return Trial(None, str(error), watch.peak)
    finally:
        worker.stop()


class _LimitError(Exception):
    """A process has reached one of its limits; the message is a sentence about it."""


@dataclass(slots=True)
class _Watch:
    """Looks after one process while it works. `peak` is the most bytes it was seen to hold."""

    worker: "_Worker"
    deadline: float
    memory: float
    limit: str
    peak: float = 0.0

    def do(self, region: Region) -> Result:
        """A region's result. Raises what `hear` raises."""
        self.worker.give(_Task([region]))
        return self.hear("One tile was not done")[0]

    def hear(self, late: str) -> list[Result]:
        """What the process says next; `late` begins the sentence if it is not in time. Raises `_LimitError`."""
        while not self.worker.connection.poll(_WATCH_S):
            held = anonymous_memory(self.worker.process.pid or 0)
            self.peak = max(self.peak, held)
            if held > self.memory:
                msg = f"It took more than {self.memory / 2**30:.1f} GiB of memory, and was stopped"
                raise _LimitError(msg)
            if time.monotonic() > self.deadline:
                msg = f"{late} {self.limit}, which is how long a plan tries"
                raise _LimitError(msg)
        return self.worker.hear()


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
        reason = worker.exit_reason()
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

    def exit_reason(self) -> str:
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
        job.begin()
        connection.send(("ready", None))
        while True:
            try:
                regions = connection.recv()
            except EOFError:
                return
            connection.send(("results", job.annotate(job.read(regions))))
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
    """Let a process that starts within inherit how many computing threads its libraries may use, if not 0."""
    if not threads:
        yield
        return
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
