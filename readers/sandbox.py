"""The limited process: runs functions on untrusted files where a crash, a hang or a memory bomb costs nothing.

Its address space is limited, it writes nothing into files, and it ends when a call takes too long; the next call starts
another. Answers come back as JSON or as one array, never as pickled objects, so that a file which takes the
process over gains nothing here.
"""

import atexit
import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import errors
from .errors import LimnerError, ReadError
from .files import is_remote
from .image import FolderReader, FolderScan, ImageInfo, Reader
from .options import Options, options_of, parse_options
from .plugins import installed, load
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
        asked = {"call": function, "arguments": arguments, "seconds": seconds, "folder": os.getcwd()}
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
                [sys.executable, "-P", "-c", f"from limner.readers.sandbox import serve; serve({self._megabytes})"],
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
    """`SandboxedProcess.call` in this process's shared sandbox. Raises `LimnerError` or `SandboxError`."""
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


_GRACE = 2.0  # seconds by the clock after which a call ends even where nobody is left to end it


def serve(megabytes: int) -> None:
    """Serve until standard input ends."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides, and its end is the end of standard input
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes where standard error goes
    limit(megabytes)
    for line in requests:
        answer, array = _answer(json.loads(line))
        answers.write(json.dumps(answer).encode() + b"\n")
        if array is not None:
            answers.write(array.data)
        answers.flush()


def limit(megabytes: int) -> None:
    """Limit this process's memory, and forbid core dumps and files. Nothing where the system has no such limits."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, megabytes * 2**20), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The answer to one request, and the array that follows it, if any."""
    seconds = request["seconds"]
    _alarm(seconds, WALL_CLOCK_FACTOR * seconds + _GRACE)
    try:
        os.chdir(request["folder"])
        module, _, name = str(request["call"]).partition(":")
        result: Any = getattr(importlib.import_module(module), name)(*request["arguments"])
        if isinstance(result, np.ndarray):
            array: npt.NDArray[Any] = np.ascontiguousarray(cast("npt.NDArray[Any]", result))
            return {"shape": array.shape, "dtype": array.dtype.str}, array
        json.dumps(result)
    except BaseException as error:  # noqa: BLE001 - a parser may raise anything, also what is no Exception
        return _failure(error), None
    finally:
        _alarm(0, 0)
    return {"result": result}, None


