"""Memory that processes hold, as the system tells it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ...readers.files import parse_fields


def held_bytes(pid: int) -> float:
    """Bytes of memory that a process and its descendants have allocated, without cached files; 0 where not known."""
    return parse_fields(Path(f"/proc/{pid}/status")).get("RssAnon", 0.0) + sum(map(held_bytes, _processes_of(pid)))


def _processes_of(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                yield from map(int, (task / "children").read_text(encoding="ascii").split())
