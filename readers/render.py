"""Conversion of native pixels to 8-bit RGB by a contrast stretch or a DICOM window.

A stretch is fitted once per image, from its overview, and used for every tile and the global view, so that the same
ground has the same colour everywhere. It is recorded in the run.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self, cast

import numpy as np
import numpy.typing as npt

from .errors import ReadError
from .image import Channel, ImageInfo, Mask, Pixels

Curve = Literal["linear", "decibel", "sigmoid", "steps"]
Visibility = Literal["detail", "one grey", "nothing"]
Values = npt.NDArray[np.float64]

PERCENTILES: Final = (2.0, 98.0)
_FITTED: Final = "2nd to 98th percentile"
CHOOSE_WINDOW: Final = "choose another with --set reader_options.window=NAME"
"""The end of a note that names a window which neither the file nor the user stated."""
_COLOURS: Final = ("red", "green", "blue")
_WHITE: Final = 255
_BRIGHT_FIELD: Final = 0.35  # of white: a slide with a darker median is dark field, whose channels are unrelated
_WINDOW_CURVES: Final[Mapping[str, Curve]] = {"": "linear", "sigmoid": "sigmoid", "steps": "steps"}


@dataclass(frozen=True, slots=True)
class Stretch:
    """The mapping of native values to 0 to 255, per channel: `low` is black, `high` white; `low` may be the higher."""

    channels: tuple[str, ...]
    """`Channel.name` of one channel (grey) or three (red, green, blue)."""
    low: tuple[float, ...]
    """Native value of black per channel, in dB for the curve "decibel"; three for one channel that three windows show
    as red, green and blue."""
    high: tuple[float, ...]
    """Native value of white per channel, likewise."""
    source: str
    """Where the numbers come from, in words."""
    curve: Curve = "linear"
    """"decibel": linear in 20·log10 of the magnitude. "sigmoid": the logistic curve whose tangent in its middle reaches
    black at `low` and white at `high` (PS3.3 C.11.2.1.3.1). "steps": the table `steps`."""
    steps: tuple[tuple[float, int], ...] = ()
    """(value, grey 0 to 255) in ascending order, for one channel: a grey holds from its value up to the next."""
    blank: int = _WHITE
    """Grey of invalid pixels."""

    def __post_init__(self) -> None:
        count = len(self.channels), len(self.low), len(self.high)
        if count not in {(1, 1, 1), (3, 3, 3), (1, 3, 3)} or (count[1] > count[0] and self.steps):
            msg = "a stretch has one or three channels, each with low and high, or three windows of one channel"
            raise ValueError(msg)

    def to_json(self) -> dict[str, Any]:
        """Convert to values that `json` writes, without the steps and the blank of most images."""
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
        """Invert `to_json`."""
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
    """Choose the channels to show, by `Channel.name`: red, green and blue, or the only channel as grey.

    Raises `ReadError` where the colours are unknown or ambiguous.
    """
    if len(channels) == 1:
        return (channels[0].name,)
    count = Counter(channel.common for channel in channels)
    if all(count[colour] == 1 for colour in _COLOURS):
        return tuple(next(c.name for c in channels if c.common == colour) for colour in _COLOURS)
    twice = [colour for colour in _COLOURS if count[colour] > 1]
    raise ReadError(
        "the channels to show",
        "must be exactly one red, one green and one blue, or a single channel for grey",
        value=", ".join(f"{c.name} ({c.common or 'colour unknown'})" for c in channels)
        + (f"; more than one {' and '.join(twice)}" if twice else ""),
        remedy="Name the file's channels in order with --bands, such as --bands blue,green,red,nir",
    )


def fit_stretch(
    pixels: Pixels,
    valid: Mask,
    channels: Sequence[Channel],
    limits: tuple[float, float] | None = None,
    *,
    keep_colours: bool = False,
) -> Stretch:
    """Fit a stretch to an overview: native pixels (H, W, C), their validity (H, W) and their C channels.

    8-bit red, green and blue stay as they are. All else is stretched from the 2nd to the 98th percentile of the valid
    and finite pixels of each channel (linear interpolation between ranks), 0 to 1 where there are none; channels of
    "amplitude" (SAR) in dB, 20·log10 of the magnitude, since speckle is multiplicative. `limits` gives black and white
    of every channel instead, in native values or dB. With `keep_colours`, red, green and blue of a bright-field slide
    have one window, which keeps their proportions as stains need it: 0 to the largest number of as many bits as the
    brightest valid value takes, 8 at least.
    Raises `ReadError` as `rgb_channels` does.
    """
    names = rgb_channels(channels)
    places = [next(i for i, channel in enumerate(channels) if channel.name == name) for name in names]
    chosen = [channels[place] for place in places]
    curve: Curve = "decibel" if all(channel.quantity == "amplitude" for channel in chosen) else "linear"
    if limits is not None:
        return Stretch(names, limits[:1] * len(names), limits[1:] * len(names), "as given", curve)
    if len(names) == len(_COLOURS) and all(channel.dtype == "uint8" for channel in chosen):
        return Stretch(names, (0.0,) * 3, (255.0,) * 3, "8-bit red, green and blue as they are")
    if keep_colours and len(names) == len(_COLOURS) and pixels.dtype.kind == "u" and valid.any():
        colours = pixels[..., places][valid]
        brightness = colours.max(axis=1)
        if np.median(brightness) > _BRIGHT_FIELD * np.percentile(brightness, 99.9):
            bits = max(8, int(brightness.max()).bit_length())
            source = f"0 to {2**bits - 1} in all colours, since the brightest overview value is {brightness.max()}"
            return Stretch(names, (0.0,) * 3, (2.0**bits - 1,) * 3, source)
    ends: list[tuple[float, float]] = []
    counted = 0
    for place in places:
        values = pixels[..., place][valid]
        if curve != "linear" or values.dtype.kind != "u":  # unsigned integers are ranked as they are, twice as fast
            values = _to_curve_units(curve, values)
            values = values[np.isfinite(values)]
        counted = max(counted, len(values))
        low, high = np.percentile(values, PERCENTILES) if len(values) else (0.0, 1.0)
        ends.append((float(low), float(high)))
    unit = " of 20·log10 of the magnitude" if curve == "decibel" else ""
    source = f"{_FITTED}{unit}, {counted} valid overview pixels" if counted else "no valid pixel"
    return Stretch(names, tuple(low for low, _ in ends), tuple(high for _, high in ends), source, curve)


def window_stretch(info: ImageInfo) -> Stretch | None:
    """The stretch of a study's window or three, from its facts `window_…`; None without. Invalid pixels are black.

    MONOCHROME1 has `low` and `high` exchanged.
    """
    facts = dict(info.facts)
    if "window_low" not in facts:
        return None
    steps = [step.partition(":") for step in facts.get("window_steps", "").split()]
    return Stretch(
        (info.channels[0].name,),
        tuple(map(float, facts["window_low"].split())),
        tuple(map(float, facts["window_high"].split())),
        facts["window_used"],
        curve=_WINDOW_CURVES[facts.get("window_curve", "")],
        steps=tuple((float(number), int(grey)) for number, _, grey in steps),
        blank=0,
    )


def with_window(info: ImageInfo, limits: tuple[float, float], source: str) -> ImageInfo:
    """A study of grey values shown with other values of black and white than its own window's, and why."""
    facts, (low, high) = dict(info.facts), limits
    kept = {key: text for key, text in facts.items() if not key.startswith("window_")}
    used = f"{(low + high) / 2:g}/{high - low:g} LINEAR_EXACT ({source}"
    if "window_used" in facts:
        used += f", instead of {facts['window_used']}"
    ends = (high, low) if "inverted" in facts else (low, high)
    kept |= {"window_used": f"{used})", "window_low": repr(ends[0]), "window_high": repr(ends[1])}
    notes = tuple(note for note in info.notes if not note.endswith(CHOOSE_WINDOW))
    return replace(info, facts=tuple(kept.items()), notes=notes)


