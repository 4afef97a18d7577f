"""Locks on files, between processes: each is released when its file is closed or its process ends."""

import contextlib
import errno
import sys
import time
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

_TRIES: Final = 6  # a watcher holds a lock for a moment, to learn whether a run does
_PAUSE_S: Final = 0.1

if sys.platform == "win32":
    import msvcrt

    def try_lock(file: BinaryIO, *, shared: bool = False) -> bool:
        """Lock a file until it is closed; False where another process has it. Raises `OSError`."""
        del shared  # there is none
        file.seek(1 << 62)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(file: BinaryIO) -> None:
        """Release the lock."""
        file.seek(1 << 62)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def try_lock(file: BinaryIO, *, shared: bool = False) -> bool:
        """Lock a file until it is closed, or the process dies; False where another process has it. Raises `OSError`."""
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(file: BinaryIO) -> None:
        """Release the lock."""
        fcntl.flock(file, fcntl.LOCK_UN)


def lock(file: BinaryIO, *, wait: bool = False) -> bool:
    """Lock a file until it is closed, or the process dies; False where another process keeps it, unless to `wait`.

    True where the file system has no locks. Raises `OSError`.
    """
    try:
        for _ in count() if wait else range(_TRIES - 1):
            if try_lock(file):
                return True
            time.sleep(_PAUSE_S)
        return try_lock(file)
    except OSError as error:
        if not _without_locks(error):
            raise
        return True


def is_locked(file: BinaryIO) -> bool | None:
    """Whether another process has locked a file that is open for reading; None where the file system has no locks."""
    try:
        if not try_lock(file, shared=True):
            return True
        unlock(file)
    except OSError as error:
        if not _without_locks(error):
            raise
        return None
    return False


def lock_holder(path: Path) -> int | None:
    """The id of the process on this machine that has locked a file; None where that is not known."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = path.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()  # number, FLOCK, ADVISORY, WRITE, process, major:minor:inode, …
            if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) == inode and int(fields[4]) > 0:
                return int(fields[4])
    return None


def _without_locks(error: OSError) -> bool:
    return error.errno in {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}
