"""The limited process: runs functions on untrusted files where a crash, a hang or a memory bomb costs nothing.

Its address space is limited, it writes nothing into files, and it ends when a call takes too long; the next call starts
another. Answers come back as JSON or as one array, never as pickled objects, so that a file which takes the
process over gains nothing here.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from . import errors
from .pseudonyms import KEY_VARIABLE

MEMORY_MB: Final = 3072
"""Address space of a limited process, in MiB, where nothing else is said."""

WALL_CLOCK_FACTOR: Final = 4
"""How many times its seconds of processor time a call may take by the clock: other work may slow the machine down."""

_OVERDUE: Final = {-getattr(signal, name, signal.SIGTERM) for name in ("SIGPROF", "SIGALRM")}
_LINE: Final = 256 * 2**20  # bytes of one JSON answer, at most
_ARRAY: Final = 256 * 2**20  # bytes of one array, at most


class SandboxError(Exception):
    """A call that gave no answer.

    `code` is "time" (ended after its time), "memory" (more than its address space), "died" (its process ended: a crash
    in a library), "nested" (Python's recursion limit) or "raised" (a foreign exception, whose type name is `value`: its
    message may quote a patient's name, so it stays behind). Functions may raise their own codes.
    """

    def __init__(self, code: str, value: str = "") -> None:
        super().__init__(code, value)
        self.code = code
        self.value = value


class SandboxedProcess:
    """One limited process, started by the first call and kept for the next. Safe to share between threads."""

    def __init__(self, megabytes: int = MEMORY_MB) -> None:
        self._megabytes = megabytes
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        return None if self._child is None else self._child.pid

    def call(self, function: str, *arguments: Any, seconds: float) -> Any:
        """What a module-level function, named "limner.module:function", returns for JSON-able arguments.

        The function returns something JSON-able, or one array of numbers. `seconds` is processor time, and a quarter of
        what the call may take by the clock. Paths are relative to this process's folder. Raises the `LimnerError` that
        the function raised, or `SandboxError`.
        """
        asked = {"call": function, "arguments": arguments, "seconds": seconds, "folder": os.getcwd()}  # noqa: PTH109 - a text
        request = json.dumps(asked).encode() + b"\n"
        with self._lock:
            child = self._started()
            overdue = threading.Event()

            def give_up() -> None:
                overdue.set()
                child.kill()

            timer = threading.Timer(WALL_CLOCK_FACTOR * seconds, give_up)
            timer.start()
            try:
                answer, array = _exchange(child, request)
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                late = self._end(1.0) in _OVERDUE or overdue.is_set()
                raise SandboxError("time" if late else "died") from error
            except BaseException:
                self._end()  # interrupted: what it still answers would be taken for the next call's answer
                raise
            finally:
                timer.cancel()
            if answer.get("fault") == "memory":
                self._end()  # what fills it would be in the next call's way
        if "error" in answer:
            kind = getattr(errors, str(answer["kind"]), errors.LimnerError)
            subject, rule, value, remedy = (str(part) for part in answer["error"])
            raise kind(subject, rule, value=value, remedy=remedy)
        if "fault" in answer:
            raise SandboxError(str(answer["fault"]), str(answer.get("value", "")))
        return answer["result"] if array is None else array

    def close(self) -> None:
        """End the process; the next call starts another."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self._end()
            settings = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
            settings["GDAL_CACHEMAX"] = "128"  # MiB; GDAL's own default is a share of the machine's memory
            environment = {key: value for key, value in os.environ.items() if key != KEY_VARIABLE} | settings
            self._child = subprocess.Popen(  # noqa: S603 - this Python and a module of our own
                [sys.executable, "-P", "-m", "limner.readers.sandbox_process", str(self._megabytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # warnings of libraries quote what they warn of
                env=environment,
            )
        return self._child

    def _end(self, grace: float = 0.0) -> int | None:
        """End the process, `grace` seconds after it may have begun to end by itself; how it ended."""
        child, self._child = self._child, None
        if child is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
        child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still to be written has no reader any more
                    pipe.close()
        return child.wait()


def run_sandboxed(function: str, *arguments: Any, seconds: float, megabytes: int = MEMORY_MB) -> Any:
    """`SandboxedProcess.call` in a process that everything in this process shares. Raises `LimnerError`, `SandboxError`."""
    return shared_process(megabytes).call(function, *arguments, seconds=seconds)


_SHARED: dict[tuple[int, int], SandboxedProcess] = {}


def shared_process(megabytes: int = MEMORY_MB) -> SandboxedProcess:
    """The limited process of that size which belongs to this process; a forked process gets another."""
    key = os.getpid(), megabytes
    if key not in _SHARED:
        for stale in [one for one in _SHARED if one[0] != key[0]]:
            del _SHARED[stale]
        _SHARED[key] = SandboxedProcess(megabytes)
        atexit.register(_SHARED[key].close)
    return _SHARED[key]


def _exchange(child: subprocess.Popen[bytes], request: bytes) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
    """Write a request, read its answer. Raises `OSError`, `EOFError`, `ValueError`, `KeyError` or `TypeError`."""
    if child.stdin is None or child.stdout is None:
        msg = "the limited process has no pipes"
        raise OSError(msg)
    child.stdin.write(request)
    child.stdin.flush()
    line = child.stdout.readline(_LINE)
    if not line.endswith(b"\n"):
        raise EOFError
    answer: object = json.loads(line)
    if not isinstance(answer, dict):
        raise TypeError(answer)
    found = cast("dict[str, Any]", answer)
    if "shape" not in found:
        return found, None
    shape, dtype = tuple(int(n) for n in found["shape"]), np.dtype(str(found["dtype"]))
    if dtype.kind not in "biuf" or min(shape, default=1) < 1 or int(np.prod(shape)) * dtype.itemsize > _ARRAY:
        raise ValueError(shape)
    array = np.empty(shape, dtype=dtype)
    view = array.reshape(-1).view(np.uint8).data
    while view:
        count = child.stdout.readinto(view)  # type: ignore[attr-defined] - a pipe opened for reading is a BufferedReader
        if not count:
            raise EOFError
        view = view[count:]
    return found, array
