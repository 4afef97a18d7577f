"""Arrays of Zarr 2 and 3: their metadata, checked before anything is reserved, and single chunks of them.

limner decodes chunks itself, with the codecs that it needs for TIFF too: a library would reserve memory for whatever
metadata or a compressed chunk state.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

import numpy as np
import numpy.typing as npt

from ..errors import ReadError, excerpt
from ..files import parse_json
from ..geometry import MAX_SIDE
from ..image import Pixels
from .zarr_codecs import COMPRESSORS, decompress, without_checksum
from .zarr_store import MAX_METADATA_BYTES, Store

MAX_CHUNK_BYTES: Final = 256 << 20
"""Of one decoded chunk."""

_MAX_CHUNKS: Final = 1 << 26  # of an array
_MAX_AXES: Final = 5
_MAX_INDEX_BYTES: Final = 16 << 20  # of a shard
_KEPT_INDICES: Final = 16 << 20  # bytes of them that stay in memory
_NOWHERE: Final = 2**64 - 1  # offset and length of a chunk that a shard does not hold
_TYPES: Final = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {"float32", "float64"}

Json = dict[str, Any]


def read_json(store: Store, key: str) -> Json | None:
    """A metadata document; None where it does not exist. Raises `ReadError` where it is no JSON object."""
    content = store.get(key, MAX_METADATA_BYTES)
    if content is None:
        return None
    try:
        found = parse_json(content, allow_nan=True)
    except (ValueError, RecursionError) as error:
        raise damaged(store.root, key, str(error)) from error
    return as_object(found, store.root, key)


def as_object(value: object, root: str, key: str) -> Json:
    """A JSON object. Raises `ReadError` for any other value."""
    if not isinstance(value, dict):
        raise damaged(root, key, f"{type(value).__name__} where an object belongs")
    return cast("Json", value)


def damaged(root: str, key: str, why: str) -> ReadError:
    """The error of metadata that are invalid."""
    remedy = "Get an undamaged copy of the image"
    return ReadError(f"{root}, {key},", "must be valid metadata of Zarr", value=excerpt(why, 300), remedy=remedy)


def _unsupported(root: str, key: str, what: str) -> ReadError:
    rule = f"must be stored with codecs that limner reads: {', '.join(COMPRESSORS)}, shards and checksums"
    remedy = "Write the image again with one of these, for example with zarr-python"
    return ReadError(f"{root}, {key},", rule, value=excerpt(what, 200), remedy=remedy)


@dataclass(frozen=True, slots=True)
class Coding:
    """How the values of a chunk are stored."""

    dtype: np.dtype[Any]
    """With its byte order."""
    order: tuple[int, ...]
    """The axes of the chunk in the order in which they are stored, slowest first."""
    compressor: str = ""
    checksum: bool = False

    def decode(self, data: bytes, shape: tuple[int, ...]) -> Pixels:
        """The chunk, in native byte order. Raises any exception where it is damaged."""
        body = without_checksum(data) if self.checksum else data
        body = decompress(self.compressor, body, math.prod(shape) * self.dtype.itemsize)
        stored = np.frombuffer(body, dtype=self.dtype).reshape([shape[axis] for axis in self.order])
        chunk = stored.transpose(np.argsort(self.order))
        return chunk.astype(self.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True, slots=True)
class Sharding:
    """How chunks lie in a shard."""

    shards: tuple[int, ...]
    """The shape of a shard."""
    per_shard: tuple[int, ...]
    """How many chunks a shard has along each axis."""
    at_end: bool
    """Whether the index is the end of the shard, rather than its beginning."""
    checksum: bool

    @property
    def index_bytes(self) -> int:
        """How many bytes the index has."""
        return 16 * math.prod(self.per_shard) + 4 * self.checksum


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """One array, whose chunks can be read."""

    store: Store
    path: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    """The shape of what is decoded at once; chunks at the end of an axis are as large."""
    coding: Coding
    key_prefix: str
    separator: str
    names: tuple[str, ...] = ()
    """Names of the axes, where the array has them."""
    sharding: Sharding | None = None
    _indices: "OrderedDict[tuple[int, ...], npt.NDArray[np.uint64] | None]" = field(
        default_factory=OrderedDict[tuple[int, ...], "npt.NDArray[np.uint64] | None"], compare=False
    )

    @classmethod
    def open(cls, store: Store, path: str) -> Self:
        """Read and check an array's metadata. Raises `ReadError`."""
        key = f"{path}/zarr.json"
        if (found := read_json(store, key)) is not None:
            make = cls._version_3
        elif (found := read_json(store, key := f"{path}/.zarray")) is not None:
            make = cls._version_2
        else:
            raise ReadError(
                f"{store.root}, {path},",
                "must be an array of Zarr 2 or 3",
                value="neither .zarray nor zarr.json",
                remedy="Check that the image is complete",
            )
        try:
            array = make(store, path, key, found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise damaged(store.root, key, f"{type(error).__name__}: {error}") from error
        array.check(key)
        return array

    def check(self, key: str) -> None:
        """Raise `ReadError` for sizes that no image has, or that memory cannot hold."""
        sides, chunks = self.shape, (self.chunk if self.sharding is None else self.sharding.shards)
        text = f"{' × '.join(map(str, sides))} in chunks of {' × '.join(map(str, self.chunk))}"
        sane = len(sides) == len(self.chunk) == len(chunks) == len(self.coding.order)
        if not sane or not 2 <= len(sides) <= _MAX_AXES or min(*sides, *self.chunk, *chunks) < 1:
            raise damaged(self.store.root, key, text)
        size = math.prod(self.chunk) * self.coding.dtype.itemsize
        count = math.prod(-(-side // part) for side, part in zip(sides, self.chunk, strict=True))
        index = 0 if self.sharding is None else self.sharding.index_bytes
        if max(sides) <= MAX_SIDE and size <= MAX_CHUNK_BYTES and count <= _MAX_CHUNKS and index <= _MAX_INDEX_BYTES:
            return
        rule = (
            f"must have sides up to {MAX_SIDE}, at most {_MAX_CHUNKS} chunks and {MAX_CHUNK_BYTES >> 20} MiB in a chunk"
        )
        remedy = "Write the image again, in chunks of 512 × 512 px for example"
        raise ReadError(f"{self.store.root}, {self.path},", rule, value=f"{text}, {size} bytes each", remedy=remedy)

    def read_chunk(self, index: Sequence[int]) -> Pixels | None:
        """The chunk at a position, of shape `chunk`; None where none is stored. Raises `ReadError`."""
        place = tuple(index)
        try:
            data = self._stored(place)
            return None if data is None else self.coding.decode(data, self.chunk)
        except ReadError:
            raise
        except Exception as error:  # every codec has exceptions of its own
            where = f"{self.store.root}, {self.path}, chunk {', '.join(map(str, place))},"
            remedy = "Get an undamaged copy of the image; regions that need this chunk are left out"
            why = excerpt(f"{type(error).__name__}: {error}", 300)
            raise ReadError(where, "must be readable", value=why, remedy=remedy) from error

    def key(self, place: Sequence[int]) -> str:
        """The key of a stored chunk or shard."""
        return f"{self.path}/{self.key_prefix}{self.separator.join(map(str, place))}".removeprefix("/")

    def _stored(self, place: tuple[int, ...]) -> bytes | None:
        if self.sharding is None:
            return self.store.get(self.key(place), MAX_CHUNK_BYTES + (MAX_CHUNK_BYTES >> 6) + 4096)
        counts = self.sharding.per_shard
        shard = tuple(at // count for at, count in zip(place, counts, strict=True))
        index = self._index(shard, self.sharding)
        if index is None:
            return None
        start, length = map(int, index[tuple(at % count for at, count in zip(place, counts, strict=True))])
        if start == length == _NOWHERE:
            return None
        if start > 2**62 or length > MAX_CHUNK_BYTES + (MAX_CHUNK_BYTES >> 6) + 4096:
            msg = f"{length} bytes at {start} in its shard"
            raise ValueError(msg)
        data = self.store.get(self.key(shard), length, span=(start, length))
        if data is None or len(data) < length:
            msg = f"{len(data or b'')} of its {length} bytes are there"
            raise ValueError(msg)
        return data

    def _index(self, shard: tuple[int, ...], sharding: Sharding) -> "npt.NDArray[np.uint64] | None":
        """Offset and length of each chunk in a shard, (…, 2); None where there is no shard."""
        if shard in self._indices:
            self._indices.move_to_end(shard)
            return self._indices[shard]
        size = sharding.index_bytes
        data = self.store.get(self.key(shard), size, span=(-size if sharding.at_end else 0, size))
        if data is not None:
            data = without_checksum(data) if sharding.checksum else data
        shape = (*sharding.per_shard, 2)
        found = None if data is None else np.frombuffer(data, dtype="<u8").reshape(shape)
        self._indices[shard] = found
        while len(self._indices) > max(1, _KEPT_INDICES // size):
            self._indices.popitem(last=False)
        return found

    @classmethod
    def _version_2(cls, store: Store, path: str, key: str, found: Json) -> Self:
        shape, chunk = _sides(found["shape"]), _sides(found["chunks"])
        if found.get("zarr_format") != 2:
            raise damaged(store.root, key, f"format {found.get('zarr_format')}")
        dtype = _dtype(found["dtype"], store.root, key)
        settings = as_object(found.get("compressor") or {}, store.root, key)
        compressor = str(settings.get("id", ""))
        if found.get("filters"):
            raise _unsupported(store.root, key, f"the filter {found['filters'][0].get('id')}")
        if compressor and compressor not in COMPRESSORS:
            raise _unsupported(store.root, key, f"the compressor {compressor}")
        if compressor == "lzma" and settings.get("format", 1) != 1:
            raise _unsupported(store.root, key, "lzma in another format than xz")
        axes = tuple(range(len(shape)))
        order = {"C": axes, "F": axes[::-1]}[found.get("order", "C")]
        separator = {".": ".", "/": "/"}[found.get("dimension_separator", ".")]
        return cls(store, path, shape, chunk, Coding(dtype, order, compressor), "", separator)

    @classmethod
    def _version_3(cls, store: Store, path: str, key: str, found: Json) -> Self:
        if found.get("zarr_format") != 3 or found.get("node_type") != "array":
            raise damaged(store.root, key, f"{found.get('node_type')} of format {found.get('zarr_format')}")
        shape, names = _sides(found["shape"]), tuple(str(name or "") for name in found.get("dimension_names") or ())
        grid, encoding = found["chunk_grid"], found.get("chunk_key_encoding", {"name": "default"})
        if grid["name"] != "regular" or found.get("storage_transformers"):
            raise _unsupported(store.root, key, f"the chunk grid {grid['name']}, or a storage transformer")
        outer = _sides(grid["configuration"]["chunk_shape"])
        kind = str(encoding["name"])
        default = {"default": "/", "v2": "."}[kind]
        separator = str(as_object(encoding.get("configuration") or {}, store.root, key).get("separator", default))
        separator = {".": ".", "/": "/"}[separator]
        codecs = _codecs(found["codecs"])
        sharding: Sharding | None = None
        chunk = outer
        if codecs and codecs[0][0] == "sharding_indexed":
            if len(codecs) > 1:
                raise _unsupported(store.root, key, f"{codecs[1][0]} of shards")
            settings = codecs[0][1]
            chunk, codecs = _sides(settings["chunk_shape"]), _codecs(settings["codecs"])
            sharding = _sharding(settings, outer, chunk, store.root, key)
        coding = _coding(str(found["data_type"]), codecs, len(shape), store.root, key)
        prefix = {"default": f"c{separator}", "v2": ""}[kind]
        return cls(store, path, shape, chunk, coding, prefix, separator, names, sharding)


def _codecs(listed: Sequence[Any]) -> list[tuple[str, Json]]:
    """Names without a library's prefix, and configurations."""
    named = [cast("Json", {"name": one} if isinstance(one, str) else one) for one in listed]
    return [
        (str(one["name"]).removeprefix("numcodecs."), cast("Json", one.get("configuration") or {})) for one in named
    ]


def _sharding(settings: Json, outer: tuple[int, ...], inner: tuple[int, ...], root: str, key: str) -> Sharding:
    names = [name for name, _ in _codecs(settings.get("index_codecs", ["bytes", "crc32c"]))]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        raise _unsupported(root, key, f"an index of shards as {' and '.join(names)}")
    if any(whole % part for whole, part in zip(outer, inner, strict=True)):
        raise damaged(root, key, f"shards of {outer} with chunks of {inner}")
    location = {"end": True, "start": False}[settings.get("index_location", "end")]
    counts = tuple(whole // part for whole, part in zip(outer, inner, strict=True))
    return Sharding(outer, counts, location, "crc32c" in names)


def _coding(kind: str, codecs: Sequence[tuple[str, Json]], axes: int, root: str, key: str) -> Coding:
    """The coding of a chunk by codecs of Zarr 3: at most a transposition, then bytes, a compressor and a checksum."""
    if kind not in _TYPES:
        raise _unsupported(root, key, f"the data type {kind}")
    left = list(codecs)
    order = tuple(range(axes))
    if left and left[0][0] == "transpose":
        order = tuple(int(axis) for axis in left.pop(0)[1]["order"])
        if sorted(order) != list(range(axes)):
            raise damaged(root, key, f"a transposition by {order}")
    if not left or left[0][0] != "bytes":
        raise _unsupported(root, key, f"the codec {left[0][0] if left else 'none'}")
    big = left.pop(0)[1].get("endian", "little") == "big"
    compressor = left.pop(0)[0] if left and left[0][0] in COMPRESSORS else ""
    checksum = [name for name, _ in left] == ["crc32c"]
    if left and not checksum:
        raise _unsupported(root, key, f"the codec {left[0][0]}")
    return Coding(np.dtype(kind).newbyteorder(">" if big else "<"), order, compressor, checksum)


def _dtype(text: Any, root: str, key: str) -> np.dtype[Any]:
    if not isinstance(text, str) or np.dtype(text).kind not in "uif" or np.dtype(text).name not in _TYPES:
        raise _unsupported(root, key, f"the data type {text}")
    return np.dtype(text)


def _sides(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError("a shape that is no list")
    listed = cast("list[Any]", value)
    if len(listed) > 2 * _MAX_AXES or any(type(side) is not int for side in listed):
        msg = f"a shape of {len(listed)} axes or without whole numbers"
        raise ValueError(msg)
    return tuple(listed)
