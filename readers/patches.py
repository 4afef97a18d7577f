"""Connected patches of a mask, and averages over boxes: what an overview's mask is tidied with. Pure numpy."""

import numpy as np
import numpy.typing as npt

from .image import Mask

Values = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]


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


def holding(mask: Mask, counted: Mask, least: int = 1) -> Mask:
    """The 4-connected patches of a mask that hold at least `least` of the `counted` pixels."""
    rows, starts, stops = _runs(mask)
    total = np.cumsum(np.pad(counted & mask, ((0, 0), (1, 0))), axis=1)
    patch = _patches(rows, starts, stops)
    held = np.bincount(patch, weights=total[rows, stops] - total[rows, starts], minlength=len(rows))
    keep = held[patch] >= least
    change = np.zeros((mask.shape[0], mask.shape[1] + 1), dtype=np.int8)
    change[rows[keep], starts[keep]] = 1
    change[rows[keep], stops[keep]] -= 1
    return np.cumsum(change, axis=1)[:, :-1].astype(bool)


def fill_holes(mask: Mask, limit: int) -> Mask:
    """The mask with its holes of fewer than `limit` pixels filled; what reaches the picture's rim is no hole."""
    around = np.pad(~mask, 1, constant_values=True)
    rim = np.ones_like(around)
    rim[1:-1, 1:-1] = False
    holes = (around & ~holding(around, rim))[1:-1, 1:-1]
    return mask | (holes & ~holding(holes, holes, limit))


def _runs(mask: Mask) -> tuple[Index, Index, Index]:
    """Row, first and last + 1 column of every run of true pixels, in reading order."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    return rows, starts, stops


def _patches(rows: Index, starts: Index, stops: Index) -> Index:
    """For each run the number of a run that stands for its patch, the same for all of a patch's runs.

    Runs of neighbouring rows that share a column belong together; the smallest number spreads until nothing changes.
    """
    width = int(stops.max(initial=0)) + 1
    first = np.searchsorted(rows * width + stops, (rows - 1) * width + starts, side="right")
    last = np.searchsorted(rows * width + starts, (rows - 1) * width + stops, side="left")
    count = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(rows)), count)
    above = np.arange(len(below)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    label = np.arange(len(rows))
    while True:
        least = np.minimum(label[below], label[above])
        spread = label.copy()
        for end in (below, above):
            np.minimum.at(spread, label[end], least)
            np.minimum.at(spread, end, least)
        while not np.array_equal(spread, spread[spread]):
            spread = spread[spread]
        if np.array_equal(spread, label):
            return label
        label = spread
