"""Pixels of a scene: every band is resampled once, from its own grid straight to the requested size."""

import math

import numpy as np

from ..errors import ReadError
from ..geometry import Box
from ..image import BaseImage, Mask, Pixels, StoredLevel
from ..options import scan_options
from ..overview import dilate
from ..resample import pixel_edges
from .joined_bands import BandGrid, align, scan_band
from .metadata import RasterOptions
from .raster_image import RasterImage
from .stac import keep_queries


class SceneImage(BaseImage):
    """An open scene: one open raster for each channel, for one worker."""

    streams = True

    def _open(self) -> None:
        info = self._info
        self._dtype = np.result_type(*(np.dtype(channel.dtype) for channel in self.channels))
        self._bands: list[tuple[RasterImage, BandGrid]] = []
        keep_queries(info.files)
        options = scan_options(RasterOptions, info)
        finest = dict(info.facts).get("grid", "")
        if not (finest.isdecimal() and int(finest) < len(info.files)):
            raise ReadError(info.uri, "must have the facts of its scan", value=finest, remedy="Scan it again")
        grid = scan_band(info.files[int(finest)], options)
        for place in self._channel_indices:
            band = scan_band(info.files[place], options)
            self._bands.append((RasterImage(band), align(grid, band)))

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`. A pixel is valid where all its channels are."""
        x, y = pixel_edges(box.x0, box.x1, size[0]), pixel_edges(box.y0, box.y1, size[1])
        width, height = self._info.size
        pixels = np.zeros((size[1], size[0], len(self._bands)), dtype=self._dtype)
        valid = np.ones((size[1], size[0]), dtype=bool)
        for i, (band, grid) in enumerate(self._bands):
            (across, down), (right, below) = grid.scale, grid.shift
            bounds = (right, below, width * across + right, height * down + below)
            try:
                values, usable = band.sample(y * down + below, x * across + right, bounds=bounds)
            except ReadError as error:
                where = f"box x {box.x0:g}…{box.x1:g}, y {box.y0:g}…{box.y1:g} of {band.info.uri}"
                raise ReadError(where, error.rule, value=error.value, remedy=error.remedy) from error
            pixels[:, :, i] = values[:, :, 0]
            valid &= usable
        return pixels, valid

    def stored_level(self, step: tuple[float, float]) -> StoredLevel:
        """See `SupportsLevels`: the blocks of the band that has most pixels stored, and the mean scale of all bands."""
        levels: list[StoredLevel] = []
        for band, grid in self._bands:
            level = band.stored_level((step[0] * grid.scale[0], step[1] * grid.scale[1]))
            across, down = (one / scale for one, scale in zip(level.scale, grid.scale, strict=True))
            levels.append(StoredLevel((across, down), level.block))
        finest = min(levels, key=lambda level: level.scale[0] * level.scale[1])
        area = finest.scale[0] * finest.scale[1]
        mean = math.sqrt(len(levels) / sum(area / (level.scale[0] * level.scale[1]) for level in levels))
        across, down = (one * mean for one in finest.scale)
        block = [max(1, round(side / mean)) for side in finest.block]
        return StoredLevel((across, down), (block[0], block[1]))

    def may_hold(self, shape: tuple[int, int]) -> Mask | None:
        """See `SupportsLevels`: what all bands may hold of which that is known, as a pixel is valid where all are."""
        found: Mask | None = None
        for band, grid in self._bands:
            here = band.may_hold(shape)
            if here is None:
                continue
            radius = [
                _reach(grid.scale[axis], grid.shift[axis], band.info.size[axis], whole, whole / shape[1 - axis])
                for axis, whole in enumerate(self._info.size)
            ]
            here = dilate(here, (radius[0], radius[1]))
            found = here if found is None else found & here
        return found

    def _close(self) -> None:
        for band, _ in self._bands:
            band.close()
        self._bands.clear()


def _reach(scale: float, shift: float, length: int, whole: int, cell: float) -> int:
    """How many cells of `cell` scene pixels may lie between a place on a band's own grid and on the scene's."""
    ends = abs(shift / scale), abs((length - shift) / scale - whole)
    interpolated = 1 / scale if scale < 1 else 0.0  # from the neighbouring pixel
    return math.ceil((max(ends) + interpolated) / cell - 1e-9)
