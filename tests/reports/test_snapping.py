"""Polygons that are only rounded, beside what GEOS makes of them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio.features
import shapely
from hypothesis import given
from hypothesis import strategies as st
from limner.reports.snapping import only_rounded, snapped_rings

GRID = 0.01
Shapes = npt.NDArray[np.object_]


def polygons(seed: int, count: int = 60) -> Shapes:
    """Stars with vertices at whole numbers; some are not valid, some have a hole."""
    random = np.random.default_rng(seed)
    angles = np.sort(random.random((count, 9)), axis=1) * 2 * np.pi
    spokes = np.stack([np.cos(angles), np.sin(angles)], axis=2) * random.uniform(3, 20, (count, 9))[:, :, None]
    rings = np.round(spokes) + random.integers(-500, 500, (count, 1, 2))
    stars: Any = shapely.polygons(np.concatenate([rings, rings[:, :1]], axis=1))
    stars[::7] = shapely.difference(shapely.convex_hull(stars[::7]), shapely.buffer(shapely.centroid(stars[::7]), 1))
    return stars


def check(shapes: Shapes, scale: tuple[float, float]) -> int:
    """Compare the outlines with those of GEOS; returns how many were compared."""
    places = only_rounded(shapes, scale, GRID)
    xy, rings, ends = snapped_rings(shapes[places], GRID)
    assert np.array_equal(rings, ends)
    snapped = shapely.set_precision(shapes[places], GRID)
    assert np.array_equal(xy, shapely.get_coordinates(snapped))
    assert np.array_equal(np.diff(ends, prepend=0), shapely.get_num_coordinates(snapped))
    return len(places)


@given(st.integers(0, 10**6), st.sampled_from([(1.0, 1.0), (2.0, 2.0), (1.9881, 1.9881), (3.3333, 2.5)]), st.booleans())
def test_outlines_of_pixels_are_as_geos_snaps_them(seed: int, scale: tuple[float, float], backwards: bool) -> None:
    shapes = shapely.transform(polygons(seed), lambda xy: xy * scale / 2)
    assert check(shapely.reverse(shapes) if backwards else shapes, scale) > 2


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.9881, 1.9881), (3.3333, 2.5)])
def test_areas_with_holes_are_as_geos_snaps_them_but_for_the_order_of_holes(scale: tuple[float, float]) -> None:
    mask = (np.random.default_rng(4).random((80, 80)) < 0.7).astype(np.uint8)
    found = [shapely.geometry.shape(shape) for shape, value in rasterio.features.shapes(mask) if value]
    shapes: Any = shapely.transform(np.array(found, dtype=object), lambda xy: xy * scale)
    assert shapely.get_num_interior_rings(shapes).max() > 50
    places = only_rounded(shapes, scale, GRID)
    assert len(places) == len(shapes)
    xy, of_ring, of_polygon = snapped_rings(shapes, GRID)
    rings: Any = shapely.linearrings(xy, indices=np.repeat(np.arange(len(of_ring)), np.diff(of_ring, prepend=0)))
    polygon = np.searchsorted(of_polygon, of_ring)
    made = [shapely.Polygon(first, holes) for first, *holes in (rings[polygon == n] for n in range(len(shapes)))]
    snapped = shapely.normalize(shapely.set_precision(shapes, GRID))
    assert shapely.equals_exact(shapely.normalize(made), snapped, 0.0).all()
    assert shapely.is_ccw(rings).tolist() == (np.diff(polygon, prepend=-1) == 0).tolist()


@given(st.lists(st.tuples(*[st.floats(-99, 99)] * 2, *[st.floats(0.02, 50)] * 2), min_size=1, max_size=9))
def test_boxes_are_as_geos_snaps_them(sides: list[tuple[float, ...]]) -> None:
    x, y, width, height = np.array(sides).T
    check(shapely.box(x, y, x + width, y + height), (1.0, 1.0))


@pytest.mark.parametrize(
    "shape",
    [
        "POLYGON EMPTY",
        "POINT (1 1)",
        "POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (3 3, 3 4, 4 4, 3 3))",
        "POLYGON ((0 0, 4 4, 4 0, 0 4, 0 0))",
        "POLYGON ((0 0, 400 1, 800 0, 400 2, 0 0))",  # long edges near a vertex
        "POLYGON ((0.3 0, 5 0, 5 5, 2 0.01, 0.3 0))",
        "POLYGON ((0 0, 0.02 0, 0.02 5, 0 5, 0 0))",
    ],
)
def test_others_are_left_to_geos(shape: str) -> None:
    assert not len(only_rounded(np.array([shapely.from_wkt(shape)], dtype=object), (1.0, 1.0), GRID))
