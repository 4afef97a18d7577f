"""Decoding of Zarr chunks from untrusted files: each codec is told how many bytes it may give."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_CRC_BYTES: Final = 4
_LANE: Final = 256  # bytes that are added one after the other while all lanes are added at once
_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C, reflected
_BLOSC_VERSION: Final = 2
_LZMA_MEMORY: Final = 256 << 20

Words = npt.NDArray[np.uint32]


def _blosc(data: bytes, size: int) -> bytes:
    import imagecodecs

    # its header has the versions, flags, type size, then the sizes decoded, of a block, and encoded
    stated = [int.from_bytes(data[at : at + 4], "little") for at in (4, 12)]
    if data[:1] != bytes([_BLOSC_VERSION]) or stated != [size, len(data)]:
        msg = f"a Blosc header that states {stated[0]} bytes from {stated[1]}"
        raise ValueError(msg)
    return bytes(imagecodecs.blosc_decode(data, out=size))


def _zstd(data: bytes, size: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.zstd_decode(data, out=size))


def _lz4(data: bytes, size: int) -> bytes:
    import imagecodecs

    if int.from_bytes(data[:4], "little") != size:
        msg = f"an LZ4 header that states {int.from_bytes(data[:4], 'little')} bytes"
        raise ValueError(msg)
    return bytes(imagecodecs.lz4_decode(data[4:], out=size))


def _inflate(window: int) -> Callable[[bytes, int], bytes]:
    return lambda data, size: zlib.decompressobj(window).decompress(data, size + 1)


def _bz2(data: bytes, size: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, size + 1)


def _lzma(data: bytes, size: int) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY).decompress(data, size + 1)


COMPRESSORS: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "blosc": _blosc,
    "zstd": _zstd,
    "lz4": _lz4,
    "gzip": _inflate(31),
    "zlib": _inflate(15),
    "bz2": _bz2,
    "lzma": _lzma,
}
"""By name: the function from encoded bytes and the number of decoded ones to these, or to one more of them."""


def decompress(name: str, data: bytes, size: int) -> bytes:
    """Decode bytes that a compressor made of `size` bytes. Raises any exception where they are not."""
    return exactly(COMPRESSORS[name](data, size) if name else data, size)


def exactly(data: bytes, size: int) -> bytes:
    """Return data of `size` bytes. Raises `ValueError` for others."""
    if len(data) != size:
        msg = f"{len(data)} instead of {size} bytes" if len(data) < size else f"more than {size} bytes"
        raise ValueError(msg)
    return data


def without_checksum(data: bytes) -> bytes:
    """The bytes before a CRC-32C. Raises `ValueError` where it is not that of the bytes."""
    body, stated = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if len(data) < _CRC_BYTES or crc32c(body) != int.from_bytes(stated, "little"):
        msg = "a wrong checksum"
        raise ValueError(msg)
    return body


def crc32c(data: bytes) -> int:
    """The CRC-32C of bytes (RFC 3720).

    It is linear: lanes of 256 bytes are computed at once, and joined two by two, each time moving the first of a pair
    by the length of the second.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table = _table()
    if len(data) < 2 * _LANE:
        value = 0xFFFFFFFF
        for byte in data:
            value = int(table[(value ^ byte) & 255]) ^ (value >> 8)
        return value ^ 0xFFFFFFFF
    count = 1 << max(0, (len(data) - 1) // _LANE).bit_length()
    lanes = np.zeros(count * _LANE, dtype=np.uint8)
    lanes[-len(data) :] = np.frombuffer(data, dtype=np.uint8)  # zeros before the first byte change nothing
    lanes[len(lanes) - len(data) :][:4] ^= 255  # as the first value of the register does
    value: Any = np.zeros(count, dtype=np.uint32)
    for column in np.ascontiguousarray(lanes.reshape(count, _LANE).T):
        value = table[(value ^ column) & 255] ^ (value >> 8)
    shift = _shift_by_a_lane()
    while len(value) > 1:
        value = _apply(shift, value[::2]) ^ value[1::2]
        shift = _apply(shift, shift)
    return int(value[0]) ^ 0xFFFFFFFF


@cache
def _table() -> Words:
    value = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        value = np.where(value & 1, value >> 1 ^ np.uint32(_POLYNOMIAL), value >> 1)
    return value


@cache
def _shift_by_a_lane() -> Words:
    """What each bit of a register becomes by as many zero bytes as a lane has."""
    bits = (1 << np.arange(32, dtype=np.int64)).astype(np.uint32)
    shift: Words = np.bitwise_xor(_table()[bits & 255], bits >> 8, dtype=np.uint32)
    for _ in range(_LANE.bit_length() - 1):
        shift = _apply(shift, shift)
    return shift


def _apply(shift: Words, value: Words) -> Words:
    result = np.zeros_like(value)
    for bit in range(32):
        result ^= np.where(value >> np.uint32(bit) & 1, shift[bit], np.uint32(0))
    return result
