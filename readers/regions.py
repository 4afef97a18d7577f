"""Regions: the boxes into which an image is cut, the unit of work, retry, resume and reporting.

An image is analysed on a grid of `Grid.scale` level-0 pixels per grid pixel. Regions are boxes of whole grid pixels, so
that two neighbours compute the same number for their common border, bit for bit.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from .errors import RequestError
from .geometry import Box, Points
from .orientation import UPRIGHT, Orientation

SNAP: Final = 0.02
POOLED: Final = 32  # grid pixels: networks rarely pool more, and tiles that start at multiples of it are in step
MAX_REGIONS: Final = 1_000_000  # of one image: 336,000 px square in regions of one tile of 336 px


@dataclass(frozen=True, slots=True)
class Grid:
    """The analysis grid of an image, the same for each of its `planes`."""

    image: str
    size: tuple[int, int]
    """(width, height) of the image in level-0 pixels."""
    scale: tuple[float, float]
    """Level-0 pixels (x, y) per grid pixel; they differ where pixels are not square on the ground."""
    planes: int = 1
    orientation: Orientation = UPRIGHT
    """How the image is turned north-up. Grid pixels are upright: they lie on the image as it is turned."""
    unit: str = "slice"
    """What a plane is, in the keys of regions: a "slice", or a "page" of a montage of slices."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(one) and one > 0 for one in (*self.size, *self.scale)):
            msg = f"a grid has a positive size and scale: {self.size}, {self.scale}"
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, int]:
        """(width, height) in grid pixels; the last column and row may reach beyond the image."""
        pairs = zip(self.upright_size, self.upright_scale, strict=True)
        width, height = (math.ceil(side / step - 1e-9) for side, step in pairs)
        return max(1, width), max(1, height)

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) of the upright image in level-0 pixels."""
        return self.orientation.swap(self.size)

    @property
    def upright_scale(self) -> tuple[float, float]:
        """Level-0 pixels per grid pixel along upright x and y."""
        return self.orientation.swap(self.scale)

    def level0_box(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """A box of grid pixels in level-0 pixels."""
        sx, sy = self.upright_scale
        return self.orientation.box_to_level0(Box(x0 * sx, y0 * sy, x1 * sx, y1 * sy), self.size)

    def to_level0(self, xy: Points) -> Points:
        """Grid pixels (N, 2) → level-0 pixels (N, 2) within the image, whose border the last grid line is."""
        size = np.asarray(self.upright_size, dtype=np.float64)
        inner = np.clip(xy * np.asarray(self.upright_scale), 0.0, size)
        return self.orientation.to_level0(np.where(xy >= np.asarray(self.shape), size, inner), self.size)

    def from_level0(self, xy: Points) -> Points:
        """The inverse of `to_level0`, within rounding."""
        size = np.asarray(self.upright_size, dtype=np.float64)
        upright = self.orientation.to_upright(xy, self.size)
        return np.where(upright >= size - 1e-6, self.shape, upright / self.upright_scale)


def snap_scale(target_m: float, actual: tuple[float, float]) -> tuple[float, float]:
    """The `Grid.scale` for grid pixels of `target_m` metres, where level-0 pixels have `actual` metres (x, y).

    A factor within 2 % of a whole number, or of one divided by a whole number, is rounded to it, so that pixels of
    10.004 m are averaged three by three for 30 m instead of resampled. Raises `RequestError` unless all sizes are
    positive and finite.

    >>> snap_scale(30.0, (10.004, 10.004)), snap_scale(10.0, (4.0, 4.0))
    ((3.0, 3.0), (2.5, 2.5))
    """
    if not all(math.isfinite(size) and size > 0 for size in (target_m, *actual)):
        value = f"{target_m} m from pixels of {actual[0]} × {actual[1]} m"
        remedy = "Give a positive --resolution, or none to work at the native resolution"
        raise RequestError("the resolution", "must be positive", value=value, remedy=remedy)
    return _snapped(target_m / actual[0]), _snapped(target_m / actual[1])


def _snapped(factor: float) -> float:
    whole = round(max(factor, 1.0 / factor))
    near = whole if factor >= 1.0 else 1.0 / whole
    return float(near) if abs(factor / near - 1.0) <= SNAP else factor


def whole_scale(
    size: tuple[int, int], pixel: tuple[float, float], *, tile: int, halo: int = 0, hd_num: int = 25
) -> tuple[float, float]:
    """The `Grid.scale` of an image that is one region of at most `hd_num` tiles: the finest, and never enlarged.

    size: (width, height) in level-0 pixels; pixel: their size (x, y) in any unit, so that grid pixels are square.

    >>> whole_scale((512, 512), (1.0, 1.0), tile=336, hd_num=9), whole_scale((2016, 1000), (1.0, 1.0), tile=336)
    ((1.0, 1.0), (1.0, 1.0))
    >>> whole_scale((1344, 2688), (1.0, 1.0), tile=336, hd_num=9)
    (2.0, 2.0)
    """
    step, (width, height) = tile - 2 * halo, (length * side for length, side in zip(size, pixel, strict=True))

    def pixels(tiles: int) -> int:
        """The longest side that so many tiles cover."""
        return tile if tiles == 1 else tiles * step

    needed = (max(width / pixels(n), height / pixels(hd_num // n)) for n in range(1, hd_num + 1))
    target = max(min(pixel), min(needed))
    return target / pixel[0], target / pixel[1]


@dataclass(frozen=True, slots=True)
class Span:
    """One axis of a region in grid pixels.

    Neighbours share 2 · margin pixels, and the core of each ends in the middle of what they share. At all four sides of
    a picture, tiles reach a halo beyond it:

        start                     core_stop     stop
        ├──────────── core ────────────┼─ margin ─┤
                            ├─ margin ─┼──────────── core ────────────┼─ margin ─┤
                          start    core_start                     core_stop     stop
    """

    start: int
    stop: int
    """`start:stop` is read."""
    core_start: int
    core_stop: int
    """`core_start:core_stop` is reported by this region alone."""
    tiles: int


@dataclass(frozen=True, slots=True)
class Region:
    """A box of a plane and the size at which it is analysed.

    `core` is the part whose findings the region reports; cores cover every grid pixel of a plan exactly once. `box` is
    larger by a halo or an overlap, and may reach beyond the image:

        ┌───────────────────────┐  box: what is read
        │  halo or overlap      │
        │   ┌───────────────┐   │
        │   │     core      │   │  core: what is reported
        │   └───────────────┘   │
        └───────────────────────┘
    """

    grid: Grid
    columns: Span
    rows: Span
    plane: int = 0

    @property
    def key(self) -> str:
        """A name that is the same in every run with the same grid; in a stack the slice comes first, from 1."""
        c, r = self.columns, self.rows
        plane = f"{self.grid.unit}{self.plane + 1}-" if self.grid.planes > 1 else ""
        return f"{self.grid.image}/{plane}x{c.start}y{r.start}w{c.stop - c.start}h{r.stop - r.start}"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `box` in grid pixels."""
        return self.columns.stop - self.columns.start, self.rows.stop - self.rows.start

    @property
    def tiles(self) -> tuple[int, int]:
        """(columns, rows) of tiles."""
        return self.columns.tiles, self.rows.tiles

    @property
    def box(self) -> Box:
        """The box that is read, in level-0 pixels; it may reach beyond the image."""
        return self.grid.level0_box(self.columns.start, self.rows.start, self.columns.stop, self.rows.stop)

    @property
    def core(self) -> Box:
        """The box that is reported, in level-0 pixels, within the image."""
        c, r, grid = self.columns, self.rows, self.grid
        (right, bottom), (sx, sy), (width, height) = grid.upright_size, grid.upright_scale, grid.shape
        upright = Box(  # the last core ends with the image, wherever the rounded scale would put its end
            c.core_start * sx,
            r.core_start * sy,
            float(right) if c.core_stop == width else c.core_stop * sx,
            float(bottom) if r.core_stop == height else r.core_stop * sy,
        )
        return grid.orientation.box_to_level0(upright, grid.size)


