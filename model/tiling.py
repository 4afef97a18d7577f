"""The 4KHD tiler: place a picture on a grid of tiles, cut it, and convert coordinates both ways.

Method: InternLM-XComposer2-4KHD, arXiv 2404.06512. Frames: `region_xy` are pixels of the given picture, `canvas_xy`
those of the padded picture that is cut into tiles; corners, not centres, in both. Two tiles of a row with overlap:

     ├────────── tile 0 ──────────┤                 Tiles lie `tile - overlap` apart. The core box of a tile is the
     ├──── core 0 ──────┤                           part of the canvas whose answers are taken from it: neighbours
                   ├────────── tile 1 ──────────┤   share their overlap, half each, and tiles at the border of the
                        ├────── core 1 ─────────┤   canvas extend to it, so that the core boxes partition the canvas.
                   ├ overlap ─┤
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..readers.errors import RequestError
from ..readers.geometry import Points
from ..readers.image import Mask, Pixels
from ..readers.render import copy_pixels

TILE = 336
WHITE = 255

Sample = TypeVar("Sample", bound=np.generic)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A picture placed on a canvas of cols × rows tiles."""

    source: tuple[int, int]
    """(width, height) of the picture."""
    cols: int
    rows: int
    content: tuple[int, int, int, int]
    """(x0, y0, x1, y1) of the picture on the canvas."""
    tile: int = TILE
    """Pixels a side of a tile."""
    overlap: int = 0
    """Canvas pixels that neighbouring tiles share; 0 for 4KHD."""

    @classmethod
    def fit(cls, width: int, height: int, *, hd_num: int, tile: int = TILE) -> Self:
        """The 4KHD transform: enlarge or reduce to fill at most `hd_num` tiles, centred on a white canvas.

        The wide side becomes a multiple of the tile; the other is truncated, then padded to one, with the odd pixel
        at the bottom (the right for a portrait). Raises `RequestError` below one tile and for a picture too thin to
        keep a pixel.

        >>> TileGrid.fit(1600, 900, hd_num=9)
        TileGrid(source=(1600, 900), cols=3, rows=2, content=(0, 52, 1008, 619), tile=336, overlap=0)
        """
        if width < 1 or height < 1:
            size = f"{width} × {height}"
            raise RequestError("picture", "must have pixels", value=size, remedy="Give a picture that is not empty")
        if hd_num < 1:
            raise RequestError("hd-num", "must be 1 or more", value=str(hd_num), remedy="Raise --hd-num")
        if width < height:
            upright = cls.fit(height, width, hd_num=hd_num, tile=tile)
            x0, y0, x1, y1 = upright.content
            return cls((width, height), upright.rows, upright.cols, (y0, x0, y1, x1), tile)
        ratio = width / height  # the reference's float expressions: an exact fraction is sometimes one pixel higher
        columns = 1
        while (columns + 1) * math.ceil((columns + 1) / ratio) <= hd_num:
            columns += 1
        new_width = tile * columns
        new_height = int(new_width / ratio)
        if new_height < 1:
            rule = f"must not be more than {tile * columns} times as long as it is wide, to fit into {hd_num} tiles"
            remedy = "Raise --hd-num or cut the picture into shorter regions"
            raise RequestError("picture", rule, value=f"{width} × {height}", remedy=remedy)
        rows = math.ceil(new_height / tile)
        top = (rows * tile - new_height) // 2
        return cls((width, height), columns, rows, (0, top, new_width, top + new_height), tile)

    @classmethod
    def exact(cls, cols: int, rows: int, *, tile: int = TILE, overlap: int = 0) -> Self:
        """The grid of a picture that fills cols × rows tiles without resampling or padding."""
        width = cols * (tile - overlap) + overlap
        height = rows * (tile - overlap) + overlap
        return cls((width, height), cols, rows, (0, 0, width, height), tile, overlap)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the canvas."""
        step = self.tile - self.overlap
        return self.cols * step + self.overlap, self.rows * step + self.overlap

    @property
    def tokens(self) -> int:
        """Visual tokens of 4KHD for this grid: global view, separator and local view, with row ends."""
        side = self.tile // 28
        return (self.rows * self.cols + 1) * side**2 + 1 + (self.rows + 1) * side

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """(x0, y0, x1, y1) of each tile on the canvas, row by row."""
        step = self.tile - self.overlap
        return [
            (c * step, r * step, c * step + self.tile, r * step + self.tile)
            for r in range(self.rows)
            for c in range(self.cols)
        ]

    def core_boxes(self) -> list[tuple[int, int, int, int]]:
        """(x0, y0, x1, y1) of each tile's core on the canvas, row by row; they partition it."""
        columns, rows = (self._cuts(n) for n in (self.cols, self.rows))
        return [(columns[c], rows[r], columns[c + 1], rows[r + 1]) for r in range(self.rows) for c in range(self.cols)]

    def _cuts(self, tiles: int) -> list[int]:
        step = self.tile - self.overlap
        return [0, *(i * step + self.overlap // 2 for i in range(1, tiles)), tiles * step + self.overlap]

    def to_region(self, canvas_xy: npt.ArrayLike) -> Points:
        """`canvas_xy` (N, 2) → `region_xy` (N, 2)."""
        x0, y0, x1, y1 = self.content
        scale = np.array([self.source[0] / (x1 - x0), self.source[1] / (y1 - y0)])
        return (np.asarray(canvas_xy, dtype=np.float64).reshape(-1, 2) - (x0, y0)) * scale

    def to_canvas(self, region_xy: npt.ArrayLike) -> Points:
        """`region_xy` (N, 2) → `canvas_xy` (N, 2)."""
        x0, y0, x1, y1 = self.content
        scale = np.array([(x1 - x0) / self.source[0], (y1 - y0) / self.source[1]])
        return np.asarray(region_xy, dtype=np.float64).reshape(-1, 2) * scale + (x0, y0)


class Tiles(Protocol):
    """Tiles (n, tile, tile, …), row by row: an array, or `CanvasTiles`. `np.asarray` makes an array of all."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, tile, tile, …)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[npt.NDArray[Any]]: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def __array__(self, dtype: Any = None, /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class CanvasTiles:
    """The tiles of a canvas, each cut and converted when it is asked for: all of them take several times its memory."""

    canvas: npt.NDArray[Any]
    """(H, W, …)"""
    grid: TileGrid
    convert: Callable[[Pixels, Mask], Pixels] | None = None
    """Makes a tile's values of its part of the canvas and of `valid`."""
    valid: Mask | None = None
    """(H, W), for `convert`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, tile, tile, …)."""
        return (len(self), self.grid.tile, self.grid.tile, *self.canvas.shape[2:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self._part(0, 0, 0, 0).dtype

    @property
    def whole(self) -> npt.NDArray[Any]:
        """The canvas (H, W, …) as its tiles have it."""
        return self._part(0, 0, *self.grid.size)

    def __len__(self) -> int:
        return self.grid.cols * self.grid.rows

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self._part(*box) for box in self.grid.boxes())

    def __getitem__(self, index: Any) -> Any:
        """A tile by its number, a new array each time; for any other index that part of all tiles."""
        if isinstance(index, int | np.integer):
            return self._part(*self.grid.boxes()[index])
        return np.asarray(self)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(np.stack(list(self)), dtype=dtype or self.dtype)

    def sample(self, step: int) -> npt.NDArray[Any]:
        """Every `step`-th pixel of the canvas along both axes, as tiles have it."""
        return self._of(np.s_[::step, ::step])

    def _part(self, x0: int, y0: int, x1: int, y1: int) -> npt.NDArray[Any]:
        return self._of(np.s_[y0:y1, x0:x1])

    def _of(self, window: tuple[slice, slice]) -> npt.NDArray[Any]:
        part = self.canvas[window]
        return (
            copy_pixels(part) if self.convert is None or self.valid is None else self.convert(part, self.valid[window])
        )


def cut_tiles(canvas: npt.NDArray[Sample], grid: TileGrid) -> npt.NDArray[Sample]:
    """Cut a canvas (H, W, …) into tiles (cols · rows, tile, tile, …), row by row."""
    if canvas.shape[:2] != grid.size[::-1]:
        msg = f"canvas {canvas.shape[:2]} does not fit the grid's {grid.size[::-1]}"
        raise ValueError(msg)
    return np.stack([canvas[y0:y1, x0:x1] for x0, y0, x1, y1 in grid.boxes()])


def join_tiles(tiles: Tiles, grid: TileGrid) -> npt.NDArray[Any]:
    """Join tiles (cols · rows, tile, tile, …), row by row, to the canvas (H, W, …) that they were cut from."""
    if isinstance(tiles, CanvasTiles):
        return tiles.whole
    canvas = np.empty((grid.size[1], grid.size[0], *tiles.shape[3:]), dtype=tiles.dtype)
    for tile, (x0, y0, x1, y1) in zip(tiles, grid.boxes(), strict=True):
        canvas[y0:y1, x0:x1] = tile
    return canvas


def sample_tiles(tiles: Tiles, step: int) -> npt.NDArray[Any]:
    """Every `step`-th pixel of tiles along both axes: (n, h, w, …), or (h, w, …) of their canvas."""
    return tiles.sample(step) if isinstance(tiles, CanvasTiles) else tiles[:, ::step, ::step]


def place_on_canvas(picture: npt.NDArray[np.uint8], grid: TileGrid) -> npt.NDArray[np.uint8]:
    """Place an RGB picture (h, w, 3) on its grid's canvas (H, W, 3): resized bilinearly, padded with white.

    A portrait is resized as its transpose, as in the reference, whose filter rounds between its two passes. A picture
    that fills its canvas without resampling is returned unchanged.
    """
    if picture.shape != (grid.source[1], grid.source[0], 3):
        msg = f"picture {picture.shape} is not the grid's source {grid.source}"
        raise ValueError(msg)
    if grid == TileGrid.exact(grid.cols, grid.rows, tile=grid.tile, overlap=grid.overlap):
        return picture
    x0, y0, x1, y1 = grid.content
    canvas = np.full((grid.size[1], grid.size[0], 3), WHITE, dtype=np.uint8)
    if grid.source[0] < grid.source[1]:
        canvas[y0:y1, x0:x1] = resize_bilinear(picture.transpose(1, 0, 2), y1 - y0, x1 - x0).transpose(1, 0, 2)
    else:
        canvas[y0:y1, x0:x1] = resize_bilinear(picture, x1 - x0, y1 - y0)
    return canvas


def resize_bilinear(picture: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Resize an RGB picture (h, w, 3) to `width` × `height`, bilinearly with antialiasing, as Pillow does."""
    from PIL import Image

    resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


def squash_to_tile(canvas: npt.NDArray[np.float32], tile: int = TILE) -> npt.NDArray[np.float32]:
    """Squash the whole canvas (H, W, C) to the global view (tile, tile, C).

    Bicubic (a = -0.75), corners not aligned, no antialiasing, edges repeated, as the reference does with the padded,
    normalised canvas in float32.
    """
    tall = sum(weight[:, None, None] * canvas[index] for index, weight in _bicubic(canvas.shape[0], tile))
    columns = _bicubic(canvas.shape[1], tile)
    squashed = sum(weight[None, :, None] * np.asarray(tall)[:, index] for index, weight in columns)
    return np.asarray(squashed, dtype=np.float32)


def _bicubic(length: int, target: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """Four (index, weight) taps for each of `target` samples along an axis of `length`."""
    a = -0.75
    centre = (np.arange(target) + 0.5) * (length / target) - 0.5
    first = np.floor(centre)
    taps: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]] = []
    for k in (-1, 0, 1, 2):
        distance = np.abs(centre - (first + k))
        near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
        far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
        weight = np.where(distance <= 1, near, far).astype(np.float32)
        taps.append((np.clip(first + k, 0, length - 1).astype(np.intp), weight))
    return taps
