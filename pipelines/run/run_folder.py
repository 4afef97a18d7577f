"""A run's folder: the manifest that says what was asked, and one line for each result.

Only the process that plans writes here, and one at a time: the results file is locked while it does. A line is whole
or it is cut on opening, so a run may be killed at any moment. It knows neither what a plan nor what a report is.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, cast, get_args

from ...model.finding import Coverage, Finding, Result, Status
from ...readers.errors import LimnerError, RequestError
from ...readers.files import open_regular, parse_json, read_file, write_atomic
from ...readers.pseudonyms import KEY_FILE

MANIFEST = "manifest.json"
RESULTS = "results.jsonl"
SOURCES = "sources.json"
_FIRST = (RESULTS, KEY_FILE, SOURCES)  # what lies in a folder before its manifest
MOST_MANIFEST: Final = 2**30  # bytes
LONGEST: Final = 2**28  # bytes of a line of results
_SEAL: Final = "sha256"  # the last key of a manifest: of everything else in it
_STATUSES: Final = get_args(Status)
_FINDINGS = b',"findings":['  # cannot occur inside a JSON text, whose quotes are escaped


class StoreError(LimnerError):
    """The run's folder cannot be written or holds something damaged. What it holds already is not lost."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one region without reading its findings; `start:stop` is its line in the results file."""

    region: str
    image: str
    status: Status
    error: str
    coverage: Coverage | None
    start: int
    stop: int


