"""Metadata of an open raster: bands and nodata, CRS and placement. Imports no format library.

`raster` is always an open rasterio dataset, which has no type stubs.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..errors import ReadError, excerpt
from ..files import fingerprint, is_remote
from ..formats import recognise_description
from ..geometry import Placement, Points, Polynomial, Unit
from ..image import VALIDITY_UNKNOWN, Channel, ImageInfo, Mask, Pixels
from ..options import Options
from ..slide.spacing import NOTE_PREFIX, STORED, Spacing
from .bands import sensor_from_name

RGB = ("red", "green", "blue")
LOSSY_CODECS = ("JPEG", "WEBP", "LERC", "JXL")
FIRST_ORDER = ((0, 0), (1, 0), (0, 1))
SECOND_ORDER = (*FIRST_ORDER, (2, 0), (1, 1), (0, 2))
SECOND_ORDER_POINTS = 6
"""Control points from which GDAL's default fits a second-order polynomial."""
MAX_COORDINATE = 1e15
"""World coordinates beyond it, and pixel sizes below its inverse, are refused."""
CRS_ADVICE = "if you know it, state it with --crs, such as --crs EPSG:32618"
NO_GEOREFERENCE = "The file has no georeference"
"""How the note on a picture without one begins."""
# A CRS may name grid files. A plain name is one of PROJ's own files; a path may be any file on this machine.
_FILE_PARAMETER = re.compile(r"PARAMETERFILE|PROJ4_GRIDS|(?:grids|file|model|init)\s*=", re.IGNORECASE)
_PLAIN_FILE_PARAMETER = re.compile(
    r"""PARAMETERFILE\s*[\[(]\s*"[^"]*"\s*,\s*"[\w@.,:-]*"|PROJ4_GRIDS"\s*,\s*"[\w@.,:-]*"|"""
    r"""(?:grids|file|model|init)\s*=\s*[\w@.,:-]*(?=[\s"]|$)""",
    re.IGNORECASE,
)
_REPAIR = "Repair the file's georeference, or remove it to work in pixels"


class RasterOptions(Options):
    """Options of the readers "raster" and "scene"."""

    nodata: float | None = Field(
        default=None,
        allow_inf_nan=True,
        description="The nodata value, or nan, instead of the file's.",
        examples=["nodata=0"],
    )
    default_nodata: float | None = Field(
        default=None,
        allow_inf_nan=True,
        description="The nodata value of files that state none; a sensor sets it.",
    )
    remote_assets: bool = Field(
        default=False,
        description="Whether assets of STAC items that are on servers are read, by ranges. Those on the server of an "
        "item that is itself given by its URL always are.",
        examples=["remote_assets=true"],
    )


@dataclass(frozen=True, slots=True)
class BandLayout:
    """How the bands of a file become channels; it depends on the file alone, so that scan and open agree."""

    bands: tuple[int, ...]
    """Band numbers, from 1, of `channels`; with a palette, the one band of indices."""
    channels: tuple[Channel, ...]
    alpha: int | None = None
    """Number of the alpha band."""
    palette: npt.NDArray[np.uint8] | None = None
    """(entries, 3): the colour of each index."""
    opaque: npt.NDArray[np.bool_] | None = None
    """(entries,): False where a palette entry is transparent."""


@dataclass(frozen=True, slots=True)
class Crs:
    """A coordinate reference system."""

    wkt: str
    unit: Unit
    """Unit of its axes, "crs" where it is neither metre nor degree."""
    name: str


@dataclass(frozen=True, slots=True)
class ControlPoint:
    """A ground control point (GCP)."""

    pixel: tuple[float, float]
    """Level-0 pixels, corner convention."""
    world: tuple[float, float]
    """(east or longitude, north or latitude)."""


