"""Resample a volume row by row of its first axis, with splines, as nnU-Net v2 does it as a whole.

A voxel is a cell: with n cells in place of m along an axis, cell i has its centre at (i + ½) · m / n - ½. Splines of
order 0 to 5 along each axis, edges repeated; from order 2, overshoot beyond the source's values is clipped. That is a
linear map of each axis by itself, so a slab of the result needs few rows of the source. Of order 3 the result of every
row depends on all, by weights that fall to a quarter with each row: those below `_NEGLIGIBLE` are left out.

Source: `resample_data_or_seg_to_shape` of nnU-Net v2, `skimage.transform.resize`, `scipy.ndimage.zoom`.
"""

# scipy has no types, and torch's do not cover arrays:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from .orientation import AxesTriple

_NEGLIGIBLE: Final = 1e-17
_BLOCK: Final = 16  # rows of the source that are resampled at a time
ANISOTROPY: Final = 3.0
"""nnU-Net's ratio of the spacings above which the axis of the largest is resampled by itself."""

Rows = Callable[[int, int], torch.Tensor]
"""Rows [first, last) of an array: (rows, height, width)."""


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders of the splines."""

    order: int
    order_z: int = 0
    """Along an axis that is resampled by itself."""
    separate: bool | None = None
    """Whether one axis is; None where the spacing decides."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """How an array of one shape becomes another."""

    source: AxesTriple
    target: AxesTriple
    orders: AxesTriple
    """Of each axis."""
    alone: int | None = None
    """The axis that is resampled by itself, after the others."""
    steps: tuple[float, float, float] | None = None
    """Distances of the result's voxels in voxels of the source, where their first ones coincide; None for cells."""

    @classmethod
    def plan(
        cls,
        source: AxesTriple,
        target: AxesTriple,
        orders: Orders,
        spacings: tuple[Sequence[float], Sequence[float]] = ((1, 1, 1), (1, 1, 1)),
    ) -> "Resampling":
        """As nnU-Net decides it from the spacings of source and target: see `Orders`."""
        alone = _separate_axis(orders.separate, *spacings)
        first, second, third = (orders.order_z if axis == alone else orders.order for axis in range(3))
        return cls(source, target, (first, second, third), alone)

    @property
    def clipped(self) -> bool:
        """Whether overshoot is possible, so that `Resampler` needs the range of the source's values."""
        orders = [order for axis, order in enumerate(self.orders) if axis != self.alone]
        return self.source != self.target and max(orders) > 1


