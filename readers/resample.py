"""Resampling in which the value of a pixel does not depend on the window that it is read with.

`pixel_edges` computes the edges of output pixels from absolute level-0 coordinates, so that two boxes on one grid agree
on every edge bit for bit. `axis_weights` turns the edges of one axis into source pixels and weights: area averages for
reducing, bilinear interpolation between pixel centres for enlarging. `resample` adds the weighted source pixels in a
fixed order, elementwise, in float64, so that working in bands of rows (which bounds memory) changes nothing.

    source pixels    │  0  │  1  │  2  │  3  │  4  │      reduced 2.5 times:
    edges            0           2.5           5.0        pixel 0 = (1·s0 + 1·s1 + 0.5·s2) / 2.5
    output pixels    │      0      │      1      │        pixel 1 = (0.5·s2 + 1·s3 + 1·s4) / 2.5
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .image import Mask, Pixels

Edges = npt.NDArray[np.float64]
Rows = Callable[[int, int], tuple[Pixels, Mask | None]]

SNAP = 1e-6  # pixels: an edge this close to a source pixel's edge is moved onto it, so that no sliver is read
BAND = 8 * 2**20  # bytes of float64 sums held at a time
GATHERED_TAPS = 8  # source pixels of one output pixel from which those of all outputs are added in one call, if no
GATHERED = 2**20  # more products than these are held for it: the loop costs calls, which matter for small parts
MANY_TAPS = 1000.3  # source pixels of one output pixel from which each output is summed by itself


@dataclass(frozen=True, slots=True)
class AxisWeights:
    """Source pixels and weights of the output pixels of one axis; N = last - first."""

    count: int
    """Output pixels."""
    first: int
    last: int
    """Output pixels `first:last` overlap the source."""
    start: int
    stop: int
    """They are made of source pixels `start:stop`."""
    index: npt.NDArray[np.intp]
    """Source pixels (taps, N)."""
    weight: Edges
    """Weights (taps, N) of `index`."""
    cover_index: npt.NDArray[np.intp]
    """Source pixels (taps, N) under the footprint."""
    cover: Edges
    """Length (taps, N) of the footprint in each of `cover_index`, in source pixels."""
    total: Edges
    """Length (N,) of the footprint inside the image."""
    exact: bool
    """Whether output pixels are source pixels."""


def pixel_edges(low: float, high: float, count: int) -> Edges:
    """Compute the `count` + 1 edges of the pixels that divide `[low, high)`, in the unit of `low` and `high`.

    Boxes cut from one grid (origin + k · step) get identical edges although their own bounds are rounded: the step is
    computed from the bound that determines it best and rounded to 40 significant bits, the origin to 2⁻²⁰ of a step.
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


