"""Which reader opens what: claims, scans of files and folders, and the one way to open an image.

Readers come by entry point. Each claims an input from its first bytes; the strongest claim wins.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from .errors import LimnerError, ReadError, RequestError
from .files import is_remote
from .formats import Format, recognise, recognise_folder
from .image import ArchiveReader, Image, ImageInfo, NumberingReader, Reader
from .options import O, Options, options_of, parse_options, unknown_option
from .overrides import Overrides, PreparedOverrides
from .plugins import installed, load
from .pseudonyms import NameOptions, Pseudonyms, longest_first, path_variants, redact_error
from .sandbox import identify, scan_file, scan_folder

HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """What became of one input file. An image of several files is on the row of the first; the others are empty.

    `personal` says that the file's name may be the name of a person, also where it could not be read.
    """

    path: str
    status: Literal["read", "skipped", "failed"]
    infos: tuple[ImageInfo, ...]
    reader: str = ""
    reason: str = ""
    personal: bool = False


def find_reader(uri: str, head: bytes, among: Mapping[str, Reader]) -> str | None:
    """The name of the reader with the strongest claim on an input, None where nobody claims it.

    Raises `RequestError` where two claim it equally, naming both and the flag that decides.
    """
    claims = {name: identify(name, reader, uri, head) for name, reader in among.items()}
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


class Search:
    """One scan: what has been accounted for, and how to account for the rest."""

    def __init__(
        self,
        among: Mapping[str, Reader],
        options: Mapping[str, Options],
        names: NameOptions,
        *,
        forced: str | None,
        apart: Callable[[str], str | None],
    ) -> None:
        self._among = among
        self._apart = apart
        self._options = options
        self._names = names
        self._forced = forced
        self._seen: set[str] = set()
        self._formats: dict[str, Format | None] = {}

    def scan(self, item: str) -> Iterator[ScannedFile]:
        """The rows of one input."""
        if not is_remote(item) and os.path.isdir(item):
            rows = list(self._folder(item))
            yield from (replace(row, status="failed") if row.path == item else row for row in rows)
            if not rows and (lack := _lack(item)):
                yield ScannedFile(item, "failed", (), reason=lack)
        elif self._new(item):
            yield from self._file(item, named=True)

    def _new(self, path: str) -> bool:
        place = path if is_remote(path) else os.path.abspath(path)
        if place in self._seen:
            return False
        self._seen.add(place)
        return True

    def settle(self, row: ScannedFile) -> ScannedFile:
        """The row with what is known of its file's name: whether it may be the name of a person."""
        if row.path not in self._formats:
            self._formats[row.path] = _recognise(row.path)
        found, infos = self._formats[row.path], row.infos
        if found is not None and found.personal:
            infos = tuple(replace(info, personal=True) for info in infos)
        kind = getattr(self._among.get(row.reader), "kind", "map" if row.infos or not row.reader else "slide")
        personal = (found is not None and found.personal) or kind != "map" or any(info.personal for info in infos)
        return replace(row, infos=infos, personal=personal)

    def _choose(self, path: str, head: bytes, *, named: bool) -> str | None:
        """The reader of a file; None where its format has none, or nobody claims it."""
        forced = self._forced if named else None
        found = self._formats[path] = recognise(path, head)
        if found is None or not found.strict:
            return forced or find_reader(path, head, self._among)
        able = {name: reader for name, reader in self._among.items() if found.read_by(name, reader)}
        if forced or not able:
            return forced if forced in able else None
        return find_reader(path, head, able) or next(iter(able))

    def _option_error(self, path: str, error: RequestError) -> LimnerError:
        """An error in what was asked, without the file's name where that may be the name of a person."""
        row = self.settle(ScannedFile(path, "failed", (), next(iter(self._among)) if self._forced else ""))
        if not row.personal or self._names.names == "show":
            return error
        alias = Pseudonyms.of(self._names).path(path)
        return redact_error(error, longest_first(dict.fromkeys(path_variants(path), alias)))

    def _left_closed(self, folder: str) -> list[ScannedFile] | None:
        """The row, if any, of a folder that is not looked into; None where it is to be."""
        why = self._apart(folder)
        if why is not None:
            return [ScannedFile(folder, "skipped", (), reason=why)] if why else []
        if (found := recognise_folder(folder)) is not None:
            self._formats[folder] = found
            return [ScannedFile(folder, "failed", (), reason=str(found.refusal(folder)))]
        return None

    def _folder(self, folder: str) -> Iterator[ScannedFile]:
        if (rows := self._left_closed(folder)) is not None:
            yield from rows
            return
        try:
            name = find_reader(folder, b"", self._among)
            entries = sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))
        except LimnerError as error:
            yield ScannedFile(folder, "failed", (), reason=str(error))
            return
        except OSError as error:
            yield ScannedFile(folder, "failed", (), reason=str(_unreadable(folder, "folder", error)))
            return
        if name is not None:
            yield from self._claimed(folder, name)
        paths = [os.path.join(folder, entry) for entry in entries]
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
        places = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
        return any(os.path.abspath(place) not in self._seen for place in places)

    def _claimed(self, folder: str, name: str) -> Iterator[ScannedFile]:
        reader = self._among[name]
        try:
            found = scan_folder(name, reader, folder, self._options[name])
        except ReadError as error:
            yield ScannedFile(folder, "failed", (), name, str(error))
            return
        side = dict(found.side)
        read: dict[str, tuple[ImageInfo, ...]] = {}  # a file may be part of several images
        for info in found.infos:
            whole = sorted({plane.source for plane in info.planes if plane.source}) or info.files
            own = [path for path in whole if path not in side]
            read.update({path: () for path in own if path not in read and self._new(path)})
            first = next((path for path in own if path in read), None)
            if first is not None:
                read[first] = (*read[first], info)
        yield from (ScannedFile(path, "read", infos, name) for path, infos in read.items())
        for files, error in found.failed:  # one refusal per image, on the row of its first file
            own = [path for path in files if self._new(path)]
            yield from (ScannedFile(path, "failed", (), name, str(error)) for path in own[:1])
            yield from (ScannedFile(path, "skipped", (), name, _part_of(own[0])) for path in own[1:])
        for path, reason in side.items():
            if self._new(path):
                yield ScannedFile(path, "skipped", (), name, reason)

    def _file(self, path: str, *, named: bool) -> Iterator[ScannedFile]:
        """The row of a file; of one that holds files, theirs as well."""
        name: str | None = None
        try:
            head = b"" if is_remote(path) else _head(path)
            if not head and not named:
                yield ScannedFile(path, "skipped", (), reason="it is empty")
                return
            name = self._choose(path, head, named=named)
            if name is None:
                yield _unknown(path, head, self._among, self._formats[path], named=named)
                return
            reader = self._among[name]
            if isinstance(reader, ArchiveReader) and reader.is_archive(path, head):
                yield from self._archive(path, name)
            else:
                yield ScannedFile(path, "read", scan_file(name, reader, path, self._options[name]), name)
        except RequestError as error:
            if error.subject.startswith("option "):
                raise self._option_error(path, error) from None
            yield ScannedFile(path, "failed", (), name or "", str(error))
        except LimnerError as error:
            yield ScannedFile(path, "failed", (), name or "", str(error))

    def _archive(self, path: str, name: str) -> Iterator[ScannedFile]:
        self._seen.discard(os.path.abspath(path))
        rows = list(self._claimed(path, name))
        if all(row.path != path for row in rows):
            some = any(row.status == "read" for row in rows)
            why = "" if some else "none of the files that it holds could be read"
            self._new(path)
            rows.insert(0, ScannedFile(path, "read" if some else "failed", (), name, why))
        yield from rows


