"""Data inside a page: numbers as compressed binary blocks, which a browser reads a hundred times faster than JSON.

A block is base64 of a zlib stream of: the length of the header as 32 bits, the header as JSON in UTF-8, and the arrays,
each at a multiple of 8 bytes. All is little-endian. The header's `arrays` state name, type and length of each.

An outline is a number of rings, and for each ring the number of its vertices and then the vertices, all as numbers of
variable length with 7 bits a byte (LEB128). A vertex is the difference to the one before, the first of a ring to the
finding's anchor; differences 0, -1, 1, -2, … are written as 0, 1, 2, 3, …. Holes are rings like others: the even-odd
rule fills.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import base64
import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from ..measures import Shapes

STEPS: Final = 8
"""Steps per level-0 pixel to which vertices are rounded."""

_LEVEL: Final = 4  # of zlib: higher ones gain two per cent and take twice as long
_BLOCK: Final = re.compile(rb"(?<![A-Za-z0-9+/])eF[4-7][A-Za-z0-9+/]{9,}={0,2}")  # zlib's first bytes at this level
_LONGEST: Final = 2**28  # bytes
_TYPES: Final = {
    "u1": "Uint8Array",
    "i4": "Int32Array",
    "u4": "Uint32Array",
    "f4": "Float32Array",
    "f8": "Float64Array",
}
_SIMPLIFIED: Final = 64  # vertices of an outline from which it is simplified where the picture is coarser

Bytes = npt.NDArray[np.uint8]
Lengths = npt.NDArray[np.int64]


def data_block(header: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """A header and arrays as the text of a data block."""
    return base64.b64encode(zlib.compress(packed(header, arrays), _LEVEL)).decode()


def packed(header: Mapping[str, object], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """A header and arrays as the bytes of a data block, as a server sends them."""
    stated, parts, at = list[tuple[str, str, int]](), list[bytes](), 0
    for name, values in arrays.items():
        kind = values.dtype.str[1:]
        content = values.astype(f"<{kind}").tobytes()
        stated.append((name, _TYPES[kind], len(values)))
        parts += [content, bytes(-len(content) % 8)]
        at += len(content)
    text = json.dumps({**header, "arrays": stated}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    start = text.encode("utf-8", "replace")
    head = [len(start).to_bytes(4, "little"), start, bytes(-(4 + len(start)) % 8)]
    return b"".join([*head, *parts])


def block_contents(page: bytes) -> Iterator[bytes]:
    """What the data blocks of a page hold, uncompressed, each at most `_LONGEST` bytes of it."""
    for found in _BLOCK.finditer(page):
        with contextlib.suppress(ValueError, zlib.error):  # other text
            yield zlib.decompressobj().decompress(base64.b64decode(found[0]), _LONGEST)


def varints(values: npt.NDArray[np.uint32]) -> tuple[Bytes, Lengths]:
    """Numbers as LEB128: the bytes of all, and how many each has.

    >>> varints(np.array([1, 300], np.uint32))[0].tolist()
    [1, 172, 2]
    """
    count = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    bits = 7 * np.arange(count, dtype=np.uint32)
    used = np.ones((len(values), count), np.bool_)
    used[:, 1:] = values[:, None] >= np.uint32(1) << bits[1:]
    made: Bytes = (values[:, None] >> bits).astype(np.uint8) & np.uint8(0x7F)
    made[:, :-1] |= used[:, 1:].view(np.uint8) << 7
    lengths = np.ones(len(values), np.int64)
    for place in range(1, count):
        lengths += used[:, place]
    return made[used], lengths


def encode_outlines(geometries: Shapes, coarseness: float) -> tuple[Bytes, Lengths, npt.NDArray[np.int32]]:
    """Outlines (N,) in level-0 pixels: the bytes of all, how many each has, and their anchors (N, 2) in steps.

    Where the page's picture has `coarseness` > 1 level-0 pixels per pixel, outlines of many vertices are simplified to
    a quarter of its pixel. A geometry other than a polygon becomes its bounding box.
    """
    shapes = geometries.copy()
    odd = ~np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    shapes[odd] = shapely.envelope(shapes[odd])
    if coarseness > 1.0:
        rich = shapely.get_num_coordinates(shapes) > _SIMPLIFIED
        simpler = shapely.simplify(shapes[rich], coarseness / 4, preserve_topology=False)
        shapes[rich] = np.where(shapely.is_empty(simpler), shapes[rich], simpler)
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    finding = owner[part]
    counts = np.maximum(shapely.get_num_coordinates(rings).astype(np.int64) - 1, 0)  # without the repeated first one
    ends = np.cumsum(counts + 1)
    first = ends - counts - 1  # of each ring among its coordinates
    xy = np.rint(shapely.get_coordinates(rings) * STEPS).astype(np.int64)
    kept = np.ones(len(xy), np.bool_)
    kept[ends - 1] = False
    anchors = np.zeros((len(shapes), 2), np.int64)
    firsts = np.flatnonzero(np.diff(finding, prepend=-1))
    anchors[finding[firsts]] = xy[first[firsts]]
    before = np.empty_like(xy)
    before[1:] = xy[:-1]
    before[first] = anchors[finding]
    steps = (xy - before)[kept]
    zigzag = np.where(steps >= 0, 2 * steps, -2 * steps - 1)

    rings_of = np.bincount(finding, minlength=len(shapes))
    sizes = 1 + 2 * counts  # of rings
    size_of = 1 + np.bincount(finding, weights=sizes, minlength=len(shapes)).astype(np.int64)
    starts = np.cumsum(size_of) - size_of
    values = np.empty(int(size_of.sum()), np.uint32)
    values[starts] = rings_of
    ring_starts = np.cumsum(sizes) - sizes + finding + 1  # one more number for each finding up to this one
    values[ring_starts] = counts
    vertex = np.repeat(ring_starts + 1 - 2 * (np.cumsum(counts) - counts), counts) + 2 * np.arange(len(zigzag))
    values[vertex], values[vertex + 1] = zigzag[:, 0], zigzag[:, 1]
    encoded, lengths = varints(values)
    return encoded, np.add.reduceat(lengths, starts) if len(starts) else lengths, anchors.astype(np.int32)


def take_outlines(encoded: Bytes, lengths: Lengths, rows: npt.NDArray[np.intp]) -> Bytes:
    """The bytes of some outlines, in the given order."""
    return take_pieces(encoded, (np.cumsum(lengths) - lengths)[rows], lengths[rows])


def take_pieces(stored: Bytes, starts: Lengths, lengths: Lengths) -> Bytes:
    """Pieces of an array, one after the other."""
    ends = np.cumsum(lengths)
    return stored[np.repeat(starts - ends + lengths, lengths) + np.arange(int(ends[-1]) if len(ends) else 0)]
