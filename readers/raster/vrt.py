"""GDAL's virtual rasters (VRT): what one may say, and the files that it is made of. Needs no format library.

A VRT can name any file, address or program. It is parsed here before GDAL sees it, and what is not on the list is
refused by its name. What two parsers could understand differently (comments, CDATA, declarations) is refused as well.
"""

import math
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from ..errors import ReadError, excerpt
from .georeference import leads_to_files

MOST_BYTES = 32 * 2**20
MOST_FILES = 10_000
_LONGEST = 2**31
_MOST_OVERVIEWS = 31

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
"""Element → the attributes and the elements that may stand in it; an element without a row has only text."""

_SUBCLASSES = {"VRTDataset": "VRTWarpedDataset", "VRTRasterBand": "VRTWarpedRasterBand"}
"""The only kinds besides the plain one: others read raw bytes of any file, or run functions."""
_OPTIONS = {
    *("INIT_DEST", "ERROR_OUT_IF_EMPTY_SOURCE_WINDOW", "UNIFIED_SRC_NODATA", "SAMPLE_GRID", "SAMPLE_STEPS"),
    "AREA_OF_INTEREST",
}
"""What a warped VRT may set; others name files."""
_MOST_WARPED = 2**30
"""Bytes that a warped VRT may hold at a time."""

_COUNTS = {"rasterXSize", "rasterYSize", "blockXSize", "blockYSize", "BlockXSize", "BlockYSize", "RasterXSize"}


@dataclass(slots=True)
class Mosaic:
    """What a VRT is made of: file (its real path) → how often it is a source, and what is said of it.

    `said` holds, for a file, its (width, height) in pixels and (height, width) of its blocks, where the VRT states
    them: GDAL believes both without a look.
    """

    path: str
    files: Counter[str] = field(default_factory=Counter[str])
    said: dict[str, set[tuple[str, str]]] = field(default_factory=dict[str, set[tuple[str, str]]])


def read_mosaic(path: str) -> Mosaic:
    """The sources of a VRT on this machine. Raises `ReadError` for all that it may not say, by name."""
    return _Parser(path).parse()


