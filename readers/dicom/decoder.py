"""The client of the sandboxed process that parses and decodes DICOM; this side imports no DICOM library."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ..sandbox import MEMORY_MB, SandboxedProcess, SandboxError, shared_process
from .faults import FaultError
from .metadata import FileMetadata
from .source import Kind
from .voi_lut import LookupTable

HEADER_SECONDS: Final = 30.0
BATCH: Final = 32  # headers that are read in one call
BATCH_SECONDS: Final = 10.0
FRAME_SECONDS: Final = 120.0
FRAME_TYPES: Final = ("<f4", "|u1")


class Decoder:
    """Calls `decoder_worker` in a sandboxed process, by default the shared one; thread-safe."""

    def __init__(self, process: SandboxedProcess | None = None) -> None:
        self._process = process

    @property
    def process(self) -> SandboxedProcess:
        """The sandboxed process."""
        return self._process or shared_process(MEMORY_MB)

    def header(self, source: str) -> FileMetadata:
        """A file's metadata. Raises `FaultError`."""
        return _metadata(self._call("header", source))

    def uids(self, source: str) -> tuple[str, str, str]:
        """The UIDs of a file's study, series and instance, "" for one that it lacks. Raises `FaultError`."""
        study, series, sop = self._call("uids", source)
        return str(study), str(series), str(sop)

    def headers(self, sources: Sequence[str]) -> Iterator[FileMetadata | FaultError]:
        """Files' metadata or faults in order, as `header` has them.

        Files are asked for together, since a call costs more than reading a header. Those that crash the process, or
        take too long, are read again one by one.
        """
        for start in range(0, len(sources), BATCH):
            batch = list(sources[start : start + BATCH])
            answers: list[Any]
            try:
                answers = self._call("headers", batch, seconds=BATCH_SECONDS)
            except FaultError:
                answers = []
            for source, answer in zip_longest(batch, answers):
                try:
                    if isinstance(answer, list):
                        code, value = map(str, cast("list[object]", answer))
                        yield FaultError(code, value)
                    else:
                        yield self.header(source) if answer is None else _metadata(answer)
                except FaultError as fault:
                    yield fault

    def frame(self, source: str, index: int, start: int, stop: int, *, suv: bool = False) -> npt.NDArray[Any]:
        """Rows start:stop of frame `index` (from 0): float32 (rows, columns) or uint8 (…, 3); of PET as SUV if asked.

        Raises `FaultError`.
        """
        pixels = self._call("frame", source, index, start, stop, suv, seconds=FRAME_SECONDS)
        if not isinstance(pixels, np.ndarray) or cast("Any", pixels).dtype.str not in FRAME_TYPES:
            raise FaultError("decode")
        return cast("npt.NDArray[Any]", pixels)

    def table(self, source: str, index: int) -> LookupTable:
        """The VOI lookup table of frame `index` (from 0). Raises `FaultError` where no readable one is there."""
        answer = self._call("table", source, index)
        try:
            entries = np.array(answer["entries"], dtype=np.float64)
            return LookupTable(float(answer["first"]), entries, int(answer["bits"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FaultError("damaged", type(error).__name__) from error

    def members(self, archive: str) -> list[tuple[str, Kind, str]]:
        """See `source.members`. Raises `FaultError`."""
        return [(str(name), cast("Kind", kind), str(fault)) for name, kind, fault in self._call("members", archive)]

    def dicomdir(self, source: str) -> list[list[str]]:
        """See `decoder_worker.dicomdir`. Raises `FaultError`."""
        return self._call("dicomdir", source)

    def originals(self, sources: Sequence[str], *, frames: bool) -> list[Any]:
        """The headers of files, as `originals.pack` returns them. Raises `FaultError`."""
        return list(self._call("originals", list(sources), frames, seconds=FRAME_SECONDS))

    def digest(self, source: str) -> str:
        """The sha256 of a source's bytes, in hexadecimal. Raises `FaultError`."""
        return str(self._call("digest", source, seconds=FRAME_SECONDS))

    def close(self) -> None:
        """End the process; the next call starts another."""
        self.process.close()

    def _call(self, function: str, *arguments: Any, seconds: float | None = None) -> Any:
        seconds = seconds or HEADER_SECONDS
        try:
            return self.process.call(f"{__package__}.decoder_worker:{function}", *arguments, seconds=seconds)
        except SandboxError as error:
            raise FaultError("damaged" if error.code == "raised" else error.code, error.value) from error


def _metadata(answer: Any) -> FileMetadata:
    try:
        return FileMetadata.from_json(answer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FaultError("damaged", type(error).__name__) from error
