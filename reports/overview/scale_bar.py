"""Scale bar, north arrow, and formatted quantities."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...readers import geodesy
from ...readers.errors import ReadError
from ...readers.geometry import Placement
from ...readers.image import Kind
from ...readers.orientation import UPRIGHT, Orientation

_NORTH_STEP = 1e-4  # degrees of latitude, some 11 m
_LARGEST_TURN = 10.0  # degrees by which north may turn across a picture that gets one arrow


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """A bar along x, true in the middle of the picture."""

    pixels: float
    """Length in shown px."""
    metres: float
    """Length in the world."""

    @classmethod
    def of(
        cls, placement: Placement, size: tuple[int, int], shown: float, width: int, turned: Orientation = UPRIGHT
    ) -> Self | None:
        """A bar of 1, 2 or 5 · 10ⁿ metres, at most a quarter of `width` shown px; None where the scale is unknown.

        `shown` is shown px per level-0 pixel along x of the picture, `size` the image's in level-0 pixels, and `turned`
        how the picture is turned.
        """
        metres_per_pixel = geodesy.metres_per_pixel(placement, (size[0] / 2, size[1] / 2))
        if metres_per_pixel is None:
            return None
        along_x, _ = turned.swap(metres_per_pixel)
        most = along_x / shown * width / 4
        power = 10.0 ** math.floor(math.log10(most))  # which may be a hair more than `most`
        metres = max((step * power for step in (2.0, 5.0) if step * power <= most), default=power)
        return cls(metres * shown / along_x, metres)


def north(placement: Placement, size: tuple[int, int], turned: Orientation = UPRIGHT) -> float | None:
    """The direction of north on the picture, `turned` from the image, in degrees clockwise from up.

    None where the image has no map coordinates on Earth, or where north turns by more than 10° across it.
    """
    if not geodesy.on_earth(placement):
        return None
    points = np.array([(0.5, 0.5), (0.1, 0.1), (0.9, 0.1), (0.1, 0.9), (0.9, 0.9)]) * size
    try:
        lonlat = geodesy.to_lonlat(placement, points)
        step = np.where(lonlat[:, 1:] > 0, -_NORTH_STEP, _NORTH_STEP)  # towards the equator: there is no pole that way
        along = (geodesy.from_lonlat(placement, lonlat + step * [0.0, 1.0]) - points) * np.sign(step)
        along = turned.to_upright(along, (0.0, 0.0))  # a direction has no origin
    except ReadError:
        return None
    angles = np.degrees(np.arctan2(along[:, 0], -along[:, 1]))
    turns = np.abs((angles - angles[0] + 180.0) % 360.0 - 180.0)
    return float(angles[0]) if turns.max() <= _LARGEST_TURN else None


def format_length(metres: float, kind: Kind = "map") -> str:
    """A length to 3 significant digits in km, m, mm or µm; in mm or µm where it is not of a map."""
    units = (("km", 1e3, 1.0), ("m", 1.0, 0.1), ("mm", 1e-3, 0.1))
    for unit, size, least in units if kind == "map" else units[2:]:
        if metres >= size * least:
            return f"{_three_digits(metres / size)} {unit}"
    return f"{_three_digits(metres / 1e-6)} µm"


def format_area(m2: float, pixels: float, kind: Kind = "map", *, exact: bool = False) -> str:
    """An area in km² or m² for maps, mm² or µm² for others; in pixels where m² is NaN.

    3 significant digits; `exact` gives three decimals of the larger unit and 4 digits of the smaller one.
    """
    if math.isnan(m2):
        return f"{pixels:,.0f} px"
    large, large_unit, small, small_unit = (1e6, "km²", 1.0, "m²") if kind == "map" else (1e-6, "mm²", 1e-12, "µm²")
    if m2 >= large / 100:
        return f"{m2 / large:,.3f} {large_unit}" if exact else f"{_three_digits(m2 / large)} {large_unit}"
    if m2 <= 0:
        return f"0 {small_unit}" if exact else "0"
    return f"{m2 / small:.4g} {small_unit}" if exact else f"{_three_digits(m2 / small)} {small_unit}"


def format_volume(ml: float) -> str:
    """A volume in ml, with one decimal from 10 ml and three significant digits below."""
    return f"{ml:,.1f} ml" if ml >= 10 else f"{ml:.3g} ml"


def format_share(share: float) -> str:
    """A share in per cent with one decimal; never 0 for what is more than nothing; "" for NaN."""
    if math.isnan(share):
        return ""
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
