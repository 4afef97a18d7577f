"""OME-TIFF, QPTIFF and plain pyramids of tiles in TIFF.

Only the tiles that a box needs are read and decoded, whatever their number, depth and compression.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from ..errors import ReadError, excerpt
from ..files import fingerprint, is_remote, require_local
from ..formats import recognise
from ..geometry import Box
from ..image import BaseImage, ImageInfo, Mask, Pixels
from ..options import scan_options
from .codestreams import check_declared
from .levels import Level, TiledPyramid
from .ome import OmeMetadata, qptiff_names
from .spacing import Spacing, place_slide
from .tiff_axes import PlaneOptions, Planes
from .tiff_directories import MAGIC, Directories
from .tiff_layout import (
    SEGMENT,
    believed,
    damaged,
    descriptions,
    first_picture,
    levels_of,
    open_tiff,
    tag_value,
    tile_size,
)

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

_PICTURE: Final = frozenset("YXS")


class PyramidReader:
    """OME-TIFF and QPTIFF (the first picture, all its channels), and plain pyramidal TIFF without georeference."""

    name = "pyramid"
    kind = "slide"
    Options = PlaneOptions

    def identify(self, uri: str, head: bytes) -> int:
        """Strong for OME-TIFF, QPTIFF and pyramids of tiles, whole or damaged; scanners' formats are left to others."""
        if is_remote(uri) or head[:4] not in MAGIC:
            return 0
        found = recognise(uri, head)
        if found is not None and found.reader == self.name:
            return 85 if found.strict else 80
        directories = Directories.read(uri, 1)
        return 20 if directories is not None and directories.pages else 0

    def scan(self, uri: str, options: PlaneOptions) -> Sequence[ImageInfo]:
        """The first picture of the file. Raises `ReadError`, and `RequestError` for an option that does not fit."""
        require_local(uri)
        with open_tiff(uri) as tiff, believed(uri):
            series = first_picture(tiff, uri)
            ome = OmeMetadata.parse(tiff.ome_metadata or "") if tiff.is_ome else OmeMetadata(None, ())
            page = series.keyframe
            planes = _planes(series, uri)
            names = qptiff_names(descriptions(series)) if tiff.is_qpi else ome.channels
            channels = planes.channels(names)
            planes.places(options)  # an option that is out of range is refused here
            notes = (*_notes(tiff, series), *planes.notes(options))
            found = ome.spacing or _resolution_tag(page)
            size, levels = (page.imagewidth, page.imagelength), len(levels_of(series))
        placement, said = place_slide(found)
        mark = fingerprint([uri])
        return (
            ImageInfo(
                uri=uri,
                reader=self.name,
                size=size,
                channels=channels,
                placement=placement,
                files=(uri,),
                fingerprint=mark,
                options=tuple(options.texts().items()),
                notes=(*said, *notes),
                kind="slide",
                facts=(("levels", str(levels)),),
            ),
        )

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "Pyramid":
        """Open for reading."""
        return Pyramid(info, channels)


