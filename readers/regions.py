"""Regions: what a person would look at. The unit of work, of retry, of resume and of reporting.

An image is looked at on a grid of its own: `Grid.scale` level-0 pixels a grid pixel. Regions are boxes of whole grid
pixels, so what two neighbours say about their common seam is the same number, bit for bit.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from .errors import RequestError
from .geometry import Box

SNAP = 0.02
MAX_REGIONS = 1_000_000  # of one image: 336,000 px square in regions of one tile of 336 px


@dataclass(frozen=True, slots=True)
class Grid:
    """An image's analysis grid: `size` level-0 pixels (width, height), `scale` level-0 pixels (x, y) a grid pixel.

    It is the same for each of the image's `planes`.

    The scale has a value per axis, since pixels that are not square on the ground must be seen as if they were.
    """

    image: str
    size: tuple[int, int]
    scale: tuple[float, float]
    planes: int = 1

    def __post_init__(self) -> None:
        if not all(math.isfinite(one) and one > 0 for one in (*self.size, *self.scale)):
            msg = f"a grid has a positive size and scale: {self.size}, {self.scale}"
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, int]:
        """(width, height) in grid pixels; the last column and row may reach beyond the picture."""
        return (
            max(1, math.ceil(self.size[0] / self.scale[0] - 1e-9)),
            max(1, math.ceil(self.size[1] / self.scale[1] - 1e-9)),
        )


def snap_scale(wanted_m: float, actual: tuple[float, float]) -> tuple[float, float]:
    """The `Grid.scale` at which a grid pixel is `wanted_m` metres, where level-0 pixels are `actual` metres (x, y).

    A factor within 2 % of a whole number, or of one divided by a whole number, is taken as that, so that nothing is
    resampled for the sake of a few parts in a thousand: pixels of 10.004 m seen at 30 m are taken three by three.
    Other factors stay as they are. Raises `RequestError` unless all sizes are positive and finite.

    >>> snap_scale(30.0, (10.004, 10.004)), snap_scale(10.0, (4.0, 4.0))
    ((3.0, 3.0), (2.5, 2.5))
    """
    if not all(math.isfinite(size) and size > 0 for size in (wanted_m, *actual)):
        raise RequestError(
            "resolution",
            "pixels must have a positive size on the ground",
            value=f"{wanted_m} m wanted, pixels of {actual[0]} × {actual[1]} m",
            remedy="Give a positive --resolution, or none to work at the picture's own",
        )
    return _snapped(wanted_m / actual[0]), _snapped(wanted_m / actual[1])


def _snapped(factor: float) -> float:
    whole = round(max(factor, 1.0 / factor))
    near = whole if factor >= 1.0 else 1.0 / whole
    return float(near) if abs(factor / near - 1.0) <= SNAP else factor


@dataclass(frozen=True, slots=True)
class Span:
    """One axis of a region in grid pixels: `start:stop` is seen, `core_start:core_stop` is owned, by `tiles` tiles."""

    start: int
    stop: int
    core_start: int
    core_stop: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Region:
    """A box of a plane and the size at which it is seen; `core` is the part it alone answers for.

    Across a plan, cores cover every grid pixel exactly once; `box` is larger by a halo or an overlap and may reach
    beyond the picture.
    """

    grid: Grid
    columns: Span
    rows: Span
    plane: int = 0

    @property
    def key(self) -> str:
        """A name that is the same in every run with the same grid; in a stack the slice comes first, from 1."""
        c, r = self.columns, self.rows
        slice_ = f"slice{self.plane + 1}-" if self.grid.planes > 1 else ""
        return f"{self.grid.image}/{slice_}x{c.start}y{r.start}w{c.stop - c.start}h{r.stop - r.start}"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in grid pixels, as seen."""
        return self.columns.stop - self.columns.start, self.rows.stop - self.rows.start

    @property
    def tiles(self) -> tuple[int, int]:
        """(columns, rows) of tiles."""
        return self.columns.tiles, self.rows.tiles

    @property
    def box(self) -> Box:
        """What is seen, in level-0 pixels; may reach beyond the picture."""
        return self._box(self.columns.start, self.rows.start, self.columns.stop, self.rows.stop)

    @property
    def core(self) -> Box:
        """What is owned, in level-0 pixels, within the picture."""
        c, r = self.columns, self.rows
        box = self._box(c.core_start, r.core_start, c.core_stop, r.core_stop)
        right, bottom = self.grid.size
        return Box(  # the last core ends where the picture does, wherever the rounded scale would put it
            box.x0,
            box.y0,
            float(right) if c.core_stop == self.grid.shape[0] else box.x1,
            float(bottom) if r.core_stop == self.grid.shape[1] else box.y1,
        )

    def _box(self, x0: int, y0: int, x1: int, y1: int) -> Box:
        sx, sy = self.grid.scale
        return Box(x0 * sx, y0 * sy, x1 * sx, y1 * sy)


