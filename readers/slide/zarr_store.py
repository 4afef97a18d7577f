"""Where the values of a Zarr hierarchy lie: a folder, a zip file, or a folder on a web server.

A store only gives the bytes of a key, at most so many. Keys that metadata of a file make up cannot leave the root, by
".." or by links, and a server is asked for keys below the named address only, with no redirect, cookie or login.
"""

import os
import re
import time
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from ..errors import ReadError
from ..files import is_remote, open_regular
from ..servers import Address, AddressTerms, pause

if TYPE_CHECKING:
    import httpx2

MAX_METADATA_BYTES: Final = 4 << 20
"""Of one metadata document."""

MAX_VALUE_BYTES: Final = 512 << 20
"""Of one stored value without a range: a chunk."""

MARKS: Final = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
"""Names of metadata documents."""

_MAX_MEMBERS: Final = 1 << 20  # of a zip
_MAX_RATIO: Final = 1100  # deflate cannot shrink by more
_KEY: Final = re.compile(r"[^/\\\0:]{1,255}(/[^/\\\0:]{1,255}){0,63}")
_TRIES: Final = 4
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ABSENT: Final = frozenset({404, 410})
_SECONDS: Final = 30.0  # without an answer, and to connect
_SLOWEST: Final = 16 << 10  # bytes per second on average, after `_SECONDS`
_TERMS: Final = AddressTerms(
    server="image server",
    example="For example https://example.org/slide.ome.zarr",
    remedy="Give an address that is public, or copy the image to this machine",
    content="slides, which may be of patients,",
    insecure="Give an https address, or copy the image to this machine",
)


class Store(AbstractContextManager["Store", None], Protocol):
    """The values of one hierarchy, by key: "0/.zarray", "0/c/0/1"."""

    root: str
    """The path or address, without a slash at its end."""

    def get(self, key: str, most: int = MAX_VALUE_BYTES, *, span: tuple[int, int] | None = None) -> bytes | None:
        """The value of a key; None where it does not exist.

        `span` is the part to read: its first byte (from the end where it is negative) and its length. Raises
        `ReadError` for a key that leaves the root, a value of more than `most` bytes, and one that cannot be read.
        """
        ...


def open_store(uri: str) -> Store:
    """The store of a path or address. Raises `ReadError`, and `RequestError` for an address that is refused."""
    if is_remote(uri):
        return WebStore(uri)
    return FolderStore(uri) if os.path.isdir(uri) else ZipStore(uri)


def is_zip_name(name: str) -> bool:
    """Whether a name is that of a hierarchy in a zip."""
    return name.lower().endswith((".ozx", ".zarr.zip"))


def _checked_key(root: str, key: str) -> str:
    if not _KEY.fullmatch(key) or not {"", ".", ".."}.isdisjoint(key.split("/")):
        remedy = "Get an undamaged copy of the image"
        raise ReadError(root, "must name only values within itself", value=key[:200], remedy=remedy)
    return key


def too_large(root: str, key: str, size: int, most: int) -> ReadError:
    """The error of a value with more bytes than are read."""
    rule = f"must have values of at most {most} bytes"
    remedy = "Write the image with smaller chunks"
    return ReadError(f"{root}, {key},", rule, value=f"{size} bytes or more", remedy=remedy)


def _failed(root: str, key: str, why: str) -> ReadError:
    remedy = "Check that the image is complete and its permissions"
    return ReadError(f"{root}, {key},", "must be readable", value=why, remedy=remedy)


