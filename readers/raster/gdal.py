"""The one door to GDAL: which files it opens, by which drivers, and how far they may lead it.

GDAL can fetch, run and write what a file tells it to. Here a file is opened only by a driver that reads pixels, chosen
by the file's first bytes; all that it leads to (sources, overviews, masks) must lie with it and is opened by the same
rule first. The only file of the readers that imports rasterio.
"""

# rasterio has no types, so what comes out of it is unknown to pyright in this one file
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np

from ..errors import LimnerError, ReadError, excerpt
from ..files import is_remote
from ..geometry import MAX_SIDE
from .georeference import leads_to_files
from .vrt import Mosaic, is_below, read_mosaic

HEAD = 4096
MOST_BLOCK = 256 * 2**20
"""Bytes of one block (tile or strip) of all bands that lie in it: GDAL must hold it whole to read a pixel of it."""
MOST_BANDS = 2048
"""Above it a read takes minutes where bands are interleaved, since GDAL keeps each band's blocks apart."""
MOST_LOOKS = 100_000
"""Files that reading the whole of a virtual raster may open, counted through those that it is made of."""
DEEPEST = 4
"""Virtual rasters within one another."""
MOST_SIDE_BYTES = 32 * 2**20

DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"RIFF": "WEBP",
    b"NITF": "NITF",
    b"NSIF": "NITF",
    b"EHFA_HEADER_TAG": "HFA",
    b"CDF\x01": "netCDF",
    b"CDF\x02": "netCDF",
    b"CDF\x05": "netCDF",
    b"GRIB": "GRIB",
    b"UHL1": "DTED",
}
"""First bytes → the driver that reads such a file. HDF5 is not among them: it can take its pixels from any file."""
UNSIGNED = ("ENVI", "EHdr", "AAIGrid", "SRTMHGT")
"""Drivers of files that do not begin with a sign of their own; all of them read numbers by a header beside the file."""
FETCHING = (
    *("WMS", "WMTS", "WCS", "HTTP", "STACIT", "STACTA", "PLMOSAIC", "EEDA", "EEDAI", "DAAS", "GTI", "MRF"),
    *("DERIVED", "OGCAPI", "NGW", "KMLSUPEROVERLAY", "Zarr", "HDF5", "HDF5Image", "BAG", "S102", "S104", "S111"),
)
"""Drivers that GDAL shall not even load, where we are the first to start it: a second lock behind the first."""
NETWORKS = (("s3://", "/vsis3/"), ("gs://", "/vsigs/"), ("az://", "/vsiaz/"), ("http", "/vsicurl/http"))
_ADDRESS = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift)/")
_ARCHIVE = re.compile(r"/vsi(zip|tar|gzip)/")
_SRS = re.compile(r"<SRS[^<>]*>([^<]*)", re.IGNORECASE)
_FOREIGN = (OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError)
_SIDES = (".ovr", ".OVR", ".msk", ".MSK", ".aux", ".AUX", ".aux.xml", ".AUX.XML")


