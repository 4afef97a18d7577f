"""The one door to standard output and standard error: what goes out holds no control character of somebody else's.

File names, tags, answers of models and messages of libraries are written by strangers. Whatever of them a terminal
would obey or hide is written as an escape. Signals that end a command are turned into `Stopped` here as well.
"""

import contextlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TextIO

from ...readers.errors import LimnerError

_PRINTABLE = re.compile(r"[\x20-\x7e\n]*")
_BYTE = range(0xDC80, 0xDD00)  # how Python spells a byte of a file name that is not UTF-8
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class OutputError(LimnerError):
    """Standard output takes nothing more."""


class Stopped(BaseException):
    """A signal asked this process to end. `exit_code` is 128 and the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def visible(text: str, *, keep: str = "") -> str:
    """`text` with every character that does not print written as Python's escape of it, but those in `keep`.

    Bytes of file names that are not UTF-8 come out as what they are: the letter x and two digits after a backslash.
    """
    if _PRINTABLE.fullmatch(text) and (keep or "\n" not in text):
        return text
    return "".join(one if one.isprintable() or one in keep else _escape(one) for one in text)


def say(text: object) -> None:
    """Print a result on standard output. Raises `OutputError` where it takes nothing more."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def talk(text: object) -> None:
    """Print a message on standard error, if anybody listens."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class Outlet(io.TextIOBase):
    """A stream that escapes what is written to it. A `needed` one raises `OutputError` where it takes nothing more.

    `raw` is the same stream for our own control sequences, such as those of a progress bar.
    """

    def __init__(self, stream: TextIO, *, needed: bool, escapes: bool = True) -> None:
        super().__init__()
        self._stream = stream
        self._needed = needed
        self._escapes = escapes
        self._fault = ""
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="backslashreplace")  # whatever the encoding of the locale cannot write

    @property
    def raw(self) -> "Outlet":
        """See the class."""
        return Outlet(self._stream, needed=self._needed, escapes=False)

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stream's."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str, /) -> int:
        """Write a text, escaped."""
        with self._failing():
            self._stream.write(visible(text, keep="\n") if self._escapes else text)
        return len(text)

    def flush(self) -> None:
        """Let out what is held."""
        with self._failing():
            if not self._stream.closed:
                self._stream.flush()

    @contextlib.contextmanager
    def _failing(self) -> Generator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self._fault = (error.strerror if isinstance(error, OSError) else "") or "it is closed"
            with contextlib.suppress(OSError, ValueError):  # what is held still goes nowhere, also when Python ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        if self._fault and self._needed:  # again each time: libraries try a stream and hide what happens
            raise OutputError(
                "standard output",
                "it must take what is printed",
                value=self._fault,
                remedy="What was done is kept; print it elsewhere, or make room",
            )


@contextlib.contextmanager
def terminal() -> Generator[None]:
    """Let everything that is printed within go through `Outlet`, and signals raise `Stopped`, once."""
    with contextlib.ExitStack() as stack:
        _open_standard_files()
        stack.enter_context(contextlib.redirect_stderr(Outlet(sys.stderr or _closed(), needed=False)))
        stack.enter_context(contextlib.redirect_stdout(Outlet(sys.stdout or _closed(), needed=True)))
        stack.enter_context(_signals())
        stack.callback(setattr, logging, "lastResort", logging.lastResort)
        logging.lastResort = None  # libraries log the names of files, before it is known whether these may be told
        yield


def _open_standard_files() -> None:
    """Give closed standard files a place: the next file that is opened would be taken for them otherwise."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _closed() -> TextIO:
    with Path(os.devnull).open("w", encoding="utf-8") as stream:
        return stream


@contextlib.contextmanager
def _signals() -> Generator[None]:
    """Raise `Stopped` in the main thread at the first signal; the second ends the process at once."""
    numbers = [number for name in _SIGNALS if (number := getattr(signal, name, None)) is not None]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: old for number, old in before.items() if old not in {None, signal.SIG_IGN}}  # as nohup asks

    def stop(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if code in _BYTE else character.encode("unicode_escape").decode()