def _recognise(path: str) -> Format | None:
    """The format of an input that no reader was chosen for, by its name alone where it cannot be read."""
    if not is_remote(path) and os.path.isdir(path):
        return recognise_folder(path)
    try:
        return recognise(path, b"" if is_remote(path) else _head(path))
    except LimnerError:
        return recognise(path, b"")


def _lack(folder: str) -> str:
    """Why there is nothing in a folder to look at; "" where there is a file."""
    hidden = False
    for _, folders, names in os.walk(folder):
        if any(not name.startswith(".") for name in names):
            return ""
        hidden |= any(name.startswith(".") for name in (*names, *folders))
        folders[:] = [name for name in folders if not name.startswith(".")]
    return "it holds only hidden files, whose names begin with a dot" if hidden else "it holds no file"


def _unknown(path: str, head: bytes, among: Mapping[str, Reader], found: Format | None, *, named: bool) -> ScannedFile:
    """The row of a file that nobody reads: skipped in a folder unless it is an image, failed where a user named it."""
    if found is not None:
        if named or not found.aside:
            return ScannedFile(path, "failed", (), reason=str(found.refusal(path)))
        return ScannedFile(path, "skipped", (), reason=": ".join(filter(None, (found.name, found.why))))
    if not named:
        return ScannedFile(path, "skipped", (), reason="no installed reader knows its first bytes")
    error = ReadError(
        path,
        "an installed reader must know what it is",
        value=f"it begins with {head[:8]!r}" if head else "0 bytes",
        remedy=f"Installed readers: {', '.join(among)}. --reader tries one of them all the same",
    )
    return ScannedFile(path, "failed", (), reason=str(error))


