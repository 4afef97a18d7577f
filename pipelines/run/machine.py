"""What this machine has: processor cores, and memory that is free for what is to come."""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_V2 = ("memory.max", "memory.current")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> float | None:
    """Bytes of memory that this machine has; None where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def free_memory() -> float | None:
    """Bytes that this process and its children can take without swapping; None where the system does not say.

    The least of what the system calls available and of what is left of the limits of its control groups (containers,
    batch systems). Files that are only cached count as free.
    """
    available = _meminfo().get("MemAvailable", total_memory())
    known = [*_left_of_groups(), *([] if available is None else [available])]
    return min(known) if known else None


def anonymous_memory(process: int) -> float:
    """Bytes that a process holds and that no file backs; 0 where the system does not say, or it has ended."""
    return _fields(Path(f"/proc/{process}/status")).get("RssAnon", 0.0)


def _meminfo() -> dict[str, float]:
    return _fields(Path("/proc/meminfo"))


def _fields(path: Path) -> dict[str, float]:
    """Lines like "Name:  12 kB" as bytes by name; {} where there is no such file."""
    found: dict[str, float] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
            found[name] = float(words[0]) * 1024
    return found


def _left_of_groups() -> Iterator[float]:
    """What is left of each memory limit that holds for this process: of its group, and of those around it."""
    try:
        lines = _OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (_CGROUPS / "memory", _V1) if controllers else (_CGROUPS, _V2)
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder != root and root not in folder.parents:
                break
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and used is not None:
                yield max(0.0, limit - used + _cached(folder))


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max" where there is no limit
        return None


def _cached(folder: Path) -> float:
    """Bytes of a group's files that the system drops when it needs memory."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    stated = dict(line.split(" ", 1) for line in lines if " " in line)
    return float(stated.get("total_inactive_file", stated.get("inactive_file", 0)))
