"""The sandboxed process: functions run on untrusted files where a crash, a hang or a memory bomb costs one file.

Its address space is limited, it cannot write files, and it is killed when a call takes too long; the next call starts
another. Results come back as JSON or as one array, never as pickled objects, so that a file which takes control of the
process gains nothing here.

    this process   ── {"call": "module:function", "arguments": […], "seconds": 20, …} ──▶   sandboxed process
                   ◀── {"result": …}, {"error": …} or {"fault": …} [bytes of an array] ──

This module loads no library but Python's own, so that a process can be started before anything else.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from . import errors
from .errors import LimnerError
from .kinds import KEY_VARIABLE

if TYPE_CHECKING:
    import numpy.typing as npt

MEMORY_MB: Final = 3072
"""Default address space of a sandboxed process in MiB."""

SCAN_MEMORY_MB: Final = 1536
"""Address space in MiB for identifying and scanning."""

WALL_CLOCK_FACTOR: Final = 4
"""Wall-clock time that a call may take per second of its processor time, since the machine may be busy."""

_TIMEOUTS: Final = {-getattr(signal, name, signal.SIGTERM) for name in ("SIGPROF", "SIGALRM")}
_GRACE: Final = 2.0  # seconds of wall-clock time after which a call ends even if its caller has died
_MAX_BYTES: Final = 256 * 2**20  # of a line of JSON, and of an array

_LOADED_FIRST: Final = {
    SCAN_MEMORY_MB: (
        *("limner.readers.reader_server", "limner.readers.raster.scene", "rasterio", "limner.readers.slide.czi"),
        *("limner.readers.slide.ome_zarr", "limner.readers.slide.openslide", "limner.readers.dicom.reader"),
    ),
}
"""Modules that a process of that size loads before it is asked anything; most inputs need them."""


class SandboxError(Exception):
    """A call without a result."""

    code: str
    """"time" (killed at its timeout), "memory" (out of it), "died" (a crash in a library), "nested" (recursion) or
    "raised" (another exception); functions may raise codes of their own."""
    value: str
    """Type name of that exception, whose message may quote a patient's name."""

    def __init__(self, code: str, value: str = "") -> None:
        super().__init__(code, value)
        self.code = code
        self.value = value


