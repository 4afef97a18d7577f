"""The registry of readers: which reader opens a file, scans of files and folders, and opening images.

Readers are plug-ins. Each returns a confidence for an input's first bytes, and the one with the highest reads it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

from .errors import LimnerError, ReadError, RequestError
from .files import absolute, is_remote, read_head, split_variable, unreadable
from .formats import Format, recognise, recognise_folder
from .image import ArchiveReader, CheckingReader, Image, ImageInfo, Reader
from .options import O, Options, options_of, parse_options, unknown_option
from .overrides import Overrides, PreparedOverrides, choose_scenes
from .plugins import installed, load
from .pseudonyms import Pseudonyms, longest_first, path_variants, redact_error
from .reader_calls import identify, scan_file, scan_folder
from .scanned_files import (
    COUNTED_ONCE,
    ScannedFile,
    numbered,
    part_of,
    with_ids,
    with_overrides,
    without_links,
    without_parts,
)
from .servers import check_input_url

_IMAGES: Final = (".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Ends of names of images whose format their first bytes tell."""


class Readers(Mapping[str, Reader]):
    """Installed readers by name, each imported when it is looked up.

    Looking one up raises `RequestError` where the plug-in cannot be imported.
    """

    def __init__(self, makers: Mapping[str, str]) -> None:
        self._made: dict[str, Reader] = {}
        self.makers = makers
        """The class of each, as "module:class"."""

    def __getitem__(self, name: str) -> Reader:
        if name not in self._made and name in self.makers:
            self._made[name] = _load(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


def readers() -> Readers:
    """All installed readers."""
    return Readers({name: point.value for name, point in installed("limner.readers").items()})


def limit_caches(most: float) -> None:
    """Let readers that can limit it keep at most so many bytes of decoded pixels. Call it before anything is read."""
    for reader in readers().values():
        limit: Callable[[float], None] | None = getattr(reader, "limit_cache", None)
        if limit is not None:
            limit(most)


def open_image(info: ImageInfo, channels: Sequence[str] | None = None) -> Image:
    """Open an image with the reader that scanned it. Raises `ReadError`, or `RequestError` without that reader."""
    return _load(info.reader).open(info, channels)


def scan(
    inputs: Sequence[str],
    options: Mapping[str, str],
    *,
    reader: str | None = None,
    skip_folder: Callable[[str], str | None] = lambda _: None,
) -> list[ScannedFile]:
    """Scan files and folders: one row per file, in the order of the inputs and sorted within a folder.

    inputs: files, folders, which are walked except for names that begin with a dot, and remote paths.
    options: those of `Overrides` and of all readers.
    reader: the reader to use for files that are given by name.
    skip_folder: the reason to skip a folder, "" for no row at all, None to scan it.

    A file given by name that no reader recognises fails; in a folder it is skipped, unless its name is an image's. A
    file that is given twice, or by a link, is counted once, and its reason says so. Images get unique ids: the slug of
    the file's stem, or the kind and fingerprint where names are personal (unless the option `names` is "show"), with
    -2, -3, … for duplicates. Raises `RequestError` for an unknown reader, an invalid option and an input that cannot be
    meant.
    """
    candidates, overrides, own = _parse(options, reader)
    prepared = PreparedOverrides(overrides)
    for item in inputs:
        check_input_url(item)
    for item in (item for item in inputs if is_remote(item) or not os.path.exists(item)):
        for name, one in candidates.items():
            if isinstance(one, CheckingReader):
                one.check_input(item, own[name])
    scanner = _Scanner(candidates, own, overrides, prepared, reader, skip_folder)
    found = scanner.mark_repeated([row for item in inputs for row in scanner.scan(item)])
    rows = without_parts(with_overrides(without_links(found), candidates, prepared))
    rows = numbered([scanner.mark_personal(row) for row in rows], candidates)
    return with_ids(rows, candidates, hide=overrides.names == "hide")


def check_options(options: Mapping[str, object], reader: str | None = None) -> None:
    """Raise `RequestError` for options that `scan` would refuse."""
    PreparedOverrides(_parse(options, reader)[1])


def known_options(reader: str | None = None) -> frozenset[str]:
    """Names of the options that `scan` takes. Raises `RequestError` for an unknown reader."""
    models = (Overrides, *(options_of(one) for one in _candidates(reader).values()))
    return frozenset(name for model in models for name in model.model_fields)


def neutral_options() -> frozenset[str]:
    """Names of the readers' options that cannot change what they read."""
    return frozenset[str]().union(*(options_of(one).neutral() for one in readers().values()))


def find_reader(uri: str, head: bytes, candidates: Mapping[str, Reader]) -> str | None:
    """The name of the reader with the highest confidence for an input, None where it is 0 for all.

    Raises `RequestError` for a tie.
    """
    makers = candidates.makers if isinstance(candidates, Readers) else dict[str, str]()
    found = identify(candidates, makers, uri, head)
    best = max(found.values(), default=0)
    names = [name for name, confidence in found.items() if confidence == best]
    if best <= 0:
        return None
    if len(names) > 1:
        rule, value = "must be recognised by one reader more surely than by others", f"{' and '.join(names)}"
        remedy = f"Choose with --reader {names[0]} or --reader {names[1]}"
        raise RequestError(uri, rule, value=value, remedy=remedy)
    return names[0]


@dataclass(frozen=True, slots=True)
class _Scanner:
    """One scan, with the files that it has accounted for and their formats. See `scan`."""

    _candidates: Mapping[str, Reader]
    _options: Mapping[str, Options]
    _stated: Overrides
    _prepared: PreparedOverrides
    _forced: str | None
    _skip_folder: Callable[[str], str | None]
    _done: set[str] = field(default_factory=set[str])
    _named: set[str] = field(default_factory=set[str])
    """Files that were given by name."""
    _repeated: set[str] = field(default_factory=set[str])
    """Files that were given by name again, or by name and in a folder."""
    _formats: dict[str, Format | None] = field(default_factory=dict[str, "Format | None"])

    def scan(self, item: str) -> Iterator[ScannedFile]:
        """The rows of one input."""
        if not is_remote(item) and os.path.isdir(item):
            rows = list(self._folder(item))
            yield from (
                replace(row, status="failed") if row.path == item and row.status == "skipped" else row for row in rows
            )
            if not rows and (reason := _why_empty(item)):
                yield ScannedFile(item, "failed", reason=reason)
            elif not rows and self._skip_folder(item) is None and not self._has_repeated(item):
                yield ScannedFile(item, "skipped", reason=f"its files are given twice: {COUNTED_ONCE}")
        elif self._mark_done(item):
            self._named.add(absolute(item))
            yield from self._file(item, named=True)
        else:
            self._repeated.add(absolute(item))

    def _has_repeated(self, folder: str) -> bool:
        """Whether a file in a folder was given by name too, and says so itself."""
        return any(Path(absolute(folder)) in Path(path).parents for path in self._repeated)

    def mark_repeated(self, rows: Sequence[ScannedFile]) -> list[ScannedFile]:
        """The rows, with the reason of a file that was given twice."""
        twice = [row.status == "read" and absolute(row.path) in self._repeated for row in rows]
        reason = f"given twice: {COUNTED_ONCE}"
        return [replace(row, reason=reason) if again else row for row, again in zip(rows, twice, strict=True)]

    def mark_personal(self, row: ScannedFile) -> ScannedFile:
        """Set `personal` of a row and its images by the format of the file and the kind of its reader."""
        if row.path not in self._formats:
            self._formats[row.path] = _format_of(row.path)
        found, infos = self._formats[row.path], row.infos
        if found is not None and found.personal:
            infos = tuple(replace(info, personal=True) for info in infos)
        kind = getattr(self._candidates.get(row.reader), "kind", "map" if row.infos or not row.reader else "slide")
        personal = (found is not None and found.personal) or kind != "map" or any(info.personal for info in infos)
        personal |= not infos and self._prepared.makes_personal(row.path)
        return replace(row, infos=infos, personal=personal)

    def _mark_done(self, path: str) -> bool:
        """Mark a file as accounted for; False where it was. A link is a file of its own: see `without_links`."""
        place = absolute(path)
        new = place not in self._done
        self._done.add(place)
        return new

    def _choose(self, path: str, head: bytes, *, named: bool) -> str | None:
        """The reader of a file; None where its format has none, or none recognises it."""
        forced = self._forced if named else None
        file, _ = split_variable(path)
        found = self._formats[path] = recognise(file, head)
        if found is not None and found.auxiliary and not named:
            return None
        if found is None or not found.strict:
            return forced or find_reader(file, head, self._candidates)
        able = {name: reader for name, reader in self._candidates.items() if found.read_by(name, reader)}
        if forced or not able:
            return forced if forced in able else None
        return find_reader(file, head, able) or next(iter(able))

    def _option_error(self, path: str, error: RequestError) -> LimnerError:
        """An error about an option, without the file's name where that is personal."""
        row = self.mark_personal(ScannedFile(path, "failed", (), next(iter(self._candidates)) if self._forced else ""))
        if not row.personal or self._stated.names == "show":
            return error
        alias = Pseudonyms.of(self._stated).path(path)
        return redact_error(error, longest_first(dict.fromkeys(path_variants(path), alias)))

    def _folder(self, folder: str) -> Iterator[ScannedFile]:
        reason = self._skip_folder(folder)
        if reason is not None:
            yield from [ScannedFile(folder, "skipped", reason=reason)] if reason else []
            return
        if (found := recognise_folder(folder)) is not None:
            self._formats[folder] = found
            if self._mark_done(folder):
                yield self._folder_image(folder, found)
            else:
                self._repeated.add(absolute(folder))
            return
        try:
            name = find_reader(folder, b"", self._candidates)
            entries = sorted(entry for entry in os.listdir(folder) if not entry.startswith("."))
        except (LimnerError, OSError) as error:
            cause = unreadable(folder, "folder", error) if isinstance(error, OSError) else error
            yield ScannedFile(folder, "failed", reason=str(cause))
            return
        if name is not None:
            yield from self._scan_folder(folder, name)
        yield from self._entries([os.path.join(folder, entry) for entry in entries])

    def _folder_image(self, folder: str, found: Format) -> ScannedFile:
        """The row of a folder that is one image, or several, in a format of folders."""
        name = next((name for name, reader in self._candidates.items() if found.read_by(name, reader)), None)
        if name is None:
            return ScannedFile(folder, "failed", reason=str(found.refusal(folder)))
        try:
            return self._images(folder, name)
        except LimnerError as error:
            return self._failed(folder, name, error)

    def _images(self, path: str, name: str) -> ScannedFile:
        infos = scan_file(name, self._candidates[name], path, self._options[name])
        return ScannedFile(path, "read", choose_scenes(path, infos, self._stated.scene), name)

    def _failed(self, path: str, name: str | None, error: LimnerError) -> ScannedFile:
        """The row of a file that cannot be read. Raises `RequestError` for an option."""
        if isinstance(error, RequestError) and error.subject.startswith("option "):
            raise self._option_error(path, error) from None
        return ScannedFile(path, "failed", (), name or "", str(error))

    def _entries(self, paths: Sequence[str]) -> Iterator[ScannedFile]:
        """The rows of the files in a folder, then of its subfolders."""
        for path in (path for path in paths if not Path(path).is_dir()):
            if self._mark_done(path):
                yield from self._file(path, named=False)
            elif absolute(path) in self._named:
                self._repeated.add(absolute(path))
        for path in (path for path in paths if Path(path).is_dir()):
            if Path(path).is_symlink():
                yield ScannedFile(path, "skipped", reason="a link to a folder, which is not followed")
            elif self._has_more(path):
                yield from self._folder(path)

    def _has_more(self, folder: str) -> bool:
        """Whether a folder holds any file that is not accounted for yet, or cannot be listed."""
        if not os.access(folder, os.R_OK | os.X_OK):
            return True
        paths = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
        return any(os.path.abspath(path) not in self._done for path in paths)

    def _scan_folder(self, folder: str, name: str) -> Iterator[ScannedFile]:
        """The rows of a folder or an archive that a reader reads as images."""
        try:
            found = scan_folder(name, self._candidates[name], folder, self._options[name])
        except ReadError as error:
            yield ScannedFile(folder, "failed", (), name, str(error))
            return
        side = dict(found.side)
        read: dict[str, tuple[ImageInfo, ...]] = {}  # a file may be part of several images
        for info in found.infos:
            whole = sorted({plane.source for plane in info.planes if plane.source}) or info.files
            own = [path for path in whole if path not in side]
            read.update({path: () for path in own if path not in read and self._mark_done(path)})
            first = next((path for path in own if path in read), None)
            if first is not None:
                read[first] = (*read[first], info)
        yield from (ScannedFile(path, "read", infos, name) for path, infos in read.items())
        for files, error in found.failed:  # one refusal per image, on the row of its first file
            own = [path for path in files if self._mark_done(path)]
            yield from (ScannedFile(path, "failed", (), name, str(error)) for path in own[:1])
            yield from (ScannedFile(path, "skipped", (), name, part_of(own[0])) for path in own[1:])
        for path, why in side.items():
            if self._mark_done(path):
                yield ScannedFile(path, "read" if path == folder else "skipped", (), name, why)

    def _file(self, path: str, *, named: bool) -> Iterator[ScannedFile]:
        """The row of a file, or the rows of an archive."""
        name: str | None = None
        try:
            head = b"" if is_remote(path) else read_head(path)
            if not head and not named:
                empty = ScannedFile(path, "skipped", reason="it is empty")
                yield self._unrecognised(path, head, named=named) if path.lower().endswith(_IMAGES) else empty
                return
            name = self._choose(path, head, named=named)
            if name is None:
                yield self._unrecognised(path, head, named=named)
                return
            reader = self._candidates[name]
            if isinstance(reader, ArchiveReader) and reader.is_archive(path, head):
                yield from self._archive(path, name)
            else:
                yield self._images(path, name)
        except LimnerError as error:
            yield self._failed(path, name, error)

    def _archive(self, path: str, name: str) -> Iterator[ScannedFile]:
        self._done.discard(absolute(path))
        rows = sorted(self._scan_folder(path, name), key=lambda row: row.path != path)
        if all(row.path != path for row in rows):
            some = any(row.status == "read" for row in rows)
            self._mark_done(path)
            reason = "" if some else "none of its files could be read"
            rows.insert(0, ScannedFile(path, "read" if some else "failed", (), name, reason))
        yield from rows

    def _unrecognised(self, path: str, head: bytes, *, named: bool) -> ScannedFile:
        """The row of a file without a reader: in a folder it is skipped unless its format or name is an image's."""
        found = self._formats.get(path)
        if found is not None:
            if named or not found.auxiliary:
                return ScannedFile(path, "failed", reason=str(found.refusal(path)))
            return ScannedFile(path, "skipped", reason=": ".join(filter(None, (found.name, found.why))))
        if not named and not path.lower().endswith(_IMAGES):
            return ScannedFile(path, "skipped", reason="no installed reader recognises its first bytes")
        value = f"it begins with {head[:8]!r}" if head else "0 bytes"
        remedy = f"Choose one of the readers {', '.join(self._candidates)} with --reader if the file is an image"
        if not named:
            remedy = "Fetch it again if it is an image, or leave it out"
        if head.startswith(b"version https://git-lfs"):
            value, remedy = "a pointer of Git LFS", "Fetch the file itself with `git lfs pull`"
        if head.startswith(b"PK\x03\x04"):
            value, remedy = "a zip archive without DICOM files", "Unpack it, and name the folder"
        error = ReadError(path, "must be recognised by an installed reader", value=value, remedy=remedy)
        return ScannedFile(path, "failed", reason=str(error))


def _load(name: str) -> Reader:
    try:
        return cast("type[Reader]", load("limner.readers", name))()
    except ImportError as error:
        remedy = "Repair or uninstall its package; `limner plugins` shows which that is"
        raise RequestError(f"reader {name!r}", "must be importable", value=str(error), remedy=remedy) from error


def _candidates(reader: str | None) -> Mapping[str, Reader]:
    found = readers()
    if reader is None:
        return found
    if reader not in found:
        load("limner.readers", reader)  # raises, listing what is installed
    return {reader: found[reader]}


class _ReaderOptions(Mapping[str, Options]):
    """The options of each reader among those that were given, parsed when they are looked up."""

    def __init__(self, candidates: Mapping[str, Reader], given: Mapping[str, object]) -> None:
        self._candidates = candidates
        self._given = given

    def __getitem__(self, name: str) -> Options:
        return _part(options_of(self._candidates[name]), self._given, f"reader {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._candidates)

    def __len__(self) -> int:
        return len(self._candidates)


def _part(model: type[O], given: Mapping[str, object], owner: str) -> O:
    """Parse those of the options that a model has."""
    return parse_options(model, {k: v for k, v in given.items() if k in model.model_fields}, owner)


def _parse(
    options: Mapping[str, object], reader: str | None
) -> tuple[Mapping[str, Reader], Overrides, Mapping[str, Options]]:
    """The readers to try, the user's overrides, and the options of each reader."""
    candidates = _candidates(reader)
    own = _ReaderOptions(candidates, options)
    if not Overrides.model_fields.keys() >= options.keys():
        known = sorted(known_options(reader))
        for name in options:
            if name not in known:
                raise unknown_option(name, known, "readers")
        own = dict(own)  # so that every option is checked before anything is read
    return candidates, _part(Overrides, options, "readers"), own


def _format_of(path: str) -> Format | None:
    """The format of an input that no reader was chosen for, by its name alone where it cannot be read."""
    if not is_remote(path) and os.path.isdir(path):
        return recognise_folder(path)
    file, _ = split_variable(path)
    try:
        return recognise(file, b"" if is_remote(file) else read_head(file))
    except LimnerError:
        return recognise(file, b"")


def _why_empty(folder: str) -> str:
    """Why a folder without rows has none, as an error says it; "" where it has a file."""
    hidden = False
    for _, folders, names in os.walk(folder):
        if any(not name.startswith(".") for name in names):
            return ""
        hidden |= any(name.startswith(".") for name in (*names, *folders))
        folders[:] = [name for name in folders if not name.startswith(".")]
    value = "only hidden files, whose names begin with a dot" if hidden else "none"
    return str(ReadError(folder, "must hold files", value=value, remedy="Name the folder that holds the images"))
