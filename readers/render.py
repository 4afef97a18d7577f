"""The one place where native pixels become 8-bit red, green and blue.

A stretch is fitted once per image, from its overview, and is the same for every tile and the global view, so that one
ground looks the same everywhere. It is a value that is recorded.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .image import Channel, ImageInfo, Mask, Pixels

Curve = Literal["linear", "decibel", "sigmoid", "steps"]
Values = npt.NDArray[np.float64]

PERCENTILES: Final = (2.0, 98.0)
_COLOURS: Final = ("red", "green", "blue")
_WHITE: Final = 255
_STATED: Final[Mapping[str, Curve]] = {"": "linear", "sigmoid": "sigmoid", "steps": "steps"}


@dataclass(frozen=True, slots=True)
class Stretch:
    """How native numbers become 0 to 255: `low` black, `high` white, in between in proportion; low may be the higher.

    `channels` are one (grey) or three (red, green, blue) of `Channel.name`. `curve` says what is in proportion: native
    numbers, or 20·log10 of their magnitude ("decibel"), in which case `low` and `high` are in decibels. "sigmoid" is
    the logistic curve whose tangent in its middle reaches black at `low` and white at `high` (PS3.3 C.11.2.1.3.1).
    "steps" is a table, of a single channel: `steps` are (number, grey of 0 to 255) in ascending order, and a grey holds
    from its number up to the next; what lies below the first has the first grey. `low` and `high` are then where the
    table begins and ends. `blank` is the grey of what is not valid. `source` says in words where the numbers come from.
    """

    channels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    source: str
    curve: Curve = "linear"
    steps: tuple[tuple[float, int], ...] = ()
    blank: int = _WHITE

    def __post_init__(self) -> None:
        """Raise `ValueError` where its parts do not belong together."""
        if len(self.channels) not in {1, 3} or not len(self.channels) == len(self.low) == len(self.high):
            msg = "a stretch has one or three channels, with as many ends"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json` writes; numbers keep every bit. What only studies need is left out elsewhere."""
        return {
            "channels": list(self.channels),
            "low": list(self.low),
            "high": list(self.high),
            "source": self.source,
            "curve": self.curve,
            **({"steps": [list(step) for step in self.steps]} if self.steps else {}),
            **({"blank": self.blank} if self.blank != _WHITE else {}),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            channels=tuple(record["channels"]),
            low=tuple(record["low"]),
            high=tuple(record["high"]),
            source=record["source"],
            curve=record["curve"],
            steps=tuple((float(number), int(grey)) for number, grey in record.get("steps", ())),
            blank=record.get("blank", _WHITE),
        )


def rgb_channels(channels: Sequence[Channel]) -> tuple[str, ...]:
    """Which channels to look at, by `Channel.name`: red, green and blue where all are known, or the only one as grey.

    Raises `ReadError` where it would be a guess.
    """
    if len(channels) == 1:
        return (channels[0].name,)
    count = Counter(channel.common for channel in channels)
    if all(count[colour] == 1 for colour in _COLOURS):
        return tuple(next(c.name for c in channels if c.common == colour) for colour in _COLOURS)
    twice = [colour for colour in _COLOURS if count[colour] > 1]
    raise ReadError(
        "channels",
        "a picture needs exactly one red, one green and one blue channel, or a single channel for grey",
        value=", ".join(f"{c.name} ({c.common or 'colour unknown'})" for c in channels)
        + (f"; more than one {' and '.join(twice)}" if twice else ""),
        remedy="Name the file's channels in order with --bands, such as --bands blue,green,red,nir",
    )


def fit_stretch(
    pixels: Pixels, valid: Mask, channels: Sequence[Channel], limits: tuple[float, float] | None = None
) -> Stretch:
    """The stretch of an image from its overview: native pixels (H, W, C), their validity (H, W) and their C channels.

    `limits`, black and white of every channel in native numbers (in decibels where the stretch is), are taken as given.
    Red, green and blue of 8 bits stay as they are, 0 to 255. All else runs from the 2nd to the 98th percentile of the
    valid and finite pixels, channel by channel (linear interpolation between ranks). Channels of "amplitude" (SAR) do
    so in decibels, 20·log10 of the magnitude, since speckle multiplies; amplitudes of 0 or less do not count. The
    stretch says "linear" and 0 to 1 where no pixel counts. Raises `ReadError` as `rgb_channels` does.
    """
    names = rgb_channels(channels)
    places = [next(i for i, channel in enumerate(channels) if channel.name == name) for name in names]
    chosen = [channels[place] for place in places]
    curve: Curve = "decibel" if all(channel.quantity == "amplitude" for channel in chosen) else "linear"
    if limits is not None:
        return Stretch(names, limits[:1] * len(names), limits[1:] * len(names), "as given", curve)
    if len(names) == len(_COLOURS) and all(channel.dtype == "uint8" for channel in chosen):
        return Stretch(names, (0.0,) * 3, (255.0,) * 3, "8-bit red, green and blue as they are")
    ends: list[tuple[float, float]] = []
    counted = 0
    for place in places:
        values = _on(curve, pixels[..., place])[valid]
        values = values[np.isfinite(values)]
        counted = max(counted, len(values))
        low, high = np.percentile(values, PERCENTILES) if len(values) else (0.0, 1.0)
        ends.append((float(low), float(high)))
    unit = " of 20·log10 of the magnitude" if curve == "decibel" else ""
    source = f"2nd to 98th percentile{unit}, {counted} valid overview pixels" if counted else "no valid pixel"
    return Stretch(names, tuple(low for low, _ in ends), tuple(high for _, high in ends), source, curve)


