"""What an open raster says of itself: its channels, what is valid in it, where it lies. Needs no format library.

`raster` is always an open dataset of rasterio, whose classes have no types; this file only asks it for what it says.
"""

# what comes out of rasterio is unknown to pyright
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..errors import ReadError, excerpt
from ..files import fingerprint, is_remote
from ..formats import recognise_description
from ..geometry import Placement
from ..image import VALIDITY_UNKNOWN, Channel, ImageInfo, Mask, Pixels
from ..options import Options
from .bands import sensor_of_product
from .georeference import ControlPoint, Crs, affine_placement, control_placement, leads_to_files

PALETTE = ("red", "green", "blue")
_EXPAND = "Write it without its palette, such as with gdal_translate -expand rgb"
LOSSY = ("JPEG", "WEBP", "LERC", "JXL")


@dataclass(frozen=True, slots=True)
class Layout:
    """How channels come out of a file's bands: computed from the file alone, so that scan and open agree.

    `bands` are the band numbers of `channels`, `alpha` that of the transparency, if any. Where there is a palette, one
    band of indices makes three channels: `palette` (entries, 3) and `opaque` (entries,), False where an entry is
    transparent.
    """

    bands: tuple[int, ...]
    channels: tuple[Channel, ...]
    alpha: int | None
    palette: npt.NDArray[np.uint8] | None
    opaque: npt.NDArray[np.bool_] | None


class RasterOptions(Options):
    """Options of rasters and of scenes."""

    nodata: float | None = Field(
        default=None,
        allow_inf_nan=True,
        description="The no-data value, or nan, instead of the file's.",
        examples=["nodata=0"],
    )
    default_nodata: float | None = Field(
        default=None, allow_inf_nan=True, description="The no-data value of files that state none; a sensor sets it."
    )


def describe_raster(raster: Any, uri: str, options: RasterOptions) -> ImageInfo:
    """The facts of an open raster, as the file has them.

    Raises `ReadError` where the place makes no sense, or the picture says that it belongs to a slide.
    """
    words = raster.tags()
    slide = recognise_description(words.get("TIFFTAG_IMAGEDESCRIPTION", ""), words.get("TIFFTAG_SOFTWARE", ""))
    if slide is not None and slide.strict:
        raise slide.refusal(uri)
    layout = layout_of(raster)
    product = reversed(re.split(r"[/\\]", uri))
    sensor = next((found for name in product if (found := sensor_of_product(name))), None)
    files = (uri,) if is_remote(uri) else (uri, *sorted(f for f in map(str, raster.files) if not _same(f, uri)))
    placement, notes = _placement(raster)
    return ImageInfo(
        uri=uri,
        reader="raster",
        size=(raster.width, raster.height),
        channels=layout.channels,
        placement=placement,
        files=files,
        fingerprint=fingerprint([uri] if is_remote(uri) else [f for f in files if os.path.isfile(f)]),
        options=tuple(options.texts().items()),
        notes=(*notes, *_remarks(raster, layout)),
        facts=() if any(declared(raster)) else (VALIDITY_UNKNOWN,),
        personal=False,
        sensor="" if sensor is None else sensor.name,
    )


