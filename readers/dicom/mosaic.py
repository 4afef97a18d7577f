"""Mosaics of Siemens MR: the slices of a volume side by side in one picture, row by row, in a square of places.

    ┌───┬───┬───┐
    │ 1 │ 2 │ 3 │   The stated position is the corner that one slice of the whole picture's size would have around the
    ├───┼───┼───┤   first slice's middle: the corner of a slice lies half of the difference of their sizes further along
    │ 4 │ 5 │   │   rows and columns. Slices follow along the slice normal of the CSA header; without one, along
    ├───┼───┼───┤   row × column, and a note says so.
    │   │   │   │
    └───┴───┴───┘

Runs in the sandboxed process: a CSA header is a table of tags inside a private element, and is bounded.
"""
# pydicom's values have the type of their tag, which is known only when it is read:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydicom.dataset import Dataset

from .attributes import integer, number, positive_pair, texts
from .faults import FaultError
from .geometry import directions, normal
from .metadata import FrameMetadata, Vector

MOSAIC: Final = "MOSAIC"
_COUNT, _NORMAL = "NumberOfImagesInMosaic", "SliceNormalVector"
_MAX_CSA_BYTES: Final = 2**22
_MAX_CSA_TAGS: Final = 1024
_MAX_SLICES: Final = 4096
_PARALLEL: Final = 0.999  # cosine between the CSA header's normal and row × column: 2.6°


@dataclass(frozen=True, slots=True)
class Mosaic:
    """How a picture is cut into slices."""

    count: int
    side: int
    """Places in a row and in a column."""
    rows: int
    """Of a slice."""
    columns: int
    """Of a slice."""
    spacing: tuple[float, float] | None
    """mm (between rows, between columns)."""
    step: float | None
    """mm between slices."""
    normal: Vector | None
    """The slice normal of the CSA header."""

    def box(self, index: int) -> tuple[slice, slice]:
        """(rows, columns) of slice `index` (from 0) in the picture."""
        row, column = divmod(index, self.side)
        top, left = row * self.rows, column * self.columns
        return slice(top, top + self.rows), slice(left, left + self.columns)

    def positions(self, whole: FrameMetadata) -> list[Vector | None]:
        """The position of each slice, from that of the picture; None where the file does not state what it takes.

        Raises `FaultError` where the CSA header's normal is not that of the orientation.
        """
        axes = None if whole.orientation is None else directions(whole.orientation)
        across = normal(whole.orientation)
        if whole.position is None or axes is None or across is None or self.spacing is None or not self.step:
            return [None] * self.count
        if self.normal is not None:
            stated = np.asarray(self.normal) / np.linalg.norm(self.normal)
            if abs(float(stated @ across)) < _PARALLEL:
                angle = math.degrees(math.acos(min(1.0, abs(float(stated @ across)))))
                raise FaultError("mosaic", f"a slice normal {angle:.1f}° off the normal of the stated orientation")
            across = stated
        down, along = self.spacing
        margin = (self.side - 1) / 2
        corner = np.asarray(whole.position) + margin * (axes[0] * self.columns * along + axes[1] * self.rows * down)
        places = (corner + across * self.step * index for index in range(self.count))
        return [(float(x), float(y), float(z)) for x, y, z in places]


