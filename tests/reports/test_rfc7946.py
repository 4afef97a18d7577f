"""Polygons in longitude and latitude: the right-hand rule, the antimeridian, the poles, rounding."""

from collections.abc import Callable

import antimeridian
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers import areas, geodesy
from limner.readers.densify import densify
from limner.readers.errors import ReadError
from limner.readers.geometry import Placement
from limner.reports.rfc7946 import bounding_box, part_boxes, to_wgs84
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.warp import transform
from shapely.geometry.base import BaseGeometry

MakePlacement = Callable[..., Placement]

WGS84 = Geod(ellps="WGS84")


def rules(shape: BaseGeometry) -> list[str]:
    """Violations of RFC 7946 in a geometry, by section."""
    broken: list[str] = []
    if not shape.is_valid:
        broken.append(f"not valid: {shapely.is_valid_reason(shape)}")
    for part in shapely.get_parts(shape):
        for place, ring in enumerate([part.exterior, *part.interiors]):
            xy = shapely.get_coordinates(ring)
            if len(xy) < 4 or (xy[0] != xy[-1]).any():
                broken.append("3.1.6: a linear ring is closed and has four positions or more")
            if ring.is_ccw != (place == 0):
                broken.append("3.1.6: right-hand rule")
            if (xy[1:] == xy[:-1]).all(axis=1).any():
                broken.append("a node twice in a row")
            if (np.abs(xy) > (180, 90)).any():
                broken.append("4: degrees")
            if (np.abs(np.diff(xy[:, 0])) > 180).any() and not (np.abs(xy[:, 1]) == 90).any():
                broken.append("3.1.9: cut at the antimeridian")
            if (np.round(xy, 7) != xy).any():
                broken.append("more than 7 decimals")
    return broken


def ground_m2(shape: BaseGeometry) -> float:
    """Area by geodesics between close vertices (Karney 2013), part by part."""
    dense = shapely.segmentize(shapely.get_parts(shape), 0.05)
    return sum(abs(WGS84.geometry_area_perimeter(part)[0]) for part in dense)


def globe(shape: BaseGeometry, placement: Placement) -> BaseGeometry:
    shapes = np.empty(1, dtype=object)
    shapes[0] = shape
    return to_wgs84(shapes, placement)[0]


def expected_m2(shape: BaseGeometry, placement: Placement) -> float:
    area = areas.area_m2(shape, placement)
    assert area is not None
    return area


@pytest.fixture(scope="module")
def dateline(placement: MakePlacement) -> Placement:
    """UTM 60 N: the antimeridian runs down the picture at about x = 400 px."""
    (east,), _ = transform("EPSG:4326", "EPSG:32660", [180.0], [52.0])[:2]
    return placement(32660, 10.0, 0.0, float(east) - 4000.0, 0.0, -10.0, 5_770_000.0)


def check(shape: BaseGeometry, placement: Placement, *, near: float = 1.0) -> BaseGeometry:
    """Place a shape and check that it follows the rules and covers the expected ground.

    An edge may lie 0.05 px beside its true course, and a vertex half of 1e-7 degrees beside its place; `near` times
    that is allowed.
    """
    placed = globe(shape, placement)
    assert rules(placed) == []
    expected = expected_m2(shape, placement)
    pixel_area_m2 = expected / shape.area
    off = shape.length * (0.05 * pixel_area_m2 + 0.006 * np.sqrt(pixel_area_m2))
    assert ground_m2(placed) == pytest.approx(expected, abs=near * off)
    return placed


