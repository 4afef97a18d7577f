"""STAC items: which of their assets are bands in files beside them, and what the item states of these.

Names and fields are those of the STAC item specification 1.0 and 1.1 with its extensions eo and raster.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote

from ..errors import ReadError, excerpt
from ..files import parse_json, read_file
from .bands import COMMON_NAMES, MAX_METADATA_BYTES, match_band
from .vrt import is_below

ACQUIRED: Final = "acquired"
BASELINE: Final = "processing_baseline"
"""Facts of an image that an item states: the date of acquisition, and the processing baseline of Sentinel-2."""

_APPLIED: Final = "earthsearch:boa_offset_applied"
_NO_BANDS = {"thumbnail", "overview", "visual", "metadata", "cloud", "cloud-shadow", "snow-ice", "water-mask"}
"""Roles of assets that are no bands."""


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


def read_item(path: str) -> StacItem:
    """The item in a local file. An asset counts where it lies in or below the item's folder, links resolved.

    Nothing is fetched. Raises `ReadError` where the file is no item.
    """
    try:
        content = read_file(path, max_bytes=MAX_METADATA_BYTES, regular=True)
        item = _mapping(parse_json(content))
    except (OSError, ValueError) as error:
        remedy = "Fetch the item again"
        raise ReadError(
            path, "must be a STAC item in readable JSON", value=excerpt(str(error)), remedy=remedy
        ) from error
    if item.get("type") != "Feature":
        found, remedy = excerpt(str(item.get("type", "no type"))), "Give one of its items, saved beside its assets"
        raise ReadError(path, "must be one STAC item", value=found, remedy=remedy)
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
            assets.append(_asset(key, found, asset))
    facts, note = _facts(item), ""
    if _mapping(item.get("properties")).get(_APPLIED) is True:  # though its bands may state an offset all the same
        stated = sorted({f"{asset.offset:g}" for asset in assets if asset.offset})
        note = f"No offset is applied, as {_APPLIED} of the STAC item says, against {', '.join(stated)} of its bands."
        assets, facts, note = [replace(asset, offset=0.0) for asset in assets], (), note if stated else ""
    return StacItem(excerpt(str(item.get("id", "")), 80), tuple(assets), tuple(left_out), facts, note)


def _local_file(item: str, href: str) -> tuple[str, str]:
    """The file of an asset, or why it is not read."""
    if "://" in href or href.startswith("/vsi") or not href:
        return "", "it is not on this machine"
    folder = os.path.dirname(os.path.abspath(item))
    for name in (href, unquote(href)):
        path = os.path.normpath(os.path.join(folder, name))
        if os.path.isfile(path):
            inside = is_below(os.path.realpath(path), os.path.realpath(folder))
            return (path, "") if inside else ("", "it lies outside of the item's folder")
    return "", "its file is missing"


def _asset(key: str, path: str, asset: Mapping[str, Any]) -> Asset:
    """A band by its names; scale and offset are those of the raster extension in both versions."""
    described = [_mapping(next(iter(_list(asset.get(field))), None)) for field in ("bands", "eo:bands", "raster:bands")]
    merged = {
        name.removeprefix("raster:").removeprefix("eo:"): v for one in (asset, *described) for name, v in one.items()
    }
    common = str(merged.get("common_name", "")).lower()
    token = match_band(str(merged.get("name", ""))) or match_band(key) or match_band(Path(path).name)
    return Asset(
        token[0] if token else key,
        path,
        common if common in COMMON_NAMES else None,
        _number(merged.get("scale")),
        _number(merged.get("offset")),
        _number(merged.get("nodata")),
    )


def _facts(item: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    properties = _mapping(item.get("properties"))
    try:
        day = [(ACQUIRED, str(date.fromisoformat(str(properties.get("datetime"))[:10])))]
    except ValueError:  # null, where the item spans a time
        day = []
    baseline = re.fullmatch(r"\d\d\.\d\d", str(properties.get("s2:processing_baseline")))
    return (*day, *([(BASELINE, baseline[0])] if baseline else []))


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