@contextmanager
def reading(name: str, rule: str, remedy: str) -> Generator[None]:
    """Where GDAL or rasterio raises whatever it has, raise a `ReadError` of `name` instead; let our own pass."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except LimnerError:
        raise
    except UnicodeEncodeError as error:
        raise ReadError(name, "its name must be UTF-8, since GDAL takes no other", remedy="Rename it") from error
    except (RasterioError, CPLE_BaseError, *_FOREIGN) as error:
        raise ReadError(
            name, rule, value=excerpt(str(error.__cause__ or error) or type(error).__name__, 300), remedy=remedy
        ) from error


@contextmanager
def environment(name: str) -> Generator[None]:
    """GDAL as the readers want it: siblings are listed and the network is shut, unless `name` itself is an address."""
    import rasterio

    settings: dict[str, Any] = {
        "GDAL_SKIP": ",".join(FETCHING),
        "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
        "GDAL_VRT_ENABLE_PYTHON": "NO",
    }
    if is_remote(name):
        settings |= {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE", "GDAL_HTTP_MAX_RETRY": "3"}
    if not _is_address(name):
        settings["CPL_VSIL_CURL_ALLOWED_FILENAME"] = "nothing"
    with rasterio.Env(**settings):
        yield


def open_raster(name: str, part: str = "", *, overview: int | None = None) -> Any:
    """Open a raster of GDAL's, or the named part of it, or an overview of one that was opened before.

    Call it in `environment(name)`. Raises `ReadError` where it is no raster of a listed format, leads beyond its
    folder, or has blocks too large to hold.
    """
    if overview is None:
        return _Inspection(name).open(name, part)
    raster = _gdal(name, _path(name), _drivers(name), part, overview)
    return _checked(raster, name, lambda: _check_blocks(raster, name))


def _is_address(name: str) -> bool:
    return "://" in name or _ADDRESS.search(name) is not None


def _path(name: str) -> str:
    """A name as GDAL gets it, so that it can be nothing but a file or an address."""
    if not is_remote(name):
        return name if name.startswith("/") else f"./{name}"
    for prefix, virtual in NETWORKS:
        if name.startswith(prefix) and "://" in name:
            return virtual + name.removeprefix(prefix)
    if not (_ADDRESS.match(name) or _ARCHIVE.match(name)):
        raise ReadError(
            name,
            "it must be a path, an http, s3, gs or az address, or a file in a zip, tar or gzip archive",
            remedy="Give the file itself, or /vsizip/ARCHIVE/FILE, /vsicurl/ADDRESS and so on",
        )
    return name


def _drivers(name: str) -> tuple[str, ...]:
    """The drivers that may open a file: by its first bytes, or all signed ones where they cannot be seen."""
    if is_remote(name):
        return tuple(dict.fromkeys(DRIVERS.values()))
    with reading(name, "it must be a readable file", "Check the path and rights"):
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise ReadError(name, "it must be a regular file", remedy="Leave out folders, pipes and devices")
        with Path(name).open("rb") as file:
            head = file.read(HEAD)
    if b"<VRTDataset" in head:
        return ("VRT",)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ReadError(
            name,
            "HDF5 and NetCDF-4 are not read, since such a file can take its pixels from any other on this machine",
            remedy="Where you trust it, write it as a GeoTIFF with gdal_translate",
        )
    return next(((driver,) for sign, driver in DRIVERS.items() if head.startswith(sign)), UNSIGNED)


class _Inspection:
    """One opening of a raster, with everything that GDAL will open behind it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._above: list[str] = []
        self._looks: dict[str, int] = {}
        self._special: dict[str, tuple[str, ...]] = {}

    def open(self, name: str, part: str = "") -> Any:
        """The open raster, after a look at all that it leads to. Raises `ReadError`."""
        drivers = _drivers(name)
        path = _path(name)
        own = re.escape(path)
        if part and not re.fullmatch(rf'(?i:netcdf):"?{own}"?:[^/:]+|(?i:nitf_im):\d+:{own}', part):
            raise ReadError(name, "its parts must lie in it", value=excerpt(part), remedy="Leave it out")
        looks = 1
        if not is_remote(name):
            self._sides(name)
        if drivers == ("VRT",):
            path = os.path.realpath(name)
            looks += self._sources(read_mosaic(path))
        raster = _gdal(name, path, drivers, part)
        self._looks[os.path.realpath(name)] = looks
        return _checked(raster, name, lambda: self._check(raster, name))

    def _sources(self, mosaic: Mosaic) -> int:
        """Look at the sources of a virtual raster; the number of files that reading all of it opens."""
        if len(self._above) >= DEEPEST:
            raise ReadError(
                mosaic.path, f"at most {DEEPEST} virtual rasters lie in one another", remedy="Write it as a GeoTIFF"
            )
        self._above.append(mosaic.path)
        looks = 0
        for file, times in mosaic.files.items():
            if file in self._above:
                raise ReadError(mosaic.path, "a virtual raster is no source of its own", remedy="Leave it out")
            if file not in self._looks or mosaic.said.get(file):
                self._source(mosaic, file)
            looks += times * self._looks[file]
            if looks > MOST_LOOKS:
                raise ReadError(
                    mosaic.path,
                    f"reading all of a virtual raster may open at most {MOST_LOOKS} files",
                    remedy="Write it, or those that it is made of, as a GeoTIFF with gdal_translate",
                )
        self._above.pop()
        return looks

    def _source(self, mosaic: Mosaic, file: str) -> None:
        try:
            raster = self.open(file)
        except ReadError as error:
            raise ReadError(
                f"{mosaic.path} with its source {file}", error.rule, value=error.value, remedy=error.remedy
            ) from error
        with raster:
            high, wide = raster.block_shapes[0] if raster.count else (0, 0)
            true = {"RasterXSize": raster.width, "RasterYSize": raster.height, "BlockXSize": wide, "BlockYSize": high}
        for key, value in sorted(mosaic.said.get(file, ())):
            if key in true and value != str(true[key]):
                raise ReadError(
                    f"{mosaic.path} with its source {file}",
                    f"what a virtual raster says of its sources must hold: {key} is {true[key]}",
                    value=excerpt(value),
                    remedy="Make the virtual raster again",
                )

    def _sides(self, name: str) -> None:
        """Look at the files that GDAL opens unasked for their name: overviews, masks and metadata beside it."""
        folder, own = os.path.split(name)
        stem = os.path.splitext(own)[0].casefold()
        for entry in self._unusual(folder or "."):
            if entry != own and entry.casefold().startswith(stem):
                raise self._side(name, entry, "it must be a regular file")
        for ending in _SIDES:
            side = name + ending
            if not os.path.lexists(side):
                continue
            if not any(is_below(os.path.realpath(side), root) for root in _roots(name)):
                raise self._side(name, own + ending, "it must lie in the folder")
            if ending.lower() == ".aux.xml":
                self._metadata(name, side)
                continue
            if _drivers(side) not in {("GTiff",), ("HFA",)}:
                raise self._side(name, own + ending, "it must be a TIFF, or an .aux of ERDAS Imagine")
            try:
                self.open(side).close()
            except ReadError as error:
                raise self._side(name, own + ending, f"{error.rule} ({error.value or error.remedy})") from error

    def _metadata(self, name: str, side: str) -> None:
        own = os.path.basename(side)
        if os.path.getsize(side) > MOST_SIDE_BYTES:
            raise self._side(name, own, f"it must not exceed {MOST_SIDE_BYTES // 2**20} MiB")
        text = Path(side).read_text(encoding="utf-8", errors="replace")
        if any(map(leads_to_files, map(unescape, _SRS.findall(text)))):
            raise self._side(name, own, "its coordinate system may not name files")

    def _unusual(self, folder: str) -> tuple[str, ...]:
        """The names in a folder that are neither files nor folders: reading from a pipe waits for ever."""
        if folder not in self._special:
            with os.scandir(folder) as entries:
                self._special[folder] = tuple(
                    sorted(entry.name for entry in entries if not (entry.is_file() or entry.is_dir() or _dead(entry)))
                )
        return self._special[folder]

    def _side(self, name: str, side: str, rule: str) -> ReadError:
        return ReadError(
            f"{name} with {excerpt(side)} beside it", rule, remedy="Remove that file; the image may be whole without it"
        )

    def _check(self, raster: Any, name: str) -> None:
        if raster.count > MOST_BANDS:
            raise ReadError(
                name,
                f"it may have at most {MOST_BANDS} bands",
                value=str(raster.count),
                remedy="Write those that you need, such as with gdal_translate -b",
            )
        if max(raster.width, raster.height) > MAX_SIDE:
            raise ReadError(
                name,
                f"it may have at most {MAX_SIDE} pixels a side",
                value=f"{raster.width} × {raster.height} px",
                remedy="Cut it, such as with gdal_translate -srcwin",
            )
        _ = raster.colorinterp  # GDAL says what it could not understand while opening at the next question
        if "OVERVIEW_FILE" in {key.upper() for key in raster.tags(ns="OVERVIEWS")}:  # before GDAL opens it
            raise ReadError(
                name,
                "it may not name a file of its overviews elsewhere",
                value=excerpt(str(raster.tags(ns="OVERVIEWS"))),
                remedy="Remove OVERVIEW_FILE from its metadata, or the .aux.xml beside it",
            )
        _check_blocks(raster, name)
        if is_remote(name):
            return
        roots = _roots(name)
        real = os.path.realpath(name)
        for file in raster.files:
            place = os.path.realpath(file)
            if place != real and not any(is_below(place, root) for root in roots):
                raise ReadError(
                    name,
                    "all files that it is made of must lie in its folder",
                    value=excerpt(file),
                    remedy="Put them together",
                )


