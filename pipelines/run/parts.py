"""Parts of a run folder: the findings of regions as Arrow, and rasters as zstd, appended to files of `parts/`.

A part is written and synced before the line of `results.jsonl` that states where it lies, with its length and checksum.
What a killed process wrote after its last line belongs to no line and is never read. A process writes only to files
that it has made, so that nothing needs a lock. A file for each part, renamed when whole, is as safe, but slower and
larger where regions have few findings (docs/figures.md, "How results are stored"):

    parts/findings-000001.arrows    Arrow IPC streams, one for each batch of results, one after the other
    parts/rasters-000001.zst        compressed arrays, one after the other
"""
# pyarrow states no types, and shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, get_args
from urllib.parse import quote, unquote_to_bytes

import numpy as np
import numpy.typing as npt
import shapely

from ...model.finding import Finding, Kind, PackedRaster
from ...model.findings_table import FindingsTable, Objects, objects
from ...readers.files import open_regular
from ...reports.arrow import Codes, binary_array, plain_array, text_array

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts"
MAX_PART_BYTES: Final = 2**31 - 2**16
"""Longest part, and longest raster before it is compressed."""

_FULL: Final = 2**28  # bytes of a file after which another is begun
_NAME: Final = re.compile(r"(findings-\d{6}\.arrows|rasters-\d{6}\.zst)")
_SUFFIXES: Final = {"findings": ".arrows", "rasters": ".zst"}
_DTYPES: Final = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<f2", "<f4", "<f8")
_KINDS: Final = frozenset(get_args(Kind))


@dataclass(frozen=True, slots=True)
class Part:
    """Where a part lies: some bytes of a file."""

    file: str
    start: int
    length: int
    """In bytes."""
    sha256: str
    """The first 16 hexadecimal digits."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no part is like."""
        right = type(self.start) is int and type(self.length) is int and self.start >= 0
        if not (right and 0 < self.length <= MAX_PART_BYTES and _NAME.fullmatch(self.file) and self.sha256):
            msg = "it is no place of a part"
            raise ValueError(msg)

    def read(self, folder: Path) -> bytes:
        """Its bytes in a run folder. Raises `OSError`, and `ValueError` where they are not those that were written."""
        with open_regular(folder / PARTS / self.file) as file:
            file.seek(self.start)
            content = bytearray(self.length) if self.start + self.length <= os.fstat(file.fileno()).st_size else b""
            view = memoryview(content)
            while view and (count := file.readinto(view)):  # pyright: ignore[reportAttributeAccessIssue] - unbuffered
                view = view[count:]
        if not content or view or _digest(content) != self.sha256:
            msg = f"the part at {self.start} of {self.file} is missing or its checksum does not match"
            raise ValueError(msg)
        return bytes(content)


