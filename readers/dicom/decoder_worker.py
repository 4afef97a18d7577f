"""What the limited process does for studies: parses and decodes DICOM; its answers are facts, codes and pixels only."""

import hashlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from . import source
from .faults import FaultError

if TYPE_CHECKING:
    from .pixels import Frames


class _LastFile:
    """The last file, kept open for the next frame of it."""

    def __init__(self) -> None:
        self._name: tuple[str, int] | None = None
        self._file: BinaryIO | None = None
        self._frames: Frames | None = None

    def frames(self, name: str) -> "Frames":
        """The frames of a source. Raises `FaultError`."""
        from .pixels import Frames

        version = name, source.written(name)
        if self._frames is None or version != self._name:
            self.close()
            self._file = source.open_source(name)
            self._frames = Frames(self._file)
            self._name = version
        return self._frames

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
        self._name, self._file, self._frames = None, None, None


_LAST = _LastFile()


def header(name: str) -> dict[str, Any]:
    """A file's facts, as JSON. Raises `FaultError`, and whatever a parser raises."""
    from .header import read_header

    with source.open_source(name) as file:
        return read_header(file)


def frame(name: str, index: int, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows start:stop of frame `index` (from 0). Raises `FaultError`, and whatever a decoder raises."""
    try:
        return np.ascontiguousarray(_LAST.frames(name).read(index)[start:stop])
    except BaseException:
        _LAST.close()
        raise


def table(name: str, index: int) -> dict[str, Any]:
    """The VOI lookup table of frame `index` (from 0). Raises `FaultError`, and whatever a parser raises."""
    try:
        voi = _LAST.frames(name).voi(index)
    except BaseException:
        _LAST.close()
        raise
    if voi is None or voi.table is None:
        raise FaultError("damaged", "lookup table")
    found = voi.table
    return {"first": found.first, "bits": found.bits, "entries": [int(entry) for entry in found.entries]}


def listing(name: str) -> list[list[str]]:
    """See `listing.read_listing`."""
    from .dicomdir import read_listing

    with source.open_source(name) as file:
        return read_listing(file)


def digest(name: str) -> str:
    """The sha256 of a source's bytes, in hexadecimal. Raises `FaultError`."""
    with source.open_source(name) as file:
        found = hashlib.sha256()
        while piece := file.read(2**20):
            found.update(piece)
    return found.hexdigest()
