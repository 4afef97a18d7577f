"""Pictures changed a little each time they are shown, so that few of them teach more. Loads no torch.

Which changes leave the answer true is the samples' to say: a nadir view has no upper side, a chest film has a left and
a right one.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.float32]
Places = npt.NDArray[np.floating[Any]]

WAYS: Final = ("zoom", "shift", "mirror", "turn", "light")
"""`zoom` shows a part of at least `LEAST` of each side; `shift` moves by at most `FARTHEST` of a side and repeats the
rim; `mirror` swaps left and right; `turn` is a quarter turn or several; `light` changes contrast, brightness and, in
colour, the balance, by factors, so that dark pictures stay dark."""

LEAST = 0.8
FARTHEST = 0.08
CONTRAST, GAIN, BALANCE = 1.3, 1.2, 1.05
"""By how much `light` changes contrast, brightness and each colour at most, either way: factors."""


def varied(picture: Picture, ways: Sequence[str], random: np.random.Generator) -> Picture:
    """A picture (h, w, 3), changed in those ways; the size stays, but for a turn. The same numbers, the same change."""
    for way in WAYS:
        if way in ways:
            picture = _CHANGES[way](picture, random)
    return np.ascontiguousarray(picture)


def _zoom(picture: Picture, random: np.random.Generator) -> Picture:
    """A part, resampled bilinearly to the whole's size."""
    height, width = int(picture.shape[0]), int(picture.shape[1])
    share = random.uniform(LEAST, 1.0)
    top, left = random.uniform(0.0, 1.0 - share, 2)
    y = (np.arange(height) + 0.5) * share + float(top) * height - 0.5
    x = (np.arange(width) + 0.5) * share + float(left) * width - 0.5
    values = _between(_between(picture.astype(np.float32), y, 0), x, 1)
    return np.rint(values).astype(np.uint8)


def _between(values: Numbers, at: Places, axis: int) -> Numbers:
    """Values at places between pixels along an axis, in proportion; the rim is repeated."""
    last = values.shape[axis] - 1
    at = np.clip(at, 0.0, last)
    first = np.minimum(np.floor(at).astype(np.intp), max(last - 1, 0))
    share = (at - first).astype(np.float32).reshape((-1, *(1,) * (values.ndim - axis - 1)))
    low: Numbers = values.take(first, axis)
    high: Numbers = values.take(np.minimum(first + 1, last), axis)
    return (low + (high - low) * share).astype(np.float32)


def _shift(picture: Picture, random: np.random.Generator) -> Picture:
    rows, columns = (
        np.clip(np.arange(side) + round(random.uniform(-FARTHEST, FARTHEST) * side), 0, side - 1)
        for side in (int(picture.shape[0]), int(picture.shape[1]))
    )
    return picture[rows][:, columns]


def _mirror(picture: Picture, random: np.random.Generator) -> Picture:
    return picture[:, ::-1] if random.random() < 0.5 else picture


def _turn(picture: Picture, random: np.random.Generator) -> Picture:
    return np.rot90(picture, int(random.integers(4)))


def _light(picture: Picture, random: np.random.Generator) -> Picture:
    """Contrast about the picture's own mean, then a gain, in colour one for each channel beside it."""
    contrast, gain = (math.exp(random.uniform(-math.log(most), math.log(most))) for most in (CONTRAST, GAIN))
    grey = bool((picture[..., 0] == picture[..., 1]).all() and (picture[..., 1] == picture[..., 2]).all())
    balance = np.ones(3) if grey else np.exp(random.uniform(-math.log(BALANCE), math.log(BALANCE), 3))
    values = picture.astype(np.float64)
    mean = values.mean(axis=(0, 1))
    values = ((values - mean) * contrast + mean) * gain * balance
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_CHANGES: Final = {"zoom": _zoom, "shift": _shift, "mirror": _mirror, "turn": _turn, "light": _light}
