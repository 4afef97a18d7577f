"""Sampling by the nearest voxel is torch's, in every orientation; components and holes of masks."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from limner.model.volume.masks import fill_holes, largest_component, nearest, sample, spread_slices
from limner.model.volume.orientation import UNTURNED, Turn, closest_axes
from limner.model.volume.volume import Volume
from scipy import ndimage


@pytest.mark.parametrize(("length", "count"), [(5, 5), (384, 128), (274, 256), (3, 256), (100, 128), (129, 128)])
def test_the_nearest_voxel_is_torchs(length: int, count: int) -> None:
    found = torch.nn.functional.interpolate(torch.arange(length).float()[None, None], count, mode="nearest-exact")
    np.testing.assert_array_equal(nearest(length, count), found[0, 0].numpy())


def test_samples_are_the_same_in_every_orientation() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.random((7, 9, 12)).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    box = (slice(1, 6), slice(0, 9), slice(3, 11))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(voxels)[box][None, None], (6, 4, 8), mode="nearest-exact"
    )
    for first, second, third in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            turn = Turn((first, second, third), (flips[0], flips[1], flips[2]))
            stored = turn.invert(voxels)
            reads: list[int] = []

            def read(number: int, stored: np.ndarray = stored, reads: list[int] = reads) -> np.ndarray:
                reads.append(number)
                return stored[number]

            found = sample(Volume(stored.shape, np.eye(3, 4), read), turn, box, (6, 4, 8))
            np.testing.assert_array_equal(found, expected[0, 0].numpy())
            assert reads == sorted(set(reads))


def test_invalid_voxels_are_sampled_as_zero() -> None:
    voxels = np.full((3, 3, 3), np.nan, dtype=np.float32)
    volume = Volume((3, 3, 3), np.eye(3, 4), lambda number: voxels[number])
    turn = closest_axes(volume.affine, "RAS")
    assert not sample(volume, turn, (slice(0, 3), slice(0, 3), slice(0, 3)), (2, 2, 2)).any()


def test_a_mask_is_spread_by_the_nearest_voxel() -> None:
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[1, 0, 1] = True
    np.testing.assert_array_equal(np.argwhere(list(spread_slices(mask, UNTURNED, (4, 2, 2)))), [[2, 0, 1], [3, 0, 1]])


def test_the_largest_component_touches_at_corners() -> None:
    mask = np.zeros((6, 6, 6), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[4, 4, 4:] = True
    found = largest_component(mask)
    assert np.argwhere(found).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert not largest_component(np.zeros((2, 2, 2), dtype=bool)).any()
    assert largest_component(np.ones((2, 2, 2), dtype=bool)).all()


def test_holes_are_background_without_a_way_out_over_faces() -> None:
    from scipy import ndimage

    shell = np.ones((5, 5, 5), dtype=bool)
    shell[2, 2, 2] = False
    assert fill_holes(shell).all()
    shell[2, 2, 3] = shell[2, 2, 4] = False
    assert not fill_holes(shell)[2, 2, 2]
    corner = np.ones((4, 4, 4), dtype=bool)
    corner[0, 0, 0] = corner[1, 1, 1] = False  # meet at a corner only
    assert fill_holes(corner)[1, 1, 1]
    noise = np.random.default_rng(0).random((12, 13, 14)) > 0.4
    np.testing.assert_array_equal(fill_holes(noise), ndimage.binary_fill_holes(noise))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_slices_of_spread_values_are_those_of_the_turned_volume(order: tuple[int, int, int]) -> None:
    values = np.random.default_rng(4).integers(0, 99, (3, 4, 5))
    for flips in product((False, True), repeat=3):
        turn, shape = Turn(order, (flips[0], flips[1], flips[2])), (7, 6, 11)
        at = np.ix_(*(nearest(have, count) for have, count in zip(values.shape, turn.shape(shape), strict=True)))
        found = np.stack(list(spread_slices(values, turn, shape)))
        np.testing.assert_array_equal(found, turn.invert(values[at]))


def test_holes_are_those_of_scipy() -> None:
    mask = np.random.default_rng(5).random((12, 13, 14)) > 0.4
    np.testing.assert_array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))
    assert (fill_holes(mask) & ~mask).any()
    assert fill_holes(np.ones((2, 3, 4), np.bool_)).all()
    assert not fill_holes(np.zeros((2, 3, 4), np.bool_)).any()
