"""Reading untrusted TIFF slides through tifffile: directories and XML are checked first.

tifffile reserves memory for whatever a file states, and follows it wherever it points. So everything is parsed with
limits before, and what exceeds them is a `ReadError`.
"""

import logging
import math
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from xml.etree import ElementTree as ET
from xml.parsers import expat

from ..errors import LimnerError, ReadError, excerpt
from ..formats import is_label
from ..geometry import MAX_SIDE
from .spacing import Spacing, to_micrometres
from .staining import stated_specimen
from .tiff_directories import MAX_SEGMENTS, PAGE_NAME, SUBFILE, Directories

if TYPE_CHECKING:
    import numpy as np
    from tifffile import TiffFile, TiffPage, TiffPageSeries

MAX_SEGMENT_BYTES: Final = 256 << 20  # of one decoded tile or strip
MAX_XML_BYTES: Final = 16 << 20

_OTHER_FORMATS: Final = (  # that tifffile knows; other readers open them
    *("lsm", "mmstack", "micromanager", "imagej", "ndtiff", "fluoview", "stk", "sis", "svs", "scn", "ndpi", "bif"),
    *("avs", "eer", "philips", "scanimage", "indica", "nih", "mdgel"),
)
_MAX_TILE_SIDE: Final = 1 << 15
_MAX_LEVELS: Final = 64
_MAX_CHANNELS: Final = 1024
_MAX_XML_DEPTH: Final = 64
_MAX_XML_COUNT: Final = 1_000_000  # elements, and image planes that they count
_PHOTOMETRIC: Final = {0: "white is zero", 1: "black is zero", 2: "RGB", 6: "YCbCr"}
_MACRO: Final = 8  # bit of NewSubfileType that scanners set for images of the whole glass


def open_tiff(uri: str) -> "TiffFile":
    """The open file, without files that an OME header may name, nor formats of other readers. Raises `ReadError`."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its warnings repeat our errors
    _check_directories(uri)
    try:
        others: Mapping[str, Any] = {f"is_{kind}": False for kind in _OTHER_FORMATS}
        tiff = tifffile.TiffFile(uri, _multifile=False, **others)
        xml = tiff.ome_metadata if tiff.is_ome else ""
    except Exception as error:  # TiffFileError, struct.error, OSError and more, by what is broken
        raise damaged_tiff(uri, str(error)) from error
    if why := xml_bomb(xml or ""):
        tiff.close()
        raise damaged_tiff(uri, why)
    return tiff


def _check_directories(uri: str) -> None:
    try:
        found = Directories.read(uri)
    except OSError as error:
        raise damaged_tiff(uri, error.strerror or str(error)) from error
    if found is None:
        raise damaged_tiff(uri, "it does not begin as a TIFF")
    if found.fault:
        raise damaged_tiff(uri, f"the file is truncated: {found.fault}" if found.truncated else found.fault)
    if (size := found.pages[0].description_bytes) > MAX_XML_BYTES:
        raise damaged_tiff(uri, f"a description of {size} bytes, at most {MAX_XML_BYTES} are read")


def damaged_tiff(uri: str, why: str) -> ReadError:
    """The error of a TIFF that is damaged or inconsistent."""
    return ReadError(uri, "must be a readable TIFF", value=excerpt(why, 300), remedy="Copy it again from its source")


@contextmanager
def tiff_errors(uri: str) -> Generator[None]:
    """Turn whatever tifffile raises for a file that passed the checks into a `ReadError`."""
    try:
        yield
    except LimnerError:
        raise
    except Exception as error:  # a damaged directory shows in many ways
        raise damaged_tiff(uri, f"{type(error).__name__}: {error}") from error


def check_series(series: "TiffPageSeries", uri: str) -> "TiffPageSeries":
    """Return an image of the file. Raises `ReadError` where it is a label, or cannot be read tile by tile."""
    with tiff_errors(uri):
        page = series.keyframe
        kind = int(page.photometric)
        dtype = cast("np.dtype[Any] | None", series.dtype)
        label = shows_label(series)
        why = "" if label else _inconsistency(series)
        levels = [level.keyframe for level in pyramid_levels(series)]
        largest = max(math.prod(tile_size(level)) * level.samplesperpixel for level in levels)
    if why:
        raise damaged_tiff(uri, why)
    if label:
        found = "an image of the slide's label, which is never shown"
        remedy = "Write the scan alone as OME-TIFF, for example with `bfconvert -series`"
        raise ReadError(uri, "must hold a scan", value=found, remedy=remedy)
    if kind not in _PHOTOMETRIC or dtype is None or dtype.kind not in "uif":
        rule = f"must have numeric pixels, grey, RGB or separate channels ({', '.join(_PHOTOMETRIC.values())})"
        remedy = "Write it as RGB, for example with `vips tiffsave --tile --pyramid`"
        raise ReadError(uri, rule, value=f"photometric interpretation {kind}, {dtype}", remedy=remedy)
    if (size := largest * dtype.itemsize) > MAX_SEGMENT_BYTES:
        rule, found = "must be stored in tiles or short strips", f"one strip or tile of {size >> 20} MiB"
        remedy = "Store it as tiles, for example with `vips tiffsave --tile --pyramid`"
        raise ReadError(uri, rule, value=found, remedy=remedy)
    return series


def shows_label(series: "TiffPageSeries") -> bool:
    """Whether an image of the file is a picture of the slide's label, or of the glass with it."""
    return _is_label(series.keyframe, series.name)


