"""Files read whole, within a size and a depth where they are JSON, and files written whole or not at all."""

import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast

from .errors import ReadError
from .image import ImageInfo

MAX_JSON_DEPTH = 64
"""Levels of lists and objects that a JSON text may have: GeoJSON needs 10."""

MAX_FILE_BYTES = 2**28
"""Bytes of a file that is read whole."""


def read_file(path: str | Path, *, most: int = MAX_FILE_BYTES, regular: bool = False) -> bytes:
    """The bytes of a file. A `regular` one is neither a pipe nor a device, so that reading it ends.

    Raises `OSError`, also for a file of more than `most` bytes and for a name that no file can have.
    """
    with open_regular(path) if regular else _open(path) as file:
        found = os.fstat(file.fileno())
        large = found.st_size > most
        wanted = found.st_size if stat.S_ISREG(found.st_mode) and found.st_size else most  # as much memory is asked for
        content = b"" if large else file.read(wanted + 1)
    if large or len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most // 2**20} MiB")
    return content


def open_regular(path: str | Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BinaryIO:
    """Open a regular file, unbuffered, with these flags of `os.open`; to write to, one that is no link either.

    Raises `OSError` for whatever else lies there, at once.
    """
    if flags & (os.O_WRONLY | os.O_RDWR):
        flags |= getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise OSError(errno.EINVAL, "it is a link or a pipe, not a file") from error
        raise
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, str(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a file")  # noqa: TRY301 - to close it
        return cast("BinaryIO", os.fdopen(descriptor, mode, buffering=0))
    except BaseException:
        os.close(descriptor)
        raise


def write_atomic(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file whole or not at all, as `atomic_path` does; a `private` one is readable by its owner only.

    Raises `OSError`.
    """
    with atomic_path(path) as part:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a name beside `path` that nothing has, to write a file or a folder to; on success it becomes `path`.

    What was written is flushed to the disk before it is renamed, so that a `path` that exists is complete. On failure
    it is removed, and what `path` was stays. A link is replaced, never written through. Raises `OSError`.
    """
    part = path.with_name(f".part-{path.name}")
    _remove(part)
    try:
        yield part
        for written in part.rglob("*") if part.is_dir() else (part,):
            _flush(written)
        if part.is_dir():
            _remove(path)  # no system replaces a folder that holds something
        part.replace(path)
    finally:
        with suppress(OSError):
            _remove(part)


def parse_json(content: bytes | str, *, constants: bool = False) -> Any:
    """What a JSON text says, where every name of an object is given once; NaN and infinity only with `constants`.

    Raises `ValueError` only, also where it is nested too deeply, or a number is too large for a float (1e999). The
    error names no value, which may be of a patient.
    """
    numbers: dict[str, Any] = {} if constants else {"parse_float": _finite, "parse_int": _within}
    try:
        value: Any = json.loads(
            content, parse_constant=None if constants else _refuse, object_pairs_hook=reject_duplicate_names, **numbers
        )
    except RecursionError:
        raise _too_deep() from None
    inner = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = [one for outer in inner for one in _members(outer) if isinstance(one, (dict, list))]
        if not inner:
            return value
    raise _too_deep()


def reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these names and values. Raises `ValueError` where a name is given twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        msg = f"the name {next(name for name in names if names.count(name) > 1)!r} is given twice"
        raise ValueError(msg)
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = "a number is too large"
        raise ValueError(msg)
    return number


def _within(text: str) -> int:
    _finite(text)
    return int(text)


def _open(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, str(error)) from error


def _flush(path: Path) -> None:
    if path.is_file():
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _members(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no number of JSON"
    raise ValueError(msg)


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_JSON_DEPTH} levels deep")


MIB = 2**20


def is_remote(uri: str) -> bool:
    """Whether a name is read through a network or a GDAL virtual file system, not as a path on this machine."""
    return uri.startswith("/vsi") or "://" in uri


def require_local(uri: str) -> None:
    """Raise `ReadError` for a slide that does not lie on this machine."""
    if is_remote(uri):
        raise ReadError(
            uri,
            "a slide is read from a file of this machine",
            remedy="Copy it here, with the files that belong beside it",
        )


def fingerprint(files: Sequence[str]) -> str:
    """The sha256, in hexadecimal, over each file's size, first MiB and last MiB, in the order given.

    Scenes are gigabytes, and a rewritten file changes its size, its header or its last block in all but contrived
    cases. "" where any file is remote. Raises `ReadError` where a file cannot be read.
    """
    if any(is_remote(name) for name in files):
        return ""
    digest = hashlib.sha256()
    for name in files:
        try:
            with Path(name).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                digest.update(size.to_bytes(8, "little") + file.read(MIB))
                file.seek(max(0, size - MIB))
                digest.update(file.read(MIB))
        except OSError as error:
            raise ReadError(name, "it must be readable", value=str(error), remedy="Check the path and rights") from None
    return digest.hexdigest()


def has_changed(info: ImageInfo) -> bool:
    """Whether an image's files hold other bytes than when it was scanned; False where they are remote, or it has none.

    Raises `ReadError` where they are gone.
    """
    present = [name for name in info.files if os.path.isfile(name)]  # noqa: PTH113 - False for any error
    return bool(info.fingerprint and info.files) and fingerprint(present or info.files) != info.fingerprint
