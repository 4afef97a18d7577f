"""Reading single tiles and strips of an untrusted TIFF: their bytes, the header of their codestream, their pixels.

Codecs reserve memory for whatever a header states, and libjpeg fills what is missing of a damaged JPEG with grey. So
headers are checked before, and the completeness of a JPEG after decoding: what fails is a `ReadError`.
"""

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from ..errors import ReadError, excerpt
from ..image import Pixels
from .tiff import MAX_SEGMENT_BYTES, tile_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage

MAX_TILE_PIXELS: Final = 32 << 20  # of one compressed tile, unless the directory states larger tiles

_BOUNDED_CODECS: Final = frozenset({1, 5, 8, 32946, 32773, 34925, 34926, 50000})  # they are given the output size
_JPEG: Final = frozenset({6, 7, 33007, 34892})
_JPEG_2000: Final = frozenset({33003, 33004, 33005, 34712})
_WEBP, _PNG, _JPEG_XL = 50001, 34933, frozenset({50002, 52546})
_LONE_MARKERS: Final = frozenset({0xD8, 0x01, *range(0xD0, 0xD8)})  # JPEG markers without a length
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})  # markers between 0xC0 and 0xCF that begin no frame
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})  # Huffman-coded frames without further scans of the same pixels
_SCAN: Final = 0xDA  # marker before coded pixels
_RESTARTS: Final = b"\xff\xdd"  # marker that states the length of restart intervals
_HEADER_BYTES: Final = 4096  # in which that marker is searched; among coded pixels it cannot be
_JPEG_MARKER: Final = re.compile(rb"\xff+([^\xff\0])", re.DOTALL)
_MARKER: Final = re.compile(rb"\xff[\xff]*[^\xff\0]")  # among coded pixels; a first byte that is sure is found faster
_END: Final = b"\xff\xd9"
_CODES: Final = b"\x7f\xfe" * 32  # of the rarest symbols in Huffman tables, which are the largest coefficients
_CONTRAST: Final = 0.98  # of all levels

_YCBCR_2000: Final = 33003  # JPEG 2000 of Aperio, whose components are luminance and colour differences
_DIFFERENCE: Final = np.arange(-128, 128)
_RED, _BLUE = (np.rint(factor * _DIFFERENCE).astype(np.int16) for factor in (1.402, 1.772))
_GREEN_OF_BLUE, _GREEN_OF_RED = -22554 * _DIFFERENCE, -46802 * _DIFFERENCE + (1 << 15)  # times 2¹⁶, for rounding


def _stored_bytes(tiff: "TiffFile", page: "TiffPage | TiffFrame", index: int, where: str) -> bytes:
    """The bytes of one tile or strip. Raises `ReadError` where they are too many, or not all there."""
    count = page.databytecounts[index]
    if not 0 <= count <= MAX_SEGMENT_BYTES:
        raise unreadable(where, f"{count} bytes of one tile")
    tiff.filehandle.seek(page.dataoffsets[index])
    data = tiff.filehandle.read(count)
    if len(data) < count:
        raise unreadable(where, f"{len(data)} of its {count} bytes are there")
    return data


def read_tile(tiff: "TiffFile", page: "TiffPage | TiffFrame", index: int, where: str) -> Pixels | None:
    """Read one tile or strip of a page and decode it: (height, width, samples); None where the file has none.

    `where` is the subject of errors. Raises `ReadError` where it is damaged, in part or all of it, or too large.
    """
    keyframe = page.keyframe
    if keyframe is None:
        return None
    try:
        data = _stored_bytes(tiff, page, index, where)
        if not data:
            return None
        compression = int(keyframe.compression)
        check_tile(data, compression, tile_size(keyframe), where)

        def decode(data: bytes) -> Pixels:
            tables, header = page.jpegtables, keyframe.jpegheader
            return cast("Pixels", keyframe.decode(data, index, jpegtables=tables, jpegheader=header)[0])[0]

        pixels = _decode_jpeg(data, page.jpegtables or b"", decode) if compression in _JPEG else decode(data)
    except ReadError:
        raise
    except Exception as error:  # every codec has exceptions of its own
        raise unreadable(where, excerpt(f"{type(error).__name__}: {error}", 300)) from error
    return ycbcr_to_rgb(pixels) if compression == _YCBCR_2000 else pixels


def unreadable(where: str, why: str) -> ReadError:
    """The error of a tile that cannot be read."""
    remedy = "Copy the file again from its source; regions that need this tile are left out"
    return ReadError(where, "must be readable", value=why, remedy=remedy)


