"""GeoTIFF and the other rasters that GDAL opens for us.

What the file says is used as it says it: colours, nodata, masks, scale, place. What it does not say is not guessed.
"""

# what comes out of rasterio is unknown to pyright
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ..errors import ReadError
from ..files import is_remote
from ..geometry import Box
from ..image import BaseImage, ImageInfo, Mask, Pixels
from ..options import scan_options
from ..resample import Edges, Rows, axis_weights, pixel_edges, resample
from .gdal import environment, open_raster, reading
from .metadata import Layout, RasterOptions, describe_raster, has_complex, has_mask, holds, layout_of, nodata_of

Window = tuple[tuple[int, int], tuple[int, int]]  # rows and columns, each from and to

MAGIC = (
    (b"II*\0", 50, "TIFF"),
    (b"MM\0*", 50, "TIFF"),
    (b"II+\0", 50, "BigTIFF"),
    (b"MM\0+", 50, "BigTIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", 50, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 50, "JPEG 2000 codestream"),
    (b"\x89PNG\r\n\x1a\n", 40, "PNG"),
    (b"\xff\xd8\xff", 40, "JPEG"),
    (b"<VRTDataset", 60, "GDAL virtual raster"),
    (b"NITF", 50, "NITF"),
    (b"EHFA_HEADER_TAG", 50, "ERDAS Imagine"),
)
GEO_TAGS = {33550, 33922, 34264, 34735}  # ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory
MOST_PARTS = 1000
READABLE = ("its pixels must be readable", "The file may be truncated or damaged: fetch it again")
UNDERSTOOD = ("what it says of itself must be understood", "Fetch the file again or leave it out")
NEAR = 1e-6  # an overview this little coarser than asked is not coarser


class RasterReader:
    """The reader named "raster"."""

    name = "raster"
    kind = "map"
    Options = RasterOptions

    def identify(self, uri: str, head: bytes) -> int:
        """By the first bytes; more surely where a TIFF has georeference tags, and by the form of a remote name."""
        if not head:
            return 30 if is_remote(uri) else 0
        start = head.lstrip()
        for magic, strength, kind in MAGIC:
            if head.startswith(magic) or (magic.startswith(b"<") and start.startswith(magic)):
                if "TIFF" in kind and _tags(head) & GEO_TAGS:
                    return 70
                return strength
        return 0

    def scan(self, uri: str, options: RasterOptions) -> Sequence[ImageInfo]:
        """One image, or one for each part of a file that is a container. Raises `ReadError`."""
        with _opened(uri) as raster:
            parts = list(raster.subdatasets) if raster.count == 0 else []
            if not parts:
                if raster.count == 0:
                    raise ReadError(uri, "it must hold at least one band", remedy="Give a file with pixels")
                return [_scanned(raster, uri, "", options)]
        if len(parts) > MOST_PARTS:
            raise ReadError(
                uri, f"it may hold at most {MOST_PARTS} pictures", value=str(len(parts)), remedy="Take it apart first"
            )
        infos: list[ImageInfo] = []
        for part in parts:
            with _opened(uri, part) as raster:
                if raster.count:
                    infos.append(_scanned(raster, uri, part, options))
        return infos

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "RasterImage":
        """Open for reading the named channels. Raises `ReadError`."""
        return RasterImage(info, channels)


