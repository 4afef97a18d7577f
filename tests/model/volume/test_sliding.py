"""Patches over a volume, whose blended answers come row by row, are those of the volume as a whole."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from limner.model.volume.sliding import (
    Patches,
    even_starts,
    fixed_starts,
    monai_importance,
    nnunet_importance,
    slide,
)

SIZE = (6, 4, 5)


def answer(patch: torch.Tensor) -> torch.Tensor:
    """Two scores that depend on the whole patch."""
    return torch.cat([patch[0], patch[0] * patch.mean()])


def as_a_whole(values: torch.Tensor, patches: Patches) -> torch.Tensor:
    sums = torch.zeros((2, *values.shape), dtype=patches.importance.dtype)
    counts = torch.zeros(values.shape, dtype=patches.importance.dtype)
    for start in product(*patches.starts):
        window = tuple(slice(first, first + side) for first, side in zip(start, patches.size, strict=True))
        sums[:, *window] += answer(values[window][None, None].contiguous()) * patches.importance
        counts[window] += patches.importance
    return sums / counts


@pytest.mark.parametrize("importance", [nnunet_importance(SIZE), monai_importance(SIZE), torch.ones(SIZE)])
@pytest.mark.parametrize("step", [0.5, 0.9])
def test_rows_are_those_of_the_whole(importance: torch.Tensor, step: float) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(17, 9, 11)).astype(np.float32))
    starts = [even_starts(side, patch, step) for side, patch in zip(values.shape, SIZE, strict=True)]
    patches = Patches(SIZE, (starts[0], starts[1], starts[2]), importance)
    asked: list[tuple[int, int]] = []

    def rows(first: int, last: int) -> torch.Tensor:
        asked.append((first, last))
        return values[first:last]

    found = torch.stack(list(slide(rows, (17, 9, 11), patches, answer)), dim=1)
    assert torch.equal(found, as_a_whole(values, patches))
    assert asked == sorted(asked)
    assert max(last - first for first, last in asked) == SIZE[0]
    assert patches.count == len(starts[0]) * len(starts[1]) * len(starts[2])


@pytest.mark.parametrize("shape", [(3, 2, 4), (5, 9, 11), (9, 3, 5)])
def test_a_volume_smaller_than_a_patch_is_padded_with_zeros(shape: tuple[int, int, int]) -> None:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    missing = [max(0, patch - side) for patch, side in zip(SIZE, shape, strict=True)]
    around = [part for gap in reversed(missing) for part in (gap // 2, gap - gap // 2)]
    padded = torch.nn.functional.pad(values, around)
    starts = [even_starts(side, patch, 0.5) for side, patch in zip(shape, SIZE, strict=True)]
    patches = Patches(SIZE, (starts[0], starts[1], starts[2]), nnunet_importance(SIZE))
    inside = tuple(slice(gap // 2, gap // 2 + side) for gap, side in zip(missing, shape, strict=True))
    found = torch.stack(list(slide(lambda first, last: values[first:last], shape, patches, answer)), dim=1)
    assert torch.equal(found, as_a_whole(padded, patches)[:, *inside])


def test_places_of_patches() -> None:
    assert even_starts(110, 64, 0.5) == (0, 23, 46)
    assert even_starts(64, 64, 0.5) == (0,)
    assert even_starts(10, 64, 0.5) == (0,)
    assert fixed_starts(110, 64, 0.25) == (0, 46)
    assert fixed_starts(120, 64, 0.5) == (0, 32, 56)
    assert fixed_starts(64, 64, 0.5) == (0,)


def test_importance_is_highest_in_the_middle_and_never_nothing() -> None:
    for importance, highest in ((nnunet_importance((8, 8, 8)), 10), (monai_importance((9, 9, 9)), 1)):
        found: Any = importance.float()
        assert found.max() == highest == found[4, 4, 4]
        assert found.min() > 0
