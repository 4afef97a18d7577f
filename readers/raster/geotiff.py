"""GeoTIFF and the other single-file rasters that GDAL reads.

Colours, nodata, masks, scale and placement are used as the file states them and never guessed.
"""

# rasterio has no type stubs
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import itertools
import math
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReadError, did_you_mean, excerpt
from ..files import is_remote, split_variable
from ..geometry import Box
from ..image import BaseImage, ImageInfo, Mask, Pixels, StoredLevel
from ..options import scan_options
from ..orientation import TAG_FACT
from ..resample import ROW_BYTES, SNAP, Edges, axis_weights, pixel_edges, resample
from .gdal import CACHE_BYTES, PAGE, gdal_env, gdal_errors, keep_query, limit_cache, open_raster, stored_bytes
from .metadata import (
    RasterOptions,
    band_dtype,
    band_layout,
    describe_raster,
    has_complex,
    has_mask,
    is_nodata,
    nodata_values,
    variable_name,
)
from .pictures import keep_decoded, orientation_tag
from .stac import keep_queries
from .stored_blocks import StoredBlocks

Window = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, each from and to

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CONFIDENCE = {
    **dict.fromkeys(_TIFF, 50),
    **dict.fromkeys((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"NITF", b"EHFA_HEADER_TAG"), 50),
    **dict.fromkeys((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"), 40),
}

"""Magic number → confidence that this reader should open the file."""
_BMP_HEADERS = {struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)}
GEO_TAGS = {33550, 33922, 34264, 34735}  # ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory
MAX_SUBDATASETS = 1000
_SAME_SHAPE = 0.02  # difference of two proportions: a smaller page of the same is a reduced copy
_PIXELS = ("must have readable pixels", "The file may be truncated or damaged: fetch it again")
_METADATA = ("must have metadata that GDAL can read", "Fetch the file again or leave it out")
_TOLERANCE = 1e-6  # relative: an overview that is coarser than requested by less is fine enough
_ALL_VALID: Mask = np.array(True)


class RasterReader:
    """The reader named "raster"."""

    name = "raster"
    kind = "map"
    cache_bytes, shared_cache = CACHE_BYTES, True
    limit_cache = staticmethod(limit_cache)
    Options = RasterOptions

    def identify(self, uri: str, head: bytes) -> int:
        """By magic number; higher for a TIFF with georeference tags, low for a remote name."""
        if not head:
            return 30 if is_remote(uri) else 0
        if head.lstrip().startswith(b"<VRTDataset"):
            return 60
        if head.startswith(_TIFF) and _first_tags(head) & GEO_TAGS:
            return 70
        if head[:4] + head[8:12] == b"RIFFWEBP" or (head[:2] == b"BM" and head[14:18] in _BMP_HEADERS):
            return 40
        return next((confidence for magic, confidence in _CONFIDENCE.items() if head.startswith(magic)), 0)

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """One image, or one for each subdataset of a container, the one that is named, or each page of a TIFF.

        Raises `ReadError`.
        """
        uri = keep_query(uri) if is_remote(uri) else uri
        named, (uri, variable) = uri, split_variable(uri)
        with _opened(uri) as raster:
            parts = list(raster.subdatasets)
            known = [_variable(part) for part in parts] or ([found] if (found := variable_name(raster)) else [])
            if variable and variable not in known:
                listed = ", ".join(known) or f"none in a file that {raster.driver} reads"
                remedy = f"{did_you_mean(variable, known)}Name one of these after the file"
                raise ReadError(excerpt(named), "must name a variable of its file", value=listed, remedy=remedy)
            pages = _pages(raster, uri)
            if raster.count and len(pages) < 2:
                return [_scan_dataset(raster, uri, "", options)]
            every = len(parts)
            if pages:
                parts = pages
            if not parts:
                raise ReadError(uri, "must have at least one band", remedy="Give a file with pixels")
            parts = [part for part in parts if not variable or _variable(part) == variable]
        if len(parts) > MAX_SUBDATASETS:
            rule = f"must have at most {MAX_SUBDATASETS} subdatasets"
            raise ReadError(uri, rule, value=str(len(parts)), remedy="Split it with gdal_translate")
        infos: list[ImageInfo] = []
        for number, part in enumerate(parts, start=1):
            with _opened(uri, part) as raster:
                if raster.count:
                    info = _scan_dataset(raster, uri, part, options)
                    scene = (("scene", f"{number} of {len(parts)}"),) if pages else ()
                    notes = info.notes if number > 1 else (*info.notes, *_left_out(every, pages))
                    infos.append(replace(info, facts=(*info.facts, *scene), notes=notes))
        return infos

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "RasterImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return RasterImage(info, channels)


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
            with gdal_errors(self._name, *_METADATA):
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
            with gdal_errors(self._name, *_PIXELS):
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
                with gdal_env(self._name), gdal_errors(self._name, *_PIXELS):
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
        stored: Sequence[Pixels] = list(out)
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


@contextmanager
def _opened(name: str, part: str = "", overview: int | None = None) -> Generator[Any]:
    with gdal_env(name), open_raster(name, part, overview=overview) as raster:
        yield raster


def _scan_dataset(raster: Any, uri: str, part: str, options: RasterOptions) -> ImageInfo:
    with gdal_errors(uri, *_METADATA):
        info = describe_raster(raster, uri, options)
        if not is_remote(uri):
            _probe_levels(raster, uri, part)
    pages = len(raster.subdatasets) if raster.driver == "GTiff" and not part else 0
    others = [f"The file holds {pages} images; only the first is read."] if pages > 1 else []
    tag = orientation_tag(uri) if part in {"", PAGE.format(1)} else ""
    facts = ((TAG_FACT, tag),) if tag else ()
    info = replace(info, part=part, notes=(*info.notes, *others), facts=(*info.facts, *facts))
    if not (part and raster.driver == "netCDF"):
        return info
    variable = _variable(part)
    scene = (("scene_name", variable),)
    return replace(info, id=f"{Path(uri).stem}-{variable}", facts=(*info.facts, *scene))


def _pages(raster: Any, uri: str) -> list[str]:
    """The pages of a TIFF as parts; [] for a file without or with too many.

    Left out are smaller copies of the first, and pages of less than half its sides, which may show the label of a slide
    with a name on it.
    """
    if raster.driver != "GTiff" or not 1 < len(raster.subdatasets) <= MAX_SUBDATASETS:
        return []
    numbers = [int(part.split(":")[1]) for part in raster.subdatasets]
    pages = [PAGE.format(numbers[0])]
    for number in numbers[1:]:
        with _opened(uri, PAGE.format(number)) as page:
            across, down = raster.width / page.width, raster.height / page.height
            copy = across > 1 and abs(across / down - 1) < _SAME_SHAPE
            if not copy and min(across, down) < 2:
                pages.append(PAGE.format(number))
    return pages


def _left_out(every: int, pages: Sequence[str]) -> list[str]:
    """A note on pages of a TIFF that are not read."""
    few = every - len(pages) if pages else 0
    return (
        [f"{few} of the {every} pages of the file are left out: much smaller than the first, or copies."] if few else []
    )


def _variable(part: str) -> str:
    """The variable that a subdataset's name ends with."""
    return part.rpartition(":")[2]


def _probe_levels(raster: Any, uri: str, part: str) -> None:
    """Read one block of each level, so that a file that crashes GDAL does so in the scan; other damage may pass."""
    levels = (partial(_opened, uri, part, at) for at in range(len(raster.overviews(1))))
    for opened in (partial(nullcontext, raster), *levels):
        with suppress(ReadError), opened() as level, gdal_errors(uri, *_PIXELS):
            high, wide = level.block_shapes[0]
            window = ((0, min(high, level.height)), (0, min(wide, level.width)))
            level.read(1, window=window)
            if has_mask(level.mask_flag_enums[0]):
                level.read_masks(1, window=window)


def _first_tags(head: bytes) -> set[int]:
    """The tags of a TIFF's first directory, as far as the first bytes hold it."""
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in {b"+\0", b"\0+"}
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), head, start)
        first, size = (start + 8, 20) if big else (start + 2, 12)
        held = min(count, (len(head) - first) // size)
        return {struct.unpack_from(order + "H", head, first + size * at)[0] for at in range(held)}
    except (struct.error, OverflowError):  # the latter: an offset that no file can have
        return set()
