"""The choice of slices of stacks, as the setting `slices` states it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from ..readers.errors import RequestError

if TYPE_CHECKING:
    from ..readers.image import ImageInfo

_EXAMPLES: Final = "For example --slices 10-40, --slices 1,5,9, --slices every:5 or --slices at:-12.5mm"
_NUMBERS: Final = re.compile(r"(\d{1,9})(?:\s*-\s*(\d{1,9}))?")
_EVERY: Final = re.compile(r"every:\s*(\d{1,9})")
_AT: Final = re.compile(r"at:\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*mm")
_EQUAL: Final = 1e-3  # mm: slices whose distances differ by less are equally near
_ALONE: Final = 0.5  # mm: how far a position may be from a single slice, whose neighbours are not known


@dataclass(frozen=True, slots=True)
class SliceChoice:
    """Slices by number, at regular steps, or by position; a slice that any of these chooses is chosen."""

    numbers: tuple[tuple[int, int], ...] = ()
    """(first, last) of ranges, from 1."""
    every: tuple[int, ...] = ()
    """Steps: the first slice, and each that many slices further."""
    at_mm: tuple[float, ...] = ()
    """Positions along the normal: the slice that is nearest, or both where two are equally near."""

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Read the parts of a choice. Raises `RequestError` for one that is malformed.

        >>> SliceChoice.parse(["10-40", "every:5"])
        SliceChoice(numbers=((10, 40),), every=(5,), at_mm=())
        """
        numbers: list[tuple[int, int]] = []
        every: list[int] = []
        at: list[float] = []
        for text in texts:
            if found := _NUMBERS.fullmatch(text):
                first, last = int(found[1]), int(found[2] or found[1])
                if not 0 < first <= last:
                    raise RequestError("slices", "must be counted from 1, upwards", value=text, remedy=_EXAMPLES)
                numbers.append((first, last))
            elif (found := _EVERY.fullmatch(text)) and int(found[1]):
                every.append(int(found[1]))
            elif found := _AT.fullmatch(text):
                at.append(float(found[1]))
            else:
                rule = "must be numbers of slices, ranges, every:N or at:POSITIONmm"
                raise RequestError("slices", rule, value=text, remedy=_EXAMPLES)
        return cls(tuple(numbers), tuple(every), tuple(at))

    def planes(self, info: "ImageInfo") -> frozenset[int]:
        """The planes of a stack, from 0, that are chosen; none where its slices have other numbers and positions."""
        count = len(info.planes)
        chosen = {plane for first, last in self.numbers for plane in range(first - 1, min(last, count))}
        chosen |= {plane for step in self.every for plane in range(0, count, step)}
        return frozenset(chosen.union(*(_nearest(info, position) for position in self.at_mm)))


def slices_text(info: "ImageInfo") -> str:
    """The slices that can be chosen of a stack: their number, and from where to where they lie."""
    positions = [plane.position_mm for plane in info.planes if plane.position_mm is not None]
    count = len(info.planes)
    where = f"at {min(positions):.6g} to {max(positions):.6g} mm" if positions else "without positions"
    return f"{count} slice{'s' if count > 1 else ''} {where}"


def _nearest(info: "ImageInfo", position: float) -> list[int]:
    """The planes nearest to a position, at most half of the largest step between slices away from it."""
    placed = [(plane.position_mm, at) for at, plane in enumerate(info.planes) if plane.position_mm is not None]
    if not placed:
        return []
    places = sorted(place for place, _ in placed)
    reach = max((b - a for a, b in pairwise(places)), default=2 * _ALONE) / 2
    distance = min(abs(place - position) for place in places)
    if not math.isfinite(distance) or distance > reach + _EQUAL:
        return []
    return [at for place, at in placed if abs(place - position) <= distance + _EQUAL]
