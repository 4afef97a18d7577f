"""Views: read a region once as an annotator's tiles, mask what counts, and map answers back to the image.

Frames, all with x to the right and y down, pixel corners and half-open boxes:

    level-0 pixels ──(turned north-up, ÷ grid scale)──▶ analysis grid ──(− region origin)──▶ region_xy
                                                                   region_xy ──(TileGrid)──▶ canvas_xy

    ┌─ picture on the analysis grid ──────────────┐
    │   ┌─ region: canvas, cut into tiles ─┐      │    The core is the part of a region for which its answers are
    │   │  ┌─ core ──────────────┐         │      │    kept; cores tile the picture. Between core and region lies
    │   │  │  keep_mask: valid,  │  halo   │      │    the halo, which neighbours share, so that a network sees the
    │   │  │  in the ROI         │         │      │    surroundings of each pixel that it is asked about.
    │   │  └─────────────────────┘         │      │
    │   └──────────────────────────────────┘      │    A region that spec.enlarge enlarges has a canvas of its own
    └─────────────────────────────────────────────┘    grid: see `TileGrid.fit`.
"""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from ..readers.areas import box_areas_m2
from ..readers.errors import ModelError
from ..readers.geodesy import metres_per_pixel
from ..readers.geometry import Placement, Points
from ..readers.image import Image, Mask, Pixels
from ..readers.orientation import UPRIGHT
from ..readers.regions import Region, Span
from ..readers.render import Stretch, render, visibility
from .annotator import Answer, InputSpec, Masked, View
from .finding import Coverage, Finding
from .findings_table import Objects, objects
from .montage import MontageImage
from .scores import require_finite
from .tiling import CanvasTiles, TileGrid, join_tiles, place_on_canvas, squash_to_tile

BLOCK, FAR, WIDE = 16, 160.0, 256
"""A block has 16 grid pixels a side, or up to 256 that are at most 160 m: within it a pixel's area on the ground hardly
changes on any map."""
_ROWS = 32  # pixel rows that are converted at a time
_NEVER_TOO_LARGE = 1e18  # times the largest integer it is less than the largest float32
_REPORT_TO_AUTHOR = "Report this to the annotator's author: the region is listed as failed"
LEAF = 64  # grid pixels: below this, testing each pixel is cheaper than dividing on


def read_view(
    image: Image,
    region: Region,
    spec: InputSpec,
    *,
    stretch: Stretch | None = None,
    roi: BaseGeometry | None = None,
    masked: Masked | None = None,
) -> View:
    """Read a region once and cut it into the tiles of `spec`.

    `image` is open with exactly the spec's bands, in their order, or with the stretch's channels where the spec is
    rendered RGB. `roi` is a region of interest in level-0 pixels: a pixel counts where its centre lies inside. A model
    sees what is `masked`, but where that is excluded no answer is kept. Raises `ReadError` where the pixels cannot be
    read, `ValueError` where image, region and spec do not belong together.
    """
    grid = TileGrid.exact(*region.tiles, tile=spec.tile, overlap=2 * spec.halo)
    if grid.size != region.size:
        msg = f"region {region.key} of {region.size} px was not cut for this spec's grid of {grid.size} px"
        raise ValueError(msg)
    native, valid = read_native(image, region)
    visible = spec.bands is not None or stretch is None or visibility(image.info, native, valid, stretch) != "nothing"
    values = None
    if spec.bands is None:
        canvas = _render(region, native, valid, stretch)
        if isinstance(image, MontageImage):
            canvas = image.draw_marks(canvas, region.box, region.plane)
    else:
        values = PhysicalValues.of(image, spec.bands, spec.quantity)
        canvas, valid = native, values.valid(native, valid)
    keep = np.zeros(valid.shape, dtype=np.bool_)
    core = core_window(region)
    keep[core] = valid[core] & roi_mask(region, roi)
    if masked is not None and masked.exclude:
        keep &= ~masked.pixels
    larger = _enlarged_grid(region, spec)
    if larger is not None:
        grid, (width, height) = larger, larger.source
        canvas = place_on_canvas(np.ascontiguousarray(canvas[:height, :width]), grid)
        valid, keep = (_to_canvas_mask(mask, grid) for mask in (valid, keep))
    tiles = CanvasTiles(canvas, grid, values, valid)
    return View(
        region=region,
        spec=spec,
        grid=grid,
        tiles=tiles,
        valid=CanvasTiles(valid, grid),
        keep_mask=keep,
        global_view=squash_to_tile(tiles.whole.astype(np.float32), spec.tile) if spec.overall else None,
        visible=visible,
        masked=masked,
    )