@dataclass(frozen=True, slots=True)
class RasterPart:
    """Where a raster lies, and what it is."""

    part: Part
    dtype: str
    """As NumPy writes it, little-endian: |u1 for 8 bits."""
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise `ValueError` for what no raster is like."""
        whole = all(type(side) is int and side > 0 for side in self.shape)
        size = math.prod(self.shape) * np.dtype(self.dtype).itemsize if whole and self.dtype in _DTYPES else 0
        if not 0 < size <= MAX_PART_BYTES or len(self.shape) > 4:
            msg = "it is no raster"
            raise ValueError(msg)

    def read(self, folder: Path) -> npt.NDArray[Any]:
        """Its pixels. Raises as `Part.read`."""
        return unpack_raster(PackedRaster(self.dtype, self.shape, self.part.read(folder)))


def pack_raster(raster: npt.NDArray[Any]) -> PackedRaster:
    """A raster as parts have it, so that a process that sends or keeps many takes little memory."""
    import pyarrow as pa

    plain = np.ascontiguousarray(raster).astype(raster.dtype.newbyteorder("<"), copy=False)
    content = pa.compress(plain, codec="zstd", asbytes=True) if plain.size else b""
    return PackedRaster(plain.dtype.str, plain.shape, content)


def unpack_raster(packed: PackedRaster) -> npt.NDArray[Any]:
    """The inverse of `pack_raster`."""
    import pyarrow as pa

    dtype = np.dtype(packed.dtype)
    size = math.prod(packed.shape) * dtype.itemsize
    content = pa.decompress(packed.content, decompressed_size=size, codec="zstd", asbytes=True)
    return np.frombuffer(content, dtype).reshape(packed.shape)


def placeless(rasters: Mapping[str, npt.NDArray[Any] | PackedRaster]) -> dict[str, RasterPart]:
    """Type and shape of rasters that lie in no file."""
    nowhere = Part("rasters-000000.zst", 0, 1, "0")
    return {
        name: RasterPart(nowhere, one.dtype if isinstance(one, PackedRaster) else one.dtype.str, one.shape)
        for name, one in rasters.items()
    }


class PartWriter:
    """Appends parts to files that it makes. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PARTS
        self._files: dict[str, BinaryIO] = {}
        self._names: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def write_findings(self, findings: Sequence[Finding]) -> Part:
        """Write findings as one part. Raises `OSError`, and `ValueError` for a number that is not finite."""
        return self._write("findings", _encode(findings))

    def write_raster(self, raster: npt.NDArray[Any] | PackedRaster) -> RasterPart:
        """Write a raster. Raises `OSError`, and `ValueError` for a type or a shape that is no raster's."""
        packed = raster if isinstance(raster, PackedRaster) else pack_raster(raster)
        RasterPart(Part("rasters-000000.zst", 0, 1, "0"), packed.dtype, packed.shape)  # before it is written
        return RasterPart(self._write("rasters", packed.content), packed.dtype, packed.shape)

    def sync(self) -> None:
        """Wait until all parts are on disk. Raises `OSError`."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def _write(self, kind: str, content: bytes) -> Part:
        file = self._file(kind)
        start = file.seek(0, os.SEEK_END)
        part = Part(self._names[kind], start, len(content), _digest(content))
        try:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):  # it belongs to no line in any case
                file.truncate(start)
            raise
        return part

    def _file(self, kind: str) -> BinaryIO:
        """The file that parts of a kind are appended to: a new one where there is none yet, or it is full."""
        file = self._files.get(kind)
        if file is not None and file.seek(0, os.SEEK_END) < _FULL:
            return file
        if file is not None:
            os.fsync(file.fileno())
            file.close()
        self._folder.mkdir(exist_ok=True)
        there = [path.name for path in self._folder.iterdir() if path.name.startswith(f"{kind}-")]
        number = 1 + max((int(digits[0]) for name in there if (digits := re.findall(r"\d+", name))), default=0)
        name = f"{kind}-{number:06}{_SUFFIXES[kind]}"
        made = open_regular(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, "r+b")
        self._files[kind], self._names[kind] = made, name
        _sync_folder(self._folder)
        _sync_folder(self._folder.parent)
        return made


@dataclass(slots=True)
class StoredChunk:
    """Findings of one image in one part, as merging reads them."""

    folder: Path
    part: Part
    rows: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """First row and number of rows of each region, in the order of the part."""
    checked: bool = False

    def __len__(self) -> int:
        return sum(count for _, count in self.rows)

    def read(self) -> FindingsTable:
        """The findings. Raises `OSError`, and `ValueError` where they are not as they were written."""
        import pyarrow as pa

        try:
            batch = _batch(self.part.read(self.folder))
            if not self.checked:
                batch.validate(full=True)
            table = _decode(batch)
        except (pa.ArrowException, KeyError, TypeError, UnicodeDecodeError) as error:
            msg = f"{type(error).__name__}: {error}"
            raise ValueError(msg) from error
        if any(first + count > len(table) for first, count in self.rows):
            msg = f"a region's findings lie beyond the {len(table)} rows of its part"
            raise ValueError(msg)
        if len(self) < len(table):
            table = table.take(np.concatenate([np.arange(first, first + count) for first, count in self.rows]))
        if not self.checked:
            _check(table)
            self.checked = True
        return table


def chunks_of(folder: Path, places: Iterable[tuple[Part, int, int]]) -> list[StoredChunk]:
    """Chunks of the findings at some places: a part, the first row, and the number of rows."""
    chunks: dict[tuple[str, int], StoredChunk] = {}
    for part, row, count in sorted(places, key=lambda place: (place[0].file, place[0].start, place[1])):
        chunks.setdefault((part.file, part.start), StoredChunk(folder, part)).rows.append((row, count))
    return list(chunks.values())


def _encode(findings: Sequence[Finding]) -> bytes:
    """An Arrow IPC stream of one batch, without the columns that all have the same default."""
    import pyarrow as pa

    if isinstance(findings, FindingsTable):
        table = findings
    else:
        table = FindingsTable.of(findings)
        given = ((one.score, *one.numbers.values()) for one in findings)
        if not all(number is None or math.isfinite(number) for numbers in given for number in numbers):
            raise _not_finite("a score or another number")
    _check(table)
    columns: dict[str, pa.Array[Any]] = {
        "label": _coded(table.label, pa.binary()),
        "kind": _coded(table.kind, pa.string()),
        "score": plain_array(table.score, valid=~np.isnan(table.score)),
        "geometry": binary_array(shapely.to_wkb(table.geometries, byte_order=1).tolist()),
    }
    flags = {"text_cut": table.text_cut, "cut": table.cut, "plane": table.plane.astype(np.int32)}
    columns |= {name: plain_array(values) for name, values in flags.items() if values.any()}
    if any(table.text):
        columns["text"] = text_array(table.text.tolist(), pa.binary())
    if not np.isnan(table.window).all():
        columns |= {f"window_{side}": plain_array(table.window[:, at]) for at, side in enumerate(_SIDES)}
    columns |= {f"number.{_quoted(name)}": plain_array(values) for name, values in table.numbers.items()}
    columns |= {
        f"note.{_quoted(name)}": text_array(values.tolist(), pa.binary()) for name, values in table.notes.items()
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


_SIDES: Final = ("x0", "y0", "x1", "y1")


def _batch(content: bytes) -> "pa.RecordBatch":
    import pyarrow as pa

    with pa.ipc.open_stream(content) as stream:
        return stream.read_next_batch()


def _decode(batch: "pa.RecordBatch") -> FindingsTable:
    """The inverse of `_encode`."""
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    length = batch.num_rows

    def plain(name: str, default: float) -> npt.NDArray[Any]:
        return _values(columns[name]) if name in columns else np.full(length, default)

    numbers = {_unquoted(name): plain(name, math.nan) for name in columns if name.startswith("number.")}
    notes = {_unquoted(name): _objects(columns[name]) for name in columns if name.startswith("note.")}
    return FindingsTable(
        label=_objects(columns["label"]),
        kind=_objects(columns["kind"]),
        score=plain("score", math.nan).astype(np.float64),
        text=_objects(columns["text"]) if "text" in columns else objects([""] * length),
        text_cut=plain("text_cut", False).astype(np.bool_),
        cut=plain("cut", False).astype(np.bool_),
        plane=plain("plane", 0).astype(np.int64),
        window=np.stack([plain(f"window_{side}", math.nan).astype(np.float64) for side in _SIDES], axis=1),
        shapes=objects(_rows(columns["geometry"])),
        numbers={name: values.astype(np.float64) for name, values in numbers.items()},
        notes=notes,
    )


def _check(table: FindingsTable) -> None:
    """Raise `ValueError` for an unknown kind, a number that is not finite, and a geometry without a place."""
    if not set(table.kind.tolist()) <= _KINDS or None in set(table.label.tolist()) | set(table.text.tolist()):
        msg = "a value of another type"
        raise ValueError(msg)
    for name, values in {"score": table.score, "window": table.window, **table.numbers}.items():
        if np.isinf(values).any():
            raise _not_finite(name)
    if shapely.is_missing(table.geometries).any() or not np.isfinite(shapely.get_coordinates(table.geometries)).all():
        raise _not_finite("geometry")


def _not_finite(name: str) -> ValueError:
    return ValueError(f"{name} is not finite")


# `to_numpy` and others import pandas, which takes a fifth of a second: arrays are read as bytes, as `arrow` makes them.


def _coded(values: Objects, kind: "pa.DataType") -> "pa.Array[Any]":
    codes = Codes()
    return codes.array(codes.add(values.tolist()), kind)


def _values(column: "pa.Array[Any]") -> npt.NDArray[Any]:
    """The inverse of `plain_array`: floats are NaN where they are null. Raises `TypeError` for other columns."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        return _bits(column, 1)
    if not pa.types.is_primitive(column.type):
        raise TypeError(column.type)
    found = np.frombuffer(column.buffers()[1], column.type.to_pandas_dtype())[column.offset :][: len(column)]
    return np.where(_bits(column, 0), found, np.nan) if column.null_count else found


