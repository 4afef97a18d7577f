"""The limited process itself, run by `limited`: a line of JSON asks, a line of JSON answers, an array's bytes follow.

Nothing that a file says leaves it but what the called functions return.
"""

import importlib
import json
import os
import signal
import sys
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .errors import LimnerError
from .sandbox import WALL_CLOCK_FACTOR, SandboxError

_GRACE = 2.0  # seconds by the clock after which a call ends even where nobody is left to end it


def main(megabytes: int) -> None:
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


if __name__ == "__main__":
    main(int(sys.argv[1]))
