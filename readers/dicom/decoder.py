"""What a limited process is asked about studies. This side parses no DICOM and holds no library that does."""

from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from ..sandbox import MEMORY_MB, SandboxedProcess, SandboxError, shared_process
from .faults import FaultError
from .metadata import FileMetadata
from .source import Kind
from .voi_lut import Table

HEADER_SECONDS: Final = 30.0
FRAME_SECONDS: Final = 120.0
FRAME_TYPES: Final = ("<f4", "|u1")


class Decoder:
    """Asks a limited process; by default the one that this process shares. Safe to share between threads."""

    def __init__(self, process: SandboxedProcess | None = None) -> None:
        self._process = process

    @property
    def process(self) -> SandboxedProcess:
        """The limited process."""
        return self._process or shared_process(MEMORY_MB)

    def header(self, source: str) -> FileMetadata:
        """A file's facts. Raises `FaultError`."""
        answer = self._ask("header", source)
        try:
            return FileMetadata.from_json(answer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FaultError("damaged", type(error).__name__) from error

    def frame(self, source: str, index: int, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start:stop of frame `index` (from 0): float32 (rows, columns) or uint8 (…, 3). Raises `FaultError`."""
        pixels = self._ask("frame", source, index, start, stop, seconds=FRAME_SECONDS)
        if not isinstance(pixels, np.ndarray) or cast("Any", pixels).dtype.str not in FRAME_TYPES:
            raise FaultError("decode")
        return cast("npt.NDArray[Any]", pixels)

    def table(self, source: str, index: int) -> Table:
        """The VOI lookup table of frame `index` (from 0). Raises `FaultError` where there is none that can be read."""
        answer = self._ask("table", source, index)
        try:
            entries = np.array(answer["entries"], dtype=np.float64)
            return Table(float(answer["first"]), entries, int(answer["bits"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FaultError("damaged", type(error).__name__) from error

    def members(self, source: str) -> list[tuple[str, Kind, str]]:
        """See `source.members`. Raises `FaultError`."""
        found = self._ask("members", source)
        return [(str(name), cast("Kind", kind), str(fault)) for name, kind, fault in found]

    def listing(self, source: str) -> list[list[str]]:
        """See `listing.read_listing`. Raises `FaultError`."""
        return self._ask("listing", source)

    def digest(self, source: str) -> str:
        """The sha256 of a source's bytes, in hexadecimal. Raises `FaultError`."""
        return str(self._ask("digest", source, seconds=FRAME_SECONDS))

    def close(self) -> None:
        """End the process; the next question starts another."""
        self.process.close()

    def _ask(self, function: str, *arguments: Any, seconds: float | None = None) -> Any:
        module = "source" if function == "members" else "decoder_worker"
        try:
            return self.process.call(
                f"{__package__}.{module}:{function}", *arguments, seconds=seconds or HEADER_SECONDS
            )
        except SandboxError as error:
            raised = error.code == "raised"
            raise FaultError("damaged" if raised else error.code, error.value) from error


def decoder() -> Decoder:
    """The decoder of this process."""
    return Decoder()
