"""Files that a stranger wrote, opened and parsed with limits. All JSON and YAML of models is read here.

What can be opened is a regular file: a named pipe would wait for ever, and a device has no end.
"""

# yaml has no types:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import ast
import io
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

import yaml

from ...readers import files
from ...readers.errors import ModelError, excerpt
from ...readers.files import MAX_JSON_DEPTH
from .foreign import foreign

MIB: Final = 2**20
MOST_JSON = 32 * MIB
MOST_YAML = MIB // 4
MOST_TEXT = 256 * MIB
"""Bytes of a file that is no weights: tokenizers, templates, settings that a library reads."""
MOST_VALUES = 200_000
"""How many values a file may hold, those that YAML's aliases repeat counted each time."""
LARGEST = 10**40
"""Beyond this no whole number is one that a model needs."""
COMPLETE = "Check the path, or complete the folder; for a hub id add --fetch where there is a network"
WIDEST = 4096
"""Pixels: the largest side of a tile."""


def open_file(path: Path, subject: str, *, most: int | None = None) -> io.BufferedReader:
    """A regular file of at most `most` bytes, open for reading. Raises `ModelError` that begins with `subject`."""
    with foreign(subject, _readable(path), remedy=COMPLETE):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))

        def checked(_name: str, _flags: int) -> int:
            return handle

        try:
            found = os.fstat(handle)
            check_kind(found.st_mode, path.name, subject)
            check_size(found.st_size, most, path.name, subject)
            return open(path, "rb", opener=checked)
        except BaseException:
            os.close(handle)
            raise


def check_size(size: int, most: int | None, name: str, subject: str) -> None:
    """Raise `ModelError` where a file is larger than it may be."""
    if most is not None and size > most:
        remedy = "Check that it is the right file"
        raise ModelError(subject, f"{excerpt(name)} may have at most {most} bytes", value=str(size), remedy=remedy)


def check_kind(mode: int, name: str, subject: str) -> None:
    """Raise `ModelError` where a file of that mode (`st_mode`) is not a regular one."""
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket"}
        raise ModelError(
            subject,
            f"{excerpt(name)} must be a regular file",
            value=kinds.get(stat.S_IFMT(mode), "a device"),
            remedy="Put the model's own file there",
        )


def check_folder(folder: Path, subject: str) -> None:
    """Check what libraries will open in a folder by themselves: regular files, text of at most `MOST_TEXT` bytes.

    Raises `ModelError`. Folders in it and links that lead nowhere are passed over.
    """
    with foreign(subject, "its folder must be readable", remedy="Check the path and its permissions"):
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(found.st_mode):
                check_kind(found.st_mode, entry.name, subject)
            if entry.name.endswith((".json", ".txt", ".jinja", ".model")):
                check_size(found.st_size, MOST_TEXT, entry.name, subject)


def read_bytes(path: Path, subject: str, *, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises `ModelError` that begins with `subject`."""
    with (
        foreign(subject, _readable(path), remedy=COMPLETE),
        open_file(path, subject, most=most) as file,
    ):
        return file.read(os.fstat(file.fileno()).st_size)  # to read `most` would ask for as much memory


class Settings(dict[str, Any]):
    """A mapping out of a file of a model: what it says under a key, once it is sure that it is of the right type.

    `where` names file and model in errors, `before` the keys that lead to it. All methods raise `ModelError` that
    names the file, the key and the value.
    """

    def __init__(self, content: Mapping[str, Any], where: str, before: str = "") -> None:
        super().__init__(content)
        self.where = where
        self._before = before

    def part(self, key: str) -> Self:
        """The mapping under a key, an empty one where there is none."""
        found = self.get(key)
        if found is not None and not isinstance(found, dict):
            raise self.wrong(key, "a mapping")
        return type(self)(cast("dict[str, Any]", found or {}), self.where, f"{self._before}{key}.")

    def parts(self, key: str) -> list[Self]:
        """The list of mappings under a key, an empty one where there is none."""
        several = self.list(key)
        if not all(isinstance(one, dict) for one in several):
            raise self.wrong(key, "a list of mappings")
        return [type(self)(one, self.where, f"{self._before}{key}.{i}.") for i, one in enumerate(several)]

    def list(self, key: str) -> list[Any]:
        """The list under a key, an empty one where there is none."""
        found = self.get(key)
        if found is not None and not isinstance(found, list):
            raise self.wrong(key, "a list")
        return cast("list[Any]", found or [])

    def text(self, key: str, default: str = "") -> str:
        """The text under a key, `default` where there is none."""
        found = self.get(key)
        if found is not None and not isinstance(found, str):
            raise self.wrong(key, "text")
        return default if found is None else found

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false under a key, `default` where the key is absent; null is false."""
        found = self.get(key, default)
        if found is not None and not isinstance(found, bool):
            raise self.wrong(key, "true or false")
        return bool(found)

    def whole(self, key: str, default: int, *, least: int = 1, most: int = LARGEST) -> int:
        """The whole number under a key, `default` where there is none."""
        found = self.get(key)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            raise self.wrong(key, f"a whole number from {least}" + (f" to {most}" if most < LARGEST else ""))
        return found

    def needed(self, key: str, *, least: int = 1, most: int = LARGEST) -> int:
        """The whole number that must stand under a key."""
        if self.get(key) is None:
            raise self.wrong(key, "stated")
        return self.whole(key, 0, least=least, most=most)

    def number(self, key: str, default: float, *, above: float | None = None) -> float:
        """The number under a key, `default` where there is none."""
        found = self.get(key)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, (int, float)) or (above is not None and found <= above):
            raise self.wrong(key, "a number" if above is None else f"a number above {above:g}")
        return float(found)

    def wrong(self, key: str, kind: str) -> ModelError:
        """The error of a value that is not of its kind."""
        return ModelError(
            self.where,
            f"{excerpt(self._before + key)} must be {kind}",
            value=excerpt(str(self.get(key)), 80),
            remedy="Correct the file, or get it again from where the model comes from",
        )


