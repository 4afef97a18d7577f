"""Events of a run, and handlers that show them: a progress bar in a terminal or a notebook, plain lines elsewhere."""

import contextlib
import html
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, cast

from ..model.finding import Status
from .cli.terminal import EscapedStream, bytes_text, duration_text, plural, visible
from .run.processes import held_bytes

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINES = 10  # plain lines for a whole run
_UPDATE_S = 0.2  # between two updates of a notebook
_MAX_MESSAGES = 8  # shown in a notebook
_MEASURED = 200  # results of which the speed is told
_BATCH_S = 0.05  # results that come closer are of one batch, whose time is not known before the next
_MEASURE_S = 1.0  # between two measurements of the memory
_SHOWN_ANYWAY = {"FORCE_COLOR", "TTY_COMPATIBLE"}  # variables by which rich may draw where there is no terminal


@dataclass(frozen=True, slots=True)
class Started:
    """The plan is made and work on its regions begins."""

    images: int
    total: int
    """Regions of all images."""
    done: int
    """Regions that need no work: skipped, or finished by an earlier, interrupted run."""
    folder: str
    failed: tuple[str, ...] = ()
    """Of those in `done`, the regions that failed: known where a run is watched from elsewhere."""


@dataclass(frozen=True, slots=True)
class RegionDone:
    """The result of a region is safely on disk."""

    region: str
    status: Status
    findings: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Inspecting:
    """While the run is planned: a part of the work on an image is done."""

    image: str
    """Its id."""
    number: int
    """The images before it."""
    total: int
    """All images."""
    share: float
    """The part of the work on this image that is done, from 0 to 1."""
    step: str = "reading"
    """What is being done with it, as a participle."""

    @property
    def done(self) -> float:
        """The part of the work on all images that is done, from 0 to 1."""
        return (self.number + self.share) / self.total


@dataclass(frozen=True, slots=True)
class Reporting:
    """While reports are written."""

    report: str
    """The name of a writer, or "reports" while those are written that share a pass over the findings."""
    share: float
    """The part that is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence for the user."""

    text: str


Event = Inspecting | Started | RegionDone | Reporting | Message
EventHandler = Callable[[Event], None]


