"""The reports in a folder as assets of STAC: media types, roles, sizes, checksums, and the grids of rasters."""
# rasterio has no types:
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .class_map import NODATA, NONE
from .writer import ImageRecord, image_file

_MEDIA: Final = {
    ".csv": "text/csv",
    ".fgb": "application/vnd.flatgeobuf",
    ".geojson": "application/geo+json",
    ".gpkg": "application/geopackage+sqlite3",
    ".parquet": "application/vnd.apache.parquet",
    ".pmtiles": "application/vnd.pmtiles",
    ".png": "image/png",
    ".qml": "application/xml",
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
}
_ROLES: Final = {".png": ["overview"], ".qml": ["metadata", "style"]}
_OF_ALL: Final = {
    "areas.csv": ["metadata"],
    "files.csv": ["metadata"],
    "findings.csv": ["data"],
    "findings.geojson": ["data"],
    "findings.gpkg": ["data"],
    "summary.csv": ["metadata"],
}
"""Reports of all images together → their roles."""
_SHA256: Final = "1220"  # as a multihash: its code, and its length of 32 bytes
_NO_CLASS: Final = (
    {"value": NONE, "name": "none", "title": "none", "description": "None of the classes"},
    {"value": NODATA, "name": "nodata", "title": "no data", "description": "Not analysed, or no data", "nodata": True},
)


def shared_assets(folder: Path) -> dict[str, Any]:
    """The reports of all images in `folder`, by name."""
    return {name: _asset(path, roles) for name, roles in _OF_ALL.items() if _is_plain(path := folder / name)}


def image_assets(folder: Path, image: ImageRecord, classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The reports of one image in `folder`, by name; `classes` are those of its class map."""
    name = re.escape(image_file(folder, "", image.info.id, "").name)
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in _MEDIA or not _is_plain(path) or not re.fullmatch(rf"[a-z]+-{name}\.[a-z]+", path.name):
            continue
        found[path.name] = _asset(path, _ROLES.get(path.suffix, ["data"]))
        if path.suffix == ".tif":
            found[path.name] |= _grid(path)
        if path.name.startswith("classes-") and path.suffix == ".tif":
            found[path.name] |= {"nodata": NODATA, "classification:classes": [*classes, *_NO_CLASS]}
    return found


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _asset(path: Path, roles: Sequence[str]) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "href": f"./{path.name}",
        "type": _MEDIA[path.suffix],
        "title": path.name,
        "roles": list(roles),
        "file:size": path.stat().st_size,
        "file:checksum": _SHA256 + digest,
    }


def _grid(path: Path) -> dict[str, Any]:
    """The grid of a raster: its rows and columns, and its transform where it has one."""
    import rasterio

    with rasterio.open(path) as raster:
        found: dict[str, Any] = {"data_type": raster.dtypes[0], "proj:shape": [raster.height, raster.width]}
        return found if raster.crs is None else found | {"proj:transform": list(raster.transform)[:6]}