def read_json(path: Path, subject: str) -> Settings:
    """The mapping in a JSON file. Raises `ModelError` for anything else, and for what `_check` refuses."""
    content = read_bytes(path, subject, most=MOST_JSON)
    with foreign(subject, _readable(path), remedy=COMPLETE):
        found: object = files.parse_json(content.decode("utf-8"), allow_nan=True)
    return _mapping(found, f"{path.name} of {subject}")


def parse_json(text: str, subject: str) -> Any:
    """What a JSON text holds. Raises `ValueError` where it is none, `ModelError` for what `_check` refuses."""
    found = files.parse_json(text, allow_nan=True)  # `_check` says which number is not finite
    _check(found, subject)
    return found


def python_value(text: str, subject: str) -> Any:
    """What a text holds as Python writes dictionaries, lists and numbers; the text itself where it is a bare word.

    Raises `ModelError` for what `_check` refuses.
    """
    try:
        found: Any = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    _check(found, subject)
    return found


def read_yaml(path: Path, subject: str) -> Settings:
    """The mapping in a YAML file. Raises `ModelError` for anything else, and for what `_check` refuses."""
    content = read_bytes(path, subject, most=MOST_YAML)
    with foreign(subject, _readable(path), remedy=COMPLETE):
        text = content.decode("utf-8")
    return parse_yaml(text, subject)


def parse_yaml(text: str, subject: str) -> Settings:
    """The mapping in a YAML text. Raises `ModelError` for anything else, and for what `_check` refuses."""
    with foreign(subject, "it must be YAML", remedy="Correct the file, or get it again"):
        found: object = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that is stricter still
    return _mapping(found, subject)


def _readable(path: Path) -> str:
    return f"it must have a readable {excerpt(path.name)}"


def _mapping(found: object, where: str) -> Settings:
    if not isinstance(found, dict):
        raise ModelError(
            where,
            "it must be a mapping of keys to values",
            value=type(found).__name__,
            remedy="Correct the file, or get it again",
        )
    _check(found, where)
    return Settings(cast("dict[str, Any]", found), where)


def _check(content: object, where: str) -> None:
    """Raise `ModelError` for too many values, too deep nesting, keys that are not text and odd numbers."""
    remedy = "Correct the file, or get it again"
    for count, (path, value) in enumerate(_walk(content)):
        if count >= MOST_VALUES or len(path) > MAX_JSON_DEPTH:
            rule = f"it may hold {MOST_VALUES} values, nested {MAX_JSON_DEPTH} deep at most"
            raise ModelError(where, rule, value=excerpt(".".join(map(str, path)), 60), remedy=remedy)
        if isinstance(value, float) and not abs(value) < float("inf"):
            rule = f"{excerpt('.'.join(map(str, path)))} must be a finite number"
            raise ModelError(where, rule, value=str(value), remedy=remedy)
        if isinstance(value, int) and abs(value) >= LARGEST:
            rule = f"{excerpt('.'.join(map(str, path)))} must be below 10^40"
            raise ModelError(where, rule, value=f"{value.bit_length()} bits", remedy=remedy)


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


class _Loader(yaml.SafeLoader):
    """YAML's safe loader; every key of a mapping is text, and given once, and nothing is nested too deeply."""

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - its own name for it
        """Begin a list or mapping in brackets."""
        self._check_depth(self.flow_level)
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        """Begin a list or mapping by indentation."""
        self._check_depth(len(self.indents))
        return super().add_indent(column)

    def _check_depth(self, levels: int) -> None:
        if levels > MAX_JSON_DEPTH:
            msg = f"it is nested more than {MAX_JSON_DEPTH} deep"
            raise ValueError(msg)


def _mapping_once(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    pairs = [(loader.construct_object(key, deep=True), value) for key, value in node.value]
    bad = [key for key, _ in pairs if not isinstance(key, str) or key == "<<"]  # merged keys can grow without an end
    if bad:
        msg = f"the key {bad[0]!r} must be text, and no merge"
        raise ValueError(msg)
    return files.reject_duplicate_names(
        [(cast("str", key), loader.construct_object(value, deep=True)) for key, value in pairs]
    )


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_once)


def check_archive(file: BinaryIO) -> None:
    """Raise `ValueError` where a zip archive unpacks to more than `MOST_TEXT` bytes beyond its own size."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
        if unpacked > size + MOST_TEXT:
            msg = f"{size} bytes unpack to {unpacked}"
            raise ValueError(msg)
    file.seek(0)
