"""What stands beside a picture: scale bar, north, and quantities in words."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...readers import geodesy
from ...readers.errors import ReadError
from ...readers.geometry import Placement
from ...readers.image import Kind

_NORTH_STEP = 1e-4  # degrees of latitude, some 11 m
_SWING = 10.0  # degrees by which north may turn across a picture that gets one arrow
_KILO = 1000.0
_SQUARE_KM = 1e6


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar `pixels` shown pixels long that is `metres` on the ground in the picture's middle, along x."""

    pixels: float
    metres: float

    @classmethod
    def of(cls, placement: Placement, size: tuple[int, int], shown: float, width: int) -> Self | None:
        """A bar of 1, 2 or 5 · 10ⁿ metres, at most a quarter of the shown `width`; None where the scale is unknown.

        `shown` is shown pixels a level-0 pixel along x, `size` the picture's in level-0 pixels.
        """
        ground = geodesy.metres_per_pixel(placement, (size[0] / 2, size[1] / 2))
        if ground is None:
            return None
        most = ground[0] / shown * width / 4
        power = 10.0 ** math.floor(math.log10(most))  # which may be a hair more than `most`
        metres = max((step * power for step in (2.0, 5.0) if step * power <= most), default=power)
        return cls(metres * shown / ground[0], metres)


def north(placement: Placement, size: tuple[int, int]) -> float | None:
    """The direction of north on the picture, in degrees clockwise from up.

    None where the image has no map coordinates on Earth, or where north turns by more than 10° across it.
    """
    if not geodesy.on_earth(placement):
        return None
    width, height = size
    places = np.array([(0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)]) * (width, height)
    try:
        lonlat = geodesy.to_lonlat(placement, places)
        step = np.where(lonlat[:, 1:] > 0, -_NORTH_STEP, _NORTH_STEP)  # towards the equator: there is no pole that way
        along = (geodesy.from_lonlat(placement, lonlat + step * [0.0, 1.0]) - places) * np.sign(step)
    except ReadError:
        return None
    turns = np.degrees(np.arctan2(along[:, 0], -along[:, 1]))
    swing = np.abs((turns - turns[0] + 180.0) % 360.0 - 180.0)
    return float(turns[0]) if swing.max() <= _SWING else None


def length_words(metres: float) -> str:
    """A length to 3 significant digits in the unit that suits it."""
    for unit, size, least in (("km", _KILO, 1.0), ("m", 1.0, 0.1), ("mm", 1e-3, 0.1)):
        if metres >= size * least:
            return f"{_three(metres / size)} {unit}"
    return f"{_three(metres / 1e-6)} µm"


def area_words(m2: float, pixels: float, kind: Kind = "map") -> str:
    """An area to 3 significant digits in km² or m² for maps, mm² or µm² for others; in pixels where m² is NaN."""
    if math.isnan(m2):
        return f"{pixels:,.0f} px"
    large, sign, small, small_sign = (_SQUARE_KM, "km²", 1.0, "m²") if kind == "map" else (1e-6, "mm²", 1e-12, "µm²")
    if m2 >= large / 100:
        return f"{_three(m2 / large)} {sign}"
    return f"{_three(m2 / small)} {small_sign}" if m2 > 0 else "0"


def share_words(part: float) -> str:
    """A share in per cent with one decimal; what is there is never called 0."""
    if math.isnan(part):
        return ""
    if 0 < part < 0.001:
        return "<0.1 %"
    return f"{100 * part:.1f} %"


def _three(value: float) -> str:
    if value >= _KILO:
        return f"{value:,.0f}"
    return f"{value:.3g}"
