"""Local files: size-limited reading, strict JSON, atomic writing, and fingerprints of inputs."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn, cast

from .errors import ReadError

if TYPE_CHECKING:
    from .image import ImageInfo

MAX_JSON_DEPTH: Final = 64
"""Deepest nesting of lists and objects in a JSON text: GeoJSON needs 10."""

MAX_FILE_BYTES: Final = 2**28
"""Largest file that is read into memory."""

_VARIABLE: Final = re.compile(r'(?:NETCDF|HDF5):("[^"]+"|.+?):(?://)?([^:"]+)', re.IGNORECASE)
DICOMWEB: Final = "dicomweb:"
"""What inputs on a DICOMweb server begin with."""

_FETCHED: Final = re.compile(r"(?:[/\\][0-9a-f]{32}){3}\.dcm$")
_HEAD_BYTES: Final = 4096
_SPECIAL: Final = {"a named pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a device": stat.S_ISCHR}
_SAMPLE: Final = 2**20  # bytes at each end of a file that its fingerprint covers
_LETTERS: Final = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
    | {"ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "\u0131": "i"}
)
"""Latin letters that are no letter of ASCII with a mark."""


def read_file(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES, regular: bool = False) -> bytes:
    """Read a file; a `regular` one must be neither a pipe nor a device, so that reading it ends.

    Raises `OSError`, also for a file of more than `max_bytes` and for an invalid name.
    """
    with open_regular(path) if regular else _open(path) as file:
        found = os.fstat(file.fileno())
        large = found.st_size > max_bytes
        size = found.st_size if stat.S_ISREG(found.st_mode) and found.st_size else max_bytes  # read() allocates it
        content = b"" if large else file.read(size + 1)
    if large or len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes // 2**20} MiB")
    return content


def open_regular(path: str | Path, flags: int = os.O_RDONLY, mode: str = "rb") -> BinaryIO:
    """Open a regular file, unbuffered, with flags of `os.open`; for writing it must not be a link.

    Raises `OSError` at once for a folder, a pipe or a device.
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
    """Write a file as `atomic_path` does; a `private` one is readable by its owner only. Raises `OSError`."""
    with atomic_path(path) as part:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path` for a file or a folder, which replaces `path` on success.

    Its content is flushed to disk before it is renamed, so that `path` is complete whenever it exists. On failure it is
    removed and `path` is unchanged. A link is replaced, never written through. Raises `OSError`.
    """
    part = path.with_name(f".part-{path.name}")
    _remove(part)
    try:
        yield part
        for written in part.rglob("*") if part.is_dir() else (part,):
            _flush(written)
        if part.is_dir():
            _remove(path)  # a folder that is not empty cannot be replaced
        part.replace(path)
    finally:
        with suppress(OSError):
            _remove(part)


def parse_json(content: bytes | str, *, allow_nan: bool = False) -> Any:
    """Parse JSON without duplicate names, and with NaN and infinity only where they are allowed.

    Raises `ValueError` only, also for nesting beyond `MAX_JSON_DEPTH` and a number too large for a float (1e999). Its
    message quotes no value, which could be personal.
    """
    hooks: dict[str, Any] = {"parse_float": _finite, "parse_int": _within, "parse_constant": _refuse}
    try:
        value = json.loads(content, object_pairs_hook=reject_duplicate_names, **({} if allow_nan else hooks))
    except RecursionError:
        raise _too_deep() from None
    inner: list[Any] = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = [one for outer in inner for one in _members(outer) if isinstance(one, (dict, list))]
        if not inner:
            return value
    raise _too_deep()


def reject_duplicate_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of names and values. Raises `ValueError` for a name that is given twice."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        msg = f"the name {next(name for name in names if names.count(name) > 1)!r} is given twice"
        raise ValueError(msg)
    return content


def split_variable(name: str) -> tuple[str, str]:
    """A file and a variable in it, from GDAL's names for them; the name itself and "" for any other name.

    >>> split_variable("NETCDF:a.nc:red"), split_variable('HDF5:"b 1.h5"://group/red'), split_variable("c.tif")
    (('a.nc', 'red'), ('b 1.h5', 'group/red'), ('c.tif', ''))
    """
    found = _VARIABLE.fullmatch(name)
    return (found[1].removeprefix('"').removesuffix('"'), found[2]) if found else (name, "")


def without_accents(text: str) -> str:
    """A text in which Latin letters are those of ASCII; others stay as they are.

    >>> without_accents("Wäld Łódź Ærø Straße 2²"), without_accents("Тайга")
    ('Wald Lodz AEro Strasse 22', 'Тайга')
    """
    parts = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return unicodedata.normalize("NFC", re.sub("(?<=[A-Za-z])[\u0300-\u036f]+", "", parts))


def is_remote(uri: str) -> bool:
    """Whether a name, or the file of a variable, is read over a network or a GDAL virtual file system."""
    file, _ = split_variable(uri)
    return file.startswith("/vsi") or "://" in file


def absolute(path: str) -> str:
    """A local path, also of a variable's file, from the root on, links as they are; a remote path unchanged."""
    file, variable = split_variable(path)
    if is_remote(file):
        return path
    return path.replace(file, os.path.abspath(file), 1) if variable else os.path.abspath(path)


def resolved(path: str) -> str:
    """A path without links."""
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL: a member of an archive may have a name that no file can have
        return path


def find_linked(rows: Sequence[tuple[str, Sequence[Sequence[str]]]]) -> dict[int, str]:
    """Find files that are the same as another one by a link: the index of each, and a reason that names the other.

    A row is a file's path and the files of each of its images. One whose images hold files of no other image is left
    out, and so is a part of an image that is. Of two names the one that is no link is kept, else the first.
    """
    kept: dict[object, str] = {}
    images: dict[object, list[set[object]]] = {}  # the files of each image that is kept, by each of them
    used: set[str] = set()
    found: dict[int, str] = {}
    linked = [not is_remote(path) and resolved(path) != absolute(path) for path, _ in rows]
    for at in sorted(range(len(rows)), key=lambda at: (not rows[at][1], linked[at])):
        path, files = rows[at]
        own = _file_id(path)
        sets = [{_file_id(name) for name in (path, *names)} for names in files]
        known = all(any(one <= whole for whole in images.get(own, [])) for one in sets)
        if own in kept and known and (files or absolute(path) not in used):
            found[at] = f"the same file as {kept[own]}, by a {'link' if linked[at] else 'hard link'}"
            continue
        kept.setdefault(own, path)
        used.update(absolute(name) for names in files for name in names)
        for one in sets:
            for part in one:
                images.setdefault(part, []).append(one)
    return found


def _file_id(path: str) -> object:
    """What two names of one file have in common."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return absolute(path)
    return found.st_dev, found.st_ino


def require_local(uri: str) -> None:
    """Raise `ReadError` for a slide that is not a local file."""
    if is_remote(uri):
        remedy = "Copy the slide to this machine, with the files that belong to it"
        raise ReadError(uri, "must be a local file, as for all slides", remedy=remedy)


def fingerprint(files: Sequence[str]) -> str:
    """The sha256, in hexadecimal, over each file's size, first MiB and last MiB, in the order given.

    Images have gigabytes, and a rewritten file practically always changes its size, header or last block. "" if any
    file is remote. Raises `ReadError` where a file cannot be read.
    """
    if any(is_remote(name) for name in files):
        return ""
    digest = hashlib.sha256()
    for name in files:
        try:
            with Path(name).open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                first = file.read(_SAMPLE)
                digest.update(size.to_bytes(8, "little") + first)
                if size > _SAMPLE:
                    file.seek(size - _SAMPLE)
                    first = file.read(_SAMPLE)
                digest.update(first)
        except OSError as error:
            remedy = "Check the path and permissions"
            raise ReadError(name, "must be a readable file", value=str(error), remedy=remedy) from None
    return digest.hexdigest()


def is_fetched(path: str) -> bool:
    """Whether a file is, or was, in the folder of studies that were fetched from a DICOMweb server."""
    return _FETCHED.search(path) is not None


def has_changed(info: "ImageInfo") -> bool:
    """Whether an image's files changed since its scan; False for remote ones.

    Raises `ReadError` if all are gone, or any of those that were fetched.
    """
    present = [name for name in info.files if os.path.isfile(name)]
    if len(present) < len(info.files) and any(map(is_fetched, info.files)):
        gone = (
            f"{len(info.files) - len(present)} of {len(info.files)} files are gone from the folder of fetched studies"
        )
        remedy = "Fetch them again with `limner info` and the input of the run, then give this command again"
        raise ReadError(info.id, "must have its files, which were fetched from a server", value=gone, remedy=remedy)
    return bool(info.fingerprint and info.files) and fingerprint(present or info.files) != info.fingerprint


def read_head(path: str) -> bytes:
    """The first bytes of a regular file, or of the one that holds a variable.

    Raises `ReadError` for others, since opening a pipe or a device may block.
    """
    path, _ = split_variable(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            value = next((kind for kind, test in _SPECIAL.items() if test(mode)), "a special file")
            remedy = "Leave it out, or copy its content to a file"
            raise ReadError(path, "must be a regular file", value=value, remedy=remedy)
        with Path(path).open("rb") as file:
            return file.read(_HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise unreadable(path, "file", error) from error


def unreadable(path: str, what: str, error: OSError | ValueError) -> ReadError:
    """The error of a file or a folder that the system does not read."""
    value = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return ReadError(path, f"must be a readable {what}", value=value, remedy="Check the path and permissions")


def parse_fields(path: Path) -> dict[str, float]:
    """Lines like "Name:  12 kB" as bytes by name; {} where there is no such file."""
    fields: dict[str, float] = {}
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split()
            if len(words) == 2 and words[0].isdecimal() and words[1] == "kB":
                fields[name] = float(words[0]) * 1024
    return fields


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        msg = "a number is too large"
        raise ValueError(msg)
    return number


def _within(text: str) -> int:
    _finite(text)
    return int(text)


def _refuse(constant: str) -> NoReturn:
    msg = f"{constant} is no number of JSON"
    raise ValueError(msg)


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_JSON_DEPTH} levels deep")


def _members(value: object) -> list[Any]:
    if isinstance(value, dict):
        return list(cast("dict[str, Any]", value).values())
    return cast("list[Any]", value) if isinstance(value, list) else []


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
