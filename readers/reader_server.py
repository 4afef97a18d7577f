"""Methods of readers that are called in the sandboxed process, with values and results that JSON can hold."""

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from operator import attrgetter
from typing import Any

from .image import FolderReader, Reader
from .options import options_of, parse_options


def identify(readers: Sequence[tuple[str, str]], uri: str, head: str) -> list[int | None]:
    """The confidence of each of the readers, (name, "module:class"); None for one that cannot be called here."""
    return [run_reader("identify", name, maker, uri, head) if _is_callable(maker) else None for name, maker in readers]


def run_reader(method: str, name: str, maker: str, uri: str, argument: Any) -> Any:
    """Call a method of the reader `name`, whose class is `maker`, "module:class"."""
    return run_method(method, _reader(maker), name, uri, argument)


def run_method(method: str, reader: Reader, name: str, uri: str, argument: Any) -> Any:
    """Call a method of a reader with a value from JSON, and return its result as JSON.

    argument: the first bytes of a file to identify; else texts of options, None where all have their defaults.
    """
    if method == "identify":
        return reader.identify(uri, argument.encode("latin-1"))
    model = options_of(reader)
    options = model.model_construct() if argument is None else parse_options(model, argument, f"reader {name!r}")
    if method == "scan_file":
        return [asdict(info) for info in reader.scan(uri, options)]
    if not isinstance(reader, FolderReader):
        return [asdict(info) for info in reader.scan(uri, options)], [], []
    found = reader.scan_folder(uri, options)
    failed = [[list(files), error.parts] for files, error in found.failed]
    return [asdict(info) for info in found.infos], failed, found.side


@cache
def _is_callable(maker: str) -> bool:
    """Whether the class of a reader can be imported here, and its methods called."""
    try:
        kind = _class(maker)
    except Exception:  # noqa: BLE001 - whatever a plug-in raises, the caller tells it when it imports the plug-in
        return False
    return isinstance(kind, type) and not getattr(kind, "isolated", False)


@cache
def _reader(maker: str) -> Reader:
    return _class(maker)()


def _class(maker: str) -> Any:
    module, _, name = maker.partition(":")
    return attrgetter(name)(importlib.import_module(module))