def window_stretch(info: ImageInfo) -> Stretch | None:
    """The window that a grey image is to be seen through, as a stretch; None where its pixels must decide.

    The facts `window_…` of a study say so. MONOCHROME1 has its ends exchanged: `low`, which becomes black, is then the
    higher number. What is not valid, padding above all, is black.
    """
    facts = dict(info.facts)
    if "window_low" not in facts:
        return None
    steps = [step.partition(":") for step in facts.get("window_steps", "").split()]
    return Stretch(
        (info.channels[0].name,),
        (float(facts["window_low"]),),
        (float(facts["window_high"]),),
        facts["window_used"],
        curve=_STATED[facts.get("window_curve", "")],
        steps=tuple((float(number), int(grey)) for number, _, grey in steps),
        blank=0,
    )


def display_stretch(info: ImageInfo, fitted: Stretch) -> Stretch:
    """How an image is seen: an image of a study through its stated window, else as it was `fitted` to its pixels.

    Also then MONOCHROME1 shows low values as white, and what is not valid in a study is black. Other images' stretch
    is the fitted one.
    """
    if info.kind != "study":
        return fitted
    if (stated := window_stretch(info)) is not None:
        return stated
    ends = (fitted.high, fitted.low) if "inverted" in dict(info.facts) else (fitted.low, fitted.high)
    return replace(fitted, low=ends[0], high=ends[1], blank=0)


def render(pixels: Pixels, valid: Mask, stretch: Stretch) -> npt.NDArray[np.uint8]:
    """Native pixels (H, W, C) of the stretch's channels, in its order → (H, W, 3) uint8; invalid pixels are `blank`.

    So is what is not a number. A channel whose black and white are the same number is grey there, black below and
    white above. Raises `ValueError` where the channels do not fit the stretch.
    """
    if pixels.ndim != 3 or pixels.shape[2] != len(stretch.channels):
        msg = f"pixels {pixels.shape} are not those of the channels {stretch.channels}"
        raise ValueError(msg)
    result = np.empty((*pixels.shape[:2], 3), dtype=np.uint8)
    seen = valid.copy()
    for place, (low, high) in enumerate(zip(stretch.low, stretch.high, strict=True)):
        if pixels.dtype == np.uint8 and stretch.curve == "linear" and (low, high) == (0.0, 255.0):
            grey = pixels[..., place]
        else:
            values = _on(stretch.curve, pixels[..., place])
            seen &= ~np.isnan(values)
            grey = _stepped(values, stretch.steps) if stretch.curve == "steps" else _shaded(values, low, high, stretch)
        result[..., [place] if len(stretch.channels) > 1 else [0, 1, 2]] = grey[..., None]
    result[~seen] = stretch.blank
    return result


def _shaded(values: Values, low: float, high: float, stretch: Stretch) -> npt.NDArray[np.uint8]:
    """Numbers on a curve between black and white, rounded half up."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN is painted over by the caller, infinity is white
        share = (values - low) / (high - low) if high != low else (np.sign(values - low) + 1.0) / 2.0
        if stretch.curve == "sigmoid":
            share = 1.0 / (1.0 + np.exp(-4.0 * (share - 0.5)))
        return np.floor(np.clip(np.nan_to_num(share), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _stepped(values: Values, steps: Sequence[tuple[float, int]]) -> npt.NDArray[np.uint8]:
    """Numbers through a table of steps."""
    numbers = np.array([number for number, _ in steps])
    greys = np.array([grey for _, grey in steps], dtype=np.uint8)
    return greys[np.maximum(np.searchsorted(numbers, values, side="right") - 1, 0)]


def _on(curve: Curve, native: Pixels) -> Values:
    """Native numbers on the stretch's curve, as float64; an amplitude of 0 is -∞ decibels."""
    values = np.abs(native) if np.iscomplexobj(native) else native
    values = values.astype(np.float64)
    if curve != "decibel":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 and NaN
        return 20.0 * np.log10(np.maximum(values, 0.0))