class RasterImage(BaseImage):
    """An open raster: one handle for each pyramid level in use, for one worker."""

    def _open(self) -> None:
        self._name = self._info.uri
        self._alike: dict[int, bool] = {}
        self._levels: dict[int, Any] = {}
        with environment(self._name):
            self._levels[-1] = open_raster(self._name, self._info.part)
            with reading(self._name, *UNDERSTOOD):
                self._prepare()

    def _prepare(self) -> None:
        raster = self._levels[-1]
        if (raster.width, raster.height) != self._info.size:
            raise ReadError(
                self._info.uri,
                "it must still be the picture that was scanned",
                value=f"{raster.width} × {raster.height} px, was {self._info.size[0]} × {self._info.size[1]}",
                remedy="Scan again",
            )
        self._layout: Layout = layout_of(raster)
        self._dtype = np.result_type(*(np.dtype(channel.dtype) for channel in self.channels))
        self._complex = has_complex(raster, self._layout.bands)
        self._nodata = nodata_of(raster, self._layout, scan_options(RasterOptions, self._info))
        self._flags = raster.mask_flag_enums
        self._masked = has_mask(self._flags[0])
        # an overview of complex numbers has averaged their phases away
        self._factors = [] if self._complex else [float(factor) for factor in raster.overviews(1)]

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`. Of overviews, the nearest one that is not coarser than asked is averaged further."""
        try:
            return self.sample(pixel_edges(box.y0, box.y1, size[1]), pixel_edges(box.x0, box.x1, size[0]))
        except ReadError as error:
            where = f"box x {box.x0:g}…{box.x1:g}, y {box.y0:g}…{box.y1:g} of {self._info.uri}"
            raise ReadError(where, error.rule, value=error.value, remedy=error.remedy) from error

    def sample(
        self, y: Edges, x: Edges, *, picture: tuple[float, float, float, float] | None = None
    ) -> tuple[Pixels, Mask]:
        """Pixels between absolute edges (level-0 pixels of this file, ascending): (rows, columns, channels), validity.

        `picture` = (x0, y0, x1, y1) bounds the picture where this file is a part of it. Raises `ReadError`.
        """
        width, height = self._info.size
        with environment(self._name):
            raster = self._level((x[-1] - x[0]) / (len(x) - 1), (y[-1] - y[0]) / (len(y) - 1))
        (across, right), (down, below) = self._onto(raster)
        x0, y0, x1, y1 = picture or (0.0, 0.0, float(width), float(height))
        rows = axis_weights(y / down + below, raster.height, low=y0 / down + below, high=y1 / down + below)
        columns = axis_weights(x / across + right, raster.width, low=x0 / across + right, high=x1 / across + right)
        with environment(self._name):
            native = self._rows(raster, columns.start, columns.stop)
            return resample(native, rows, columns, len(self.channels), self._dtype)

    def _close(self) -> None:
        for raster in self._levels.values():
            raster.close()
        self._levels.clear()

    def _level(self, x_step: float, y_step: float) -> Any:
        """The handle of the coarsest overview that is not coarser than asked on either axis and is masked alike."""
        full = self._levels[-1]
        limit = min(x_step, y_step) * (1 + NEAR)
        for level in sorted(range(len(self._factors)), key=self._factors.__getitem__, reverse=True):
            if self._factors[level] > limit + 1:  # the factor is rounded
                continue
            if level not in self._levels:
                with environment(self._name), reading(self._name, *READABLE):
                    self._levels[level] = open_raster(self._name, self._info.part, overview=level)
                    self._alike[level] = self._levels[level].mask_flag_enums == self._flags
            raster = self._levels[level]
            need = full.width / x_step, full.height / y_step
            fine = need[0] <= raster.width * (1 + NEAR) and need[1] <= raster.height * (1 + NEAR)
            if fine and self._alike[level]:
                return raster
        return full

    def _onto(self, raster: Any) -> list[tuple[float, float]]:
        """Level-0 pixels a pixel of an overview, and where level-0's corner lies in it, for x and y.

        GDAL averages an overview of n pixels from n equal parts of the picture. A reduced resolution of JPEG 2000 is
        what a wavelet filter centred on every 2nd, 4th, … pixel leaves (ISO/IEC 15444-1, annex F): the centre of its
        first pixel is that of level 0's, which is a quarter of its own pixel and more off the corner.
        """
        full = self._levels[-1]
        onto: list[tuple[float, float]] = []
        for whole, part in ((full.width, raster.width), (full.height, raster.height)):
            if raster is not full and full.driver.startswith(("JP2", "JPEG2000")):
                factor = 2.0 ** round(math.log2(whole / part))
                onto.append((factor, 0.5 - 0.5 / factor))
            else:
                onto.append((whole / part, 0.0))
        return onto

    def _rows(self, raster: Any, x0: int, x1: int) -> Rows:
        def rows(y0: int, y1: int) -> tuple[Pixels, Mask | None]:
            with reading(self._info.uri, *READABLE):
                return self._native(raster, ((y0, y1), (x0, x1)))

        return rows

    def _native(self, raster: Any, window: Window) -> tuple[Pixels, Mask | None]:
        """Channels (rows, columns, channels) of a window as they are in the file, and their validity (None: all)."""
        layout = self._layout
        if layout.palette is not None and layout.opaque is not None:
            index = raster.read(layout.bands[0], window=window)
            pixels: Pixels = layout.palette[index][:, :, self._channel_indices]
            valid = layout.opaque[index] & self._mask(raster, window, [(layout.bands[0], index)])
            return pixels, valid
        bands = [layout.bands[at] for at in self._channel_indices]
        if self._complex:
            stored = [raster.read(band, window=window) for band in bands]
            plain = (np.abs(band) if np.iscomplexobj(band) else band for band in stored)
            pixels = np.stack([band.astype(self._dtype) for band in plain], axis=2)
        else:
            (y0, y1), (x0, x1) = window
            pixels = np.empty((y1 - y0, x1 - x0, len(bands)), dtype=self._dtype)
            raster.read(bands, window=window, out=pixels.transpose(2, 0, 1))
            stored = [pixels[:, :, at] for at in range(len(bands))]
        valid = self._mask(raster, window, list(zip(bands, stored, strict=True)))
        if pixels.dtype.kind == "f":
            valid = np.isfinite(pixels).all(axis=2) & valid
        return pixels, None if valid is _EVERYWHERE else valid

    def _mask(self, raster: Any, window: Window, read: list[tuple[int, Pixels]]) -> Mask:
        """Validity by the file's own statements: nodata in all its bands, transparency, a mask; all must hold."""
        valid = _EVERYWHERE
        if self._nodata:
            have = dict(read)
            empty = np.ones(read[0][1].shape, dtype=bool)
            for band in [*have, *(band for band in self._nodata if band not in have)]:
                if not empty.any():
                    break
                values = have[band] if band in have else raster.read(band, window=window)
                empty &= holds(values, self._nodata.get(band))
            valid = ~empty
        if self._layout.alpha is not None:
            valid = valid & (raster.read(self._layout.alpha, window=window) != 0)
        if self._masked:
            valid = valid & (raster.read_masks(1, window=window) != 0)
        return valid


_EVERYWHERE: Mask = np.array(True)


@contextmanager
def _opened(name: str, part: str = "", overview: int | None = None) -> Generator[Any]:
    with environment(name), open_raster(name, part, overview=overview) as raster:
        yield raster


def _scanned(raster: Any, uri: str, part: str, options: RasterOptions) -> ImageInfo:
    with reading(uri, *UNDERSTOOD):
        info = describe_raster(raster, uri, options)
        if not is_remote(uri):
            _try_out(raster, uri, part)
    return replace(info, part=part)


def _try_out(raster: Any, uri: str, part: str) -> None:
    """Read one block of each pyramid level, so that what takes GDAL down does so now. Damage costs its region only."""
    levels = (partial(_opened, uri, part, at) for at in range(len(raster.overviews(1))))
    for opened in (partial(nullcontext, raster), *levels):
        with suppress(ReadError), opened() as level, reading(uri, *READABLE):
            high, wide = level.block_shapes[0]
            window = ((0, min(high, level.height)), (0, min(wide, level.width)))
            level.read(1, window=window)
            if has_mask(level.mask_flag_enums[0]):
                level.read_masks(1, window=window)


def _tags(head: bytes) -> set[int]:
    """The tags of a TIFF's first directory, as far as the first bytes hold it."""
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in {b"+\0", b"\0+"}
    try:
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), head, start)
        first, size = (start + 8, 20) if big else (start + 2, 12)
        held = min(count, (len(head) - first) // size)
        return {struct.unpack_from(order + "H", head, first + size * at)[0] for at in range(held)}
    except (struct.error, OverflowError):  # the latter: a place that no file can have
        return set()
