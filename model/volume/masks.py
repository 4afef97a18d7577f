"""Masks of a volume: sampling by the nearest voxel, the largest component, and holes."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

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


def spread(mask: Array, shape: Sequence[int]) -> Array:
    """The values of a mask, or others, at `shape` voxels, each as the nearest."""
    places = np.ix_(*(nearest(have, want) for have, want in zip(mask.shape, shape, strict=True)))
    return mask[places]  # pyright: ignore[reportReturnType]


def largest_component(mask: Mask) -> Mask:
    """The largest part of a mask whose voxels touch, also at edges and corners; nothing of an empty one."""
    labels, count = _label(mask, np.ones((3, 3, 3), dtype=np.bool_))
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(sizes.argmax())


def fill_holes(mask: Mask) -> Mask:
    """The mask with those parts of its background that no path over voxels' faces joins to the border."""
    labels, count = _label(~mask, None)
    open_ = np.zeros(count + 1, dtype=np.bool_)
    for axis in range(3):
        for side in (0, -1):
            open_[np.unique(np.take(labels, side, axis=axis))] = True
    return mask | ~open_[labels]


def _label(mask: Mask, structure: Any) -> tuple[npt.NDArray[np.int32], int]:
    from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]

    label: Any = ndimage.label  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return cast("tuple[npt.NDArray[np.int32], int]", label(mask, structure))
