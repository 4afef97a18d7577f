"""Safe opening of rasters through GDAL: which files, with which drivers, and which other files they may refer to.

GDAL can fetch, run and write what a file tells it to. Here a file is opened only by a driver that reads pixels, chosen
by the file's first bytes. Every file that it refers to (sources, overviews, masks) must lie in its folder and passes
the same checks first. No other file of the readers imports rasterio.
"""

# rasterio has no type stubs
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import logging
import os
import re
import stat
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any, Final
from warnings import catch_warnings, simplefilter

from ..errors import LimnerError, ReadError, excerpt
from ..files import is_remote
from ..geometry import MAX_SIDE
from .metadata import band_dtype, names_local_file
from .pictures import DRIVERS as PICTURES
from .pictures import check_size
from .vrt import VrtSources, is_below, parse_vrt

HEAD_BYTES = 4096
MAX_BLOCK_BYTES = 256 * 2**20
"""Size of one block (tile or strip) of all bands that it stores: GDAL must decode all of it to read one pixel."""
CACHE_BYTES = 64 * 2**20
"""Size of GDAL's cache of decoded blocks, one in each process, which grows for a raster with a larger block. GDAL's own
default is 5 % of the machine's memory."""
REMOTE: Final = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "VSI_CACHE": "TRUE",
    "GDAL_HTTP_MAX_RETRY": "3",  # where the server answers 429, 500, 502, 503 or 504, or the connection breaks
    "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, longer each time
    "GDAL_HTTP_CONNECTTIMEOUT": "10",  # seconds
    "GDAL_HTTP_LOW_SPEED_TIME": "30",  # seconds for which it may send next to nothing
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",  # bytes per second
    "CPL_DEBUG": "VSICURL,S3,GS,AZURE",  # logs what servers answer, see `_Answers`
}
"""GDAL's settings for files on a server. By default it would wait for ever for a server that does not answer."""
MAX_STREAMED_BYTES = 2**33
"""Decoded size of a picture whose pixels can only be decoded from its beginning on."""
MAX_BANDS = 2048
"""Above it a read takes minutes where bands are interleaved, since GDAL caches each band's blocks separately."""
MAX_SOURCE_OPENS = 100_000
"""Files that reading the whole of a VRT may open, counted through nested VRTs."""
MAX_VRT_DEPTH = 4
MAX_AUX_XML_BYTES = 32 * 2**20

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
"""Magic number → driver. HDF5 is left out: such a file can take its pixels from any other file."""
STREAMED_DRIVERS = ("PNG", "JPEG", "GIF", "WEBP")
"""Drivers of pictures that are decoded from their beginning on, whatever part is read."""
HEADER_FILE_DRIVERS = ("ENVI", "EHdr", "AAIGrid", "SRTMHGT")
"""Drivers of formats without a magic number; each reads numbers as described by a header file beside the data."""
BLOCKED_DRIVERS = (
    *("WMS", "WMTS", "WCS", "HTTP", "STACIT", "STACTA", "PLMOSAIC", "EEDA", "EEDAI", "DAAS", "GTI", "MRF"),
    *("DERIVED", "OGCAPI", "NGW", "KMLSUPEROVERLAY", "Zarr", "HDF5", "HDF5Image", "BAG", "S102", "S104", "S111"),
)
"""Drivers that GDAL does not even load where limner is the first to start it: a second line of defence."""
_limits: dict[str, float] = {"cache": MAX_BLOCK_BYTES, "block": CACHE_BYTES}
_queries: dict[str, str] = {}  # of URLs, by what is before their question mark
_URL_PREFIXES = (("s3://", "/vsis3/"), ("gs://", "/vsigs/"), ("az://", "/vsiaz/"), ("http", "/vsicurl/http"))
_NETWORK_PATH = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift)/")
_ARCHIVE_PATH = re.compile(r"/vsi(zip|tar|gzip)/")
_SRS_ELEMENT = re.compile(r"<SRS[^<>]*>([^<]*)", re.IGNORECASE)
_GDAL_ERRORS = (OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError)
_SIDECAR_SUFFIXES = (".ovr", ".OVR", ".msk", ".MSK", ".aux", ".AUX", ".aux.xml", ".AUX.XML")