class SandboxedProcess:
    """A sandboxed process, started by the first call and kept for the next. Thread-safe."""

    def __init__(self, megabytes: int = MEMORY_MB) -> None:
        self._megabytes = megabytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, which imports its libraries while this one goes on."""
        with self._lock:
            self._start()

    def call(self, function: str, *arguments: Any, seconds: float) -> Any:
        """Call a module-level function, named "limner.module:function", with arguments that JSON can hold.

        The function returns such a value or one array of numbers. `seconds` is processor time; the wall-clock limit is
        `WALL_CLOCK_FACTOR` times as long. Paths are relative to this process's working directory. Raises
        `SandboxError`, or the `LimnerError` that the function raised.
        """
        request = {"call": function, "arguments": arguments, "seconds": seconds, "folder": os.getcwd()}
        with self._lock:
            process = self._start()
            timed_out = threading.Event()

            def kill() -> None:
                timed_out.set()
                process.kill()

            timer = threading.Timer(WALL_CLOCK_FACTOR * seconds, kill)
            timer.start()
            try:
                answer, array = _exchange(process, json.dumps(request).encode() + b"\n")
            except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
                late = self._stop(1.0) in _TIMEOUTS or timed_out.is_set()
                raise SandboxError("time" if late else "died") from error
            except BaseException:
                self._stop()  # interrupted: its answer would be taken for that of the next call
                raise
            finally:
                timer.cancel()
            if answer.get("fault") == "memory":
                self._stop()  # what fills its memory would fail the next call
        if "error" in answer:
            kind = getattr(errors, str(answer["kind"]), LimnerError)
            subject, rule, value, remedy = (str(part) for part in answer["error"])
            raise kind(subject, rule, value=value, remedy=remedy)
        if "fault" in answer:
            raise SandboxError(str(answer["fault"]), str(answer.get("value", "")))
        return answer["result"] if array is None else array

    def close(self) -> None:
        """Stop the process; the next call starts another."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop()
            settings = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
            settings["GDAL_CACHEMAX"] = "128"  # MiB; GDAL's own default is a share of the machine's memory
            settings["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # they watch models, and are searched in all packages
            environment = {key: value for key, value in os.environ.items() if key != KEY_VARIABLE} | settings
            code = f"from {__name__} import serve; serve({self._megabytes})"
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this Python and this module
                    [sys.executable, "-P", "-c", code],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # warnings of libraries may quote a file
                    env=environment,
                )
            except OSError as error:
                remedy = "Free memory, or let this user have more processes"
                raise LimnerError(
                    "the process that opens files", "must start", value=str(error), remedy=remedy
                ) from error
        return self._process

    def _stop(self, grace: float = 0.0) -> int | None:
        """Kill the process unless it ends within `grace` seconds, and return its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what is still buffered has no reader any more
                    pipe.close()
        return process.wait()


_SHARED: dict[tuple[int, int], SandboxedProcess] = {}


def shared_process(megabytes: int = MEMORY_MB) -> SandboxedProcess:
    """The sandboxed process of that size that all code in this process shares; a forked process gets another."""
    key = os.getpid(), megabytes
    if key not in _SHARED:
        for stale in [one for one in _SHARED if one[0] != key[0]]:
            del _SHARED[stale]
        _SHARED[key] = SandboxedProcess(megabytes)
        atexit.register(_SHARED[key].close)
    return _SHARED[key]


def start_scanning() -> None:
    """Start the process that will scan inputs, for a caller that has imports of its own before it."""
    with contextlib.suppress(LimnerError):  # which the first scan tells
        shared_process(SCAN_MEMORY_MB).start()


def release_sandbox() -> None:
    """Stop the shared processes, which keep their libraries in memory; the next call starts another."""
    for (owner, _), process in list(_SHARED.items()):
        if owner == os.getpid():
            process.close()


def while_waiting(function: Callable[[], object]) -> None:
    """Let the next call of a sandboxed process run a function while the process works on it."""
    _MEANWHILE.append(function)


_MEANWHILE: list[Callable[[], object]] = []


def run_sandboxed(function: str, *arguments: Any, seconds: float, megabytes: int = MEMORY_MB) -> Any:
    """`SandboxedProcess.call` in the shared process. Raises `LimnerError` or `SandboxError`."""
    return shared_process(megabytes).call(function, *arguments, seconds=seconds)


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> tuple[dict[str, Any], "npt.NDArray[Any] | None"]:
    """Write a request and read its answer. Raises `OSError`, `EOFError`, `ValueError`, `KeyError` or `TypeError`."""
    if process.stdin is None or process.stdout is None:
        msg = "the sandboxed process has no pipes"
        raise OSError(msg)
    process.stdin.write(request)
    process.stdin.flush()
    while _MEANWHILE:
        _MEANWHILE.pop()()
    line = process.stdout.readline(_MAX_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError
    answer: object = json.loads(line)
    if not isinstance(answer, dict):
        raise TypeError(answer)
    found = cast("dict[str, Any]", answer)
    if "shape" not in found:
        return found, None
    import numpy as np

    shape, dtype = tuple(int(n) for n in found["shape"]), np.dtype(str(found["dtype"]))
    if dtype.kind not in "biuf" or min(shape, default=1) < 1 or int(np.prod(shape)) * dtype.itemsize > _MAX_BYTES:
        raise ValueError(shape)
    array = np.empty(shape, dtype=dtype)
    view = array.reshape(-1).view(np.uint8).data
    while view:
        count = process.stdout.readinto(view)  # type: ignore[attr-defined] - a pipe opened for reading is a BufferedReader
        if not count:
            raise EOFError
        view = view[count:]
    return found, array


def serve(megabytes: int) -> None:
    """Answer requests from standard input until it ends: what a sandboxed process runs."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides when to end, by closing standard input
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries goes to standard error
    _limit_resources(megabytes)
    gc.disable()  # what modules define is no garbage, and is not searched for any
    for module in _LOADED_FIRST.get(megabytes, ()):
        with contextlib.suppress(Exception):  # told when it is asked for
            importlib.import_module(module)
    gc.freeze()
    gc.enable()
    for line in requests:
        answer, array = _answer(json.loads(line))
        answers.write(json.dumps(answer).encode() + b"\n")
        if array is not None:
            answers.write(array.data)
        answers.flush()


def _limit_resources(megabytes: int) -> None:
    """Limit memory, and forbid core dumps and files, on systems that can."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, megabytes * 2**20), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The answer to a request, and the array that follows it, if any."""
    import numpy as np

    seconds = request["seconds"]
    _set_timers(seconds, WALL_CLOCK_FACTOR * seconds + _GRACE)
    try:
        os.chdir(request["folder"])
        module, _, name = str(request["call"]).partition(":")
        result: Any = getattr(importlib.import_module(module), name)(*request["arguments"])
        if isinstance(result, np.ndarray):
            array: npt.NDArray[Any] = np.ascontiguousarray(cast("npt.NDArray[Any]", result))
            return {"shape": array.shape, "dtype": array.dtype.str}, array
        json.dumps(result)
    except LimnerError as error:
        return {"kind": type(error).__name__, "error": error.parts}, None
    except SandboxError as error:
        return {"fault": error.code, "value": error.value}, None
    except BaseException as error:  # noqa: BLE001 - a parser may raise anything, even what is no Exception
        faults = {MemoryError: "memory", RecursionError: "nested"}
        fault = next((fault for kind, fault in faults.items() if isinstance(error, kind)), "raised")
        return {"fault": fault, "value": type(error).__name__ if fault == "raised" else ""}, None
    finally:
        _set_timers(0, 0)
    return {"result": result}, None


def _set_timers(processor: float, clock: float) -> None:
    """Let a signal end this process after seconds of processor time or of wall-clock time; 0 for never."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, processor)
        signal.setitimer(signal.ITIMER_REAL, clock)
