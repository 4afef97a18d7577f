"""Claims and scans of files happen in the limited process: what breaks a reader there is an error about one file.

Readers that are installed as plug-ins are asked there, ours among them. A reader with `isolated = True` parses nothing
in the process that asks it and is asked here.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any, Final, TypeVar

from .errors import LimnerError, ReadError
from .fingerprint import is_remote
from .image import Claim, FolderReader, FolderScan, ImageInfo, Reader
from .options import Options, options_of, parse_options
from .plugins import installed, load
from .sandbox import SandboxError, run_sandboxed

_T = TypeVar("_T")

CLAIM_SECONDS: Final = 6.0
SCAN_SECONDS: Final = 20.0
FOLDER_SECONDS: Final = 60.0
REMOTE_SECONDS: Final = 60.0
"""Processor time that a claim, a scan of a file, of a folder, and anything remote may take."""

SCAN_MEMORY_MB: Final = 1536
"""Address space of the process that is asked, in MiB."""

_RULES: Final = {
    "time": ("reading it must end in time", "Treat it with suspicion, or leave it out"),
    "memory": ("reading its header must fit the memory limit", "Treat it with suspicion, or leave it out"),
    "died": ("reading it must not crash the library that reads it", "Treat it with suspicion, or leave it out"),
    "nested": ("what it nests must not be deeper than Python can follow", "Get an undamaged copy of the file"),
}


def claim(name: str, reader: Reader, uri: str, head: bytes) -> Claim:
    """`Reader.claim` of the reader installed as `name`. Raises `ReadError` where the file breaks it."""
    if not _limited(name, type(reader)):
        return _guarded(name, uri, lambda: reader.claim(uri, head))
    return Claim(**_call("answer_claim", name, uri, head.decode("latin-1"), seconds=_seconds(uri, CLAIM_SECONDS)))


def scan_file(name: str, reader: Reader, uri: str, options: Options) -> tuple[ImageInfo, ...]:
    """`Reader.scan` of the reader installed as `name`. Raises `LimnerError`, also where the file breaks it."""
    if not _limited(name, type(reader)):
        return _guarded(name, uri, lambda: tuple(reader.scan(uri, options)))
    return _infos(_call("answer_scan", name, uri, options.texts(), seconds=_seconds(uri, SCAN_SECONDS)))


def scan_folder(name: str, reader: Reader, folder: str, options: Options) -> FolderScan:
    """`FolderReader.scan_folder`, or else `Reader.scan` of a folder. Raises `LimnerError`, as above."""
    if not _limited(name, type(reader)):
        return _guarded(name, folder, lambda: _scanned(reader, folder, options))
    infos, failed, side = _call("answer_folder", name, folder, options.texts(), seconds=FOLDER_SECONDS)
    return FolderScan(
        _infos(infos),
        tuple(
            (tuple(files), ReadError(subject, rule, value=value, remedy=remedy))
            for files, (subject, rule, value, remedy) in failed
        ),
        tuple((str(path), str(reason)) for path, reason in side),
    )


@cache
def _limited(name: str, kind: Any) -> bool:
    """Whether readers of that class are asked in the limited process: what is installed there, and not isolated."""
    if getattr(kind, "isolated", False) or name not in installed("limner.readers"):
        return False
    return load("limner.readers", name) is kind


@cache
def _reader(name: str) -> Reader:
    """The reader of that name, in the limited process."""
    make: Any = load("limner.readers", name)
    return make()


def _seconds(uri: str, local: float) -> float:
    return REMOTE_SECONDS if is_remote(uri) else local


def _call(function: str, name: str, uri: str, *arguments: Any, seconds: float) -> Any:
    try:
        return run_sandboxed(f"{__name__}:{function}", name, uri, *arguments, seconds=seconds, megabytes=SCAN_MEMORY_MB)
    except SandboxError as error:
        if error.code == "raised":
            raise _mistake(name, uri, error.value) from error
        rule, remedy = _RULES[error.code]
        raise ReadError(uri, rule, value=error.value, remedy=remedy) from error


def _guarded(name: str, uri: str, ask: Callable[[], _T]) -> _T:
    """What `ask` returns; an exception that is not limner's becomes a `ReadError` about the file."""
    try:
        return ask()
    except LimnerError:
        raise
    except Exception as error:
        raise _mistake(name, uri, type(error).__name__) from error


def _mistake(name: str, uri: str, kind: str) -> ReadError:
    if kind == "UnicodeEncodeError":
        rule = f"its name must be UTF-8, since the library of the reader {name!r} takes no other"
        return ReadError(uri, rule, remedy="Rename it")
    return ReadError(
        uri,
        f"the reader {name!r} must be able to make sense of it",
        value=f"{kind} in the reader",
        remedy="The file may be damaged: get an undamaged copy. If it is whole, report this as a mistake of the reader",
    )


def _infos(records: Sequence[object]) -> tuple[ImageInfo, ...]:
    return tuple(ImageInfo.from_json(record) for record in records)


def _scanned(reader: Reader, folder: str, options: Options) -> FolderScan:
    if isinstance(reader, FolderReader):
        return reader.scan_folder(folder, options)
    return FolderScan(tuple(reader.scan(folder, options)))


# What the limited process runs.


def _options(name: str, texts: dict[str, str]) -> Options:
    return parse_options(options_of(_reader(name)), texts, f"reader {name!r}")


def answer_claim(name: str, uri: str, head: str) -> dict[str, Any]:
    """`Reader.claim` as JSON."""
    return asdict(_reader(name).claim(uri, head.encode("latin-1")))


def answer_scan(name: str, uri: str, options: dict[str, str]) -> list[Any]:
    """`Reader.scan` as JSON."""
    return [info.to_json() for info in _reader(name).scan(uri, _options(name, options))]


def answer_folder(name: str, folder: str, options: dict[str, str]) -> list[Any]:
    """`FolderReader.scan_folder` as JSON."""
    found = _scanned(_reader(name), folder, _options(name, options))
    failed = [[list(files), [error.subject, error.rule, error.value, error.remedy]] for files, error in found.failed]
    return [[info.to_json() for info in found.infos], failed, [list(pair) for pair in found.side]]