def describe_raster(raster: Any, uri: str, options: RasterOptions) -> ImageInfo:
    """The facts of an open raster as its file states them.

    Raises `ReadError` where the georeference is invalid, or the file belongs to a slide format.
    """
    tags = raster.tags()
    slide = recognise_description(tags.get("TIFFTAG_IMAGEDESCRIPTION", ""), tags.get("TIFFTAG_SOFTWARE", ""))
    if slide is not None and slide.strict:
        raise slide.refusal(uri)
    layout = band_layout(raster)
    names = [*re.split(r"[/\\]", uri)[::-1], tags.get("PRODUCT_URI", "")]  # the tag: GDAL's of Sentinel-2 products
    sensor = next((found for name in names if (found := sensor_from_name(name))), None)
    own = os.path.abspath(uri)
    files = (uri,) if is_remote(uri) else (uri, *sorted(f for f in map(str, raster.files) if os.path.abspath(f) != own))
    placement, notes = _placement(raster)
    spacing = None if placement.has_unit else _resolution_tag(tags)
    stored = () if spacing is None else ((STORED, f"{spacing.x!r} {spacing.y!r}"),)
    if spacing is not None:
        size = f"{spacing.x:.6g}" if spacing.x == spacing.y else f"{spacing.x:.6g},{spacing.y:.6g}"
        notes.append(f"{NOTE_PREFIX} {spacing} is not used unless you state it, with --microns-per-pixel {size}.")
    return ImageInfo(
        uri=uri,
        reader="raster",
        size=(raster.width, raster.height),
        channels=layout.channels,
        placement=placement,
        files=files,
        fingerprint=fingerprint([uri] if is_remote(uri) else [f for f in files if os.path.isfile(f)]),
        options=tuple(options.texts().items()),
        notes=(*notes, *_pixel_notes(raster, layout)),
        facts=(*([] if any(declares_validity(raster)) else [VALIDITY_UNKNOWN]), *stored),
        personal=False,
        sensor="" if sensor is None else sensor.name,
    )


