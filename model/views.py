"""Views: a region is read once and becomes an annotator's tiles; what of it counts is decided here."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ..readers.geodesy import box_areas_m2
from ..readers.geometry import Placement
from ..readers.image import Image, Mask, Pixels
from ..readers.regions import Region, Span
from ..readers.render import Stretch, render
from .annotator import InputSpec, View
from .finding import Coverage
from .tiling import TileGrid, cut_tiles, join_tiles, lay, overall

BLOCK = 16  # grid pixels; a pixel's share of the ground hardly changes within such a block, on any map
LEAF = 64  # grid pixels; below this, asking for each pixel is cheaper than dividing on


def read_view(
    image: Image,
    region: Region,
    spec: InputSpec,
    *,
    stretch: Stretch | None = None,
    area: BaseGeometry | None = None,
) -> View:
    """Read a region once and cut it into the tiles that `spec` asks for.

    Where the spec says so the picture is enlarged to fill its tiles, and the view's grid says how; else the tiles hold
    the region's pixels as they were read. `image` is open with exactly the spec's bands, in their order, or with the
    stretch's channels where the spec is rendered RGB. `area` is an area of interest in level-0 pixels: a pixel counts
    where its centre lies inside. Raises `ReadError` where the pixels cannot be read, `ValueError` where image, region
    and spec do not belong together.
    """
    grid = TileGrid.exact(*region.tiles, tile=spec.tile, overlap=2 * spec.halo)
    if grid.size != region.size:
        msg = f"region {region.key} of {region.size} px was not cut for this spec's grid of {grid.size} px"
        raise ValueError(msg)
    pixels, valid = image.read(region.box, region.size, region.plane)
    if spec.bands is None:
        if stretch is None:
            msg = f"region {region.key}: an RGB spec needs the image's stretch"
            raise ValueError(msg)
        canvas: Pixels = render(pixels, valid, stretch)
    else:
        canvas, valid = _physical(image, spec.bands, spec.quantity, pixels, valid)
    wanted = np.zeros(valid.shape, dtype=np.bool_)
    rows, columns = core_window(region)
    wanted[rows, columns] = valid[rows, columns] & inside(region, area)
    larger = _enlarged(region, spec)
    if larger is not None:
        grid, (width, height) = larger, larger.source
        canvas = lay(np.ascontiguousarray(canvas[:height, :width]), grid)
        valid, wanted = (_onto_canvas(mask, grid) for mask in (valid, wanted))
    return View(
        region=region,
        spec=spec,
        grid=grid,
        tiles=cut_tiles(canvas, grid),
        valid=cut_tiles(valid, grid),
        keep_mask=wanted,
        overall=overall(canvas.astype(np.float32), spec.tile) if spec.overall else None,
    )


def tiles_of(region: Region, spec: InputSpec) -> tuple[int, int]:
    """(columns, rows) of the tiles in which a region is shown: its own, or those that it is enlarged to fill."""
    larger = _enlarged(region, spec)
    return region.tiles if larger is None else (larger.cols, larger.rows)


def on_region(mask: Mask, view: View) -> Mask:
    """A mask of a view's canvas (H, W) as one of its region's pixels, (H, W) of `region.size`.

    A pixel has what the canvas has at its centre; one that is not on the canvas, since it is not in the picture, has
    nothing.
    """
    if view.grid.source == view.grid.size == view.region.size:
        return mask
    width, height = view.grid.source
    x, y = (_centres(view.grid, axis, length) for axis, length in ((0, width), (1, height)))
    found = np.zeros(view.region.size[::-1], dtype=np.bool_)
    found[:height, :width] = mask[np.ix_(y, x)]
    return found


def kept_share(view: View) -> float:
    """The part of a region's core that holds data and was asked for, 0 to 1."""
    core = on_region(view.keep_mask, view)[core_window(view.region)]
    return float(core.mean())


def core_window(region: Region) -> tuple[slice, slice]:
    """(rows, columns) of a region's core on its canvas."""
    return _window(region.rows), _window(region.columns)


