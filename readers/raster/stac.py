"""STAC items: which of their assets are bands in files beside them, and what the item states of these.

Names and fields are those of STAC 1.0 and 1.1 with the extensions eo, raster and projection. Collections, catalogues
and collections of items (FeatureCollection) are followed to items in files in or below their folder.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

from ..errors import ReadError, excerpt
from ..files import parse_json, read_file
from .acquisition import ACQUISITION, interval_text, item_interval
from .bands import COMMON_NAMES, MAX_METADATA_BYTES, match_band
from .vrt import is_below

ACQUIRED: Final = "acquired"
BASELINE: Final = "processing_baseline"
"""Facts of an image that an item states: the date of acquisition, and the processing baseline of Sentinel-2."""

_APPLIED: Final = "earthsearch:boa_offset_applied"
MAX_ITEMS: Final = 2000
"""Items that a collection may list, and files that it may link to."""

_LISTS = {"Collection", "Catalog", "FeatureCollection"}
_NO_BANDS = {"thumbnail", "overview", "visual", "metadata", "cloud", "cloud-shadow", "snow-ice", "water-mask"}
"""Roles of assets that are no bands."""


@dataclass(frozen=True, slots=True)
class StatedGrid:
    """The grid of an asset as its item states it: None for what it does not state."""

    crs: str | None = None
    """Authority and code, or WKT."""
    transform: tuple[float, ...] | None = None
    """Six numbers, row by row."""
    shape: tuple[int, int] | None = None
    """Rows and columns."""


@dataclass(frozen=True, slots=True)
class StatedBand:
    """One of several bands of an asset."""

    name: str
    common: str | None
    scale: float | None
    offset: float | None


@dataclass(frozen=True, slots=True)
class Asset:
    """A band of an item, in a local file."""

    name: str
    path: str
    common: str | None
    """STAC common name."""
    scale: float | None
    offset: float | None
    nodata: float | None
    bands: tuple[StatedBand, ...] = ()
    """The bands, where it has several."""
    grid: StatedGrid = StatedGrid()


@dataclass(frozen=True, slots=True)
class StacItem:
    """An item with its local assets."""

    id: str
    assets: tuple[Asset, ...]
    left_out: tuple[str, ...]
    """Each asset that is not read, with the reason."""
    facts: tuple[tuple[str, str], ...]
    note: str = ""
    """What contradicts itself in the item."""


def holds_items(path: str) -> bool:
    """Whether a file of STAC holds or lists items, instead of being one."""
    try:
        return str(_read(path).get("type")) in _LISTS
    except ReadError:
        return False


def read_item(path: str) -> StacItem:
    """The item in a local file. An asset counts where it lies in or below the item's folder, links resolved.

    Nothing is fetched. Raises `ReadError` where the file is no item.
    """
    content = _read(path)
    if content.get("type") != "Feature":
        found, remedy = excerpt(str(content.get("type", "no type"))), "Give one of its items, saved beside its assets"
        raise ReadError(path, "must be one STAC item", value=found, remedy=remedy)
    return _item(path, content)


def read_items(path: str) -> Iterator[tuple[str, StacItem | ReadError]]:
    """The files of the items that a collection, a catalogue or a collection of items holds or lists, with each item.

    Links are followed to files in or below its folder. Raises `ReadError` where the file cannot be read, and for more
    than `MAX_ITEMS` items.
    """
    waiting, known = [path], {os.path.realpath(path)}
    top, count = os.path.dirname(os.path.realpath(path)), 0
    while waiting:
        current = waiting.pop(0)
        try:
            content = _read(current)
        except ReadError as error:
            if current == path:
                raise
            yield current, error
            continue
        kind = content.get("type")
        features = [content] if kind == "Feature" else _list(content.get("features"))
        for feature in features if kind in {"Feature", "FeatureCollection"} else ():
            yield current, _item(current, _mapping(feature))
        count += len(features)
        for link in _list(content.get("links")) if kind in {"Collection", "Catalog"} else ():
            if str(_mapping(link).get("rel")) not in {"item", "child", "items"}:
                continue
            found, reason = _local_file(current, str(_mapping(link).get("href", "")), top)
            if reason:
                yield current, _unfollowed(current, str(_mapping(link).get("href", "")), reason)
            elif (real := os.path.realpath(found)) not in known:
                known.add(real)
                waiting.append(found)
        if len(known) + count > MAX_ITEMS:
            remedy = "Give its parts one by one"
            raise ReadError(path, f"must list at most {MAX_ITEMS} STAC items", value="more", remedy=remedy)


def _unfollowed(path: str, href: str, reason: str) -> ReadError:
    remedy = "Save the items, with their assets, in or below the folder of the file that lists them"
    value = f"{excerpt(href)}: {reason}"
    return ReadError(path, "must link to STAC items in or below its folder", value=value, remedy=remedy)


def _read(path: str) -> Mapping[str, Any]:
    try:
        return _mapping(parse_json(read_file(path, max_bytes=MAX_METADATA_BYTES, regular=True)))
    except (OSError, ValueError) as error:
        remedy = "Fetch the item again"
        raise ReadError(
            path, "must be a STAC item in readable JSON", value=excerpt(str(error)), remedy=remedy
        ) from error


def _item(path: str, item: Mapping[str, Any]) -> StacItem:
    properties = _mapping(item.get("properties"))
    assets: list[Asset] = []
    left_out: list[str] = []
    for key, content in _mapping(item.get("assets")).items():
        asset = _mapping(content)
        href, found = str(asset.get("href", "")), ""
        reason = "it is no band by its roles" if _NO_BANDS & {*map(str, _list(asset.get("roles")))} else ""
        if not reason:
            found, reason = _local_file(path, href)
        if reason:
            left_out.append(f"{excerpt(key, 40)}: {reason}")
        else:
            assets.append(replace(_asset(key, found, asset), grid=_stated_grid({**properties, **asset})))
    facts, note = _facts(item), ""
    if properties.get(_APPLIED) is True:  # though its bands may state an offset all the same
        stated = sorted({f"{asset.offset:g}" for asset in assets if asset.offset})
        note = f"No offset is applied, as {_APPLIED} of the STAC item says, against {', '.join(stated)} of its bands."
        assets, note = [replace(asset, offset=0.0) for asset in assets], note if stated else ""
        facts = tuple(fact for fact in facts if fact[0] == ACQUISITION)
    return StacItem(excerpt(str(item.get("id", "")), 80), tuple(assets), tuple(left_out), facts, note)


def _stated_grid(fields: Mapping[str, Any]) -> StatedGrid:
    """By proj:code (before version 2 proj:epsg) or proj:wkt2, proj:transform and proj:shape."""
    code, epsg, wkt = (fields.get(f"proj:{name}") for name in ("code", "epsg", "wkt2"))
    crs = next((one for one in (code, f"EPSG:{epsg}" if isinstance(epsg, int) else None, wkt) if one), None)
    numbers = [_number(one) for one in _list(fields.get("proj:transform"))]
    sides = [one for one in _list(fields.get("proj:shape")) if isinstance(one, int)]
    transform = tuple(one for one in numbers[:6] if one is not None)
    return StatedGrid(
        crs if isinstance(crs, str) else None,
        transform if len(transform) == 6 and len(numbers) in {6, 9} else None,
        (sides[0], sides[1]) if len(sides) == 2 else None,
    )


def _local_file(item: str, href: str, top: str = "") -> tuple[str, str]:
    """The file that a file names, in or below its folder or `top`, or why it is not read."""
    if "://" in href or href.startswith("/vsi") or not href:
        return "", "it is not on this machine"
    folder = os.path.dirname(os.path.abspath(item))
    for name in (href, unquote(href)):
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.isfile(path):
            inside = is_below(os.path.realpath(path), top or os.path.realpath(folder))
            return (path, "") if inside else ("", "it lies outside of the item's folder")
    return "", "its file is missing"


def _asset(key: str, path: str, asset: Mapping[str, Any]) -> Asset:
    """A band by its names; scale and offset are those of the raster extension in both versions."""
    described = [_mapping(next(iter(_list(asset.get(field))), None)) for field in ("bands", "eo:bands", "raster:bands")]
    merged = _plain(asset, *described)
    common = str(merged.get("common_name", "")).lower()
    lists = [_list(asset.get(field)) for field in ("bands", "eo:bands", "raster:bands")]
    several = max(map(len, lists))
    bands = [_plain(*(_mapping(one[at]) for one in lists if at < len(one))) for at in range(several)]
    token = match_band(str(merged.get("name", ""))) or match_band(key) or match_band(Path(path).name)
    return Asset(
        token[0] if token else key,
        path,
        common if common in COMMON_NAMES else None,
        _number(merged.get("scale")),
        _number(merged.get("offset")),
        _number(merged.get("nodata")),
        tuple(_band(at, one) for at, one in enumerate(bands, 1)) if several > 1 else (),
    )


def _band(number: int, fields: Mapping[str, Any]) -> StatedBand:
    common = str(fields.get("common_name", "")).lower()
    name = str(fields.get("name") or common or number)
    known = common if common in COMMON_NAMES else None
    return StatedBand(name, known, _number(fields.get("scale")), _number(fields.get("offset")))


def _plain(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a band without the prefixes of extensions; later parts win."""
    return {name.removeprefix("raster:").removeprefix("eo:"): v for one in parts for name, v in one.items()}


def _facts(item: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    properties = _mapping(item.get("properties"))
    try:
        day = [(ACQUIRED, str(date.fromisoformat(str(properties.get("datetime"))[:10])))]
    except ValueError:  # null, where the item spans a time
        day = []
    interval = interval_text(item_interval(properties))
    moment = [(ACQUISITION, interval)] if interval else []
    baseline = re.fullmatch(r"\d\d\.\d\d", str(properties.get("s2:processing_baseline")))
    return (*day, *moment, *([(BASELINE, baseline[0])] if baseline else []))


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