def check_tile(data: bytes, compression: int, tile: tuple[int, int], where: str) -> None:
    """Raise `ReadError` where a codec is not supported, or would decode far more pixels than a tile has."""
    if compression in _BOUNDED_CODECS or not data:
        return
    size = codestream_size(data, compression)
    if size is not None and 0 < size[0] * size[1] <= max(MAX_TILE_PIXELS, tile[0] * tile[1]):
        return
    found = f"compression {compression}"
    if size is not None:
        found = f"{size[0]} × {size[1]} px in a tile of {tile[0]} × {tile[1]}"
    rule = "must hold no more than a tile, in a supported codec"
    remedy = "Store the image as tiles of JPEG, JPEG 2000 or deflate"
    raise ReadError(where, rule, value=found, remedy=remedy)


def ycbcr_to_rgb(pixels: Pixels) -> Pixels:
    """Convert 8-bit luminance and colour differences of full range (H, W, 3) to red, green and blue (ITU-T T.871)."""
    luminance = pixels[..., 0].astype(np.int16)
    blue, red = pixels[..., 1], pixels[..., 2]
    green = (_GREEN_OF_BLUE[blue] + _GREEN_OF_RED[red]) >> 16
    colours = [luminance + _RED[red], luminance + green, luminance + _BLUE[blue]]
    return np.clip(np.stack(colours, axis=2), 0, 255).astype(np.uint8)


def _decode_jpeg(data: bytes, tables: bytes, decode: Callable[[bytes], Pixels]) -> Pixels:
    """Decode a JPEG that is whole. Raises `ValueError` for one whose data end before its last pixel.

    Most damage makes data end early or late. libjpeg decodes grey from what is missing, and imagecodecs does not tell.
    So codes that give pixels of the highest contrast are added to the data. They do not matter to a JPEG that is
    whole. Where the last pixels look like these, or grey, the JPEG is decoded without the codes, too.
    """
    whole, with_codes = data.rstrip(b"\0"), None
    restarts = _RESTARTS in tables or data.find(_RESTARTS, 0, _HEADER_BYTES) >= 0
    if whole.endswith(_END) and not restarts:
        with_codes = decode(whole[:-2] + _CODES + _END)
        last, top = with_codes[-8:, -8:], 255 if with_codes.dtype.itemsize == 1 else 4095
        grey = last[-1, -1].tolist() == [top // 2 + 1] * last.shape[2]
        # the channels together have no less contrast than each, which takes numpy longer
        if not grey and (
            last.max() - last.min() < _CONTRAST * top or (np.ptp(last, axis=(0, 1)) < _CONTRAST * top).all()
        ):
            return with_codes
    pixels, start = decode(data), _scan_start(data)
    if start is None:
        complete = whole.endswith(_END)
    else:
        if with_codes is None or (first := _MARKER.search(data, start)) is None or first.start() < len(whole) - 2:
            coded = _MARKER.sub(lambda marker: _CODES + marker[0], data[start:])
            with_codes = decode(data[:start] + coded + _CODES + _END)
        complete = np.array_equal(pixels, with_codes)
    if not complete:
        msg = "the JPEG ends before its last pixel"
        raise ValueError(msg)
    return pixels


def _scan_start(data: bytes) -> int | None:
    """Where the coded pixels of a sequential JPEG of a single scan begin, None for others."""
    components = -1
    for marker, at in _jpeg_segments(data):
        if marker in _SEQUENTIAL:
            components = _big(data, at + 7, 1)
        elif marker == _SCAN:
            return at + _big(data, at, 2) if _big(data, at + 2, 1) == components else None
    return None


def codestream_size(data: bytes, compression: int) -> tuple[int, int] | None:
    """(width, height) in the header of a compressed tile, (0, 0) where it is damaged; None for unknown codecs."""
    if compression in _JPEG:
        return _jpeg_size(data)
    if compression in _JPEG_2000:
        at = data.find(b"\xff\x4f\xff\x51", 0, 4096)
        return (_big(data, at + 8, 4), _big(data, at + 12, 4)) if at >= 0 else (0, 0)
    if compression == _PNG:
        return _big(data, 16, 4), _big(data, 20, 4)
    if compression == _WEBP:
        return _webp_size(data)
    return _jpeg_xl_size(data) if compression in _JPEG_XL else None


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """The size of the first frame."""
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return _big(data, at + 5, 2), _big(data, at + 3, 2)
    return 0, 0


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG, each with the place after it, found from marker to marker."""
    at = 0
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        yield marker, at
        if marker not in _LONE_MARKERS:
            at += max(2, _big(data, at, 2))


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (_little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF) if kind == b"VP8 " else (0, 0)


def _jpeg_xl_size(data: bytes) -> tuple[int, int]:
    """The size header, a bit field (ISO/IEC 18181-1, 9.2)."""
    start = data.find(b"\xff\x0a", 0, 4096)
    if start < 0:
        return 0, 0
    bits, at = _little(data, start + 2, 24), 0

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
