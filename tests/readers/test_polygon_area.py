"""Areas of polygons with bent edges, against ones that are known."""

import math
from itertools import count

import numpy as np
import pytest
import shapely
from limner.readers.geodesy import polygon_area, polygon_edges
from limner.readers.geometry import Points

KM2 = 1e6


def of_fan(points: Points) -> float:
    """The signed area in m² of points (radius in km, angle): edges along a radius stay straight, all others bend."""
    x, y = points[:, 0] * np.cos(points[:, 1]), points[:, 0] * np.sin(points[:, 1])
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2 * KM2


@pytest.mark.parametrize("metres", [1e3, 1e5, 3e6])  # the last is wide enough to be cut into parts
def test_bent_edges_holes_and_parts(metres: float) -> None:
    ring = shapely.box(2, 0, 4, 3).difference(shapely.box(2.5, 1, 3, 2))
    expected = (16 - 4) / 2 * 3 - (9 - 6.25) / 2
    assert polygon_area(ring, of_fan, metres) == pytest.approx(expected * KM2, rel=1e-8)
    both = shapely.GeometryCollection([shapely.union(ring, shapely.box(5, 0, 6, 3)), shapely.Point(9, 9)])
    assert polygon_area(both, of_fan, metres) == pytest.approx((expected + (36 - 25) / 2 * 3) * KM2, rel=1e-8)
    spiral = shapely.Polygon([(1, 0), (4, 3), (1, 3)])  # from 1 + angle inwards to 1
    assert polygon_area(spiral, of_fan, metres) == pytest.approx(((4**3 - 1) / 6 - 3 / 2) * KM2, rel=1e-8)
    assert polygon_area(shapely.Polygon(), of_fan, metres) == 0


def test_what_is_off_the_map_or_never_settles_has_no_area() -> None:
    assert math.isnan(polygon_area(shapely.box(2, 0, 4, 3), lambda xy: of_fan(np.where(xy < 4, xy, np.nan)), 1e3))
    more = count(1)
    assert math.isnan(polygon_area(shapely.box(2, 0, 4, 3), lambda _: float(next(more)), 1e3))


def test_edges_know_their_owner() -> None:
    triangle = shapely.Polygon([(-1, -1), (1, -1), (1, 1)])
    shapes = np.array([shapely.box(0, 0, 1, 1), shapely.Point(0, 0), triangle], dtype=object)
    owner, start, end = polygon_edges(shapes)
    assert np.bincount(owner, minlength=3).tolist() == [4, 0, 3]
    assert {tuple(p) for p in start[owner == 2]} == {tuple(p) for p in end[owner == 2]} == {(-1, -1), (1, -1), (1, 1)}
