"""A TIFF's first picture through tifffile, checked before anything that it says is believed.

tifffile, and what it calls, reserve memory for what a file claims, and follow it wherever it leads: so directories and
XML are looked at first, with bounds, and what cannot be is refused in words.
"""

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from ..errors import LimnerError, ReadError, excerpt
from ..formats import is_label
from ..geometry import MAX_SIDE
from .ome import LONGEST, bomb
from .tiff_directories import PAGE_NAME, PIECES, SUBFILE, Directories

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import numpy as np
    from tifffile import TiffFile, TiffPage, TiffPageSeries

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
_TILE_SIDE: Final = 1 << 15  # of a tile
_LEVELS: Final = 64
_CHANNELS: Final = 1024
_PLAIN: Final = {0: "white is zero", 1: "black is zero", 2: "RGB", 6: "YCbCr"}  # photometric interpretations
SEGMENT: Final = 256 << 20  # bytes of one decoded tile or strip that are taken
_MACRO: Final = 8  # a bit of NewSubfileType that scanners set for pictures of the whole glass


def open_tiff(uri: str) -> "TiffFile":
    """The file's handle; of one file only, since an OME header may name any other. Raises `ReadError`.

    Its directories and its XML are looked at first, with bounds, and tifffile is told to try no layouts of `_OTHER`.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong is said once, in our words
    _check_directories(uri)
    try:
        others: Mapping[str, Any] = {f"is_{kind}": False for kind in _OTHER}
        tiff = tifffile.TiffFile(uri, _multifile=False, **others)
        found = tiff.ome_metadata if tiff.is_ome else ""
    except Exception as error:  # TiffFileError, struct.error, OSError and more, by what is broken
        raise damaged(uri, str(error)) from error
    if why := bomb(found or ""):
        tiff.close()
        raise damaged(uri, why)
    return tiff


def _check_directories(uri: str) -> None:
    """Raise `ReadError` where a TIFF's directories are damaged, or state what would take no end of time or memory."""
    try:
        found = Directories.read(uri)
    except OSError as error:
        raise damaged(uri, error.strerror or str(error)) from error
    if found is None:
        raise damaged(uri, "it does not begin as a TIFF")
    if found.fault:
        raise damaged(uri, f"the slide is cut off: {found.fault}" if found.cut else found.fault)
    if found.pages[0].long > LONGEST:
        raise damaged(uri, f"a description of {found.pages[0].long} bytes, at most {LONGEST} are read")


def damaged(uri: str, why: str) -> ReadError:
    """The error of a TIFF that cannot be what it says."""
    return ReadError(uri, "it must be a readable TIFF", value=excerpt(why, 300), remedy="Copy it again from its source")


@contextmanager
def believed(uri: str) -> "Generator[None]":
    """What is done with a file that was looked at: what still goes wrong is the file's fault. Raises `ReadError`."""
    try:
        yield
    except LimnerError:
        raise
    except Exception as error:  # a damaged directory shows in many ways
        raise damaged(uri, f"{type(error).__name__}: {error}") from error


def first_picture(tiff: "TiffFile", uri: str) -> "TiffPageSeries":
    """The first picture. Raises `ReadError` where it cannot be read tile by tile, or its numbers are not samples."""
    with believed(uri):
        series = tiff.series[0]
        page = series.keyframe
        kind = int(page.photometric)
        dtype = cast("np.dtype[Any] | None", series.dtype)
        label = _shows_label(page, series.name)
        why = "" if label else _impossible(series)
        largest = max(math.prod(tile_size(one.keyframe)) * one.keyframe.samplesperpixel for one in levels_of(series))
    if why:
        raise damaged(uri, why)
    if label:
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
    if largest * dtype.itemsize > SEGMENT:
        raise ReadError(
            uri,
            "it must be stored in tiles or strips, so that a part can be read without the whole",
            value=f"one piece of {largest * dtype.itemsize >> 20} MiB",
            remedy="Store it as tiles, for example with `vips tiffsave --tile --pyramid`",
        )
    return series


def levels_of(series: "TiffPageSeries") -> list["TiffPageSeries"]:
    """The picture's levels, finest first. A page that lies among them and shows the label or the glass is none."""
    first = series.keyframe
    return [
        level
        for number, level in enumerate(series.levels)
        if number == 0 or (level.keyframe.is_tiled == first.is_tiled and not _shows_label(level.keyframe))
    ]


def descriptions(series: "TiffPageSeries") -> list[str]:
    """What is said of each page of a picture, "" where nothing is."""
    return [str(getattr(page, "description", "")) for page in series.pages]


def _shows_label(page: "TiffPage", name: str = "") -> bool:
    texts = (page.description, str(tag_value(page, PAGE_NAME) or ""), name)
    return bool(int(tag_value(page, SUBFILE) or 0) & _MACRO) or any(is_label(text) for text in texts)


def _impossible(series: "TiffPageSeries") -> str:
    """What of a picture's levels cannot be, in words; "" where they can be read tile by tile."""
    levels = [level.keyframe for level in levels_of(series)]
    first = levels[0]
    lengths = [length for axis, length in zip(series.axes, series.shape, strict=True) if axis in "CS"]
    if len(levels) > _LEVELS or max([first.samplesperpixel, *lengths]) > _CHANNELS or first.samplesperpixel < 1:
        return f"{len(levels)} levels of {max([first.samplesperpixel, *lengths])} channels"
    if first.planarconfig not in {1, 2}:
        return f"planar configuration {int(first.planarconfig)}, it is 1 or 2"
    if any(len(level.pages) != len(series.pages) for level in levels_of(series)):
        return "a level has other pages than the picture"
    return next(filter(None, (_impossible_level(number, page, first) for number, page in enumerate(levels))), "")


def _impossible_level(number: int, page: "TiffPage", first: "TiffPage") -> str:
    size, tile, full = (page.imagewidth, page.imagelength), tile_size(page), (first.imagewidth, first.imagelength)
    said = f"level {number} of {size[0]} × {size[1]} px in tiles or strips of {tile[0]} × {tile[1]} px"
    if page.imagedepth != 1 or not all(
        0 < side <= min(MAX_SIDE, whole) for side, whole in zip(size, full, strict=True)
    ):
        return said
    if not all(0 < side <= (_TILE_SIDE if page.is_tiled else MAX_SIDE) for side in tile):
        return said
    if _kind(page) != _kind(first):
        return f"{said}, with other numbers than the picture"
    pieces = math.prod(-(-side // piece) for side, piece in zip(size, tile, strict=True))
    pieces *= page.samplesperpixel if page.planarconfig == 2 else 1
    if pieces > PIECES or min(len(page.dataoffsets), len(page.databytecounts)) < pieces:
        return f"{said}, with places for {len(page.dataoffsets)} of {pieces}"
    return ""


def _kind(page: "TiffPage") -> tuple[object, ...]:
    """What all levels of a picture have alike."""
    return page.samplesperpixel, page.planarconfig, int(page.photometric), page.dtype


def tile_size(page: "TiffPage") -> tuple[int, int]:
    """(width, height) of a page's tiles, or strips."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def tag_value(page: "TiffPage", code: int) -> Any:
    """The value of a page's tag, None where it has none."""
    tag = page.tags.get(code)
    return None if tag is None else tag.value
