"""Volumes are turned to the axes of a model and back: every voxel stays at its place in the patient."""

from itertools import permutations, product

import numpy as np
import pytest
from limner.model.volume.orientation import Turn, closest_axes, directions, stacked_upwards, turn_between

SHAPE = (3, 4, 5)
AXIAL = np.array([[0, 0, 0.5, 10], [0, 0.5, 0, 20], [2, 0, 0, 30]], dtype=np.float64)
"""From the feet upwards, rows towards the back, columns towards the left."""


@pytest.mark.parametrize("target", ["SAR", "RAS", "IPL", "ASL"])
@pytest.mark.parametrize("degrees", [0, 20])
def test_voxels_keep_their_place(target: str, degrees: int) -> None:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ AXIAL
    turn = closest_axes(affine, target)
    array = np.arange(60).reshape(SHAPE)
    turned, moved = turn.apply(array), turn.affine(affine, SHAPE)
    assert directions(moved) == target
    assert turned.shape == turn.shape(SHAPE)
    np.testing.assert_array_equal(turn.invert(turned), array)
    for index in np.ndindex(*turned.shape):
        source = np.argwhere(array == turned[index])[0]
        np.testing.assert_allclose(moved @ [*index, 1], affine @ [*source, 1])
    spacing = np.linalg.norm(affine[:, :3], axis=0).tolist()
    np.testing.assert_allclose(turn.values(spacing), np.linalg.norm(moved[:, :3], axis=0))


def test_every_orientation_has_its_name() -> None:
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            affine = np.zeros((3, 4))
            affine[list(order), range(3)] = signs
            expected = "".join("LPS"[w] if s > 0 else "RAI"[w] for w, s in zip(order, signs, strict=True))
            assert directions(affine) == expected


def test_leading_axes_stay() -> None:
    turn = Turn((2, 0, 1), (True, False, True))
    array = np.arange(120).reshape(2, *SHAPE)
    np.testing.assert_array_equal(turn.apply(array)[1], turn.apply(array[1]))
    np.testing.assert_array_equal(turn.invert(turn.apply(array)), array)


def test_a_turn_and_then_a_permutation() -> None:
    turn, array = turn_between("SPL", "SAR"), np.arange(60).reshape(SHAPE)
    np.testing.assert_array_equal(turn.then((1, 2, 0)).apply(array), turn.apply(array).transpose(1, 2, 0))


def test_slices_that_are_stacked_downwards_are_turned() -> None:
    assert stacked_upwards(AXIAL).flips == (False, False, False)
    down = AXIAL * [-1, 1, 1, 1]
    assert stacked_upwards(down).flips == (True, False, False)


@pytest.mark.parametrize("target", ["RAS ", "RLS", "XYZ", "ra"])
def test_other_letters_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="must be three letters"):
        closest_axes(AXIAL, target)
