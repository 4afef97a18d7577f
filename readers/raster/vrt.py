"""Allow-list parser of GDAL's virtual rasters (VRT): which files a VRT is made of. Needs no format library.

A VRT can name any file, URL or program. It is parsed here before GDAL opens it, and every element and attribute that is
not on the list is refused by name, as is what two XML parsers could read differently (comments, CDATA, declarations).
"""

import math
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from xml.parsers import expat

from ..errors import ReadError, excerpt
from .metadata import names_local_file

MAX_BYTES = 32 * 2**20
MAX_FILES = 10_000
_MAX_NUMBER = 2**31
_MAX_OVERVIEWS = 31
_MAX_WARP_MEMORY = 2**30

_RECTANGLE = "xOff yOff xSize ySize"
_SIMPLE = "SourceFilename SourceBand SourceProperties SrcRect DstRect"
_CURVE = "ScaleOffset ScaleRatio LUT ColorTableComponent Exponent SrcMin SrcMax DstMin DstMax"
_SOURCES = "SimpleSource ComplexSource AveragedSource NoDataFromMaskSource"
_BAND = "Description UnitType Offset Scale NoDataValue HideNoDataValue ColorInterp CategoryNames ColorTable Metadata"
_ALPHA = "SrcAlphaBand DstAlphaBand"
_AXES = "dataAxisToSRSAxisMapping coordinateEpoch"
_ELEMENTS = {
    "": ("", "VRTDataset"),
    "VRTDataset": (
        "rasterXSize rasterYSize subClass",
        "SRS GeoTransform GCPList Metadata BlockXSize BlockYSize OverviewList VRTRasterBand MaskBand GDALWarpOptions",
    ),
    "SRS": (_AXES, ""),
    "GCPList": (f"Projection {_AXES}", "GCP"),
    "GCP": ("Id Info Pixel Line X Y Z", ""),
    "Metadata": ("domain", "MDI"),
    "MDI": ("key", ""),
    "OverviewList": ("resampling", ""),
    "MaskBand": ("", "VRTRasterBand"),
    "VRTRasterBand": ("dataType band blockXSize blockYSize subClass", f"{_BAND} {_SOURCES}"),
    "CategoryNames": ("", "Category"),
    "ColorTable": ("", "Entry"),
    "Entry": ("c1 c2 c3 c4", ""),
    "SimpleSource": ("resampling", _SIMPLE),
    "ComplexSource": ("resampling", f"{_SIMPLE} NODATA UseMaskBand {_CURVE}"),
    "AveragedSource": ("resampling", _SIMPLE),
    "NoDataFromMaskSource": ("resampling", f"{_SIMPLE} NODATA MaskValueThreshold RemappedValue"),
    "SourceFilename": ("relativeToVRT shared", ""),
    "SourceProperties": ("RasterXSize RasterYSize DataType BlockXSize BlockYSize", ""),
    "SrcRect": (_RECTANGLE, ""),
    "DstRect": (_RECTANGLE, ""),
    # as gdalwarp writes them: a source on another grid, by affine transforms and coordinate systems alone
    "GDALWarpOptions": (
        "",
        f"WarpMemoryLimit ResampleAlg WorkingDataType Option SourceDataset Transformer BandList {_ALPHA}",
    ),
    "Options": ("", "Option"),
    "Option": ("name key", ""),
    "SourceDataset": ("relativeToVRT shared", ""),
    "Transformer": ("", "ApproxTransformer GenImgProjTransformer"),
    "ApproxTransformer": ("", "MaxError BaseTransformer"),
    "BaseTransformer": ("", "GenImgProjTransformer"),
    "GenImgProjTransformer": (
        "",
        "SrcGeoTransform SrcInvGeoTransform DstGeoTransform DstInvGeoTransform ReprojectTransformer",
    ),
    "ReprojectTransformer": ("", "ReprojectionTransformer"),
    "ReprojectionTransformer": ("", "SourceSRS TargetSRS Options"),
    "BandList": ("", "BandMapping"),
    "BandMapping": ("src dst", "SrcNoDataReal SrcNoDataImag DstNoDataReal DstNoDataImag"),
}
"""Element → its allowed attributes and child elements; an element without a row has only text."""