class FolderStore:
    """A local folder; links are followed only to what lies in it."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or root
        self._real = os.path.realpath(root)

    def get(self, key: str, most: int = MAX_VALUE_BYTES, *, span: tuple[int, int] | None = None) -> bytes | None:
        """See `Store.get`."""
        path = os.path.join(self.root, *_checked_key(self.root, key).split("/"))
        if not os.path.isfile(path):
            if os.path.islink(path):
                raise _failed(self.root, key, "a link to nothing")
            return None
        if os.path.commonpath([self._real, os.path.realpath(path)]) != self._real:
            raise _failed(self.root, key, "a link to a place outside the image")
        try:
            with open_regular(path) as file:
                size = os.fstat(file.fileno()).st_size
                start, count = _clipped(span, size)
                if count > most:
                    raise too_large(self.root, key, count, most)
                file.seek(start)
                return _read_all(file.read, count)
        except OSError as error:
            raise _failed(self.root, key, error.strerror or str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class ZipStore:
    """A zip file whose members are the values, at its root or in its only folder."""

    def __init__(self, path: str) -> None:
        self.root = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise ReadError(path, "must be a readable zip", value=str(error), remedy="Copy it again") from error
        names = self._zip.namelist()
        if len(names) > _MAX_MEMBERS:
            self._zip.close()
            rule, value = f"must hold at most {_MAX_MEMBERS} files", str(len(names))
            raise ReadError(path, rule, value=value, remedy="Store chunks in shards, or unpack the zip")
        tops = {name.partition("/")[0] for name in names}
        nested = len(tops) == 1 and not tops & set(MARKS)
        self._prefix = f"{next(iter(tops))}/" if nested else ""

    def get(self, key: str, most: int = MAX_VALUE_BYTES, *, span: tuple[int, int] | None = None) -> bytes | None:
        """See `Store.get`."""
        try:
            member = self._zip.getinfo(self._prefix + _checked_key(self.root, key))
        except KeyError:
            return None
        start, count = _clipped(span, member.file_size)
        if count > most or member.file_size > _MAX_RATIO * max(1, member.compress_size):
            raise too_large(self.root, key, member.file_size, most)
        try:
            with self._zip.open(member) as file:
                if start:
                    file.seek(start)
                return _read_all(file.read, count)
        except Exception as error:  # BadZipFile, zlib.error, NotImplementedError, RuntimeError for a password
            raise _failed(self.root, key, f"{type(error).__name__}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


class WebStore:
    """A folder on a web server, of which single values and ranges are asked for."""

    def __init__(self, url: str, terms: AddressTerms = _TERMS, *, insecure: bool = False) -> None:
        import httpx2

        if not url.startswith(("http://", "https://")):
            rule = "must be a local file or folder, or an address with https"
            raise ReadError(url, rule, remedy="Copy the image to this machine, or give its https address")
        address = Address.parse(url.rstrip("/"), terms, insecure=insecure)
        if is_zip_name(address.url):
            rule, remedy = "must be a local file, since it is a zip", "Copy it to this machine, or give its folder"
            raise ReadError(url, rule, remedy=remedy)
        self.root = address.url
        self._host = address.host
        self._client = httpx2.Client(
            headers={"User-Agent": "limner", "Accept-Encoding": "identity"},
            timeout=_SECONDS,
            follow_redirects=False,
            trust_env=not address.loopback,  # a request to this machine never leaves it
        )

    def get(self, key: str, most: int = MAX_VALUE_BYTES, *, span: tuple[int, int] | None = None) -> bytes | None:
        """See `Store.get`; a failure that may pass is tried again within seconds."""
        import httpx2

        url = f"{self.root}/{_checked_key(self.root, key)}"
        headers = {} if span is None else {"Range": _range(span)}
        why = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(pause(attempt - 1, url))
            try:
                request = self._client.build_request("GET", url, headers=headers)
                self._client.cookies.clear()
                answer = self._client.send(request, stream=True, auth=None)  # nor that of ~/.netrc
                try:
                    status = answer.status_code
                    if status in _ABSENT or (status == 403 and key.endswith(MARKS)):  # S3, of what does not exist
                        return None
                    if status == (200 if span is None else 206):
                        return self._body(answer, key, most if span is None else min(most, span[1]))
                finally:
                    answer.close()
            except httpx2.HTTPError as error:
                why = type(error).__name__
                continue
            why = f"the server answers {status}"
            if span is not None and status == 200:
                why = "the server does not answer requests for parts of a file"
            if status in range(300, 400):
                why += ", a redirect, which is not followed"
            if status not in _RETRIED:
                break
        remedy = "Check the address, or copy the image to this machine"
        raise ReadError(f"{self.root}, {key},", f"must be given by {self._host}", value=why, remedy=remedy)

    def _body(self, answer: "httpx2.Response", key: str, most: int) -> bytes:
        """The body of an answer, as long as it is not too long or too slow."""
        import httpx2

        content, begin = bytearray(), time.monotonic()
        for part in answer.iter_raw():
            content += part
            if len(content) > most:
                raise too_large(self.root, key, len(content), most)
            if len(content) < _SLOWEST * (time.monotonic() - begin - _SECONDS):
                raise httpx2.ReadTimeout("too slow")
        return bytes(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _range(span: tuple[int, int]) -> str:
    return f"bytes={span[0]}" if span[0] < 0 else f"bytes={span[0]}-{span[0] + span[1] - 1}"


def _clipped(span: tuple[int, int] | None, size: int) -> tuple[int, int]:
    """The first byte and the number of bytes of a part of a value of `size` bytes."""
    if span is None:
        return 0, size
    start = max(0, size + span[0]) if span[0] < 0 else min(span[0], size)
    return start, min(span[1], size - start)


def _read_all(read: "_Read", count: int) -> bytes:
    parts: list[bytes] = []
    while count and (part := read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class _Read(Protocol):
    def __call__(self, count: int, /) -> bytes: ...


def files_of(root: str, keys: "list[str]") -> tuple[str, ...]:
    """The paths of keys: files in a folder, else the zip or the address itself."""
    if is_remote(root) or not os.path.isdir(root):
        return (root,)
    paths = (os.path.join(root, *key.split("/")) for key in keys)
    return tuple(dict.fromkeys(path for path in paths if Path(path).is_file())) or (root,)
