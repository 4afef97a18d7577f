"""Safe standard output and standard error, and signals.

File names, tags, answers of models and log messages come from untrusted sources: control characters and other
unprintable ones are escaped before they reach a terminal.
"""

import contextlib
import io
import logging
import math
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from ...readers.errors import LimnerError

_PRINTABLE = re.compile(r"[\x20-\x7e\n]*")
_SURROGATE_BYTES = range(0xDC80, 0xDD00)  # how Python decodes the bytes of a file name that are not UTF-8
_MINUTE, _HOUR = 60.0, 3600.0
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class OutputError(LimnerError):
    """Standard output cannot be written."""


class Stopped(BaseException):
    """A signal stopped this process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number
        """As shells report it."""


def visible(text: str, *, keep: str = "") -> str:
    """Escape unprintable characters as Python does, except those in `keep`.

    Bytes of a file name that are not UTF-8 become a backslash, the letter x and two digits.
    """
    if _PRINTABLE.fullmatch(text) and (keep or "\n" not in text):
        return text
    return "".join(char if char.isprintable() or char in keep else _escape(char) for char in text)


def plural(count: int, word: str) -> str:
    """A count with its noun: "1 region", "2 regions"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def duration_text(seconds: float) -> str:
    """A duration: "12 s", "3 min", "1.5 h"."""
    if seconds < _MINUTE:
        return f"{max(1, math.ceil(seconds))} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < _HOUR else f"{seconds / _HOUR:.1f} h"


def bytes_text(count: float) -> str:
    """An amount of memory: "120 MiB", "1.5 GiB"."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Rows as aligned columns, two spaces apart; the columns numbered in `right` are right-aligned."""
    rows = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = (
        [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)


def indent(text: str, *, title: str = "") -> str:
    """Text indented by two spaces under a title."""
    return (f"{visible(title)}\n" if title else "") + textwrap.indent(text, "  ")


def print_result(text: object) -> None:
    """Print to standard output. Raises `OutputError`."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def print_message(text: object) -> None:
    """Print to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def filter_output(*, terminal: Callable[[str], str], elsewhere: Callable[[str], str]) -> bool:
    """Pass standard output and standard error through functions, by whether they are an interactive terminal.

    Returns whether any stream passes `elsewhere`. Does nothing outside of the command line.
    """
    for stream in _active:
        stream.filter(terminal if stream.isatty() else elsewhere)
    return not all(stream.isatty() for stream in _active)


class EscapedStream(io.TextIOBase):
    """A text stream that escapes what is written to another one.

    A `required` stream raises `OutputError` where it cannot be written; others then drop the text.
    """

    def __init__(self, stream: TextIO, *, required: bool, escape: bool = True) -> None:
        super().__init__()
        self._stream = stream
        self._required = required
        self._escape = escape
        self._filters: list[Callable[[str], str]] = []  # one at most, shared with `raw`
        self._problem = ""
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")  # for characters that the locale's encoding lacks

    @property
    def raw(self) -> "EscapedStream":
        """The same stream without escaping, for our own control sequences."""
        stream = EscapedStream(self._stream, required=self._required, escape=False)
        stream._filters = self._filters
        return stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The encoding of the wrapped stream."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the wrapped stream is a terminal."""
        return not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        """The file descriptor of the wrapped stream."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """True."""
        return True

    def filter(self, function: Callable[[str], str]) -> None:
        """From now on pass all text through a function first."""
        self._filters[:] = [function]

    def write(self, text: str, /) -> int:
        """Write text, filtered and escaped."""
        with self._handle_errors():
            passed = self._filters[0](text) if self._filters else text
            self._stream.write(visible(passed, keep="\n") if self._escape else passed)
        return len(text)

    def flush(self) -> None:
        """Flush the wrapped stream."""
        with self._handle_errors():
            if not self._stream.closed:
                self._stream.flush()

    @contextlib.contextmanager
    def _handle_errors(self) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._problem = (error.strerror if isinstance(error, OSError) else "") or "it is closed"
            with contextlib.suppress(OSError, ValueError):  # discard what is buffered, also when Python exits
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)
        if self._problem and self._required:  # at every call: libraries swallow the first error
            raise OutputError(
                "standard output",
                "must be writable",
                value=self._problem,
                remedy="Results so far are kept; redirect the output elsewhere, or free disk space",
            )


class _OwnWarnings(logging.Handler):
    """Shows warnings of limner's own, which hold no name of a file."""

    def emit(self, record: logging.LogRecord) -> None:
        print_message(record.getMessage())


@contextlib.contextmanager
def terminal() -> Generator[None]:
    """Escape all output and turn the first signal into `Stopped`, within a `with` block."""
    with contextlib.ExitStack() as stack:
        _open_standard_files()
        err = EscapedStream(sys.stderr or _null_stream(), required=False)
        out = EscapedStream(sys.stdout or _null_stream(), required=True)
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.callback(_active.clear)
        _active[:] = [out, err]
        stack.enter_context(_signals())
        stack.callback(setattr, logging, "lastResort", logging.lastResort)
        logging.lastResort = None  # libraries log file names, which may have to be redacted
        own, shown = logging.getLogger("limner"), _OwnWarnings(logging.WARNING)
        own.addHandler(shown)
        stack.callback(own.removeHandler, shown)
        yield


_active: list[EscapedStream] = []  # those of `terminal`: a progress bar replaces sys.stdout and sys.stderr meanwhile


def _open_standard_files() -> None:
    """Open closed standard file descriptors, since the next file to be opened would take their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _null_stream() -> TextIO:
    with Path(os.devnull).open("w", encoding="utf-8") as stream:
        return stream


@contextlib.contextmanager
def _signals() -> Generator[None]:
    """Raise `Stopped` in the main thread at the first signal; the second one ends the process at once."""
    numbers = [number for name in _SIGNALS if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: old for number, old in before.items() if old not in {None, signal.SIG_IGN}}  # respect nohup

    def stop(number: int, _: FrameType | None) -> None:
        for handled in before:
            signal.signal(handled, signal.SIG_DFL)
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code - 0xDC00:02x}" if code in _SURROGATE_BYTES else char.encode("unicode_escape").decode()
