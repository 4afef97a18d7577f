"""Polygons in GeoPackage, FlatGeobuf, Shapefile and KML, read as GeoJSON with the CRS of their layer.

GDAL opens a file in a sandboxed process, and only by the driver that its first bytes name. Among the readers this is
the only file that imports pyogrio.
"""
# pyogrio and shapely leave some of their arguments untyped:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

import hashlib
import math
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely

from .errors import LimnerError, RequestError, excerpt
from .files import open_regular, read_file
from .reader_calls import SCAN_SECONDS
from .sandbox import SCAN_MEMORY_MB, SandboxError, run_sandboxed

SUFFIXES: Final = (".gpkg", ".fgb", ".shp", ".kml")
"""Of the files that are read here."""

_MAGIC: Final = {b"SQLite format 3\0": "GPKG", b"fgb\x03": "FlatGeobuf", b"\0\0\x27\x0a": "ESRI Shapefile"}
NAMES: Final = {"GPKG": "GeoPackage", "FlatGeobuf": "FlatGeobuf", "ESRI Shapefile": "Shapefile", "KML": "KML"}
"""GDAL's drivers for these formats, and what people call them."""
_LAYER: Final = "|layername="  # how QGIS writes a layer of a file
_HEAD_BYTES: Final = 2048
_SHAPEFILE: Final = (".shp", ".shx", ".dbf", ".prj", ".cpg")
BLOCKED: Final = (
    *("ADBC", "AIVector", "AmigoCloud", "AVCBin", "AVCE00", "CSV", "CSW", "Carto", "DGN", "DXF", "EDIGEO", "EEDA"),
    *("ESRIJSON", "Elasticsearch", "GDALG", "GML", "GPSBabel", "GPX", "GTFS", "GeoJSON", "GeoJSONSeq", "GeoRSS"),
    *("HTTP", "Idrisi", "JML", "JSONFG", "LIBKML", "LVBAG", "MBTiles", "MVT", "MapInfo File", "MapML"),
    *("MiraMonVector", "NGW", "OAPIF", "ODS", "OGCAPI", "OGR_GMT", "OGR_PDS", "OGR_VRT", "OSM", "OpenFileGDB"),
    *("PCIDSK", "PDF", "PDS4", "PGDUMP", "PLSCENES", "PMTiles", "S57", "SQLite", "SXF", "Selafin", "TopoJSON", "VDV"),
    *("VFK", "VICAR", "WAsP", "WFS", "XLSX"),
)
"""Drivers that GDAL does not load in the sandboxed process: a second line of defence."""


def split_layer(path: str) -> tuple[str, str]:
    """A file and a layer in it, as QGIS names them; the path itself and "" where it names none.

    >>> split_layer("areas.gpkg|layername=fields"), split_layer("areas.gpkg")
    (('areas.gpkg', 'fields'), ('areas.gpkg', ''))
    """
    file, _, layer = path.partition(_LAYER)
    return file, layer


def vector_files(path: str) -> list[str]:
    """The files that polygons at a path are read from: those of a Shapefile, or the one file."""
    file, _ = split_layer(path)
    stem, suffix = os.path.splitext(file)
    if suffix.lower() != ".shp":
        return [file]
    return [one for part in _SHAPEFILE for one in (stem + part, stem + part.upper()) if os.path.isfile(one)] or [file]


def vector_digest(path: str) -> str:
    """The sha256, in hexadecimal, of the files that polygons at a path are read from. Raises `OSError`."""
    digest = hashlib.sha256()
    for file in vector_files(path):
        digest.update(read_file(file))
    return digest.hexdigest()


def vector_driver(path: str) -> str:
    """GDAL's driver for a file by its first bytes, "" where it is in none of these formats. Raises `OSError`."""
    with open_regular(path) as file:
        head = file.read(_HEAD_BYTES)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<kml" in head:
        return "KML"
    return next((driver for magic, driver in _MAGIC.items() if head.startswith(magic)), "")


def read_vector(path: str, driver: str, subject: str, *, placed: bool) -> dict[str, Any]:
    """The polygons of a layer as a GeoJSON FeatureCollection of older form, which names its CRS where that is known.

    path: may name a layer, as `split_layer` reads it.
    driver: of `vector_driver`.
    subject: names the file in errors.
    placed: whether a CRS must be stated.

    Raises `RequestError` for a file that cannot be read, one with several layers of which none is named, one with
    changes that another program has not written yet, and one without the CRS that is needed.
    """
    file, layer = split_layer(path)
    name = NAMES[driver]
    if driver == "GPKG" and os.path.isfile(f"{file}-wal") and os.path.getsize(f"{file}-wal"):
        remedy = "Close it there (in QGIS: remove its layers, or end QGIS), or save the layer to another file"
        raise RequestError(subject, "must not be in use by another program", value="changes beside it", remedy=remedy)
    function, arguments = f"{__name__}:load_layer", (os.path.abspath(file), layer, driver, subject)
    try:
        found = run_sandboxed(function, *arguments, seconds=SCAN_SECONDS, megabytes=SCAN_MEMORY_MB)
    except SandboxError as error:
        why = {"time": "it takes too long", "memory": "it needs too much memory", "died": "GDAL crashes"}
        raise _broken(subject, name, why.get(error.code, error.value or error.code)) from error
    if placed and "crs" not in found:
        value = "a Shapefile without a .prj" if driver == "ESRI Shapefile" else f"a {name} without one"
        remedy = "Save the layer again with its CRS, for example from QGIS as GeoPackage"
        raise RequestError(subject, "must state its coordinate reference system", value=value, remedy=remedy)
    return found