def _bits(column: "pa.Array[Any]", buffer: int) -> npt.NDArray[np.bool_]:
    flags = np.unpackbits(np.frombuffer(column.buffers()[buffer], np.uint8), bitorder="little")
    return flags[column.offset :][: len(column)].astype(np.bool_)


def _rows(column: "pa.Array[Any]") -> list[bytes | None]:
    """The inverse of `binary_array`. Raises `TypeError` for other columns."""
    import pyarrow as pa

    if column.type not in (pa.binary(), pa.string()):
        raise TypeError(column.type)
    _, offsets, content = column.buffers()
    whole = bytes(content)
    ends = np.frombuffer(offsets, np.int32)[column.offset :][: len(column) + 1].tolist()
    rows: list[bytes | None] = [whole[start:end] for start, end in pairwise(ends)]
    if column.null_count:
        rows = [row if valid else None for row, valid in zip(rows, _bits(column, 0).tolist(), strict=True)]
    return rows


def _objects(column: "pa.Array[Any]") -> Objects:
    """Texts as Python has them, each distinct one made once."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        rows = _rows(column)
        texts = {row: None if row is None else row.decode("utf-8", "surrogatepass") for row in set(rows)}
        return objects(texts[row] for row in rows)
    distinct = _objects(column.dictionary)
    codes = _values(column.indices)
    return objects([*distinct, None])[np.where(np.isnan(codes), len(distinct), codes).astype(np.intp)]


def _quoted(name: str) -> str:
    return quote(name, safe=" ", errors="surrogatepass")


def _unquoted(column: str) -> str:
    return unquote_to_bytes(column.partition(".")[2]).decode("utf-8", "surrogatepass")


def _digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    """Wait until the names of new files are on disk, where the system can tell."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some shared file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
