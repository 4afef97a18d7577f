"""Masks of what must not be analysed, such as cloud: rasters with a grid of their own, and polygons.

A pixel of the analysis has what the mask's pixel around its centre has: the nearest one, computed through the exact
mapping from one grid to the other, so that no mask is resampled. A centre on the border of two of the mask's pixels
belongs to the one right of it or below. Where a raster has no data, and outside of it, nothing says that a pixel may be
analysed, so that it counts as masked.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from .errors import ReadError, excerpt
from .geodesy import pixels_on
from .geometry import Placement, Points
from .image import ImageInfo, Mask
from .raster.stored_band import StoredBand
from .regions import Grid, Region

_SNAP: Final = 1e-6  # pixels of the mask: what rounding may move a centre by
_MOST: Final = 1 << 24  # pixels of the mask that are read at once
_ROWS: Final = 512  # of the analysis that are placed at once
_SIDE: Final = 65  # points a side that tell how much of an image lies outside of a mask

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MaskRule:
    """Which numbers of a raster are masked."""

    values: tuple[int, ...] = ()
    """Masked numbers; every one but 0 where neither these nor `bits` are given."""
    bits: tuple[int, ...] = ()
    """Bits of which one is enough for a number to be masked."""
    known: tuple[int, ...] = ()
    """All numbers that the raster may hold; () for any."""
    reserved: tuple[int, ...] = ()
    """Pairs of bits, by their lower one, that are never 10."""
    unknown: tuple[int, ...] = ()
    """Numbers of pixels of which nothing is known."""

    def masked(self, numbers: Numbers) -> Mask:
        """Where numbers are masked, or nothing is known."""
        whole = numbers.astype(np.int64, copy=False)
        if self.bits:
            found = (whole & sum(1 << bit for bit in self.bits)) != 0
        else:
            found = np.isin(whole, self.values) if self.values else whole != 0
        return found | np.isin(whole, self.unknown) if self.unknown else found

    def wrong(self, numbers: Numbers) -> list[int]:
        """The numbers that such a raster cannot hold, in rising order."""
        every = np.unique(numbers).astype(np.int64)
        right = np.isin(every, self.known) if self.known else np.ones(len(every), dtype=np.bool_)
        for low in self.reserved:
            right &= ((every >> low) & 3) != 2
        return every[~right].tolist()

    def __str__(self) -> str:
        """In words."""
        if self.bits:
            return f"one of the bits {', '.join(map(str, self.bits))}"
        return f"the values {', '.join(map(str, self.values))}" if self.values else "any value but 0"


FLAGS: Final = MaskRule(known=(0, 1, 255))
"""A raster of 0, and 1 or 255 where it is masked."""

SCL: Final = MaskRule(values=(3, 8, 9, 10), known=tuple(range(12)), unknown=(0,))
"""Sentinel-2's scene classification: cloud shadow, cloud of medium and high probability, thin cirrus; 0 is no data.

Source: Sentinel-2 products specification (S2-PDGS-TAS-DI-PSD), Level-2A scene classification.
"""

QA_PIXEL: Final = MaskRule(bits=(1, 2, 3, 4), reserved=(10, 12, 14), unknown=(1,))
"""Landsat Collection 2: dilated cloud, cirrus, cloud, cloud shadow; 1 is fill.

Source: Landsat 8-9 Collection 2 data format control book, pixel quality assessment band. Its confidences, pairs of
bits, are never 10 for shadow, snow and cirrus, which they are in Collection 1.
"""


@dataclass(frozen=True, slots=True)
class MaskRaster:
    """A band of a raster that says what is masked on an image."""

    uri: str
    part: str
    band: str
    """Its description; "" for the only band."""
    size: tuple[int, int]
    """(width, height) in its own pixels."""
    placement: Placement
    rule: MaskRule
    grid: Grid | None = None
    """The grid on the image whose pixels are the raster's; None where both are placed on the Earth."""

    def to_mask(self, xy: Points, placement: Placement) -> Points:
        """Level-0 pixels (N, 2) of an image → pixels of the raster (N, 2), NaN where there are none."""
        if self.grid is not None:
            return self.grid.orientation.to_upright(xy, self.grid.size) / self.grid.upright_scale
        return pixels_on(self.placement, placement, xy, self.size[0])

    def outside_share(self, info: ImageInfo) -> float:
        """The share of an image that lies outside of the raster, 0 to 1, by points on a grid over the image."""
        x, y = ((np.arange(_SIDE) + 0.5) * side / _SIDE for side in info.size)
        points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        return 1.0 - float(_inside(_pixels(self.to_mask(points, info.placement)), self.size).mean())

    def open(self) -> "OpenMask":
        """Open it for reading. Raises `ReadError`."""
        return OpenMask(self)


