"""Boxes and placements: corners, half-open, and there and back again."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from limner.readers.errors import ReadError
from limner.readers.geometry import Box, Placement, Polynomial, crs_name
from rasterio.crs import CRS

plain = settings(deadline=None, derandomize=True)
numbers = st.floats(-1e6, 1e6)
NAN = math.nan


@pytest.mark.parametrize(
    "corners", [(0, 0, 0, 1), (0, 0, 1, 0), (1, 0, 0, 1), (0, 0, math.nan, 1), (0, math.nan, 1, 1)]
)
def test_a_box_cannot_be_empty(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="x0 < x1"):
        Box(*corners)


@plain
@given(numbers, numbers, st.floats(1, 1e6), st.floats(1, 1e6), st.floats(1, 1e6), st.floats(1, 1e6))
def test_clip_is_the_intersection(x: float, y: float, w: float, h: float, width: float, height: float) -> None:
    box = Box(x, y, x + w, y + h)
    inside = box.clip(width, height)
    if inside is None:
        assert box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height
    else:
        assert (inside.x0, inside.y0) == (max(x, 0), max(y, 0))
        assert (inside.x1, inside.y1) == (min(box.x1, width), min(box.y1, height))
        assert inside.clip(width, height) == inside


def test_boxes_have_an_order_and_a_size() -> None:
    assert Box(0, 0, 2, 3) < Box(0, 1, 1, 2)
    assert (Box(1, 2, 4, 8).width, Box(1, 2, 4, 8).height) == (3, 6)


@st.composite
def affines(draw: st.DrawFn) -> Placement:
    """Placements of maps: scaled, mirrored, rotated, sheared and moved."""
    size = st.floats(1e-5, 1e3)
    sx, sy = draw(size), draw(size)
    turn, shear = draw(st.floats(-math.pi, math.pi)), draw(st.floats(-0.8, 0.8))
    mirror = draw(st.sampled_from([1.0, -1.0]))
    linear = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) @ np.array(
        [[sx, shear * sy], [0.0, mirror * sy]]
    )
    move = (draw(st.floats(-1e7, 1e7)), draw(st.floats(-1e7, 1e7)))
    matrix = tuple((float(row[0]), float(row[1]), at) for row, at in zip(linear, move, strict=True))
    scale = np.linalg.svd(linear, compute_uv=False)
    assume(scale[0] / scale[1] < 1e4)
    assume(np.abs(move).max() / scale[1] < 1e9)  # beyond it a double cannot hold a millionth of a pixel
    return Placement(matrix, "m", source="test")


@pytest.mark.slow
@plain
@given(affines(), st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)), max_size=5))
def test_affine_round_trip(placement: Placement, points: list[tuple[float, float]]) -> None:
    xy = np.array(points, dtype=float).reshape(-1, 2)
    assert np.abs(placement.to_pixel(placement.to_world(xy)) - xy).max(initial=0) < 1e-6


def test_corners_not_centres() -> None:
    placement = Placement(((10.0, 0.0, 500000.0), (0.0, -10.0, 4000000.0)), "m")
    assert placement.to_world([(0.5, 0.5)]).tolist() == [[500005.0, 3999995.0]]
    assert placement.has_unit


def test_a_patient_point_is_projected_on_the_plane() -> None:
    placement = Placement(((0.5, 0.0, -100.0), (0.0, 0.0, 40.0), (0.0, -0.25, 300.0)), "mm", frame="1.2.3")
    assert placement.to_world([(2.0, 4.0)]).tolist() == [[-99.0, 40.0, 299.0]]
    assert np.allclose(placement.to_pixel([(-99.0, 55.0, 299.0)]), [(2.0, 4.0)], rtol=0, atol=1e-9)


TERMS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))


@st.composite
def warps(draw: st.DrawFn) -> Placement:
    """Second-order polynomials over 10 000 px whose bend is at most a tenth of their slope."""
    bend = st.floats(-0.03, 0.03)
    x = (4e5, 50000.0, draw(st.floats(-1e4, 1e4)), *(50000.0 * draw(bend) for _ in range(3)))
    y = (4e6, draw(st.floats(-1e4, 1e4)), -50000.0, *(50000.0 * draw(bend) for _ in range(3)))
    warp = Polynomial(TERMS, x, y, (5000.0, 5000.0), 5000.0, 0.1)
    slope = warp.jacobian(np.zeros((1, 2)))[0]
    (x0, y0) = warp(np.zeros((1, 2)))[0]
    matrix = ((float(slope[0, 0]), float(slope[0, 1]), float(x0)), (float(slope[1, 0]), float(slope[1, 1]), float(y0)))
    return Placement(matrix, "m", warp=warp)


@pytest.mark.slow
@plain
@given(warps(), st.lists(st.tuples(st.floats(-500, 10500), st.floats(-500, 10500)), max_size=5))
def test_polynomial_round_trip(placement: Placement, points: list[tuple[float, float]]) -> None:
    xy = np.array(points, dtype=float).reshape(-1, 2)
    assert np.abs(placement.to_pixel(placement.to_world(xy)) - xy).max(initial=0) < 1e-6


@pytest.mark.slow
@plain
@given(warps(), st.floats(0, 10000), st.floats(0, 10000))
def test_jacobian(placement: Placement, x: float, y: float) -> None:
    warp = placement.warp
    assert warp is not None
    at = np.array([(x, y)])
    for axis, step in enumerate(np.eye(2)):
        slope = (warp(at + step) - warp(at - step))[0] / 2
        assert np.allclose(warp.jacobian(at)[0, :, axis], slope, rtol=1e-6, atol=1e-6)


def test_the_first_coefficients_are_where_a_polynomial_has_its_centre() -> None:
    x, y = (4e5, 3e4, 0.0, 900.0, 0.0, 0.0), (4.1e6, 0.0, -3e4, 0.0, 0.0, 1800.0)
    warp = Polynomial(TERMS, x, y, (3000.0, 2000.0), 1000.0, 0.1)
    assert warp(np.array([[3000.0, 2000.0], [4000.0, 4000.0]])).tolist() == [[4e5, 4.1e6], [430900.0, 4047200.0]]


def test_world_coordinates_outside_the_polynomial_are_refused() -> None:
    warp = Polynomial(
        ((0, 0), (1, 0), (0, 1), (2, 0)), (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0), 1.0, 0.0
    )
    placement = Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "m", warp=warp, source="3 control points")
    assert np.allclose(warp(placement.to_pixel([(4.0, 1.0)])), [(4.0, 1.0)])
    with pytest.raises(ReadError, match="inverted"):
        placement.to_pixel([(-4.0, 1.0)])


@pytest.mark.parametrize(
    "matrix",
    [((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0, NAN), (0.0, 1.0, 0.0)), ((1.0, 0.0, math.inf), (0.0, 1.0, 0.0))],
)
def test_a_matrix_has_rows_of_three_finite_numbers(matrix: tuple[tuple[float, float, float], ...]) -> None:
    with pytest.raises(ValueError, match="3 finite numbers"):
        Placement(matrix, "m")


def test_a_singular_georeference_is_refused_with_its_source() -> None:
    for easting in (0.0, 500_000.0):
        with pytest.raises(ReadError, match=r"geotransform.*two directions"):
            Placement(((1.0, 2.0, easting), (2.0, 4.0, 0.0)), "m", source="geotransform")


@pytest.mark.parametrize("pixel", [1.0, 1e-4, 1e-9])
def test_small_pixels_are_not_singular(pixel: float) -> None:
    placement = Placement(((pixel, 0.0, 10.0), (0.0, -pixel, 50.0)), "deg")
    assert np.allclose(placement.to_pixel(placement.to_world([(3.0, 4.0)])), [(3.0, 4.0)], rtol=0, atol=1e-4)


def test_an_unknown_placement_is_pixels_and_pickles() -> None:
    placement = Placement.pixels()
    assert not placement.has_unit
    assert placement.to_world([(3.5, 4.5)]).tolist() == [[3.5, 4.5]]
    assert pickle.loads(pickle.dumps(placement)) == placement  # noqa: S301 - our own bytes


@pytest.mark.parametrize(
    ("crs", "name"),
    [
        (CRS.from_epsg(32618).to_wkt(), "EPSG:32618"),
        (CRS.from_string("+proj=laea +lat_0=7 +datum=WGS84").to_wkt(), "unknown"),
        ("laea", "laea"),
        (None, ""),
    ],
)
def test_a_crs_has_a_short_name(crs: str | None, name: str) -> None:
    assert crs_name(crs) == name