def cut_axis(length: int, *, tile: int, halo: int, tiles: int, margin: int, shift: int = 0) -> Iterator[Span]:
    """Cut one axis of `length` grid pixels into regions of at most `tiles` tiles.

    Tiles of `tile` pixels lie `tile - 2 * halo` apart, the first from -halo on and the last to at least length + halo,
    so that a network has the same context beyond both ends. Neighbouring regions share `2 * margin` pixels, and the
    last has no more tiles than it needs. Cores partition `0:length`. `shift` starts the tiles so many pixels before
    -halo.
    """
    step = tile - 2 * halo
    if step <= 0 or halo < 0 or margin < halo or tiles < 1 or length < 1:
        msg = f"cannot cut {length} px: tile {tile}, halo {halo}, tiles {tiles}, margin {margin}"
        raise ValueError(msg)
    _require_narrower(margin, tiles * step + 2 * halo)
    start, core_start = -halo - shift, 0
    while True:
        n = min(tiles, max(1, math.ceil((length - halo - start) / step)))
        stop = start + n * step + 2 * halo
        if stop >= length + halo:
            yield Span(start, stop, core_start, length, n)
            return
        if stop > margin:
            yield Span(start, stop, core_start, stop - margin, n)
            core_start = stop - margin
        start = stop - 2 * margin