def _head(path: str) -> bytes:
    """The first bytes of a regular file. Raises `ReadError`: to open a pipe or a device may never end."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise ReadError(
                path,
                "it must be a regular file",
                value=next((kind for kind, test in _SPECIAL.items() if test(mode)), "a special file"),
                remedy="Leave it out, or copy what it delivers into a file",
            )
        with Path(path).open("rb") as file:
            return file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise _unreadable(path, "file", error) from error


_SPECIAL = {"a named pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a device": stat.S_ISCHR}


def _unreadable(path: str, what: str, error: OSError | ValueError) -> ReadError:
    why = error.strerror if isinstance(error, OSError) else ""
    return ReadError(path, f"it must be a readable {what}", value=why or str(error), remedy="Check the path and rights")


def without_parts(rows: Iterable[ScannedFile]) -> list[ScannedFile]:
    """Rows without images that are only a part of another's: masks and overviews beside it, sources of a mosaic."""
    rows = list(rows)
    owner = {
        os.path.abspath(path): row.path
        for row in rows
        for info in row.infos
        for path in info.files
        if os.path.abspath(path) != os.path.abspath(row.path)
    }
    kept: list[ScannedFile] = []
    for row in rows:
        whole = owner.get(os.path.abspath(row.path))
        unread = row.status == "skipped" and not row.reader
        if whole is not None and (unread or any(info.uri == row.path for info in row.infos)):
            kept.append(ScannedFile(row.path, "skipped", (), row.reader, f"a part of {whole}"))
        else:
            kept.append(row)
    return kept


def readers() -> Mapping[str, Reader]:
    """All installed readers by name. Raises `RequestError` where a plug-in cannot be imported."""
    return {name: _reader(name) for name in installed("limner.readers")}


def scan(
    inputs: Sequence[str],
    options: Mapping[str, str],
    *,
    reader: str | None = None,
    apart: Callable[[str], str | None] = lambda _: None,
) -> list[ScannedFile]:
    """What the inputs hold, one row for each file, in the order of the inputs and sorted within a folder.

    Folders are walked; what begins with a dot is not looked at. A named file that nobody claims or that cannot be read
    is "failed" with the reason; a file in a folder that nobody claims is "skipped". `apart` says of a folder why it is
    not looked at: "" where nothing is to be said of it either, None where it is to be looked at. Images get their final
    ids: the slug of the file's stem, or of their kind and fingerprint where names are personal (unless the option
    `names` is "show"), with -2, -3, … in sorted order where it is taken. `options` are those of `Overrides` and of any
    of the readers. Raises `RequestError` for an unknown reader or option, and where an option cannot mean anything.
    """
    among, overrides, own = _checked(options, reader)
    stated = PreparedOverrides(overrides)
    search = Search(among, own, overrides, forced=reader, apart=apart)
    rows = [row for item in inputs for row in search.scan(item)]
    settled = [search.settle(row) for row in without_parts(_overridden(rows, among, stated))]
    return _with_ids(_numbered(settled, among), among, hide=overrides.names == "hide")


