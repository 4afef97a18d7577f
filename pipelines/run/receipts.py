"""Receipts for the objects of a run that were sent to a server: one line each, as soon as its outcome is known.

The file is readable by its owner only. A line that a killed process did not complete is cut when it is next opened.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from ...readers.errors import RequestError
from ...readers.files import open_regular
from .run_files import StoreError, as_store_errors
from .run_folder import add_checksum, append_synced, cut_incomplete_line, lock, remove_checksum

SENT: Final = "sent.jsonl"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an object that was sent."""

    file: str
    """Its name in the run folder."""
    sop_instance_uid: str
    object_sha256: str
    """Of its bytes; that of the line is its last value."""
    server: str
    """The server's URL."""
    status: str
    """Stored, already there or failed."""
    words: str
    """The server's warning, or why it failed."""
    when: str
    """The time of the answer (UTC, ISO 8601)."""


class Receipts:
    """The receipts of a run, open and locked for writing. Use as a context manager."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self._folder = folder
        self._file = file
        self.all = read_receipts(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open those of a run folder. Raises `RequestError` where another process sends it, `StoreError`."""
        path = folder / SENT
        with as_store_errors(path):
            file = open_regular(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab")
            (folder / SENT).chmod(0o600)
        try:
            try:
                lock(file, folder)
            except RequestError as error:
                remedy = "Wait for it or stop it"
                raise RequestError(str(folder), "must not be sent twice at a time", remedy=remedy) from error
            with as_store_errors(path):
                cut_incomplete_line(path)
            return cls(folder, file)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, receipt: Receipt) -> None:
        """Write a receipt and sync it to disk. Raises `StoreError`."""
        line = add_checksum(json.dumps(asdict(receipt), separators=(",", ":")).encode())
        append_synced(self._file, line, self._folder / SENT)
        self.all.append(receipt)


def read_receipts(folder: Path) -> list[Receipt]:
    """The receipts in a run folder, without an incomplete last line. Raises `StoreError` for a damaged line."""
    path = folder / SENT
    if not path.exists():
        return []
    with as_store_errors(path):
        lines = path.read_bytes().splitlines(keepends=True)
    found: list[Receipt] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            continue
        try:
            values: dict[str, Any] = json.loads(remove_checksum(line))
            found.append(Receipt(**values))
        except (ValueError, TypeError) as error:
            where, remedy = f"{path}, line {number}", "Delete that line: its object is then looked for on its server"
            rule = "must be one receipt, as limner wrote it"
            raise StoreError(where, rule, value=str(error), remedy=remedy) from error
    return found
