"""The functions that run in the sandboxed process: they parse and decode DICOM, and return metadata, codes and pixels.

Each may raise `FaultError`, and whatever a parser or decoder raises.
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .faults import FaultError
from .source import HEAD_BYTES, members, modified_ns, open_source, sniff

if TYPE_CHECKING:
    from .pixels import Frames

__all__ = ["dicomdir", "digest", "frame", "header", "headers", "members", "originals", "table", "uids"]

_MAX_RECORDS = 200_000  # in a DICOMDIR


class _OpenFile:
    """The file that was read last, kept open for its next frame."""

    def __init__(self) -> None:
        self._version: tuple[str, int] | None = None
        self._file: BinaryIO | None = None
        self._frames: Frames | None = None

    def frames(self, name: str) -> "Frames":
        """The frames of a source."""
        from .pixels import Frames

        version = name, modified_ns(name)
        if self._frames is None or version != self._version:
            self.close()
            self._file = open_source(name)
            self._frames = Frames(self._file)
            self._version = version
        return self._frames

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._version, self._file, self._frames = None, None, None


_OPEN = _OpenFile()


def header(name: str) -> dict[str, Any]:
    """A file's metadata, as JSON."""
    from .header import read_header

    with open_source(name) as file:
        return read_header(file)


def uids(name: str) -> list[str]:
    """The UIDs of a file's study, series and instance, "" for one that it lacks; also of what is no image."""
    from .attributes import uid
    from .header import parse

    with open_source(name) as file:
        if sniff(file.read(HEAD_BYTES)) not in {"dicom", "no-preamble"}:
            raise FaultError("not-dicom")
        dataset, _ = parse(file)
    return [uid(dataset, keyword) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]


def headers(names: Sequence[str]) -> list[Any]:
    """The metadata of several files: each as `header` has it, or [code, value] of a fault.

    None where something else was raised: the file is to be read alone, so that it fails as it does there.
    """
    found: list[Any] = []
    for name in names:
        try:
            found.append(header(name))
        except FaultError as fault:
            found.append([fault.code, fault.value])
        except Exception:  # noqa: BLE001 - a parser may raise anything
            found.append(None)
    return found


def originals(names: Sequence[str], frames: bool) -> list[Any]:
    """The headers of files for new objects that refer to them: see `originals.pack`."""
    from .header import parse
    from .originals import pack

    found: list[Any] = []
    for name in names:
        with open_source(name) as file:
            found.append(pack(parse(file)[0], frames=frames))
    return found


def frame(name: str, index: int, start: int, stop: int, suv: bool = False) -> npt.NDArray[Any]:
    """Rows start:stop of frame `index` (from 0), of PET as `suv` where asked for."""
    try:
        return np.ascontiguousarray(_OPEN.frames(name).read(index, suv=suv)[start:stop])
    except BaseException:
        _OPEN.close()
        raise


def table(name: str, index: int) -> dict[str, Any]:
    """The VOI lookup table of frame `index` (from 0)."""
    try:
        found = _OPEN.frames(name).voi_table(index)
    except BaseException:
        _OPEN.close()
        raise
    if found is None:
        raise FaultError("damaged", "lookup table")
    return {"first": found.first, "bits": found.bits, "entries": [int(entry) for entry in found.entries]}


def dicomdir(name: str) -> list[list[str]]:
    """The path, in parts, of every file that a DICOMDIR lists, sorted (PS3.3 F.3)."""
    from .header import parse

    with open_source(name) as file:
        records = list(parse(file)[0].get("DirectoryRecordSequence") or [])
        if len(records) > _MAX_RECORDS:
            raise FaultError("too-many-frames", f"{len(records)} records")
        ids = [found for record in records if (found := record.get("ReferencedFileID"))]
        return sorted([one] if isinstance(one, str) else [str(part) for part in one] for one in ids)


def digest(name: str) -> str:
    """The sha256 of a source's bytes, in hexadecimal."""
    with open_source(name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
