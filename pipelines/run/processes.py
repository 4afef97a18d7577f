"""Memory that processes hold, as the system tells it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ...readers.files import parse_fields


def held_bytes(pid: int) -> float:
    """Bytes of memory that a process and its descendants have allocated, without cached files; 0 where not known."""
    return parse_fields(Path(f"/proc/{pid}/status")).get("RssAnon", 0.0) + sum(map(held_bytes, _processes_of(pid)))


def peak_bytes() -> float | None:
    """The most that `held_bytes` has been of this process since `forget_peak`; None where the system does not tell.

    Its descendants count with what they hold now, and the code of libraries does not.
    """
    fields = parse_fields(Path("/proc/self/status"))
    if "VmHWM" not in fields:
        return None
    others = held_bytes(os.getpid()) - fields.get("RssAnon", 0.0)
    return fields["VmHWM"] - fields.get("RssFile", 0.0) - fields.get("RssShmem", 0.0) + others


def forget_peak() -> None:
    """Begin to watch for the peak anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def code_bytes() -> float:
    """Bytes of libraries' code and of other files that this process has mapped; 0 where the system does not tell."""
    return parse_fields(Path("/proc/self/status")).get("RssFile", 0.0)


def _processes_of(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                yield from map(int, (task / "children").read_text(encoding="ascii").split())