def pyramid_levels(series: "TiffPageSeries") -> list["TiffPageSeries"]:
    """The levels of an image, finest first, without pages among them that show the label or the whole glass."""
    first = series.keyframe
    return [
        level
        for number, level in enumerate(series.levels)
        if number == 0 or (level.keyframe.is_tiled == first.is_tiled and not _is_label(level.keyframe))
    ]


def page_descriptions(series: "TiffPageSeries") -> list[str]:
    """The description of each page of an image."""
    return [str(getattr(page, "description", "")) for page in series.pages]


def _is_label(page: "TiffPage", name: str = "") -> bool:
    texts = (page.description, str(tag_value(page, PAGE_NAME) or ""), name)
    return bool(int(tag_value(page, SUBFILE) or 0) & _MACRO) or any(is_label(text) for text in texts)


def _inconsistency(series: "TiffPageSeries") -> str:
    """Why an image cannot be read tile by tile; "" where it can."""
    levels = [level.keyframe for level in pyramid_levels(series)]
    first = levels[0]
    lengths = [length for axis, length in zip(series.axes, series.shape, strict=True) if axis in "CS"]
    channels = max([first.samplesperpixel, *lengths])
    if len(levels) > _MAX_LEVELS or channels > _MAX_CHANNELS or first.samplesperpixel < 1:
        return f"{len(levels)} levels of {channels} channels"
    if first.planarconfig not in {1, 2}:
        return f"planar configuration {int(first.planarconfig)} instead of 1 or 2"
    if any(len(level.pages) != len(series.pages) for level in pyramid_levels(series)):
        return "a level with other pages than the image"
    return next(filter(None, (_level_inconsistency(number, page, first) for number, page in enumerate(levels))), "")


