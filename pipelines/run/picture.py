"""The pixels of a whole image at its analysis resolution, for annotators that are fitted to them."""
# shapely leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import math
from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
import shapely

from ...model.annotator import InputSpec, SupportsPictureFit
from ...model.views import read_canvas
from ...readers.image import ImageInfo, Mask, Pixels
from ...readers.regions import Grid, Region, Span
from ...readers.registry import open_image
from .overview_stats import OverviewStats, RegionOfInterest, channel_names

MAX_PIXELS: Final = 2**21
"""Analysed pixels that an annotator is fitted to at most."""

_BLOCK: Final = 256  # analysed pixels a side
_PLACES: Final = 64  # places along an axis among which blocks are chosen

_SAMPLES: Final = (np.arange(8) + 0.5) / 8  # along each side of a block, to see which share lies inside an area

Item = TypeVar("Item")

Place = tuple[int, int, int]
"""(plane, x, y) of a block in grid pixels."""


def fit_to_picture(annotator: SupportsPictureFit, info: ImageInfo, grid: Grid, stats: OverviewStats) -> InputSpec:
    """The spec with what the annotator fits to an image's pixels. Raises `LimnerError`."""
    spec = stats.spec
    if stats.roi.area is not None and stats.roi.area.is_empty:
        return spec
    return annotator.fit_picture(spec, lambda: read_picture(info, grid, stats))


def read_picture(info: ImageInfo, grid: Grid, stats: OverviewStats, limit: int = MAX_PIXELS) -> tuple[Pixels, Mask]:
    """An image at its analysis resolution, (H, W, C) as in views and the valid mask (H, W).

    An image of more than `limit` pixels, or of several planes, is sampled: at most so many pixels in blocks of 256 px
    side by side, evenly spread over those that lie mostly in the region of interest. The same image and plan give the
    same blocks.
    """
    (width, height), spec = grid.shape, stats.spec
    with open_image(info, channel_names(info, spec, stats.stretch)) as image:

        def read(place: Place, size: tuple[int, int]) -> tuple[Pixels, Mask]:
            return read_canvas(image, block_region(grid, place, size), spec, stats.stretch)

        if grid.planes == 1 and width * height <= limit:
            return read((0, 0, 0), (width, height))
        size = min(width, _BLOCK), min(height, _BLOCK)
        places = _spread(_block_places(grid, size, stats.roi), limit // (size[0] * size[1]))
        rows = math.isqrt(len(places))
        columns = len(places) // rows
        blocks = [read(place, size) for place in _spread(places, rows * columns)]
        lines = [blocks[row * columns : (row + 1) * columns] for row in range(rows)]
        return (
            np.concatenate([np.concatenate([pixels for pixels, _ in line], axis=1) for line in lines]),
            np.concatenate([np.concatenate([valid for _, valid in line], axis=1) for line in lines]),
        )


def _block_places(grid: Grid, size: tuple[int, int], roi: RegionOfInterest) -> list[Place]:
    """Places of blocks: those with at least half in the region of interest, if any.

    They are in Z-order, so that an even choice among them is spread evenly over the image.
    """
    columns, rows = (
        [i * step for i in _spread(range(max(1, length // step)), _PLACES)]
        for length, step in zip(grid.shape, size, strict=True)
    )
    shares: dict[Place, float] = {}
    if roi.area is not None:
        shapely.prepare(roi.area)
    for y in rows:
        for x in columns:
            box = block_region(grid, (0, x, y), size).core
            if not roi.skip_reason(box):
                points = np.meshgrid(box.x0 + _SAMPLES * box.width, box.y0 + _SAMPLES * box.height)
                shares[0, x, y] = 1.0 if roi.area is None else float(shapely.contains_xy(roi.area, *points).mean())
    most = max(shares.values(), default=0.0)
    kept = [place for place, share in shares.items() if share >= min(0.5, most)] or [(0, columns[0], rows[0])]
    kept.sort(key=lambda place: _interleaved(columns.index(place[1]), rows.index(place[2])))
    return [(plane, x, y) for plane in _spread(range(grid.planes), _PLACES) for _, x, y in kept]


def _interleaved(column: int, row: int) -> int:
    """The bits of two numbers in turn."""
    return sum((column >> bit & 1) << 2 * bit | (row >> bit & 1) << 2 * bit + 1 for bit in range(_PLACES.bit_length()))


def block_region(grid: Grid, place: Place, size: tuple[int, int]) -> Region:
    """A block as a region of one tile."""
    plane, *corner = place
    columns, rows = (Span(at, at + side, at, at + side, 1) for at, side in zip(corner, size, strict=True))
    return Region(grid, columns, rows, plane)


def _spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items, evenly spread, the middle one of each part."""
    count = max(1, min(count, len(items)))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
