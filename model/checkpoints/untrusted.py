"""Open and parse files from untrusted sources, with limits. All JSON of models is read here; YAML: `untrusted_yaml`.

Only regular files are opened: a named pipe would block for ever, and a device has no end.
"""

import ast
import io
import os
import stat
import zipfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

from ...readers import files
from ...readers.errors import LimnerError, ModelError, excerpt
from ...readers.files import MAX_JSON_DEPTH

MIB: Final = 2**20
MAX_JSON = 32 * MIB
MAX_TEXT = 256 * MIB
"""Bytes of a file other than weights: tokenizers, templates, settings that a library reads."""
MAX_VALUES = 200_000
"""How many values a file may hold; those that YAML's aliases repeat are counted each time."""
LARGEST = 10**40
"""No model needs larger whole numbers."""
MAX_TILE = 4096
"""Pixels: the largest side of a tile."""
MAX_MESSAGE = 300
"""Characters of another library's message that are shown."""
CHECK_PATH = "Check the path, or complete the folder; for a hub id add --fetch where there is a network"
CHECK_FILE = "Correct the file, or get it again from where the model comes from"


@contextmanager
def wrap_errors(
    subject: str, rule: str, *, remedy: str, running: bool = False, kind: type[LimnerError] = ModelError
) -> Generator[None]:
    """Turn every exception of another library over an untrusted file into a `ModelError`, or another `kind`.

    Panics of Rust libraries, which are no `Exception`, are caught too. limner's errors pass, and so does what ends a
    process: `KeyboardInterrupt`, `SystemExit`, a signal. While a network is `running`, `MemoryError` passes as well,
    since fewer regions may fit.
    """
    try:
        yield
    except LimnerError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if running and isinstance(error, MemoryError):
            raise
        raise kind(subject, rule, value=error_text(error), remedy=remedy) from error


def error_text(error: BaseException) -> str:
    """The type of another library's exception and the first two lines of its message, on one line."""
    message = " ".join(str(error).strip().splitlines()[:2])
    return excerpt(f"{type(error).__name__}: {message}" if message else type(error).__name__, MAX_MESSAGE)


def open_file(path: Path, subject: str, *, most: int | None = None) -> io.BufferedReader:
    """Open a regular file of at most `most` bytes for reading. Raises `ModelError` about `subject`."""
    with wrap_errors(subject, readable(path), remedy=CHECK_PATH):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(handle)
            _check_type(status.st_mode, path.name, subject)
            _check_size(status.st_size, most, path.name, subject)
            return open(path, "rb", opener=lambda _name, _flags: handle)
        except BaseException:
            os.close(handle)
            raise


def _check_size(size: int, most: int | None, name: str, subject: str) -> None:
    if most is not None and size > most:
        rule, remedy = f"must have at most {most} bytes", "Check that it is the right file"
        raise ModelError(f"{excerpt(name)} of {subject}", rule, value=str(size), remedy=remedy)


def _check_type(mode: int, name: str, subject: str) -> None:
    if not stat.S_ISREG(mode):
        types = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
        value, remedy = types.get(stat.S_IFMT(mode), "a device"), "Put the model's own file there"
        raise ModelError(f"{excerpt(name)} of {subject}", "must be a regular file", value=value, remedy=remedy)


def check_folder(folder: Path, subject: str) -> None:
    """Check the files that libraries will open in a folder: regular files, text of at most `MAX_TEXT` bytes.

    Raises `ModelError`. Subfolders and broken links are ignored.
    """
    with wrap_errors(subject, "must have a readable folder", remedy="Check the path and its permissions"):
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                _check_type(status.st_mode, entry.name, subject)
            if entry.name.endswith((".json", ".txt", ".jinja", ".model")):
                _check_size(status.st_size, MAX_TEXT, entry.name, subject)


