"""Connected patches of a mask, and its surroundings: what an overview's mask is tidied with."""

# scipy has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from .image import Mask

Values = npt.NDArray[np.float64]


def box_mean(values: npt.NDArray[np.floating | np.bool_], radius: tuple[int, int]) -> Values:
    """The mean of `values` (H, W) over the box of ±radius (x, y) pixels round each; only what lies inside counts."""
    result = values.astype(np.float64)
    for axis, reach in ((1, radius[0]), (0, radius[1])):
        length = result.shape[axis]
        total = np.concatenate([np.zeros_like(np.take(result, [0], axis)), np.cumsum(result, axis)], axis)
        low = np.maximum(np.arange(length) - reach, 0)
        high = np.minimum(np.arange(length) + reach + 1, length)
        shape = [1, 1]
        shape[axis] = length
        result = (np.take(total, high, axis) - np.take(total, low, axis)) / (high - low).reshape(shape)
    return result


def dilate(mask: Mask, radius: tuple[int, int]) -> Mask:
    """The mask (H, W) with all pixels that are within ±radius (x, y) of one of its own on both axes."""
    size = (2 * radius[1] + 1, 2 * radius[0] + 1)
    return np.asarray(ndimage.maximum_filter(mask, size, mode="constant", cval=0), dtype=bool)


def keep_components(mask: Mask, counted: Mask, least: int = 1) -> Mask:
    """The 4-connected patches of a mask that hold at least `least` of the `counted` pixels."""
    patches, count = _label(mask)
    held = np.bincount(patches[counted], minlength=count + 1)
    return mask & (held >= least)[patches]


def fill_holes(mask: Mask, limit: int) -> Mask:
    """The mask with its holes of fewer than `limit` pixels filled; what reaches the picture's rim is no hole."""
    patches, count = _label(~mask)
    small = np.bincount(patches.ravel(), minlength=count + 1) < limit
    for rim in (patches[0], patches[-1], patches[:, 0], patches[:, -1]):
        small[rim] = False
    return mask | small[patches]


def _label(mask: Mask) -> tuple[npt.NDArray[np.intp], int]:
    """The number (H, W) of the 4-connected patch that a pixel belongs to, from 1, and how many there are."""
    found: Any = ndimage.label(mask)
    return found
