"""The folder of fetched studies: private, limited in size, and complete wherever a file has its name.

    CACHE/STUDY/SERIES/INSTANCE.dcm     each name is a part of a sha256 of the server and the UID
    CACHE/listings/INPUT.json           what the server listed for an input the last time

UIDs are in the files only, never in their names, which therefore cannot lead out of the folder either.
"""

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, Final, NamedTuple, cast

from ..caches import cache_folder
from ..errors import ReadError, RequestError
from ..files import parse_json, read_file, write_atomic
from ..locks import lock
from ..servers import Address
from .address import UID, WebInput
from .options import WebOptions

MAX_LISTING: Final = 2**28
_REMEDY: Final = "Name another folder: --reader-options web_cache=FOLDER"


class Instance(NamedTuple):
    """An instance of a server, by its UIDs."""

    study: str
    series: str
    sop: str

    @property
    def path(self) -> str:
        """Its path on the server."""
        return f"/studies/{self.study}/series/{self.series}/instances/{self.sop}"


class StudyCache:
    """The folder of fetched studies. Raises `RequestError` where it is not private or cannot be written."""

    def __init__(self, options: WebOptions) -> None:
        self.folder = Path(options.web_cache or cache_folder() / "dicomweb").absolute()
        self._limit = options.web_cache_gb * 1e9
        _make_private(self.folder)
        self._lock = Lock()
        self._used = sum(size for path in self.folder.rglob("*") if (size := _size(path)))

    def path(self, server: Address, one: Instance) -> Path:
        """Where an instance is, or will be."""
        return self.folder / _name(server.url, one.study) / _name(one.series) / f"{_name(one.sop)}.dcm"

    @property
    def room(self) -> int:
        """Bytes that it may take yet."""
        return max(0, int(self._limit - self._used))

    def full(self) -> ReadError:
        """The error where there is no room."""
        return ReadError(
            f"the folder of fetched studies, {self.folder},",
            f"must not hold more than {self._limit / 1e9:g} GB",
            value=f"{self._used / 1e9:.1f} GB and another instance",
            remedy="Delete the folders in it that no run needs, or allow more: --reader-options web_cache_gb=NUMBER",
        )

    @contextmanager
    def locked(self, server: Address, study: str) -> Generator[None]:
        """Hold the folder of a study, after any other process that fetches it."""
        folder = self.folder / _name(server.url, study)
        _make_private(folder)
        with (folder / ".lock").open("ab") as file:
            lock(file, wait=True)
            yield

    @contextmanager
    def writing(self, path: Path) -> Generator[tuple[Path, BinaryIO]]:
        """Yield a temporary path beside `path` and its open file; on success it replaces `path`, else it is removed.

        Raises `ReadError` where there is no room for it.
        """
        for folder in (path.parent.parent, path.parent):
            _make_private(folder)
        part = path.with_name(f".part-{path.name}")
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield part, file
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                size = part.stat().st_size
                if self._used + size > self._limit:
                    raise self.full()
                self._used += size
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def keep_listing(self, asked: WebInput, listed: Sequence[Instance]) -> None:
        """Keep what a server listed. Raises `OSError`."""
        path = self._listing(asked)
        _make_private(path.parent)
        write_atomic(path, json.dumps(list(map(list, listed))).encode(), private=True)

    def kept_listing(self, asked: WebInput) -> list[Instance]:
        """What the server listed the last time; [] where that is not known."""
        try:
            rows: Any = parse_json(read_file(self._listing(asked), max_bytes=MAX_LISTING, regular=True))
            found = [Instance(*map(str, cast("list[object]", row))) for row in rows]
        except (OSError, ValueError, TypeError):
            return []
        return found if all(UID.fullmatch(uid) for one in found for uid in one) else []

    def _listing(self, asked: WebInput) -> Path:
        key = json.dumps([asked.server.url, asked.study, asked.series, asked.filters])
        return self.folder / "listings" / f"{_name(key)}.json"


def _name(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner can read. Raises `RequestError` where there is another, or none can be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        value = error.strerror or type(error).__name__
        raise RequestError(f"the folder {folder}", "must be writable", value=value, remedy=_REMEDY) from None
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o077 or folder.is_symlink()):
        rule = "must be a folder of your own that nobody else can read, since studies are kept there"
        value = f"mode {found.st_mode & 0o777:o}"
        raise RequestError(f"the folder {folder}", rule, value=value, remedy=f"chmod 700 it, or n{_REMEDY[1:]}")
