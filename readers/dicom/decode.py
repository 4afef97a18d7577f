"""Asking the limited process: start it, ask it, bury it where it dies or takes too long, start another.

One for each process that reads, shared by its images. This side parses no DICOM and holds no library that does.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ..pseudonym import KEY_VARIABLE
from .facts import FileFacts
from .faults import FaultError
from .grey import Table
from .source import FRAME_PIXELS, Kind

MEGABYTES: Final = 3072  # address space; a frame of the largest size allowed decodes in it
HEADER_SECONDS: Final = 30.0
FRAME_SECONDS: Final = 120.0
_LINE: Final = 256 * 2**20  # bytes: an answer's facts, at most


class Decoder:
    """The limited process as seen from outside. Safe to share between threads."""

    def __init__(self, megabytes: int = MEGABYTES) -> None:
        self._megabytes = megabytes
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def header(self, source: str) -> FileFacts:
        """A file's facts. Raises `FaultError`."""
        answer, _ = self._ask({"ask": "header", "source": source}, HEADER_SECONDS)
        try:
            return FileFacts.from_json(answer["facts"])
        except (KeyError, TypeError, ValueError) as error:
            raise FaultError("damaged", type(error).__name__) from error

    def frame(self, source: str, index: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start:stop of frame `index` (from 0): float32 (rows, columns) or uint8 (…, 3). Raises `FaultError`."""
        request = {"ask": "frame", "source": source, "index": index, "start": start, "stop": stop}
        _, pixels = self._ask(request, FRAME_SECONDS)
        if pixels is None:
            raise FaultError("decode")
        return pixels

    def table(self, source: str, index: int) -> Table:
        """The VOI lookup table of frame `index` (from 0). Raises `FaultError` where there is none that can be read."""
        answer, _ = self._ask({"ask": "table", "source": source, "index": index}, HEADER_SECONDS)
        try:
            entries = np.array(answer["entries"], dtype=np.float64)
            return Table(float(answer["first"]), entries, int(answer["bits"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FaultError("damaged", type(error).__name__) from error

    def members(self, source: str) -> list[tuple[str, Kind, str]]:
        """See `source.members`. Raises `FaultError`."""
        answer, _ = self._ask({"ask": "members", "source": source}, HEADER_SECONDS)
        return [(str(name), cast("Kind", kind), str(fault)) for name, kind, fault in answer["members"]]

    def listing(self, source: str) -> list[list[str]]:
        """See `listing.read_listing`. Raises `FaultError`."""
        answer, _ = self._ask({"ask": "listing", "source": source}, HEADER_SECONDS)
        return cast("list[list[str]]", answer["files"])

    def digest(self, source: str) -> str:
        """The sha256 of a source's bytes, in hexadecimal. Raises `FaultError`."""
        answer, _ = self._ask({"ask": "digest", "source": source}, FRAME_SECONDS)
        return str(answer["sha256"])

    def close(self) -> None:
        """End the process; the next question starts another."""
        with self._lock:
            self._end()

    def _ask(self, request: Mapping[str, Any], seconds: float) -> tuple[Mapping[str, Any], npt.NDArray[Any] | None]:
        with self._lock:
            child = self._started()
            overdue = threading.Event()

            def give_up() -> None:
                overdue.set()
                child.kill()

            timer = threading.Timer(seconds, give_up)
            timer.start()
            try:
                answer, pixels = _exchange(child, request)
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                self._end()
                raise FaultError("time" if overdue.is_set() else "died") from error
            finally:
                timer.cancel()
        if "fault" in answer:
            raise FaultError(str(answer["fault"]), str(answer.get("value", "")))
        return answer, pixels

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
            environment = {key: value for key, value in os.environ.items() if key != KEY_VARIABLE} | quiet
            self._child = subprocess.Popen(  # noqa: S603 - this Python and a module of our own
                [sys.executable, "-P", "-m", f"{__package__}.child", str(self._megabytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # where pydicom's warnings, which quote what they warn of, end
                env=environment,
            )
        return self._child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was still to be written has no reader any more
                    continue


def _exchange(
    child: subprocess.Popen[bytes], request: Mapping[str, Any]
) -> tuple[Mapping[str, Any], npt.NDArray[Any] | None]:
    """Write a request, read its answer. Raises `OSError`, `EOFError`, `ValueError`, `KeyError` or `TypeError`."""
    if child.stdin is None or child.stdout is None:
        msg = "the limited process has no pipes"
        raise OSError(msg)
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()
    line = child.stdout.readline(_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    answer = cast("dict[str, Any]", json.loads(line))
    if "shape" not in answer:
        return answer, None
    shape = tuple(int(n) for n in cast("Sequence[int]", answer["shape"]))
    if answer["dtype"] not in {"<f4", "|u1"} or min(shape) < 1 or int(np.prod(shape)) > FRAME_PIXELS:
        raise ValueError(shape)
    pixels = np.empty(shape, dtype=answer["dtype"])
    view = pixels.reshape(-1).view(np.uint8).data
    while view:
        count = child.stdout.readinto(view)  # type: ignore[attr-defined] - a pipe opened for reading is a BufferedReader
        if not count:
            raise EOFError
        view = view[count:]
    return answer, pixels


_DECODERS: dict[int, Decoder] = {}


def decoder() -> Decoder:
    """The decoder of this process; a forked process gets another."""
    pid = os.getpid()
    if pid not in _DECODERS:
        _DECODERS.clear()
        _DECODERS[pid] = Decoder()
        atexit.register(_DECODERS[pid].close)
    return _DECODERS[pid]
