"""Sensors and bands: common names, radiometry and nodata by kind of product, and the metadata of single products.

Sources: Sentinel-2 products specification (S2-PDGS-TAS-DI-PSD) for band numbers, quantification value, nodata 0 and
the offset of processing baseline 04.00; Landsat 8-9 and Landsat 4-7 data format control books for band numbers and fill
0; Landsat Collection 2 Level 2 product guide for the surface reflectance scale. Common names are those of the STAC
electro-optical extension.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..errors import ReadError, RequestError, did_you_mean, excerpt
from ..image import Channel


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Physical value = native · `scale` + `offset`, a `quantity`."""

    scale: float = 1.0
    offset: float = 0.0
    quantity: str = "number"


@dataclass(frozen=True, slots=True)
class Sensor:
    """One kind of product of a sensor."""

    name: str
    bands: Mapping[str, str]
    """Band id → common name."""
    radiometry: Mapping[str, Radiometry]
    """Band id → radiometry, where the kind of product fixes it."""
    nodata: float | None = 0
    ordered: bool = False
    """Whether files always hold these bands in this order, so that they need no names."""
    advice: str = ""
    """A note for the user where the radiometry is not fixed by the kind of product."""

    def find_band(self, name: str) -> str:
        """The id of the band with that common name, else the name itself."""
        return next((band for band, common in self.bands.items() if common == name.lower()), name)


_SENTINEL_2 = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071", "B06": "rededge075",
    "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B10": "cirrus", "B11": "swir16",
    "B12": "swir22",
}  # fmt: skip
_OLI = {
    "B1": "coastal", "B2": "blue", "B3": "green", "B4": "red", "B5": "nir", "B6": "swir16", "B7": "swir22", "B8": "pan",
    "B9": "cirrus", "B10": "lwir11", "B11": "lwir12",
}  # fmt: skip
_ETM = {
    "B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir16", "B6": "lwir", "B6_VCID_1": "lwir",
    "B6_VCID_2": "lwir", "B7": "swir22", "B8": "pan",
}  # fmt: skip
_TM = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir16", "B6": "lwir", "B7": "swir22"}
_OLI_L2 = {f"SR_B{n}": _OLI[f"B{n}"] for n in range(1, 8)} | {"ST_B10": "lwir11"}
_TM_L2 = {f"SR_B{n}": _TM[f"B{n}"] for n in (1, 2, 3, 4, 5, 7)} | {"ST_B6": "lwir"}

_LANDSAT_ADVICE = (
    "Top-of-atmosphere reflectance needs the scene's metadata: keep its MTL.txt or MTL.json beside the bands. Without "
    "it the values are digital numbers."
)


def _sensor(name: str, bands: Mapping[str, str], radiometry: Radiometry | None, *, nodata: float | None = 0) -> Sensor:
    optical = {band: radiometry for band in bands if radiometry is not None and not band.startswith("ST_")}
    advice = "" if radiometry or not name.startswith("landsat") else _LANDSAT_ADVICE
    return Sensor(name, bands, optical, nodata, ordered=nodata is None, advice=advice)


_LANDSAT_SURFACE = Radiometry(2.75e-5, -0.2, "surface_reflectance")

SENSORS: Mapping[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        _sensor("sentinel-2-l1c", _SENTINEL_2, Radiometry(1e-4, 0.0, "toa_reflectance")),
        _sensor("sentinel-2-l1c-n0400", _SENTINEL_2, Radiometry(1e-4, -0.1, "toa_reflectance")),
        _sensor("sentinel-2-l2a", _SENTINEL_2, Radiometry(1e-4, 0.0, "surface_reflectance")),
        _sensor("sentinel-2-l2a-n0400", _SENTINEL_2, Radiometry(1e-4, -0.1, "surface_reflectance")),
        _sensor("landsat-8-l1", _OLI, None),
        _sensor("landsat-7-l1", _ETM, None),
        _sensor("landsat-5-l1", _TM, None),
        _sensor("landsat-8-l2", _OLI_L2, _LANDSAT_SURFACE),
        _sensor("landsat-7-l2", _TM_L2, _LANDSAT_SURFACE),
        _sensor("landsat-5-l2", _TM_L2, _LANDSAT_SURFACE),
        _sensor("planetscope-4", {"blue": "blue", "green": "green", "red": "red", "nir": "nir"}, None, nodata=None),
        _sensor("naip-4", {"red": "red", "green": "green", "blue": "blue", "nir": "nir"}, None, nodata=None),
    )
}
"""Every sensor that `--sensor` may name. "landsat-8-…" is Landsat 8 and 9, "landsat-5-…" 4 and 5."""