def progress_display(memory: Callable[[], float] | None = None) -> contextlib.AbstractContextManager[EventHandler]:
    """An event handler for library use: shows progress in a terminal or a notebook, and nothing elsewhere.

    See `RegionCounts` for `memory`; that of this process by default.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        return NotebookProgress(memory or _own_memory)
    if sys.stderr is not None and sys.stderr.isatty():
        return TerminalProgress(memory or _own_memory)
    return contextlib.nullcontext(lambda _: None)


class RegionCounts:
    """Counts the regions that are done and failed, how fast they are done, and the memory that this takes.

    `memory` is called to learn the bytes that the processes of the run hold, 0 where that is not known.
    """

    def __init__(self, memory: Callable[[], float]) -> None:
        self.total = self.done = 0
        self._failed: set[str] = set()
        self._times: deque[float] = deque(maxlen=_MEASURED)
        self._memory, self._held, self._measured = memory, 0.0, -math.inf

    @property
    def failed(self) -> int:
        """Regions whose last result is a failure."""
        return len(self._failed)

    def update(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Started):
            self.total, self.done, self._failed = event.total, event.done, set(event.failed)
        elif isinstance(event, RegionDone):
            again = event.region in self._failed
            self.done += not again
            now, last = time.monotonic(), self._times[-1] if self._times else -math.inf
            self._times.append(now if now - last >= _BATCH_S else last)
            if event.status == "failed":
                self._failed.add(event.region)
            elif again:
                self._failed.remove(event.region)

    @property
    def rate(self) -> float | None:
        """Regions per second, of the latest; None before two results came at different times."""
        times = self._times
        span = times[-1] - times[0] if times else 0.0
        return sum(one > times[0] for one in times) / span if span > 0 else None

    def speed_text(self) -> str:
        """Failures, regions per second, the time that is left and the memory, as far as they are known."""
        rate, left = self.rate, self.total - self.done
        now = time.monotonic()
        if now - self._measured >= _MEASURE_S:
            self._held, self._measured = self._memory(), now
        speed = "" if rate is None else f"{rate:.3g} regions/s" if rate >= 0.95 else f"{60 * rate:.3g} regions/min"
        parts = (
            f"{self.failed} failed" if self._failed else "",
            speed,
            f"about {duration_text(left / rate)} left" if rate and left > 0 else "",
            bytes_text(self._held) if self._held else "",
        )
        return ", ".join(filter(None, parts))

    def __str__(self) -> str:
        return ", ".join(filter(None, (f"{self.done} of {plural(self.total, 'region')}", self.speed_text())))


def _own_memory() -> float:
    return held_bytes(os.getpid())


def stopped_text(on_event: EventHandler, *, again: str) -> str:
    """What to say where a user stops a run; `again` is what resumes it: "command" or "call"."""
    counts = on_event.counts if isinstance(on_event, TerminalProgress | NotebookProgress) else None
    if counts is None or not counts.total:
        return f"Stopped before the first region. The same {again} starts again."
    done = f"{counts.done} of {plural(counts.total, 'region')}"
    return f"Stopped with {done} done. Results so far are kept; the same {again} resumes the run."


class TerminalProgress:
    """An event handler that draws a progress bar on a terminal, else prints lines. Use as a context manager.

    See `RegionCounts` for `memory`.
    """

    def __init__(self, memory: Callable[[], float] = _own_memory) -> None:
        self._file = cast("TextIO", sys.stderr.raw if isinstance(sys.stderr, EscapedStream) else sys.stderr)
        self._bar: Progress | None = None
        if self._file.isatty() or _SHOWN_ANYWAY & os.environ.keys():
            from .progress_bar import make_bar

            self._bar = make_bar(self._file)
        self._task: TaskID | None = None
        self._inspection: TaskID | None = None
        self._reporting: TaskID | None = None
        self.counts = RegionCounts(memory)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        counts, before = self.counts, self._lines()
        counts.update(event)
        if isinstance(event, Inspecting):
            self._inspect(event)
        elif isinstance(event, Reporting):
            self._report(event)
        elif isinstance(event, Message):
            self._print(event.text)
        elif isinstance(event, Started):
            already = f", {event.done} of them skipped or finished earlier" if event.done else ""
            self._print(f"{plural(event.total, 'region')} in {plural(event.images, 'image')}{already}")
            if self._bar is not None:
                speed = counts.speed_text
                self._task = self._bar.add_task("regions", total=event.total, completed=event.done, speed=speed)
        else:
            if event.status == "failed":
                self._print(f"{event.region} failed. {event.error}")
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=counts.done)
            if self._bar is None and self._lines() > before:
                self._print(str(counts))

    def _inspect(self, event: Inspecting) -> None:
        """Show which part of the inputs is read and measured; gone when all is."""
        if self._bar is None:
            return
        if self._inspection is None:
            self._inspection = self._bar.add_task("planning", total=1.0, share=True)
        count = f" ({event.number + 1} of {event.total})" if event.total > 1 else ""
        description = f"{event.step} {visible(event.image)}{count}"
        self._bar.update(self._inspection, completed=event.done, description=description)
        if event.done >= 1:
            self._bar.remove_task(self._inspection)
            self._inspection = None

    def _report(self, event: Reporting) -> None:
        """Show how much of the reports, in percent, is written; gone when all are."""
        if self._bar is None:
            return
        if self._reporting is None:
            self._reporting = self._bar.add_task("writing", total=100)
        percent, description = round(100 * event.share), f"writing {visible(event.report)}"
        self._bar.update(self._reporting, completed=percent, description=description)
        if event.share >= 1:
            self._bar.remove_task(self._reporting)
            self._reporting = None

    def _lines(self) -> int:
        return self.counts.done * LINES // max(1, self.counts.total)

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(visible(text), markup=False, emoji=False)  # [red] and :smile: are data
        else:
            self._file.write(f"{visible(text)}\n")
            self._file.flush()


class NotebookProgress:
    """An event handler that draws in the output of a notebook's cell. Use as a context manager.

    See `RegionCounts` for `memory`.
    """

    def __init__(self, memory: Callable[[], float] = _own_memory) -> None:
        self._messages: list[str] = []
        self.counts = RegionCounts(memory)
        self._inspected: Inspecting | None = None
        self._reported: Reporting | None = None
        self._updated = 0.0
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._handle = sys.modules["IPython"].display.display(self, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inspected = self._reported = None
        self._handle.update(self)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self.counts.update(event)
        self._inspected = event if isinstance(event, Inspecting) and event.done < 1 else None
        self._reported = event if isinstance(event, Reporting) and event.share < 1 else None
        if isinstance(event, Message):
            self._messages.append(event.text)
        elif isinstance(event, RegionDone) and event.status == "failed":
            self._messages.append(f"{event.region} failed. {event.error}")
        if time.monotonic() - self._updated >= _UPDATE_S:
            self._handle.update(self)
            self._updated = time.monotonic()

    def __repr__(self) -> str:
        """The counts of regions, or what is done while planning or reporting."""
        now, written = self._inspected, self._reported
        if written is not None:
            return f"writing {written.report}: {100 * written.share:.0f} %"
        if now is not None:
            return f"{now.step} {now.image}: {100 * now.done:.0f} % of {plural(now.total, 'image')}"
        return str(self.counts) if self.counts.total else ""

    def _repr_html_(self) -> str:
        """A progress bar, the counts and the last messages."""
        messages = "".join(
            f"<div><small>{html.escape(visible(text))}</small></div>" for text in self._messages[-_MAX_MESSAGES:]
        )
        now, words = self._inspected, html.escape(visible(repr(self)))
        done, total = (self.counts.done, max(1, self.counts.total)) if now is None else (round(now.done, 3), 1)
        bar = f'<progress value="{done}" max="{total}"></progress> ' if words else ""
        return f"{bar}{words}{messages}"
