"""How many pixels a compressed tile says that it holds, before a decoder reserves memory for them."""

import re
from typing import Final

from ..errors import ReadError

MOST_PIXELS: Final = 32 << 20  # of one compressed tile, unless the directory says that tiles are larger

_BOUNDED: Final = frozenset({1, 5, 8, 32946, 32773, 34925, 34926, 50000})  # codecs that are told how much to give
_JPEG: Final = frozenset({6, 7, 33007, 34892})
_JPEG_2000: Final = frozenset({33003, 33004, 33005, 34712})
_WEBP, _PNG, _JPEG_XL = 50001, 34933, frozenset({50002, 52546})
_NO_SIZE: Final = frozenset({0xD8, 0x01, *range(0xD0, 0xD8)})  # JPEG's markers that stand alone
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})  # those between 0xC0 and 0xCF that begin no frame


def check_declared(data: bytes, compression: int, tile: tuple[int, int], where: str) -> None:
    """Raise `ReadError` where a tile is compressed in a way that is not read, or holds far more than a tile."""
    if compression in _BOUNDED or not data:
        return
    size = declared_size(data, compression)
    if size is not None and 0 < size[0] * size[1] <= max(MOST_PIXELS, tile[0] * tile[1]):
        return
    found = (
        f"compression {compression}" if size is None else f"{size[0]} × {size[1]} px in a tile of {tile[0]} × {tile[1]}"
    )
    raise ReadError(
        where,
        "the tile must be compressed in a way that is known, and hold no more than a tile",
        value=found,
        remedy="Store the picture as tiles of JPEG, JPEG 2000 or deflate",
    )


def declared_size(data: bytes, compression: int) -> tuple[int, int] | None:
    """(width, height) as a code stream states it, (0, 0) where it is damaged; None for other compressions."""
    if compression in _JPEG:
        return _jpeg(data)
    if compression in _JPEG_2000:
        at = data.find(b"\xff\x4f\xff\x51", 0, 4096)
        return (_big(data, at + 8, 4), _big(data, at + 12, 4)) if at >= 0 else (0, 0)
    if compression == _PNG:
        return _big(data, 16, 4), _big(data, 20, 4)
    if compression == _WEBP:
        return _webp(data)
    return _jpeg_xl(data) if compression in _JPEG_XL else None


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _small(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _jpeg(data: bytes) -> tuple[int, int]:
    """The size of the first frame, from marker to marker."""
    at = 0
    while (found := re.compile(rb"\xff+([^\xff\0])", re.DOTALL).search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return _big(data, at + 5, 2), _big(data, at + 3, 2)
        if marker not in _NO_SIZE:
            at += max(2, _big(data, at, 2))
    return 0, 0


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return _small(data, 24, 3) + 1, _small(data, 27, 3) + 1
    if kind == b"VP8L":
        bits = _small(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (_small(data, 26, 2) & 0x3FFF, _small(data, 28, 2) & 0x3FFF) if kind == b"VP8 " else (0, 0)


def _jpeg_xl(data: bytes) -> tuple[int, int]:
    """The size header, whose fields are packed in bits (ISO/IEC 18181-1, 9.2)."""
    start = data.find(b"\xff\x0a", 0, 4096)
    if start < 0:
        return 0, 0
    bits, at = _small(data, start + 2, 24), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return bits >> (at - count) & ((1 << count) - 1)

    def side(*, small: bool) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = bool(take(1))
    height = side(small=small)
    ratio = take(3)
    across, down = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    return (height * across // down if ratio else side(small=small)), height
