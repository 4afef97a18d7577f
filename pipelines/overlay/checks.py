"""What differs between runs that are laid on each other: said in a sentence each, and refused where doubtful."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from typing import Final

from ...readers.errors import RequestError
from ...readers.geometry import crs_name
from ...readers.image import ImageInfo
from ...readers.raster.acquisition import ACQUIRED
from ...readers.raster.radiometry import acquisition_dates
from ...reports.summary import ImageSummary
from ...reports.writer import ImageRecord, Record

SEASON_DAYS: Final = 45
"""Days between two days of the year from which on seasons differ."""

_PSEUDONYM: Final = re.compile(r"(^|[/\\])file-[0-9a-f]{16}")
_SAME_SIZE: Final = 0.02  # of a pixel's size


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a reader of the result must know."""

    text: str
    """A sentence."""
    doubtful: bool = False
    """Whether the result is made only on request."""


def model_differences(records: Sequence[Record]) -> list[Difference]:
    """How the models of runs differ."""
    found: list[Difference] = []
    first, *others = records
    for other in others:
        named = [
            f"{one.model.get('name', 'no model')} {one.model.get('version', '')}".strip() for one in (first, other)
        ]
        if not (first.assessed and other.assessed):
            found.append(Difference("A run was made without a model, so that it has no labels.", doubtful=True))
        elif first.model.get("name") != other.model.get("name"):
            found.append(Difference(f"The models differ: {named[0]}, and {named[1]}.", doubtful=True))
        elif first.model.get("sha256") != other.model.get("sha256"):
            digests = " and ".join(one.model.get("sha256", "")[:12] or "none" for one in (first, other))
            text = f"The model {named[0]} has other weights: sha256 {digests}."
            found.append(Difference(text, doubtful=True))
        elif first.model.get("version") != other.model.get("version"):
            found.append(Difference(f"The versions of the model differ: {named[0]}, and {named[1]}.", doubtful=True))
        labels = [set(one.labels) for one in (first, other)]
        if labels[0] != labels[1]:
            extra = (("first", labels[0] - labels[1]), ("second", labels[1] - labels[0]))
            only = "; ".join(f"only the {run} has {', '.join(sorted(names))}" for run, names in extra if names)
            found.append(Difference(f"The labels differ: {only}.", doubtful=True))
        if first.version != other.version:
            found.append(Difference(f"The versions of limner differ: {first.version} and {other.version}."))
    return _distinct(found)


def image_differences(images: Sequence[ImageRecord], records: Sequence[Record]) -> list[Difference]:
    """How images, each of one of the records, differ in sensor, pixel size, CRS and date, and what is odd in each."""
    found: list[Difference] = []
    sensors = {image.info.sensor for image in images if image.info.sensor}
    if len(sensors) > 1:
        found.append(Difference(f"The sensors differ: {', '.join(sorted(sensors))}.", doubtful=True))
    sizes = [
        ImageSummary.of_areas(record, image, ()).pixel_sizes[2] for record, image in zip(records, images, strict=True)
    ]
    known = [size for size in sizes if size == size]  # noqa: PLR0124 - NaN
    if known and max(known) > min(known) * (1 + _SAME_SIZE):
        text = f"The analyses have pixels of {min(known):.4g} and of {max(known):.4g} m: one misses smaller objects."
        found.append(Difference(text, doubtful=True))
    systems = sorted({crs_name(image.info.placement.crs) for image in images} - {""})
    if len(systems) > 1:
        text = f"The CRSs differ ({', '.join(systems)}): outlines are laid on the first one's pixels to 0.0001 px."
        found.append(Difference(text))
    found += _date_differences([image.info for image in images])
    for image in images:
        found += [Difference(f"{image.info.id}: {warning}") for warning in image.warnings]
        found += [Difference(f"{image.info.id}: {image.forced}.")] if image.forced else []
        found += [] if image.complete else [Difference(f"{image.info.id} was not analysed completely.")]
    return _distinct(found)


def acquired(info: ImageInfo) -> date | None:
    """The day of acquisition of a map that its metadata states, else its file's name; None where neither does."""
    stated = dict(info.facts).get(ACQUIRED, "")
    if stated:
        return date.fromisoformat(stated)
    days = set[date]() if _PSEUDONYM.search(info.uri) else set(acquisition_dates(info.uri))
    return days.pop() if len(days) == 1 else None


def _date_differences(infos: Sequence[ImageInfo]) -> list[Difference]:
    days = {info.id: acquired(info) for info in infos if info.kind == "map"}
    unknown = [name for name, day in days.items() if day is None]
    named = " and ".join(unknown) if len(unknown) < 3 else f"{len(unknown)} images"
    found = (
        [Difference(f"The date of {named} is not known, and so not whether seasons are the same.")] if unknown else []
    )
    known = sorted({day for day in days.values() if day is not None})
    if len(known) > 1:
        apart = max(min(gap, 365 - gap) for gap in (_gap(a, b) for a, b in combinations(known, 2)))
        dates = (
            " and ".join(map(str, known)) if len(known) == 2 else f"{len(known)} days from {known[0]} to {known[-1]}"
        )
        if apart > SEASON_DAYS:
            found.append(Difference(f"The seasons differ: {dates}, {apart} days of the year apart.", doubtful=True))
        else:
            found.append(Difference(f"The dates are {dates}; the season is the same."))
    return found


def _gap(a: date, b: date) -> int:
    """Days between two days of the year."""
    return abs(a.timetuple().tm_yday - b.timetuple().tm_yday)


def refuse_doubtful(differences: Iterable[Difference], subject: str, *, accept: bool) -> list[str]:
    """The sentences of all differences. Raises `RequestError` where one is doubtful, unless that is accepted."""
    every = list(differences)
    doubtful = [one.text for one in every if one.doubtful]
    if doubtful and not accept:
        raise RequestError(
            subject,
            "must be alike in what could be taken for a difference on the ground",
            value=" ".join(doubtful),
            remedy="Give --accept to go on in spite of that, and have it stated with the result",
        )
    return [one.text for one in every]


def _distinct(found: Iterable[Difference]) -> list[Difference]:
    return list(dict.fromkeys(found))
