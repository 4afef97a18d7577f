"""Run a network over a volume in overlapping patches, and return its blended answers row by row of the first axis.

Held at a time are the answers of the rows that one patch covers, and the rows of the volume that it needs: as much for
any number of rows. A volume smaller than a patch is padded with zeros on both sides, and what answers them is cut off.
"""

# scipy has no types, and torch's do not cover arrays:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from .orientation import AxesTriple
from .resampling import Rows

Network = Callable[[torch.Tensor], torch.Tensor]
"""A patch (1, 1, depth, height, width) → scores (classes, depth, height, width) in float32."""


@dataclass(frozen=True, slots=True)
class Patches:
    """Where the patches lie and how much each of their voxels counts."""

    size: AxesTriple
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """First voxels of the patches along each axis of the padded volume."""
    importance: torch.Tensor
    """Of each voxel of a patch, in the number type in which answers are summed."""

    @property
    def count(self) -> int:
        """How many patches there are."""
        return math.prod(map(len, self.starts))


def even_starts(side: int, patch: int, step: float) -> tuple[int, ...]:
    """First voxels of patches at most `step` of a patch apart, evenly from edge to edge, as nnU-Net places them."""
    if side <= patch:
        return (0,)
    count = math.ceil((side - patch) / (patch * step)) + 1
    return tuple(round((side - patch) / (count - 1) * i) for i in range(count))


def fixed_starts(side: int, patch: int, overlap: float) -> tuple[int, ...]:
    """First voxels of patches at equal steps, the last moved back to the edge, as MONAI's sliding window places them.

    Overlap: the share of a patch that neighbours have in common.
    """
    if side <= patch:
        return (0,)
    step = max(1, int(patch * (1 - overlap)))
    count = math.ceil((side - patch) / step) + 1
    return tuple(min(i * step, side - patch) for i in range(count))


def nnunet_importance(size: AxesTriple) -> torch.Tensor:
    """A Gaussian with a deviation of an eighth of each side and 10 at the centre, in float16, never 0: nnU-Net's."""
    from scipy.ndimage import gaussian_filter

    point = np.zeros(size)
    point[tuple(side // 2 for side in size)] = 1
    blurred: Any = gaussian_filter(point, [side / 8 for side in size], mode="constant")
    found = torch.from_numpy(blurred / (blurred.max() / 10)).to(torch.float16)
    found[found == 0] = found[found > 0].min()
    return found


def monai_importance(size: AxesTriple, sigma: float = 0.125) -> torch.Tensor:
    """A Gaussian with a deviation of `sigma` of each side, in float32, at least 0.001: MONAI's."""
    found = torch.ones(size)
    for axis, side in enumerate(size):
        offset = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        shape = [1, 1, 1]
        shape[axis] = side
        found = found * torch.exp(offset**2 / (-2 * (sigma * side) ** 2)).reshape(shape)
    return found.clamp(min=max(float(found[found > 0].min()), 1e-3))


def slide(rows: Rows, shape: AxesTriple, patches: Patches, network: Network) -> Iterator[torch.Tensor]:
    """The blended scores (classes, height, width) of each row of a volume of that shape, in the importance's type.

    rows: the volume's, asked for in rising order. Raises what the network raises.
    """
    size, (starts, down, along), weight = patches.size, patches.starts, patches.importance
    before = [max(0, patch - side) // 2 for patch, side in zip(size, shape, strict=True)]
    after = [max(0, patch - side) - low for patch, side, low in zip(size, shape, before, strict=True)]
    kept = slice(before[1], before[1] + shape[1]), slice(before[2], before[2] + shape[2])
    scores = counts = torch.empty(0)
    height, width = shape[1] + before[1] + after[1], shape[2] + before[2] + after[2]
    for start, following in zip(starts, (*starts[1:], -1), strict=True):
        slab = _padded(rows, shape, (start, start + size[0]), before, after)
        for top, left in product(down, along):
            window = (..., slice(top, top + size[1]), slice(left, left + size[2]))
            answer = network(slab[window][None, None].contiguous())
            if not len(scores):
                scores = torch.zeros((len(answer), size[0], height, width), dtype=weight.dtype)
                counts = torch.zeros((size[0], height, width), dtype=weight.dtype)
            scores[window] += answer * weight
            counts[window] += weight
        done = size[0] if following < 0 else following - start
        for row in range(done):
            if before[0] <= start + row < before[0] + shape[0]:
                yield (scores[:, row] / counts[row])[(slice(None), *kept)]
        _shift(scores, 1, done)
        _shift(counts, 0, done)


def _padded(
    rows: Rows, shape: AxesTriple, span: tuple[int, int], before: Sequence[int], after: Sequence[int]
) -> torch.Tensor:
    """Rows [first, last) of the padded volume in float32."""
    first, last = (place - before[0] for place in span)
    inside = rows(max(first, 0), min(last, shape[0])).to(torch.float32)
    outside = (before[2], after[2], before[1], after[1], max(-first, 0), max(last - shape[0], 0))
    return torch.nn.functional.pad(inside, outside) if any(outside) else inside


def _shift(array: torch.Tensor, axis: int, by: int) -> None:
    """Move the rows of an array forward in place, and clear those behind them."""
    left = array.shape[axis] - by
    for row in range(left):
        array.select(axis, row).copy_(array.select(axis, row + by))
    array.narrow(axis, left, by).zero_()
