"""Where a multi-dimensional TIFF keeps each channel: its axes, the pages along them, and the samples of a page."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from .bands import COMMON_NAMES
from .errors import RequestError
from .image import Channel

_COLOURS: Final = ("red", "green", "blue")
_CHOSEN: Final = {"Z": "z", "T": "t"}  # axes of which one place is read, and the option that names it


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a channel lies: the page of its level, its plane where a page has one for each sample, else its sample."""

    page: int
    plane: int
    sample: int


@dataclass(frozen=True, slots=True)
class Planes:
    """`axes` beyond a page's own, slowest first, and their `lengths`; `samples` a pixel of a page, and what they are.

    `separate` samples have a plane each. `colour` says that the first three are red, green and blue, `alpha` that the
    last one hides. All channels along axis C are read; of Z and T one place, chosen by the options `z` and `t`.
    """

    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    samples: int
    separate: bool
    colour: bool
    alpha: bool
    dtype: str

    @property
    def _shown(self) -> int:
        return self.samples - self.alpha

    def places(self, options: Mapping[str, str]) -> tuple[list[Sample], Sample | None]:
        """Where each channel and the alpha lie, in order. Raises `RequestError` for a place out of range."""
        at = [self._chosen(axis, length, options) for axis, length in zip(self.axes, self.lengths, strict=True)]
        found: list[Sample] = []
        for channel in range(self._count):
            for i, axis in enumerate(self.axes):
                at[i] = channel if axis == "C" else at[i]
            page = int(np.ravel_multi_index(at, self.lengths)) if at else 0
            found += [Sample(page, n if self.separate else 0, 0 if self.separate else n) for n in range(self.samples)]
        return (found[: self._shown], found[self._shown]) if self.alpha else (found, None)

    def channels(self, names: tuple[str, ...]) -> tuple[Channel, ...]:
        """The channels, by the header's `names`, by their colour, or by their number; no two are called the same."""
        found: list[Channel] = []
        for c in range(self._count):
            name = names[c] if self._count > 1 and c < len(names) else ""
            if self._shown == 1:
                found.append(Channel(name or f"channel-{c + 1}", dtype=self.dtype))
                continue
            for s in range(self._shown):
                colour = _COLOURS[s] if self.colour and s < len(_COLOURS) else f"sample-{s + 1}"
                common = colour if self._count == 1 and colour in _COLOURS else None
                found.append(Channel(f"{name or c + 1} {colour}" if self._count > 1 else colour, common, self.dtype))
        seen: set[str] = set()
        for i, channel in enumerate(found):
            if channel.name in seen:
                found[i] = replace(channel, name=f"{channel.name} ({i + 1})")
            seen.add(found[i].name)
        return tuple(found)

    def notes(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """What of the file is not read."""
        return tuple(
            f"It has {length} places along {axis}; {options.get(_CHOSEN[axis], '0')} is read (reader option "
            f"{_CHOSEN[axis]})."
            if axis in _CHOSEN
            else f"It has {length} places along axis {axis}; the first is read."
            for axis, length in zip(self.axes, self.lengths, strict=True)
            if axis != "C" and length > 1
        )

    @property
    def _count(self) -> int:
        return self.lengths[self.axes.index("C")] if "C" in self.axes else 1

    @staticmethod
    def _chosen(axis: str, length: int, options: Mapping[str, str]) -> int:
        text = options.get(_CHOSEN[axis], "0") if axis in _CHOSEN else "0"
        if not (text.isdecimal() and int(text) < length):
            raise RequestError(
                f"reader option {_CHOSEN.get(axis, axis)}",
                f"it is 0 to {length - 1} here",
                value=text,
                remedy="Correct it",
            )
        return int(text)


def name_bands(channels: tuple[Channel, ...], bands: str, uri: str) -> tuple[Channel, ...]:
    """Channels with the common names that the option `bands` gives them, in order; other words are passed over.

    Raises `RequestError` where there is not one name a channel.
    """
    if not bands:
        return channels
    names = [name.strip().lower() for name in bands.split(",")]
    if len(names) != len(channels):
        raise RequestError(
            "reader option bands",
            f"it names each of the {len(channels)} channels of {uri}: {', '.join(c.name for c in channels)}",
            value=bands,
            remedy="Give one name a channel, in this order",
        )
    return tuple(
        replace(channel, common=name if name in COMMON_NAMES else None)
        for channel, name in zip(channels, names, strict=True)
    )
