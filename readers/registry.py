"""Which reader opens what: claims, scans of files and folders, and the one way to open an image.

Readers come by entry point. Each claims an input from its first bytes; the strongest claim wins.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, cast

from .errors import LimnerError, ReadError, RequestError
from .fingerprint import is_remote
from .image import ArchiveReader, Image, ImageInfo, NumberingReader, Reader
from .isolation import claim, scan_file, scan_folder
from .plugins import installed, load

HEAD = 4096


@dataclass(frozen=True, slots=True)
class Scanned:
    """What became of one input file. An image of several files is on the row of the first; the others are empty."""

    path: str
    status: Literal["read", "skipped", "failed"]
    infos: tuple[ImageInfo, ...]
    reader: str = ""
    reason: str = ""


def readers() -> Mapping[str, Reader]:
    """All installed readers by name. Raises `RequestError` where a plug-in cannot be imported."""
    return {name: _reader(name) for name in installed("limner.readers")}


def find_reader(uri: str, head: bytes, among: Mapping[str, Reader]) -> str | None:
    """The name of the reader with the strongest claim on an input, None where nobody claims it.

    Raises `RequestError` where two claim it equally, naming both and the flag that decides.
    """
    claims = {name: claim(name, reader, uri, head).strength for name, reader in among.items()}
    best = max(claims.values(), default=0)
    if best <= 0:
        return None
    strongest = [name for name, strength in claims.items() if strength == best]
    if len(strongest) > 1:
        raise RequestError(
            uri,
            "one reader must claim it more strongly than all others",
            value=f"{' and '.join(strongest)} claim it equally",
            remedy=f"Choose with --reader {strongest[0]} or --reader {strongest[1]}",
        )
    return strongest[0]


def scan(
    inputs: Sequence[str],
    options: Mapping[str, str],
    *,
    reader: str | None = None,
    apart: Callable[[str], str | None] = lambda _: None,
) -> list[Scanned]:
    """What the inputs hold, one row for each file, in the order of the inputs and sorted within a folder.

    Folders are walked; what begins with a dot is not looked at. A named file that nobody claims or that cannot be read
    is "failed" with the reason; a file in a folder that nobody claims is "skipped". `apart` says of a folder why it is
    not looked at: "" where nothing is to be said of it either, None where it is to be looked at. Images get their final
    ids: the slug of the file's stem, with -2, -3, … in sorted order where it is taken. Raises `RequestError` for an unknown
    reader or option, and where an option cannot mean anything.
    """
    among = readers()
    if reader is not None:
        if reader not in among:
            load("limner.readers", reader)  # raises, and says what is installed
        among = {reader: among[reader]}
    _check(options, among)
    search = _Search(among, options, forced=reader, apart=apart)
    rows = [row for item in inputs for row in search.look(item)]
    return _with_ids(_numbered(_without_parts(rows), among))


def open_image(info: ImageInfo, channels: Sequence[str] | None = None) -> Image:
    """Open an image with the reader that scanned it. Raises `ReadError`, or `RequestError` where that is gone."""
    return _reader(info.reader).open(info, channels)


def _reader(name: str) -> Reader:
    try:
        return cast("type[Reader]", load("limner.readers", name))()
    except ImportError as error:
        raise RequestError(
            f"reader {name!r}",
            "it must be importable",
            value=str(error),
            remedy="Repair or uninstall the package that brings it; `limner plugins` shows which",
        ) from error


def _check(options: Mapping[str, str], among: Mapping[str, Reader]) -> None:
    """Refuse an option that no reader knows, unless a reader does not say which it knows."""
    known: set[str] = set()
    for reader in among.values():
        own = getattr(reader, "options", None)
        if own is None:
            return
        known |= set(own)
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise RequestError(
                f"reader option {name}",
                f"it is one of {', '.join(sorted(known))}",
                value=name,
                remedy=f"Did you mean {near[0]}?" if near else "Leave it out",
            )


class _Search:
    """One scan: what has been accounted for, and how to account for the rest."""

    def __init__(
        self,
        among: Mapping[str, Reader],
        options: Mapping[str, str],
        *,
        forced: str | None,
        apart: Callable[[str], str | None],
    ) -> None:
        self._among = among
        self._apart = apart
        self._options = options
        self._forced = forced
        self._seen: set[str] = set()

    def look(self, item: str) -> Iterator[Scanned]:
        """The rows of one input."""
        if not is_remote(item) and os.path.isdir(item):  # noqa: PTH112 - False also for a name that no file can have
            rows = list(self._folder(item))
            yield from (replace(row, status="failed") if row.path == item else row for row in rows)
            if not rows and (lack := _lack(item)):
                yield Scanned(item, "failed", (), reason=lack)
        elif self._new(item):
            yield from self._file(item, named=True)

    def _new(self, path: str) -> bool:
        place = path if is_remote(path) else os.path.abspath(path)  # noqa: PTH100 - a link is a file of its own
        if place in self._seen:
            return False
        self._seen.add(place)
        return True

    def _folder(self, folder: str) -> Iterator[Scanned]:
        why = self._apart(folder)
        if why is not None:
            if why:
                yield Scanned(folder, "skipped", (), reason=why)
            return
        try:
            name = find_reader(folder, b"", self._among)
            entries = sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))  # noqa: PTH208 - names
        except LimnerError as error:
            yield Scanned(folder, "failed", (), reason=str(error))
            return
        except OSError as error:
            yield Scanned(folder, "failed", (), reason=str(_unreadable(folder, "folder", error)))
            return
        if name is not None:
            yield from self._claimed(folder, name)
        paths = [os.path.join(folder, entry) for entry in entries]  # noqa: PTH118 - keeps the path as it was given
        for path in paths:
            if not Path(path).is_dir() and self._new(path):
                yield from self._file(path, named=False)
        for path in paths:
            if Path(path).is_dir() and not Path(path).is_symlink() and self._unseen(path):
                yield from self._folder(path)

    def _unseen(self, folder: str) -> bool:
        """Whether a folder holds any file that is not accounted for yet, or cannot be listed."""
        if not os.access(folder, os.R_OK | os.X_OK):
            return True
        places = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)  # noqa: PTH118
        return any(os.path.abspath(place) not in self._seen for place in places)  # noqa: PTH100 - as in `_new`

    def _claimed(self, folder: str, name: str) -> Iterator[Scanned]:
        reader = self._among[name]
        try:
            found = scan_folder(name, reader, folder, self._options)
        except ReadError as error:
            yield Scanned(folder, "failed", (), name, str(error))
            return
        side = dict(found.side)
        read: dict[str, tuple[ImageInfo, ...]] = {}  # a file may be part of several images
        for info in found.infos:
            whole = sorted({cell.source for cell in info.cells}) or info.files
            own = [path for path in whole if path not in side]
            read.update({path: () for path in own if path not in read and self._new(path)})
            first = next((path for path in own if path in read), None)
            if first is not None:
                read[first] = (*read[first], info)
        yield from (Scanned(path, "read", infos, name) for path, infos in read.items())
        for files, error in found.failed:
            yield from (Scanned(path, "failed", (), name, str(error)) for path in files if self._new(path))
        for path, reason in side.items():
            if self._new(path):
                yield Scanned(path, "skipped", (), name, reason)

    def _file(self, path: str, *, named: bool) -> Iterator[Scanned]:
        """The row of a file; of one that holds files, theirs as well."""
        name: str | None = None
        try:
            head = b"" if is_remote(path) else _head(path)
            name = self._forced if named and self._forced else find_reader(path, head, self._among)
            if name is None:
                yield _unknown(path, head, self._among, named=named)
                return
            reader = self._among[name]
            if isinstance(reader, ArchiveReader) and reader.holds_files(path, head):
                yield from self._archive(path, name)
            else:
                yield Scanned(path, "read", scan_file(name, reader, path, self._options), name)
        except RequestError as error:
            if error.thing.startswith("reader option"):
                raise
            yield Scanned(path, "failed", (), name or "", str(error))
        except LimnerError as error:
            yield Scanned(path, "failed", (), name or "", str(error))

    def _archive(self, path: str, name: str) -> Iterator[Scanned]:
        self._seen.discard(os.path.abspath(path))  # noqa: PTH100 - as in `_new`
        rows = list(self._claimed(path, name))
        if all(row.path != path for row in rows):
            some = any(row.status == "read" for row in rows)
            why = "" if some else "none of the files that it holds could be read"
            self._new(path)
            rows.insert(0, Scanned(path, "read" if some else "failed", (), name, why))
        yield from rows


def _lack(folder: str) -> str:
    """Why there is nothing in a folder to look at; "" where there is a file."""
    hidden = False
    for _, folders, names in os.walk(folder):
        if any(not name.startswith(".") for name in names):
            return ""
        hidden |= any(name.startswith(".") for name in (*names, *folders))
        folders[:] = [name for name in folders if not name.startswith(".")]
    return "it holds only hidden files, whose names begin with a dot" if hidden else "it holds no file"


def _unknown(path: str, head: bytes, among: Mapping[str, Reader], *, named: bool) -> Scanned:
    """The row of a file that nobody claims: skipped in a folder, failed where a person named it."""
    if not named:
        return Scanned(
            path, "skipped", (), reason="no installed reader knows its first bytes" if head else "it is empty"
        )
    error = ReadError(
        path,
        "an installed reader must know what it is",
        value=f"it begins with {head[:8]!r}" if head else "0 bytes",
        remedy=f"Installed readers: {', '.join(among)}. --reader tries one of them all the same",
    )
    return Scanned(path, "failed", (), reason=str(error))


def _head(path: str) -> bytes:
    """The first bytes of a regular file. Raises `ReadError`: to open a pipe or a device may never end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - a name that no file can have is a ValueError either way
        if not stat.S_ISREG(mode):
            raise ReadError(
                path,
                "it must be a regular file",
                value=next((kind for kind, test in _SPECIAL.items() if test(mode)), "a special file"),
                remedy="Leave it out, or copy what it delivers into a file",
            )
        with Path(path).open("rb") as file:
            return file.read(HEAD)
    except (OSError, ValueError) as error:
        raise _unreadable(path, "file", error) from error


