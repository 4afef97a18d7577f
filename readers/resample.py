"""Resampling in which the value of a pixel does not depend on the window that it is read with.

`pixel_edges` computes the edges of output pixels from absolute level-0 coordinates, so that two boxes on one grid agree
on every edge bit for bit. `axis_weights` turns the edges of one axis into source pixels and weights: area averages for
reducing, bilinear interpolation between pixel centres for enlarging. `resample` adds the weighted source pixels in a
fixed order, elementwise, in float64, so that working in bands of rows (which bounds memory) changes nothing. Integers
that are reduced by whole factors are added as integers, which gives the same bits.

    source pixels    │  0  │  1  │  2  │  3  │  4  │      reduced 2.5 times:
    edges            0           2.5           5.0        pixel 0 = (1·s0 + 1·s1 + 0.5·s2) / 2.5
    output pixels    │      0      │      1      │        pixel 1 = (0.5·s2 + 1·s3 + 1·s4) / 2.5
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from .image import Mask, Pixels

Edges = npt.NDArray[np.float64]
Rows = Callable[[int, int], tuple[Pixels, Mask | None]]

SNAP = 1e-6  # pixels: an edge this close to a source pixel's edge is moved onto it, so that no sliver is read
READ_BYTES = 2 * 2**20
"""Bytes of source rows that are read at a time: they fit a processor's cache."""
ROW_BYTES = 32 * 2**20
"""Bytes of the rows that a source decodes at once, up to which they are read at once."""
PART = 2**18  # source values that are added up at a time: with their sums they fit a processor's cache
MAX_SHIFT = 2  # weights that are multiples of a quarter are integers, times 4
LOOPED_TAPS = 8  # whole source pixels of one output pixel from which integers are added by one call
GATHERED_TAPS = 8  # source pixels of one output pixel from which those of all outputs are added in one call, if no
GATHERED = 2**20  # more products than these are held for it: the loop costs calls, which matter for small parts
MANY_TAPS = 1000.3  # source pixels of one output pixel from which each output is summed by itself
_DOUBLE: Final = np.dtype(np.float64)


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


