"""Which blocks of a GeoTIFF are stored at all: a sparse file leaves out those in which nothing was written.

The byte counts of its first directory tell that without GDAL, which answers for one block at a time: 15 million blocks
of 256 px in a file of 10⁶ × 10⁶ px. A file that is no such TIFF, or is damaged, is not judged.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np
import numpy.typing as npt

from ..image import Mask

MAX_BLOCKS: Final = 1 << 25
_WIDTH, _HEIGHT, _SAMPLES, _ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 277, 278, 284, 322, 323
_BYTE_COUNTS: Final = (279, 325)  # of strips, of tiles
_TYPES: Final = {3: "u2", 4: "u4", 16: "u8"}
_PART: Final = 1 << 20  # counts read at a time
_MAX_TAGS: Final = 1024


@dataclass(frozen=True, slots=True)
class StoredBlocks:
    """The blocks of the full resolution."""

    size: tuple[int, int]
    """(width, height) of the image in pixels."""
    block: tuple[int, int]
    """(width, height) of a block in pixels."""
    stored: Mask
    """(rows, columns) of blocks: whether any band has bytes there."""

    @classmethod
    def read(cls, path: str) -> Self | None:
        """Read the first directory of a TIFF; None where it is none or its blocks cannot be told from that."""
        try:
            with Path(path).open("rb") as file:
                return cls._of(file)
        except (OSError, struct.error, ValueError, KeyError, OverflowError):
            return None

    @classmethod
    def _of(cls, file: BinaryIO) -> Self | None:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        big = struct.unpack_from(order + "H", head, 2)[0] == 43
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        file.seek(start)
        (number,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
        if number > _MAX_TAGS:
            return None
        entry, place = (20, 12) if big else (12, 8)
        table = file.read(number * entry)
        tags: dict[int, tuple[str, int, bytes]] = {}
        for at in range(0, number * entry, entry):
            tag, kind = struct.unpack_from(order + "HH", table, at)
            (count,) = struct.unpack_from(order + ("Q" if big else "I"), table, at + 4)
            if kind in _TYPES:
                tags[tag] = order + _TYPES[kind], count, table[at + place : at + entry]

        def value(tag: int, default: int | None = None) -> int:
            if tag not in tags and default is not None:
                return default
            kind, _, data = tags[tag]
            return int(np.frombuffer(data, kind, 1)[0])

        width, height = value(_WIDTH), value(_HEIGHT)
        high = value(_TILE_HEIGHT, min(height, value(_ROWS, height)))
        wide = value(_TILE_WIDTH, width)
        planes = value(_SAMPLES, 1) if value(_PLANAR, 1) == 2 else 1
        columns, rows = -(-width // wide), -(-height // high)
        kind, count, data = next(tags[tag] for tag in _BYTE_COUNTS if tag in tags)
        if count != columns * rows * planes or not 0 < count <= MAX_BLOCKS:
            return None
        size = np.dtype(kind).itemsize
        if count * size > len(data):
            file.seek(struct.unpack_from(order + ("Q" if big else "I"), data)[0])
        stored = np.zeros(columns * rows, dtype=np.bool_)
        for first in range(0, count, _PART):
            here = min(_PART, count - first)
            part = data[: here * size] if count * size <= len(data) else file.read(here * size)
            counts: npt.NDArray[np.unsignedinteger] = np.frombuffer(part, kind, here)
            place_in_plane = np.flatnonzero(counts) + first
            stored[place_in_plane % (columns * rows)] = True
        return cls((width, height), (wide, high), stored.reshape(rows, columns))

    def may_hold(self, shape: tuple[int, int]) -> Mask:
        """Which cells (H, W) of a grid over the whole image, of that `shape`, touch a stored block."""
        rows, columns = shape
        sums = np.zeros((self.stored.shape[0] + 1, self.stored.shape[1] + 1), dtype=np.int32)
        inner = np.cumsum(self.stored, axis=0, out=sums[1:, 1:])
        np.cumsum(inner, axis=1, out=inner)
        (top, bottom), (left, right) = (
            _covered(cells, length, side)
            for cells, length, side in ((rows, self.size[1], self.block[1]), (columns, self.size[0], self.block[0]))
        )
        count = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
        return count > 0


def _covered(cells: int, length: int, block: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The first block that each of `cells` equal parts of an axis touches, and the first behind the last."""
    edges = np.arange(cells + 1) * (length / cells)
    last = -(-length // block)
    first = np.clip(np.floor(edges[:-1] / block - 1e-9), 0, last - 1).astype(np.intp)
    return first, np.clip(np.ceil(edges[1:] / block + 1e-9), first + 1, last).astype(np.intp)
