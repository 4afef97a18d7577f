"""Coordinate systems as files name them, read by PROJ without a network and without any file but PROJ's own."""
# pyproj leaves its functions' **kwargs untyped:
# pyright: reportUnknownMemberType=false

import pyproj
from pyproj.exceptions import ProjError
from pyproj.network import set_network_enabled  # pyright: ignore[reportPrivateImportUsage] - documented, not re-exported

from .errors import ReadError, RequestError, shown
from .raster.metadata import Crs, names_local_file


def parse_crs(wkt: str) -> pyproj.CRS:
    """The coordinate system. Raises `ReadError` where PROJ cannot read it, or it names files that are not PROJ's."""
    try:
        crs = pyproj.CRS.from_user_input(wkt)
        texts = (wkt, crs.to_wkt())
    except (ProjError, UnicodeError) as error:
        raise _unusable(wkt, str(error)) from error
    if any(map(names_local_file, texts)):
        raise _unusable(wkt, "it names a file that is not one of PROJ's own")
    return crs


def stated_crs(text: str) -> Crs:
    """The coordinate system that the user names. Raises `RequestError` where there is no such one."""
    try:
        crs = parse_crs(text)
    except ReadError as error:
        raise RequestError(
            "--crs", "it must name a coordinate system", value=error.value, remedy="Give such as --crs EPSG:32618"
        ) from error
    axis = crs.axis_info[0] if crs.axis_info else None
    name, factor = (axis.unit_name.lower(), axis.unit_conversion_factor) if axis else ("", 0.0)
    if crs.is_geographic:
        return Crs(crs.to_wkt(), "deg" if name == "degree" else "crs", crs.to_string())
    return Crs(crs.to_wkt(), "m" if factor == 1.0 and name in {"metre", "meter", "m"} else "crs", crs.to_string())


def transformer(wkt: str, source: pyproj.CRS, target: pyproj.CRS | str) -> pyproj.Transformer:
    """The best transformation with what is on this machine; x is east. Raises `ReadError` where there is none.

    `wkt` is what an error shows. The network is shut first: what a run gives must not depend on a server.
    """
    set_network_enabled(active=False)
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except (ProjError, UnicodeError) as error:
        raise _unusable(wkt, str(error)) from error


def _unusable(wkt: str, why: str) -> ReadError:
    return ReadError(
        "coordinate reference system",
        "it must be one that PROJ knows",
        value=f"{shown(wkt, 120)} ({shown(why, 200)})",
        remedy="Give the file a CRS that `projinfo` accepts, or remove its georeference to work in pixels",
    )