def _level_inconsistency(number: int, page: "TiffPage", first: "TiffPage") -> str:
    size, tile, full = (page.imagewidth, page.imagelength), tile_size(page), (first.imagewidth, first.imagelength)
    found = f"level {number} of {size[0]} × {size[1]} px in tiles or strips of {tile[0]} × {tile[1]} px"
    fits = all(0 < side <= min(MAX_SIDE, whole) for side, whole in zip(size, full, strict=True))
    if page.imagedepth != 1 or not fits:
        return found
    if not all(0 < side <= (_MAX_TILE_SIDE if page.is_tiled else MAX_SIDE) for side in tile):
        return found
    if _pixel_format(page) != _pixel_format(first):
        return f"{found}, with another pixel format than level 0"
    segments = math.prod(-(-side // part) for side, part in zip(size, tile, strict=True))
    segments *= page.samplesperpixel if page.planarconfig == 2 else 1
    if segments > MAX_SEGMENTS or min(len(page.dataoffsets), len(page.databytecounts)) < segments:
        return f"{found}, with offsets of {len(page.dataoffsets)} of {segments}"
    return ""


def _pixel_format(page: "TiffPage") -> tuple[object, ...]:
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


# XML in image descriptions


@dataclass(frozen=True, slots=True)
class OmeMetadata:
    """What is used of an `Image` in OME-XML."""

    spacing: Spacing | None = None
    channels: tuple[str, ...] = ()
    """Channel names, "" where one has none."""
    name: str = ""
    size: tuple[int, int] = (0, 0)
    """(width, height) in pixels, 0 where it is not stated."""
    z_step: float | None = None
    """µm between focal planes."""
    specimen: tuple[tuple[str, str], ...] = ()
    """The facts that `stated_specimen` finds in the annotations of the file."""

    @classmethod
    def parse(cls, text: str) -> "tuple[OmeMetadata, ...]":
        """The metadata of each `Image`; none where the text is no OME-XML, or is refused by `xml_bomb`."""
        root = parse_xml(text)
        if root is None:
            return ()
        named = (entry for entry in root.iterfind("{*}StructuredAnnotations//{*}M") if _of_specimen(entry.get("K", "")))
        specimen = stated_specimen(entry.text or "" for entry in named)
        images = ((image, image.find("{*}Pixels")) for image in root.iterfind("{*}Image"))
        return tuple(cls._of(image, pixels, specimen) for image, pixels in images if pixels is not None)

    @classmethod
    def _of(cls, image: ET.Element, pixels: ET.Element, specimen: tuple[tuple[str, str], ...]) -> "OmeMetadata":
        x, y, z = (
            to_micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            for axis in "XYZ"
        )
        known = x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
        return cls(
            Spacing(x, y, "OME-XML PhysicalSize") if known and x is not None and y is not None else None,
            tuple(channel.get("Name", "") for channel in pixels.iterfind("{*}Channel")),
            image.get("Name", ""),
            (_integer(pixels.get("SizeX")), _integer(pixels.get("SizeY"))),
            z if z is not None and math.isfinite(z) else None,
            specimen,
        )


def _of_specimen(key: str) -> bool:
    """Whether the key of an annotation is of a stain or an organ."""
    return any(word in key.lower() for word in ("stain", "organ", "tissue", "anatom"))


def qptiff_channel(description: str) -> str:
    """The name of a QPTIFF channel from the description of its page: the biomarker, else the filter."""
    root = parse_xml(description)
    return "" if root is None else (root.findtext("Biomarker") or root.findtext("Name") or "").strip()


def parse_xml(text: str) -> ET.Element | None:
    """The root of XML; None where it is malformed or refused by `xml_bomb`."""
    if xml_bomb(text):
        return None
    try:
        return ET.fromstring(text)  # noqa: S314 - entities are refused above
    except (ET.ParseError, ValueError):  # a lone surrogate is the latter
        return None


def xml_bomb(text: str) -> str:
    """Why parsing XML would need excessive time or memory; "" where it would not, also where it is malformed.

    A document type declaration is refused: OME-XML never has one, and entity bombs need it.
    """
    if len(text) > MAX_XML_BYTES:
        return f"{len(text)} characters of XML, at most {MAX_XML_BYTES} are read"
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        return "XML with a document type declaration"
    counter = _XmlCounter()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = counter.start, counter.end
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeError, ValueError, OverflowError):
        return ""
    except _BombError as error:
        return str(error)
    return ""


class _BombError(Exception):
    pass


class _XmlCounter:
    """Counts elements, their depth, and the image planes that OME-XML states."""

    def __init__(self) -> None:
        self.depth = self.elements = self.planes = 0

    def start(self, name: str, values: Mapping[str, str]) -> None:
        self.depth += 1
        self.elements += 1
        kind = name.rpartition(":")[2]
        if kind == "Pixels":
            self.planes += math.prod(max(1, _integer(values.get(f"Size{axis}"))) for axis in "ZCT")
        elif kind == "TiffData":
            self.planes += _integer(values.get("PlaneCount", values.get("NumPlanes", "1")))
            self.planes += max(_integer(values.get(key)) for key in ("IFD", "FirstZ", "FirstC", "FirstT"))
        elif kind.startswith("ModuloAlong"):
            self.planes += _modulo_steps(values)
        if self.depth > _MAX_XML_DEPTH:
            raise _BombError(f"XML of more than {_MAX_XML_DEPTH} nested elements")
        if max(self.elements, self.planes) > _MAX_XML_COUNT:
            raise _BombError(f"XML of more than {_MAX_XML_COUNT} elements or planes")

    def end(self, name: str) -> None:
        del name
        self.depth -= 1


def _integer(text: str | None) -> int:
    """A whole number, 0 where there is none; one of many digits counts as too large."""
    found = re.fullmatch(r"\s*\+?([0-9]+)\s*", text or "")
    return 0 if found is None else int(found[1]) if len(found[1]) < 10 else _MAX_XML_COUNT + 1


def _modulo_steps(values: Mapping[str, str]) -> int:
    try:
        start, end, step = (float(values.get(key, default)) for key, default in (("Start", 0), ("End", 0), ("Step", 1)))
        return math.ceil(abs((end - start) / step))
    except (ValueError, ZeroDivisionError, OverflowError):
        return _MAX_XML_COUNT + 1