def test_a_plain_square_keeps_every_vertex(placement: MakePlacement) -> None:
    place = placement(32618, 10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
    shape = shapely.Polygon([(3, 4), (30, 4), (30, 44), (3, 44)], [[(10, 10), (10, 20), (20, 20), (20, 10)]])
    placed = check(shape, place)
    mapped = np.round(geodesy.to_lonlat(place, shapely.get_coordinates(shape)), 7)
    assert {tuple(xy) for xy in mapped} == {tuple(xy) for xy in shapely.get_coordinates(placed)}


@pytest.mark.parametrize("flip", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_rings_follow_the_right_hand_rule_in_any_orientation(flip: tuple[int, int], placement: MakePlacement) -> None:
    place = placement(32618, 10.0 * flip[0], 3.0, 500_000.0, -3.0, -10.0 * flip[1], 4_000_000.0)
    square = shapely.box(3, 4, 3000, 4000)
    for shape in (square, square.reverse()):
        check(shape, place)


def test_a_shape_across_the_antimeridian_is_cut(dateline: Placement) -> None:
    shape = shapely.Polygon([(100, 100), (900, 120), (880, 700), (90, 650)], [[(300, 300), (600, 320), (590, 400)]])
    placed = check(shape, dateline)
    parts = shapely.get_parts(placed)
    assert len(parts) == 2
    touching = sorted(x for part in parts for x in part.bounds[::2] if abs(x) == 180)
    assert touching == [-180.0, 180.0]


def test_cuts_equal_those_of_the_antimeridian_package(dateline: Placement) -> None:
    shape = shapely.Polygon([(100, 100), (900, 120), (880, 700), (90, 650)])
    lonlat = geodesy.to_lonlat(dateline, shapely.get_coordinates(densify(shape, dateline)))
    cut = antimeridian.fix_polygon(shapely.Polygon(lonlat), fix_winding=True, great_circle=False)
    placed = globe(shape, dateline)
    assert placed.symmetric_difference(cut).area < 1e-6 * cut.area


@pytest.mark.slow
def test_an_edge_that_crosses_the_antimeridian_a_thousand_times(dateline: Placement) -> None:
    y = np.arange(1500.0)
    x = np.where(y % 2 == 0, 300.0, 700.0)
    edge = np.repeat(np.column_stack([x, y]), 2, axis=0)
    edge[1::2, 1] += 1.0
    shape = shapely.Polygon([*edge, (900, 1500), (900, 0)])
    assert shape.is_valid
    placed = check(shape, dateline)
    assert len(shapely.get_parts(placed)) > 500


def test_a_vertex_and_an_edge_on_the_antimeridian_make_no_slivers(placement: MakePlacement) -> None:
    place = placement(4326, 0.1, 0.0, 170.0, 0.0, -0.1, 10.0)
    assert globe(shapely.box(90, 10, 100, 20), place).bounds == (179.0, 8.0, 180.0, 9.0)
    assert globe(shapely.box(100, 10, 110, 20), place).bounds == (-180.0, 8.0, -179.0, 9.0)
    diamond = shapely.Polygon([(100, 10), (110, 20), (100, 30), (90, 20)])
    assert sorted(part.bounds for part in shapely.get_parts(check(diamond, place))) == [
        (-180.0, 7.0, -179.0, 9.0),
        (179.0, 7.0, 180.0, 9.0),
    ]


@pytest.mark.parametrize("west", [-180.0, 0.0, -30.0])
def test_an_image_of_the_whole_world(west: float, placement: MakePlacement) -> None:
    place = placement(4326, 1.0, 0.0, west, 0.0, -1.0, 90.0)
    placed = globe(shapely.box(0, 0, 360, 180), place)
    assert rules(placed) == []
    assert placed.area == pytest.approx(360 * 180)
    band = globe(shapely.box(10, 40, 350, 60), place)
    assert rules(band) == []
    assert band.area == pytest.approx(340 * 20)


@pytest.fixture(params=["north", "south"])
def polar(request: pytest.FixtureRequest) -> Placement:
    """Each pole in turn."""
    return PLACES[request.param]


def test_a_shape_around_the_pole(polar: Placement) -> None:
    placed = check(shapely.box(300, 250, 720, 690), polar)
    assert placed.bounds[::2] == (-180.0, 180.0)
    assert 90.0 in (placed.bounds[3], -placed.bounds[1])


def test_a_ring_around_the_pole(polar: Placement) -> None:
    placed = check(shapely.box(300, 250, 720, 690).difference(shapely.Point(510, 490).buffer(100)), polar)
    assert max(placed.bounds[3], -placed.bounds[1]) < 89.5


def test_a_hole_that_crosses_the_antimeridian_only(polar: Placement) -> None:
    lat = 88.0 if polar is PLACES["north"] else -88.0
    hole = shapely.Point(*geodesy.from_lonlat(polar, [[180.0, lat]])[0]).buffer(50)
    check(shapely.box(200, 200, 800, 800).difference(hole), polar)


@pytest.mark.parametrize("corner", [(400, 400), (500, 400), (500, 500), (400, 500)])
def test_a_square_with_a_corner_at_the_pole(corner: tuple[int, int], polar: Placement) -> None:
    x, y = corner
    check(shapely.box(x, y, x + 100, y + 100), polar)


def test_three_quarters_around_the_pole(polar: Placement) -> None:
    check(shapely.box(400, 400, 600, 600).difference(shapely.box(500, 500, 600, 600)), polar)


def test_an_edge_through_the_pole(polar: Placement) -> None:
    check(shapely.Polygon([(400, 400), (500, 400), (500, 500), (500, 600), (400, 600)]), polar)


def test_a_shape_that_touches_the_pole_in_a_plate_carree_image(placement: MakePlacement) -> None:
    place = placement(4326, 1.0, 0.0, -180.0, 0.0, -1.0, 90.0)
    assert globe(shapely.box(350, 0, 360, 9), place).equals(shapely.box(170, 81, 180, 90))
    check(shapely.Polygon([(100, 0), (120, 9), (80, 9)]), place)


def test_a_shape_too_small_for_seven_decimals_is_none(placement: MakePlacement) -> None:
    place = placement(32618, 1e-3, 0.0, 500_000.0, 0.0, -1e-3, 4_000_000.0)
    shapes = np.array([shapely.box(0, 0, 1, 1), shapely.box(0, 0, 1000, 1000)], dtype=object)
    small, large = to_wgs84(shapes, place)
    assert small is None
    assert rules(large) == []


def test_shapes_that_rounding_makes_invalid_are_valid_again(placement: MakePlacement) -> None:
    place = placement(4326, 1e-6, 0.0, 0.0, 0.0, -1e-6, 0.0)
    comb = shapely.Polygon(  # teeth 0.01 px apart: 1e-8 degrees
        [(0, 0), (10, 0), (10, 10), (5.01, 10), (5.01, 0.02), (5.0, 0.02), (5.0, 10), (0, 10)]
    )
    placed = globe(comb, place)
    assert rules(placed) == []
    assert placed.area == pytest.approx(1e-10, rel=0.02)


def test_pixels_off_the_limb_of_the_earth_have_no_coordinates() -> None:
    crs = CRS.from_string("+proj=geos +h=35785831 +lon_0=-75 +sweep=x +ellps=GRS80 +units=m")
    place = Placement(((10_000.0, 0.0, -5e6), (0.0, -10_000.0, 5e6)), "m", crs.to_wkt())
    shapes = np.array([shapely.box(490, 490, 510, 510), shapely.box(0, 0, 10, 10)], dtype=object)
    on, off = to_wgs84(shapes, place)
    assert rules(on) == []
    assert off is None


def test_no_shapes() -> None:
    assert len(to_wgs84(np.empty(0, dtype=object), Placement.pixels())) == 0
    assert bounding_box(np.empty((0, 4))) is None


def test_the_box_crosses_the_antimeridian_where_the_shapes_do(dateline: Placement, placement: MakePlacement) -> None:
    across = to_wgs84(np.array([shapely.box(100, 100, 900, 700)], dtype=object), dateline)
    west, south, east, north = bounding_box(part_boxes(across)) or (0, 0, 0, 0)
    assert west > east
    assert west > 179
    assert east < -179
    assert 51 < south < north < 53
    here = placement(32618, 10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
    plain = to_wgs84(np.array([shapely.box(100, 100, 900, 700), shapely.box(0, 0, 9, 9)], dtype=object), here)
    assert bounding_box(part_boxes(plain)) == tuple(shapely.total_bounds(plain))


@pytest.mark.slow
@given(
    centre=st.tuples(st.floats(0, 1000), st.floats(0, 1000)),
    radii=st.lists(st.floats(1.0, 300.0), min_size=3, max_size=24),
    where=st.sampled_from(["dateline", "north", "south", "world"]),
    hole=st.booleans(),
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_random_shapes_are_valid_and_keep_their_area(
    centre: tuple[float, float], radii: list[float], where: str, *, hole: bool
) -> None:
    place = PLACES[where]
    turn = np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    star = np.array(centre) + np.array(radii)[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    shape = shapely.Polygon(star, [(star - centre) * 0.5 + centre] if hole else [])
    if where == "world":
        shape = shape.intersection(shapely.box(0, 0, 1000, 1000))
    if not shape.is_valid or shape.area < 1:
        return
    if where in {"north", "south"} and shape.boundary.distance(shapely.Point(500, 500)) < 20:
        assert rules(globe(shape, place)) == []  # edges of up to 4 px get no vertices, not even beside a pole
    else:
        check(shape, place, near=2.0)


def _placement(epsg: int, unit: str, *matrix: float) -> Placement:
    a, b, c, d, e, f = matrix
    return Placement(((a, b, c), (d, e, f)), "deg" if unit == "deg" else "m", CRS.from_epsg(epsg).to_wkt())


PLACES = {
    "dateline": _placement(32660, "m", 100.0, 30.0, 640_000.0, 30.0, -100.0, 5_770_000.0),
    "north": _placement(3413, "m", 1000.0, 0.0, -500_000.0, 0.0, -1000.0, 500_000.0),
    "south": _placement(3031, "m", 1000.0, 0.0, -500_000.0, 0.0, 1000.0, -500_000.0),
    "world": _placement(4326, "deg", 0.36, 0.0, 0.0, 0.0, -0.18, 90.0),
}


def test_pixels_larger_than_the_earth_are_refused() -> None:
    place = Placement(((1e6, 0.0, -4e6), (0.0, -1e6, 4e6)), "deg", "EPSG:4326", source="a mistake")
    with pytest.raises(ReadError, match="smaller than the Earth"):
        to_wgs84(np.array([shapely.box(0, 0, 8, 8)]), place)