def inside(region: Region, area: BaseGeometry | None) -> Mask:
    """Where the centres of the core's grid pixels lie inside `area` (level-0 pixels): booleans of the core's shape.

    A block wholly inside or outside is answered at once, so that only the area's edge costs anything. A centre on the
    very edge is outside.
    """
    c, r = region.columns, region.rows
    mask = np.zeros((r.core_stop - r.core_start, c.core_stop - c.core_start), dtype=np.bool_)
    if area is None:
        mask[...] = True
        return mask
    shapely.prepare(area)
    sx, sy = region.grid.scale
    x, y = np.arange(c.core_start, c.core_stop + 1) * sx, np.arange(r.core_start, r.core_stop + 1) * sy
    centre_x, centre_y = x[:-1] + sx / 2, y[:-1] + sy / 2
    open_blocks = [(0, len(centre_y), 0, len(centre_x))]
    while open_blocks:
        y0, y1, x0, x1 = open_blocks.pop()
        block = box(x[x0], y[y0], x[x1], y[y1])
        if not area.intersects(block):
            continue
        if area.covers(block):
            mask[y0:y1, x0:x1] = True
        elif max(y1 - y0, x1 - x0) <= LEAF:
            mesh_x, mesh_y = np.meshgrid(centre_x[x0:x1], centre_y[y0:y1])
            mask[y0:y1, x0:x1] = shapely.contains_xy(area, mesh_x, mesh_y)
        else:
            ym, xm = (y0 + y1 + 1) // 2, (x0 + x1 + 1) // 2
            halves = [(a, b, e, f) for a, b in ((y0, ym), (ym, y1)) for e, f in ((x0, xm), (xm, x1))]
            open_blocks += [q for q in halves if q[0] < q[1] and q[2] < q[3]]
    return mask


@dataclass(frozen=True, slots=True)
class KeepMask:
    """A tile that is answered for: its `place` among the view's tiles, and its share of the region's core.

    `share` is in canvas pixels; `valid` is the part of it that is wanted, from 0 to 1.
    """

    place: int
    share: BaseGeometry
    valid: float


def kept_tiles(view: View) -> list[KeepMask]:
    """The tiles with a wanted pixel in their share of the core, row by row. Shares lie side by side and fill it."""
    rows, columns = core_window(view.region)
    kept: list[KeepMask] = []
    for place, (x0, y0, x1, y1) in enumerate(view.grid.shares()):
        left, right = max(x0, columns.start), min(x1, columns.stop)
        top, bottom = max(y0, rows.start), min(y1, rows.stop)
        wanted = view.keep_mask[y0:y1, x0:x1]
        if wanted.any():
            part = float(view.keep_mask[top:bottom, left:right].mean())
            kept.append(KeepMask(place, box(left, top, right, bottom), part))
    return kept


def cover(view: View, placement: Placement, area: BaseGeometry | None = None) -> Coverage:
    """How much of a view's core counts, is not valid, or lies outside `area`, the same as was given to `look`.

    Each grid pixel counts with its part inside the picture. Square metres are those of small blocks of the core,
    shared by pixel counts, so that a change of scale with latitude inside a region is respected; None where the
    placement does not know them.
    """
    region = view.region
    rows, columns = core_window(region)
    seen = on_region(join_tiles(view.valid, view.grid), view)
    within = inside(region, area)
    wanted = on_region(view.keep_mask, view)[rows, columns]
    width, height = region.grid.shape
    x_cuts = _cuts(region.columns, width)
    y_cuts = _cuts(region.rows, height)
    boxes = _boxes(region, x_cuts, y_cuts)
    cells = np.multiply.outer(np.diff(y_cuts), np.diff(x_cuts)).ravel()
    shares = [
        _count(mask, x_cuts - x_cuts[0], y_cuts - y_cuts[0]) / cells
        for mask in (wanted, within & ~seen[rows, columns], ~within)
    ]
    px = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    m2 = box_areas_m2(boxes, placement)
    valid_px, invalid_px, outside_px = (math.fsum(share * px) for share in shares)
    valid_m2, invalid_m2, outside_m2 = (None if m2 is None else math.fsum(share * m2) for share in shares)
    return Coverage(valid_px, invalid_px, valid_m2, invalid_m2, outside_px, outside_m2)