COMMON_NAMES = frozenset(name for sensor in SENSORS.values() for name in sensor.bands.values())
MAX_METADATA_BYTES = 16 * 2**20

_BAND = re.compile(r"(?<![A-Za-z0-9])((?:SR_|ST_)?B(?:6_VCID_[12]|8A|1[0-2]|0?[1-9]))(?![A-Za-z0-9])", re.IGNORECASE)
_LANDSAT = re.compile(r"(?<![A-Za-z0-9])L([CETO])0([45789])_L([12])[A-Z]{2}_")
_SAFE = re.compile(r"(?<![A-Za-z0-9])S2[A-Z]_MSI(L1C|L2A)_\w*?_N(\d{4})_")
BASELINE_WITH_OFFSET = 400
"""Processing baseline of Sentinel-2 from which on numbers have an offset: 04.00."""
_BY_USERS = 9999
LEVELS_UP = 4  # from IMG_DATA/R10m to the product folder
_REFETCH = "Fetch the product's metadata again, or remove it to work with digital numbers"


def match_band(name: str) -> re.Match[str] | None:
    """Where a file or band name holds a band id (the last place), or None: `B02`, `B8A`, `SR_B4`, `B6_VCID_1`."""
    found = list(_BAND.finditer(name))
    return found[-1] if found else None


def find_sensor(name: str) -> Sensor:
    """The sensor of that name. Raises `RequestError` that lists them."""
    if name in SENSORS:
        return SENSORS[name]
    remedy = f"{did_you_mean(name, SENSORS)}Name one of these, or leave it out and work with digital numbers"
    raise RequestError("--sensor", f"must be one of {', '.join(SENSORS)}", value=name, remedy=remedy)


def sensor_from_name(name: str) -> Sensor | None:
    """The sensor that a product or file name states by its mission's naming convention, or None.

    A Sentinel-2 name states its processing baseline; from 04.00 on the numbers carry an offset of -1000. Users who run
    the processor get the baseline 99.99, which says nothing.
    """
    if found := _SAFE.search(name):
        level, baseline = "sentinel-2-" + found[1].lower(), int(found[2])
        return SENSORS[level + "-n0400" if BASELINE_WITH_OFFSET <= baseline != _BY_USERS else level]
    if found := _LANDSAT.search(name):
        family = {"8": "8", "9": "8", "7": "7", "5": "5", "4": "5"}[found[2]]
        return SENSORS[f"landsat-{family}-l{found[3]}"]
    return None


def common_names(sensor: Sensor | None, names: Iterable[str]) -> Mapping[str, str]:
    """Name as files spell it ("B2", "b02") → common name.

    Without a sensor only where the numbering is unambiguous: `B8A` or two digits (`B02`) are Sentinel-2's, while `B2`
    is blue for one mission and green for another and gets no common name.
    """
    given = list(names)
    sentinel = is_sentinel2(sensor, given)
    bands = sensor.bands if sensor else _SENTINEL_2 if sentinel else {}
    known: dict[str, str] = {}
    for name in given:
        band = name if name in bands else canonical_band(name, sentinel=sentinel)
        if band in bands:
            known[name] = bands[band]
        elif name.lower() in COMMON_NAMES:
            known[name] = name.lower()
    return known


def canonical_band(name: str, *, sentinel: bool = False) -> str:
    """A band id as its mission writes it: capitals, and for Sentinel-2 two digits."""
    upper = name.upper()
    return f"B{int(upper[1:]):02d}" if sentinel and re.fullmatch(r"B\d{1,2}", upper) else upper


def is_sentinel2(sensor: Sensor | None, names: Iterable[str]) -> bool:
    """Whether band ids follow Sentinel-2's numbering."""
    if sensor:
        return sensor.bands is _SENTINEL_2
    return any(re.fullmatch(r"B8A|B0[1-9]", name.upper()) for name in names)


