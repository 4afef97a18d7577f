"""Pictures stored as pyramids of tiles: which level serves a box, and how its tiles become the pixels asked for.

Format libraries only deliver single tiles, always the same ones: so a pixel's value does not depend on the box it is
read with, memory is bounded, and a tile that cannot be decoded costs only the boxes that need it.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from ..geometry import Box
from ..image import Mask, Pixels
from ..resample import axis_weights, pixel_edges, resample

Fetch = Callable[[int, int, int], tuple[Pixels, Mask | None]]

_CACHE: Final = 96 << 20  # bytes of decoded tiles that an open image keeps
_SLACK: Final = 1e-6  # a level whose pixels are wider than asked by less than this is fine enough


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid: `size` and `tile` in its own pixels, `scale` level-0 pixels one of them, all (x, y)."""

    size: tuple[int, int]
    scale: tuple[float, float]
    tile: tuple[int, int]

    @classmethod
    def below(cls, full: tuple[int, int], size: tuple[int, int], tile: tuple[int, int]) -> Self:
        """A level of `size` of a picture of `full` level-0 pixels.

        Pyramids are made by whole factors, mostly powers of two, and what does not fill a last pixel is dropped or
        padded. So where the size is `full` divided by such a factor and rounded either way, that is the scale;
        elsewhere the quotient is. (The quotient throughout, as is usual, shifts a coarse level's far side by up to a
        pixel: on a real pyramid of 2500 px its third level lies nearer to 8 than to 2500 / 312, 9.2 against 14.0 grey
        levels root mean square.)
        """
        ratio = max(full) / max(size)
        for whole in (2 ** round(math.log2(ratio)), round(ratio)):
            if whole >= 1 and all(f // whole <= s <= -(-f // whole) for f, s in zip(full, size, strict=True)):
                return cls(size, (float(whole), float(whole)), tile)
        return cls(size, (full[0] / size[0], full[1] / size[1]), tile)


class TiledPyramid:
    """Reads boxes of a pyramid of tiles.

    `levels` are finest first; `fetch(level, column, row)` delivers one tile as (height, width, channels) of `dtype` and
    where it is valid (None: everywhere), whole or cut at the level's edge, and raises `ReadError`.
    """

    def __init__(self, levels: Sequence[Level], channels: int, dtype: np.dtype[Any], fetch: Fetch) -> None:
        self._levels = levels
        self._channels = channels
        self._dtype = dtype
        self._fetch = fetch
        self._kept: OrderedDict[tuple[int, int, int], tuple[Pixels, Mask | None]] = OrderedDict()
        self._bytes = 0

    def read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`: the nearest finer level, resampled to exactly `size`. Raises `ReadError`."""
        width, height = size
        edges_x, edges_y = pixel_edges(box.x0, box.x1, width), pixel_edges(box.y0, box.y1, height)
        place = self._choose((edges_x[-1] - edges_x[0]) / width, (edges_y[-1] - edges_y[0]) / height)
        level = self._levels[place]
        full = self._levels[0].size
        x = axis_weights(edges_x / level.scale[0], level.size[0], high=full[0] / level.scale[0])
        y = axis_weights(edges_y / level.scale[1], level.size[1], high=full[1] / level.scale[1])
        if x is None or y is None:
            return np.zeros((height, width, self._channels), dtype=self._dtype), np.zeros((height, width), dtype=bool)
        start, stop = x.start, x.stop
        return resample(lambda y0, y1: self._window(place, (start, y0, stop, y1)), y, x, self._channels, self._dtype)

    def _choose(self, step_x: float, step_y: float) -> int:
        """The coarsest level whose pixels are no wider and no higher than the steps; the finest where all are."""
        fine = [
            place
            for place, level in enumerate(self._levels)
            if level.scale[0] <= step_x * (1 + _SLACK) and level.scale[1] <= step_y * (1 + _SLACK)
        ]
        return max(fine, key=lambda place: self._levels[place].scale, default=0)

    def _window(self, place: int, window: tuple[int, int, int, int]) -> tuple[Pixels, Mask | None]:
        """Pixels x0:x1, y0:y1 of a level, put together from its tiles."""
        x0, y0, x1, y1 = window
        wide, high = self._levels[place].tile
        pixels = np.zeros((y1 - y0, x1 - x0, self._channels), dtype=self._dtype)
        valid: Mask | None = None
        for row in range(y0 // high, -(-y1 // high)):
            for column in range(x0 // wide, -(-x1 // wide)):
                tile, mask = self._tile(place, column, row)
                left, top = max(x0, column * wide), max(y0, row * high)
                right, bottom = min(x1, (column + 1) * wide), min(y1, (row + 1) * high)
                there = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
                here = np.s_[top - row * high : bottom - row * high, left - column * wide : right - column * wide]
                pixels[there] = tile[here]
                if mask is not None:
                    valid = np.ones(pixels.shape[:2], dtype=bool) if valid is None else valid
                    valid[there] = mask[here]
        return pixels, valid

    def _tile(self, place: int, column: int, row: int) -> tuple[Pixels, Mask | None]:
        key = (place, column, row)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = self._fetch(place, column, row)
        self._kept[key] = found
        self._bytes += _weight(found)
        level = self._levels[place]
        across = -(-level.size[0] // level.tile[0])  # a row of tiles is kept whole, or bands of rows would read it anew
        while self._bytes > max(_CACHE, 2 * across * _weight(found)) and len(self._kept) > 1:
            self._bytes -= _weight(self._kept.popitem(last=False)[1])
        return found


def _weight(tile: tuple[Pixels, Mask | None]) -> int:
    return tile[0].nbytes + (0 if tile[1] is None else tile[1].nbytes)
