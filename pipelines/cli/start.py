"""Where the command `limner` begins: the process that scans inputs starts first, and loads its libraries."""

import os
import sys

from ...readers.sandbox import start_scanning
from .loading import loading

_SCANNING = ("info", "plan", "run")
"""Commands that scan inputs."""


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in _SCANNING and not {"-h", "--help"} & set(sys.argv):
        start_scanning()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # searched for in all installed packages
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # 2 to the power of it in cycles; by default idle threads
    # spin for a tenth of a second of processor time, from when numpy is imported on
    with loading():
        from .main import main as run
    run()