def check_options(options: Mapping[str, object], reader: str | None = None) -> None:
    """Raise `RequestError` for what `scan` would refuse of options, without looking at any input."""
    PreparedOverrides(_checked(options, reader)[1])


def known_options(reader: str | None = None) -> frozenset[str]:
    """Names of the options that `scan` takes. Raises `RequestError` for an unknown reader."""
    models = (Overrides, *(options_of(one) for one in _among(reader).values()))
    return frozenset(name for model in models for name in model.model_fields)


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


def _among(reader: str | None) -> Mapping[str, Reader]:
    among = readers()
    if reader is None:
        return among
    if reader not in among:
        load("limner.readers", reader)  # raises, and says what is installed
    return {reader: among[reader]}


def _checked(
    options: Mapping[str, object], reader: str | None
) -> tuple[Mapping[str, Reader], Overrides, Mapping[str, Options]]:
    """The readers that may be asked, what the user states, and each reader's own part of the options."""
    among = _among(reader)
    models = {name: options_of(one) for name, one in among.items()}
    known = sorted({name for model in (Overrides, *models.values()) for name in model.model_fields})
    for name in options:
        if name not in known:
            raise unknown_option(name, known, "readers")

    def part(model: type[O], owner: str) -> O:
        return parse_options(model, {k: v for k, v in options.items() if k in model.model_fields}, owner)

    return among, part(Overrides, "readers"), {name: part(model, f"reader {name!r}") for name, model in models.items()}


def _overridden(
    rows: Sequence[ScannedFile], among: Mapping[str, Reader], stated: PreparedOverrides
) -> list[ScannedFile]:
    """The rows with what the user states; an image that it does not suit fails, and its other files are skipped."""
    found: list[ScannedFile] = []
    owner: dict[str, str] = {}
    for row in rows:
        try:
            infos = tuple(stated.apply(info, among[row.reader]) for info in row.infos)
            found.append(replace(row, infos=infos))
        except ReadError as error:
            owner |= {path: row.path for info in row.infos for path in info.files}
            found.append(replace(row, status="failed", infos=(), reason=str(error)))
    return [
        replace(row, status="skipped", reason=_part_of(owner[row.path]))
        if row.status == "read" and not row.infos and row.path in owner
        else row
        for row in found
    ]


def _part_of(path: str) -> str:
    return f"a part of the image of {path}, which failed"


def _numbered(rows: Sequence[ScannedFile], among: Mapping[str, Reader]) -> list[ScannedFile]:
    """The rows with the images of readers that number them anew."""
    found = list(rows)
    for name, reader in among.items():
        if isinstance(reader, NumberingReader):
            places = [at for at, row in enumerate(found) if row.reader == name]
            numbered = iter(reader.number([info for at in places for info in found[at].infos]))
            for at in places:
                found[at] = replace(found[at], infos=tuple(next(numbered) for _ in found[at].infos))
    return found


def _with_ids(rows: Sequence[ScannedFile], among: Mapping[str, Reader], *, hide: bool) -> list[ScannedFile]:
    """The rows with final ids. Of images with personal names only readers that number them give them an id."""
    every = sorted(
        ((at, k, info) for at, row in enumerate(rows) for k, info in enumerate(row.infos)),
        key=lambda item: (item[2].uri, item[2].part, item[0], item[1]),
    )
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    names: dict[tuple[int, int], str] = {}
    for at, k, info in every:
        slug = _slug(info.id or Path(re.split(r"[?#]", info.uri)[0]).stem)
        if hide and info.personal and not isinstance(among[rows[at].reader], NumberingReader):
            slug = _slug(f"{'image' if info.kind == 'map' else info.kind}-{info.fingerprint[:8]}")
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
