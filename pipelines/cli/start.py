"""Where the command `limner` begins: it starts the process that scans inputs, which loads its libraries meanwhile."""

import gc
import os
import sys
from typing import NoReturn

from ...readers.sandbox import start_scanning

_SCANNING = ("info", "plan", "run")
"""Commands that scan inputs."""


def main() -> NoReturn:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in _SCANNING and not {"-h", "--help"} & set(sys.argv):
        start_scanning()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # searched for in all installed packages
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # 2 to the power of it in cycles; by default idle threads
    # spin for a tenth of a second of processor time, from when numpy is imported on
    gc.disable()  # what modules define is no garbage, and is not searched for any
    from .main import main as run

    gc.freeze()
    gc.enable()
    run()