_SUBCLASSES = {"VRTDataset": "VRTWarpedDataset", "VRTRasterBand": "VRTWarpedRasterBand"}
"""The only subclasses allowed: others read raw bytes of any file, or run functions."""
_WARP_OPTIONS = {
    *("INIT_DEST", "ERROR_OUT_IF_EMPTY_SOURCE_WINDOW", "UNIFIED_SRC_NODATA", "SAMPLE_GRID", "SAMPLE_STEPS"),
    "AREA_OF_INTEREST",
}
"""The options that a warped VRT may set; others name files."""
_SIZES = {"rasterXSize", "rasterYSize", "blockXSize", "blockYSize", "BlockXSize", "BlockYSize", "RasterXSize"}
_ALLOWED = "must only hold elements and attributes that refer to no other file"


@dataclass(slots=True)
class VrtSources:
    """The source files of a VRT."""

    path: str
    counts: Counter[str] = field(default_factory=Counter[str])
    """Real path of a file → how often it is a source."""
    properties: dict[str, set[tuple[str, str]]] = field(default_factory=dict[str, set[tuple[str, str]]])
    """File → the sizes of raster and blocks that the VRT states of it; GDAL trusts them unchecked."""


def parse_vrt(path: str) -> VrtSources:
    """The sources of a local VRT. Raises `ReadError` that names whatever is not allowed."""
    return _Parser(path).parse()