def _require_narrower(margin: int, full: int) -> None:
    """Refuse regions of `full` grid pixels that share all of them, `2 * margin`, with their neighbours."""
    if full <= 2 * margin:
        value = f"{2 * margin} px shared by regions of {full} px"
        remedy = "Lower --overlap or raise --hd-num"
        raise RequestError("the overlap", "must be narrower than a region", value=value, remedy=remedy)


def _one_tile(length: int, *, tile: int, halo: int, margin: int) -> Span:
    """The span of a `length` within a tile: a halo beyond both ends, or half of what is left."""
    _require_narrower(margin, tile)
    left = (tile - length) // 2
    start = -min(halo, left if left < POOLED else left // POOLED * POOLED)
    return Span(start, start + tile, 0, length, 1)


def tiles_per_region(columns: int, rows: int, hd_num: int) -> tuple[int, int]:
    """The (columns, rows) of tiles of a full region, of at most `hd_num` in all, for an image of columns × rows tiles.

    As square as possible, and longer where the image is narrow.

    >>> tiles_per_region(10, 10, 9), tiles_per_region(11, 3, 25)
    ((3, 3), (8, 3))
    """
    if hd_num < 1:
        raise RequestError("--hd-num", "must be at least 1", value=str(hd_num), remedy="Give --hd-num 1 or more")
    high = min(rows, math.isqrt(hd_num))
    wide = min(columns, hd_num // high)
    return wide, min(rows, hd_num // wide)


def cut_regions(grid: Grid, *, tile: int, halo: int = 0, overlap: int = 0, hd_num: int = 25) -> list[Region]:
    """Cut an image into regions, plane by plane and row by row.

    tile: side of the annotator's tiles in grid pixels.
    halo: border of a tile, in grid pixels, whose output is discarded; the neighbouring tile covers it.
    overlap: grid pixels that neighbouring regions share at least.
    hd_num: tiles of a region at most.

    Cores cover each grid pixel once. Raises `RequestError` for more than `MAX_REGIONS` regions, and for regions no
    wider than their overlap.

    >>> [region.key for region in cut_regions(Grid("scene", (1000, 300), (1.0, 1.0)), tile=336, hd_num=2)]
    ['scene/x0y0w672h336', 'scene/x672y0w336h336']
    """
    step = tile - 2 * halo
    if step <= 0 or overlap < 0:
        value = f"tile {tile}, halo {halo}, overlap {overlap}"
        rule = "must leave a part of the tile, and the overlap must not be negative"
        raise RequestError("the halo", rule, value=value, remedy="Lower the halo, or give an overlap of 0 px or more")
    shape = grid.shape
    needed = [1 if length <= tile else math.ceil(length / step) for length in shape]
    most = tiles_per_region(needed[0], needed[1], hd_num)
    margin = max(halo, (overlap + 1) // 2)
    columns, rows = (
        [_one_tile(length, tile=tile, halo=halo, margin=margin)]
        if length <= tile
        else list(islice(cut_axis(length, tile=tile, halo=halo, tiles=n, margin=margin), MAX_REGIONS + 1))
        for length, n in zip(shape, most, strict=True)
    )
    if len(columns) * len(rows) * grid.planes > MAX_REGIONS:
        stack = f"{grid.planes} × " if grid.planes > 1 else ""
        raise RequestError(
            grid.image,
            f"must be cut into at most {MAX_REGIONS} regions",
            value=f"at least {stack}{len(columns)} × {len(rows)} regions of {most[0]} × {most[1]} tiles of {tile} px",
            remedy="Raise --hd-num, lower --overlap, or give a coarser --resolution",
        )
    return [Region(grid, c, r, plane) for plane in range(grid.planes) for r in rows for c in columns]