def _dead(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry of a folder is a link to nothing."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def _roots(name: str) -> set[str]:
    """The real folders that a file lies in: as it was named, and where a link leads to."""
    return {os.path.realpath(os.path.dirname(name) or "."), os.path.dirname(os.path.realpath(name))}


def _gdal(name: str, path: str, drivers: tuple[str, ...], part: str = "", overview: int | None = None) -> Any:
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import DatasetReader

    level = {} if overview is None else {"overview_level": overview}
    with (
        reading(
            name,
            "it must be a raster that GDAL can open",
            "Check the path; if the file is damaged or of another kind, fetch it again or leave it out",
        ),
        catch_warnings(),
    ):
        simplefilter("ignore", NotGeoreferencedWarning)
        return DatasetReader(part or path, driver=list(drivers), **level)


def _checked(raster: Any, name: str, check: Any) -> Any:
    try:
        with reading(name, "what it says of itself must be understood", "Fetch the file again or leave it out"):
            check()
    except BaseException:
        raster.close()
        raise
    return raster


def _check_blocks(raster: Any, name: str) -> None:
    """Refuse blocks that cannot be held. A block of a pixel-interleaved file holds all bands."""
    if not raster.count:
        return
    types = raster.dtypes
    together = raster.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    sizes = [high * wide * item_size(kind) for (high, wide), kind in zip(raster.block_shapes, types, strict=True)]
    size = sum(sizes) if together else max(sizes)
    if size > MOST_BLOCK:
        high, wide = raster.block_shapes[0]
        raise ReadError(
            name,
            f"one block (tile or strip) may have at most {MOST_BLOCK // 2**20} MiB, since it is only read whole",
            value=f"{wide} × {high} px, {size // 2**20} MiB",
            remedy="Write it in tiles, such as with gdal_translate -co TILED=YES",
        )


def item_size(kind: str) -> int:
    """Bytes of a number of a band, by rasterio's name of its type."""
    return np.dtype("complex64" if kind == "complex_int16" else kind).itemsize
