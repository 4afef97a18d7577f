"""Dust and lumens are told apart from tissue by their area, where the sides of a pixel differ."""

import numpy as np
import numpy.typing as npt
import pytest
from limner.readers.slide.tissue import find_tissue

GLASS, STAIN = (240, 240, 240), (120, 20, 160)
WIDE, TALL = (40.0, 25.0), (25.0, 40.0)  # a pixel of 0.001 mm²: tissue has 5 pixels or more, a hole that stays 250


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("pixels", "kept"), [(4, False), (5, True)])
def test_what_is_smaller_than_0_005_mm2_is_dust(pixels: int, kept: bool, turned: bool) -> None:
    stained = np.zeros((40, 40), dtype=bool)
    stained[10, 10 : 10 + pixels] = True
    _check(stained, stained & kept, turned)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("height", "filled"), [(16, True), (17, False)])
def test_holes_smaller_than_a_quarter_of_a_mm2_are_tissue(height: int, filled: bool, turned: bool) -> None:
    stained = np.ones((60, 60), dtype=bool)
    stained[20 : 20 + height, 20:35] = False
    _check(stained, stained | filled, turned)


def _check(stained: npt.NDArray[np.bool_], expected: npt.NDArray[np.bool_], turned: bool) -> None:
    stained, expected = (stained.T, expected.T) if turned else (stained, expected)
    image = np.where(stained[..., None], STAIN, GLASS).astype(np.uint8)
    found = find_tissue(image, np.ones(stained.shape, dtype=bool), microns=WIDE if turned else TALL)
    assert np.array_equal(found.mask, expected)