class OpenMask:
    """An open mask, for one worker."""

    def __init__(self, mask: MaskRaster) -> None:
        self._mask = mask
        self._band = StoredBand(mask.uri, mask.part, mask.band)
        if self._band.size != mask.size:
            self._band.close()
            rule, found = f"must still have {mask.size[0]} × {mask.size[1]} px", f"{self._band.size}"
            raise ReadError(mask.uri, rule, value=found, remedy="Run it again into another folder")

    def masked(self, region: Region, placement: Placement) -> Mask:
        """Which pixels (H, W) of a region's box are masked. Raises `ReadError`."""
        grid, (width, height) = region.grid, region.grid.upright_size
        (sx, sy), (columns, rows) = grid.upright_scale, region.size
        x, y = _centres(region.columns.start, columns, sx, width), _centres(region.rows.start, rows, sy, height)
        found = np.empty((rows, columns), dtype=np.bool_)
        for top in range(0, rows, _ROWS):
            part = y[top : top + _ROWS]
            upright = np.stack(np.meshgrid(x, part), axis=-1).reshape(-1, 2)
            places = _pixels(self._mask.to_mask(grid.orientation.to_level0(upright, grid.size), placement))
            self._read_places(places.reshape(len(part), columns, 2), found[top : top + _ROWS])
        return found

    def _read_places(self, places: npt.NDArray[np.int64], found: Mask) -> None:
        """Fill `found` (H, W) for the pixels of the raster at `places` (H, W, 2)."""
        inside = _inside(places, self._mask.size)
        found[~inside] = True
        if not inside.any():
            return
        x0, y0 = places[inside].min(axis=0).tolist()
        x1, y1 = (places[inside].max(axis=0) + 1).tolist()
        if (x1 - x0) * (y1 - y0) > max(_MOST, 1) and inside.size > 1:  # a mask much finer than the analysis
            axis = int(found.shape[1] >= found.shape[0])
            half = found.shape[axis] // 2
            for part in (np.s_[:half], np.s_[half:]):
                window = part if axis == 0 else np.s_[:, part]
                self._read_places(places[window], found[window])
            return
        numbers, known = self._band.read((y0, y1), (x0, x1))
        if wrong := self._mask.rule.wrong(numbers[known]):
            raise wrong_values(self._mask.uri, self._mask.rule, wrong)
        masked = self._mask.rule.masked(numbers) | ~known
        found[inside] = masked[places[inside][:, 1] - y0, places[inside][:, 0] - x0]

    def close(self) -> None:
        """Close the file."""
        self._band.close()


@dataclass(frozen=True, slots=True)
class ImageMask:
    """The mask of an image: a raster, or polygons."""

    raster: MaskRaster | None = None
    area: BaseGeometry = field(default_factory=shapely.Polygon)
    """What is masked, in level-0 pixels, where there is no raster."""


def wrong_values(uri: str, rule: MaskRule, found: list[int]) -> ReadError:
    """The error about numbers that a mask cannot hold."""
    allowed = "0, and 1 or 255 where it is masked"
    if rule.known != FLAGS.known:
        allowed = "the scene classes 0 to 11" if rule.known else "the bits of Landsat Collection 2"
    remedy = "Give --mask-values, the values of the mask under which nothing is to be analysed"
    if rule.known != FLAGS.known:
        remedy = "Give the band of the product, or a mask of your own as a file"
    return ReadError(uri, f"must hold {allowed}", value=excerpt(", ".join(map(str, found[:8])), 80), remedy=remedy)


def _centres(start: int, count: int, step: float, length: float) -> npt.NDArray[np.float64]:
    """Centres of grid pixels along an axis in level-0 pixels; of the last one, of its part within the image."""
    edges = (start + np.arange(count + 1)) * step
    inside = np.where(edges < length + step, np.minimum(edges, np.maximum(length, edges[0])), edges)
    return (inside[:-1] + inside[1:]) / 2


def _pixels(places: Points) -> npt.NDArray[np.int64]:
    """The whole pixel around each place (N, 2); -1 where there is none."""
    with np.errstate(invalid="ignore"):
        nearest = np.rint(places)
        whole = np.where(np.abs(places - nearest) < _SNAP, nearest, np.floor(places))
    return np.where(np.isfinite(whole) & (np.abs(whole) < 2**40), whole, -1).astype(np.int64)


def _inside(places: npt.NDArray[np.int64], size: tuple[int, int]) -> Mask:
    return np.all((places >= 0) & (places < size), axis=-1)
