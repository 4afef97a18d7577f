"""Where the command `limner` begins and ends: the process that scans inputs starts first, and loads its libraries."""

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn

from ...readers.sandbox import start_scanning
from .loading import loading

_SCANNING = ("info", "plan", "run")
"""Commands that scan inputs."""


def main() -> NoReturn:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in _SCANNING and not {"-h", "--help"} & set(sys.argv):
        start_scanning()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # searched for in all installed packages
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # 2 to the power of it in cycles; by default idle threads
    # spin for a tenth of a second of processor time, from when numpy is imported on
    with loading():
        from .main import main as run
    try:
        run()
    except SystemExit as end:
        if isinstance(end.code, int) and sys.getprofile() is None:
            _leave(end.code)
        raise


def _leave(code: int) -> NoReturn:
    """End the process as Python does, but without taking libraries apart: that takes a fifth of a second after a run.

    The standard library ends processes of `multiprocessing` in the same way.
    """
    threading._shutdown()  # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    atexit._run_exitfuncs()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with contextlib.suppress(OSError, ValueError):  # it is closed
            stream.flush()
    os._exit(code)