def band_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of a rasterio type; numpy has no complex integers."""
    return np.dtype("complex64" if name == "complex_int16" else name)


def has_complex(raster: Any, bands: Sequence[int]) -> bool:
    """Whether any of these bands holds complex numbers."""
    types = raster.dtypes
    return any(band_dtype(types[band - 1]).kind == "c" for band in bands)


def band_layout(raster: Any) -> BandLayout:
    """The channels of an open raster by its descriptions, colour interpretation and palette."""
    colours = [colour.name for colour in raster.colorinterp]
    types = raster.dtypes  # rasterio builds each of its lists of all bands anew on every access
    alpha = colours.index("alpha") + 1 if "alpha" in colours else None
    bands = tuple(band for band in range(1, raster.count + 1) if band != alpha) or (1,)
    alpha = alpha if raster.count > 1 else None
    if len(bands) == 1 and colours[bands[0] - 1] == "palette":
        return _palette_layout(raster, bands[0], alpha)
    descriptions, scales, offsets = raster.descriptions, raster.scales, raster.offsets
    common = [colours[band - 1] if colours[band - 1] in RGB else None for band in bands]
    names = [descriptions[band - 1] or colour or str(band) for band, colour in zip(bands, common, strict=True)]
    names = [variable_name(raster) or names[0]] if len(bands) == 1 else names
    counts = Counter(names)
    names = [f"{name} ({band})" if counts[name] > 1 else name for name, band in zip(names, bands, strict=True)]
    channels: list[Channel] = []
    for name, colour, band in zip(names, common, bands, strict=True):
        dtype = band_dtype(types[band - 1])
        kind, quantity = ("float32", "amplitude") if dtype.kind == "c" else (dtype.name, "number")
        channels.append(Channel(name, colour, kind, float(scales[band - 1]), float(offsets[band - 1]), quantity))
    return BandLayout(bands, tuple(channels), alpha)


def variable_name(raster: Any) -> str:
    """The variable of a NetCDF file that an open raster is, "" for other rasters."""
    return raster.tags(1).get("NETCDF_VARNAME", "") if raster.driver == "netCDF" and raster.count else ""


def _palette_layout(raster: Any, band: int, alpha: int | None) -> BandLayout:
    dtype = band_dtype(raster.dtypes[band - 1])
    if dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)}:
        remedy = "Write it without its palette, for example with gdal_translate -expand rgb"
        raise ReadError(raster.name, "must have 8 or 16 bits to use a palette", value=dtype.name, remedy=remedy)
    entries = 2 ** (8 * dtype.itemsize)
    palette, opaque = np.zeros((entries, 3), dtype=np.uint8), np.zeros(entries, dtype=bool)
    for index, (*rgb, opacity) in raster.colormap(band).items():
        palette[index], opaque[index] = rgb, opacity > 0
    return BandLayout((band,), tuple(Channel(name, name) for name in RGB), alpha, palette, opaque)


def declares_validity(raster: Any) -> list[bool]:
    """Whether the file itself states validity (nodata, alpha or a mask), band by band."""
    return [all(flag.name != "all_valid" for flag in flags) for flags in raster.mask_flag_enums]


def has_mask(flags: Sequence[Any]) -> bool:
    """Whether a band, by its mask flags, has a mask that is no alpha band."""
    names = {flag.name for flag in flags}
    return "per_dataset" in names and "alpha" not in names


def nodata_values(raster: Any, layout: BandLayout, options: RasterOptions) -> dict[int, float | None]:
    """Band → nodata value: the option's, else the file's, else the default; empty where none is stated."""
    types = raster.dtypes
    if options.nodata is not None:
        return {band: _as_stored(options.nodata, types[band - 1]) for band in layout.bands}
    values = raster.nodatavals
    stated = {band: _as_stored(values[band - 1], types[band - 1]) for band in layout.bands}
    if any(value is not None for value in stated.values()):
        return stated
    if options.default_nodata is not None and not any(declares_validity(raster)):
        return dict.fromkeys(layout.bands, options.default_nodata)
    return {}


def _as_stored(value: float | None, dtype: str) -> float | None:
    """A nodata value as a band of that type stores it: -9999.9 is another number in float32."""
    return float(np.float32(value)) if value is not None and dtype == "float32" else value


def is_nodata(values: Pixels, nodata: float | None) -> Mask:
    """Where a band equals its nodata value; nowhere without one."""
    nowhere = np.zeros(values.shape, dtype=bool)
    if nodata is None:
        return nowhere
    if np.isnan(nodata):
        return np.isnan(values) if values.dtype.kind in "fc" else nowhere
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        if nodata != int(nodata) or not limits.min <= int(nodata) <= limits.max:
            return nowhere
        return values == values.dtype.type(int(nodata))
    return values == values.dtype.type(nodata)


def _pixel_notes(raster: Any, layout: BandLayout) -> list[str]:
    notes: list[str] = []
    structure = raster.tags(ns="IMAGE_STRUCTURE")
    codec, reversibility = structure.get("COMPRESSION", ""), structure.get("COMPRESSION_REVERSIBILITY", "")
    lossy = raster.driver == "JPEG" or any(kind in codec.upper() for kind in LOSSY_CODECS)
    if (lossy and not reversibility.startswith("LOSSLESS")) or reversibility == "LOSSY":
        notes.append(f"The pixels were stored with lossy compression ({codec or raster.driver}).")
    if layout.palette is not None:
        notes.append("Colour indices were expanded to red, green and blue by the palette.")
    if any(channel.quantity == "amplitude" for channel in layout.channels):
        notes.append("Complex numbers are read as amplitudes, without phase.")
    return notes


def _placement(raster: Any) -> tuple[Placement, list[str]]:
    points, point_crs = raster.gcps
    crs = _crs(raster.crs or (point_crs if points else None))
    t = raster.transform
    try:
        if not t.is_identity:
            return affine_placement(((t.a, t.b, t.c), (t.d, t.e, t.f)), crs), []
        if points:
            return gcp_placement([ControlPoint((p.col, p.row), (p.x, p.y)) for p in points], crs)
    except ReadError:
        if crs is not None:
            raise
        return Placement.pixels(), ["The georeference is invalid and names no CRS; positions are given in pixels."]
    if raster.rpcs is not None:
        note = "The file is placed by rational polynomials (RPC) alone, which need terrain heights; positions are given"
        return Placement.pixels("none (rational polynomial only)"), [f"{note} in pixels."]
    rows = " from the last row of its arrays" if raster.driver == "netCDF" else ""  # GDAL takes them for south-up
    return Placement.pixels(), [f"{NO_GEOREFERENCE}; positions are given in pixels{rows}."]


def _resolution_tag(tags: Mapping[str, str]) -> Spacing | None:
    """The resolution that a TIFF states, where slides have such a one: most programs write that of printers."""
    unit = {"2": 25400.0, "3": 10000.0}.get(tags.get("TIFFTAG_RESOLUTIONUNIT", "")[:1])
    try:
        across = [float(tags[f"TIFFTAG_{axis}RESOLUTION"]) for axis in "XY"]
    except (KeyError, ValueError):
        return None
    if unit is None or not all(number > 0 for number in across):
        return None
    found = Spacing(unit / across[0], unit / across[1], "TIFF resolution tag")
    return None if found.implausible else found


def _crs(crs: Any) -> Crs | None:
    if not crs:
        return None
    unit, factor = crs.units_factor
    if crs.is_geographic:
        kind: Unit = "deg" if unit.lower() == "degree" else "crs"
    else:
        kind = "m" if factor == 1.0 and unit.lower() in {"metre", "meter", "m"} else "crs"
    wkt = crs.to_wkt(version="WKT2_2019")
    if names_local_file(wkt):
        remedy = "Remove it from the file, and state it with --crs"
        raise ReadError("CRS", "must not name files on this machine", value=excerpt(wkt), remedy=remedy)
    return Crs(wkt, kind, crs.to_string())


def names_local_file(crs: str) -> bool:
    """Whether a CRS, as WKT or PROJ string, names a file by a path, which PROJ would open."""
    return len(_FILE_PARAMETER.findall(crs)) != len(_PLAIN_FILE_PARAMETER.findall(crs))


def affine_placement(matrix: tuple[tuple[float, float, float], ...], crs: Crs | None) -> Placement:
    """The placement of a geotransform; without a CRS its unit is "crs".

    Raises `ReadError` where its numbers are not finite or a pixel has no area.
    """
    _check_finite("geotransform", [number for row in matrix for number in row])
    sides = [math.hypot(matrix[0][axis], matrix[1][axis]) for axis in (0, 1)]
    if min(sides) < 1 / MAX_COORDINATE:
        rule, found = f"must have pixel sides above {1 / MAX_COORDINATE:g}", " × ".join(map(str, sides))
        raise ReadError("geotransform", rule, value=found, remedy=_REPAIR)
    unit, wkt = ("crs", None) if crs is None else (crs.unit, crs.wkt)
    return Placement(matrix, unit, wkt, source="geotransform")


def gcp_placement(points: Sequence[ControlPoint], crs: Crs | None) -> tuple[Placement, list[str]]:
    """The placement of control points, and notes: a least-squares polynomial of the order that GDAL takes by default.

    Second order from six points on, else first. Longitudes that jump at the antimeridian are unwrapped to 0…360. Raises
    `ReadError` where the points are not finite or do not determine the polynomial.
    """
    notes: list[str] = []
    _check_finite("control points", [number for point in points for number in (*point.pixel, *point.world)])
    pixel = np.array([point.pixel for point in points], dtype=np.float64)
    world = np.array([point.world for point in points], dtype=np.float64)
    if crs is not None and crs.unit == "deg" and float(np.ptp(world[:, 0])) > 180:
        world[:, 0] = np.where(world[:, 0] < 0, world[:, 0] + 360, world[:, 0])
        notes.append("The control points cross the antimeridian; longitudes continue beyond 180 degrees.")
    plane = _fit_polynomial(pixel, world, FIRST_ORDER)
    warp = plane if len(points) < SECOND_ORDER_POINTS else _fit_polynomial(pixel, world, SECOND_ORDER)
    slope = plane.jacobian(np.zeros((1, 2)))[0]
    origin = plane(np.zeros((1, 2)))[0]
    matrix = tuple((float(slope[i, 0]), float(slope[i, 1]), float(origin[i])) for i in range(2))
    residual = np.linalg.solve(warp.jacobian(pixel), (warp(pixel) - world)[:, :, None])[:, :, 0]
    warp = replace(warp, residual_px=float(np.sqrt((residual**2).sum(axis=1).mean())))
    unit, wkt = ("crs", None) if crs is None else (crs.unit, crs.wkt)
    placement = Placement(matrix, unit, wkt, source=f"{len(points)} control points", warp=warp)
    return placement, [*notes, *([] if crs is None else gcp_notes(placement))]


def gcp_notes(placement: Placement) -> list[str]:
    """How well a placement meets its control points; empty for other placements."""
    if placement.warp is None:
        return []
    order = "first" if placement.warp.terms == FIRST_ORDER else "second"
    error = f"root mean square error {placement.warp.residual_px:.3g} px"
    return [f"Placed by a {order}-order polynomial through {placement.source}, {error}."]


def _check_finite(subject: str, numbers: Sequence[float]) -> None:
    if odd := [number for number in numbers if not abs(number) < MAX_COORDINATE]:
        rule = f"must have finite numbers below {MAX_COORDINATE:g}"
        raise ReadError(subject, rule, value=", ".join(map(str, odd[:3])), remedy=_REPAIR)


def _fit_polynomial(pixel: Points, world: Points, terms: tuple[tuple[int, int], ...]) -> Polynomial:
    centre = (pixel.min(axis=0) + pixel.max(axis=0)) / 2
    scale = float(np.ptp(pixel, axis=0).max()) / 2 or 1.0
    u = (pixel - centre) / scale
    basis = np.stack([u[:, 0] ** p * u[:, 1] ** q for p, q in terms], axis=1)
    mean = world.mean(axis=0)
    rank = int(np.linalg.matrix_rank(basis))
    if rank < len(terms):
        raise ReadError(
            "control points",
            f"must include {len(terms)} points that lie on no common line or conic",
            value=f"{len(pixel)} points of rank {rank}",
            remedy="Give the file more control points, or remove them to work in pixels",
        )
    solution = np.asarray(np.linalg.lstsq(basis, world - mean, rcond=None)[0], dtype=np.float64)
    solution[0] += mean
    x, y = (tuple(map(float, column)) for column in solution.T)
    return Polynomial(terms, x, y, (float(centre[0]), float(centre[1])), scale, 0.0)