class _Parser:
    """One pass over a VRT, element by element."""

    def __init__(self, path: str) -> None:
        self._result = VrtSources(path)
        self._folder = os.path.dirname(path)
        self._open: list[str] = [""]
        self._texts: list[list[str]] = [[]]
        self._attributes: list[dict[str, str]] = [{}]
        self._source: str = ""
        self._properties: set[tuple[str, str]] = set()

    def parse(self) -> VrtSources:
        """See `parse_vrt`."""
        path = self._result.path
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise self._refusal(f"must not be larger than {MAX_BYTES // 2**20} MiB", f"{os.path.getsize(path)} B")
        try:
            text = content.decode("utf-8-sig").lstrip()
        except UnicodeDecodeError as error:
            raise self._refusal("must be text in UTF-8", str(error)) from error
        text = re.sub(r"\A<\?xml[^<>]*\?>", "", text)
        if found := re.search(r"<[!?]", text):
            snippet = text[found.start() : found.start() + 40]
            raise self._refusal("must not have declarations, comments or CDATA", excerpt(snippet))
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            raise self._refusal("must be well-formed XML", str(error)) from error
        return self._result

    def _refusal(self, rule: str, value: str) -> ReadError:
        remedy = "Make it with gdalbuildvrt in the folder of its tiles, or convert it to GeoTIFF with gdal_translate"
        return ReadError(f"virtual raster {self._result.path}", rule, value=value, remedy=remedy)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self._open[-1]
        if name not in _ELEMENTS.get(parent, ("", ""))[1].split():
            raise self._refusal(_ALLOWED, f"<{excerpt(name)}>" + (f" in <{parent}>" if parent else ""))
        self._check_crs(attributes.get("Projection", ""))
        for key, value in attributes.items():
            if key not in _ELEMENTS.get(name, ("", ""))[0].split():
                raise self._refusal(_ALLOWED, f"<{name} {excerpt(key)}={excerpt(value)!r}>")
            if key in _SIZES:
                self._check_size(name, key, value)
            if key == "subClass" and value != _SUBCLASSES[name]:
                raise self._refusal("must not read raw bytes or run functions", f"<{name} subClass={excerpt(value)!r}>")
        if name == "Option" and not {*attributes.values()} <= _WARP_OPTIONS:
            raise self._refusal("must only set options of the warping", f"<Option> {excerpt(str(attributes))}")
        if name in {"SrcRect", "DstRect"}:
            self._check_rectangle(name, attributes)
        elif name == "SourceProperties":
            self._properties |= set(attributes.items())
        elif name.endswith("Source"):
            self._source, self._properties = "", set()
        self._open.append(name)
        self._attributes.append(attributes)
        self._texts.append([])

    def _characters(self, text: str) -> None:
        self._texts[-1].append(text)

    def _end(self, name: str) -> None:
        text = "".join(self._texts.pop())
        attributes = self._attributes.pop()
        self._open.pop()
        if name in {"SourceFilename", "SourceDataset"}:
            self._add_source(text, attributes)
        elif name.endswith("Source"):
            if not self._source:
                raise self._refusal("must name a file for each source", f"<{name}>")
            self._result.properties.setdefault(self._source, set()).update(self._properties)
        else:
            self._check_text(name, text)

    def _check_text(self, name: str, text: str) -> None:
        if name.endswith("SRS"):
            self._check_crs(text)
        elif name in _SIZES:
            self._check_size("VRTDataset", name, text)
        elif name == "WarpMemoryLimit" and not 0 <= _number(text) <= _MAX_WARP_MEMORY:
            rule = f"must not use more than {_MAX_WARP_MEMORY} bytes for warping"
            raise self._refusal(rule, f"<WarpMemoryLimit> {excerpt(text)!r}")
        elif name == "SourceBand" and not re.fullmatch(r"\d{1,6}|mask(,\d{1,6})?", text):
            raise self._refusal("must name each source's band by its number or as mask", excerpt(text))
        elif name == "OverviewList":
            factors = re.split(r"[\s,]+", text.strip())
            if len(factors) > _MAX_OVERVIEWS:
                raise self._refusal(f"must have at most {_MAX_OVERVIEWS} overviews", str(len(factors)))
            for factor in factors:
                self._check_size(name, "factor", factor)

    def _check_crs(self, text: str) -> None:
        if names_local_file(text):
            raise self._refusal("must not have a CRS that names files", excerpt(text))

    def _check_size(self, name: str, key: str, value: str) -> None:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not 0 < int(value) < _MAX_NUMBER:
            raise self._refusal("must have sizes that are positive integers", f"<{name}> {key} {excerpt(value)!r}")

    def _check_rectangle(self, name: str, attributes: dict[str, str]) -> None:
        for key, value in attributes.items():
            number = _number(value)
            if not abs(number) < _MAX_NUMBER or (number <= 0 and key.endswith("Size")):
                raise self._refusal("must place sources in finite rectangles", f"<{name} {key}={excerpt(value)!r}>")

    def _add_source(self, name: str, attributes: dict[str, str]) -> None:
        """Record a source. Its name must be a plain path: GDAL gives meaning to many other forms."""
        relative = attributes.get("relativeToVRT", "0")
        plain = name == name.strip() and name.isprintable() and name != ""
        if not plain or name.startswith(("<", "/vsi", "{")) or ":" in name.partition("/")[0] or "://" in name:
            raise self._refusal("must only have plain files as sources", f"source {excerpt(name)!r}")
        if relative not in {"0", "1"}:
            raise self._refusal("must state relativeToVRT as 0 or 1", excerpt(relative))
        path = os.path.realpath(os.path.join(self._folder, name) if relative == "1" else name)
        if not is_below(path, self._folder):
            raise self._refusal("must have its sources in or below its folder", f"source {excerpt(name)!r}")
        self._source = path
        self._result.counts[path] += 1
        if len(self._result.counts) > MAX_FILES:
            raise self._refusal(f"must have at most {MAX_FILES} files as sources", "more")


def _number(text: str) -> float:
    """The number that a text states, NaN where it states none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def is_below(path: str, folder: str) -> bool:
    """Whether a real path lies in a real folder, or in one of its folders."""
    return path.startswith(folder.rstrip("/") + "/")
