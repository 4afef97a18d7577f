"""The DICOM grey-scale pipeline (PS3.3 C.11), step by step, on arrays alone.

Stored values → padding mask, on stored values → modality LUT or rescale → VOI window or LUT → MONOCHROME1 inversion,
last. All in float64, never cast back to the stored type.
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

PRESETS: dict[str, tuple[float, float]] = {
    "abdomen": (40, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (60, 160),
    "lung": (-600, 1500),
    "mediastinum": (40, 400),
    "soft_tissue": (40, 400),
    "stroke": (40, 40),
    "subdural": (75, 215),
    "temporal_bone": (600, 2800),
}
"""Usual windows for CT in HU: name → (centre, width)."""

TRIPLES: dict[str, tuple[tuple[float, float], ...]] = {"medgemma": ((0, 2048), (40, 350), (40, 80))}
"""Windows for red, green and blue, in HU, from exactly black to exactly white: name → (centre, width) of each.

MedGemma 1.5 was trained with -1024 to 1024, -135 to 215 and 0 to 80 HU (its model card, "CT windowing").
"""

_ABDOMEN: Final = (
    "ABDOMEN ABDOMENPELVIS ADRENAL BLADDER COLON GALLBLADDER KIDNEY PANCREAS PELVIS PROSTATE SPLEEN UTERUS"
)
_BONES: Final = (
    "ANKLE CALF CLAVICLE COCCYX CSPINE ELBOW EXTREMITY FEMUR FINGER FOOT FOREARM HAND HIP HUMERUS JAW KNEE LSPINE"
    " LSSPINE MANDIBLE MAXILLA PATELLA RIB SCAPULA SHOULDER SKULL SPINE STERNUM TIBIA TOE TSPINE WRIST"
)
_PARTS: Final = {
    "abdomen": _ABDOMEN,
    "bone": _BONES,
    "brain": "BRAIN HEAD",
    "liver": "LIVER",
    "lung": "LUNG",
    "mediastinum": "AORTA CARDIAC CHEST HEART",
}
PRESET_OF_BODY_PART: Final = {part: preset for preset, parts in _PARTS.items() for part in parts.split()}
"""Body part as DICOM codes it → the preset in which CT of it is shown where its file states no window."""


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A lookup table (PS3.3 C.11.1.1)."""

    first: float
    """The input of the first entry."""
    entries: Values
    bits: int
    """Bits of an entry."""

    def __call__(self, values: Values) -> Values:
        """Look values up; those below and above the inputs get the first and last entry."""
        index = np.clip(np.nan_to_num(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.intp)]


@dataclass(frozen=True, slots=True)
class ModalityLut:
    """Stored → modality values: a table, or value · slope + intercept."""

    slope: float = 1.0
    intercept: float = 0.0
    table: LookupTable | None = None

    def __call__(self, stored: npt.NDArray[Any]) -> Values:
        """Stored values of any type → modality values in float64."""
        values = stored.astype(np.float64)
        return self.table(values) if self.table is not None else values * self.slope + self.intercept

    def minimum(self, low: float, high: float) -> float:
        """The least modality value of stored values from `low` to `high`."""
        if self.table is not None:
            return float(self.table.entries.min())
        return min(low * self.slope, high * self.slope) + self.intercept


@dataclass(frozen=True, slots=True)
class VoiLut:
    """Modality values → grey: a window, or a table with `function` LUT."""

    centre: float
    width: float
    function: Function = "LINEAR"
    table: LookupTable | None = None

    def limits(self) -> tuple[float, float]:
        """The modality values that become black and white (PS3.3 C.11.2.1.2, C.11.2.1.3).

        LINEAR is black up to c - 0.5 - (w-1)/2 and white from c - 0.5 + (w-1)/2. For SIGMOID, which has no limits,
        these are where its tangent at the centre reaches black and white; for a table its first and last input.
        """
        if self.table is not None:
            return self.table.first, self.table.first + len(self.table.entries) - 1
        if self.function == "LINEAR":
            half = (max(self.width, 1.0) - 1.0) / 2.0
            return self.centre - 0.5 - half, self.centre - 0.5 + half
        return self.centre - self.width / 2.0, self.centre + self.width / 2.0


def padding_mask(stored: npt.NDArray[Any], value: float | None, limit: float | None) -> Mask:
    """Where stored values are padding: PixelPaddingValue, or between it and PixelPaddingRangeLimit."""
    if value is None:
        return np.zeros(stored.shape, dtype=np.bool_)
    low, high = sorted((value, value if limit is None else limit))
    return (stored >= low) & (stored <= high)


def to_grey(
    values: npt.NDArray[np.floating[Any]], valid: Mask, voi: VoiLut, *, inverted: bool
) -> npt.NDArray[np.uint8]:
    """Modality values (H, W) → 8-bit grey (H, W), rounded half up; `inverted` for MONOCHROME1.

    Invalid pixels are black, also after inversion.
    """
    numbers = values.astype(np.float64)
    if voi.table is not None:
        share = voi.table(numbers) / (2.0**voi.table.bits - 1.0)
    elif voi.function == "SIGMOID":
        with np.errstate(over="ignore"):
            share = 1.0 / (1.0 + np.exp(-4.0 * (numbers - voi.centre) / voi.width))
    else:
        low, high = voi.limits()
        share = (numbers - low) / (high - low) if high > low else np.where(numbers > low, 1.0, 0.0)
    share = np.clip(np.nan_to_num(share), 0.0, 1.0)
    if inverted:
        share = 1.0 - share
    return np.where(valid, np.floor(share * WHITE + 0.5), 0.0).astype(np.uint8)


def grey_levels(voi: VoiLut, *, inverted: bool) -> tuple[tuple[float, int], ...]:
    """`to_grey` as a step function: (value, grey from it up to the next) in ascending order.

    For lookup tables, and for windows so narrow that all is black or white; () for other windows, which are curves.
    """
    if voi.table is not None:
        values = voi.table.first + np.arange(len(voi.table.entries), dtype=np.float64)
    else:
        low, high = voi.limits()
        if voi.function == "SIGMOID" or high > low:
            return ()
        values = np.array([low, np.nextafter(low, math.inf)])
    greys = to_grey(values, np.ones(len(values), dtype=np.bool_), voi, inverted=inverted)
    changes = np.flatnonzero(np.diff(greys, prepend=greys[0].astype(np.int16) - 1))
    return tuple((float(values[at]), int(greys[at])) for at in changes)