def load_layer(path: str, layer: str, driver: str, subject: str) -> dict[str, Any]:
    """`read_vector` in this process, which must be a sandboxed one. Raises `RequestError`."""
    os.environ["OGR_SKIP"] = ",".join(BLOCKED)
    try:
        import pyogrio
        from pyogrio import raw
    finally:
        del os.environ["OGR_SKIP"]  # rasterio has a GDAL of its own
    pyogrio.set_gdal_config_options({"CPL_VSIL_CURL_ALLOWED_FILENAME": "nothing"})
    name = NAMES[driver]
    try:
        every = pyogrio.list_layers(path)
        layers = {str(one): str(kind) for one, kind in every if kind is not None}
        if not len(every):
            raise _broken(subject, name, "it has no layers")  # noqa: TRY301 - as it is
        chosen = _choose_layer(layers, layer, subject, name)
        about = pyogrio.read_info(path, layer=chosen)
        if about["driver"] != driver:
            raise _broken(subject, name, f"GDAL takes it for {about['driver']}")  # noqa: TRY301 - as it is
        meta, numbers, shapes, columns = raw.read(path, layer=chosen, force_2d=True, return_fids=True)
        geometries = shapely.from_wkb(shapes)
        if driver == "ESRI Shapefile" and (lost := _lost_shapes(path, geometries, numbers)):
            raise _broken(subject, name, f"{lost} of its shapes cannot be read")  # noqa: TRY301 - as it is
    except LimnerError:
        raise
    except Exception as error:  # of GDAL, by what is broken
        raise _broken(subject, name, excerpt(str(error))) from error
    rows = zip(*([_plain(value) for value in column.tolist()] for column in columns), strict=True)
    fields = [str(field) for field in meta["fields"]]
    properties = list(rows) if fields else [()] * len(geometries)
    features = [
        {
            "type": "Feature",
            "properties": dict(zip(fields, values, strict=True)),
            "geometry": None if geometry is None or geometry.is_empty else shapely.geometry.mapping(geometry),
        }
        for geometry, values in zip(geometries, properties, strict=True)
    ]
    crs = str(meta["crs"] or "")
    stated = crs and "undefined" not in crs.lower()  # GeoPackage has two that mean so
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if stated else {}
    return {"type": "FeatureCollection", "features": features, **named}


def _choose_layer(layers: dict[str, str], layer: str, subject: str, name: str) -> str:
    """The layer that is named, or the only one that may hold polygons. Raises `RequestError`."""
    listed = ", ".join(f"{one} ({kind})" for one, kind in layers.items())
    polygonal = [one for one, kind in layers.items() if "Polygon" in kind or "Surface" in kind or kind == "Unknown"]
    if layer in layers or (not layer and len(polygonal) == 1):
        return layer or polygonal[0]
    example = (polygonal or list(layers) or ["NAME"])[0]
    remedy = f"Add a layer to the path, as QGIS does: '{Path(subject).name}{_LAYER}{example}'"
    if layer or polygonal:
        raise RequestError(subject, "must name one of the layers of the file", value=excerpt(listed), remedy=remedy)
    raise RequestError(
        subject,
        "must contain a polygon",
        value=f"a {name} with the layers {excerpt(listed)}" if layers else f"a {name} of tables without geometry",
        remedy="Give a file with a layer of polygons",
    )


def _lost_shapes(path: str, geometries: Any, numbers: Any) -> int:
    """How many shapes of a Shapefile are lost: none, though its index states more than a null shape's two words."""
    index = next(file for file in vector_files(path) if file.lower().endswith(".shx"))
    words = np.frombuffer(read_file(index)[100:], dtype=">i4")[1::2]
    return sum(int(words[at]) > 2 for geometry, at in zip(geometries, numbers, strict=True) if geometry is None)


def _plain(value: object) -> object:
    """A field's value for JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _broken(subject: str, name: str, why: str) -> RequestError:
    remedy = "Check that it is complete, or save the layer again, for example from QGIS"
    return RequestError(subject, f"must be a readable {name}", value=why, remedy=remedy)