def read_canvas(image: Image, region: Region, spec: InputSpec, stretch: Stretch | None) -> tuple[Pixels, Mask]:
    """The pixels (H, W, C) of a region as a view with this `spec` has them, and where they are valid (H, W).

    Raises as `read_view` does.
    """
    native, valid = read_native(image, region)
    if spec.bands is None:
        return _render(region, native, valid, stretch), valid
    values = PhysicalValues.of(image, spec.bands, spec.quantity)
    valid = values.valid(native, valid)
    return values(native, valid), valid


def read_core_mask(
    image: Image, region: Region, spec: InputSpec, *, stretch: Stretch | None = None, roi: BaseGeometry | None = None
) -> Mask:
    """Where the core (H, W) of a region is valid and in the region of interest. Raises as `read_view` does."""
    _, valid = read_canvas(image, region, spec, stretch)
    return valid[core_window(region)] & roi_mask(region, roi)


def read_native(image: Image, region: Region) -> tuple[Pixels, Mask]:
    """Native pixels (H, W, C) of a region, upright, and where they are valid (H, W)."""
    turned = region.grid.orientation
    pixels, valid = map(turned.turn, image.read(region.box, turned.swap(region.size), region.plane))
    return pixels, valid


def _render(region: Region, pixels: Pixels, valid: Mask, stretch: Stretch | None) -> npt.NDArray[np.uint8]:
    """Native pixels as 8-bit RGB."""
    if stretch is None:
        msg = f"region {region.key}: an RGB spec needs the image's stretch"
        raise ValueError(msg)
    return render(pixels, valid, stretch)


