"""The limited process: parses and decodes DICOM for another process, and may die of it.

It reads requests from standard input and answers on standard output: a line of JSON each, an array's bytes after the
answer. Its memory is limited, it writes no file, and nothing that a file says leaves it but facts, codes and pixels.
"""

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from . import source
from .faults import FaultError

if TYPE_CHECKING:
    from .pixels import Frames

Answer = tuple[Mapping[str, Any], npt.NDArray[Any] | None]


class Desk:
    """Answers requests, and keeps the last file open for the next frame of it."""

    def __init__(self) -> None:
        self._name: tuple[str, int] | None = None
        self._file: BinaryIO | None = None
        self._frames: Frames | None = None

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """One request's answer. Raises `FaultError`, and whatever a parser raises."""
        work: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "header": self._header,
            "frame": self._frame,
            "table": self._table,
            "members": self._members,
            "listing": self._listing,
            "digest": self._digest,
        }
        return work[request["ask"]](request)

    def close(self) -> None:
        """Let the open file go."""
        if self._file is not None:
            self._file.close()
        self._name, self._file, self._frames = None, None, None

    def _header(self, request: Mapping[str, Any]) -> Answer:
        from .header import read_header  # noqa: PLC0415 - this module may be imported where pydicom may not

        with source.open_source(request["source"]) as file:
            return {"facts": read_header(file)}, None

    def _open(self, name: str) -> "Frames":
        from .pixels import Frames  # noqa: PLC0415 - this module may be imported where pydicom may not

        version = name, source.written(name)
        if self._frames is None or version != self._name:
            self.close()
            self._file = source.open_source(name)
            self._frames = Frames(self._file)
            self._name = version
        return self._frames

    def _frame(self, request: Mapping[str, Any]) -> Answer:
        frames = self._open(request["source"])
        pixels = np.ascontiguousarray(frames.read(request["index"])[request["start"] : request["stop"]])
        return {"shape": pixels.shape, "dtype": pixels.dtype.str}, pixels

    def _table(self, request: Mapping[str, Any]) -> Answer:
        voi = self._open(request["source"]).voi(request["index"])
        if voi is None or voi.table is None:
            raise FaultError("damaged", "lookup table")
        table = voi.table
        return {"first": table.first, "bits": table.bits, "entries": [int(entry) for entry in table.entries]}, None

    def _members(self, request: Mapping[str, Any]) -> Answer:
        return {"members": source.members(request["source"])}, None

    def _listing(self, request: Mapping[str, Any]) -> Answer:
        from .listing import read_listing  # noqa: PLC0415 - this module may be imported where pydicom may not

        with source.open_source(request["source"]) as file:
            return {"files": read_listing(file)}, None

    def _digest(self, request: Mapping[str, Any]) -> Answer:
        with source.open_source(request["source"]) as file:
            digest = hashlib.sha256()
            while piece := file.read(2**20):
                digest.update(piece)
        return {"sha256": digest.hexdigest()}, None


def main(megabytes: int) -> None:
    """Serve until standard input ends."""
    warnings.simplefilter("ignore")
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a codec prints goes where standard error goes
    limit(megabytes)
    desk = Desk()
    for line in requests:
        payload: npt.NDArray[Any] | None = None
        try:
            answer, payload = desk.answer(json.loads(line))
        except FaultError as fault:
            answer = {"fault": fault.code, "value": fault.value}
        except MemoryError:
            answer = {"fault": "memory"}
        except RecursionError:
            answer = {"fault": "nested"}
        except Exception as error:  # noqa: BLE001 - a parser may raise anything; its words may hold anything
            answer = {"fault": "damaged", "value": type(error).__name__}
        if "fault" in answer:
            desk.close()
        answers.write(json.dumps(answer).encode() + b"\n")
        if payload is not None:
            answers.write(payload.data)
        answers.flush()


def limit(megabytes: int) -> None:
    """Limit this process's memory, and forbid core dumps and files. Nothing where the system has no such limits."""
    try:
        import resource  # noqa: PLC0415 - not every system has it
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, megabytes * 2**20), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main(int(sys.argv[1]))
