"""Where a multi-dimensional TIFF keeps each channel: its axes, the pages along them, and the samples of a page."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from pydantic import Field

from ..image import Channel
from ..options import Options, invalid_option

_COLOURS: Final = ("red", "green", "blue")
_CHOSEN: Final = {"Z": "z", "T": "t"}  # axes of which one place is read, and the option that names it


class PlaneOptions(Options):
    """Options of the reader "pyramid"."""

    z: int = Field(default=0, ge=0, description="The focal plane to read, counted from 0.")
    t: int = Field(default=0, ge=0, description="The time to read, counted from 0.")


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

    def places(self, options: PlaneOptions) -> tuple[list[Sample], Sample | None]:
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

    def notes(self, options: PlaneOptions) -> tuple[str, ...]:
        """What of the file is not read."""
        return tuple(
            f"It has {length} places along {axis}; {getattr(options, _CHOSEN[axis])} is read (reader option "
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
    def _chosen(axis: str, length: int, options: PlaneOptions) -> int:
        name = _CHOSEN.get(axis)
        place = 0 if name is None else int(getattr(options, name))
        if place >= length:
            raise invalid_option(name or axis, "reader 'pyramid'", f"it is 0 to {length - 1} here", value=str(place))
        return place
