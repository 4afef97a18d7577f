"""Volumes that are resampled slab by slab are those that scipy resamples as a whole."""

from typing import Any

import numpy as np
import pytest
import torch
from limner.model.volume.resampling import Orders, Resampler, Resampling, RowCache, axis_weights, new_shape
from scipy import ndimage

SOURCE, TARGET = (12, 21, 18), (19, 15, 27)


def in_slabs(values: Any, plan: Resampling, rows: int) -> Any:
    others = tuple(axis for axis in range(3) if axis != plan.alone)
    bounds = np.stack([values.min(axis=others), values.max(axis=others)]).reshape(2, -1).astype(np.float64)
    cache = RowCache(Resampler(plan, bounds), lambda first, last: torch.from_numpy(values[first:last]))
    count = plan.target[0]
    overlapping = [cache.read(first, min(first + 2 * rows, count))[:rows] for first in range(0, count, rows)]
    return torch.cat(overlapping).numpy()


def zoomed(values: Any, target: Any, order: int) -> Any:
    factors = [new / old for new, old in zip(target, values.shape, strict=True)]
    found: Any = ndimage.zoom(values.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    return found.clip(values.min(), values.max())


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("rows", [1, 4, 19])
def test_slabs_are_parts_of_the_whole(order: int, rows: int) -> None:
    values = np.random.default_rng(order).normal(size=SOURCE).astype(np.float32)
    plan = Resampling.plan(SOURCE, TARGET, Orders(order))
    np.testing.assert_allclose(in_slabs(values, plan, rows), zoomed(values, TARGET, order), atol=1e-12)


@pytest.mark.parametrize("alone", [0, 1, 2])
@pytest.mark.parametrize("order", [1, 3])
def test_thick_slices_are_resampled_by_themselves(alone: int, order: int) -> None:
    values = np.random.default_rng(order).normal(size=SOURCE).astype(np.float32)
    spacing = [1.0, 1.0, 1.0]
    spacing[alone] = 4
    plan = Resampling.plan(SOURCE, TARGET, Orders(order), (spacing, (1, 1, 1)))
    assert plan.alone == alone
    planes = np.moveaxis(values, alone, 0)
    kept = [side for axis, side in enumerate(TARGET) if axis != alone]
    resized = np.stack([zoomed(plane, kept, order) for plane in planes])
    centres = (np.arange(TARGET[alone]) + 0.5) * SOURCE[alone] / TARGET[alone] - 0.5
    nearest = np.floor(centres + 0.5).astype(int).clip(0, SOURCE[alone] - 1)
    np.testing.assert_allclose(in_slabs(values, plan, 5), np.moveaxis(resized[nearest], 0, alone), atol=1e-12)


@pytest.mark.parametrize(
    ("current", "new", "separate", "expected"),
    [
        ((3, 1, 1), (1, 1, 1), None, None),
        ((3.1, 1, 1), (1, 1, 1), None, 0),
        ((1, 1, 1), (1, 1, 3.1), None, 2),
        ((0.2, 1, 1), (1, 1, 1), None, None),
        ((3.1, 1, 1), (1, 1, 1), False, None),
        ((1, 2, 1), (1, 1, 1), True, 1),
        ((1, 1, 1), (1, 1, 4), True, None),
    ],
)
def test_which_axis_is_resampled_by_itself(current: Any, new: Any, separate: bool | None, expected: int | None) -> None:
    assert Resampling.plan(SOURCE, TARGET, Orders(3, 0, separate), (current, new)).alone == expected


def test_a_row_with_channels_is_that_of_each_channel() -> None:
    values = np.random.default_rng(0).normal(size=(2, *SOURCE))
    resampler = Resampler(Resampling.plan(SOURCE, TARGET, Orders(1)))
    for row in range(TARGET[0]):
        low, high = resampler.needs(row, row + 1)
        found = resampler.row(torch.from_numpy(values[:, low:high]), row).numpy()
        for channel in range(2):
            np.testing.assert_allclose(found[channel], zoomed(values[channel], TARGET, 1)[row], atol=1e-12)


def test_an_axis_of_one_voxel() -> None:
    np.testing.assert_array_equal(axis_weights(1, 3, 1).numpy(), np.ones((3, 1)))
    np.testing.assert_allclose(axis_weights(1, 3, 3).numpy(), np.ones((3, 1)))


def test_the_shape_with_another_spacing() -> None:
    assert new_shape((35, 10, 5), (1.3, 1, 1), (1, 4, 1000)) == (46, 2, 1)  # 45.5 and 2.5, half to even
    assert new_shape((35, 10, 5), (float(np.float32(1.3)), 1, 1), (1, 1, 1)) == (45, 10, 5)
