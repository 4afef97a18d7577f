"""Tracing class maps: every pixel in exactly one valid polygon of its class, four-connected, with its mean score."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from limner.model.class_maps import polygonise


def flood(classes: npt.NDArray[np.uint8], wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Patch numbers (H, W) by walking from pixel to pixel, -1 where nothing is wanted: slow and obvious."""
    height, width = classes.shape
    owner = np.full(classes.shape, -1)
    for seed in np.argwhere(wanted):
        if owner[tuple(seed)] >= 0:
            continue
        number, todo = owner.max() + 1, [tuple(seed)]
        while todo:
            y, x = todo.pop()
            if owner[y, x] >= 0 or not wanted[y, x] or classes[y, x] != classes[tuple(seed)]:
                continue
            owner[y, x] = number
            steps = ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))
            todo += [(j, i) for j, i in steps if 0 <= j < height and 0 <= i < width]
    return owner


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.data(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_polygons_are_the_four_connected_components(data: st.DataObject, shape: tuple[int, int]) -> None:
    classes = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)))
    wanted = data.draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
    scores = np.linspace(0, 1, classes.size, dtype=np.float32).reshape(shape)
    patches = polygonise(classes, scores, wanted)
    owner = flood(classes, wanted)
    expected = Counter(
        (int(classes[owner == n][0]), int((owner == n).sum()), round(float(scores[owner == n].mean(dtype=float)), 5))
        for n in range(owner.max() + 1)
    )
    assert Counter((p.value, p.pixels, round(p.score, 5)) for p in patches) == expected
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    covered = np.zeros(shape, dtype=int)
    for patch in patches:
        assert patch.polygon.is_valid
        assert patch.polygon.area == patch.pixels
        within = shapely.contains_xy(patch.polygon, x, y)
        assert (classes[within] == patch.value).all()
        covered += within
    assert (covered == wanted).all()


def test_an_empty_mask_has_no_polygons() -> None:
    blank = np.zeros((3, 3), dtype=np.uint8)
    assert polygonise(blank, blank.astype(np.float32), blank.astype(np.bool_)) == []


def test_a_ring_has_a_hole_and_vertices_only_at_corners() -> None:
    classes = np.ones((5, 5), dtype=np.uint8)
    classes[2, 2] = 7
    ring, dot = sorted(polygonise(classes, np.ones((5, 5), np.float32), np.ones((5, 5), bool)), key=lambda p: p.value)
    assert shapely.normalize(ring.polygon) == shapely.normalize(
        shapely.Polygon([(0, 0), (5, 0), (5, 5), (0, 5)], [[(2, 2), (3, 2), (3, 3), (2, 3)]])
    )
    assert dot.polygon.bounds == (2, 2, 3, 3)
