"""Outlines as single polylines: their area, their vertices and their rings."""

import numpy as np
import pytest
import shapely
from limner.reports.dicom.outlines import outline
from shapely.geometry.base import BaseGeometry

HOLE = shapely.box(0, 0, 10, 8).difference(shapely.box(2, 2, 4, 4))
TWO_HOLES = HOLE.difference(shapely.box(6, 5, 8, 7))
PARTS = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 3, 5, 6)])


def shoelace(path: np.ndarray) -> float:
    x, y = path.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


@pytest.mark.parametrize(
    ("geometry", "rings"),
    [
        (shapely.box(1, 2, 3, 5), 1),
        (shapely.box(1, 2, 3, 5).reverse(), 1),
        (HOLE, 2),
        (TWO_HOLES, 3),
        (PARTS, 2),
        (shapely.union_all([TWO_HOLES, shapely.box(20, 0, 30, 9).difference(shapely.box(22, 1, 23, 2))]), 5),
        (shapely.Point(5, 5).buffer(3).difference(shapely.Point(5, 5).buffer(1)), 2),
    ],
)
def test_an_outline_is_closed_and_has_the_area_and_the_vertices(geometry: BaseGeometry, rings: int) -> None:
    path, count = outline(geometry)
    assert count == rings
    assert np.array_equal(path[0], path[-1])
    assert shoelace(path) == pytest.approx(geometry.area, rel=1e-12), "counter-clockwise, holes against it"
    assert {*map(tuple, path)} == {*map(tuple, shapely.get_coordinates(geometry))}


def test_what_lies_inside_the_outline_lies_inside_the_geometry() -> None:
    """By the number of times that it winds around points that lie on no cut."""
    path, _ = outline(TWO_HOLES)
    for x, y in np.random.default_rng(3).uniform((0, 0), (10, 8), (200, 2)):
        angles = np.unwrap(np.arctan2(path[:, 1] - y, path[:, 0] - x))
        inside = round(float(angles[-1] - angles[0]) / (2 * np.pi)) != 0
        assert inside == shapely.contains_xy(TWO_HOLES, x, y), (x, y)


def test_a_geometry_without_area_is_a_point() -> None:
    path, rings = outline(shapely.Point(3, 4))
    assert (path.tolist(), rings) == ([[3.0, 4.0]], 0)
