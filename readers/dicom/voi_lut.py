"""The grey pipeline of DICOM (PS3.3 C.11), step by step, on numbers alone.

Stored values → padding, judged on stored values → modality LUT or rescale → VOI window or LUT → MONOCHROME1, last. All
in float64, and never cast back to what was stored.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ..image import Mask

Values = npt.NDArray[np.float64]
Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID", "LUT"]

WHITE: Final = 255.0


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table: `first` is the input that its first entry belongs to; entries have `bits` bits."""

    first: float
    entries: Values
    bits: int

    def __call__(self, values: Values) -> Values:
        """What the table makes of values; those below and above get its first and last entry (PS3.3 C.11.1.1)."""
        index = np.clip(np.nan_to_num(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)]


@dataclass(frozen=True, slots=True)
class Modality:
    """Stored → modality values: a table, or value · slope + intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    table: Table | None = None

    def __call__(self, stored: npt.NDArray[Any]) -> Values:
        """Stored numbers of any type → modality values in float64."""
        values = stored.astype(np.float64)
        return self.table(values) if self.table is not None else values * self.slope + self.intercept

    def lowest(self, low: float, high: float) -> float:
        """The least modality value that stored numbers from `low` to `high` can have."""
        if self.table is not None:
            return float(self.table.entries.min())
        return min(low * self.slope, high * self.slope) + self.intercept


@dataclass(frozen=True, slots=True)
class Voi:
    """Which modality values are seen, and how they become grey: a window, or a table with `function` LUT."""

    centre: float
    width: float
    function: Function = "LINEAR"
    table: Table | None = None

    def ends(self) -> tuple[float, float]:
        """The modality values that become black and white (PS3.3 C.11.2.1.2, C.11.2.1.3).

        LINEAR counts pixels' steps: black up to c - 0.5 - (w-1)/2, white from c - 0.5 + (w-1)/2. A sigmoid has no ends;
        these are where its tangent at the centre reaches black and white. A table's are its first and last input.
        """
        if self.table is not None:
            return self.table.first, self.table.first + len(self.table.entries) - 1
        if self.function == "LINEAR":
            half = (max(self.width, 1.0) - 1.0) / 2.0
            return self.centre - 0.5 - half, self.centre - 0.5 + half
        return self.centre - self.width / 2.0, self.centre + self.width / 2.0


def padded(stored: npt.NDArray[Any], value: float | None, limit: float | None) -> Mask:
    """Where stored pixels are padding: PixelPaddingValue, or from it to PixelPaddingRangeLimit, either way."""
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    low, high = sorted((value, value if limit is None else limit))
    return (stored >= low) & (stored <= high)


def grey8(values: npt.NDArray[np.floating[Any]], valid: Mask, voi: Voi, *, inverted: bool) -> npt.NDArray[np.uint8]:
    """Modality values (H, W) → 8-bit grey (H, W) through a window or table; `inverted` for MONOCHROME1.

    What is not valid is black, also after inversion. Rounded half up.
    """
    numbers = values.astype(np.float64)
    if voi.table is not None:
        share = voi.table(numbers) / (2.0**voi.table.bits - 1.0)
    elif voi.function == "SIGMOID":
        with np.errstate(over="ignore"):
            share = 1.0 / (1.0 + np.exp(-4.0 * (numbers - voi.centre) / voi.width))
    else:
        low, high = voi.ends()
        share = (numbers - low) / (high - low) if high > low else np.where(numbers > low, 1.0, 0.0)
    share = np.clip(np.nan_to_num(share), 0.0, 1.0)
    if inverted:
        share = 1.0 - share
    return np.where(valid, np.floor(share * WHITE + 0.5), 0.0).astype(np.uint8)


def steps(voi: Voi, *, inverted: bool) -> tuple[tuple[float, int], ...]:
    """What `grey8` makes of numbers, as (number, grey from it up to the next) in ascending order.

    For a lookup table, and for a window so narrow that all is black or white; () for other windows, which are curves.
    Where neighbouring entries have one grey they are one step.
    """
    if voi.table is not None:
        numbers = voi.table.first + np.arange(len(voi.table.entries), dtype=np.float64)
    else:
        low, high = voi.ends()
        if voi.function == "SIGMOID" or high > low:
            return ()
        numbers = np.array([low, np.nextafter(low, math.inf)])
    greys = grey8(numbers, np.ones(len(numbers), dtype=np.bool_), voi, inverted=inverted)
    kept = np.flatnonzero(np.diff(greys, prepend=greys[0].astype(np.int16) - 1))
    return tuple((float(numbers[at]), int(greys[at])) for at in kept)


PRESETS: dict[str, tuple[float, float]] = {
    "abdomen": (40, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (60, 160),
    "lung": (-600, 1500),
    "mediastinum": (40, 400),
}
"""Usual windows for CT in HU: name → (centre, width)."""


def parse_window(text: str) -> tuple[float, float] | str | None:
    """The option `window`: "40,400" → (centre, width); a word → that word, lower case; "" → None, also for nonsense."""
    try:
        centre, width = (float(part) for part in text.split(","))
    except ValueError:
        return text.strip().lower() or None
    return (centre, width) if math.isfinite(centre) and math.isfinite(width) and width > 0 else None
