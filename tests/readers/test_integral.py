"""Integrals over polygons, against ones that can be done by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from limner.readers.integral import Edges, Values, integrate

TRIANGLE = shapely.Polygon([(-1, -1), (1, -1), (1, 1)])  # at x, y runs from -1 to x


@pytest.mark.parametrize(
    ("density", "expected"),
    [
        (lambda xy: np.full(len(xy), 3.0), 6.0),
        (lambda xy: 2.0 + np.sin(3.0 * xy[:, 0]), 4.0 + 2.0 * (math.sin(3.0) / 9.0 - math.cos(3.0) / 3.0)),
        (lambda xy: 2.0 + np.cos(3.0 * xy[:, 0]), 4.0 + 2.0 * math.sin(3.0) / 3.0),
        (lambda xy: np.exp(4.0 * xy[:, 0]), (7.0 * math.exp(4.0) + math.exp(-4.0)) / 16.0),
        (lambda xy: 1.0 / (xy[:, 0] + 1.5), 2.0 - 0.5 * math.log(5.0)),
    ],
)
def test_integrals_over_a_triangle(density: Callable[[Values], Values], expected: float) -> None:
    assert integrate(np.array([TRIANGLE], dtype=object), density)[0] == pytest.approx(expected, rel=1e-8)


def test_holes_subtract_and_parts_add() -> None:
    holed = shapely.box(0, 0, 4, 4).difference(shapely.box(1, 1, 2, 3))
    assert isinstance(holed, shapely.Polygon)
    both = shapely.GeometryCollection([shapely.MultiPolygon([holed, shapely.box(6, 0, 7, 4)]), shapely.Point(9, 9)])
    values = integrate(np.array([holed, both], dtype=object), lambda xy: xy[:, 0])
    assert values == pytest.approx([32 - 3, 32 - 3 + 26])


def test_a_density_with_an_edge_or_a_hole_has_no_integral() -> None:
    for density in (lambda xy: np.sign(xy[:, 0]) + 2.0, lambda xy: np.where(xy[:, 0] < 0, np.nan, 1.0)):
        assert np.isnan(integrate(np.array([TRIANGLE], dtype=object), density)[0])


def test_edges_know_their_owner() -> None:
    shapes = np.array([shapely.box(0, 0, 1, 1), shapely.Point(0, 0), TRIANGLE], dtype=object)
    edges = Edges.of(shapes)
    assert np.bincount(edges.owner, minlength=3).tolist() == [4, 0, 3]
    chosen = edges.among(np.array([2]), 3)
    assert chosen.owner.tolist() == [0, 0, 0]
    assert {tuple(p) for p in chosen.start} == {(-1, -1), (1, -1), (1, 1)}