def mosaic_of(dataset: Dataset) -> Mosaic | None:
    """The mosaic in a file; None where it is one slice or has frames.

    Raises `FaultError` where it is a mosaic that does not state its slices, or states them in two ways.
    """
    kinds = texts(dataset, "ImageType")
    if (_private(dataset, 0x0065, "Image Private Header", 0x50) or 0) > 1:
        raise FaultError("grid")
    if MOSAIC not in kinds:
        return None
    header = csa_values(_bytes(dataset, 0x0029, "SIEMENS CSA HEADER", 0x10), (_COUNT, _NORMAL))
    stated = {
        "(0019,xx0A)": _stated_count(dataset),
        "the CSA header": next(iter(header[_COUNT]), None),
    }
    counts = {where: int(count) for where, count in stated.items() if count}
    if len(set(counts.values())) != 1 or (integer(dataset, "NumberOfFrames") or 1) > 1:
        raise FaultError("mosaic", ", ".join(f"{count} in {where}" for where, count in counts.items()) or "no number")
    count = next(iter(counts.values()))
    rows, columns = integer(dataset, "Rows") or 0, integer(dataset, "Columns") or 0
    side = math.isqrt(max(0, count - 1)) + 1
    if not 0 < count <= _MAX_SLICES or rows % side or columns % side:
        raise FaultError("mosaic", f"{count} slices in {columns} × {rows} pixels")
    x = header[_NORMAL]
    return Mosaic(
        count,
        side,
        rows // side,
        columns // side,
        positive_pair(dataset, "PixelSpacing"),
        _positive(number(dataset, "SpacingBetweenSlices")),
        (x[0], x[1], x[2]) if len(x) == 3 and any(x) else None,
    )


def mosaic_note(dataset: Dataset, mosaic: Mosaic | None) -> str:
    """A key of `MOSAIC_NOTES` for a file; "" where it has nothing of a mosaic."""
    if mosaic is None:
        return "unlike" if (_stated_count(dataset) or 0) > 1 else ""
    if mosaic.step is None or mosaic.spacing is None:
        return "unplaced"
    return "assumed" if mosaic.normal is None else "stated"


def csa_values(data: bytes, names: Sequence[str]) -> Mapping[str, list[float]]:
    """The numbers of the named tags of a CSA header; [] for a tag without, and after damage.

    A header is the number of tags, each with a name of 64 bytes, four integers and items; each item has four integers,
    of which one is the length of its text. The later form has a magic number first, and states a length in another
    place than the earlier form, in which it is the excess over the first tag's number of items.
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    data = data[:_MAX_CSA_BYTES]
    later = data[:4] == b"SV10"
    try:
        at = 8 if later else 0
        (tags,) = struct.unpack_from("<I", data, at)
        at += 8
        first = 0
        for number_of_tag in range(min(tags, _MAX_CSA_TAGS)):
            name = data[at : at + 64].partition(b"\0")[0].decode("latin-1")
            (items,) = struct.unpack_from("<i", data, at + 76)
            at += 84
            first = items if number_of_tag == 0 else first
            values: list[float] = []
            for _ in range(items):
                lengths = struct.unpack_from("<4i", data, at)
                length = lengths[1] if later else lengths[0] - first
                at += 16
                if length < 0 or at + length > len(data):
                    return found
                if name in found and length:
                    values.append(float(data[at : at + length].partition(b"\0")[0].strip() or b"nan"))
                at += (length + 3) // 4 * 4
            if name in found:
                found[name] = [value for value in values if math.isfinite(value)]
    except (struct.error, ValueError):
        pass
    return found


def _stated_count(dataset: Dataset) -> int | None:
    return _private(dataset, 0x0019, "SIEMENS MR HEADER", 0x0A)


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _bytes(dataset: Dataset, group: int, creator: str, element: int) -> bytes:
    """A private element's bytes; b"" without any."""
    try:
        value = dataset.private_block(group, creator)[element].value
    except (KeyError, ValueError, TypeError, NotImplementedError):
        return b""
    return value if isinstance(value, bytes) else b""


def _private(dataset: Dataset, group: int, creator: str, element: int) -> int | None:
    """A private element's number, also where its type was lost; None without one."""
    try:
        value = dataset.private_block(group, creator)[element].value
        if isinstance(value, bytes):
            return int.from_bytes(value[:2], "little") if len(value) == 2 else int(float(value.strip(b"\0 ")))
        return int(value)
    except (KeyError, ValueError, TypeError, NotImplementedError, OverflowError):
        return None
