"""Masks of a volume, on disk: sampling by the nearest voxel, the largest component, and holes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...readers.scratch import scratch_array
from .orientation import Array, Turn
from .volume import Volume, Voxels

Mask = npt.NDArray[np.bool_]
"""(D, H, W)."""
Box = tuple[slice, slice, slice]


def nearest(length: int, count: int) -> npt.NDArray[np.int64]:
    """The voxel of `length` in which the centre of each of `count` equal parts lies; as torch's "nearest-exact".

    The factor has torch's precision, so that centres on the wall of two voxels fall as there.
    """
    factor = float(np.float32(length) / np.float32(count))
    found = np.floor(((np.arange(count) + 0.5) * factor).astype(np.float32)).astype(np.int64)
    return np.minimum(found, length - 1)


def sample(volume: Volume, turn: Turn, box: Box, shape: Sequence[int]) -> Voxels:
    """The nearest voxels at `shape` equal parts of a box, both in the turned axes; 0 where they are not valid.

    Only slices of which something is needed are read, once, in order.
    """
    turned = turn.shape(volume.shape)
    indices: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * 3
    for axis, (part, count) in enumerate(zip(box, shape, strict=True)):
        found = part.start + nearest(part.stop - part.start, count)
        indices[turn.order[axis]] = turned[axis] - 1 - found if turn.flips[axis] else found
    out = np.empty(tuple(shape), dtype=np.float32)
    rows = np.ix_(*indices[1:])
    straight = out.transpose([turn.order.index(axis) for axis in range(3)])
    for number in np.unique(indices[0]):
        straight[indices[0] == number] = np.nan_to_num(volume.read(int(number))[rows])
    return out


def spread_slices(values: Array, turn: Turn, shape: Sequence[int]) -> Iterator[Array]:
    """The slices, in order, of a volume of `shape` whose turned axes show `values`, each voxel as the nearest."""
    turned = turn.shape(shape)
    places: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * 3
    for axis, (source, flip) in enumerate(zip(turn.order, turn.flips, strict=True)):
        found = nearest(values.shape[axis], turned[axis])
        places[source] = found[::-1] if flip else found
    straight = values.transpose([turn.order.index(axis) for axis in range(3)])
    within = np.ix_(*places[1:])
    for place in places[0].tolist():
        yield straight[place][within]  # pyright: ignore[reportReturnType]


def largest_component(mask: Mask) -> Mask:
    """The largest part of a mask whose voxels touch, also at edges and corners; nothing of an empty one."""
    labels, count = _label(mask, np.ones((3, 3, 3), dtype=np.bool_))
    if count < 2:
        return mask
    sizes = np.zeros(count + 1, dtype=np.int64)
    for plane in labels:
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = 0
    return _where(labels, np.arange(count + 1) == int(sizes.argmax()))


def fill_holes(mask: Mask) -> Mask:
    """The mask with those parts of its background that no path over voxels' faces joins to the border."""
    outside = scratch_array(mask.shape, dtype=np.bool_)
    for plane, values in enumerate(mask):
        np.logical_not(values, out=outside[plane])
    labels, count = _label(outside, None)
    closed = np.ones(count + 1, dtype=np.bool_)  # what is no background is not of it
    for axis in range(3):
        for side in (0, -1):
            closed[np.unique(np.take(labels, side, axis=axis))] = False
    closed[0] = True
    return _where(labels, closed)


def _where(labels: npt.NDArray[np.int32], chosen: npt.NDArray[np.bool_]) -> Mask:
    """Where the label is a chosen one."""
    found = scratch_array(labels.shape, dtype=np.bool_)
    for plane, values in enumerate(labels):
        np.take(chosen, values, out=found[plane])
    return found


def _label(mask: Mask, structure: Any) -> tuple[npt.NDArray[np.int32], int]:
    """The components (D, H, W) of a mask, numbered from 1, and their number."""
    from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

    labels = scratch_array(mask.shape, dtype=np.int32)
    label: Any = ndimage.label  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return labels, int(label(mask, structure, output=labels))
