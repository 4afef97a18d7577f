"""A run folder: the manifest, a file with one line for each result, and the parts that hold findings and rasters.

One process at a time writes; the results file is locked meanwhile, where the file system can. A line that is not
complete is cut when the folder is opened, so that a run may be killed at any moment: see `parts`.
"""

import contextlib
import hashlib
import io
import json
import math
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast, get_args

import numpy.typing as npt
from shapely.errors import ShapelyError

from ...model.finding import Coverage, Finding, Result, Status
from ...model.findings_table import FindingsTable
from ...readers import locks
from ...readers.errors import RequestError, excerpt
from ...readers.files import open_regular, parse_json, read_file, write_atomic
from ...readers.pseudonyms import KEY_FILE
from .parts import PARTS, Part, PartWriter, RasterPart, StoredChunk, chunks_of
from .run_files import MANIFEST, OVERVIEWS, RESULTS, SOURCES, StoreError, as_store_error, as_store_errors

MAX_MANIFEST_BYTES: Final = 2**30
MAX_LINE_BYTES: Final = 2**20
FORMAT: Final = 3
"""Of manifest and results: 2 had the findings in the lines, 1 is older."""
_BEFORE_MANIFEST = (RESULTS, PARTS, OVERVIEWS, KEY_FILE, SOURCES, "cloud-mask")  # of a run without it
_CHECKSUM: Final = "sha256"  # the last key of a manifest: the digest of everything else in it
_STATUSES: Final = get_args(Status)


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of a region: one line of the results file."""

    region: str
    image: str
    status: Status
    error: str
    coverage: Coverage | None
    findings: int = 0
    part: Part | None = None
    """Where its findings lie; None without any."""
    row: int = 0
    """The first of its findings in the part."""
    rasters: Mapping[str, RasterPart] = field(default_factory=dict[str, RasterPart])
    """Where its rasters lie, by name."""


class RunFolder:
    """A run folder that is open and locked for writing. Use as a context manager.

    At its end a folder without a manifest and results is deleted, except for the names and the key that are in it.
    """

    def __init__(self, folder: Path, results: BinaryIO, *, new: bool) -> None:
        self.folder = folder
        self._results = results
        self._parts = PartWriter(folder)
        self._new = new
        self.entries = read_entries(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Make the folder if necessary, lock it, cut an incomplete last line, and read the entries.

        Raises `RequestError` where it is not a run folder or another process writes to it, `StoreError` where it
        cannot be written, a line is damaged, or another version of limner made it.
        """
        check_folder(folder)
        manifest: dict[str, Any] = {}
        with contextlib.suppress(StoreError, RequestError):  # a missing or damaged one is dealt with where it is used
            manifest = read_manifest(folder)
        check_format(manifest, folder)
        with as_store_errors(folder):
            new = not folder.exists()
            folder.mkdir(parents=True, exist_ok=True)
            results = open_regular(folder / RESULTS, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab")
        try:
            lock(results, folder)
            _check_linked(results, folder)
            with as_store_errors(folder):
                cut_incomplete_line(folder / RESULTS)
            return cls(folder, results, new=new)
        except BaseException:
            results.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.__exit__(kind, error, trace)
        with contextlib.suppress(OSError):  # where an open file cannot be deleted it stays, and does no harm
            if not self.has_manifest and not os.fstat(self._results.fileno()).st_size:
                (self.folder / RESULTS).unlink()
                if self._new:
                    self.folder.rmdir()  # unless there is anything else
        self._results.close()

    @property
    def has_manifest(self) -> bool:
        """Whether there is a manifest, intact or damaged."""
        return os.path.lexists(self.folder / MANIFEST)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest atomically, before the first result. Raises `StoreError`."""
        text = json.dumps({**manifest, _CHECKSUM: _digest(manifest)}, indent=1, ensure_ascii=False, allow_nan=False)
        with as_store_errors(self.folder):
            write_atomic(self.folder / MANIFEST, encode_json(f"{text}\n"))

    def append(self, results: Sequence[Result]) -> None:
        """Append results and sync them to disk: parts first, then a line for each. Raises `StoreError`, then with none.

        Raises `ValueError` for a number that is not finite.
        """
        try:
            lines = self._lines(results)
            self._parts.sync()
        except OSError as error:
            raise as_store_error(self.folder, error) from error
        append_synced(self._results, lines, self.folder)

    def _lines(self, results: Sequence[Result]) -> bytes:
        """Write the parts of results, and make their lines."""
        every = [finding for one in results for finding in one.findings]
        part = self._parts.write_findings(every) if every else None
        lines: list[bytes] = []
        row = 0
        for one in results:
            rasters = {name: asdict(self._parts.write_raster(raster)) for name, raster in sorted(one.rasters.items())}
            record = {**one.to_json(), "findings": len(one.findings)}
            if one.findings and part is not None:
                record |= {"part": asdict(part), "row": row}
            record |= {"rasters": rasters} if rasters else {}
            row += len(one.findings)
            text = json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            lines.append(add_checksum(encode_json(text)))
        return b"".join(lines)


def check_folder(folder: Path) -> None:
    """Raise `RequestError` where this is a file, or a folder with other things than a run. Writes nothing."""
    if found := other_contents(folder):
        rule = "must be a new folder, an empty one or a run folder"
        raise RequestError(str(folder), rule, value=found, remedy="Give another --out")


def other_contents(folder: Path) -> str:
    """What a path holds that no run has made; "" for a run folder, an empty one, and where there is nothing."""
    with as_store_errors(folder):
        if not folder.exists():
            return ""
        if not folder.is_dir():
            return "a file"
        names = sorted(path.name for path in folder.iterdir())
        names = [name for name in names if name not in _BEFORE_MANIFEST and not name.startswith(".part-")]
        return "" if (folder / MANIFEST).exists() else ", ".join(names[:3])


def no_run(folder: Path) -> RequestError:
    """The error for a path where a finished or a working run must be."""
    found = other_contents(folder) or ("a folder without one" if folder.exists() else "nothing there")
    remedy = "Give the folder that --out named"
    return RequestError(str(folder), f"must be a run folder, with a {MANIFEST}", value=found, remedy=remedy)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run and verify its checksum.

    Raises `RequestError` where the folder is not a run folder, `StoreError` where the manifest is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = parse_json(read_file(path, max_bytes=MAX_MANIFEST_BYTES, regular=True))
        if not isinstance(manifest, dict):
            raise _damaged(path, f"JSON of type {type(manifest).__name__}")
        checksum = cast("dict[str, Any]", manifest).pop(_CHECKSUM, None)  # missing in those of earlier versions
        if checksum is not None and checksum != _digest(cast("dict[str, Any]", manifest)):
            raise _damaged(path, "its sha256 does not match")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise no_run(folder) from error
    except OSError as error:
        raise as_store_error(path, error) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    return cast("dict[str, Any]", manifest)


def has_checksum(folder: Path) -> bool:
    """Whether the manifest of a run, which was read, states its own checksum: those of earlier versions do not."""
    return _CHECKSUM in parse_json(read_file(folder / MANIFEST, max_bytes=MAX_MANIFEST_BYTES, regular=True))


def _damaged(path: Path, problem: str) -> StoreError:
    remedy = "Restore it from a backup, or run again into another folder"
    return StoreError(str(path), "must be as limner wrote it", value=problem, remedy=remedy)


def read_entries(folder: Path) -> dict[str, Entry]:
    """The latest entry of each region, by region key, ignoring an incomplete last line.

    Findings are not read. Raises `StoreError` for a damaged line.
    """
    entries: dict[str, Entry] = {}
    path = folder / RESULTS
    try:
        with io.BufferedReader(cast("io.RawIOBase", open_regular(path)), MAX_LINE_BYTES) as lines:
            number = 1
            while line := lines.readline(MAX_LINE_BYTES):
                if line.endswith(b"\n"):
                    entry = parse_entry(line, f"{path}, line {number}")
                    entries[entry.region] = entry
                elif len(line) == MAX_LINE_BYTES:
                    raise _damaged_line(f"{path}, line {number}", _TOO_LONG)
                number += 1
    except OSError as error:
        raise as_store_error(folder, error) from error
    return entries


def read_findings(folder: Path, entries: Iterable[Entry]) -> list[Finding]:
    """The findings of these regions, in the given order. Raises `StoreError` where they are damaged."""
    return [finding for entry in entries for chunk in read_chunks(folder, [entry]) for finding in chunk.read()]


def read_chunks(folder: Path, entries: Iterable[Entry]) -> list["CheckedChunk"]:
    """The findings of these regions, part by part, to be read when they are needed."""
    places = [(entry.part, entry.row, entry.findings) for entry in entries if entry.part is not None]
    return [CheckedChunk(chunk) for chunk in chunks_of(folder, places)]


@dataclass(frozen=True, slots=True)
class CheckedChunk:
    """A chunk whose errors are those of a run folder."""

    chunk: StoredChunk

    def __len__(self) -> int:
        return len(self.chunk)

    def read(self) -> FindingsTable:
        """The findings. Raises `StoreError`."""
        with _as_damage(self.chunk.folder / PARTS / self.chunk.part.file):
            return self.chunk.read()


def read_raster(folder: Path, entry: Entry, name: str) -> npt.NDArray[Any]:
    """A raster of a region, as it was given. Raises `StoreError` where it is damaged, `KeyError` without one."""
    raster = entry.rasters[name]
    with _as_damage(folder / PARTS / raster.part.file):
        return raster.read(folder)


@contextlib.contextmanager
def _as_damage(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except (ShapelyError, ValueError) as error:
        raise _damaged(path, excerpt(str(error))) from error
    except OSError as error:
        raise as_store_error(path, error) from error


def check_format(manifest: Mapping[str, Any], folder: Path) -> None:
    """Raise `StoreError` where another version of limner made a run folder."""
    made = manifest.get("format")
    if type(made) is not int or made == FORMAT:
        return
    known = cast("dict[str, Any]", manifest.get("versions") or {}).get("limner")
    raise StoreError(
        str(folder),
        f"must have the format {FORMAT}, which this version of limner ({version('limner')}) reads",
        value=f"format {made} of {'a newer' if made > FORMAT else 'an earlier'} version of limner ({known})",
        remedy="Use the version that made it, or run again into another folder",
    )


def encode_json(text: str) -> bytes:
    """JSON text as UTF-8; surrogates, which stand for other bytes of file names, become JSON escapes."""
    return text.encode("utf-8", "backslashreplace")


def _digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _line_end(record: bytes) -> bytes:
    """The end of a line of results: a checksum of the JSON object, as its last member, and a line break."""
    return b',"sha256":"%s"}\n' % hashlib.sha256(record).hexdigest()[:16].encode()


_LINE_END_LENGTH: Final = len(_line_end(b""))


def add_checksum(record: bytes) -> bytes:
    """A JSON object as a line with a checksum."""
    return record[:-1] + _line_end(record)


def remove_checksum(line: bytes) -> bytes:
    """The JSON object of a line. Raises `ValueError` where its checksum does not match."""
    record = line[:-_LINE_END_LENGTH] + b"}"
    if line[-_LINE_END_LENGTH:] != _line_end(record):
        msg = "the checksum of the line is missing or does not match"
        raise ValueError(msg)
    return record


def parse_entry(line: bytes, where: str) -> Entry:
    """The entry of a line that is complete. Raises `StoreError`, which names `where`, for a damaged one."""
    try:
        record: dict[str, Any] = json.loads(remove_checksum(line))
        cover, part, rasters = record["coverage"], record.get("part"), record.get("rasters", {})
        entry = Entry(
            record["region"],
            record["image"],
            record["status"],
            record["error"],
            None if cover is None else Coverage(*cover),
            record["findings"],
            None if part is None else Part(**part),
            record.get("row", 0),
            {name: RasterPart(Part(**one["part"]), one["dtype"], tuple(one["shape"])) for name, one in rasters.items()},
        )
        texts = all(isinstance(record[key], str) for key in ("region", "image", "error"))
        numbers = all(number is None or math.isfinite(number) for number in cover or ())
        counts = all(type(count) is int and count >= 0 for count in (entry.findings, entry.row))
        placed = (part is not None) == (entry.findings > 0)
        if not (texts and numbers and counts and placed) or entry.status not in _STATUSES:
            msg = "a value has the wrong type"
            raise TypeError(msg)  # noqa: TRY301 - handled like the other errors
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise _damaged_line(where, error) from error
    return entry


_TOO_LONG = OverflowError(f"more than {MAX_LINE_BYTES} bytes")


def _damaged_line(where: str, error: Exception) -> StoreError:
    problem = f"{type(error).__name__}: {error}"
    remedy = "Delete that line and run again: only its region is analysed again"
    return StoreError(where, "must be one result, as limner wrote it", value=problem, remedy=remedy)


def append_synced(file: BinaryIO, lines: bytes, where: Path) -> None:
    """Append lines to an unbuffered file and sync it to disk. Raises `StoreError`, then with nothing appended."""
    start = file.seek(0, os.SEEK_END)
    try:
        view = memoryview(lines)
        while view:
            view = view[file.write(view) :]
        os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):  # otherwise the line is cut when the file is next opened
            file.truncate(start)
        raise as_store_error(where, error) from error


def cut_incomplete_line(path: Path, longest: int = MAX_LINE_BYTES) -> None:
    """Cut what a killed process wrote after its last complete line."""
    with open_regular(path, os.O_RDWR, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position, tail = end, b""
        while position > 0 and b"\n" not in tail:
            if end - position > longest:
                raise _damaged_line(f"{path}, last line", _TOO_LONG)
            step = min(position, 1 << 16)
            position -= step
            file.seek(position)
            tail = file.read(step)
        last = position + tail.rfind(b"\n") + 1
        if last < end:
            file.truncate(last)


def lock(file: BinaryIO, folder: Path) -> None:
    """Lock a file of a run folder until it is closed, or the process dies.

    Raises `RequestError` where another process has it.
    """
    try:
        if not locks.lock(file):
            raise _locked(folder)
    except OSError as error:
        raise as_store_error(folder, error) from error


def _check_linked(file: BinaryIO, folder: Path) -> None:
    """Raise `RequestError` where another run, which has just ended without results, has deleted the file."""
    if not os.fstat(file.fileno()).st_nlink:
        raise _locked(folder)


def _locked(folder: Path) -> RequestError:
    remedy = "Wait for it or stop it, or give another --out"
    return RequestError(str(folder), "must not be in use by another run", remedy=remedy)
