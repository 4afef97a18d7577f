"""Calls of readers, in the sandboxed process where that can import the reader.

A reader with `isolated = True` parses nothing in the process that calls it, and readers that are not installed as
plug-ins have no name by which the sandbox could import them: these run here.
"""

import contextlib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from .errors import LimnerError, ReadError
from .files import is_remote
from .image import FolderScan, ImageInfo, Reader
from .options import Options
from .plugins import installed, load
from .reader_server import run_method
from .sandbox import SCAN_MEMORY_MB, SandboxError, run_sandboxed

IDENTIFY_SECONDS: Final = 6.0
SCAN_SECONDS: Final = 20.0
FOLDER_SECONDS: Final = 60.0
REMOTE_SECONDS: Final = 60.0
"""Processor time for identifying a file, by all readers or one, for scanning it, a folder, and anything remote."""

_SERVER: Final = "limner.readers.reader_server"
_DAMAGED: Final = "Leave the file out unless you trust its source"
_RULES: Final = {
    "time": ("must be readable in time", _DAMAGED),
    "memory": ("must have a header that fits the memory limit", _DAMAGED),
    "died": ("must not crash the library that reads it", _DAMAGED),
    "nested": ("must not be nested deeper than Python's recursion limit", "Get an undamaged copy of the file"),
}


def identify(candidates: Mapping[str, Reader], makers: Mapping[str, str], uri: str, head: bytes) -> dict[str, int]:
    """Call `Reader.identify` of each reader, by name. Raises `LimnerError`, also where the file breaks a reader.

    makers: classes of installed readers, "module:class"; such a reader is looked up only if it must run here.
    """
    text = head.decode("latin-1")
    asked = [(name, makers[name]) for name in candidates if name in makers]
    found: dict[str, int | None] = {}
    if asked:
        with contextlib.suppress(LimnerError, SandboxError):  # which reader fails is found by asking each
            answers = _call("identify", asked, uri, text, seconds=_limit(uri, IDENTIFY_SECONDS))
            found = {name: answer for (name, _), answer in zip(asked, answers, strict=True)}
    for name in candidates:
        if found.get(name) is None:
            found[name] = _ask("identify", name, candidates[name], uri, text, IDENTIFY_SECONDS)
    return {name: int(found[name] or 0) for name in candidates}


def scan_file(name: str, reader: Reader, uri: str, options: Options) -> tuple[ImageInfo, ...]:
    """Call `Reader.scan` of the reader `name`. Raises `LimnerError`, also where the file breaks the reader."""
    return tuple(map(ImageInfo.from_json, _ask("scan_file", name, reader, uri, _texts(options), SCAN_SECONDS)))


def scan_folder(name: str, reader: Reader, folder: str, options: Options) -> FolderScan:
    """Call `FolderReader.scan_folder`, or else `Reader.scan` for a folder. Raises `LimnerError` likewise."""
    infos, failed, side = _ask("scan_folder", name, reader, folder, _texts(options), FOLDER_SECONDS)
    return FolderScan(
        tuple(map(ImageInfo.from_json, infos)),
        tuple(
            (tuple(files), ReadError(subject, rule, value=value, remedy=remedy))
            for files, (subject, rule, value, remedy) in failed
        ),
        tuple((str(path), str(reason)) for path, reason in side),
    )


def _ask(method: str, name: str, reader: Reader, uri: str, argument: Any, seconds: float) -> Any:
    """`run_method` in the sandbox where that can import the reader, else here."""
    try:
        maker = _maker(name, type(reader))
        if not maker:
            return run_method(method, reader, name, uri, argument)
        return _call("run_reader", method, name, maker, uri, argument, seconds=_limit(uri, seconds))
    except LimnerError:
        raise
    except Exception as error:
        code = error.code if isinstance(error, SandboxError) else "raised"
        fault = error.value if isinstance(error, SandboxError) else type(error).__name__
        if fault == "UnicodeEncodeError":
            rule = f"must have a name in UTF-8 for the reader {name!r}"
            raise ReadError(uri, rule, remedy="Rename the file") from error
        if code == "raised":
            rule, value = f"must be a file that the reader {name!r} can parse", f"{fault} in the reader"
            remedy = "Get an undamaged copy of the file, or report a defect of the reader if it is undamaged"
            raise ReadError(uri, rule, value=value, remedy=remedy) from error
        rule, remedy = _RULES[code]
        raise ReadError(uri, rule, value=fault, remedy=remedy) from error


def _call(function: str, *arguments: Any, seconds: float) -> Any:
    return run_sandboxed(f"{_SERVER}:{function}", *arguments, seconds=seconds, megabytes=SCAN_MEMORY_MB)


def _texts(options: Options) -> dict[str, str] | None:
    return None if options == type(options).model_construct() else options.texts()


def _limit(uri: str, seconds: float) -> float:
    return REMOTE_SECONDS if is_remote(uri) else seconds


@cache
def _maker(name: str, kind: Any) -> str:
    """The class of an installed reader that runs in the sandbox, as "module:class"; "" for another reader."""
    own = getattr(kind, "isolated", False) or name not in installed("limner.readers")
    return "" if own or load("limner.readers", name) is not kind else f"{kind.__module__}:{kind.__qualname__}"