def _alarm(processor: float, clock: float) -> None:
    """Let a signal end this process after so many seconds of processor time, or by the clock; 0 for neither."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, processor)
        signal.setitimer(signal.ITIMER_REAL, clock)


def _failure(error: BaseException) -> dict[str, Any]:
    """An exception as an answer."""
    if isinstance(error, LimnerError):
        return {"kind": type(error).__name__, "error": [error.subject, error.rule, error.value, error.remedy]}
    if isinstance(error, SandboxError):
        return {"fault": error.code, "value": error.value}
    if isinstance(error, MemoryError | RecursionError):
        return {"fault": "memory" if isinstance(error, MemoryError) else "nested"}
    return {"fault": "raised", "value": type(error).__name__}


_T = TypeVar("_T")

CLAIM_SECONDS: Final = 6.0
SCAN_SECONDS: Final = 20.0
FOLDER_SECONDS: Final = 60.0
REMOTE_SECONDS: Final = 60.0
"""Processor time that a claim, a scan of a file, of a folder, and anything remote may take."""

SCAN_MEMORY_MB: Final = 1536
"""Address space of the process that is asked, in MiB."""

_RULES: Final = {
    "time": ("reading it must end in time", "Treat it with suspicion, or leave it out"),
    "memory": ("reading its header must fit the memory limit", "Treat it with suspicion, or leave it out"),
    "died": ("reading it must not crash the library that reads it", "Treat it with suspicion, or leave it out"),
    "nested": ("what it nests must not be deeper than Python can follow", "Get an undamaged copy of the file"),
}


def identify(name: str, reader: Reader, uri: str, head: bytes) -> int:
    """`Reader.identify` of the reader installed as `name`. Raises `ReadError` where the file breaks it."""
    if not _limited(name, type(reader)):
        return _guarded(name, uri, lambda: reader.identify(uri, head))
    return int(_call("answer_identify", name, uri, head.decode("latin-1"), seconds=_seconds(uri, CLAIM_SECONDS)))


def scan_file(name: str, reader: Reader, uri: str, options: Options) -> tuple[ImageInfo, ...]:
    """`Reader.scan` of the reader installed as `name`. Raises `LimnerError`, also where the file breaks it."""
    if not _limited(name, type(reader)):
        return _guarded(name, uri, lambda: tuple(reader.scan(uri, options)))
    return _infos(_call("answer_scan", name, uri, options.texts(), seconds=_seconds(uri, SCAN_SECONDS)))


def scan_folder(name: str, reader: Reader, folder: str, options: Options) -> FolderScan:
    """`FolderReader.scan_folder`, or else `Reader.scan` of a folder. Raises `LimnerError`, as above."""
    if not _limited(name, type(reader)):
        return _guarded(name, folder, lambda: _scanned(reader, folder, options))
    infos, failed, side = _call("answer_folder", name, folder, options.texts(), seconds=FOLDER_SECONDS)
    return FolderScan(
        _infos(infos),
        tuple(
            (tuple(files), ReadError(subject, rule, value=value, remedy=remedy))
            for files, (subject, rule, value, remedy) in failed
        ),
        tuple((str(path), str(reason)) for path, reason in side),
    )


@cache
def _limited(name: str, kind: Any) -> bool:
    """Whether readers of that class are asked in the limited process: what is installed there, and not isolated."""
    if getattr(kind, "isolated", False) or name not in installed("limner.readers"):
        return False
    return load("limner.readers", name) is kind


@cache
def _reader(name: str) -> Reader:
    """The reader of that name, in the limited process."""
    make: Any = load("limner.readers", name)
    return make()


def _seconds(uri: str, local: float) -> float:
    return REMOTE_SECONDS if is_remote(uri) else local


def _call(function: str, name: str, uri: str, *arguments: Any, seconds: float) -> Any:
    try:
        return run_sandboxed(f"{__name__}:{function}", name, uri, *arguments, seconds=seconds, megabytes=SCAN_MEMORY_MB)
    except SandboxError as error:
        if error.code == "raised":
            raise _mistake(name, uri, error.value) from error
        rule, remedy = _RULES[error.code]
        raise ReadError(uri, rule, value=error.value, remedy=remedy) from error


def _guarded(name: str, uri: str, ask: Callable[[], _T]) -> _T:
    """What `ask` returns; an exception that is not limner's becomes a `ReadError` about the file."""
    try:
        return ask()
    except LimnerError:
        raise
    except Exception as error:
        raise _mistake(name, uri, type(error).__name__) from error


def _mistake(name: str, uri: str, kind: str) -> ReadError:
    if kind == "UnicodeEncodeError":
        rule = f"its name must be UTF-8, since the library of the reader {name!r} takes no other"
        return ReadError(uri, rule, remedy="Rename it")
    return ReadError(
        uri,
        f"the reader {name!r} must be able to make sense of it",
        value=f"{kind} in the reader",
        remedy="The file may be damaged: get an undamaged copy. If it is whole, report this as a mistake of the reader",
    )


def _infos(records: Sequence[object]) -> tuple[ImageInfo, ...]:
    return tuple(ImageInfo.from_json(record) for record in records)


def _scanned(reader: Reader, folder: str, options: Options) -> FolderScan:
    if isinstance(reader, FolderReader):
        return reader.scan_folder(folder, options)
    return FolderScan(tuple(reader.scan(folder, options)))


# What the limited process runs.


def _options(name: str, texts: dict[str, str]) -> Options:
    return parse_options(options_of(_reader(name)), texts, f"reader {name!r}")


def answer_identify(name: str, uri: str, head: str) -> int:
    """`Reader.identify` as JSON."""
    return _reader(name).identify(uri, head.encode("latin-1"))


def answer_scan(name: str, uri: str, options: dict[str, str]) -> list[Any]:
    """`Reader.scan` as JSON."""
    return [info.to_json() for info in _reader(name).scan(uri, _options(name, options))]


def answer_folder(name: str, folder: str, options: dict[str, str]) -> list[Any]:
    """`FolderReader.scan_folder` as JSON."""
    found = _scanned(_reader(name), folder, _options(name, options))
    failed = [[list(files), [error.subject, error.rule, error.value, error.remedy]] for files, error in found.failed]
    return [[info.to_json() for info in found.infos], failed, [list(pair) for pair in found.side]]