def _physical(
    image: Image, bands: tuple[str, ...], quantity: str, pixels: Pixels, valid: Mask
) -> tuple[npt.NDArray[np.float32], Mask]:
    """Native pixels → physical float32, NaN where not valid; and where they are valid."""
    channels = image.channels
    if tuple(c.common for c in channels) != bands or any(quantity not in {"", c.quantity} for c in channels):
        msg = f"the image was opened with {[(c.common, c.quantity) for c in channels]}, not with {bands} in {quantity}"
        raise ValueError(msg)
    canvas = np.empty(pixels.shape, dtype=np.float32)
    for i, channel in enumerate(channels):
        native = pixels[..., i]
        if np.iscomplexobj(native):
            native = np.abs(native)  # the amplitude is the physical value of a complex sample
        canvas[..., i] = native.astype(np.float64) * channel.scale + channel.offset
    valid = valid & np.isfinite(canvas).all(axis=2)
    canvas[~valid] = np.nan
    return canvas, valid


def _enlarged(region: Region, spec: InputSpec) -> TileGrid | None:
    """The grid on which the region's part of the picture fills as many tiles as `spec.enlarge` allows.

    None where it would not be larger: a view never shows less than the region's pixels.
    """
    if not spec.enlarge:
        return None
    columns, rows = region.grid.shape
    width = min(region.columns.stop, columns) - region.columns.start
    height = min(region.rows.stop, rows) - region.rows.start
    grid = TileGrid.fit(width, height, hd_num=spec.enlarge, tile=spec.tile)
    x0, y0, x1, y1 = grid.content
    return grid if x1 - x0 > width and y1 - y0 > height else None


def _onto_canvas(mask: Mask, grid: TileGrid) -> Mask:
    """A region's mask on its enlarged canvas: each canvas pixel has what the pixel around its centre has."""
    x0, y0, x1, y1 = grid.content
    x = np.floor(grid.to_region(np.stack([np.arange(x0, x1) + 0.5, np.zeros(x1 - x0)], axis=1))[:, 0]).astype(np.intp)
    y = np.floor(grid.to_region(np.stack([np.zeros(y1 - y0), np.arange(y0, y1) + 0.5], axis=1))[:, 1]).astype(np.intp)
    found = np.zeros(grid.size[::-1], dtype=np.bool_)
    found[y0:y1, x0:x1] = mask[np.ix_(y, x)]
    return found


def _centres(grid: TileGrid, axis: int, length: int) -> npt.NDArray[np.intp]:
    """Canvas pixels that hold the centres of a region's `length` columns (axis 0) or rows (axis 1)."""
    points = np.zeros((length, 2))
    points[:, axis] = np.arange(length) + 0.5
    return np.floor(grid.to_canvas(points)[:, axis]).astype(np.intp)


def _window(span: Span) -> slice:
    return slice(span.core_start - span.start, span.core_stop - span.start)


def _cuts(span: Span, length: int) -> npt.NDArray[np.intp]:
    """Grid lines that cut a core into blocks; the picture's last pixel, which may be partial, is a block of its own."""
    lines = {*range(span.core_start, span.core_stop, BLOCK), span.core_stop}
    if span.core_stop == length:
        lines.add(length - 1)
    return np.array(sorted(lines))


def _boxes(region: Region, x_cuts: npt.NDArray[np.intp], y_cuts: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """(N, 4) boxes of the blocks in level-0 pixels, row by row, within the picture."""
    x = np.minimum(x_cuts * region.grid.scale[0], region.grid.size[0])
    y = np.minimum(y_cuts * region.grid.scale[1], region.grid.size[1])
    y0, x0 = np.meshgrid(y[:-1], x[:-1], indexing="ij")
    y1, x1 = np.meshgrid(y[1:], x[1:], indexing="ij")
    return np.stack([x0.ravel(), y0.ravel(), x1.ravel(), y1.ravel()], axis=1)


def _count(mask: Mask, x_cuts: npt.NDArray[np.intp], y_cuts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """How many pixels of each block are true, row by row."""
    per_row = np.add.reduceat(mask.astype(np.intp), x_cuts[:-1], axis=1)
    return np.add.reduceat(per_row, y_cuts[:-1], axis=0).ravel()