class _Parser:
    """One pass over a VRT, element by element."""

    def __init__(self, path: str) -> None:
        self._mosaic = Mosaic(path)
        self._folder = os.path.dirname(path)
        self._open: list[str] = [""]
        self._texts: list[list[str]] = [[]]
        self._attributes: list[dict[str, str]] = [{}]
        self._source: str = ""
        self._properties: set[tuple[str, str]] = set()

    def parse(self) -> Mosaic:
        """What `read_mosaic` gives."""
        path = self._mosaic.path
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise self._refusal(f"it must not be larger than {MOST_BYTES // 2**20} MiB", f"{os.path.getsize(path)} B")
        try:
            text = content.decode("utf-8-sig").lstrip()
        except UnicodeDecodeError as error:
            raise self._refusal("it must be text in UTF-8", str(error)) from error
        text = re.sub(r"\A<\?xml[^<>]*\?>", "", text)
        if found := re.search(r"<[!?]", text):
            raise self._refusal(
                "it must have neither declarations, comments nor CDATA",
                excerpt(text[found.start() : found.start() + 40]),
            )
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._take
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            raise self._refusal("it must be well-formed XML", str(error)) from error
        return self._mosaic

    def _refusal(self, rule: str, value: str) -> ReadError:
        return ReadError(
            self._mosaic.path,
            f"as a virtual raster, {rule}",
            value=value,
            remedy="Make it with gdalbuildvrt in the folder of its tiles, or write it as a GeoTIFF with gdal_translate",
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        parent = self._open[-1]
        if name not in _ELEMENTS.get(parent, ("", ""))[1].split():
            raise self._refusal(
                "it may only hold what is known to lead nowhere else",
                f"<{excerpt(name)}>" + (f" in <{parent}>" if parent else ""),
            )
        self._crs(attributes.get("Projection", ""))
        for key, value in attributes.items():
            if key not in _ELEMENTS.get(name, ("", ""))[0].split():
                raise self._refusal(
                    "it may only hold what is known to lead nowhere else",
                    f"<{name} {excerpt(key)}={excerpt(value)!r}>",
                )
            if key in _COUNTS:
                self._count(name, key, value)
            if key == "subClass" and value != _SUBCLASSES[name]:
                raise self._refusal(
                    "it may not be made of raw bytes or functions", f"<{name} subClass={excerpt(value)!r}>"
                )
        if name == "Option" and not {*attributes.values()} <= _OPTIONS:
            raise self._refusal("it may only set how it is warped", f"<Option> {excerpt(str(attributes))}")
        if name in {"SrcRect", "DstRect"}:
            self._rectangle(name, attributes)
        elif name == "SourceProperties":
            self._properties |= set(attributes.items())
        elif name.endswith("Source"):
            self._source, self._properties = "", set()
        self._open.append(name)
        self._attributes.append(attributes)
        self._texts.append([])

    def _take(self, text: str) -> None:
        self._texts[-1].append(text)

    def _end(self, name: str) -> None:
        text = "".join(self._texts.pop())
        attributes = self._attributes.pop()
        self._open.pop()
        if name.endswith("SRS"):
            self._crs(text)
        elif name in {"SourceFilename", "SourceDataset"}:
            self._file(text, attributes)
        elif name == "WarpMemoryLimit":
            self._limit(text)
        elif name in _COUNTS:
            self._count("VRTDataset", name, text)
        elif name == "OverviewList":
            self._overviews(name, text)
        elif name == "SourceBand" and not re.fullmatch(r"\d{1,6}|mask(,\d{1,6})?", text):
            raise self._refusal("a source's band is a number, or mask", excerpt(text))
        elif name.endswith("Source"):
            if not self._source:
                raise self._refusal("each source names a file", f"<{name}>")
            self._mosaic.said.setdefault(self._source, set()).update(self._properties)

    def _crs(self, text: str) -> None:
        if leads_to_files(text):
            raise self._refusal("its coordinate system may not name files", excerpt(text))

    def _overviews(self, name: str, text: str) -> None:
        factors = re.split(r"[\s,]+", text.strip())
        if len(factors) > _MOST_OVERVIEWS:
            raise self._refusal(f"it has at most {_MOST_OVERVIEWS} overviews", str(len(factors)))
        for factor in factors:
            self._count(name, "factor", factor)

    def _limit(self, text: str) -> None:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number <= _MOST_WARPED:
            raise self._refusal(
                f"it holds at most {_MOST_WARPED} bytes at a time", f"<WarpMemoryLimit> {excerpt(text)!r}"
            )

    def _count(self, name: str, key: str, value: str) -> None:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not 0 < int(value) < _LONGEST:
            raise self._refusal("a size is a whole number from 1 on", f"<{name}> {key} {excerpt(value)!r}")

    def _rectangle(self, name: str, attributes: dict[str, str]) -> None:
        for key, value in attributes.items():
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if not abs(number) < _LONGEST or (number <= 0 and key.endswith("Size")):
                raise self._refusal("a source's place is finite and has a size", f"<{name} {key}={excerpt(value)!r}>")

    def _file(self, name: str, attributes: dict[str, str]) -> None:
        """Take down a source. Its name must be a plain path: GDAL reads much else into a name."""
        relative = attributes.get("relativeToVRT", "0")
        plain = name == name.strip() and name.isprintable() and name != ""
        if not plain or name.startswith(("<", "/vsi", "{")) or ":" in name.partition("/")[0] or "://" in name:
            raise self._refusal("each source is a file in its folder", f"source {excerpt(name)!r}")
        if relative not in {"0", "1"}:
            raise self._refusal("relativeToVRT is 0 or 1", excerpt(relative))
        place = os.path.realpath(os.path.join(self._folder, name) if relative == "1" else name)
        if not is_below(place, self._folder):
            raise self._refusal("each source lies beside or below it", f"source {excerpt(name)!r}")
        self._source = place
        self._mosaic.files[place] += 1
        if len(self._mosaic.files) > MOST_FILES:
            raise self._refusal(f"it has at most {MOST_FILES} files as sources", "more")


def is_below(path: str, folder: str) -> bool:
    """Whether a real path lies in a real folder, or in one of its folders."""
    return path.startswith(folder.rstrip("/") + "/")