class Resampler:
    """Rows of the resampled array, in float64, from those of the source, which may be asked for in any order."""

    def __init__(self, plan: Resampling, bounds: npt.NDArray[np.float64] | None = None) -> None:
        """Bounds: (2, 1) or (2, n) smallest and largest values, by index along `plan.alone`; needed if clipped."""
        self._plan = plan
        self._weights: list[torch.Tensor | None] = []
        for axis, (source, target, order) in enumerate(zip(plan.source, plan.target, plan.orders, strict=True)):
            step = plan.steps[axis] if plan.steps else None
            same = source == target and step in {None, 1.0}
            self._weights.append(None if same else axis_weights(source, target, order, step))
        both = not any(weights is None for weights in self._weights[1:])
        self._bilinear = plan.orders[1:] == (1, 1) and plan.alone not in (1, 2) and both and plan.steps is None
        self._bounds = None if bounds is None or not plan.clipped else torch.from_numpy(bounds)

    @property
    def source(self) -> AxesTriple:
        """The shape of what is resampled."""
        return self._plan.source

    @property
    def target(self) -> AxesTriple:
        """The shape of the result."""
        return self._plan.target

    @property
    def unchanged(self) -> bool:
        """Whether the result is the source."""
        return all(weights is None for weights in self._weights)

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """The rows [first, last) of the source that rows [first, last) of the result need."""
        weights = self._weights[0]
        if weights is None:
            return first, last
        used = np.flatnonzero(np.any(weights[first:last].numpy() != 0, axis=0))
        return int(used[0]), int(used[-1]) + 1

    def in_plane(self, rows: torch.Tensor, first: int) -> torch.Tensor:
        """Rows of the source from the first on, (…, rows, height, width), with height and width resampled."""
        alone = self._plan.alone
        out = self._resize(rows, [axis for axis in (2, 1) if axis != alone])
        if alone == 0 and self._bounds is not None:
            low, high = self._bounds[:, first : first + out.shape[-3], None, None]
            out = out.clamp(low, high)
        return out

    def row(self, rows: torch.Tensor, index: int) -> torch.Tensor:
        """One row of the result for channels (height, width) from those rows of the source that it needs.

        rows: (channels, needed rows, source height, source width). Only for orders up to 1, which need no bounds.
        """
        low, high = self.needs(index, index + 1)
        weights = self._weights[0]
        mixed = rows.to(torch.float64)
        if weights is not None:
            mixed = torch.einsum("r,crhw->chw", weights[index, low:high], mixed)[:, None]
        return self._resize(mixed, (2, 1))[:, 0]

    def _resize(self, rows: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
        """Rows (…, height, width) with some of these axes resampled."""
        out = rows.to(torch.float64)
        if self._bilinear:
            flat = out.reshape(-1, 1, *out.shape[-2:])
            flat = torch.nn.functional.interpolate(flat, self._plan.target[1:], mode="bilinear", align_corners=False)
            return flat.reshape(*out.shape[:-2], *self._plan.target[1:])
        for axis in axes:
            weights = self._weights[axis]
            out = out if weights is None else _apply(out, weights, axis)
        return out

    def across(self, rows: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Rows [first, last) of the result from rows of `in_plane`: those that they need, in order."""
        weights, alone, out = self._weights[0], self._plan.alone, rows
        if weights is not None:
            low, high = self.needs(first, last)
            out = _apply(out, weights[first:last, low:high], 0)
        if alone != 0 and self._bounds is not None:
            shape = [1, 1, 1]
            if alone is not None:
                shape[alone] = -1
            low, high = (bound.reshape(shape) for bound in self._bounds)
            out = out.clamp(low, high)
        weights = self._weights[alone] if alone else None
        return out if weights is None or not alone else _apply(out, weights, alone)


class RowCache:
    """Rows of a resampled array in rising order, which resamples each row of the source once."""

    def __init__(self, resampler: Resampler, source: Rows) -> None:
        self._resampler, self._source = resampler, source
        self._rows = torch.empty(0)
        self._first = self._last = 0

    def read(self, first: int, last: int) -> torch.Tensor:
        """Rows [first, last) in float64; `first` never falls."""
        low, high = self._resampler.needs(first, last)
        high = max(high, self._last)
        start = max(low, self._last)
        kept = self._rows[low - self._first :] if low < self._last else self._rows[:0]
        if high > start:
            for block in range(start, high, _BLOCK):
                end = min(block + _BLOCK, high)
                fresh = self._resampler.in_plane(self._source(block, end), block)
                if block == start:
                    self._rows = torch.empty((high - low, *fresh.shape[1:]), dtype=fresh.dtype)
                    if len(kept):
                        self._rows[: len(kept)] = kept
                self._rows[block - low : end - low] = fresh
            kept = self._rows
        self._rows, self._first, self._last = kept, low, high
        needed = self._resampler.needs(first, last)[1] - low
        return self._resampler.across(self._rows[:needed], first, last)


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> AxesTriple:
    """The shape with another spacing: rounded, half to even."""
    sides = [max(1, round(old / new * side)) for old, new, side in zip(spacing, target, shape, strict=True)]
    return sides[0], sides[1], sides[2]


def axis_weights(source: int, target: int, order: int, step: float | None = None) -> torch.Tensor:
    """The (target, source) weights, in float64, by which an axis is resampled: see `Resampling.steps`."""
    from scipy import ndimage

    cells = (np.arange(target) + 0.5) * (source / target) - 0.5
    centres = cells if step is None else np.arange(target) * step
    if order <= 1:  # whose map needs no more than the neighbours
        columns = np.arange(source)
        if order == 0:
            nearest: Any = ndimage.map_coordinates(columns.astype(np.float64), [centres], order=0, mode="nearest")
            return torch.from_numpy((nearest[:, None] == columns).astype(np.float64))
        inside = np.clip(centres, 0, source - 1)
        return torch.from_numpy(np.maximum(0, 1 - np.abs(inside[:, None] - columns)))
    units = np.eye(source)
    weights = np.empty((target, source))
    for column in range(source):
        weights[:, column] = ndimage.map_coordinates(units[column], [centres], order=order, mode="nearest")
    weights[np.abs(weights) < _NEGLIGIBLE] = 0
    return torch.from_numpy(weights)


def _apply(array: torch.Tensor, weights: torch.Tensor, axis: int) -> torch.Tensor:
    """Replace one of the last three axes by its weighted sums."""
    if axis == 2:
        return array @ weights.T
    if axis == 1:
        return weights @ array
    shape = array.shape
    return (weights @ array.reshape(*shape[:-3], shape[-3], -1)).reshape(*shape[:-3], len(weights), *shape[-2:])


def _separate_axis(separate: bool | None, current: Sequence[float], new: Sequence[float]) -> int | None:
    """The axis of the largest spacing, where nnU-Net resamples it by itself: one alone, by more than `ANISOTROPY`."""
    if separate is False:
        return None
    chosen = next((one for one in (current, new) if max(one) / min(one) > ANISOTROPY), None)
    if separate:
        chosen = current
    largest = [] if chosen is None else [axis for axis in range(3) if max(chosen) / chosen[axis] == 1]
    return largest[0] if len(largest) == 1 else None
