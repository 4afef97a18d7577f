"""The segments of a CZI file: its directory of sub-blocks, its metadata and the pixels of single sub-blocks.

Offsets, sizes and compressed data are untrusted: everything is checked against the file and limits before memory is
reserved. Attachments, among them the picture of the label, are never read.
"""

import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self

import numpy as np

from ..errors import ReadError, excerpt
from ..files import open_regular
from ..image import Pixels
from .tiff import MAX_SEGMENT_BYTES, MAX_XML_BYTES, parse_xml
from .tiff_tiles import codestream_size

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BLOCKS: Final = 1 << 20

_SEGMENT: Final = struct.Struct("<16sqq")  # id, allocated and used bytes
_HEADER: Final = struct.Struct("<iiii16s16siqqi")  # version, reserved, identifiers, part, directory, metadata, pending
_ENTRY: Final = struct.Struct("<2siqiiB5si")  # schema, pixel type, position, part, compression, pyramid, spare, count
_AXIS: Final = struct.Struct("<4siifi")  # name, start, size, coordinate, stored size
_BLOCK: Final = struct.Struct("<iiq")  # bytes of metadata, attachment and data
_DIRECTORY_BYTES: Final = 128  # before the entries
_METADATA_BYTES: Final = 256  # before the XML
_LEAST_BLOCK_BYTES: Final = 256  # before a sub-block's metadata
_MAX_AXES: Final = 16
_MAX_PLACE: Final = 1 << 30  # level-0 pixels

PIXELS: Final[Mapping[int, tuple[str, int]]] = {
    0: ("uint8", 1), 1: ("uint16", 1), 2: ("float32", 1), 3: ("uint8", 3), 4: ("uint16", 3), 8: ("float32", 3),
}  # fmt: skip
"""By pixel type: the type of number, and the samples of a pixel, of which three are blue, green and red."""

_JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_1 = 1, 2, 4, 5, 6
_CODECS: Final = frozenset({0, _JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_1})
_REMEDY: Final = "Get an undamaged copy of the file"
_CONVERT: Final = "Export it from ZEN as OME-TIFF, or convert it with `bfconvert` of Bio-Formats"


@dataclass(frozen=True, slots=True)
class SubBlock:
    """One entry of the directory: a tile of one channel, plane and scene, at one level of the pyramid."""

    position: int
    """Of its segment in the file."""
    pixel_type: int
    compression: int
    place: tuple[int, int]
    """Of its corner (x, y) in level-0 pixels of the file, which may be negative."""
    covers: tuple[int, int]
    """(width, height) in level-0 pixels."""
    stored: tuple[int, int]
    """(width, height) as it is stored."""
    axes: tuple[tuple[str, int], ...]
    """Its position along the other axes, by name."""

    def at(self, axis: str) -> int:
        """Its position along an axis, 0 without it."""
        return dict(self.axes).get(axis, 0)

    @property
    def factor(self) -> float:
        """Level-0 pixels per stored one."""
        return max(self.covers[0] / self.stored[0], self.covers[1] / self.stored[1])


