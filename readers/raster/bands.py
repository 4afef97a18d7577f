"""Sensors as data: which band is which colour, and what a band's numbers are.

Sources: Sentinel-2 products specification (S2-PDGS-TAS-DI-PSD) for band numbers, quantification value, no-data 0 and
the offset of processing baseline 04.00; Landsat 8-9 and Landsat 4-7 data format control books for band numbers and fill
0; Landsat Collection 2 Level 2 product guide for the surface reflectance scale. Common names are those of the STAC
electro-optical extension.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import ReadError, RequestError, did_you_mean
from ..image import Channel


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Physical value = native · `scale` + `offset`, a `quantity`."""

    scale: float = 1.0
    offset: float = 0.0
    quantity: str = "number"


@dataclass(frozen=True, slots=True)
class Sensor:
    """One kind of product: band id → common name, band id → radiometry, and the value that means no data.

    `ordered` says that the product always holds these bands in this order, so that they need no names in the file.
    `advice` is what to tell a person where the radiometry is not fixed by the kind of product.
    """

    name: str
    bands: Mapping[str, str]
    radiometry: Mapping[str, Radiometry]
    nodata: float | None = 0
    ordered: bool = False
    advice: str = ""

    def band_called(self, name: str) -> str:
        """The id of the band whose common name that is; the name itself where it is no common name of the sensor."""
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
    "Top-of-atmosphere reflectance needs the scene's metadata: keep its MTL.txt or MTL.json beside the bands. Until "
    "then the values are plain numbers."
)


def _sensor(
    name: str, bands: Mapping[str, str], radiometry: Radiometry | None, *, nodata: float | None = 0
) -> tuple[str, Sensor]:
    optical = {band: radiometry for band in bands if radiometry is not None and not band.startswith("ST_")}
    advice = "" if radiometry or not name.startswith("landsat") else _LANDSAT_ADVICE
    return name, Sensor(name, bands, optical, nodata, ordered=nodata is None, advice=advice)


_LANDSAT_SURFACE = Radiometry(2.75e-5, -0.2, "surface_reflectance")

