"""OME-TIFF and plain pyramids of tiles in TIFF. The one file that imports tifffile.

Only the tiles that a box needs are read and decoded, whatever their number, depth and compression.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np

from .codestreams import check_declared
from .errors import ReadError, shown
from .fingerprint import fingerprint, is_remote, local_only
from .formats import is_label, recognise
from .geometry import Box
from .image import Claim, ImageInfo, Mask, Pixels
from .levels import Level, TiledPyramid
from .ome import LONGEST, OmeFacts, bomb, qptiff_names
from .planes import Planes, name_bands
from .spacing import Spacing, place_slide
from .tiffdir import MAGIC, Directories

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage, TiffPageSeries

OPTIONS: Final = ("bands", "microns_per_pixel", "spacing_csv", "t", "z")

_OTHER: Final = (  # layouts of pages that tifffile knows and that belong to other formats
    *(
        "lsm",
        "mmstack",
        "micromanager",
        "imagej",
        "ndtiff",
        "fluoview",
        "stk",
        "sis",
        "svs",
        "scn",
        "ndpi",
        "bif",
        "avs",
    ),
    *("eer", "philips", "scanimage", "indica", "nih", "mdgel"),
)
_SIDE: Final = 1 << 31  # pixels along a side
_TILE_SIDE: Final = 1 << 15  # of a tile
_PIECES: Final = 1 << 22  # tiles or strips of one page
_LEVELS: Final = 64
_CHANNELS: Final = 1024
_PLAIN: Final = {0: "white is zero", 1: "black is zero", 2: "RGB", 6: "YCbCr"}  # photometric interpretations
_SEGMENT: Final = 256 << 20  # bytes of one decoded tile or strip that are taken
_PICTURE: Final = frozenset("YXS")


class PyramidReader:
    """OME-TIFF and QPTIFF (the first picture, all its channels), and plain pyramidal TIFF without georeference.

    Options: `z` and `t` choose a focal plane and a time (0 by default), `bands` gives the channels common names in
    order, `microns_per_pixel` and `spacing_csv` state the spacing.
    """

    name = "pyramid"
    kind = "slide"
    options = OPTIONS

    def claim(self, uri: str, head: bytes) -> Claim:
        """Strong for OME-TIFF, QPTIFF and pyramids of tiles, whole or damaged; scanners' formats are left to others."""
        if is_remote(uri) or head[:4] not in MAGIC:
            return Claim(0)
        found = recognise(uri, head)
        if found is not None and found.reader == self.name:
            return Claim(85 if found.strict else 80, found.name)
        directories = Directories.read(uri, 1)
        return Claim(20, "another TIFF") if directories is not None and directories.pages else Claim(0)

    def scan(self, uri: str, options: Mapping[str, str]) -> Sequence[ImageInfo]:
        """The first picture of the file. Raises `ReadError`, and `RequestError` for an option that does not fit."""
        local_only(uri)
        with _opened(uri) as tiff:
            series = _series(tiff, uri)
            ome = OmeFacts.parse(tiff.ome_metadata or "") if tiff.is_ome else OmeFacts(None, ())
            page = series.keyframe
            planes = _planes(series, uri)
            names = qptiff_names([one.description for one in series.pages]) if tiff.is_qpi else ome.channels
            channels = name_bands(planes.channels(names), options.get("bands", ""), uri)
            planes.places(options)  # an option that is out of range is refused here
            notes = (*_notes(tiff, series), *planes.notes(options))
            found = ome.spacing or _resolution_tag(page)
            size = (page.imagewidth, page.imagelength)
        placement, said = place_slide(uri, found, options)
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
                options=tuple(sorted((key, value) for key, value in options.items() if key in OPTIONS)),
                notes=(*said, *notes),
                kind="slide",
            ),
        )

    def open(self, info: ImageInfo, channels: Sequence[str] | None = None) -> "Pyramid":
        """Open for reading."""
        return Pyramid(info, channels)