def describe_channels(
    channels: Sequence[Channel],
    sensor: Sensor | None,
    measured: Mapping[str, Radiometry] | None = None,
    source: str = "",
) -> tuple[tuple[Channel, ...], list[str]]:
    """Channels with the common names and radiometry of a sensor, and notes.

    `measured` is the radiometry in the scene's own metadata by band id and wins over the sensor's. A scale or offset
    that the file states for a channel wins over both; one note tells where they differ. `source` is what states the
    radiometry of the sensor or the metadata, in words.
    """
    if sensor is not None and sensor.ordered and len(channels) == len(sensor.bands):
        bands = tuple(sensor.bands)
        if not any(channel.common for channel in channels):
            channels = [replace(channel, name=band) for channel, band in zip(channels, bands, strict=True)]
    common = common_names(sensor, (channel.name for channel in channels))
    sentinel = is_sentinel2(sensor, (channel.name for channel in channels))
    described: list[Channel] = []
    differing: dict[tuple[tuple[float, float], tuple[float, float]], list[str]] = {}
    for channel in channels:
        band = canonical_band(channel.name, sentinel=sentinel)
        stated = (measured or {}).get(band) or (sensor.radiometry.get(band) if sensor else None)
        named = replace(channel, common=common.get(channel.name, channel.common))
        if stated is not None:
            own, of = (channel.scale, channel.offset), (stated.scale, stated.offset)
            if own == (1.0, 0.0):
                named = replace(named, scale=stated.scale, offset=stated.offset)
            elif not all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(own, of, strict=True)):  # tags of 32 bits
                differing.setdefault((own, of), []).append(channel.name)
            named = replace(named, quantity=stated.quantity)
        described.append(named)
    notes: list[str] = []
    for (own, of), names in differing.items():
        which = "" if len(names) == len(channels) else f" for {', '.join(names)}"
        other = source or f"by the sensor {sensor.name if sensor else ''}"
        numbers = f"scale {own[0]:g} and offset {own[1]:g} of the file are used{which}"
        notes.append(f"The {numbers}, against {of[0]:g} and {of[1]:g} {other}.")
    if sensor is not None and sensor.advice and not measured:
        notes.append(sensor.advice)
    if sensor is None and any(match_band(name) for name in common):
        notes.append(
            "The bands have names of a known sensor, but the product is unknown, so the values are digital numbers; "
            f"state it with --sensor, one of {', '.join(SENSORS)}."
        )
    return tuple(described), notes


def find_channels(channels: Sequence[Channel], common: Sequence[str]) -> tuple[str, ...]:
    """The `Channel.name` of each common name, in that order.

    Raises `ReadError` that lists the channels, where none or more than one has a name.
    """
    names: list[str] = []
    for name in common:
        found = [channel.name for channel in channels if channel.common == name]
        if len(found) != 1:
            listed = ", ".join(f"{c.name} ({c.common})" if c.common else c.name for c in channels)
            raise ReadError(
                f"band {name!r}",
                "must be exactly one channel of the image",
                value=f"{len(found)} of its channels {listed}",
                remedy="Give the missing file, or name the channels with --sensor and --bands",
            )
        names.append(found[0])
    return tuple(names)


def read_radiometry(uri: str, sensor: Sensor) -> Mapping[str, Radiometry]:
    """Band id → radiometry from the product metadata of a band's file (or folder); empty where there is none.

    Landsat level 1: top-of-atmosphere reflectance = (REFLECTANCE_MULT · Q + REFLECTANCE_ADD) / sin(SUN_ELEVATION), by
    the Landsat data format control books; thermal bands stay digital numbers. Sentinel-2: (Q + ADD_OFFSET) /
    QUANTIFICATION_VALUE. Raises `ReadError` where the metadata cannot be read.
    """
    path = find_product_metadata(uri, sensor)
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            content = file.read(MAX_METADATA_BYTES + 1)
    except OSError as error:
        raise ReadError(str(path), "must be readable", value=str(error), remedy="Check the path and rights") from error
    if len(content) > MAX_METADATA_BYTES:
        raise ReadError(str(path), f"must not be larger than {MAX_METADATA_BYTES // 2**20} MiB", remedy=_REFETCH)
    text = content.decode("utf-8", errors="replace")
    return _sentinel_radiometry(text, path) if sensor.name.startswith("sentinel") else _landsat_radiometry(text, path)


