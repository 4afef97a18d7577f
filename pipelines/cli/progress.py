"""Progress: a bar on a terminal, a bar in a notebook, plain lines elsewhere."""

import contextlib
import html
import sys
import time
from types import TracebackType
from typing import Any, Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from ..run.events import Event, Listener, Message, RegionDone, Started, plural
from .terminal import Outlet, visible

STEPS = 10  # plain lines for a whole run
_UPDATE_S = 0.2  # between two drawings in a notebook
_MESSAGES = 8  # of the last are shown in a notebook


def watch() -> contextlib.AbstractContextManager[Listener]:
    """A listener for a program that called limner: draws in a terminal and in a notebook, and is silent elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if hasattr(shell, "kernel"):
        return NotebookProgress()
    return Drawing() if sys.stderr is not None and sys.stderr.isatty() else contextlib.nullcontext(_ignore)


def _ignore(_: Event) -> None:
    """Draw nothing."""


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
            case Message():
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


class NotebookProgress:
    """A listener that draws in the output of a notebook's cell. Use as a context manager."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._total = self._done = self._failed = 0
        self._drawn = 0.0
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._handle = sys.modules["IPython"].display.display(self, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.update(self)

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case Message():
                self._messages.append(event.text)
            case Started():
                self._total, self._done = event.total, event.done
            case RegionDone():
                self._done += 1
                if event.status == "failed":
                    self._failed += 1
                    self._messages.append(f"{event.region} failed. {event.error}")
        if time.monotonic() - self._drawn >= _UPDATE_S:
            self._handle.update(self)
            self._drawn = time.monotonic()

    def __repr__(self) -> str:
        """How far it is."""
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done} of {plural(self._total, 'region')}{failed}"

    def _repr_html_(self) -> str:
        """A bar, how far it is, and the last messages."""
        said = "".join(
            f"<div><small>{html.escape(visible(text))}</small></div>" for text in self._messages[-_MESSAGES:]
        )
        return f'<progress value="{self._done}" max="{max(1, self._total)}"></progress> {self!r}{said}'