SENSORS: Mapping[str, Sensor] = dict(
    (
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
)
"""Every sensor that `--sensor` may name. "landsat-8-…" is Landsat 8 and 9, "landsat-5-…" 4 and 5."""

COMMON_NAMES = frozenset(name for sensor in SENSORS.values() for name in sensor.bands.values())

_BAND = re.compile(r"(?<![A-Za-z0-9])((?:SR_|ST_)?B(?:6_VCID_[12]|8A|1[0-2]|0?[1-9]))(?![A-Za-z0-9])", re.IGNORECASE)
_LANDSAT = re.compile(r"(?<![A-Za-z0-9])L([CETO])0([45789])_L([12])[A-Z]{2}_")
_SAFE = re.compile(r"(?<![A-Za-z0-9])S2[A-Z]_MSI(L1C|L2A)_\w*?_N(\d{4})_")
_BASELINE_WITH_OFFSET = 400


def band_token(name: str) -> re.Match[str] | None:
    """Where a file or band name holds its band's id (the last place), or None: `B02`, `B8A`, `SR_B4`, `B6_VCID_1`."""
    found = list(_BAND.finditer(name))
    return found[-1] if found else None


def sensor_named(name: str) -> Sensor:
    """The sensor of that name. Raises `RequestError` that lists them."""
    if name in SENSORS:
        return SENSORS[name]
    raise RequestError(
        "--sensor",
        f"it is one of {', '.join(SENSORS)}",
        value=name,
        remedy=f"{did_you_mean(name, SENSORS)}Name one of these, or leave it out and work with plain numbers",
    )


def sensor_of_product(name: str) -> Sensor | None:
    """The sensor that a product's or file's name states by its mission's naming convention, or None.

    A Sentinel-2 name states its processing baseline; from 04.00 on the numbers carry an offset of -1000.
    """
    if found := _SAFE.search(name):
        level = "sentinel-2-" + found[1].lower()
        return SENSORS[level + "-n0400" if int(found[2]) >= _BASELINE_WITH_OFFSET else level]
    if found := _LANDSAT.search(name):
        family = {"8": "8", "9": "8", "7": "7", "5": "5", "4": "5"}[found[2]]
        return SENSORS[f"landsat-{family}-l{found[3]}"]
    return None


def band_names(sensor: Sensor | None, names: Iterable[str]) -> Mapping[str, str]:
    """Band id → common name for names as files spell them ("B2" and "b02" are Sentinel-2's B02).

    Without a sensor only where the numbering is unmistakable: `B8A` or two digits (`B02`) are Sentinel-2's, while plain
    `B2` is blue for one mission and green for another and gets no colour.
    """
    given = list(names)
    bands = sensor.bands if sensor else _numbering(given)
    known: dict[str, str] = {}
    for name in given:
        band = name if name in bands else canonical(name, sentinel=bands is _SENTINEL_2)
        if band in bands:
            known[name] = bands[band]
        elif name.lower() in COMMON_NAMES:
            known[name] = name.lower()
    return known


def canonical(name: str, *, sentinel: bool = False) -> str:
    """A band id as its mission writes it: capitals, and for Sentinel-2 two digits."""
    upper = name.upper()
    return f"B{int(upper[1:]):02d}" if sentinel and re.fullmatch(r"B\d{1,2}", upper) else upper


def is_sentinel(sensor: Sensor | None, names: Iterable[str]) -> bool:
    """Whether band ids follow Sentinel-2's numbering."""
    return (sensor.bands if sensor else _numbering(list(names))) is _SENTINEL_2


def _numbering(names: Sequence[str]) -> Mapping[str, str]:
    upper = [name.upper() for name in names]
    if any(re.fullmatch(r"B8A|B0[1-9]", name) for name in upper):
        return _SENTINEL_2
    return {}


def describe(
    channels: Sequence[Channel], sensor: Sensor | None, measured: Mapping[str, Radiometry] | None = None
) -> tuple[tuple[Channel, ...], list[str]]:
    """Channels with the common names and radiometry that a sensor gives them, and notes.

    `measured` is what the scene's own metadata says, band id → radiometry, and goes before the sensor's. A scale or
    offset that a channel already has was stated by its file and goes before both; where they disagree a note says so.
    """
    if sensor is not None and sensor.ordered and len(channels) == len(sensor.bands):
        bands = tuple(sensor.bands)
        if not any(channel.common for channel in channels):
            channels = [replace(channel, name=band) for channel, band in zip(channels, bands, strict=True)]
    common = band_names(sensor, (channel.name for channel in channels))
    sentinel = is_sentinel(sensor, (channel.name for channel in channels))
    described: list[Channel] = []
    notes: list[str] = []
    for channel in channels:
        band = canonical(channel.name, sentinel=sentinel)
        stated = (measured or {}).get(band) or (sensor.radiometry.get(band) if sensor else None)
        named = replace(channel, common=common.get(channel.name, channel.common))
        if stated is not None:
            own = (channel.scale, channel.offset)
            if own == (1.0, 0.0):
                named = replace(named, scale=stated.scale, offset=stated.offset)
            elif own != (stated.scale, stated.offset):
                notes.append(
                    f"Channel {channel.name}: the file states scale {own[0]:g} and offset {own[1]:g}, which are used; "
                    f"{sensor.name if sensor else 'the metadata'} would be {stated.scale:g} and {stated.offset:g}."
                )
            named = replace(named, quantity=stated.quantity)
        described.append(named)
    if sensor is not None and sensor.advice and not measured:
        notes.append(sensor.advice)
    if sensor is None and any(band_token(name) for name in common):
        notes.append(
            "The bands are named as a known sensor's, but nothing says which product this is, so that the values are "
            f"plain numbers; state it with --sensor, one of {', '.join(SENSORS)}."
        )
    return tuple(described), notes


def resolve(channels: Sequence[Channel], wanted: Sequence[str]) -> tuple[str, ...]:
    """The `Channel.name` of each wanted common name, in that order.

    Raises `ReadError` that lists what is there, where one is missing or more than one channel claims it.
    """
    names: list[str] = []
    for common in wanted:
        found = [channel.name for channel in channels if channel.common == common]
        if len(found) != 1:
            there = ", ".join(f"{c.name} ({c.common})" if c.common else c.name for c in channels)
            raise ReadError(
                f"band {common!r}",
                "the image must have exactly one channel of each wanted name",
                value=f"{len(found)} of them; the image has {there}",
                remedy="Give the missing file, or name the channels with --sensor and --bands",
            )
        names.append(found[0])
    return tuple(names)