class Pyramid:
    """An open pyramid. See `Image`. A tile that the file leaves out, or that its alpha hides, is invalid."""

    def __init__(self, info: ImageInfo, channels: Sequence[str] | None = None) -> None:
        self._info = info
        self.channels = info.choose(channels)
        self._places = [info.channels.index(channel) for channel in self.channels]
        self._closed = False
        self._tiff = _opened(info.uri)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        info, series = self._info, _series(self._tiff, self._info.uri)
        if (series.keyframe.imagewidth, series.keyframe.imagelength) != info.size:
            raise ReadError(
                info.uri,
                f"it must still be the file of {info.size[0]} × {info.size[1]} px that was looked at first",
                remedy="Run again in a new folder",
            )
        samples, self._alpha = _planes(series, info.uri).places(dict(info.options))
        self._samples = [samples[place] for place in self._places]
        self._pages = [level.pages for level in series.levels]
        self._levels = [_level(info.size, level.keyframe) for level in series.levels]
        self._dtype = np.dtype(series.dtype).newbyteorder("=")
        self._pyramid = TiledPyramid(self._levels, len(self._places), self._dtype, self._fetch)

    @property
    def info(self) -> ImageInfo:
        """The facts it was opened from."""
        return self._info

    def read(self, box: Box, size: tuple[int, int]) -> tuple[Pixels, Mask]:
        """See `Image.read`."""
        if self._closed:
            raise ReadError(self._info.uri, "it must be open to be read", remedy="Open the image again")
        return self._pyramid.read(box, size)

    def close(self) -> None:
        """Let the handle go."""
        self._closed = True
        self._tiff.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            if not 0 <= count <= _SEGMENT:
                raise _unreadable(where, f"{count} bytes of one tile")
            self._tiff.filehandle.seek(offset)
            data = self._tiff.filehandle.read(count)
            check_declared(data, int(keyframe.compression), level.tile, where)
            segment = (
                keyframe.decode(data, index, jpegtables=page.jpegtables, jpegheader=keyframe.jpegheader)[0]
                if len(data) == count > 0
                else None
            )
        except ReadError:
            raise
        except Exception as error:  # every codec has exceptions of its own
            raise _unreadable(where, shown(f"{type(error).__name__}: {error}", 300)) from error
        if len(data) < count:
            raise _unreadable(where, f"{len(data)} of its {count} bytes are there")
        return None if segment is None else cast("Pixels", segment[0])


def _opened(uri: str) -> "TiffFile":
    """The file's handle; of one file only, since an OME header may name any other. Raises `ReadError`.

    Its directories and its XML are looked at first, with bounds, and tifffile is told to try no layouts of `_OTHER`.
    """
    import tifffile  # noqa: PLC0415 - a format library loads when a file needs it

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong is said once, in our words
    _check_directories(uri)
    try:
        tiff = tifffile.TiffFile(uri, _multifile=False, **{f"is_{kind}": False for kind in _OTHER})
        found = tiff.ome_metadata if tiff.is_ome else ""
    except Exception as error:  # TiffFileError, struct.error, OSError and more, by what is broken
        raise _damaged(uri, str(error)) from error
    if why := bomb(found or ""):
        tiff.close()
        raise _damaged(uri, why)
    return tiff


def _check_directories(uri: str) -> None:
    """Raise `ReadError` where a TIFF's directories are damaged, or state what would take no end of time or memory."""
    try:
        found = Directories.read(uri)
    except OSError as error:
        raise _damaged(uri, error.strerror or str(error)) from error
    if found is None:
        raise _damaged(uri, "it does not begin as a TIFF")
    if found.fault:
        raise _damaged(uri, f"the slide is cut off: {found.fault}" if found.cut else found.fault)
    if found.pages[0].long > LONGEST:
        raise _damaged(uri, f"a description of {found.pages[0].long} bytes, at most {LONGEST} are read")


def _damaged(uri: str, why: str) -> ReadError:
    return ReadError(uri, "it must be a readable TIFF", value=shown(why, 300), remedy="Copy it again from its source")


def _unreadable(where: str, why: str) -> ReadError:
    return ReadError(
        where,
        "the tile must be readable",
        value=why,
        remedy="Copy the file again from its source; regions that need this tile are left out",
    )


def _series(tiff: "TiffFile", uri: str) -> "TiffPageSeries":
    """The first picture. Raises `ReadError` where it cannot be read tile by tile, or its numbers are not samples."""
    try:
        series = tiff.series[0]
        page = series.keyframe
        kind = int(page.photometric)
        names = (page.description, str(_tag(page, 285) or ""), series.name)
        dtype = cast("np.dtype[Any] | None", series.dtype)
        why = _impossible(series)
        largest = max(math.prod(_tile(level.keyframe)) * level.keyframe.samplesperpixel for level in series.levels)
    except Exception as error:  # as above: a damaged directory shows in many ways
        raise _damaged(uri, f"{type(error).__name__}: {error}") from error
    if why:
        raise _damaged(uri, why)
    if any(is_label(name) for name in names) and not page.is_tiled:
        raise ReadError(
            uri,
            "its first picture must be the scan",
            value="a picture of the slide's label, which is never shown",
            remedy="Write the scan alone as OME-TIFF, for example with `bfconvert -series`",
        )
    if kind not in _PLAIN or dtype is None or dtype.kind not in "uif":
        raise ReadError(
            uri,
            f"its pixels are grey, RGB or separate channels of numbers ({', '.join(_PLAIN.values())})",
            value=f"photometric interpretation {kind}, {dtype}",
            remedy="Write it as RGB, for example with `vips tiffsave --tile --pyramid`",
        )
    if largest * dtype.itemsize > _SEGMENT:
        raise ReadError(
            uri,
            "it must be stored in tiles or strips, so that a part can be read without the whole",
            value=f"one piece of {largest * dtype.itemsize >> 20} MiB",
            remedy="Store it as tiles, for example with `vips tiffsave --tile --pyramid`",
        )
    return series


