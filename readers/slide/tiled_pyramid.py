"""Reading boxes of an image that is stored as a pyramid of tiles: choice of level, tile cache, resampling.

Format libraries only deliver single tiles on a fixed grid. So a pixel's value does not depend on the box that it is
read with, memory is bounded, and a tile that cannot be decoded fails only the boxes that need it.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np

from ..geometry import Box
from ..image import Mask, Pixels, StoredLevel
from ..resample import AxisWeights, axis_weights, pixel_edges, resample
from .padding import padding_mask

Tile = tuple[Pixels, Mask | None]
"""Pixels (height, width, channels) and validity (None: all valid)."""

CACHE_BYTES: Final = 96 << 20
"""Decoded tiles that an open image keeps; more where two rows of tiles are."""
_MOST_REDUCED: Final = 1 << 20  # pixels of a tile up to which it is reduced as a whole
_MOST_ADDED: Final = 256  # values of 8 bits whose sum has 16, with what rounds it
_TOLERANCE: Final = 1e-6  # relative: a level that is coarser than requested by less is fine enough
_pixel_edges: Final = lru_cache(maxsize=8)(pixel_edges)


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid; all pairs are (x, y)."""

    size: tuple[int, int]
    """In its own pixels."""
    scale: tuple[float, float]
    """Level-0 pixels per pixel."""
    tile: tuple[int, int]
    """Tile size in its own pixels."""

    @classmethod
    def of(cls, full: tuple[int, int], size: tuple[int, int], tile: tuple[int, int]) -> Self:
        """The level of `size` in a pyramid of `full` level-0 pixels.

        Pyramids are made by whole factors, mostly powers of two, and the remainder of a last pixel is dropped or
        padded. So where `size` is `full` divided by such a factor and rounded either way, the factor is the scale;
        otherwise the quotient is. (The usual quotient shifts a coarse level's far edge by up to a pixel: the third
        level of a real pyramid of 2500 px fits 8 better than 2500 / 312, with 9.2 against 14.0 grey levels RMS.)
        """
        ratio = max(full) / max(size)
        for whole in (2 ** round(math.log2(ratio)), round(ratio)):
            if whole >= 1 and all(f // whole <= s <= -(-f // whole) for f, s in zip(full, size, strict=True)):
                return cls(size, (float(whole), float(whole)), tile)
        return cls(size, (full[0] / size[0], full[1] / size[1]), tile)

    @property
    def tiles(self) -> tuple[int, int]:
        """How many (columns, rows) of tiles there are."""
        return -(-self.size[0] // self.tile[0]), -(-self.size[1] // self.tile[1])

    def place(self, column: int, row: int) -> tuple[int, int, int, int]:
        """(x, y, width, height) of a tile in the level's own pixels, cut at the level's edge."""
        x, y = column * self.tile[0], row * self.tile[1]
        return x, y, min(self.tile[0], self.size[0] - x), min(self.tile[1], self.size[1] - y)


class TiledPyramid:
    """Reads boxes of a pyramid.

    `levels` are finest first. `fetch(level, column, row)` returns one tile of `dtype`, whole or cut at the edge of the
    level, and raises `ReadError`. Windows with the values of `padding` (channels,) are invalid.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        channels: int,
        dtype: np.dtype[Any],
        fetch: Callable[[int, int, int], Tile],
        padding: Pixels | None = None,
    ) -> None:
        self._levels = levels
        self._channels = channels
        self._dtype = dtype
        self._fetch = fetch
        self._padding = padding
        self._cache: OrderedDict[tuple[int, ...], Tile] = OrderedDict()
        """Tiles by (level, column, row), and means of all of their blocks by (level, column, row, *factors)."""
        self._bytes = 0
        self._reduced = {number for number, level in enumerate(levels) if math.prod(level.tile) <= _MOST_REDUCED}
        """Levels of ordinary tiles, in which no invalid pixel was met: means are kept instead of a tile."""

    def read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`: the nearest finer level, resampled to exactly `size`. Raises `ReadError`."""
        width, height = size
        edges_x, edges_y = _pixel_edges(box.x0, box.x1, width), _pixel_edges(box.y0, box.y1, height)
        number = self._choose_level((edges_x[-1] - edges_x[0]) / width, (edges_y[-1] - edges_y[0]) / height)
        level, full = self._levels[number], self._levels[0].size
        x = _axis_weights(box.x0, box.x1, width, level.scale[0], level.size[0], full[0])
        y = _axis_weights(box.y0, box.y1, height, level.scale[1], level.size[1], full[1])
        factors = _whole_factor(x, level.tile[0]), _whole_factor(y, level.tile[1])
        if self._dtype == np.uint8 and 1 < factors[0] * factors[1] <= _MOST_ADDED:
            found = self._read_blocks(number, x, y, factors)
            if found is not None:
                return found
        start, stop = x.start, x.stop
        return resample(lambda y0, y1: self._window(number, (start, y0, stop, y1)), y, x, self._channels, self._dtype)

    def stored_level(self, step: tuple[float, float]) -> StoredLevel:
        """See `SupportsLevels`."""
        level = self._levels[self._choose_level(*step)]
        return StoredLevel(level.scale, level.tile)

    def _choose_level(self, step_x: float, step_y: float) -> int:
        """The coarsest level whose pixels are no larger than the steps on either axis, else the finest."""
        limit_x, limit_y = step_x * (1 + _TOLERANCE), step_y * (1 + _TOLERANCE)
        scales = [level.scale for level in self._levels]
        fine = [i for i, scale in enumerate(scales) if scale[0] <= limit_x and scale[1] <= limit_y]
        return max(fine, key=scales.__getitem__, default=0)

    def _read_blocks(
        self, number: int, x: AxisWeights, y: AxisWeights, factors: tuple[int, int]
    ) -> tuple[Pixels, Mask] | None:
        """Means of whole blocks of `factors` pixels (x, y), added up in each tile while it is in the processor's cache.

        None where a tile has invalid pixels, which `resample` weighs. Otherwise it gives the same bits.
        """
        wide, high = (side // factor for side, factor in zip(self._levels[number].tile, factors, strict=True))
        x0, y0 = x.start // factors[0], y.start // factors[1]
        x1, y1 = x0 + x.last - x.first, y0 + y.last - y.first
        pixels, valid = np.zeros((y.count, x.count, self._channels), np.uint8), np.zeros((y.count, x.count), np.bool_)
        inside = np.s_[y.first : y.last, x.first : x.last]
        for row in range(y0 // high, -(-y1 // high)):
            top, bottom = max(y0, row * high), min(y1, (row + 1) * high)
            for column in range(x0 // wide, -(-x1 // wide)):
                left, right = max(x0, column * wide), min(x1, (column + 1) * wide)
                part = left - column * wide, top - row * high, right - column * wide, bottom - row * high
                means = self._means((number, column, row), factors, part)
                if means is None:
                    return None
                pixels[inside][top - y0 : bottom - y0, left - x0 : right - x0] = means
        valid[inside] = True
        return pixels, valid

    def _means(
        self, key: tuple[int, int, int], factors: tuple[int, int], part: tuple[int, int, int, int]
    ) -> Pixels | None:
        """Means of the blocks x0, y0, x1, y1 of a tile, None where it has invalid pixels.

        Neighbouring reads need its other blocks. So those of an ordinary tile are added up at once, and then its memory
        is free for the next tile.
        """
        x0, y0, x1, y1 = part
        found = self._cached((*key, *factors))
        if found is None:
            tile, mask = found = self._cached(key) or self._without_padding(self._fetch(*key))
            if mask is not None:
                self._reduced.discard(key[0])
            if key[0] not in self._reduced:
                self._keep(key, found)
                blocks = tile[y0 * factors[1] : y1 * factors[1], x0 * factors[0] : x1 * factors[0]]
                return _block_means(blocks, factors) if mask is None else None
            found = self._keep((*key, *factors), (_block_means(tile, factors), None))
        return found[0][y0:y1, x0:x1]

    def _window(self, number: int, window: tuple[int, int, int, int]) -> Tile:
        """Pixels x0:x1, y0:y1 of a level, assembled from its tiles."""
        x0, y0, x1, y1 = window
        wide, high = self._levels[number].tile
        pixels = np.empty((y1 - y0, x1 - x0, self._channels), dtype=self._dtype)
        valid: Mask | None = None
        for row in range(y0 // high, -(-y1 // high)):
            for column in range(x0 // wide, -(-x1 // wide)):
                tile, mask = self._tile(number, column, row)
                left, top = max(x0, column * wide), max(y0, row * high)
                right, bottom = min(x1, (column + 1) * wide), min(y1, (row + 1) * high)
                target = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
                source = np.s_[top - row * high : bottom - row * high, left - column * wide : right - column * wide]
                pixels[target] = tile[source]
                if mask is not None:
                    valid = np.ones(pixels.shape[:2], dtype=bool) if valid is None else valid
                    valid[target] = mask[source]
        return pixels, valid

    def _tile(self, number: int, column: int, row: int) -> Tile:
        key = number, column, row
        return self._cached(key) or self._keep(key, self._without_padding(self._fetch(*key)))

    def _cached(self, key: tuple[int, ...]) -> Tile | None:
        if key in self._cache:
            self._cache.move_to_end(key)
        return self._cache.get(key)

    def _keep(self, key: tuple[int, ...], tile: Tile) -> Tile:
        if key not in self._cache:
            self._bytes += _tile_bytes(tile)
        self._cache[key] = tile
        most = max(
            CACHE_BYTES, 2 * self._levels[key[0]].tiles[0] * _tile_bytes(tile)
        )  # `resample` reads bands: two rows
        while self._bytes > most and len(self._cache) > 1:
            self._bytes -= _tile_bytes(self._cache.popitem(last=False)[1])
        return tile

    def forget(self) -> None:
        """Let go of the tiles. An image and its pyramid refer to each other, so that Python would do so late."""
        self._cache.clear()
        self._bytes = 0

    def _without_padding(self, tile: Tile) -> Tile:
        pixels, valid = tile
        if self._padding is None or not (mask := padding_mask(pixels, self._padding)).any():
            return tile
        return pixels, ~mask if valid is None else valid & ~mask


@lru_cache(maxsize=8)  # neighbouring reads have an axis in common
def _axis_weights(low: float, high: float, count: int, scale: float, length: int, full: int) -> AxisWeights:
    """The weights of an axis of a level of `length` pixels, for edges in level-0 pixels, of which there are `full`."""
    return axis_weights(_pixel_edges(low, high, count) / scale, length, high=full / scale)


def _whole_factor(axis: AxisWeights, tile: int) -> int:
    """By which whole factor an axis is reduced in blocks that no tile cuts and the image covers; 0 by none."""
    factor = len(axis.index)
    count = axis.last - axis.first
    whole = count and axis.weight is axis.cover and axis.stop - axis.start == factor * count
    return factor if whole and tile % factor == axis.start % factor == 0 and bool((axis.weight == 1).all()) else 0


def _block_means(pixels: Pixels, factors: tuple[int, int]) -> Pixels:
    """Means of all whole blocks of `factors` (x, y) of 8-bit pixels (H, W, C), rounded half to even."""
    across, down = factors
    height, width, channels = pixels.shape[0] // down, pixels.shape[1] // across, pixels.shape[2]
    rows = [pixels[at : height * down : down, : width * across].reshape(height, -1) for at in range(down)]
    tall = rows[0].astype(np.uint16)
    for row in rows[1:]:
        tall += row
    total = np.empty((height, width, channels), dtype=np.uint16)
    for channel in range(channels):  # numpy is slow along axes as short as that of the channels
        here, *columns = (tall[:, at * channels + channel :: across * channels] for at in range(across))
        if across == 1:
            total[..., channel] = here
        for column in columns:
            here = np.add(here, column, out=total[..., channel])
    count = across * down
    if count & (count - 1):
        return np.rint(total / count).astype(np.uint8)
    shift = count.bit_length() - 1
    odd = total >> shift
    odd &= 1
    odd += count // 2 - 1
    total += odd
    total >>= shift
    return total.astype(np.uint8)


def select_channels(pixels: Pixels, indices: Sequence[int]) -> Pixels:
    """The channels (H, W, C) of `indices`, without a copy where these are all in order."""
    return pixels if list(indices) == list(range(pixels.shape[2])) else pixels[..., list(indices)]


def _tile_bytes(tile: Tile) -> int:
    return tile[0].nbytes + (0 if tile[1] is None else tile[1].nbytes)
