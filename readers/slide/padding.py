"""Padding of slides: the constant value that fills what a scanner did not look at, which is no data."""
# scipy has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import math
from functools import reduce
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from ..errors import ReadError
from ..geometry import Box
from ..image import Image, Mask, Pixels
from ..options import Options, invalid_option
from ..overview import ReducedImage, dilate

_SIDE: Final = 64  # level-0 pixels a side: compression leaves no constant windows of glass of this size
_WINDOW: Final = 16  # pixels a side of constant windows, which are padding once their value is known
_RINGING: Final = 10  # by which compression changes values beside padding
_SAMPLES: Final = 16  # windows in which a value is verified
_LEAST: Final = 1e-3  # of the valid overview pixels, which padding must cover
_CANDIDATES: Final = 4


class SlideOptions(Options):
    """Options of readers of slides."""

    icc: Literal["ignore", "apply"] = Field(
        default="ignore",
        description="Whether 8-bit colours are converted to sRGB by the file's ICC profile; `--icc` sets it. The value "
        "of `padding` is then one after conversion.",
    )
    padding: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        description="Value of each channel, such as 0,0,0, where nothing was scanned, which is no data. By default a "
        "value that fills whole areas and is not that of the background.",
    )

    def padding_of(self, channels: int, owner: str) -> Pixels | None:
        """The value of each channel (channels,); None without one. Raises `RequestError` for a wrong number of them."""
        if self.padding and len(self.padding) != channels:
            rule = f"must have a value for each of the {channels} channels"
            raise invalid_option("padding", owner, rule, value=",".join(map(str, self.padding)))
        return np.asarray(self.padding) if self.padding else None


def padding_mask(pixels: Pixels, value: Pixels) -> Mask:
    """Which pixels of a tile (H, W, C) lie in a window of 16 × 16 px with this value all over.

    What lies outside the tile counts as padding, and so do pixels within 16 px of such windows that differ from the
    value as little as a compressed border does.
    """
    same = _all_equal(pixels, value)
    if not same.any():
        return same
    from scipy import ndimage

    wide = np.pad(same, _WINDOW, constant_values=True)
    inside = np.s_[_WINDOW:-_WINDOW, _WINDOW:-_WINDOW]
    padded: Any = ndimage.maximum_filter(ndimage.minimum_filter(wide, _WINDOW), _WINDOW, origin=-1)
    opened: Mask = padded[inside] & same
    if not opened.any():
        return opened
    alike = (np.abs(pixels.astype(np.int64) - value) <= _RINGING).all(axis=2)
    return opened | (alike & dilate(opened, (_WINDOW, _WINDOW)))


def find_padding(image: Image, overview: ReducedImage) -> tuple[int, ...]:
    """The value of each channel in the padding of an open slide, by its overview of all channels; () without one.

    Padding is constant in windows of 64 level-0 pixels, some of which are read, and differs from the background: a
    value like that of the background may be saturated glass, or the black of fluorescence.
    """
    from .tissue import background_range  # which loads pyproj

    pixels, valid = overview.pixels, overview.valid
    if pixels.dtype.kind != "u" or not valid.any():
        return ()
    for value, flat in _constant_areas(pixels, valid, overview.scale):
        rest = valid & ~_all_equal(pixels, value)
        if not rest.any():
            continue
        low, high = background_range(pixels, rest)
        if ((value < low) | (value > high)).any() and _is_constant(image, flat, overview.scale, value):
            return tuple(map(int, value))
    return ()


def _all_equal(pixels: Pixels, value: Pixels) -> Mask:
    """Where all channels (H, W, C) have the value of `value`, (C,) or (H, W, C)."""
    return reduce(np.logical_and, (pixels[..., i] == value[..., i] for i in range(pixels.shape[2])))


def _constant_areas(pixels: Pixels, valid: Mask, scale: tuple[float, float]) -> list[tuple[Pixels, Mask]]:
    """The commonest values (channels,), each with the overview pixels (H, W) around which all windows have it."""
    from scipy import ndimage

    x, y = (2 * math.ceil(_SIDE / 2 / step) + 1 for step in scale)
    low: Any = ndimage.minimum_filter(pixels, (y, x, 1), mode="nearest")
    high: Any = ndimage.maximum_filter(pixels, (y, x, 1), mode="nearest")
    all_valid: Any = valid if valid.all() else ndimage.minimum_filter(valid, (y, x), mode="nearest")
    flat = _all_equal(low, high) & all_valid
    values, counts = np.unique(pixels[flat], axis=0, return_counts=True)
    common = [i for i in np.argsort(-counts, kind="stable")[:_CANDIDATES] if counts[i] >= _LEAST * valid.sum()]
    return [(values[i], flat & _all_equal(pixels, values[i])) for i in common]


def _is_constant(image: Image, flat: Mask, scale: tuple[float, float], value: Pixels) -> bool:
    """Whether windows of level-0 pixels, spread over some overview pixels, have this value all over."""
    rows, columns = np.nonzero(flat)
    width, height = (min(_SIDE, size) for size in image.info.size)
    for number in range(min(_SAMPLES, len(rows))):
        at = (2 * number + 1) * len(rows) // (2 * min(_SAMPLES, len(rows)))
        x = min(max(0, round((int(columns[at]) + 0.5) * scale[0] - width / 2)), image.info.size[0] - width)
        y = min(max(0, round((int(rows[at]) + 0.5) * scale[1] - height / 2)), image.info.size[1] - height)
        try:
            window, valid = image.read(Box(x, y, x + width, y + height), (width, height))
        except ReadError:
            return False
        if not (valid.all() and (window == value).all()):
            return False
    return True
