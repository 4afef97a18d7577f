"""Resampling that gives a pixel the same value whatever window it is read with.

A picture is sampled on a lattice: `pixel_edges` says where the edges of the output pixels of a box lie, from absolute
level-0 coordinates, so two boxes on one lattice agree on every edge bit for bit. `axis_weights` turns the edges of one
axis into source pixels and weights: reducing averages areas, enlarging is bilinear between pixel centres. `resample`
then adds the taps in a fixed order, elementwise, in float64, so that an output pixel depends on no other and cutting
the work into bands of rows (which bounds the memory) changes nothing. Only valid source pixels count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .image import Mask, Pixels

Edges = npt.NDArray[np.float64]
Rows = Callable[[int, int], tuple[Pixels, Mask | None]]

SNAP = 1e-6  # pixels: an edge this near a source pixel's edge is on it, so that no sliver of a neighbour is read
BAND = 8 * 2**20  # bytes of float64 sums held at a time


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """How the output pixels of one axis draw on source pixels.

    Output pixels `first:last` of `count` touch the source and draw on its pixels `start:stop`. For those, `index` and
    `weight` (taps, last - first) are source pixels and weights of the value, `cover_index` and `cover` the same for
    the footprint: how much of each source pixel, in source pixels, the output pixel covers. `total` is the length of
    the footprint inside the picture. `exact` means that output pixels are source pixels.
    """

    count: int
    first: int
    last: int
    start: int
    stop: int
    index: npt.NDArray[np.intp]
    weight: Edges
    cover_index: npt.NDArray[np.intp]
    cover: Edges
    total: Edges
    exact: bool


def pixel_edges(low: float, high: float, count: int) -> Edges:
    """The `count` + 1 edges of the pixels that divide `[low, high)`, in the unit of `low` and `high`.

    Boxes cut from one lattice (origin + k · step) get identical edges although their own bounds are rounded: the step
    is recovered from the bound that knows it best and kept to 40 significant bits, the origin to a 2⁻²⁰ of a step.
    """
    step = (high - low) / count
    first = round(low / step)
    phase = round((low / step - first) * 2**20) / 2**20
    far, bound = max((abs(first), low), (abs(first + count), high))
    if far and not phase:
        step = abs(bound) / far
    mantissa, exponent = np.frexp(step)
    step = float(np.ldexp(np.rint(np.ldexp(mantissa, 40)), int(exponent) - 40))
    return (np.arange(first, first + count + 1, dtype=np.float64) + phase) * step


def axis_weights(edges: Edges, length: int, *, low: float = 0.0, high: float | None = None) -> AxisWeights | None:
    """The taps of one axis: `edges` in source pixels (ascending), a source of `length` pixels; None where none touch.

    `low` and `high` bound the picture in source pixels where that is not the source's own extent (a band of a scene
    may stop short of it): a footprint's share is reckoned of what lies between them.
    """
    whole = np.rint(edges)
    edges = np.where(np.abs(edges - whole) < SNAP, whole, edges)
    top = float(length) if high is None else high
    left, right = np.clip(edges[:-1], 0, length), np.clip(edges[1:], 0, length)
    touching = np.flatnonzero(right > left)
    if not touching.size:
        return None
    first, last = int(touching[0]), int(touching[-1]) + 1
    inside = slice(first, last)
    left, right = left[inside], right[inside]
    total = (np.clip(edges[1:], low, top) - np.clip(edges[:-1], low, top))[inside]
    cover_index, cover = _areas(left, right)
    step = float(edges[-1] - edges[0]) / (len(edges) - 1)
    exact = bool(np.array_equal(edges, np.arange(len(edges)) + edges[0])) and float(edges[0]).is_integer()
    if step >= 1 - SNAP:
        index, weight = cover_index, cover
    else:
        centre = (edges[:-1] + edges[1:])[inside] / 2 - 0.5
        below = np.floor(centre)
        share = centre - below
        index = np.clip(np.stack([below, below + 1]), 0, length - 1).astype(np.intp)
        weight = np.stack([1 - share, share])
    start, stop = int(index.min()), int(index.max()) + 1
    return AxisWeights(len(edges) - 1, first, last, start, stop, index, weight, cover_index, cover, total, exact)


def resample(rows: Rows, y: AxisWeights, x: AxisWeights, channels: int, dtype: np.dtype[Any]) -> tuple[Pixels, Mask]:
    """Sample a source through the taps of its two axes.

    `rows(y0, y1)` gives source rows y0:y1, columns `x.start:x.stop`, as (rows, columns, channels) of `dtype`, and where
    they are valid (None: everywhere). Returns (y.count, x.count, channels) of `dtype` and (y.count, x.count) validity.
    Integers are rounded half to even. Holds a band of rows at a time, besides the result.
    """
    untouched = x.exact and y.exact
    if untouched and (y.last - y.first, x.last - x.first) == (y.count, x.count):
        native, usable = rows(y.start, y.stop)
        return native, np.ones(native.shape[:2], dtype=bool) if usable is None else usable
    pixels = np.zeros((y.count, x.count, channels), dtype=dtype)
    valid = np.zeros((y.count, x.count), dtype=bool)
    columns = slice(x.first, x.last)
    reach = max(1, len(y.index))
    height = max(1, BAND // (8 * channels * (x.stop - x.start) * (1 + (reach if y.weight is y.cover else 1))))
    for begin in range(0, y.last - y.first, height):
        end = min(begin + height, y.last - y.first)
        here = slice(begin, end)
        low, high = int(y.index[:, here].min()), int(y.index[:, here].max()) + 1
        native, usable = rows(low, high)
        out = slice(y.first + begin, y.first + end)
        if untouched:
            pixels[out, columns] = native
            valid[out, columns] = True if usable is None else usable
            continue
        pixels[out, columns], valid[out, columns] = _band(native, usable, y, x, here, low)
    return pixels, valid


def _areas(left: Edges, right: Edges) -> tuple[npt.NDArray[np.intp], Edges]:
    """How much of each source pixel the intervals `[left, right)` cover: (taps, n) index and length."""
    first = np.floor(left)
    final = np.ceil(right) - 1
    index = first + np.arange(int((final - first).max()) + 1)[:, None]
    cover = np.clip(np.minimum(right, index + 1) - np.maximum(left, index), 0, None)
    return np.minimum(index, final).astype(np.intp), cover


def _band(
    native: Pixels, usable: Mask | None, y: AxisWeights, x: AxisWeights, here: slice, low: int
) -> tuple[Pixels, Mask]:
    """Output rows `here` (counted from `y.first`) from the source rows that begin at `low`."""
    dtype = native.dtype
    row_index, row_weight = y.index[:, here] - low, y.weight[:, here]
    column_index = x.index - x.start
    if usable is not None and bool(usable.all()):
        usable = None
    if usable is None:
        tall = _weigh(np.ones((native.shape[0], 1)), row_index, row_weight, axis=0)
        spread = np.broadcast_to(tall, (tall.shape[0], native.shape[1]))
        share = _weigh(spread, column_index, x.weight, axis=1)
        area = y.cover[:, here].sum(axis=0)[:, None] * x.cover.sum(axis=0)
    else:
        native = np.where(usable[:, :, None], native, native.dtype.type(0))
        weights = usable.astype(np.float64)
        share = _weigh(_weigh(weights, row_index, row_weight, axis=0), column_index, x.weight, axis=1)
        if x.weight is x.cover and y.weight is y.cover:
            area = share
        else:
            tall = _weigh(weights, y.cover_index[:, here] - low, y.cover[:, here], axis=0)
            area = _weigh(tall, x.cover_index - x.start, x.cover, axis=1)
    valid = (area >= (0.5 - SNAP) * (y.total[here, None] * x.total)) & (share > 0)
    kind = _accumulator(dtype, row_weight, x.weight)
    sums = _weigh(_weigh(native, row_index, row_weight, axis=0, kind=kind), column_index, x.weight, axis=1, kind=kind)
    values = sums / np.where(valid, share, 1.0)[:, :, None]
    values += 0.0  # no negative zero, which would tell how many empty taps a window had
    if not valid.all():
        values[~valid] = 0
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        top = float(limits.max)
        top = top if int(top) == limits.max else float(np.nextafter(top, 0))
        np.clip(np.rint(values, out=values), limits.min, top, out=values)
    return values.astype(dtype), valid


def _accumulator(dtype: np.dtype[Any], rows: Edges, columns: Edges) -> type[np.int32] | type[np.float64]:
    """What holds the sums: 32-bit integers where they give what float64 gives, bit for bit, in half the memory.

    That is where small integers are added whole, none of them in part.
    """
    small = dtype.kind in "iu" and max(-np.iinfo(dtype).min, np.iinfo(dtype).max) * len(rows) * len(columns) < 2**31
    whole = all(bool(((weight == 0) | (weight == 1)).all()) for weight in (rows, columns))
    return np.int32 if small and whole else np.float64


def _weigh(
    source: Pixels,
    index: npt.NDArray[np.intp],
    weight: Edges,
    *,
    axis: int,
    kind: type[np.int32] | type[np.float64] = np.float64,
) -> npt.NDArray[Any]:
    """Σ over taps of weight · source along an axis, tap after tap, each elementwise."""
    shape = [1] * source.ndim
    shape[axis] = index.shape[1]
    total: npt.NDArray[Any] | None = None
    for at, by in zip(index, weight, strict=True):
        if not by.any():
            continue
        part = _select(source, at, axis)
        if bool((by == 1).all()):
            total = part.astype(kind) if total is None else np.add(total, part, out=total)
        else:
            part = part * by.astype(kind).reshape(shape)
            total = part if total is None else np.add(total, part, out=total)
    if total is None:
        total = np.zeros((*source.shape[:axis], index.shape[1], *source.shape[axis + 1 :]), dtype=kind)
    return total


def _select(source: Pixels, index: npt.NDArray[np.intp], axis: int) -> Pixels:
    """`source` at `index` along an axis: a view where the index is evenly spaced."""
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step > 0 and bool((np.diff(index) == step).all()):
        where = [slice(None)] * source.ndim
        where[axis] = slice(int(index[0]), int(index[-1]) + 1, step)
        return source[tuple(where)]
    return np.take(source, index, axis=axis)
