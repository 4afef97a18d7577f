"""Changed outlines still partition what they did: no gaps, no overlaps, nothing invalid."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.class_maps import trace
from limner.model.objects.borders import fill_holes, simplify, smooth
from scipy.ndimage import uniform_filter

Shapes = npt.NDArray[np.object_]


def areas(seed: int, pixel: tuple[float, float], *, ground: bool = True) -> tuple[Shapes, npt.NDArray[np.int64]]:
    """The areas of a made class map in level-0 pixels, and their classes; `ground` leaves class 0 out."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(3, 50, 2)
    values = uniform_filter(rng.normal(size=(height, width)), int(rng.integers(1, 5)))
    classes = np.digitize(values, np.quantile(values, [0.3, 0.6])).astype(np.uint8)
    found = trace(classes, classes > 0 if ground else np.ones_like(classes, np.bool_))
    return shapely.transform(found.outlines, lambda xy: xy * pixel), found.values


PIXELS = st.sampled_from([(1.0, 1.0), (2.0, 2.0), (1.7, 1.7), (1.7, 2.3), (10 / 3, 10 / 3)])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1), PIXELS, st.booleans())
def test_cut_corners_leave_borders_shared(seed: int, pixel: tuple[float, float], ground: bool) -> None:
    shapes, _ = areas(seed, pixel, ground=ground)
    if not len(shapes):
        return
    made = smooth(shapes, pixel)
    assert shapely.is_valid(made).all()
    assert shapely.coverage_is_valid(made)
    assert (shapely.area(made) > 0.3 * shapely.area(shapes)).all()
    edge = shapely.length(shapely.union_all(shapes).boundary)
    assert abs(shapely.area(made).sum() - shapely.area(shapes).sum()) <= edge * max(pixel) / 4
    both = zip(made[:20], shapes[:20], strict=True)
    assert all(a.hausdorff_distance(b) <= 0.5 * np.hypot(*pixel) for a, b in both)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1), PIXELS, st.booleans(), st.floats(0.1, 6.0))
def test_simplified_borders_stay_shared(seed: int, pixel: tuple[float, float], cut: bool, tolerance: float) -> None:
    shapes, _ = areas(seed, pixel, ground=False)
    given_shapes = smooth(shapes, pixel) if cut else shapes
    made = simplify(given_shapes, tolerance, pixel)
    assert shapely.is_valid(made).all()
    assert shapely.coverage_is_valid(made)
    assert shapely.get_num_coordinates(made).sum() <= shapely.get_num_coordinates(given_shapes).sum() + 4 * len(made)
    total = shapely.area(made).sum()
    assert total == pytest.approx(shapely.union_all(made).area)
    most = shapely.get_num_coordinates(given_shapes).sum() * tolerance**2 * pixel[0] * pixel[1]
    assert abs(total - shapely.area(given_shapes).sum()) <= most


def test_a_stair_between_two_areas_becomes_one_line_of_both() -> None:
    steps = np.array([(x, x + up) for x in range(20) for up in (0, 1)] + [(20, 20)], dtype=float)
    below = shapely.Polygon([*steps, (25, 20), (25, 0)])
    above = shapely.Polygon([*steps, (20, 25), (-5, 25), (-5, 0)])
    first, second = simplify(np.array([below, above]), 1.5, (1.0, 1.0))
    shared = shapely.line_merge(first.intersection(second))
    assert shared.length == pytest.approx(20 * np.sqrt(2), rel=0.02)
    assert shapely.get_num_coordinates(first) <= 8
    assert first.area + second.area == pytest.approx(below.area + above.area, abs=1.5)


def test_cutting_depends_on_neighbours_alone() -> None:
    shapes, _ = areas(7, (1.0, 1.0))
    touching = [shapely.intersects(one, shapes) for one in shapes]
    whole = smooth(shapes, (1.0, 1.0))
    for place in range(0, len(shapes), 5):
        near = np.flatnonzero(touching[place])
        alone: Any = smooth(shapes[near], (1.0, 1.0))
        assert alone[np.flatnonzero(near == place)[0]].wkb == whole[place].wkb


def test_only_empty_holes_that_are_small_enough_are_filled() -> None:
    ring = shapely.box(0, 0, 20, 20).difference(shapely.box(2, 2, 4, 4)).difference(shapely.box(6, 6, 9, 9))
    ring = ring.difference(shapely.box(12, 12, 19, 19))
    other = shapely.box(30, 0, 40, 10)
    points = shapely.STRtree(shapely.points([[7.5, 7.5]]))
    made, changed = fill_holes(np.array([ring, other]), lambda holes: shapely.area(holes) <= 9.0, points)
    assert changed.tolist() == [True, False]
    assert made[0].area == ring.area + 4.0  # the hole of 9 holds another area, that of 49 is too large
    assert made[1] is other
    made, _ = fill_holes(np.array([ring]), lambda holes: shapely.area(holes) < 1e9, None)
    assert made[0].equals(shapely.box(0, 0, 20, 20))
