"""STAC items: which of their assets are bands in files beside them or on servers, and what the item states of these.

Names and fields are those of STAC 1.0 and 1.1 with the extensions eo, raster and projection. Collections, catalogues
and collections of items (FeatureCollection) are followed to items in files in or below their folder, or on their own
server where they are given by their URL.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urljoin, urlsplit

from ..errors import ReadError, excerpt
from ..files import is_remote, parse_json, read_file
from ..servers import AddressTerms
from ..slide.zarr_store import WebStore
from .acquisition import ACQUIRED, ACQUISITION, BASELINE, interval_text, item_interval
from .bands import COMMON_NAMES, MAX_METADATA_BYTES, match_band
from .gdal import keep_query
from .vrt import is_below

_APPLIED: Final = "earthsearch:boa_offset_applied"
MAX_ITEMS: Final = 2000
"""Items that a collection may list, and files that it may link to."""

ASK: Final = "which --set reader_options.remote_assets=true reads"
"""How an asset on a server can be read: the end of a reason."""

_LISTS = {"Collection", "Catalog", "FeatureCollection"}
_NO_BANDS = {"thumbnail", "overview", "visual", "metadata", "cloud", "cloud-shadow", "snow-ice", "water-mask"}
"""Roles of assets that are no bands."""

_SERVERS: Final = ("https://", "http://", "s3://", "gs://", "az://")
_ITEM_URL: Final = re.compile(r"https?://[^?#]+(\.(geo)?json|/collections/[^/?#]+/items/[^/?#]+)")
_TERMS: Final = AddressTerms(
    server="STAC server",
    example="For example https://example.org/items/scene.json",
    remedy="Save the item as a file, and give that with --set reader_options.remote_assets=true",
    content="items",
    insecure="Give an https address, or save the item as a file",
)


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
    """A band of an item, in a file."""

    name: str
    path: str
    """A local path, or a URL without its query, which `keep_query` has."""
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
    """An item with its assets that can be read."""

    id: str
    assets: tuple[Asset, ...]
    left_out: tuple[str, ...]
    """Each asset that is not read, with the reason."""
    facts: tuple[tuple[str, str], ...]
    note: str = ""
    """What contradicts itself in the item."""


def is_item_url(uri: str) -> bool:
    """Whether a URL is that of an item, or of a list of items, by its name: JSON, or as STAC APIs name items."""
    return _ITEM_URL.fullmatch(uri) is not None


def holds_items(path: str) -> bool:
    """Whether a file of STAC holds or lists items, instead of being one."""
    try:
        return str(_read(path).get("type")) in _LISTS
    except ReadError:
        return False


def read_item(path: str, *, remote: bool = False) -> StacItem:
    """The item in a file or at a URL.

    An asset counts where it lies in or below the item's folder, links resolved, or on the item's own server; with
    `remote` also on any other. None is opened. Raises `ReadError` where the file is no item, and `RequestError` for a
    URL with a password or query.
    """
    content = _read(path)
    if content.get("type") != "Feature":
        found, remedy = excerpt(str(content.get("type", "no type"))), "Give one of its items, saved beside its assets"
        raise ReadError(path, "must be one STAC item", value=found, remedy=remedy)
    return _item(path, content, remote=remote)


def keep_queries(files: Sequence[str]) -> None:
    """Let this process open assets by their URLs without queries: those that the STAC items among files name."""
    if not any(map(is_remote, files)):
        return
    for file in (file for file in files if file.lower().endswith((".json", ".geojson")) or is_item_url(file)):
        if not is_remote(file) and not os.path.isfile(file):
            continue  # assets without a signature need it no more
        content = _read(file)
        for item in [content, *_list(content.get("features"))]:
            for asset in _mapping(_mapping(item).get("assets")).values():
                keep_query(urljoin(file, str(_mapping(asset).get("href", ""))))


def read_items(path: str, *, remote: bool = False) -> Iterator[tuple[str, StacItem | ReadError]]:
    """The files of the items that a collection, a catalogue or a collection of items holds or lists, with each item.

    Links are followed to files in or below its folder; `remote` as for `read_item`. Raises `ReadError` where the file
    cannot be read, and for more than `MAX_ITEMS` items.
    """
    waiting, known = [path], {_place(path)}
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
            yield current, _item(current, _mapping(feature), remote=remote)
        count += len(features)
        for link in _list(content.get("links")) if kind in {"Collection", "Catalog"} else ():
            if str(_mapping(link).get("rel")) not in {"item", "child", "items"}:
                continue
            found, reason = _locate(current, str(_mapping(link).get("href", "")), top)
            if reason:
                yield current, _unfollowed(current, str(_mapping(link).get("href", "")), reason)
            elif (place := _place(found)) not in known:
                known.add(place)
                waiting.append(found)
        if len(known) + count > MAX_ITEMS:
            remedy = "Give its parts one by one"
            raise ReadError(path, f"must list at most {MAX_ITEMS} STAC items", value="more", remedy=remedy)


def _unfollowed(path: str, href: str, reason: str) -> ReadError:
    remedy = "Save the items, with their assets, in or below the folder of the file that lists them"
    value = f"{excerpt(href.partition('?')[0])}: {reason}"
    return ReadError(path, "must link to STAC items in or below its folder", value=value, remedy=remedy)


def _read(path: str) -> Mapping[str, Any]:
    try:
        return _mapping(parse_json(_fetch(path) if is_remote(path) else _read_local(path)))
    except (OSError, ValueError) as error:
        remedy = "Fetch the item again"
        raise ReadError(
            path, "must be a STAC item in readable JSON", value=excerpt(str(error)), remedy=remedy
        ) from error


def _read_local(path: str) -> bytes:
    return read_file(path, max_bytes=MAX_METADATA_BYTES, regular=True)


def _fetch(url: str) -> bytes:
    folder, _, name = url.rpartition("/")
    with WebStore(folder, _TERMS, insecure=True) as store:
        found = store.get(name, MAX_METADATA_BYTES)
    if found is None:
        raise ReadError(url, "must exist on its server", value="404", remedy="Check the URL")
    return found


def _place(path: str) -> str:
    return path if is_remote(path) else os.path.realpath(path)


def _item(path: str, item: Mapping[str, Any], *, remote: bool) -> StacItem:
    properties = _mapping(item.get("properties"))
    assets: list[Asset] = []
    left_out: list[str] = []
    for key, content in _mapping(item.get("assets")).items():
        asset = _mapping(content)
        href, found = str(asset.get("href", "")), ""
        reason = "it is no band by its roles" if _NO_BANDS & {*map(str, _list(asset.get("roles")))} else ""
        if not reason:
            found, reason = _locate(path, href, remote=remote)
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


def _locate(item: str, href: str, top: str = "", *, remote: bool = False) -> tuple[str, str]:
    """The file or URL that an item or a list of items names, or why it is not read.

    A file lies in or below its folder or `top`; a URL is on its own server, or on any other with `remote`.
    """
    if is_remote(item) and href:
        href = urljoin(item, href)
    if href.startswith(_SERVERS):
        parts = urlsplit(href)
        if "@" in parts.netloc:
            return "", "its address holds a name or password"
        if parts[:2] == urlsplit(item)[:2] or remote:
            return keep_query(href), ""
        if not top:
            return "", f"it is on the server {excerpt(parts.netloc, 80)}, {ASK}"
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
