"""Locks between processes."""

import threading
import time
from pathlib import Path

from limner.readers.locks import lock


def test_a_lock_that_another_holds_is_refused_or_waited_for(tmp_path: Path) -> None:
    with (tmp_path / "file").open("ab") as first, (tmp_path / "file").open("ab") as second:
        assert lock(first)
        begun = time.monotonic()
        assert not lock(second)
        assert time.monotonic() - begun >= 0.4, "a watcher may hold it for a moment"
        threading.Timer(1.5, first.close).start()
        assert lock(second, wait=True)
        assert time.monotonic() - begun >= 1.4