class RunFolder:
    """A run's folder, open and locked for writing. Use as a context manager."""

    def __init__(self, folder: Path, results: BinaryIO) -> None:
        self.folder = folder
        self._results = results
        self.entries = read_entries(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Make the folder where it does not exist, lock it, cut a torn last line, and read what is there.

        Raises `RequestError` where the folder holds something that is not a run or another process writes to it,
        `StoreError` where it cannot be written or a line in the middle is damaged.
        """
        check_folder(folder)
        with as_store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            results = open_regular(folder / RESULTS, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab")
        try:
            _lock(results, folder)
            with as_store_errors(folder):
                _cut_torn_line(folder / RESULTS)
            return cls(folder, results)
        except BaseException:
            results.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._results.close()

    @property
    def begun(self) -> bool:
        """Whether the folder has a manifest, whole or damaged."""
        return os.path.lexists(self.folder / MANIFEST)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write what was asked, whole or not at all. Comes before the first result. Raises `StoreError`."""
        sealed = {**manifest, _SEAL: _seal(manifest)}
        text = json.dumps(sealed, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        with as_store_errors(self.folder):
            write_atomic(self.folder / MANIFEST, encoded(text))

    def append(self, results: Sequence[Result]) -> None:
        """Add a line for each result, safe on the disk when this returns. Raises `StoreError`, and then adds none."""
        lines = b"".join(
            sealed(encoded(json.dumps(result.to_json(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)))
            for result in results
        )
        start = self._results.seek(0, os.SEEK_END)
        try:
            view = memoryview(lines)
            while view:
                view = view[self._results.write(view) :]
            os.fsync(self._results.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # the torn line is cut on the next opening where it cannot be cut now
                self._results.truncate(start)
            raise _as_store_error(self.folder, error) from error


def check_folder(folder: Path) -> None:
    """Raise `RequestError` where the folder cannot be a run's, since it holds other things. Writes nothing."""
    with as_store_errors(folder):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise RequestError(str(folder), "results go into a folder, and this is a file", remedy="Give another --out")
        strangers = sorted(p.name for p in folder.iterdir() if p.name not in _FIRST and not _temporary(p))
        if strangers and not (folder / MANIFEST).exists():
            raise RequestError(
                str(folder),
                "the folder for results must be new, empty or a run's",
                value=", ".join(strangers[:3]),
                remedy="Give another --out",
            )


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run's."""
    return os.path.isfile(folder / MANIFEST) and os.path.isfile(folder / RESULTS)  # noqa: PTH113 - False for any error


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises `RequestError` where the folder is not a run's, `StoreError` where the manifest is damaged.
    """
    try:
        manifest = parse_json(read_file(folder / MANIFEST, max_bytes=MOST_MANIFEST, regular=True))
        if not isinstance(manifest, dict):
            raise ValueError(type(manifest).__name__)  # noqa: TRY004, TRY301 - a text that is no manifest
        stated = cast("dict[str, Any]", manifest).pop(_SEAL, None)  # manifests of before have none
        if stated is not None and stated != _seal(cast("dict[str, Any]", manifest)):
            msg = "its sha256 is another"
            raise ValueError(msg)  # noqa: TRY301 - the same
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RequestError(
            str(folder), f"a run's folder has a {MANIFEST}", remedy="Give the folder that --out named"
        ) from error
    except OSError as error:
        raise _as_store_error(folder / MANIFEST, error) from error
    except ValueError as error:
        raise StoreError(
            str(folder / MANIFEST),
            "it must be as it was written",
            value=str(error),
            remedy="Restore it from a copy, or run again into another folder",
        ) from error
    return cast("dict[str, Any]", manifest)


def read_entries(folder: Path) -> dict[str, Entry]:
    """The last outcome of each region, by region key; a torn last line is passed over.

    Findings are not read. Raises `StoreError` for a damaged line.
    """
    entries: dict[str, Entry] = {}
    path = folder / RESULTS
    try:
        with io.BufferedReader(cast("io.RawIOBase", open_regular(path)), 1 << 20) as lines:
            start, number = 0, 1
            while line := lines.readline(LONGEST):
                stop = start + len(line)
                if line.endswith(b"\n"):
                    entry = _read_entry(line, start, stop, f"{path}, line {number}")
                    entries[entry.region] = entry
                elif len(line) == LONGEST:
                    raise _damaged(f"{path}, line {number}", OverflowError(f"more than {LONGEST} bytes"))
                start, number = stop, number + 1
    except OSError as error:
        raise _as_store_error(folder, error) from error
    return entries


def read_findings(folder: Path, entries: Iterable[Entry]) -> list[Finding]:
    """The findings of those regions, in the order given. Raises `StoreError` for a damaged line."""
    findings: list[Finding] = []
    try:
        with io.BufferedReader(cast("io.RawIOBase", open_regular(folder / RESULTS))) as lines:
            for entry in entries:
                lines.seek(entry.start)
                line = lines.read(entry.stop - entry.start)
                try:
                    findings.extend(Result.from_json(parse_json(unsealed(line))).findings)
                except Exception as error:
                    raise _damaged(f"{folder / RESULTS}, region {entry.region}", error) from error
    except OSError as error:
        raise _as_store_error(folder, error) from error
    return findings


def encoded(text: str) -> bytes:
    """A JSON text as UTF-8. What is no character, such as a byte of a file name, becomes an escape of JSON."""
    return text.encode("utf-8", "backslashreplace")


def _seal(manifest: Mapping[str, Any]) -> str:
    """The sha256 of all that a manifest says."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _line_seal(record: bytes) -> bytes:
    """The last member of a line of results: a checksum of the JSON object before it, and the line's end."""
    return b',"sha256":"%s"}\n' % hashlib.sha256(record).hexdigest()[:16].encode()


_SEAL_LENGTH: Final = len(_line_seal(b""))


def sealed(record: bytes) -> bytes:
    """A JSON object as a line that says whether it is still as it was written."""
    return record[:-1] + _line_seal(record)


def unsealed(line: bytes) -> bytes:
    """The JSON object of a line. Raises `ValueError` where its checksum is another."""
    record = line[:-_SEAL_LENGTH] + b"}"
    if line[-_SEAL_LENGTH:] != _line_seal(record):
        msg = "the line's checksum is missing or another"
        raise ValueError(msg)
    return record


def _read_entry(line: bytes, start: int, stop: int, where: str) -> Entry:
    try:
        head, found, _ = (line := unsealed(line)).partition(_FINDINGS)
        record: dict[str, Any] = json.loads(head + b"}" if found else line)
        cover = record["coverage"]
        entry = Entry(
            region=record["region"],
            image=record["image"],
            status=record["status"],
            error=record["error"],
            coverage=None if cover is None else Coverage(*cover),
            start=start,
            stop=stop,
        )
        texts = all(isinstance(record[key], str) for key in ("region", "image", "error"))
        numbers = all(one is None or math.isfinite(one) for one in cover or ())
        if not texts or not numbers or entry.status not in _STATUSES:
            msg = "a value of another kind"
            raise TypeError(msg)  # noqa: TRY301 - as what else is wrong with it
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise _damaged(where, error) from error
    return entry


def _damaged(where: str, error: Exception) -> StoreError:
    return StoreError(
        where,
        "every line must be one result, as it was written",
        value=f"{type(error).__name__}: {error}",
        remedy="Delete that line and run again: only its region is done anew",
    )


def _cut_torn_line(path: Path) -> None:
    """Cut what a killed run wrote after its last whole line."""
    with open_regular(path, os.O_RDWR, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position, tail = end, b""
        while position > 0 and b"\n" not in tail:
            if end - position > LONGEST:
                raise _damaged(f"{path}, its last line", OverflowError(f"more than {LONGEST} bytes"))
            step = min(position, 1 << 16)
            position -= step
            file.seek(position)
            tail = file.read(step)
        whole = position + tail.rfind(b"\n") + 1
        if whole < end:
            file.truncate(whole)


def _temporary(path: Path) -> bool:
    return path.name.startswith(".part-")


@contextlib.contextmanager
def as_store_errors(folder: Path) -> Generator[None, None, None]:
    """Turn the system's complaints into ours."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise _as_store_error(folder, error) from error


def _as_store_error(folder: Path, error: OSError | ValueError) -> StoreError:
    return StoreError(
        str(folder),
        "the results must be written and read here",
        value=(error.strerror if isinstance(error, OSError) else "") or str(error),
        remedy="Make room or give rights, then run the same command again: what is there is kept and the run goes on",
    )


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO, folder: Path) -> None:
        file.seek(1 << 62)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise _busy(folder) from error
else:
    import fcntl

    def _lock(file: BinaryIO, folder: Path) -> None:
        """Locked until closed; the system lets go of it when the process dies, however it dies."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _busy(folder) from error


def _busy(folder: Path) -> RequestError:
    return RequestError(
        str(folder),
        "one run writes to a folder at a time, and another is at work here",
        remedy="Wait for it or stop it, or give another --out",
    )