PIXELS: Final = ("must have readable pixels", "The file may be truncated or damaged: fetch it again")
METADATA: Final = ("must have metadata that GDAL can read", "Fetch the file again or leave it out")
"""Rules that files break, with the way out, for `gdal_errors`."""


@contextmanager
def gdal_errors(name: str, rule: str, remedy: str) -> Generator[None]:
    """Turn whatever GDAL or rasterio raises into a `ReadError` about `name`; of a URL the remedy is another."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    _answers.forget()
    try:
        yield
    except LimnerError:
        raise
    except UnicodeEncodeError as error:
        raise ReadError(name, "must have a name in UTF-8, which GDAL requires", remedy="Rename it") from error
    except (RasterioError, CPLE_BaseError, *_GDAL_ERRORS) as error:
        found = excerpt(_answers.add(without_queries(str(error.__cause__ or error)) or type(error).__name__), 300)
        remote = "://" in name or _NETWORK_PATH.search(name)
        raise ReadError(name, rule, value=found, remedy=_CHECK_SERVER if remote else remedy) from error


_CHECK_SERVER: Final = (
    "Check the URL, your rights to it, and that the server answers requests for parts of a file (HTTP ranges); then run"
    " the same command again"
)


class _Answers(logging.Filter):
    """Notes the last status of a server in each thread from GDAL's log, since its errors of reading do not tell it.

    What else is logged passes as without it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    def start(self) -> None:
        """Begin, if it has not begun."""
        logger = logging.getLogger("rasterio._err")
        if self not in logger.filters:
            logger.addFilter(self)
            logger.setLevel(logging.DEBUG)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record passes."""
        if found := _ANSWER.search(record.getMessage()):
            self._thread.last = int(found[1])
        return record.levelno >= logging.getLogger("rasterio").getEffectiveLevel()

    def forget(self) -> None:
        """Before a request of this thread."""
        self._thread.last = None

    def add(self, found: str) -> str:
        """What GDAL tells, with the answer that this thread got last where that is a failure."""
        last: int | None = getattr(self._thread, "last", None)
        if last is None or (0 < last < _REFUSED) or (last and str(last) in found):
            return found
        return f"the server answered {last}; {found}" if last else f"the connection broke; {found}"


_REFUSED: Final = 400
_ANSWER: Final = re.compile(r"response_code=(\d+)")
_answers: Final = _Answers()


def keep_query(url: str) -> str:
    """The URL up to its question mark, the name under which it can be opened in this process.

    What follows may be a signature, by which anyone can read the file: it stays in memory.
    """
    name, _, query = url.partition("#")[0].partition("?")
    if query:
        _queries[name] = query
    return name


def with_query(name: str) -> str:
    """The URL with what `keep_query` has kept of it, for another process."""
    return f"{name}?{_queries[name]}" if name in _queries else name


def without_queries(text: str) -> str:
    """A text in which no query of `keep_query` is left."""
    for query in _queries.values():
        text = text.replace(query, "…")
    return text


def limit_cache(most: float) -> None:
    """Let GDAL keep at most so many bytes of decoded blocks, even where its block is larger: before the first read."""
    _limits["cache"] = most


@contextmanager
def gdal_env(name: str) -> Generator[None]:
    """Configure GDAL for reading `name`: no network access unless `name` itself is a URL."""
    import rasterio

    settings: dict[str, Any] = {
        "GDAL_SKIP": ",".join(BLOCKED_DRIVERS),
        "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
        "GDAL_VRT_ENABLE_PYTHON": "NO",
        "GDAL_CACHEMAX": int(min(_limits.values())),  # from here on, rasterio sees to that
    }
    if is_remote(name):
        settings |= REMOTE
        _answers.start()
    if "://" not in name and not _NETWORK_PATH.search(name):
        settings["CPL_VSIL_CURL_ALLOWED_FILENAME"] = "nothing"
    with rasterio.Env(**settings):
        yield


PAGE: Final = "page {}"
"""A page of a TIFF, counted from 1, as a part."""


def open_raster(name: str, part: str = "", *, overview: int | None = None) -> Any:
    """Open a raster, its subdataset `part`, or an overview of a raster that was opened before, inside `gdal_env(name)`.

    Raises `ReadError` where its format is not allowed, it refers to files outside its folder, or its blocks do not fit
    in memory.
    """
    if overview is None:
        return _SafeOpener().open(name, part)
    return _open_checked(name, _gdal_path(name), _drivers(name), _check_blocks, part, overview)


def _gdal_path(name: str) -> str:
    """The name in a form that GDAL can only take for a file or a URL."""
    if not is_remote(name):
        return name if name.startswith("/") else f"./{name}"
    for prefix, virtual in _URL_PREFIXES:
        if name.startswith(prefix) and "://" in name:
            return virtual + with_query(name).removeprefix(prefix)
    if not (_NETWORK_PATH.match(name) or _ARCHIVE_PATH.match(name)):
        rule = "must be a path, an http, s3, gs or az URL, or a file in a zip, tar or gzip archive"
        raise ReadError(name, rule, remedy="Give the file itself, /vsizip/ARCHIVE/FILE, /vsicurl/URL or the like")
    return name


def _drivers(name: str) -> tuple[str, ...]:
    """The drivers that may open a file: by its magic number, or all those with one where the file is remote."""
    if is_remote(name):
        return tuple(dict.fromkeys(DRIVERS.values()))
    with gdal_errors(name, "must be a readable file", "Check the path and rights"):
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise ReadError(name, "must be a regular file", remedy="Leave out folders, pipes and devices")
        with open(name, "rb") as file:
            head = file.read(HEAD_BYTES)
    if b"<VRTDataset" in head:
        return ("VRT",)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        rule = "must not be HDF5 or NetCDF-4, since such a file can include data of any other file on this machine"
        raise ReadError(
            name, rule, remedy="If you trust it, convert a variable that gdalinfo lists to GeoTIFF with gdal_translate"
        )
    return next(((driver,) for magic, driver in DRIVERS.items() if head.startswith(magic)), HEADER_FILE_DRIVERS)


class _SafeOpener:
    """Opens one raster after checking every file that GDAL would open with it."""

    def __init__(self) -> None:
        self._parents: list[str] = []
        self._opens: dict[str, int] = {}
        self._special: dict[str, tuple[str, ...]] = {}

    def open(self, name: str, part: str = "") -> Any:
        """The open dataset. Raises `ReadError`."""
        drivers = _drivers(name)
        path = _gdal_path(name)
        own = re.escape(path)
        if part and not re.fullmatch(rf'(?i:netcdf):"?{own}"?:[^/:]+|(?i:nitf_im):\d+:{own}|page \d+', part):
            raise ReadError(name, "must contain its own subdatasets", value=excerpt(part), remedy="Leave it out")
        opens = 1
        if not is_remote(name):
            self._check_sidecars(name)
        if drivers == ("VRT",):
            path = os.path.realpath(name)
            opens += self._check_sources(parse_vrt(path))
        self._opens[os.path.realpath(name)] = opens
        return _open_checked(name, path, drivers, _check_dataset, part)

    def _check_sources(self, vrt: VrtSources) -> int:
        """Check the sources of a VRT; returns the number of files that reading all of it opens."""
        if len(self._parents) >= MAX_VRT_DEPTH:
            rule = f"must not be nested in more than {MAX_VRT_DEPTH - 1} other VRTs"
            raise ReadError(vrt.path, rule, remedy="Convert it to GeoTIFF with gdal_translate")
        self._parents.append(vrt.path)
        opens = 0
        for file, times in vrt.counts.items():
            if file in self._parents:
                raise ReadError(vrt.path, "must not be a source of itself", remedy="Leave it out")
            if file not in self._opens or vrt.properties.get(file):
                self._check_source(vrt, file)
            opens += times * self._opens[file]
            if opens > MAX_SOURCE_OPENS:
                rule = f"must not open more than {MAX_SOURCE_OPENS} files in one read"
                raise ReadError(vrt.path, rule, remedy="Convert it or its sources to GeoTIFF with gdal_translate")
        self._parents.pop()
        return opens

    def _check_source(self, vrt: VrtSources, file: str) -> None:
        subject = f"{vrt.path} with its source {file}"
        try:
            raster = self.open(file)
        except ReadError as error:
            raise ReadError(subject, error.rule, value=error.value, remedy=error.remedy) from error
        with raster:
            high, wide = raster.block_shapes[0] if raster.count else (0, 0)
            true = {"RasterXSize": raster.width, "RasterYSize": raster.height, "BlockXSize": wide, "BlockYSize": high}
        for key, value in sorted(vrt.properties.get(file, ())):
            if key in true and value != str(true[key]):
                rule = f"must state the properties of its sources correctly: {key} is {true[key]}"
                raise ReadError(subject, rule, value=excerpt(value), remedy="Make the VRT again with gdalbuildvrt")

    def _check_sidecars(self, name: str) -> None:
        """Check the files that GDAL opens because of their names: overviews, masks and metadata beside the raster."""
        folder, own = os.path.split(name)
        stem = os.path.splitext(own)[0].casefold()
        for entry in self._special_files(folder or "."):
            if entry != own and entry.casefold().startswith(stem):
                raise _sidecar_error(name, entry, "must be a regular file")
        for suffix in _SIDECAR_SUFFIXES:
            sidecar = name + suffix
            if not os.path.lexists(sidecar):
                continue
            if not any(is_below(os.path.realpath(sidecar), root) for root in _folders(name)):
                raise _sidecar_error(name, own + suffix, "must lie in the folder")
            if suffix.lower() == ".aux.xml":
                _check_aux_xml(name, sidecar)
                continue
            if _drivers(sidecar) not in {("GTiff",), ("HFA",)}:
                raise _sidecar_error(name, own + suffix, "must be a TIFF, or an .aux file of ERDAS Imagine")
            try:
                self.open(sidecar).close()
            except ReadError as error:
                raise _sidecar_error(name, own + suffix, f"{error.rule} ({error.value or error.remedy})") from error

    def _special_files(self, folder: str) -> tuple[str, ...]:
        """Names in a folder that are neither files nor folders: reading from a pipe would block forever."""
        if folder not in self._special:
            with os.scandir(folder) as entries:
                special = (e for e in entries if not (e.is_file() or e.is_dir()))  # dangling links among them
                names = (e.name for e in special if not e.is_symlink() or os.path.exists(e.path))
                self._special[folder] = tuple(sorted(names))
        return self._special[folder]


def _sidecar_error(name: str, sidecar: str, rule: str) -> ReadError:
    remedy = "Remove that file; the raster may be complete without it"
    return ReadError(f"{excerpt(sidecar)} beside {name}", rule, remedy=remedy)


def _check_aux_xml(name: str, path: str) -> None:
    own = os.path.basename(path)
    if os.path.getsize(path) > MAX_AUX_XML_BYTES:
        raise _sidecar_error(name, own, f"must not exceed {MAX_AUX_XML_BYTES // 2**20} MiB")
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    if any(map(names_local_file, map(unescape, _SRS_ELEMENT.findall(text)))):
        raise _sidecar_error(name, own, "must not have a CRS that names files")


def _folders(name: str) -> set[str]:
    """The real folders of a file: the one it is named in, and the one that a link leads to."""
    return {os.path.realpath(os.path.dirname(name) or "."), os.path.dirname(os.path.realpath(name))}


def _open_checked(
    name: str,
    path: str,
    drivers: tuple[str, ...],
    check: Callable[[Any, str], None],
    part: str = "",
    overview: int | None = None,
) -> Any:
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import DatasetReader

    level = {} if overview is None else {"overview_level": overview}
    remedy = "Check the path; if the file is damaged or of another kind, fetch it again or leave it out"
    rule = "must be a raster that GDAL can open"
    rule += ": NetCDF without a variable that is a grid is not supported" if drivers == ("netCDF",) else ""
    with gdal_errors(name, rule, remedy), catch_warnings():
        simplefilter("ignore", NotGeoreferencedWarning)
        raster = DatasetReader(_page_path(path, part) or part or path, driver=list(drivers), **level)
    try:
        with gdal_errors(name, *METADATA):
            check(raster, name)
    except BaseException:
        raster.close()
        raise
    return raster


def _page_path(path: str, part: str) -> str:
    """How GDAL names a page of a TIFF; "" for any other part. The first is the file itself, with its overviews."""
    found = re.fullmatch(r"page (\d+)", part)
    return "" if found is None else path if found[1] == "1" else f"GTIFF_DIR:{found[1]}:{path}"


def _check_dataset(raster: Any, name: str) -> None:
    if raster.count > MAX_BANDS:
        remedy = "Extract the bands that you need with gdal_translate -b"
        raise ReadError(name, f"must have at most {MAX_BANDS} bands", value=str(raster.count), remedy=remedy)
    if max(raster.width, raster.height) > MAX_SIDE:
        rule, found = f"must have at most {MAX_SIDE} pixels a side", f"{raster.width} × {raster.height} px"
        raise ReadError(name, rule, value=found, remedy="Cut it with gdal_translate -srcwin")
    _ = raster.colorinterp  # GDAL reports what it could not parse while opening at the next call
    overviews = raster.tags(ns="OVERVIEWS")
    if "OVERVIEW_FILE" in {key.upper() for key in overviews}:  # before GDAL opens it
        remedy = "Remove OVERVIEW_FILE from its metadata, or the .aux.xml beside it"
        raise ReadError(name, "must not name an overview file elsewhere", value=excerpt(str(overviews)), remedy=remedy)
    _check_blocks(raster, name)
    if is_remote(name):
        return
    roots, own = _folders(name), os.path.realpath(name)
    for file in raster.files:
        path = os.path.realpath(file)
        if path != own and not any(is_below(path, root) for root in roots):
            rule = "must have all its files in its own folder"
            raise ReadError(name, rule, value=excerpt(file), remedy="Put them together")


def stored_bytes(raster: Any) -> int:
    """Bytes of a pixel in all bands."""
    return sum(band_dtype(kind).itemsize for kind in raster.dtypes)


def _check_blocks(raster: Any, name: str) -> None:
    """Refuse blocks that do not fit in memory. A block of a pixel-interleaved file holds all bands."""
    if not raster.count:
        return
    sizes = [
        high * wide * band_dtype(kind).itemsize
        for (high, wide), kind in zip(raster.block_shapes, raster.dtypes, strict=True)
    ]
    if raster.driver in PICTURES:
        decoded = raster.width * raster.height * sum(band_dtype(kind).itemsize for kind in raster.dtypes)
        check_size(name, raster.driver, decoded)
    interleaved = raster.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL"
    size = sum(sizes) if interleaved else max(sizes)
    if size > MAX_BLOCK_BYTES:
        high, wide = raster.block_shapes[0]
        raise ReadError(
            name,
            f"must have blocks (tiles or strips) of at most {MAX_BLOCK_BYTES // 2**20} MiB",
            value=f"{wide} × {high} px, {size // 2**20} MiB",
            remedy="Write it in tiles with gdal_translate -co TILED=YES",
        )
    _limits["block"] = max(_limits["block"], size)