def find_product_metadata(uri: str, sensor: Sensor) -> Path | None:
    """The metadata file (MTD or MTL) of the product that a file or folder belongs to, or None."""
    start = Path(uri)
    if sensor.name.startswith("sentinel"):
        return find_level_metadata(uri, "L1C" if "l1c" in sensor.name else "L2A")
    folder = start if start.is_dir() else start.parent
    if not re.fullmatch(r"landsat-\d-l1", sensor.name):
        return None
    for ending in ("MTL.json", "MTL.txt"):
        for found in sorted(folder.glob(f"*{ending}")):
            if start.is_dir() or start.name.startswith(found.name.removesuffix(ending)):
                return found
    return None


def find_level_metadata(uri: str, level: str) -> Path | None:
    """The metadata of level "L1C" or "L2A" of the Sentinel-2 product that a file or folder belongs to, or None."""
    start = Path(uri)
    folder = start if start.is_dir() else start.parent
    places = (place / f"MTD_MSI{level}.xml" for place in (folder, *folder.resolve().parents[:LEVELS_UP]))
    return next((path for path in places if path.is_file()), None)


def _sentinel_radiometry(text: str, path: Path) -> Mapping[str, Radiometry]:
    quantity = "toa_reflectance" if "L1C" in path.name else "surface_reflectance"
    bands = tuple(_SENTINEL_2)  # in the order of their numbers in the metadata
    found = re.search(r"<(?:BOA_)?QUANTIFICATION_VALUE(?:\s[^<>]*)?>([^<]*)", text)
    offsets = re.findall(r'<(?:RADIO|BOA)_ADD_OFFSET\s+band_id="(\d+)"\s*>([^<]*)', text)
    value = f"{found[1]}" if found else "none"
    try:
        divisor = float(found[1]) if found else 0.0
        known = {bands[int(at)]: float(offset) for at, offset in offsets if int(at) < len(bands)}
        if not (0 < divisor < math.inf and all(map(math.isfinite, known.values()))):
            raise ValueError(value)  # noqa: TRY301 - reported like a text that is no number
    except ValueError as error:
        rule = "must state the quantification value and the offsets as numbers"
        raise ReadError(str(path), rule, value=excerpt(str(error)), remedy=_REFETCH) from error
    return {band: Radiometry(1 / divisor, known.get(band, 0.0) / divisor, quantity) for band in bands}


def _landsat_radiometry(text: str, path: Path) -> Mapping[str, Radiometry]:
    try:
        if path.suffix == ".json":
            values = dict(_flatten(json.loads(text)))
        else:
            pairs = re.findall(r"^[ \t]*(\w+)[ \t]*=[ \t]*(\S+)[ \t\r]*$", text, re.MULTILINE)
            values = {key: value.strip('"') for key, value in pairs}
        sine = math.sin(math.radians(float(values["SUN_ELEVATION"])))
        bands: dict[str, Radiometry] = {}
        for key, value in values.items():
            if found := re.fullmatch(r"REFLECTANCE_MULT_BAND_(\w+)", key):
                add = float(values[f"REFLECTANCE_ADD_BAND_{found[1]}"])
                bands[f"B{found[1]}"] = Radiometry(float(value) / sine, add / sine, "toa_reflectance")
        if not all(math.isfinite(number) for band in bands.values() for number in (band.scale, band.offset)):
            raise ValueError("numbers that are not finite")  # noqa: TRY301 - reported like all others
    except (KeyError, ValueError, ArithmeticError, RecursionError) as error:
        rule = "must state SUN_ELEVATION and the reflectance factors as numbers"
        raise ReadError(str(path), rule, value=excerpt(str(error)), remedy=_REFETCH) from error
    if sine <= 0:
        found = f"SUN_ELEVATION {values['SUN_ELEVATION']}"
        remedy = "Remove the metadata file to work with digital numbers"
        raise ReadError(str(path), "must state a sun above the horizon", value=found, remedy=remedy)
    return bands


def _flatten(tree: Any) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in cast("dict[str, Any]", tree).items():
            if isinstance(value, dict):
                yield from _flatten(cast("dict[str, Any]", value))
            else:
                yield key, str(value)