@dataclass(frozen=True, slots=True)
class PhysicalValues:
    """Converts native pixels (H, W, C) to physical float32 values, NaN where they are not valid."""

    scale: tuple[float, ...]
    """Of each channel; amplitudes of complex samples are scaled."""
    offset: tuple[float, ...]

    @classmethod
    def of(cls, image: Image, bands: tuple[str, ...], quantity: str) -> Self:
        """The values of an open image, which must have these bands. Raises `ValueError`."""
        channels = image.channels
        if tuple(c.common for c in channels) != bands or any(quantity not in {"", c.quantity} for c in channels):
            found = [(c.common, c.quantity) for c in channels]
            msg = f"the image was opened with {found}, not with {bands} in {quantity}"
            raise ValueError(msg)
        return cls(tuple(c.scale for c in channels), tuple(c.offset for c in channels))

    def __call__(self, pixels: Pixels, valid: Mask) -> npt.NDArray[np.float32]:
        """The values (H, W, C) of native pixels of which (H, W) are valid."""
        values = self._scaled(pixels)
        if not valid.all():
            np.copyto(values, np.nan, where=~valid[..., None])
        return values

    def valid(self, pixels: Pixels, valid: Mask) -> Mask:
        """Where (H, W) pixels are valid and their values finite."""
        largest = max(np.abs([*self.scale, *self.offset]))
        if pixels.dtype.kind in "iu" and largest < _NEVER_TOO_LARGE:
            return valid
        rows = range(0, len(pixels), _ROWS)
        return valid & np.concatenate([np.isfinite(self._scaled(pixels[y : y + _ROWS])).all(axis=2) for y in rows])

    def _scaled(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Computed in float64 and rounded once; a few rows at a time, which stay in the processor's cache."""
        if np.iscomplexobj(pixels):
            pixels = np.abs(pixels)  # the amplitude is the physical value of a complex sample
        alike = len({*zip(self.scale, self.offset, strict=True)}) == 1
        if alike and (self.scale[0], self.offset[0]) == (1.0, 0.0) and pixels.dtype.kind in "iu":
            return pixels.astype(np.float32)
        values = np.empty_like(pixels, dtype=np.float32)  # in the order of memory that the reader chose
        for y in range(0, len(pixels), _ROWS):
            rows = np.s_[y : y + _ROWS]
            if alike:
                exact = np.multiply(pixels[rows], self.scale[0], dtype=np.float64)
                values[rows] = np.add(exact, self.offset[0], out=exact)
                continue
            for i, (scale, offset) in enumerate(zip(self.scale, self.offset, strict=True)):
                values[rows][..., i] = pixels[rows][..., i].astype(np.float64) * scale + offset
        return values


def grid_of(region: Region, spec: InputSpec) -> tuple[int, int]:
    """(columns, rows) of a region's tiles: its own, or those that it is enlarged to fill."""
    larger = _enlarged_grid(region, spec)
    return region.tiles if larger is None else (larger.cols, larger.rows)


def _enlarged_grid(region: Region, spec: InputSpec) -> TileGrid | None:
    """The grid on which the region's part of the picture fills as many tiles as `spec.enlarge` allows.

    None where it would not be larger: a view never has fewer pixels than the region.
    """
    if not spec.enlarge:
        return None
    columns, rows = region.grid.shape
    width = min(region.columns.stop, columns) - region.columns.start
    height = min(region.rows.stop, rows) - region.rows.start
    grid = TileGrid.fit(width, height, hd_num=spec.enlarge, tile=spec.tile)
    x0, y0, x1, y1 = grid.content
    return grid if x1 - x0 > width and y1 - y0 > height else None


def core_window(region: Region) -> tuple[slice, slice]:
    """(rows, columns) of a region's core among its pixels."""
    rows, columns = (slice(s.core_start - s.start, s.core_stop - s.start) for s in (region.rows, region.columns))
    return rows, columns


def roi_mask(region: Region, roi: BaseGeometry | None, *, whole: bool = False) -> Mask:
    """Where the centres of the core's grid pixels lie inside `roi` (level-0 pixels): booleans of the core's shape.

    With `whole` those of the region's box, of its shape.
    Blocks that are wholly inside or outside are decided at once, so that only the ROI's border costs time. A centre on
    the border itself is outside.
    """
    c, r = region.columns, region.rows
    left, right = (c.start, c.stop) if whole else (c.core_start, c.core_stop)
    top, bottom = (r.start, r.stop) if whole else (r.core_start, r.core_stop)
    mask = np.zeros((bottom - top, right - left), dtype=np.bool_)
    if roi is None:
        mask[...] = True
        return mask
    turned, (sx, sy) = region.grid.orientation, region.grid.upright_scale
    if turned != UPRIGHT:
        roi = shapely.transform(roi, lambda xy: turned.to_upright(xy, region.grid.size))
    shapely.prepare(roi)
    x, y = np.arange(left, right + 1) * sx, np.arange(top, bottom + 1) * sy
    centre_x, centre_y = x[:-1] + sx / 2, y[:-1] + sy / 2
    undecided = [(0, len(centre_y), 0, len(centre_x))]
    while undecided:
        y0, y1, x0, x1 = undecided.pop()
        block = box(x[x0], y[y0], x[x1], y[y1])
        if not roi.intersects(block):
            continue
        if roi.covers(block):
            mask[y0:y1, x0:x1] = True
        elif max(y1 - y0, x1 - x0) <= LEAF:
            mask[y0:y1, x0:x1] = shapely.contains_xy(roi, *np.meshgrid(centre_x[x0:x1], centre_y[y0:y1]))
        else:
            ym, xm = (y0 + y1 + 1) // 2, (x0 + x1 + 1) // 2
            quarters = [(a, b, e, f) for a, b in ((y0, ym), (ym, y1)) for e, f in ((x0, xm), (xm, x1))]
            undecided += [q for q in quarters if q[0] < q[1] and q[2] < q[3]]
    return mask


def _to_canvas_mask(mask: Mask, grid: TileGrid) -> Mask:
    """A region's mask on its enlarged canvas: each canvas pixel has what the pixel around its centre has."""
    x0, y0, x1, y1 = grid.content
    x = np.floor(grid.to_region([(i + 0.5, 0) for i in range(x0, x1)])[:, 0]).astype(np.intp)
    y = np.floor(grid.to_region([(0, i + 0.5) for i in range(y0, y1)])[:, 1]).astype(np.intp)
    found = np.zeros(grid.size[::-1], dtype=np.bool_)
    found[y0:y1, x0:x1] = mask[np.ix_(y, x)]
    return found


def to_canvas_mask(mask: Mask, view: View) -> Mask:
    """A mask of the pixels (H, W) of a view's region as one of its canvas: the inverse of `to_region_mask`."""
    if view.grid.source == view.grid.size == view.region.size:
        return mask
    return _to_canvas_mask(mask, view.grid)


def to_region_mask(mask: Mask, view: View) -> Mask:
    """A mask of a view's canvas (H, W) as one of its region's pixels, (H, W) of `region.size`.

    A pixel has what the canvas has at its centre; a pixel outside the picture, which is not on the canvas, is False.
    """
    if view.grid.source == view.grid.size == view.region.size:
        return mask
    width, height = view.grid.source
    x = np.floor(view.grid.to_canvas([(i + 0.5, 0) for i in range(width)])[:, 0]).astype(np.intp)
    y = np.floor(view.grid.to_canvas([(0, i + 0.5) for i in range(height)])[:, 1]).astype(np.intp)
    found = np.zeros(view.region.size[::-1], dtype=np.bool_)
    found[:height, :width] = mask[np.ix_(y, x)]
    return found


def valid_share(view: View) -> float:
    """The share of a region's core that is valid and in the region of interest, 0 to 1."""
    return float(to_region_mask(view.keep_mask, view)[core_window(view.region)].mean())


@dataclass(frozen=True, slots=True)
class KeptTile:
    """A tile with at least one kept pixel in its core."""

    index: int
    """Among the view's tiles."""
    core: BaseGeometry
    """The tile's core within the region's core, in canvas pixels."""
    valid_share: float
    """The share of that core which is valid and in the region of interest, 0 to 1."""


def kept_tiles(view: View) -> list[KeptTile]:
    """The tiles with a kept pixel in their core, row by row. Their cores lie side by side in the region's core."""
    rows, columns = core_window(view.region)
    kept: list[KeptTile] = []
    for index, (x0, y0, x1, y1) in enumerate(view.grid.core_boxes()):
        left, right = max(x0, columns.start), min(x1, columns.stop)
        top, bottom = max(y0, rows.start), min(y1, rows.stop)
        if view.keep_mask[y0:y1, x0:x1].any():
            share = float(view.keep_mask[top:bottom, left:right].mean())
            kept.append(KeptTile(index, box(left, top, right, bottom), share))
    return kept


def measure_coverage(
    view: View, placement: Placement, roi: BaseGeometry | None = None, *, invalid_first: bool = False
) -> Coverage:
    """How much of a view's core counts, is not valid, lies outside the `roi` with which it was read, or is masked.

    A pixel that is both invalid and outside counts as outside, with `invalid_first` as invalid; masked are only pixels
    that are neither.
    Each grid pixel counts with its part inside the picture. Square metres are those of small blocks of the core,
    shared out by pixel counts, so that a change of scale with latitude inside a region is respected; None where the
    placement does not have them, or where a block reaches beyond the Earth, as at the limb of a geostationary image.
    """
    region, core = view.region, core_window(view.region)
    valid = to_region_mask(join_tiles(view.valid, view.grid), view)[core]
    inside = roi_mask(region, roi)
    invalid, outside = (~valid, ~inside & valid) if invalid_first else (inside & ~valid, ~inside)
    masked = np.zeros_like(valid) if view.masked is None else view.masked.pixels[core] & valid & inside
    width, height = region.grid.shape
    side = _block_side(region, placement)
    x_cuts, y_cuts = (
        _block_cuts(span, length, side) for span, length in ((region.columns, width), (region.rows, height))
    )
    boxes = _block_boxes(region, x_cuts, y_cuts)
    cells = np.multiply.outer(np.diff(y_cuts), np.diff(x_cuts)).ravel()
    shares = [
        _count(mask, x_cuts - x_cuts[0], y_cuts - y_cuts[0]) / cells
        for mask in (to_region_mask(view.keep_mask, view)[core] & ~masked, invalid, outside, masked)
    ]
    px = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    m2 = box_areas_m2(boxes, placement)
    m2 = None if m2 is None or np.isnan(m2).any() else m2
    valid_px, invalid_px, outside_px, masked_px = (math.fsum(share * px) for share in shares)
    valid_m2, invalid_m2, outside_m2, masked_m2 = (None if m2 is None else math.fsum(share * m2) for share in shares)
    if view.masked is None:
        masked_m2 = None
    return Coverage(valid_px, invalid_px, valid_m2, invalid_m2, outside_px, outside_m2, masked_px, masked_m2)


def _block_side(region: Region, placement: Placement) -> int:
    """Grid pixels of a side of a block."""
    core = region.core
    metres = metres_per_pixel(placement, ((core.x0 + core.x1) / 2, (core.y0 + core.y1) / 2))
    if metres is None or not 0 < max(metres) < math.inf:
        return BLOCK
    return min(WIDE, max(BLOCK, int(FAR / max(m * scale for m, scale in zip(metres, region.grid.scale, strict=True)))))


def _block_cuts(span: Span, length: int, side: int) -> npt.NDArray[np.intp]:
    """Grid lines that cut a core into blocks; the picture's last pixel, which may be partial, is a block of its own."""
    lines = {*range(span.core_start, span.core_stop, side), span.core_stop}
    if span.core_stop == length:
        lines.add(length - 1)
    return np.array(sorted(lines))


def _block_boxes(region: Region, x_cuts: npt.NDArray[np.intp], y_cuts: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """(N, 4) boxes of the blocks in level-0 pixels, row by row, within the picture."""
    grid = region.grid
    (sx, sy), (width, height) = grid.upright_scale, grid.upright_size
    x, y = np.minimum(x_cuts * sx, width), np.minimum(y_cuts * sy, height)
    y0, x0 = np.meshgrid(y[:-1], x[:-1], indexing="ij")
    y1, x1 = np.meshgrid(y[1:], x[1:], indexing="ij")
    first, last = (np.stack([xs.ravel(), ys.ravel()], axis=1) for xs, ys in ((x0, y0), (x1, y1)))
    first, last = (grid.orientation.to_level0(corners, grid.size) for corners in (first, last))
    return np.concatenate([np.minimum(first, last), np.maximum(first, last)], axis=1)


def _count(mask: Mask, x_cuts: npt.NDArray[np.intp], y_cuts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """How many pixels of each block are true, row by row."""
    if mask.all():
        return np.multiply.outer(np.diff(y_cuts), np.diff(x_cuts)).ravel()
    if not mask.any():
        return np.zeros((len(y_cuts) - 1) * (len(x_cuts) - 1), dtype=np.intp)
    per_row = np.add.reduceat(mask, x_cuts[:-1], axis=1, dtype=np.intp)
    return np.add.reduceat(per_row, y_cuts[:-1], axis=0).ravel()


def to_image_coordinates(answers: Sequence[Answer], view: View) -> list[Finding]:
    """Convert a view's answers in canvas pixels to findings in level-0 pixels, in order.

    Canvas pixels become absolute pixels of the image's analysis grid, and only those are scaled, so that two regions
    compute the same bits for a shared border. Coordinates are clipped to the picture. An answer without geometry
    stands for the region's core. Raises `ModelError` for an answer that lies wholly outside the picture or holds a
    number that is not finite.
    """
    if not answers:
        return []
    region, core = view.region, view.region.core
    given = objects(one.geometry for one in answers)
    _check_answers(answers, given, view)
    gridded: Objects = shapely.transform(given, lambda xy: _to_grid(xy, view))
    geometries: Objects = shapely.transform(gridded, region.grid.to_level0)
    areas, before = np.asarray(shapely.area(geometries)), np.asarray(shapely.area(gridded))
    outside = np.flatnonzero((areas <= 0.0) & (before > 0.0))
    if len(outside):
        wrong = answers[int(outside[0])]
        value, remedy = "" if wrong.geometry is None else str(wrong.geometry.bounds), _REPORT_TO_AUTHOR
        raise ModelError(_subject(wrong, view), "must lie on the picture", value=value, remedy=remedy)
    geometries[shapely.is_missing(given)] = box(core.x0, core.y0, core.x1, core.y1)
    (x0, y0, x1, y1), (width, height) = shapely.bounds(gridded).T, region.grid.shape
    cut = _reaches_border(x0, x1, region.columns, width) | _reaches_border(y0, y1, region.rows, height)
    whole = (0.0, 0.0, *view.grid.size)
    corners = np.array([one.window or whole for one in answers], dtype=np.float64).reshape(-1, 2)
    placed = region.grid.to_level0(_to_grid(corners, view)).reshape(-1, 2, 2)
    windows = map(tuple, np.concatenate([placed.min(axis=1), placed.max(axis=1)], axis=1).tolist())
    return [
        Finding(
            label=one.label,
            geometry=geometry,
            kind=one.kind,
            score=one.score,
            text=one.text,
            text_cut=one.text_cut,
            cut=reaches,
            numbers=one.numbers,
            notes=one.notes,
            window=window if one.kind == "box" else None,
            plane=region.plane,
        )
        for one, geometry, reaches, window in zip(answers, geometries, cut.tolist(), windows, strict=True)
    ]


def _check_answers(answers: Sequence[Answer], geometries: Objects, view: View) -> None:
    """Raise `ModelError` for the first answer with a number or a corner that is not finite."""
    numbers = [number for one in answers for number in (*one.numbers.values(), one.score or 0.0)]
    if np.isfinite(shapely.get_coordinates(geometries)).all() and np.isfinite(np.array(numbers, np.float64)).all():
        return
    for one, geometry in zip(answers, geometries, strict=True):
        corners = shapely.get_coordinates(geometry).ravel()
        values = [*one.numbers.values(), *([] if one.score is None else [one.score]), *corners]
        require_finite(np.array(values, dtype=np.float64), "numbers", of=_subject(one, view))


def _subject(answer: Answer, view: View) -> str:
    return f"answer {answer.label!r} on {view.region.key}"


def _to_grid(canvas_xy: Points, view: View) -> Points:
    """Canvas pixels (N, 2) → absolute pixels of the analysis grid (N, 2)."""
    return view.grid.to_region(canvas_xy) + np.array([view.region.columns.start, view.region.rows.start])


def _reaches_border(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], span: Span, length: int) -> Mask:
    """(n,): whether low to high reaches a border of the core that is not the picture's own."""
    first, last = span.core_start > 0, span.core_stop < length
    return (first & (low <= span.core_start)) | (last & (high >= span.core_stop))
