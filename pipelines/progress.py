"""Progress, drawn on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from .events import Event, RegionDone, Started, Told, plural
from .terminal import Outlet, visible

STEPS = 10  # plain lines for a whole run


class Drawing:
    """A listener that draws. Use as a context manager."""

    def __init__(self) -> None:
        file = sys.stderr.raw if isinstance(sys.stderr, Outlet) else sys.stderr
        self._console = Console(file=cast("TextIO", file), highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._total = self._done = self._failed = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case Told():
                self._say(event.text)
            case Started():
                self._start(event)
            case RegionDone():
                self._advance(event)

    def _start(self, event: Started) -> None:
        self._total, self._done = event.total, event.done
        already = f", {event.done} of them settled" if event.done else ""
        self._say(f"{plural(event.total, 'region')} in {plural(event.images, 'image')}{already}")
        self._task = self._bar.add_task("regions", total=event.total, completed=event.done)

    def _advance(self, event: RegionDone) -> None:
        before = self._done * STEPS // max(1, self._total)
        self._done += 1
        if event.status == "failed":
            self._failed += 1
            self._say(f"{event.region} failed. {event.error}")
        if self._task is not None:
            self._bar.advance(self._task)
        if not self._console.is_terminal and self._done * STEPS // max(1, self._total) > before:
            failed = f", {self._failed} failed" if self._failed else ""
            self._say(f"{self._done} of {plural(self._total, 'region')}{failed}")

    def _say(self, text: str) -> None:
        self._console.print(Text(visible(text)))  # no markup: [red] and :smile: are data