def display_stretch(info: ImageInfo, fitted: Stretch) -> Stretch:
    """The stretch to show an image with: the window of a study if it has one, else the one `fitted` to its pixels.

    In a study invalid pixels are black, and MONOCHROME1 shows low values as white.
    """
    if info.kind != "study":
        return fitted
    if (stated := window_stretch(info)) is not None:
        return stated
    ends = (fitted.high, fitted.low) if "inverted" in dict(info.facts) else (fitted.low, fitted.high)
    return replace(fitted, low=ends[0], high=ends[1], blank=0)


def visibility(info: ImageInfo, pixels: Pixels, valid: Mask, stretch: Stretch) -> Visibility:
    """What a rendering of a study's native pixels (H, W, C) shows.

    Where all valid pixels get the same grey, that is nothing if it is black or white, if it is the only grey of a
    table, or if all values of the file are the same, since its rescale slope is 0. Otherwise it is one grey: also black
    or white of values within a stretch that was fitted to the image. A region without valid pixels is no data, and maps
    and slides show whatever they have: "detail".
    """
    if info.kind != "study":
        return "detail"
    shown = render(pixels, valid, stretch)[valid]
    if not shown.size or (shown != shown[0]).any():
        return "detail"
    if "flat" in dict(info.facts) or len(stretch.steps) == 1:
        return "nothing"
    if stretch.source.startswith(_FITTED):
        values = _to_curve_units(stretch.curve, pixels[valid])
        low, high = np.minimum(stretch.low, stretch.high), np.maximum(stretch.low, stretch.high)
        return "one grey" if ((low <= values) & (values <= high)).any() else "nothing"
    return "nothing" if set(shown[0].tolist()) <= {0, _WHITE} else "one grey"