def _impossible(series: "TiffPageSeries") -> str:
    """What of a picture's levels cannot be, in words; "" where they can be read tile by tile."""
    levels = [level.keyframe for level in series.levels]
    first = levels[0]
    if not 0 < len(levels) <= _LEVELS:
        return f"{len(levels)} levels"
    if not 0 < first.samplesperpixel <= _CHANNELS or any(
        length > _CHANNELS for axis, length in zip(series.axes, series.shape, strict=True) if axis in "CS"
    ):
        return f"more than {_CHANNELS} channels"
    for number, page in enumerate(levels):
        size, tile = (page.imagewidth, page.imagelength), _tile(page)
        pieces = math.prod(-(-side // piece) for side, piece in zip(size, tile, strict=True) if piece > 0)
        planes = page.samplesperpixel if page.planarconfig == 2 else 1  # noqa: PLR2004 - one plane a sample
        alike = (page.samplesperpixel, page.planarconfig, int(page.photometric), page.dtype)
        if page.imagedepth != 1 or not all(0 < side <= _SIDE for side in size):
            return f"level {number} of {size[0]} × {size[1]} × {page.imagedepth} px"
        if not all(0 < side <= (_TILE_SIDE if page.is_tiled else _SIDE) for side in tile):
            return f"tiles of {tile[0]} × {tile[1]} px in level {number}"
        if any(side > full for side, full in zip(size, (first.imagewidth, first.imagelength), strict=True)):
            return f"level {number} is larger than the picture"
        if alike != (first.samplesperpixel, first.planarconfig, int(first.photometric), first.dtype):
            return f"level {number} holds other numbers than the picture"
        if pieces > _PIECES or len(page.dataoffsets) < pieces * planes or len(page.databytecounts) < pieces * planes:
            return f"{len(page.dataoffsets)} places for {pieces * planes} tiles or strips of level {number}"
        if len(series.levels[number].pages) != len(series.pages):
            return f"level {number} has other pages than the picture"
    return ""


def _tile(page: "TiffPage") -> tuple[int, int]:
    """(width, height) of a page's tiles, or strips."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def _level(full: tuple[int, int], page: "TiffPage") -> Level:
    return Level.below(full, (page.imagewidth, page.imagelength), _tile(page))


def _planes(series: "TiffPageSeries", uri: str) -> Planes:
    """The picture's axes beyond a page's own, slowest first, and what a page holds. Raises `ReadError`."""
    page = series.keyframe
    pairs = [(axis, n) for axis, n in zip(series.axes, series.shape, strict=True) if axis not in _PICTURE]
    if math.prod(n for _, n in pairs) != len(series.pages):
        raise _damaged(uri, f"{len(series.pages)} pages for {' × '.join(f'{n} {axis}' for axis, n in pairs)}")
    extra = tuple(page.extrasamples)[:1]
    return Planes(
        axes=tuple(axis for axis, _ in pairs),
        lengths=tuple(n for _, n in pairs),
        samples=page.samplesperpixel,
        separate=page.planarconfig == 2,  # noqa: PLR2004 - TIFF's number for one plane a sample
        colour=page.photometric in {2, 6},
        alpha=page.photometric == 2 and page.samplesperpixel == 4 and extra in {(1,), (2,)},  # noqa: PLR2004
        dtype=np.dtype(series.dtype).newbyteorder("=").name,
    )


def _resolution_tag(page: "TiffPage") -> Spacing | None:
    """Pixels an inch or a centimetre, which many programs fill with a number for printers."""
    unit = {2: 25400.0, 3: 10000.0}.get(int(_tag(page, 296) or 0))
    across = [_ratio(_tag(page, code)) for code in (282, 283)]
    if unit is None or not all(across):
        return None
    return Spacing(unit / across[0], unit / across[1], "TIFF resolution tag")


def _ratio(value: object) -> float:
    """A TIFF rational, 0 where it is none."""
    numbers = cast("tuple[int, ...]", value) if isinstance(value, tuple) else ()
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else 0.0  # noqa: PLR2004 - numerator, denominator


def _tag(page: "TiffPage", code: int) -> Any:  # noqa: ANN401 - a tag's value is whatever its type says
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _notes(tiff: "TiffFile", series: "TiffPageSeries") -> tuple[str, ...]:
    notes: list[str] = []
    if len(tiff.series) > 1:
        notes.append(f"The file holds {len(tiff.series)} pictures; only the first is read.")
    if series.keyframe.photometric == 0:
        notes.append("White is zero in this file; its numbers are delivered as they are stored.")
    if 34675 in series.keyframe.tags:  # noqa: PLR2004 - InterColorProfile
        notes.append("Colours are as stored: the file's ICC profile is not applied.")
    return tuple(notes)