def axis_weights(edges: Edges, length: int, *, low: float = 0.0, high: float | None = None) -> AxisWeights:
    """Compute the weights of one axis from ascending `edges` in source pixels.

    length: source pixels.
    low, high: the extent of the image in source pixels, where it is not that of the source (a band of a scene may stop
        short of it): `total` is counted within it.
    """
    whole = np.rint(edges)
    edges = np.where(np.abs(edges - whole) < SNAP, whole, edges)
    top = float(length) if high is None else high
    left, right = np.clip(edges[:-1], 0, length), np.clip(edges[1:], 0, length)
    overlapping = np.flatnonzero(right > left)
    if not overlapping.size:
        none = np.zeros((1, 0))
        return AxisWeights(
            len(edges) - 1, 0, 0, 0, 0, none.astype(np.intp), none, none.astype(np.intp), none, none[0], False
        )
    first, last = int(overlapping[0]), int(overlapping[-1]) + 1
    inside = slice(first, last)
    left, right = left[inside], right[inside]
    total = (np.clip(edges[1:], low, top) - np.clip(edges[:-1], low, top))[inside]
    cover_index, cover = _overlaps(left, right)
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
    """Resample a source with the weights of its two axes.

    rows: `rows(y0, y1)` reads source rows y0:y1 of columns `x.start:x.stop`, as (rows, columns, channels) of `dtype`,
        and their validity (rows, columns), None where all are valid.

    Returns pixels (y.count, x.count, channels) of `dtype` and validity (y.count, x.count). Integers are rounded half to
    even. Reads nothing where the axes do not overlap the source, and one band of rows at a time.
    """
    pixels = np.zeros((y.count, x.count, channels), dtype=dtype)
    valid = np.zeros((y.count, x.count), dtype=bool)
    native_scale = x.exact and y.exact
    if native_scale and (y.last - y.first, x.last - x.first) == (y.count, x.count):
        native, usable = rows(y.start, y.stop)
        return native, np.ones(native.shape[:2], dtype=bool) if usable is None else usable
    if x.first == x.last:
        return pixels, valid
    columns = slice(x.first, x.last)
    taps = len(y.index) if y.weight is y.cover else 1
    height = max(1, BAND // (8 * channels * (x.stop - x.start) * (1 + taps)))
    for begin in range(0, y.last - y.first, height):
        band = slice(begin, min(begin + height, y.last - y.first))
        low, high = int(y.index[:, band].min()), int(y.index[:, band].max()) + 1
        native, usable = rows(low, high)
        out = slice(y.first + band.start, y.first + band.stop)
        if native_scale:
            pixels[out, columns] = native
            valid[out, columns] = True if usable is None else usable
        else:
            pixels[out, columns], valid[out, columns] = _resample_band(native, usable, y, x, band, low)
    return pixels, valid


def _overlaps(left: Edges, right: Edges) -> tuple[npt.NDArray[np.intp], Edges]:
    """Overlap of the intervals `[left, right)` with each source pixel: index and length, both (taps, N)."""
    first = np.floor(left)
    final = np.ceil(right) - 1
    index = first + np.arange(int((final - first).max()) + 1)[:, None]
    cover = np.clip(np.minimum(right, index + 1) - np.maximum(left, index), 0, None)
    return np.minimum(index, final).astype(np.intp), cover


def _resample_band(
    native: Pixels, usable: Mask | None, y: AxisWeights, x: AxisWeights, band: slice, low: int
) -> tuple[Pixels, Mask]:
    """Compute output rows `band` (counted from `y.first`) from the source rows that begin at `low`."""
    dtype = native.dtype
    row_index, row_weight = y.index[:, band] - low, y.weight[:, band]
    column_index = x.index - x.start
    if usable is None or bool(usable.all()):
        tall = _weighted_sum(np.ones((native.shape[0], 1)), row_index, row_weight, axis=0)
        spread = np.broadcast_to(tall, (tall.shape[0], native.shape[1]))
        share = _weighted_sum(spread, column_index, x.weight, axis=1)
        area = y.cover[:, band].sum(axis=0)[:, None] * x.cover.sum(axis=0)
    else:
        native = np.where(usable[:, :, None], native, native.dtype.type(0))
        weights = usable.astype(np.float64)
        tall = _weighted_sum(weights, row_index, row_weight, axis=0)
        area = share = _weighted_sum(tall, column_index, x.weight, axis=1)
        if x.weight is not x.cover or y.weight is not y.cover:
            tall = _weighted_sum(weights, y.cover_index[:, band] - low, y.cover[:, band], axis=0)
            area = _weighted_sum(tall, x.cover_index - x.start, x.cover, axis=1)
    valid = (area >= (0.5 - SNAP) * (y.total[band, None] * x.total)) & (share > 0)
    kind = _accumulator(dtype, row_weight, x.weight)
    tall = _weighted_sum(native, row_index, row_weight, axis=0, kind=kind)
    values = _weighted_sum(tall, column_index, x.weight, axis=1, kind=kind) / np.where(valid, share, 1.0)[:, :, None]
    values += 0.0  # no negative zero, which would depend on the number of empty taps of a window
    if not valid.all():
        values[~valid] = 0
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        top = float(limits.max)
        top = top if int(top) == limits.max else float(np.nextafter(top, 0))
        np.clip(np.rint(values, out=values), limits.min, top, out=values)
    return values.astype(dtype), valid


def _accumulator(dtype: np.dtype[Any], rows: Edges, columns: Edges) -> type[np.int32] | type[np.float64]:
    """Choose the type of the sums: int32 where small integers have weights 0 or 1, which gives the bits of float64."""
    small = dtype.kind in "iu" and max(-np.iinfo(dtype).min, np.iinfo(dtype).max) * len(rows) * len(columns) < 2**31
    whole = all(bool(((weight == 0) | (weight == 1)).all()) for weight in (rows, columns))
    return np.int32 if small and whole else np.float64


def _weighted_sum(
    source: Pixels,
    index: npt.NDArray[np.intp],
    weight: Edges,
    *,
    axis: int,
    kind: type[np.int32] | type[np.float64] = np.float64,
) -> npt.NDArray[Any]:
    """Σ over taps of weight · source along an axis, tap after tap, each elementwise."""
    if weight.sum(axis=0).max(initial=0) > MANY_TAPS:
        return _sum_many(source, index, weight, axis=axis, kind=kind)
    taps, count = index.shape
    part, behind = source.size // max(1, source.shape[axis]) * count, count * math.prod(source.shape[axis + 1 :])
    if taps >= GATHERED_TAPS and behind > 1 and part <= GATHERED // taps:
        # numpy adds along an axis that is not the last one element by element, in order: the sums of the loop below
        weights = weight.astype(kind).reshape(*[1] * axis, taps, count, *[1] * (source.ndim - axis - 1))
        products = np.ascontiguousarray(np.take(source, index, axis=axis) * weights)
        return np.add.reduce(products, axis=axis, dtype=kind)
    shape = [1] * source.ndim
    shape[axis] = index.shape[1]
    total: npt.NDArray[Any] | None = None
    for at, by in zip(index, weight, strict=True):
        if not by.any():
            continue
        part = _select(source, at, axis)
        if not bool((by == 1).all()):
            part = part * by.astype(kind).reshape(shape)
        elif total is None:
            part = part.astype(kind)
        total = part if total is None else np.add(total, part, out=total)
    if total is None:
        total = np.zeros((*source.shape[:axis], index.shape[1], *source.shape[axis + 1 :]), dtype=kind)
    return total


def _sum_many(
    source: Pixels, index: npt.NDArray[np.intp], weight: Edges, *, axis: int, kind: type[np.int32] | type[np.float64]
) -> npt.NDArray[Any]:
    """The same sum, output after output: first the pixels of weight 1, then the one or two that are cut.

    The order of an output's additions depends on its own pixels alone, whatever the window: they are contiguous.
    """
    moved = np.moveaxis(source, axis, -1)
    total = np.zeros((*moved.shape[:-1], index.shape[1]), dtype=kind)
    for out, (at, by) in enumerate(zip(index.T, weight.T, strict=True)):
        whole, cut = at[by == 1], np.flatnonzero((by != 0) & (by != 1))
        if len(whole):
            part = np.ascontiguousarray(moved[..., whole[0] : whole[-1] + 1], dtype=kind)
            total[..., out] = part.sum(axis=-1, dtype=kind)
        for tap in cut:
            total[..., out] += moved[..., at[tap]] * by[tap]
    return np.moveaxis(total, -1, axis)


def _select(source: Pixels, index: npt.NDArray[np.intp], axis: int) -> Pixels:
    """`source` at `index` along an axis: a view where the index is evenly spaced."""
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step > 0 and bool((np.diff(index) == step).all()):
        where = [slice(None)] * source.ndim
        where[axis] = slice(int(index[0]), int(index[-1]) + 1, step)
        return source[tuple(where)]
    return np.take(source, index, axis=axis)