def render(pixels: Pixels, valid: Mask, stretch: Stretch) -> npt.NDArray[np.uint8]:
    """Render native pixels (H, W, C) of the stretch's channels, in its order, as (H, W, 3) uint8.

    Invalid pixels and NaN are `blank`. A channel with `low` == `high` is grey there, black below, white above.
    Raises `ValueError` where the channels do not fit the stretch.
    """
    if pixels.ndim != 3 or pixels.shape[2] != len(stretch.channels):
        msg = f"pixels {pixels.shape} are not those of the channels {stretch.channels}"
        raise ValueError(msg)
    kept = pixels.dtype == np.uint8 and stretch.curve == "linear"
    if kept and pixels.shape[2] == 3 and {*zip(stretch.low, stretch.high, strict=True)} == {(0.0, 255.0)}:
        result = copy_pixels(pixels) if valid.all() else np.where(valid[..., None], pixels, np.uint8(stretch.blank))
        return cast("npt.NDArray[np.uint8]", result)
    result = np.empty((*pixels.shape[:2], 3), dtype=np.uint8)
    shown = valid.copy()
    for colour, (low, high) in enumerate(zip(stretch.low, stretch.high, strict=True)):
        place = colour if len(stretch.channels) > 1 else 0
        if kept and (low, high) == (0.0, 255.0):
            grey = pixels[..., place]
        else:
            grey, numbers = _to_grey(pixels[..., place], low, high, stretch)
            shown &= numbers
        result[..., colour : colour + 1 if len(stretch.low) > 1 else None] = grey[..., None]
    if not shown.all():
        result[~shown] = stretch.blank
    return result


def copy_pixels(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy of pixels (H, W, …) in C order, channel by channel where these lie apart: several times as fast."""
    if pixels.ndim != 3 or pixels.strides[2] <= pixels.strides[0]:
        return pixels.copy()
    result = np.empty(pixels.shape, dtype=pixels.dtype)
    for channel in range(pixels.shape[2]):
        result[..., channel] = pixels[..., channel]
    return result


def _to_grey(native: Pixels, low: float, high: float, stretch: Stretch) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Native values of one channel as grey, and which of them are numbers.

    Many values of 8 or 16 bits are looked up in a table of all that there can be.
    """
    codes = f"u{native.dtype.itemsize}"
    if native.dtype.kind in "iu" and native.dtype.itemsize <= 2 and native.size > 2 ** (8 * native.dtype.itemsize):
        every = np.arange(2 ** (8 * native.dtype.itemsize), dtype=codes).view(native.dtype)
        table, _ = _to_grey(every, low, high, stretch)
        return table[native.view(codes)], np.ones(native.shape, dtype=np.bool_)
    values = _to_curve_units(stretch.curve, native)
    steps = stretch.curve == "steps"
    grey = _apply_steps(values, stretch.steps) if steps else _apply_curve(values, low, high, stretch)
    return grey, ~np.isnan(values)


def _apply_curve(values: Values, low: float, high: float, stretch: Stretch) -> npt.NDArray[np.uint8]:
    """Map values to grey on a linear or sigmoid curve, rounded half up."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN becomes blank in the caller, infinity white
        share = (values - low) / (high - low) if high != low else (np.sign(values - low) + 1.0) / 2.0
        if stretch.curve == "sigmoid":
            share = 1.0 / (1.0 + np.exp(-4.0 * (share - 0.5)))
        return np.floor(np.clip(np.nan_to_num(share), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _apply_steps(values: Values, steps: Sequence[tuple[float, int]]) -> npt.NDArray[np.uint8]:
    """Map values to grey by a table of steps."""
    numbers = np.array([number for number, _ in steps])
    greys = np.array([grey for _, grey in steps], dtype=np.uint8)
    return greys[np.maximum(np.searchsorted(numbers, values, side="right") - 1, 0)]


def _to_curve_units(curve: Curve, native: Pixels) -> Values:
    """Native values as float64, in dB for the curve "decibel", where 0 is -∞."""
    values = np.abs(native) if np.iscomplexobj(native) else native
    values = values.astype(np.float64)
    if curve != "decibel":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 and NaN
        return 20.0 * np.log10(np.maximum(values, 0.0))