class Pyramid(BaseImage):
    """An open pyramid. See `Image`. A tile that the file leaves out, or that its alpha hides, is invalid."""

    def _open(self) -> None:
        self._held = ExitStack()
        self._tiff = self._held.enter_context(open_tiff(self._info.uri))
        with believed(self._info.uri):
            self._prepare()

    def _prepare(self) -> None:
        info, series = self._info, first_picture(self._tiff, self._info.uri)
        if (series.keyframe.imagewidth, series.keyframe.imagelength) != info.size:
            raise ReadError(
                info.uri,
                f"it must still be the file of {info.size[0]} × {info.size[1]} px that was looked at first",
                remedy="Run again in a new folder",
            )
        samples, self._alpha = _planes(series, info.uri).places(scan_options(PlaneOptions, info))
        self._samples = [samples[place] for place in self._channel_indices]
        levels = levels_of(series)
        self._pages = [level.pages for level in levels]
        self._levels = [_level(info.size, level.keyframe) for level in levels]
        self._dtype = np.dtype(series.dtype).newbyteorder("=")
        self._pyramid = TiledPyramid(self._levels, len(self._channel_indices), self._dtype, self._fetch)

    def _read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        return self._pyramid.read(box, size)

    def _close(self) -> None:
        self._held.close()

    def _fetch(self, place: int, column: int, row: int) -> tuple[Pixels, Mask | None]:
        """One tile of a level, all channels."""
        level = self._levels[place]
        size = tuple(min(level.tile[i], level.size[i] - at * level.tile[i]) for i, at in enumerate((column, row)))
        tile = np.zeros((size[1], size[0], len(self._samples)), dtype=self._dtype)
        valid: Mask | None = None
        wanted = [*self._samples, *([] if self._alpha is None else [self._alpha])]
        decoded: dict[tuple[int, int], Pixels | None] = {}
        for i, sample in enumerate(wanted):
            key = (sample.page, sample.plane)
            if key not in decoded:
                decoded[key] = self._segment(place, key, column, row)
            segment = decoded[key]
            if segment is None:
                return tile, np.zeros(tile.shape[:2], dtype=bool)
            if segment.shape[0] < size[1] or segment.shape[1] < size[0] or segment.shape[2] <= sample.sample:
                shape = f"{segment.shape[1]} × {segment.shape[0]} px of {segment.shape[2]} samples"
                raise _unreadable(self._where(place, column, row), f"it holds {shape}")
            values = segment[: size[1], : size[0], sample.sample]
            if i < len(self._samples):
                tile[..., i] = values
            else:
                valid = values >= (np.iinfo(values.dtype).max + 1) // 2
        return tile, valid

    def _where(self, place: int, column: int, row: int) -> str:
        return f"{self._info.id or self._info.uri}, level {place}, tile {column}, {row}"

    def _stored(self, offset: int, count: int, where: str) -> bytes:
        """The bytes of a tile as they lie in the file, as far as they are there."""
        if not 0 <= count <= SEGMENT:
            raise _unreadable(where, f"{count} bytes of one tile")
        self._tiff.filehandle.seek(offset)
        return self._tiff.filehandle.read(count)

    def _segment(self, place: int, key: tuple[int, int], column: int, row: int) -> Pixels | None:
        """The decoded tile or strip of a page's plane, (height, width, samples); None where the file left it out."""
        level = self._levels[place]
        where = self._where(place, column, row)
        across, down = (-(-level.size[i] // level.tile[i]) for i in (0, 1))
        index = (key[1] * down + row) * across + column
        try:
            page = self._pages[place][key[0]]
            keyframe = None if page is None else page.keyframe
            if page is None or keyframe is None:
                return None
            count = page.databytecounts[index]
            data = self._stored(page.dataoffsets[index], count, where)
            check_declared(data, int(keyframe.compression), level.tile, where)
            segment = (
                keyframe.decode(data, index, jpegtables=page.jpegtables, jpegheader=keyframe.jpegheader)[0]
                if len(data) == count > 0
                else None
            )
        except ReadError:
            raise
        except Exception as error:  # every codec has exceptions of its own
            raise _unreadable(where, excerpt(f"{type(error).__name__}: {error}", 300)) from error
        if len(data) < count:
            raise _unreadable(where, f"{len(data)} of its {count} bytes are there")
        return None if segment is None else cast("Pixels", segment[0])


def _unreadable(where: str, why: str) -> ReadError:
    return ReadError(
        where,
        "the tile must be readable",
        value=why,
        remedy="Copy the file again from its source; regions that need this tile are left out",
    )


def _level(full: tuple[int, int], page: "TiffPage") -> Level:
    return Level.below(full, (page.imagewidth, page.imagelength), tile_size(page))


def _planes(series: "TiffPageSeries", uri: str) -> Planes:
    """The picture's axes beyond a page's own, slowest first, and what a page holds. Raises `ReadError`."""
    page = series.keyframe
    pairs = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in _PICTURE]
    if math.prod(n for _, n in pairs) != len(series.pages):
        raise damaged(uri, f"{len(series.pages)} pages for {' × '.join(f'{n} {axis}' for axis, n in pairs)}")
    extra = tuple(page.extrasamples)[:1]
    return Planes(
        axes=tuple(axis for axis, _ in pairs),
        lengths=tuple(n for _, n in pairs),
        samples=page.samplesperpixel,
        separate=page.planarconfig == 2,
        colour=page.photometric in {2, 6},
        alpha=page.photometric == 2 and page.samplesperpixel == 4 and extra in {(1,), (2,)},
        dtype=np.dtype(series.dtype).newbyteorder("=").name,
    )


def _resolution_tag(page: "TiffPage") -> Spacing | None:
    """Pixels an inch or a centimetre, which many programs fill with a number for printers."""
    stated = tag_value(page, 296)
    unit = {2: 25400.0, 3: 10000.0}.get(stated) if isinstance(stated, int) else None
    across = [_ratio(tag_value(page, code)) for code in (282, 283)]
    if unit is None or not all(across):
        return None
    return Spacing(unit / across[0], unit / across[1], "TIFF resolution tag")


def _ratio(value: object) -> float:
    """A TIFF rational, 0 where it is none."""
    numbers = cast("tuple[int, ...]", value) if isinstance(value, tuple) else ()
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else 0.0


def _notes(tiff: "TiffFile", series: "TiffPageSeries") -> tuple[str, ...]:
    notes: list[str] = []
    if len(tiff.series) > 1:
        notes.append(f"The file holds {len(tiff.series)} pictures; only the first is read.")
    if series.keyframe.photometric == 0:
        notes.append("White is zero in this file; its numbers are delivered as they are stored.")
    if 34675 in series.keyframe.tags:
        notes.append("Colours are as stored: the file's ICC profile is not applied.")
    return tuple(notes)
