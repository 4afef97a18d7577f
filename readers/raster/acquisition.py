"""When a map was acquired, as its STAC item or the name of its product states it: nothing is guessed.

Names of products follow the Sentinel-2 products specification (S2-PDGS-TAS-DI-PSD: when the sensing of the datatake
began) and the Landsat Collection naming convention (the day of acquisition).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from ..image import ImageInfo

ACQUISITION: Final = "acquisition"
"""The fact of an image that states when it was acquired: the first and the last moment, as in `interval_text`."""
ACQUIRED: Final = "acquired"
BASELINE: Final = "processing_baseline"
"""Facts of an image that a STAC item states: the date of acquisition, and the processing baseline of Sentinel-2."""

Interval = tuple[datetime, datetime]
"""First and last moment in UTC; equal for one moment."""

_SENTINEL_2 = re.compile(
    r"(?<![A-Za-z0-9])(?:S2[A-Z]_MSI(?:L1C|L2A)|(?:L2A_)?T\d{2}[A-Z]{3})_(\d{8}T\d{6})(?![A-Za-z0-9])"
)
_LANDSAT = re.compile(r"(?<![A-Za-z0-9])L[COTEM]0[45789]_L[12][A-Z]{2}_\d{6}_(\d{8})_")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def parse_interval(text: str) -> Interval | None:
    """Read a moment or two of RFC 3339 with a slash between them, or one or two days; None for anything else.

    >>> interval_text(parse_interval("2023-06-14T18:09:01+02:00"))
    '2023-06-14T16:09:01Z/2023-06-14T16:09:01Z'
    >>> interval_text(parse_interval("2023-06-14"))
    '2023-06-14T00:00:00Z/2023-06-14T23:59:59Z'
    """
    ends = [_moments(part) for part in text.split("/", 1)]
    if any(end is None for end in ends):
        return None
    known = [end for end in ends if end is not None]
    first, last = known[0][0], known[-1][1]
    return (first, last) if first <= last else None


def _moments(text: str) -> Interval | None:
    """The first and last moment of one, or of a day."""
    try:
        if _MOMENT.fullmatch(text):
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
            return moment, moment
        if re.fullmatch(r"\d{4}-?\d\d-?\d\d", text):
            start = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return start, start + timedelta(days=1) - timedelta(seconds=1)
    except (ValueError, OverflowError):
        pass
    return None


def moment_text(moment: datetime) -> str:
    """A moment in UTC by RFC 3339."""
    return moment.replace(tzinfo=None).isoformat() + "Z"


def interval_text(interval: Interval | None) -> str:
    """The two moments with a slash between them; "" for None."""
    return "" if interval is None else "/".join(map(moment_text, interval))


def item_interval(properties: Mapping[str, Any]) -> Interval | None:
    """What the properties of a STAC item state: its start and end where it has both, else its datetime."""
    start, end = properties.get("start_datetime"), properties.get("end_datetime")
    stated = f"{start}/{end}" if isinstance(start, str) and isinstance(end, str) else properties.get("datetime")
    return parse_interval(stated) if isinstance(stated, str) else None


def acquired(info: ImageInfo) -> Interval | None:
    """When a map was acquired; None where nothing states it, or where names of its files differ."""
    if stated := dict(info.facts).get(ACQUISITION):
        return parse_interval(stated)
    found = {moment for name in (info.id, info.uri, *info.files) if (moment := _from_name(name)) is not None}
    return found.pop() if len(found) == 1 else None


def _from_name(path: str) -> Interval | None:
    """The acquisition of the product that a path names; the innermost folder or file that names one counts."""
    for name in reversed(re.split(r"[/\\]", path)):
        if found := _SENTINEL_2.search(name):
            return _of_digits(found[1])
        if found := _LANDSAT.search(name):
            return _moments(found[1])
    return None


def _of_digits(text: str) -> Interval | None:
    try:
        moment = datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment, moment


def common_interval(intervals: Iterable[Interval]) -> Interval:
    """The first and the last moment of all."""
    every = list(intervals)
    return min(first for first, _ in every), max(last for _, last in every)
