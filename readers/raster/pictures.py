"""Pictures in PNG, JPEG, WebP and GIF: how large they may be, their orientation tag, and rows that are decoded once.

Such a file can only be decoded from its beginning on, so that reading its regions one by one may decode it many times.
"""

# rasterio has no type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

import numpy as np

from ..errors import ReadError
from ..image import Pixels
from ..slide.tiff_directories import MAGIC, ORIENTATION, Directories

DRIVERS: Final = ("PNG", "JPEG", "GIF", "WEBP")
"""Drivers of such files."""
MAX_BYTES: Final = 2**33
"""Decoded size of a picture that is decoded row by row."""
MAX_WHOLE_BYTES: Final = 2**28
"""Decoded size of one that is held in memory as a whole: WebP, GIF and interlaced PNG."""
KEPT_BYTES: Final = 2**26
"""Decoded size from which rows are kept, in a temporary file: smaller pictures fit GDAL's cache."""

_STEP_BYTES: Final = 2**25  # decoded at a time
_MAX_CHUNKS: Final = 200_000  # of a PNG: more are not searched for the orientation


def check_size(name: str, driver: str, decoded: int) -> None:
    """Raise `ReadError` for a picture of too many `decoded` bytes; `name` is its path, or remote."""
    whole = driver in {"GIF", "WEBP"} or (driver == "PNG" and _is_interlaced(name))
    limit = MAX_WHOLE_BYTES if whole else MAX_BYTES
    if decoded > limit:
        rule = (
            f"must have at most {limit >> 20} MiB of pixels {'where it is decoded as a whole' if whole else ''}".strip()
        )
        remedy = "Write it in tiles with gdal_translate -co TILED=YES"
        raise ReadError(name, rule, value=f"{driver}, {decoded >> 20} MiB", remedy=remedy)


def orientation_tag(path: str) -> str:
    """The value of the orientation tag of a local picture or TIFF, "" without one or where nothing is to be turned."""
    try:
        tag = _orientation(path)
    except (OSError, ValueError, struct.error):
        return ""
    return str(tag) if tag != 1 else ""


class DecodedPicture:
    """The pixels of a picture, decoded from its beginning on as far as they are needed, and kept.

    They lie in a temporary file without a name, of which nothing stays. It has what `RasterImage` uses of a rasterio
    dataset.
    """

    def __init__(self, raster: Any) -> None:
        self.width, self.height, self.driver = int(raster.width), int(raster.height), str(raster.driver)
        self._raster = raster
        self.block_shapes = [(1, self.width)] * int(raster.count)
        self.dtypes = tuple(raster.dtypes)
        dtype = np.result_type(*self.dtypes)
        shape = (int(raster.count), self.height, self.width)
        self._step = max(1, _STEP_BYTES // (shape[0] * self.width * dtype.itemsize))
        with tempfile.TemporaryFile(prefix="limner-") as file:
            self._pixels: Pixels = np.memmap(file, dtype=dtype, mode="w+", shape=shape)
        self._rows = 0

    def read(self, bands: Any, *, window: tuple[tuple[int, int], tuple[int, int]], out: Any = None) -> Pixels:
        """As rasterio's, of bands from 1 or one band. Raises what GDAL raises for a row that it cannot decode."""
        (y0, y1), (x0, x1) = window
        while self._rows < y1:
            self.decode(min(self._rows + self._step, self.height))
        places = np.asarray(bands) - 1
        found = self._pixels[places, y0:y1, x0:x1]
        if out is not None:
            out[...] = found
        return found

    def close(self) -> None:
        """Do nothing: the pixels are kept for the next reader of the file."""

    def decode(self, stop: int) -> None:
        """Decode rows up to `stop`; those before a damaged one are decoded singly."""
        try:
            self._pixels[:, self._rows : stop] = self._raster.read(window=((self._rows, stop), (0, self.width)))
        except Exception:
            if self._step == 1:
                raise
            self._step = 1
        else:
            self._rows = stop
            if stop == self.height:
                self._raster.close()


KEPT: Final[dict[tuple[str, int, int], DecodedPicture]] = {}
"""The last picture of this process, by path, time of change and size."""


def keep_decoded(name: str, raster: Any, open_again: Callable[[], Any]) -> DecodedPicture | None:
    """The decoded pixels of a large local picture, the same as long as it is the last one; None where they do not fit.

    open_again: opens a handle of its own, since `raster` is closed by its owner.
    """
    if raster.driver not in DRIVERS or not os.path.isfile(name):
        return None
    decoded = raster.width * raster.height * raster.count * np.result_type(*raster.dtypes).itemsize
    found = os.stat(name)
    key = (os.path.realpath(name), found.st_mtime_ns, found.st_size)
    if key not in KEPT:
        if decoded < KEPT_BYTES or shutil.disk_usage(tempfile.gettempdir()).free < 2 * decoded:
            return None
        KEPT.clear()
        KEPT[key] = DecodedPicture(open_again())
    return KEPT[key]


def _is_interlaced(name: str) -> bool:
    if not os.path.isfile(name):
        return False
    with open(name, "rb") as file:
        return file.read(29)[28:] == b"\1"


def _orientation(path: str) -> int:
    """The value of the orientation tag, 1 where there is none. Raises `OSError`, `ValueError` or `struct.error`."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] in MAGIC:
            found = Directories.read(path, 1)
            return found.pages[0].numbers.get(ORIENTATION, 1) if found is not None and found.pages else 1
        for kind, size in _parts(file, head):
            if kind in {b"eXIf", b"EXIF", b"\xff\xe1"}:
                exif = file.read(min(size, 2**16)).removeprefix(b"Exif\0\0")
                return _tag(exif) if exif[:4] in MAGIC else 1
    return 1


def _parts(file: BinaryIO, head: bytes) -> Iterator[tuple[bytes, int]]:
    """(kind, size) of the parts of a JPEG (before its pixels), PNG or WebP, with the file at the content of each."""
    at = {b"\xff\xd8": 2, b"\x89P": 8, b"RI": 12}.get(head[:2], 0)
    for _ in range(_MAX_CHUNKS if at else 0):
        file.seek(at)
        if head[:2] == b"\xff\xd8":
            kind, size = struct.unpack(">2sH", file.read(4))
            start, content, after = at + 4, size - 2, at + 2 + size
            if kind[:1] != b"\xff" or kind == b"\xff\xda":
                return
        elif head[:2] == b"\x89P":
            content, kind = struct.unpack(">I4s", file.read(8))
            start, after = at + 8, at + 12 + content
        else:
            kind, content = struct.unpack("<4sI", file.read(8))
            start, after = at + 8, at + 8 + content + content % 2
        file.seek(start)
        yield kind, content
        at = after


def _tag(exif: bytes) -> int:
    """The orientation in an EXIF block, which is a TIFF of small values."""
    order = "<" if exif[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if (tag, kind) == (ORIENTATION, 3):
            return int(value)
    return 1
