"""How the numbers of a map become physical values: who states it, which statement counts, and whether values fit it.

From processing baseline 04.00 on, in use since 25 January 2022, the numbers of Sentinel-2 have an offset of 1000
(Sentinel-2 products specification, S2-PDGS-TAS-DI-PSD, issue 14.9). Older acquisitions have it too where they were
processed again (baseline 05.00 and later), so that a product's metadata and name count more than its date.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ReadError, RequestError
from ..image import Channel, ImageInfo, Mask, Pixels
from .acquisition import ACQUIRED, BASELINE
from .bands import BASELINE_WITH_OFFSET, LEVELS_UP, SENSORS, Radiometry, Sensor, find_level_metadata

VALUES: Final = "values"
"""The fact of an image that says in words how its numbers become physical values."""
SCALE_SOURCE: Final = "scale_source"
"""The fact of an image that names what states the scale and offset of its channels, where that is no tag of a file."""
BASELINE_UNKNOWN: Final = ("baseline", "not stated")
"""The fact of a Sentinel-2 image whose offset follows from nothing but its sensor or an old date."""

OFFSET_SINCE: Final = date(2022, 1, 25)
OFFSET: Final = 1000
WITH_OFFSET: Final = "-n0400"
"""The ending of sensors whose numbers have the offset."""

_BASELINE = re.compile(r"_N(?!9999)(\d{4})_")  # 9999: processed by a user, with or without an offset
_LEVEL_2A = re.compile(r"(?<![A-Za-z0-9])T\d{2}[A-Z]{3}_\d{8}T\d{6}_\w+_[126]0m(?![A-Za-z0-9])")
_TIMESTAMP = re.compile(r"(?<!\d)(20[12]\d)(\d\d)(\d\d)T\d{6}(?!\d)")
_DATE = re.compile(r"(?<!\d)(20[12]\d)(-?)(\d\d)\2(\d\d)(?!\d)")
_DATE_FOLDERS = re.compile(r"(?<!\d)(20[12]\d)/(\d\d?)/(\d\d?)/\d/")  # tiles/18/S/VG/2023/7/1/0/ of public buckets

_POSSIBLE: Final = (-0.02, 1.6)
"""Reflectance that land, water and clouds have, apart from a few pixels."""
_MOST_IMPOSSIBLE: Final = 0.25  # share of a band's valid pixels
_LARGEST_REFLECTANCE: Final = 2.0
_LARGEST_PERCENT: Final = 120.0
_SMALL_SCALE: Final = 1e-2  # of numbers that are not reflectance or per cent themselves
_SCALE_OF_8_BITS: Final = 1e-3
_SAMPLE: Final = 2**17  # pixels


class _Statement(NamedTuple):
    """A statement that the numbers of a Sentinel-2 image have the offset of baseline 04.00, or do not."""

    source: str
    offset: bool


@dataclass(frozen=True, slots=True)
class SensorChoice:
    """The sensor whose radiometry holds for an image."""

    sensor: Sensor
    source: str
    """Where its scale and offset come from, in words."""
    notes: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


def choose_sensor(
    info: ImageInfo, path: str, stated: Sensor | None, measured: Mapping[str, Radiometry], metadata: str
) -> SensorChoice | None:
    """The sensor of an image with the file `path`: the one that the user stated, else the one in the product's name.

    `measured` is the radiometry in the product's metadata, the file named `metadata`. A stated Sentinel-2 sensor
    without the ending `-n0400` leaves the offset open. It then follows from the metadata, else from the processing
    baseline in the name, else from the date of acquisition in the name of the file or its folders; a note tells where
    these differ. Raises `ReadError` where the user's statement contradicts the metadata or the name.
    """
    named = SENSORS.get(info.sensor)
    known = stated or named
    if known is None:
        return None
    level = _family(known)
    if stated is not None and named is not None and _family(named) is not level:
        raise _contradiction(path, stated, f"{named.name} by the name of the product")
    source = f"by the sensor {level.name}" if stated else "by the product's name"
    if measured:
        source = f"from the product's metadata ({metadata})"
    if not level.name.startswith("sentinel-2"):
        return SensorChoice(level, source)
    if stated is not None and (found := _other_level(path, level)):
        raise _contradiction(path, stated, found)
    statements = _statements(info, path, stated, measured)
    if not statements:
        return SensorChoice(level, f"{source} (processing baseline not stated)", facts=(BASELINE_UNKNOWN,))
    first = statements[0]
    chosen = SENSORS[level.name + WITH_OFFSET] if first.offset else level
    explicit = stated is not None and stated.name.endswith(WITH_OFFSET)
    if stated is not None and explicit and not first.offset:
        raise _contradiction(path, stated, f"no offset by {first.source}")
    one = next(iter((measured or chosen.radiometry).values()))
    used = formula(one.scale, one.offset)
    against = [other.source for other in statements[1:] if other.offset != first.offset]
    notes = [f"{used} is used by {first.source}, against {' and '.join(against)}."] if against else []
    if stated is not None and not explicit and first.offset and not measured:
        notes.append(
            f"{used} is used by {first.source}: the offset of baseline {_text(BASELINE_WITH_OFFSET)} and later, which "
            f"{stated.name} leaves open. If it was removed from the numbers, state --set reader_options.offset=0."
        )
    facts = (BASELINE_UNKNOWN,) if first.source.startswith("the date") and not first.offset else ()
    return SensorChoice(chosen, source if measured else f"by {first.source}", tuple(notes), facts)


def _family(sensor: Sensor) -> Sensor:
    """The sensor without its offset."""
    return SENSORS[sensor.name.removesuffix(WITH_OFFSET)]


def _contradiction(path: str, stated: Sensor, found: str) -> ReadError:
    rule = f"must be of the sensor {stated.name}, which --sensor or --preset states"
    remedy = "Leave --sensor and the preset out, so that the product says what it is, or state the sensor that it says"
    return ReadError(path, rule, value=found, remedy=remedy)


def _other_level(path: str, level: Sensor) -> str:
    """What says that a Sentinel-2 file is of the other processing level; "" where nothing does."""
    other = "L2A" if "l1c" in level.name else "L1C"
    if other == "L2A" and _LEVEL_2A.search(os.path.basename(path)):
        return f"a resolution in the file's name, as only {other} has it"
    own, beside = (find_level_metadata(path, one) for one in ("L1C" if other == "L2A" else "L2A", other))
    return f"{beside.name} of the product" if beside is not None and own is None else ""


def _statements(
    info: ImageInfo, path: str, stated: Sensor | None, measured: Mapping[str, Radiometry]
) -> list[_Statement]:
    """What is said of the offset, the most reliable first."""
    facts, statements = dict(info.facts), list[_Statement]()
    if measured:
        statements.append(_Statement("the product's metadata", any(one.offset for one in measured.values())))
    names = _names(path)
    if found := next((found for name in names if (found := _BASELINE.search(name + "_"))), None):
        baseline = int(found[1])
        statements.append(
            _Statement(f"processing baseline {_text(baseline)} in the product's name", baseline >= BASELINE_WITH_OFFSET)
        )
    elif BASELINE in facts:
        source = f"processing baseline {facts[BASELINE]} in the STAC item"
        statements.append(_Statement(source, int(facts[BASELINE].replace(".", "")) >= BASELINE_WITH_OFFSET))
    elif info.sensor.endswith(WITH_OFFSET):
        statements.append(_Statement("the processing baseline of the product", True))
    processed_again = any(one.offset for one in statements)
    if stated is not None and stated.name.endswith(WITH_OFFSET):
        statements.append(_Statement(f"the sensor {stated.name}", True))
    days, where = acquisition_dates(path), "its name"
    if ACQUIRED in facts:
        days, where = (date.fromisoformat(facts[ACQUIRED]),), "the STAC item"
    sides = {day >= OFFSET_SINCE for day in days}
    if len(sides) == 1 and not (processed_again and sides == {False}):
        statements.append(_Statement(f"the date {days[0]} in {where}", sides == {True}))
    return statements


def acquisition_dates(path: str) -> tuple[date, ...]:
    """The dates of acquisition in the name of a file, else in the names of its folders; () without one.

    A time stamp such as 20230614T154911 counts in a file's name and in five folders above it, and only the first, since
    later ones are of processing. A plain date (20230614, 2023-06-14) counts in the name of a file and its own folder.
    """
    names = _names(path)
    for at, name in enumerate(names):
        if found := _TIMESTAMP.search(name):
            return _days([found[1], found[2], found[3]])
        if at < 2 and (days := _days(*([y, m, d] for y, _, m, d in _DATE.findall(name)))):
            return days
    found = _DATE_FOLDERS.search("/".join(reversed(names)) + "/")
    return _days([found[1], found[2], found[3]]) if found else ()


def _names(path: str) -> list[str]:
    """The name of a file and those of its folders, from the inside out."""
    whole = path if "://" in path else os.path.abspath(path)
    return re.split(r"[/\\]", whole)[::-1][: LEVELS_UP + 2]


def _days(*found: Sequence[str]) -> tuple[date, ...]:
    days: list[date] = []
    for year, month, day in found:
        try:
            days.append(date(int(year), int(month), int(day)))
        except ValueError:  # digits that are no date
            continue
    return tuple(days)


def _text(baseline: int) -> str:
    return f"{baseline // 100:02d}.{baseline % 100:02d}"


def formula(scale: float, offset: float, number: str = "DN") -> str:
    """A linear conversion in words.

    >>> formula(1e-4, -0.1), formula(2.75e-5, -0.2), formula(1.0, 0.0)
    ('DN/10000 − 0.1', 'DN · 2.75e-05 − 0.2', 'DN')
    """
    divisor = round(1 / scale) if 1e-12 < scale < 1 else 0
    whole = divisor > 1 and math.isclose(1 / scale, divisor, rel_tol=1e-6)
    scaled = number if scale == 1 else f"{number}/{divisor}" if whole else f"{number} · {scale:.6g}"
    return scaled + (f" {'+' if offset > 0 else '−'} {abs(offset):.6g}" if offset else "")


def values_text(channels: Sequence[Channel], source: str) -> str:
    """How the numbers of channels become physical values, in words; `source` says by what.

    Channels are named where they differ.
    """
    groups: dict[str, list[str]] = {}
    for one in channels:
        number = "value" if one.dtype.startswith("float") else "DN"
        conversion = formula(one.scale, one.offset, number)
        text = one.quantity if conversion == number and one.quantity == "number" else f"{one.quantity} = {conversion}"
        groups.setdefault(text, []).append(one.name)
    texts = [text + (f" ({', '.join(names)})" if len(groups) > 1 else "") for text, names in groups.items()]
    return "; ".join(texts) + (f", {source}" if source else "")


def implausible_values(
    info: ImageInfo, channels: Sequence[Channel], pixels: Pixels, valid: Mask
) -> RequestError | None:
    """The error for reflectance that cannot be, None where values are plausible.

    channels: those of `pixels` (H, W, C), the native numbers of an overview; `valid` (H, W).

    Numbers up to 2, or floats up to 120, are reflectance or per cent already and must not be scaled again, and 8 bits
    do not hold a sensor's digital numbers. A quarter of a band's pixels below −0.02 or above 1.6 contradict the scale
    or offset.
    """
    places = [at for at, one in enumerate(channels) if one.quantity.endswith("reflectance")]
    numbers = _sample(pixels, valid, places)
    if not numbers.size:
        return None
    chosen = [channels[at] for at in places]
    low, high = np.percentile(numbers, (1, 99))
    used = dict(info.facts).get(VALUES, "") or values_text(chosen, "")
    found = f"numbers from {low:.4g} to {high:.4g}, and {used}"
    largest = _LARGEST_PERCENT if any(one.dtype.startswith("float") for one in chosen) else _LARGEST_REFLECTANCE
    scale = max(one.scale for one in chosen)
    if scale < _SMALL_SCALE and low >= -1 and high <= largest:
        already = ("reflectance", "1") if high <= _LARGEST_REFLECTANCE else ("reflectance in per cent", "0.01")
        remedy = f"State --set reader_options.scale={already[1]} if they are {already[0]} already"
        return RequestError(info.uri, "must hold the digital numbers that its scale is for", value=found, remedy=remedy)
    if scale <= _SCALE_OF_8_BITS and all(one.dtype == "uint8" for one in chosen):
        remedy = "Give the bands themselves and not a picture of them, or state --set reader_options.scale=NUMBER"
        rule = "must hold digital numbers of more than 8 bits for its scale"
        return RequestError(info.uri, rule, value=found, remedy=remedy)
    for at, one in enumerate(chosen):
        physical = numbers[:, at] * one.scale + one.offset
        outside = float(np.mean((physical < _POSSIBLE[0]) | (physical > _POSSIBLE[1])))
        if outside > _MOST_IMPOSSIBLE:
            value = f"{100 * outside:.0f} % of the pixels of {one.name} outside of it with {used}"
            remedy = (
                "State the sensor and level that the file is of with --sensor, or the conversion with "
                "--set reader_options.scale=NUMBER and --set reader_options.offset=NUMBER"
            )
            return RequestError(info.uri, "must have reflectance from about 0 to 1.6", value=value, remedy=remedy)
    return None


def _sample(pixels: Pixels, valid: Mask, places: Sequence[int]) -> npt.NDArray[np.float64]:
    """Evenly spread valid pixels as (N, channels), in the channels at `places`, where all of these are finite."""
    index = np.flatnonzero(valid)
    index = index[:: max(1, len(index) // _SAMPLE)]
    numbers = pixels.reshape(valid.size, -1)[index][:, list(places)].astype(np.float64)
    return numbers[np.isfinite(numbers).all(axis=1)]


def offset_note(info: ImageInfo, channels: Sequence[Channel], pixels: Pixels, valid: Mask) -> str:
    """A note where numbers look as if they had the offset of baseline 04.00, and nothing but the sensor is known."""
    known = [at for at, one in enumerate(channels) if one.quantity.endswith("reflectance") and not one.offset]
    if BASELINE_UNKNOWN not in info.facts or not known or not valid.any():
        return ""
    darkest = min(float(np.nanpercentile(pixels[..., at][valid], 1)) for at in known)
    if not darkest >= OFFSET:
        return ""
    return (
        f"Almost no number is below {OFFSET}, as in products of baseline {_text(BASELINE_WITH_OFFSET)} and later, but "
        f"nothing states the baseline and no offset is subtracted. If the product is one of those, or was processed "
        f"again, state --sensor {info.sensor}{WITH_OFFSET}."
    )