class CziFile:
    """An open file. Raises `ReadError` where it is damaged, unfinished or one of several."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file: BinaryIO = open_regular(path)
        except OSError as error:
            raise ReadError(path, "must be a readable file", value=str(error), remedy="Check the path") from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self.blocks, self._metadata_at = self._read_directory()
        except (OSError, struct.error) as error:
            self.close()
            raise self._damaged(str(error)) from error
        except BaseException:
            self.close()
            raise

    def metadata(self) -> "Element | None":
        """The root of the metadata; None without readable ones."""
        if not self._metadata_at:
            return None
        start = self._segment(self._metadata_at, b"ZISRAWMETADATA")
        (size,) = struct.unpack("<i", self._bytes(start, 4))
        if not 0 <= size <= MAX_XML_BYTES:
            raise self._damaged(f"{size} bytes of XML, at most {MAX_XML_BYTES} are read")
        return parse_xml(self._bytes(start + _METADATA_BYTES, size).decode("utf-8", "replace").strip("\ufeff\0"))

    def read(self, block: SubBlock) -> Pixels:
        """The pixels of a sub-block (height, width, samples), colours as red, green and blue. Raises `ReadError`."""
        where = f"{self._path}, sub-block at byte {block.position},"
        try:
            start = self._segment(block.position, b"ZISRAWSUBBLOCK")
            metadata, _, size = _BLOCK.unpack(self._bytes(start, _BLOCK.size))
            entry = self._bytes(start + _BLOCK.size, _ENTRY.size)
            head = _BLOCK.size + _ENTRY.size + _AXIS.size * max(0, min(_MAX_AXES, _ENTRY.unpack(entry)[-1]))
            if metadata < 0 or not 0 <= size <= 2 * MAX_SEGMENT_BYTES:
                msg = f"{size} bytes of one sub-block"
                raise ValueError(msg)  # noqa: TRY301 - reported below, like the errors of codecs
            data = self._bytes(start + max(_LEAST_BLOCK_BYTES, head) + metadata, size)
            return _decode(data, block)
        except Exception as error:  # every codec has exceptions of its own
            remedy = f"{_REMEDY}; regions that need these pixels are left out"
            why = error.value if isinstance(error, ReadError) else f"{type(error).__name__}: {error}"
            raise ReadError(where, "must be readable", value=excerpt(why, 300), remedy=remedy) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, why: str) -> ReadError:
        return ReadError(self._path, "must be a readable CZI file", value=excerpt(why, 300), remedy=_REMEDY)

    def _bytes(self, at: int, count: int) -> bytes:
        if at < 0 or count < 0 or at + count > self._size:
            raise self._damaged(f"the file is truncated: it has {self._size} bytes, and {count} are to be at {at}")
        self._file.seek(at)
        parts: list[bytes] = []
        while count and (part := self._file.read(count)):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _segment(self, at: int, name: bytes) -> int:
        """Where the content of a segment begins."""
        found, _, _ = _SEGMENT.unpack(self._bytes(at, _SEGMENT.size))
        if found.rstrip(b"\0") != name:
            raise self._damaged(f"no {name.decode()} at byte {at}")
        return at + _SEGMENT.size

    def _read_directory(self) -> tuple[list[SubBlock], int]:
        """The sub-blocks, and where the metadata are."""
        start = self._segment(0, b"ZISRAWFILE")
        _, _, _, _, _, _, part, directory, metadata, pending = _HEADER.unpack(self._bytes(start, _HEADER.size))
        if pending or not directory:
            raise self._damaged("its recording was not finished: it has no directory")
        if part:
            raise self._refused(f"part {part} of a file in several parts")
        start = self._segment(directory, b"ZISRAWDIRECTORY")
        (count,) = struct.unpack("<i", self._bytes(start, 4))
        if not 0 < count <= MAX_BLOCKS:
            raise self._damaged(f"{count} sub-blocks, 1 to {MAX_BLOCKS} are read")
        blocks: list[SubBlock] = []
        at = start + _DIRECTORY_BYTES
        content = self._bytes(at, min(self._size - at, count * (_ENTRY.size + _MAX_AXES * _AXIS.size)))
        at = 0
        for _ in range(count):
            block, length = self._entry(content, at)
            blocks.append(block)
            at += length
        return blocks, metadata

    def _entry(self, content: bytes, at: int) -> tuple[SubBlock, int]:
        schema, pixel_type, position, part, compression, _, _, count = _ENTRY.unpack_from(content, at)
        if schema != b"DV" or not 2 <= count <= _MAX_AXES:
            raise self._damaged(f"a sub-block of the kind {schema!r} with {count} axes")
        if part:
            raise self._refused("a file in several parts")
        axes = [_AXIS.unpack_from(content, at + _ENTRY.size + number * _AXIS.size) for number in range(count)]
        named = {name.rstrip(b"\0").decode("latin-1"): (start, size, kept) for name, start, size, _, kept in axes}
        try:
            (x, across, wide), (y, down, high) = named.pop("X"), named.pop("Y")
        except KeyError:
            raise self._damaged("a sub-block without the axes X and Y") from None
        wide, high = wide or across, high or down
        sane = max(abs(x), abs(y), across, down) <= _MAX_PLACE and min(across, down, wide, high) > 0
        if not sane or wide > across or high > down:
            raise self._damaged(f"a sub-block of {wide} × {high} px for {across} × {down} px at {x}, {y}")
        if pixel_type not in PIXELS or compression not in _CODECS:
            raise self._refused(f"pixel type {pixel_type}, compression {compression}")
        numbers, samples = PIXELS[pixel_type]
        if wide * high * samples * np.dtype(numbers).itemsize > MAX_SEGMENT_BYTES:
            raise self._refused(f"a sub-block of {wide} × {high} px")
        others = tuple(sorted((name, start) for name, (start, _, _) in named.items()))
        block = SubBlock(position, pixel_type, compression, (x, y), (across, down), (wide, high), others)
        return block, _ENTRY.size + count * _AXIS.size

    def _refused(self, found: str) -> ReadError:
        rule = (
            f"must be one file of grey or BGR pixels in sub-blocks up to {MAX_SEGMENT_BYTES >> 20} MiB, as they are "
            "or in JPEG, LZW, JPEG XR or Zstandard"
        )
        return ReadError(self._path, rule, value=excerpt(found), remedy=_CONVERT)


def _decode(data: bytes, block: SubBlock) -> Pixels:
    """The pixels of a sub-block from its data. Raises any exception where they are damaged."""
    import imagecodecs

    numbers, samples = PIXELS[block.pixel_type]
    dtype = np.dtype(numbers).newbyteorder("<")
    shape = (block.stored[1], block.stored[0], samples)
    size = math.prod(shape) * dtype.itemsize
    if block.compression in {_JPEG, _JPEG_XR}:
        stated = codestream_size(data, 7) if block.compression == _JPEG else jpeg_xr_size(data)
        if stated != block.stored:
            msg = f"{stated} px instead of {block.stored}"
            raise ValueError(msg)
        decode: Any = imagecodecs.jpeg8_decode if block.compression == _JPEG else imagecodecs.jpegxr_decode
        pixels: Pixels = np.asarray(decode(data)).reshape(shape)
        if pixels.dtype != np.dtype(numbers):
            msg = f"{pixels.dtype.name} instead of {numbers}"
            raise ValueError(msg)
        return pixels  # both give red, green and blue
    packed = False
    if block.compression == _LZW:
        data = bytes(imagecodecs.lzw_decode(data, out=size))
    elif block.compression == _ZSTD:
        data = bytes(imagecodecs.zstd_decode(data, out=size))
    elif block.compression == _ZSTD_1:
        data, packed = _with_header(data)
        data = bytes(imagecodecs.zstd_decode(data, out=size))
    if len(data) < size:
        msg = f"{len(data)} instead of {size} bytes"
        raise ValueError(msg)
    values = np.frombuffer(data[:size], dtype=np.uint8)
    if packed:  # all low bytes before all high ones
        values = np.ascontiguousarray(values.reshape(2, -1).T)
    pixels = values.reshape(-1).view(dtype).reshape(shape).astype(numbers, copy=False)
    return pixels[..., ::-1] if samples == 3 else pixels


def _with_header(data: bytes) -> tuple[bytes, bool]:
    """The data after the header of the second kind of Zstandard, and whether high and low bytes are apart."""
    length = data[0] if data else 0
    chunk = data[1:length]
    if length not in {1, 3} or (chunk and chunk[0] != 1):
        msg = f"a header of {length} bytes"
        raise ValueError(msg)
    return data[length:], bool(chunk) and bool(chunk[1] & 1)


def jpeg_xr_size(data: bytes) -> tuple[int, int]:
    """(width, height) in the header of a JPEG XR codestream, (0, 0) where it has none (ITU-T T.832, 8.3)."""
    at = data.find(b"WMPHOTO\0", 0, 4096)
    if at < 0 or len(data) < at + 20:
        return 0, 0
    short = bool(data[at + 10] & 0x80)
    width, height = struct.unpack_from(">HH" if short else ">II", data, at + 12)
    return width + 1, height + 1


@dataclass(frozen=True, slots=True)
class CziMetadata:
    """What is used of the metadata."""

    microns: tuple[float, float] | None = None
    """Of a level-0 pixel, (x, y)."""
    step: float | None = None
    """Between focal planes, in µm."""
    channels: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    """Names, by number."""

    @classmethod
    def of(cls, root: "Element | None") -> Self:
        """The metadata in the XML of a file."""
        if root is None:
            return cls()
        sizes = {
            one.get("Id", ""): _micrometres(one.findtext("Value")) for one in root.iterfind(".//Scaling/Items/Distance")
        }
        x, y = sizes.get("X"), sizes.get("Y")
        dimensions = "./Metadata/Information/Image/Dimensions/"
        channels = tuple((one.get("Name") or "").strip() for one in root.iterfind(f"{dimensions}Channels/Channel"))
        named = [(one.get("Index", ""), one.get("Name", "")) for one in root.iterfind(f"{dimensions}S/Scenes/Scene")]
        scenes = {int(index): name for index, name in named if re.fullmatch("[0-9]{1,5}", index)}
        return cls(
            None if x is None or y is None else (x, y),
            sizes.get("Z"),
            channels,
            tuple(scenes.get(at, "") for at in range(max(scenes, default=-1) + 1)),
        )


def _micrometres(text: str | None) -> float | None:
    """A length that is stated in metres, in µm."""
    try:
        value = float(text or "") * 1e6
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
