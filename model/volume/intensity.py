"""A stack held as voxels on a model's axes: its box that is not zero, and its values as a network takes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...readers.scratch import scratch_array
from .masks import fill_holes
from .orientation import Turn
from .volume import Volume

Scheme = Literal["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"]
Box = tuple[slice, slice, slice]

_EPSILON = 1e-8


@dataclass(frozen=True, slots=True)
class Held:
    """The voxels of a volume."""

    voxels: npt.NDArray[Any]
    """(slices, rows, columns), on disk: int16 where all values are such numbers, else float32."""
    used: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]
    """Of every slice, row and column, whether it has a voxel that is not 0."""

    def box(self, turn: Turn) -> Box | None:
        """The box of voxels that are not 0 on the turned axes; None where all are."""
        slices: list[slice] = []
        for source, flip in zip(turn.order, turn.flips, strict=True):
            places = np.flatnonzero(self.used[source][::-1] if flip else self.used[source])
            if not len(places):
                return None
            slices.append(slice(int(places[0]), int(places[-1]) + 1))
        return slices[0], slices[1], slices[2]


def hold(volume: Volume, *, fill: float) -> Held:
    """Read a volume once, slice by slice; voxels that are not valid become `fill`. Raises `LimnerError`."""
    voxels = scratch_array(volume.shape, dtype=np.int16)
    used = tuple(np.zeros(side, dtype=np.bool_) for side in volume.shape)
    for number, values in enumerate(volume.slices()):
        filled = np.where(np.isnan(values), np.float32(fill), values)
        if voxels.dtype == np.int16 and not _whole(filled):
            earlier, voxels = voxels, scratch_array(volume.shape, dtype=np.float32)
            for one in range(number):
                voxels[one] = earlier[one]
        voxels[number] = filled
        nonzero = filled != 0
        used[0][number] = nonzero.any()
        used[1][:] |= nonzero.any(axis=1)
        used[2][:] |= nonzero.any(axis=0)
    return Held(voxels, (used[0], used[1], used[2]))


def _whole(values: npt.NDArray[np.float32]) -> bool:
    limits = np.iinfo(np.int16)
    inside = bool(np.all((values >= limits.min) & (values <= limits.max)))
    return inside and bool(np.all(values == np.rint(values)))


class Normaliser:
    """The normalisation of nnU-Net v2, row by row of the first axis: see its `default_normalization_schemes`.

    What it needs to know of the whole volume is measured when it is made.
    """

    def __init__(
        self, voxels: npt.NDArray[Any], scheme: Scheme, *, masked: bool, intensities: Mapping[str, float]
    ) -> None:
        """`masked`: a z-score of the voxels inside the outline of what is not 0; others stay as they are."""
        self._voxels, self._scheme = voxels, scheme
        self._shift, self._scale = np.float32(0), np.float32(1)
        self._limits: tuple[float, float] | None = None
        self._mask: npt.NDArray[np.bool_] | None = None
        if scheme == "CTNormalization":
            self._limits = intensities["percentile_00_5"], intensities["percentile_99_5"]
            self._shift, self._scale = np.float32(intensities["mean"]), np.float32(max(intensities["std"], _EPSILON))
        elif scheme == "ZScoreNormalization":
            if masked:
                self._mask = _filled(voxels)
            self._shift, self._scale = self._moments()
        elif scheme == "RescaleTo01Normalization":
            low, high = (np.float32(of([of(row) for row in voxels])) for of in (np.min, np.max))
            self._shift, self._scale = low, np.float32(max(high - low, _EPSILON))

    def rows(self, first: int, last: int) -> npt.NDArray[np.float32]:
        """Rows [first, last), normalised."""
        values = np.ascontiguousarray(self._voxels[first:last], dtype=np.float32)
        if values.base is not None or np.shares_memory(values, self._voxels):
            values = values.copy()
        if self._limits is not None:
            np.clip(values, *self._limits, out=values)
        if self._mask is None:
            values -= self._shift
            values /= self._scale
        else:
            inside = self._mask[first:last]
            values[inside] = (values[inside] - self._shift) / self._scale
        return values

    def bounds(self, alone: int | None) -> npt.NDArray[np.float64]:
        """(2, n) smallest and largest normalised value by index along an axis; (2, 1) of all for None."""
        others = tuple(axis for axis in range(3) if axis != alone)
        found: list[npt.NDArray[np.float64]] = []
        for row in range(self._voxels.shape[0]):
            values = self.rows(row, row + 1)
            found.append(np.stack([values.min(axis=others), values.max(axis=others)]).reshape(2, -1).astype(np.float64))
        if alone == 0:
            return np.concatenate(found, axis=1)
        every = np.stack(found)
        return np.stack([every[:, 0].min(axis=0), every[:, 1].max(axis=0)])

    def _moments(self) -> tuple[np.float32, np.float32]:
        """Mean and standard deviation, of the mask where there is one."""
        count, total = 0, 0.0
        for values in self._selected():
            count, total = count + values.size, total + float(values.sum(dtype=np.float64))
        mean = total / max(count, 1)
        squares = sum(float(np.square(values - mean, dtype=np.float64).sum()) for values in self._selected())
        return np.float32(mean), np.float32(max((squares / max(count, 1)) ** 0.5, _EPSILON))

    def _selected(self) -> Any:
        for row in range(self._voxels.shape[0]):
            values = self._voxels[row].astype(np.float64)
            yield values if self._mask is None else values[self._mask[row]]


def _filled(voxels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Voxels that are not 0, with the holes that they enclose, on disk."""
    mask = scratch_array(voxels.shape, dtype=np.bool_)
    for row, values in enumerate(voxels):
        mask[row] = values != 0
    return fill_holes(mask)