def cut_axis(length: int, *, tile: int, overlap: int, tiles: int, margin: int) -> Iterator[Span]:
    """Cut one axis of `length` grid pixels into regions of at most `tiles` tiles.

    Inside a region tiles of `tile` pixels lie `tile - overlap` apart, so n tiles see `n * (tile - overlap) + overlap`
    pixels. Neighbouring regions share `2 * margin` seen pixels and each owns its half. The first region starts at 0,
    the last has just the tiles it needs and may see beyond the end. Cores partition `0:length`.
    """
    step = tile - overlap
    if step <= 0 or margin < 0 or tiles < 1 or length < 1:
        msg = f"cannot cut {length} px: tile {tile}, overlap {overlap}, tiles {tiles}, margin {margin}"
        raise ValueError(msg)
    full = tiles * step + overlap
    if full <= 2 * margin:
        raise RequestError(
            "overlap",
            "regions must be wider than what they share with their neighbours",
            value=f"{2 * margin} px shared, {full} px wide",
            remedy="Lower --overlap or raise --hd-num",
        )
    start = core_start = 0
    while True:
        needed = max(1, math.ceil((length - start - overlap) / step))
        n = min(tiles, needed)
        stop = start + n * step + overlap
        if stop >= length:
            yield Span(start, stop, core_start, length, n)
            return
        yield Span(start, stop, core_start, stop - margin, n)
        core_start = stop - margin
        start = stop - 2 * margin


def tiles_per_region(columns: int, rows: int, hd_num: int) -> tuple[int, int]:
    """How many (columns, rows) of tiles a full region has, of at most `hd_num` in all.

    As square as the budget allows, and longer where the picture is only `columns` or `rows` tiles wide or high.

    >>> tile_budget(10, 10, 9), tile_budget(11, 3, 25)
    ((3, 3), (8, 3))
    """
    if hd_num < 1:
        raise RequestError(
            "hd-num", "a region holds at least one tile", value=str(hd_num), remedy="Give --hd-num 1 or more"
        )
    side = math.isqrt(hd_num)
    high = min(rows, side)
    wide = min(columns, hd_num // high)
    high = min(rows, hd_num // wide)
    return wide, high


def cut_regions(grid: Grid, *, tile: int, halo: int = 0, overlap: int = 0, hd_num: int = 25) -> list[Region]:
    """All regions of an image, plane by plane and row by row.

    `tile` is the annotator's tile in grid pixels, `halo` the rim of a tile whose answers are not kept (its neighbour
    keeps them), `overlap` how many grid pixels neighbouring regions share beyond that. Cores cover each grid pixel
    once. Raises `RequestError` where there would be more than `MAX_REGIONS`, or regions no wider than their overlap.

    >>> [region.key for region in cut(Grid("scene", (1000, 300), (1.0, 1.0)), tile=336, hd_num=2)]
    ['scene/x0y0w672h336', 'scene/x672y0w336h336']
    """
    width, height = grid.shape
    step = tile - 2 * halo
    if step <= 0 or overlap < 0:
        raise RequestError(
            "overlap and halo",
            "a tile must be wider than its two halos and overlaps cannot be negative",
            value=f"tile {tile}, halo {halo}, overlap {overlap}",
            remedy="Lower the halo, or give an overlap of 0 px or more",
        )
    needed = [max(1, math.ceil((length - 2 * halo) / step)) for length in (width, height)]
    wide, high = tiles_per_region(needed[0], needed[1], hd_num)
    margin = max(halo, (overlap + 1) // 2)
    columns = list(islice(cut_axis(width, tile=tile, overlap=2 * halo, tiles=wide, margin=margin), MAX_REGIONS + 1))
    rows = list(islice(cut_axis(height, tile=tile, overlap=2 * halo, tiles=high, margin=margin), MAX_REGIONS + 1))
    if len(columns) * len(rows) * grid.planes > MAX_REGIONS:
        stack = f"{grid.planes} × " if grid.planes > 1 else ""
        raise RequestError(
            grid.image,
            f"an image is cut into at most {MAX_REGIONS} regions",
            value=f"at least {stack}{len(columns)} × {len(rows)} regions of {wide} × {high} tiles of {tile} px",
            remedy="Raise --hd-num, lower --overlap, or give a coarser --resolution",
        )
    return [Region(grid, c, r, plane) for plane in range(grid.planes) for r in rows for c in columns]