_SPECIAL = {"a named pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a device": stat.S_ISCHR}


def _unreadable(path: str, what: str, error: OSError | ValueError) -> ReadError:
    why = error.strerror if isinstance(error, OSError) else ""
    return ReadError(path, f"it must be a readable {what}", value=why or str(error), remedy="Check the path and rights")


def _without_parts(rows: Iterable[Scanned]) -> list[Scanned]:
    """Rows without images that are only a part of another's: masks and overviews beside it, sources of a mosaic."""
    rows = list(rows)
    owner = {
        os.path.abspath(path): row.path  # noqa: PTH100 - as in `_new`
        for row in rows
        for info in row.infos
        for path in info.files
        if os.path.abspath(path) != os.path.abspath(row.path)  # noqa: PTH100 - as in `_new`
    }
    kept: list[Scanned] = []
    for row in rows:
        whole = owner.get(os.path.abspath(row.path))  # noqa: PTH100 - as in `_new`
        unread = row.status == "skipped" and not row.reader
        if whole is not None and (unread or any(info.uri == row.path for info in row.infos)):
            kept.append(Scanned(row.path, "skipped", (), row.reader, f"a part of {whole}"))
        else:
            kept.append(row)
    return kept


def _numbered(rows: Sequence[Scanned], among: Mapping[str, Reader]) -> list[Scanned]:
    """The rows with the images of readers that number them anew."""
    found = list(rows)
    for name, reader in among.items():
        if isinstance(reader, NumberingReader):
            places = [at for at, row in enumerate(found) if row.reader == name]
            numbered = iter(reader.number([info for at in places for info in found[at].infos]))
            for at in places:
                found[at] = replace(found[at], infos=tuple(next(numbered) for _ in found[at].infos))
    return found


def _with_ids(rows: Sequence[Scanned]) -> list[Scanned]:
    every = sorted(
        ((at, k, info) for at, row in enumerate(rows) for k, info in enumerate(row.infos)),
        key=lambda item: (item[2].uri, item[2].part, item[0], item[1]),
    )
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    names: dict[tuple[int, int], str] = {}
    for at, k, info in every:
        slug = _slug(info.id or Path(re.split(r"[?#]", info.uri)[0]).stem)
        name = slug
        while name in taken:
            counts[slug] += 1
            name = f"{slug}-{counts[slug] + 1}"
        taken.add(name)
        names[at, k] = name
    return [
        replace(row, infos=tuple(replace(info, id=names[at, k]) for k, info in enumerate(row.infos)))
        for at, row in enumerate(rows)
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._") or "image"