def _same(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def has_complex(raster: Any, bands: Sequence[int]) -> bool:
    """Whether any of these bands holds complex numbers."""
    types = raster.dtypes
    return any(_dtype(types[band - 1]).kind == "c" for band in bands)


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype("complex64" if name == "complex_int16" else name)  # numpy has no complex integers


def _colour(interpretation: Any, otherwise: str | None = None) -> Any:
    return interpretation.name if interpretation.name in PALETTE else otherwise


def layout_of(raster: Any) -> Layout:
    """The channels of an open raster by its descriptions, colour interpretation and palette."""
    colours = list(raster.colorinterp)
    alpha = next((at + 1 for at, colour in enumerate(colours) if colour.name == "alpha"), None)
    types = raster.dtypes  # each of rasterio's lists is made anew, of all bands, whenever it is asked for
    bands = tuple(band for band in range(1, raster.count + 1) if band != alpha) or (1,)
    alpha = alpha if raster.count > 1 else None
    if len(bands) == 1 and colours[bands[0] - 1].name == "palette":
        table = raster.colormap(bands[0])
        kind = _dtype(types[bands[0] - 1])
        if kind not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
            raise ReadError(raster.name, "a palette is for numbers of 8 or 16 bit", value=kind.name, remedy=_EXPAND)
        entries = 2 ** (8 * kind.itemsize)
        palette = np.zeros((entries, 3), dtype=np.uint8)
        opaque = np.zeros(entries, dtype=bool)
        for index, (*rgb, opacity) in table.items():
            palette[index], opaque[index] = rgb, opacity > 0
        return Layout(bands, tuple(Channel(name, name) for name in PALETTE), alpha, palette, opaque)
    descriptions, scales, offsets = raster.descriptions, raster.scales, raster.offsets
    names = [descriptions[band - 1] or _colour(colours[band - 1], str(band)) for band in bands]
    often = Counter(names)
    names = [f"{n} ({band})" if often[n] > 1 else n for n, band in zip(names, bands, strict=True)]
    channels: list[Channel] = []
    for name, band in zip(names, bands, strict=True):
        dtype = _dtype(types[band - 1])
        channels.append(
            Channel(
                name=name,
                common=_colour(colours[band - 1]),
                dtype="float32" if dtype.kind == "c" else dtype.name,
                scale=float(scales[band - 1]),
                offset=float(offsets[band - 1]),
                quantity="amplitude" if dtype.kind == "c" else "number",
            )
        )
    return Layout(bands, tuple(channels), alpha, None, None)


def declared(raster: Any) -> list[bool]:
    """Whether the file itself says anything about validity, band by band."""
    return [all(flag.name != "all_valid" for flag in flags) for flags in raster.mask_flag_enums]


def has_mask(flags: Sequence[Any]) -> bool:
    """Whether a band, by its flags, has a mask of its own that is no band of transparency."""
    names = {flag.name for flag in flags}
    return "per_dataset" in names and "alpha" not in names


def nodata_of(raster: Any, layout: Layout, options: RasterOptions) -> dict[int, float | int | None]:
    """Band → nodata value: the option's, else the file's, else the default; empty where none is stated."""
    types = raster.dtypes
    if options.nodata is not None:
        return {band: _stored(options.nodata, types[band - 1]) for band in layout.bands}
    values = raster.nodatavals
    stated = {band: _stored(values[band - 1], types[band - 1]) for band in layout.bands}
    if any(value is not None for value in stated.values()):
        return stated
    if options.default_nodata is not None and not any(declared(raster)):
        return dict.fromkeys(layout.bands, options.default_nodata)
    return {}


def _stored(value: float | None, dtype: str) -> float | None:
    """A nodata value as a band of that type holds it: -9999.9 is another number in float32."""
    return float(np.float32(value)) if value is not None and dtype == "float32" else value


def holds(values: Pixels, nodata: float | None) -> Mask:
    """Where a band holds its nodata value; a band without one never does."""
    if nodata is None:
        return np.zeros(values.shape, dtype=bool)
    if np.isnan(nodata):
        return np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, dtype=bool)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        if nodata != int(nodata) or not limits.min <= int(nodata) <= limits.max:
            return np.zeros(values.shape, dtype=bool)
        return values == values.dtype.type(int(nodata))
    return values == values.dtype.type(nodata)


def _placement(raster: Any) -> tuple[Placement, list[str]]:
    points, point_crs = raster.gcps
    crs = _crs(raster.crs or (point_crs if points else None))
    t = raster.transform
    try:
        if not t.is_identity:
            return affine_placement(((t.a, t.b, t.c), (t.d, t.e, t.f)), crs)
        if points:
            return control_placement([ControlPoint((p.col, p.row), (p.x, p.y)) for p in points], crs)
    except ReadError:
        if crs is not None:
            raise
        said = "What the file says of its place makes no sense, and it names no coordinate system"
        return Placement.pixels(), [f"{said}; positions are given in pixels."]
    if raster.rpcs is not None:
        said = "Rational polynomials (RPC) alone place this file; they need ground heights"
        return Placement.pixels("none (rational polynomial only)"), [f"{said}. Positions are given in pixels."]
    return Placement.pixels(), ["The file says nothing about where on Earth it lies; positions are given in pixels."]


def _crs(crs: Any) -> Crs | None:
    if not crs:
        return None
    unit, factor = crs.units_factor
    if crs.is_geographic:
        kind = "deg" if unit.lower() == "degree" else "crs"
    else:
        kind = "m" if factor == 1.0 and unit.lower() in {"metre", "meter", "m"} else "crs"
    wkt = crs.to_wkt(version="WKT2_2019")
    if leads_to_files(wkt):
        raise ReadError(
            "coordinate system",
            "it may not name files of this machine",
            value=excerpt(wkt),
            remedy="Remove it from the file, and state it with --crs",
        )
    return Crs(wkt, kind, crs.to_string())


def _remarks(raster: Any, layout: Layout) -> list[str]:
    notes: list[str] = []
    structure = raster.tags(ns="IMAGE_STRUCTURE")
    compression = structure.get("COMPRESSION", "")
    lossless = structure.get("COMPRESSION_REVERSIBILITY", "").startswith("LOSSLESS")
    lossy = raster.driver == "JPEG" or any(kind in compression.upper() for kind in LOSSY)
    if (lossy and not lossless) or structure.get("COMPRESSION_REVERSIBILITY") == "LOSSY":
        notes.append(f"The pixels were compressed with possible loss ({compression or raster.driver}).")
    if layout.palette is not None:
        notes.append("Colour indices were expanded to red, green and blue by the file's palette.")
    if any(channel.quantity == "amplitude" for channel in layout.channels):
        notes.append("Complex numbers are given as their amplitude; the phase is left out.")
    if raster.subdatasets:
        notes.append(f"The file holds {len(raster.subdatasets)} pictures; this is the first.")
    return notes
