"""Pixels of a raster that GDAL reads: windows of its levels, resampled, with what of them is valid."""

# rasterio has no type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import itertools
import math
from functools import partial
from typing import Any

import numpy as np

from ..errors import ReadError
from ..files import is_remote
from ..geometry import Box
from ..image import BaseImage, Mask, Pixels, StoredLevel
from ..options import scan_options
from ..resample import ROW_BYTES, SNAP, Edges, axis_weights, pixel_edges, resample
from .gdal import METADATA, PIXELS, gdal_env, gdal_errors, open_raster, stored_bytes
from .metadata import RasterOptions, band_dtype, band_layout, has_complex, has_mask, is_nodata, nodata_values
from .pictures import keep_decoded
from .stac import keep_queries
from .stored_blocks import StoredBlocks

Window = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, each from and to

_TOLERANCE = 1e-6  # relative: an overview that is coarser than requested by less is fine enough
_ALL_VALID: Mask = np.array(True)


class RasterImage(BaseImage):
    """An open raster: one handle for each overview in use, for one worker."""

    streams = True

    def _open(self) -> None:
        self._name = self._info.uri
        keep_queries(self._info.files)
        self._same_masks: dict[int, bool] = {}
        self._levels: dict[int, Any] = {}  # overview → its handle; -1 is full resolution
        with gdal_env(self._name):
            self._levels[-1] = open_raster(self._name, self._info.part)
            with gdal_errors(self._name, *METADATA):
                self._prepare()

    def _prepare(self) -> None:
        raster, size = self._levels[-1], self._info.size
        if (raster.width, raster.height) != size:
            rule, found = f"must still have {size[0]} × {size[1]} px", f"{raster.width} × {raster.height} px"
            raise ReadError(self._name, rule, value=found, remedy="Scan it again")
        self._layout = band_layout(raster)
        self._dtype = np.result_type(*(np.dtype(channel.dtype) for channel in self.channels))
        self._complex = has_complex(raster, self._layout.bands)
        self._nodata = nodata_values(raster, self._layout, scan_options(RasterOptions, self._info))
        self._flags = raster.mask_flag_enums
        self._masked = has_mask(self._flags[0])
        # an overview of complex numbers is the mean of numbers with different phases
        self._factors = [] if self._complex else [float(factor) for factor in raster.overviews(1)]
        decoded = None if self._masked else keep_decoded(self._name, raster, partial(open_raster, self._name))
        if decoded is not None:
            raster.close()
            self._levels[-1], self._factors = decoded, []

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`: the nearest overview that is not coarser than requested, reduced further by averaging."""
        try:
            return self.sample(pixel_edges(box.y0, box.y1, size[1]), pixel_edges(box.x0, box.x1, size[0]))
        except ReadError as error:
            where = f"box x {box.x0:g}…{box.x1:g}, y {box.y0:g}…{box.y1:g} of {self._name}"
            raise ReadError(where, error.rule, value=error.value, remedy=error.remedy) from error

    def sample(
        self, y: Edges, x: Edges, *, bounds: tuple[float, float, float, float] | None = None
    ) -> tuple[Pixels, Mask]:
        """Pixels (rows, columns, channels) and validity between ascending edges in level-0 pixels of this file.

        `bounds` = (x0, y0, x1, y1) of the image, where this file is one band of a scene. Raises `ReadError`.
        """
        width, height = self._info.size
        with gdal_env(self._name):
            raster = self._choose_level((x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1))
        parts = self._column_parts(raster, x)
        if len(parts) > 1:
            read = [self.sample(y, x[part], bounds=bounds) for part in parts]
            return np.concatenate([pixels for pixels, _ in read], axis=1), np.hstack([valid for _, valid in read])
        (across, right), (down, below) = self._level_grid(raster)
        x0, y0, x1, y1 = bounds or (0.0, 0.0, float(width), float(height))
        rows = axis_weights(y / down + below, raster.height, low=y0 / down + below, high=y1 / down + below)
        columns = axis_weights(x / across + right, raster.width, low=x0 / across + right, high=x1 / across + right)
        start, stop = columns.start, columns.stop
        kept = np.empty(0, dtype=self._dtype)  # one piece of memory for all reads

        def read_rows(y0: int, y1: int) -> tuple[Pixels, Mask | None]:
            nonlocal kept
            shape = len(self.channels), y1 - y0, stop - start
            kept = kept if kept.size >= math.prod(shape) else np.empty(math.prod(shape), dtype=self._dtype)
            with gdal_errors(self._name, *PIXELS):
                out = kept[: math.prod(shape)].reshape(shape)
                return self._read_window(raster, ((y0, y1), (start, stop)), out)

        with gdal_env(self._name):
            high = raster.block_shapes[0][0]
            return resample(read_rows, rows, columns, len(self.channels), self._dtype, block=high)

    def _close(self) -> None:
        for raster in self._levels.values():
            raster.close()
        self._levels.clear()

    def stored_level(self, step: tuple[float, float]) -> StoredLevel:
        """See `SupportsLevels`."""
        with gdal_env(self._name):
            raster = self._choose_level(*step)
            high, wide = raster.block_shapes[0]
        (across, _), (down, _) = self._level_grid(raster)
        return StoredLevel((across, down), (min(wide, raster.width), min(high, raster.height)))

    def may_hold(self, shape: tuple[int, int]) -> Mask | None:
        """See `SupportsLevels`: the stored blocks of a local GeoTIFF in which a block that is left out is no data."""
        raster = self._levels[-1]
        if raster.driver != "GTiff" or is_remote(self._name) or self._info.part or self._layout.palette is not None:
            return None
        types, fills = raster.dtypes, [value or 0 for value in raster.nodatavals]  # what GDAL has for such a block
        delivered = {b: np.array([fills[b - 1]]).astype(band_dtype(types[b - 1])) for b in self._layout.bands}
        empty = all(bool(is_nodata(value, self._nodata.get(band)).all()) for band, value in delivered.items())
        if not empty and (self._layout.alpha is None or fills[self._layout.alpha - 1] != 0):
            return None
        blocks = StoredBlocks.read(self._name)
        if blocks is None or blocks.size != (raster.width, raster.height):
            return None
        return blocks.may_hold(shape)

    def _column_parts(self, raster: Any, x: Edges) -> list[slice]:
        """Parts of the edges x, one after the other, for which a row of blocks is read at once.

        So each block is decoded once, but for those that a pixel between parts cuts. Parts end at blocks if they can.
        """
        high, wide = raster.block_shapes[0]
        most = max(wide, ROW_BYTES // (high * stored_bytes(raster)))
        edges = x * (raster.width / self._info.size[0])
        count = math.ceil((edges[-1] - edges[0]) / most)
        if wide >= raster.width or count <= 1:
            return [slice(None)]
        ends = np.round(np.linspace(edges[0], edges[-1], count + 1)[1:-1] / wide) * wide
        places = sorted({0, len(x) - 1, *np.searchsorted(edges, ends - SNAP).tolist()})
        return [slice(first, last + 1) for first, last in itertools.pairwise(places)]

    def _choose_level(self, x_step: float, y_step: float) -> Any:
        """The coarsest overview that is not coarser than requested on either axis and has the same kind of mask."""
        full = self._levels[-1]
        limit = min(x_step, y_step) * (1 + _TOLERANCE)
        for level in sorted(range(len(self._factors)), key=self._factors.__getitem__, reverse=True):
            if self._factors[level] > limit + 1:  # the factor is rounded
                continue
            if level not in self._levels:
                with gdal_env(self._name), gdal_errors(self._name, *PIXELS):
                    self._levels[level] = open_raster(self._name, self._info.part, overview=level)
                    self._same_masks[level] = self._levels[level].mask_flag_enums == self._flags
            raster = self._levels[level]
            need = full.width / x_step, full.height / y_step
            fine = need[0] <= raster.width * (1 + _TOLERANCE) and need[1] <= raster.height * (1 + _TOLERANCE)
            reduced = raster.width <= full.width and raster.height <= full.height  # in a damaged file it may not be
            if fine and reduced and self._same_masks[level]:
                return raster
        return full

    def _level_grid(self, raster: Any) -> list[tuple[float, float]]:
        """(level-0 pixels per overview pixel, position of level 0's corner in overview pixels) for x and y.

        GDAL averages an overview of n pixels from n equal parts of the image. A reduced resolution of JPEG 2000 comes
        from a wavelet filter centred on every 2nd, 4th, … pixel (ISO/IEC 15444-1, annex F), so its first pixel has the
        centre of level 0's first pixel and starts left of the image:

            level 0       |0|1|2|3|
            JPEG 2000    | 0 | 1 |       (factor 2: the corner of level 0 lies at 0.25)
        """
        full = self._levels[-1]
        grid: list[tuple[float, float]] = []
        for whole, part in ((full.width, raster.width), (full.height, raster.height)):
            if raster is not full and full.driver.startswith(("JP2", "JPEG2000")):
                factor = 2.0 ** round(math.log2(whole / part))
                grid.append((factor, 0.5 - 0.5 / factor))
            else:
                grid.append((whole / part, 0.0))
        return grid

    def _read_window(self, raster: Any, window: Window, out: Pixels) -> tuple[Pixels, Mask | None]:
        """Native channels (rows, columns, channels) of a window and their validity (None: all valid).

        out: memory (channels, rows, columns) that may be used for the channels.
        """
        layout = self._layout
        if layout.palette is not None and layout.opaque is not None:
            index = raster.read(layout.bands[0], window=window)
            valid = layout.opaque[index] & self._read_valid(raster, window, {layout.bands[0]: index})
            return layout.palette[index][:, :, self._channel_indices], valid
        bands = [layout.bands[place] for place in self._channel_indices]
        stored: list[Pixels] = list(out)
        if self._complex:
            stored = [raster.read(band, window=window) for band in bands]
            for plane, band in zip(out, stored, strict=True):
                plane[...] = np.abs(band) if np.iscomplexobj(band) else band
        else:
            raster.read(bands, window=window, out=out)
        valid = self._read_valid(raster, window, dict(zip(bands, stored, strict=True)))
        if out.dtype.kind == "f":
            for plane in out:
                valid = np.isfinite(plane) & valid
        return out.transpose(1, 2, 0), None if valid is _ALL_VALID else valid

    def _read_valid(self, raster: Any, window: Window, known: dict[int, Pixels]) -> Mask:
        """Validity: not nodata in every band, not transparent and not masked. `known` are bands that were read."""
        valid = _ALL_VALID
        if self._nodata:
            empty = np.ones(next(iter(known.values())).shape, dtype=bool)
            for band in [*known, *(band for band in self._nodata if band not in known)]:
                if not empty.any():
                    break
                values = known[band] if band in known else raster.read(band, window=window)
                empty &= is_nodata(values, self._nodata.get(band))
            valid = ~empty
        if self._layout.alpha is not None:
            valid = valid & (raster.read(self._layout.alpha, window=window) != 0)
        if self._masked:
            valid = valid & (raster.read_masks(1, window=window) != 0)
        return valid