def read_bytes(path: Path, subject: str, *, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises `ModelError` about `subject`."""
    with wrap_errors(subject, readable(path), remedy=CHECK_PATH), open_file(path, subject, most=most) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # to read `most` would ask for as much memory


def check_archive(file: BinaryIO) -> None:
    """Raise `ValueError` where a zip archive unpacks to more than `MAX_TEXT` bytes beyond its own size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
        if unpacked > size + MAX_TEXT:
            msg = f"{size} bytes unpack to {unpacked}"
            raise ValueError(msg)
    file.seek(0)


class UntrustedDict(dict[str, Any]):
    """A mapping from a file of a model, with getters that check types; all raise `ModelError`.

    `where` names file and model in errors, `prefix` the keys that lead to this mapping. A value that is absent or null
    is the getter's default.
    """

    def __init__(self, content: Mapping[str, Any], where: str, prefix: str = "") -> None:
        super().__init__(content)
        self.where = where
        self._prefix = prefix

    def part(self, key: str) -> Self:
        """The mapping under a key; empty by default."""
        return type(self)(self._get(key, {}, dict, "a mapping"), self.where, f"{self._prefix}{key}.")

    def parts(self, key: str) -> list[Self]:
        """The list of mappings under a key; empty by default."""
        several = self.list(key)
        if not all(isinstance(one, dict) for one in several):
            raise self.wrong(key, "a list of mappings")
        return [type(self)(one, self.where, f"{self._prefix}{key}.{i}.") for i, one in enumerate(several)]

    def list(self, key: str) -> list[Any]:
        """The list under a key; empty by default."""
        return self._get(key, [], list, "a list")

    def text(self, key: str, default: str = "") -> str:
        """The text under a key."""
        return self._get(key, default, str, "text")

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false under a key; null is false."""
        return self._get(key, default and key not in self, bool, "true or false")

    def integer(self, key: str, default: int, *, least: int = 1, most: int = LARGEST) -> int:
        """The whole number under a key."""
        kind = f"a whole number from {least}" + (f" to {most}" if most < LARGEST else "")
        found = self._get(key, default, int, kind)
        if self.get(key) is not None and not least <= found <= most:
            raise self.wrong(key, kind)
        return found

    def required_integer(self, key: str, *, least: int = 1, most: int = LARGEST) -> int:
        """The whole number under a key that must be there."""
        if self.get(key) is None:
            raise self.wrong(key, "stated")
        return self.integer(key, 0, least=least, most=most)

    def number(self, key: str, default: float, *, above: float | None = None) -> float:
        """The number under a key."""
        kind = "a number" if above is None else f"a number above {above:g}"
        found = float(self._get(key, default, (int, float), kind))
        if self.get(key) is not None and above is not None and found <= above:
            raise self.wrong(key, kind)
        return found

    def _get(self, key: str, default: Any, types: type | tuple[type, ...], kind: str) -> Any:
        found = self.get(key)
        if found is None:
            return default
        if not isinstance(found, types) or (isinstance(found, bool) and types is not bool):
            raise self.wrong(key, kind)
        return found

    def wrong(self, key: str, kind: str) -> ModelError:
        """The error of a value that is not of its kind, a noun phrase."""
        subject, value = f"{excerpt(self._prefix + key)} in {self.where}", excerpt(str(self.get(key)), 80)
        return ModelError(subject, f"must be {kind}", value=value, remedy=CHECK_FILE)


def read_json(path: Path, subject: str) -> UntrustedDict:
    """The mapping in a JSON file. Raises `ModelError` for anything else, and beyond the limits of `_check`."""
    content = read_bytes(path, subject, most=MAX_JSON)
    with wrap_errors(subject, readable(path), remedy=CHECK_PATH):
        found: object = files.parse_json(content.decode("utf-8"), allow_nan=True)
    return untrusted_mapping(found, f"{path.name} of {subject}")


def parse_json(text: str, subject: str) -> Any:
    """The value of a JSON text. Raises `ValueError` for other text, `ModelError` beyond the limits of `_check`."""
    found = files.parse_json(text, allow_nan=True)  # `_check` names the number that is not finite
    _check(found, subject)
    return found


def parse_python_literal(text: str, subject: str) -> Any:
    """The value of a Python literal; the text itself where it is none. Raises `ModelError` as `_check` does."""
    try:
        found: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    _check(found, subject)
    return found


def readable(path: Path) -> str:
    """The rule for a file that must be readable."""
    return f"must have a readable {excerpt(path.name)}"


def untrusted_mapping(found: object, where: str) -> UntrustedDict:
    """A mapping that JSON or YAML holds. Raises `ModelError` for anything else, and beyond the limits of `_check`."""
    if not isinstance(found, dict):
        raise ModelError(where, "must be a mapping of keys to values", value=type(found).__name__, remedy=CHECK_FILE)
    _check(cast("object", found), where)
    return UntrustedDict(cast("dict[str, Any]", found), where)


def _check(content: object, where: str) -> None:
    """Raise `ModelError` for too many or too deeply nested values, infinite and huge numbers."""
    for count, (path, value) in enumerate(_walk(content)):
        place = excerpt(".".join(map(str, path)), 60)
        if count >= MAX_VALUES or len(path) > MAX_JSON_DEPTH:
            rule = f"must hold at most {MAX_VALUES} values, nested at most {MAX_JSON_DEPTH} deep"
            raise ModelError(where, rule, value=place, remedy=CHECK_FILE)
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise ModelError(f"{place} in {where}", "must be a finite number", value=str(value), remedy=CHECK_FILE)
        if isinstance(value, int) and abs(value) >= LARGEST:
            bits = f"{value.bit_length()} bits"
            raise ModelError(f"{place} in {where}", "must be below 10^40", value=bits, remedy=CHECK_FILE)


def _walk(content: object) -> Iterator[tuple[tuple[object, ...], object]]:
    """Every value in lists and mappings, with the keys that lead to it, deeper ones last."""
    waiting: list[tuple[tuple[object, ...], object]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        yield path, value
        if isinstance(value, dict):
            waiting += [((*path, key), one) for key, one in cast("dict[object, object]", value).items()]
        elif isinstance(value, list):
            waiting += [((*path, i), one) for i, one in enumerate(cast("list[object]", value))]