def resample(
    rows: Rows, y: AxisWeights, x: AxisWeights, channels: int, dtype: np.dtype[Any], *, block: int = 1
) -> tuple[Pixels, Mask]:
    """Resample a source with the weights of its two axes.

    rows: `rows(y0, y1)` reads source rows y0:y1 of columns `x.start:x.stop`, as (rows, columns, channels) of `dtype`,
        and their validity (rows, columns), None where all are valid. It may overwrite what it returned before. Planes
        of channels one after the other in memory are the fastest.
    block: rows that the source decodes at once, counted from row 0.

    Returns pixels (y.count, x.count, channels) of `dtype` and validity (y.count, x.count). Integers are rounded half to
    even. Reads nothing where the axes do not overlap the source; otherwise every row once, in order: `READ_BYTES` at a
    time, or more up to the end of a block, or for an output row that is made of more.
    """
    if x.exact and y.exact and (y.last - y.first, x.last - x.first) == (y.count, x.count):
        native, usable = rows(y.start, y.stop)
        return native, np.ones(native.shape[:2], dtype=bool) if usable is None else usable
    pixels = np.zeros((channels, y.count, x.count), dtype=dtype)
    valid = np.zeros((y.count, x.count), dtype=bool)
    if x.first < x.last and y.first < y.last:
        columns = slice(x.first, x.last)
        reduction = None if x.exact and y.exact else _Reduction(y, x, dtype)
        row_bytes = max(1, (x.stop - x.start) * channels * dtype.itemsize)
        block = block if block * row_bytes <= ROW_BYTES else 1
        for outputs, low, native, usable in _read_bands(rows, y, READ_BYTES // row_bytes, block):
            out = slice(y.first + outputs.start, y.first + outputs.stop)
            if reduction is None:
                pixels[:, out, columns] = native.transpose(2, 0, 1)
                valid[out, columns] = True if usable is None else usable
            else:
                reduction.reduce(native, usable, outputs, low, pixels[:, out, columns], valid[out, columns])
    return pixels.transpose(1, 2, 0), valid


def _overlaps(left: Edges, right: Edges) -> tuple[npt.NDArray[np.intp], Edges]:
    """Overlap of the intervals `[left, right)` with each source pixel: index and length, both (taps, N)."""
    first = np.floor(left)
    final = np.ceil(right) - 1
    index = first + np.arange(int((final - first).max()) + 1)[:, None]
    cover = np.clip(np.minimum(right, index + 1) - np.maximum(left, index), 0, None)
    return np.minimum(index, final).astype(np.intp), cover


def _read_bands(rows: Rows, y: AxisWeights, most: int, block: int) -> Iterator[tuple[slice, int, Pixels, Mask | None]]:
    """Read every row once, `most` at a time or more, up to the edges of blocks.

    Yields output rows (counted from `y.first`) with the first source row, pixels and validity of what they are made of.
    Output rows that are cut where a read ends are made of its last rows, which are kept, and the first of the next.
    """
    first, last = y.index.min(axis=0), y.index.max(axis=0) + 1
    count, done, stop = y.last - y.first, 0, y.start
    kept: tuple[int, Pixels, Mask | None] | None = None
    while done < count:
        low, need = stop, int(last[done])
        stop = min(-(-max(low + most, need) // block) * block, y.stop)
        native, usable = rows(low, stop)
        ready = int(np.searchsorted(last, stop, side="right"))
        if kept is not None:
            cut = min(ready, int(np.searchsorted(first, low)))
            above, pixels, mask = kept
            below = int(last[cut - 1]) - low
            joined = np.concatenate([pixels, native[:below]])
            if mask is not None or usable is not None:
                masks = (mask, pixels), (None if usable is None else usable[:below], native[:below])
                mask = np.concatenate([np.ones(of.shape[:2], np.bool_) if one is None else one for one, of in masks])
            yield slice(done, cut), above, joined, mask
            done, kept = cut, None
        if ready > done:
            yield slice(done, ready), low, native, usable
            done = ready
        if done < count and int(first[done]) < stop:
            above = int(first[done])
            kept = above, native[above - low :].copy("K"), None if usable is None else usable[above - low :].copy()


class _Reduction:
    """Weighted means along both axes, of bands of source rows."""

    def __init__(self, y: AxisWeights, x: AxisWeights, dtype: np.dtype[Any]) -> None:
        self._y, self._x, self._dtype = y, x, dtype
        self._down, self._across = _Taps.of(y.index, y.weight), _Taps.of(x.index, x.weight)
        self._cover = None
        if y.weight is not y.cover or x.weight is not x.cover:
            self._cover = _Taps.of(y.cover_index, y.cover), _Taps.of(x.cover_index, x.cover)
        heaviest = self._down.heaviest * self._across.heaviest
        self._kind, self._count_kind = (_sum_type(kind, heaviest) for kind in (dtype, np.dtype(np.bool_)))
        self._even = self._down.is_even and self._across.is_even
        self._factor = heaviest if self._even and self._kind.kind != "f" else 0
        self._paired = self._even and all(taps.scaled is not None and taps.pairs for taps in (self._down, self._across))
        self._unit = 0.5 ** (self._down.shift + self._across.shift)  # of integer sums
        self._share = heaviest * self._unit
        self._areas = y.cover.sum(axis=0), x.cover.sum(axis=0)
        least = (float((area / axis.total).min()) for area, axis in zip(self._areas, (y, x), strict=True))
        self._covered = self._even or math.prod(least) > 0.5 + SNAP
        if not self._even:  # what the weights add up to, once for each of the few sums along y
            every = slice(0, y.last - y.first)
            tall = self._down.sum(np.ones((1, y.stop - y.start, 1)), every, y.start, axis=1, kind=_DOUBLE).ravel()
            sums, self._sum_of = np.unique(tall, return_inverse=True)
            spread = np.broadcast_to(sums[:, None], (1, len(sums), x.stop - x.start))
            self._shares = self._sum_columns(spread, _DOUBLE)[0]

    def reduce(
        self, native: Pixels, usable: Mask | None, outputs: slice, low: int, pixels: Pixels, valid: Mask
    ) -> None:
        """Reduce source rows (rows, columns, channels), the first of which is `low`, to the output rows `outputs`.

        pixels, valid: where the result goes, (channels, rows, columns) and (rows, columns).
        """
        each = max(1, PART * (outputs.stop - outputs.start) // native.size)
        for first in range(outputs.start, outputs.stop, each):
            part = slice(first, min(first + each, outputs.stop))
            start, stop = int(self._y.index[:, part].min()), int(self._y.index[:, part].max()) + 1
            rows, here = np.s_[start - low : stop - low], np.s_[part.start - outputs.start : part.stop - outputs.start]
            mask = None if usable is None or bool(usable[rows].all()) else usable[rows]
            self._reduce_part(native[rows], mask, part, start, pixels[:, here], valid[here])

    def _reduce_part(
        self, native: Pixels, usable: Mask | None, part: slice, low: int, pixels: Pixels, valid: Mask
    ) -> None:
        if usable is None:
            total = self._sum_both(native, part, low, self._kind)
            if self._factor:
                pixels[...], valid[...] = _divide(total, self._factor), True
                return
            share = np.asarray(self._share) if self._even else self._shares[self._sum_of[part]]
            area = None if self._covered else self._areas[0][part, None] * self._areas[1]
        else:
            total = self._sum_both(_zero(native, usable), part, low, self._kind)
            counted = usable.view(np.uint8)[:, :, None]
            area = share = self._in_pixels(self._sum_both(counted, part, low, self._count_kind)[0])
            if self._cover is not None:
                tall = self._cover[0].sum(counted.transpose(2, 0, 1), part, low, axis=1, kind=_DOUBLE)
                every = slice(0, self._x.last - self._x.first)
                area = self._cover[1].sum(tall, every, self._x.start, axis=2, kind=_DOUBLE)[0]
        if area is None:
            valid[...] = True
        else:
            np.greater_equal(area, (0.5 - SNAP) * (self._y.total[part, None] * self._x.total), out=valid)
            valid &= share > 0
        complete = bool(valid.all())
        values = self._in_pixels(total) / (share if complete else np.where(valid, share, 1.0))
        if self._dtype.kind == "f":
            values += 0.0  # no negative zero, which would depend on the number of empty taps of a window
        else:
            np.rint(values, out=values)
            if self._dtype.itemsize == 8:
                limits = np.iinfo(self._dtype)
                np.clip(values, limits.min, np.nextafter(float(limits.max), 0), out=values)
        if not complete:
            values[:, ~valid] = 0
        pixels[...] = values

    def _sum_both(self, native: Pixels, part: slice, low: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """Sums (channels, rows, columns) of source pixels (rows, columns, channels), in whatever order of memory."""
        rows, columns, channels = native.shape
        if self._paired and native.dtype.kind == "u" and native.strides[1] == native.itemsize:
            return _sum_pairs(native.transpose(2, 0, 1))
        if channels == 1 or native.strides[1] <= native.strides[2]:
            return self._sum_columns(self._down.sum(native.transpose(2, 0, 1), part, low, axis=1, kind=kind), kind)
        tall = self._down.sum(native.reshape(1, rows, columns * channels), part, low, axis=1, kind=kind)
        return self._sum_columns(tall.reshape(-1, columns, channels).transpose(2, 0, 1), kind)

    def _in_pixels(self, total: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return total if self._unit == 1 or total.dtype.kind == "f" else total * self._unit

    def _sum_columns(self, tall: npt.NDArray[Any], kind: np.dtype[Any]) -> npt.NDArray[Any]:
        every, start = slice(0, self._x.last - self._x.first), self._x.start
        if len(tall) == 1 or tall.strides[2] == tall.itemsize:
            return self._across.sum(tall, every, start, axis=2, kind=kind)
        planes = (self._across.sum(tall[at : at + 1], every, start, axis=2, kind=kind) for at in range(len(tall)))
        return np.concatenate(list(planes))


@dataclass(frozen=True, slots=True)
class _Taps:
    """Source pixels and weights (taps, N) of one axis, as `AxisWeights` has them."""

    index: npt.NDArray[np.intp]
    weight: Edges
    scaled: npt.NDArray[np.int64] | None
    """`weight` · 2^`shift` where these are integers, None otherwise."""
    shift: int
    period: int
    step: int
    run: tuple[int, int]
    """Of the output pixels `first:last`, each has the weights of the one `period` before, `step` source pixels on."""
    many: bool
    """Whether each output pixel is summed by itself."""

    @classmethod
    def of(cls, index: npt.NDArray[np.intp], weight: Edges) -> Self:
        """Find what holds for all output pixels."""
        many = bool(weight.sum(axis=0).max() > MANY_TAPS)
        shifts = range(1 if many else MAX_SHIFT + 1)
        shift = next((at for at in shifts if bool(((weight * 2**at) % 1 == 0).all())), None)
        scaled = None if shift is None else np.rint(weight * 2**shift).astype(np.int64)
        period, step, run = 1, len(index), (0, 0)
        for period in (1, 2, 4) if shift is not None else ():
            step = round(float(weight.sum(axis=0).max()) * period)
            same = (weight[:, period:] == weight[:, :-period]).all(axis=0)
            same &= index[0, period:] - index[0, :-period] == step
            places = np.flatnonzero(same)
            if step and places.size and 2 * places.size >= len(same):
                first, last = int(places[0]), int(places[-1]) + 1
                run = (first, last + period) if bool(same[first:last].all()) else (0, 0)
                break
        return cls(index, weight, scaled, shift or 0, period, step, run, many)

    @property
    def heaviest(self) -> int:
        """The largest sum of `scaled` weights; 0 where there are none."""
        return 0 if self.scaled is None else int(self.scaled.sum(axis=0).max())

    @property
    def pairs(self) -> bool:
        """Whether each output pixel is the sum of two source pixels, and the next one of the two after these."""
        return self.is_even and self.period == 1 and self.step == 2 and bool((self.weight == 1).all())

    @property
    def is_even(self) -> bool:
        """Whether all output pixels are sums of the same weight, at even distances."""
        return self.run == (0, self.index.shape[1])

    def sum(self, source: Pixels, part: slice, low: int, *, axis: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """Σ over taps of weight · source for the output pixels `part`, along axis 1 or 2 of three.

        low: the source pixel that `source` begins with. Integers are weighted with `scaled`.
        """
        weights = self.weight if kind.kind == "f" or self.scaled is None else self.scaled
        index, weight = self.index[:, part] - low, weights[:, part]
        first, last = (min(max(place, part.start), part.stop) - part.start for place in self.run)
        if first >= last or (self.many and kind.kind == "f"):
            return self._sum_weighted(source, index, weight, axis=axis, kind=kind)
        inner = self._sum_even(source, index[:, first:last], weight[:, first:last], axis=axis, kind=kind)
        if last - first == index.shape[1]:
            return inner
        before, after = (
            self._sum_weighted(source, index[:, end], weight[:, end], axis=axis, kind=kind)
            for end in (slice(0, first), slice(last, None))
        )
        return np.concatenate([before, inner, after], axis=axis)

    def _sum_even(
        self, source: Pixels, index: npt.NDArray[np.intp], weight: npt.NDArray[Any], *, axis: int, kind: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """The same for outputs at even distances: slices of the source, tap after tap, or all at once as integers."""
        before, count = (slice(None),) * axis, index.shape[1]
        if self.period == 1 and self.step == len(index) >= LOOPED_TAPS and kind.kind != "f":
            groups = source[(*before, slice(int(index[0, 0]), int(index[0, 0]) + self.step * count))]
            groups = groups.reshape(*source.shape[:axis], count, self.step, *source.shape[axis + 1 :])
            return np.add.reduce(groups, axis=axis + 1, dtype=kind)
        shape = (*source.shape[:axis], count, *source.shape[axis + 1 :])
        result = np.empty(shape, kind)
        for at in range(min(self.period, count)):
            out = result[(*before, slice(at, None, self.period))]
            length = self.step * (out.shape[axis] - 1) + 1
            taps = [
                (source[(*before, slice(int(start), int(start) + length, self.step))], kind.type(by))
                for start, by in zip(index[0, at] + np.arange(len(index)), weight[:, at], strict=True)
                if by
            ]
            parts = [tap if by == 1 else np.multiply(tap, by, dtype=kind) for tap, by in taps]
            if len(parts) == 1:
                out[...] = parts[0]
            else:
                np.add(parts[0], parts[1], out=out, dtype=kind)
            for one in parts[2:]:
                np.add(out, one, out=out)
        return result

    def _sum_weighted(
        self, source: Pixels, index: npt.NDArray[np.intp], weight: npt.NDArray[Any], *, axis: int, kind: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """The same for any weights, tap after tap, each elementwise."""
        if self.many:
            return _sum_many(source, index, weight, axis=axis, kind=kind)
        taps, count = index.shape
        products, behind = source.size // source.shape[axis] * count, count * math.prod(source.shape[axis + 1 :])
        if taps >= GATHERED_TAPS and behind > 1 and products <= GATHERED // taps:
            # numpy adds along an axis that is not the last one element by element, in order: the sums of the loop below
            weights = weight.astype(kind).reshape(*[1] * axis, taps, count, *[1] * (2 - axis))
            gathered = np.ascontiguousarray(np.take(source, index, axis=axis) * weights)
            return np.add.reduce(gathered, axis=axis, dtype=kind)
        source = source.astype(kind, copy=False)
        total: npt.NDArray[Any] | None = None
        tap = np.empty((*source.shape[:axis], count, *source.shape[axis + 1 :]), kind)
        for at, by in zip(index, weight, strict=True):
            if not by.any():
                continue
            np.take(source, at, axis=axis, out=tap, mode="clip")
            if not bool((by == 1).all()):
                np.multiply(tap, by.astype(kind).reshape(count, *[1] * (2 - axis)), out=tap)
            total = tap.copy() if total is None else np.add(total, tap, out=total)
        return np.zeros_like(tap) if total is None else total


def _sum_pairs(planes: Pixels) -> npt.NDArray[Any]:
    """Sums of 2 × 2 unsigned integers (channels, rows, columns): two of a row as halves of a larger one."""
    both = planes.view(f"u{2 * planes.itemsize}")
    sums = both & both.dtype.type(2 ** (8 * planes.itemsize) - 1)
    sums += both >> 8 * planes.itemsize
    return sums[:, ::2] + sums[:, 1::2]


def _sum_many(
    source: Pixels, index: npt.NDArray[np.intp], weight: Edges, *, axis: int, kind: np.dtype[Any]
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


def _sum_type(dtype: np.dtype[Any], heaviest: int) -> np.dtype[Any]:
    """The type of sums of a weight: an integer where the weights are (`heaviest` > 0), with the result of float64."""
    if dtype.kind in "iub" and heaviest:
        largest = 1 if dtype.kind == "b" else max(-int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        for kind in map(np.dtype, ("i4", "i8") if dtype.kind == "i" else ("u1", "u2", "u4", "u8")):
            if (largest + 1) * heaviest <= min(np.iinfo(kind).max, 2**53):
                return kind
    return _DOUBLE


def _divide(total: npt.NDArray[Any], by: int) -> npt.NDArray[Any]:
    """Divide integers, rounded half to even."""
    shift = by.bit_length() - 1
    if by == 1 << shift and shift:
        result = (total >> shift) & 1
        result += total
        result += by // 2 - 1
        result >>= shift
        return result
    total = total + by // 2
    result = total // by
    if by % 2 == 0:
        result -= (result * by == total) & (result & 1).astype(np.bool_)
    return result


def _zero(native: Pixels, usable: Mask) -> Pixels:
    """Source pixels (rows, columns, channels) that are 0 where they are not usable (rows, columns), NaN as well."""
    bits = native if native.dtype.kind in "iu" else native.view(f"u{native.itemsize}")
    return (bits * usable[:, :, None]).view(native.dtype)
