"""Distances, areas, longitudes and latitudes, against geodesics, equal-area maps and known numbers."""

import math
import os
import subprocess
import sys
from itertools import count, pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.readers import geodesy
from limner.readers.areas import area_m2, areas_m2, box_areas_m2, polygon_area, polygon_edges
from limner.readers.densify import densify, densify_all
from limner.readers.errors import ReadError
from limner.readers.geometry import Placement, Points, Polynomial, Unit
from shapely.geometry.base import BaseGeometry

plain = settings(deadline=None, derandomize=True)
Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]

WGS84_SURFACE = 510065621724088.44  # m², Karney 2013, eq. 60 with WGS84's parameters
TERMS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
SITE = 'LOCAL_CS["site",UNIT["foot",0.3048],AXIS["x",EAST],AXIS["y",NORTH]]'


def placed(crs: int | str, matrix: Matrix, warp: Polynomial | None = None) -> Placement:
    return Placement(matrix, "m", crs=pyproj.CRS.from_user_input(crs).to_wkt(), source="test", warp=warp)


def north_up(crs: int | str, pixel: float, west: float, north: float) -> Placement:
    return placed(crs, ((pixel, 0.0, west), (0.0, -pixel, north)))


VIRGINIA = north_up(32618, 10.0, 399960.0, 4100040.0)
GLOBE = north_up(4326, 0.25, -180.0, 90.0)

PLACEMENTS = {
    "UTM": VIRGINIA,
    "UTM over the antimeridian": north_up(32601, 10.0, 340000.0, 7000000.0),
    "south-up": placed(32733, ((10.0, 0.0, 300000.0), (0.0, 10.0, 6000000.0))),
    "rotated": placed(25832, ((8.0, 3.0, 500000.0), (3.0, -8.0, 5600000.0))),
    "web Mercator at 60° N": north_up(3857, 10.0, 0.0, 8399737.9),
    "polar stereographic": north_up(3413, 1000.0, -3e6, 3e6),
    "degrees": north_up(4326, 1 / 3600, 77.0, 45.0),
    "degrees, rotated": placed(4326, ((1 / 3600, 1e-5, 77.0), (3e-5, -1 / 3600, 45.0))),
    "degrees beyond 180": north_up(4326, 0.01, 175.0, 10.0),
    "US feet": placed(2263, ((30.0, 0.0, 900000.0), (3.0, -33.0, 200000.0))),
    "with heights": north_up(7405, 10.0, 400000.0, 200000.0),
    "Mollweide": north_up("ESRI:54009", 1000.0, -3e6, 3e6),
    "Mars, degrees": north_up("ESRI:104905", 0.01, 10.0, 20.0),
    "Mars, metres": north_up("IAU_2015:49912", 100.0, 10.0, 20.0),
}


def geodesic_area(polygon: shapely.Polygon, placement: Placement, pieces: int) -> float:
    """The oracle: pixel edges in many pieces, each a geodesic (pyproj.Geod, Karney 2013)."""
    crs = pyproj.CRS.from_user_input(placement.crs)
    assert crs.geodetic_crs is not None
    own = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod = crs.get_geod()
    assert geod is not None
    total = 0.0
    for sign, ring in [(1, polygon.exterior), *((-1, hole) for hole in polygon.interiors)]:
        corners = np.asarray(ring.coords)
        part = np.arange(pieces)[:, None] / pieces
        dense = np.concatenate([a + (b - a) * part for a, b in pairwise(corners)])
        total += sign * abs(geod.polygon_area_perimeter(*own.transform(*placement.to_world(dense).T))[0])
    return total


@pytest.mark.parametrize("name", PLACEMENTS)
def test_areas_agree_with_dense_geodesics(name: str) -> None:
    placement = PLACEMENTS[name]
    small = shapely.Polygon([(500, 500), (530, 500), (530, 510), (510, 510), (510, 540), (500, 540)])
    large = shapely.box(0, 0, 3000, 2500).difference(shapely.box(100, 200, 900, 1700))
    slanted = shapely.Polygon([(100.5, 200.25), (2500.75, 900.5), (800.25, 2300.5)])
    for polygon, pieces in [(small, 200), (large, 1500), (slanted, 1500)]:
        assert area_m2(polygon, placement) == pytest.approx(geodesic_area(polygon, placement, pieces), rel=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crs", "pixel", "west", "north"),
    [
        (6933, 25025.26, -17367530.45, 7314540.83),  # cylindrical, the whole world
        (3035, 100.0, 2.5e6, 5.5e6),  # azimuthal, Europe
        (5070, 30.0, -2.3e6, 3.1e6),  # conic, the United States
        (6931, 3000.0, -5e6, 5e6),  # azimuthal, around the pole
    ],
)
def test_on_equal_area_maps_areas_are_those_of_the_map(crs: int, pixel: float, west: float, north: float) -> None:
    placement = north_up(crs, pixel, west, north)
    shapes = [shapely.box(0, 0, 1, 1), shapely.box(0, 0, 1388, 584), shapely.Point(700, 300).buffer(250)]
    areas = areas_m2(shapes, placement)
    assert areas is not None
    assert areas == pytest.approx([shape.area * pixel**2 for shape in shapes], rel=2e-7)


def test_known_areas() -> None:
    a, e2, lat = 6378137.0, 0.0066943799901413165, np.radians((np.arange(100000) + 0.5) / 100000)
    rings = a**2 * (1 - e2) * np.cos(lat) / (1 - e2 * np.sin(lat) ** 2) ** 2  # meridian radius × parallel radius
    cell = area_m2(shapely.box(0, 0, 1, 1), north_up(4326, 1.0, 0.0, 1.0))
    assert cell == pytest.approx(rings.mean() * math.radians(1) ** 2, rel=1e-10), "1° by 1° at the equator"
    assert cell == pytest.approx(12308.46e6, rel=1e-6)
    assert area_m2(shapely.box(0, 0, 1440, 720), GLOBE) == pytest.approx(WGS84_SURFACE, rel=1e-12)
    moon = north_up("ESRI:104903", 1.0, 0.0, 90.0)
    assert area_m2(shapely.box(0, 0, 360, 60), moon) == pytest.approx(math.pi * 1737400**2, rel=1e-12)
    assert area_m2(shapely.box(0, 0, 1, 1), north_up(3031, 10.0, -5.0, 5.0)) == pytest.approx(
        (10 / 0.9727690128) ** 2, rel=1e-8
    ), "a pixel around the pole, where the map's scale is known"


def test_a_grid_beyond_the_poles_has_no_area_there() -> None:
    centred = north_up(4326, 1.0, -0.5, 90.5)
    assert area_m2(shapely.box(0, 0, 360, 181), centred) == pytest.approx(WGS84_SURFACE, rel=1e-12)


def test_a_warped_image_has_the_areas_of_its_map() -> None:
    x = (450000.0, 50000.0, 900.0, 800.0, -500.0, 300.0)
    y = (4e6, 700.0, -50000.0, 200.0, 900.0, 0.0)
    warp = Polynomial(TERMS, x, y, (5000.0, 5000.0), 5000.0, 0.1)
    placement = placed(32618, ((10.0, 0.18, 0.0), (0.14, -10.0, 0.0)), warp=warp)
    for polygon, pieces in [(shapely.box(5000, 5000, 5100, 5100), 50), (shapely.box(0, 0, 10000, 9000), 3000)]:
        assert area_m2(polygon, placement) == pytest.approx(geodesic_area(polygon, placement, pieces), rel=1e-7)


def test_a_rotated_pole_is_measured_on_the_true_ellipsoid() -> None:
    crs = "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +datum=WGS84"
    placement = placed(f"{crs} +to_meter=0.0174532925199433", ((0.11, 0.0, -20.0), (0.0, -0.11, 20.0)))
    own = pyproj.Transformer.from_crs(placement.crs, "EPSG:4326", always_xy=True)
    corners = np.array([(0, 0), (100, 0), (100, 100), (0, 100), (0, 0)])
    ring = np.concatenate([np.linspace(a, b, 500, endpoint=False) for a, b in pairwise(corners)])
    oracle = abs(pyproj.Geod(ellps="WGS84").polygon_area_perimeter(*own.transform(*placement.to_world(ring).T))[0])
    assert area_m2(shapely.box(0, 0, 100, 100), placement) == pytest.approx(oracle, rel=1e-6)


@pytest.mark.parametrize("unit", ["um", "mm", "m"])
def test_without_a_crs_the_matrix_and_its_unit_decide(unit: str) -> None:
    metres = {"um": 1e-6, "mm": 1e-3, "m": 1.0}[unit]
    slide = Placement(((0.25, 0.0, 0.0), (0.0, 0.5, 0.0)), cast("Unit", unit))
    assert geodesy.metres_per_pixel(slide, (3, 4)) == pytest.approx((0.25 * metres, 0.5 * metres))
    assert area_m2(shapely.box(0, 0, 10, 10), slide) == pytest.approx(12.5 * metres**2)
    patient = Placement(((0.5, 0.0, -100.0), (0.0, 0.0, 40.0), (0.0, -0.25, 300.0)), "mm")
    assert geodesy.metres_per_pixel(patient, (0, 0)) == pytest.approx((0.5e-3, 0.25e-3))
    assert area_m2(shapely.box(0, 0, 2, 2), patient) == pytest.approx(0.5e-6)


def test_a_local_crs_has_a_unit_but_no_longitude() -> None:
    site = Placement(((2.0, 0.0, 0.0), (0.0, -2.0, 0.0)), "crs", crs=SITE)
    assert geodesy.metres_per_pixel(site, (0, 0)) == pytest.approx((0.6096, 0.6096))
    assert area_m2(shapely.box(0, 0, 10, 10), site) == pytest.approx(100 * 0.6096**2)
    assert not geodesy.on_earth(site)
    with pytest.raises(ReadError, match="on the Earth"):
        geodesy.to_lonlat(site, [(0, 0)])


def test_without_a_unit_there_are_no_areas() -> None:
    unknown = Placement.pixels()
    assert geodesy.metres_per_pixel(unknown, (0, 0)) is None
    assert area_m2(shapely.box(0, 0, 1, 1), unknown) is None
    assert areas_m2([shapely.box(0, 0, 1, 1)], unknown) is None
    assert box_areas_m2([(0, 0, 1, 1)], unknown) is None


def test_only_polygons_have_areas_and_holes_and_parts_count() -> None:
    ring = shapely.box(0, 0, 30, 30).difference(shapely.box(10, 10, 20, 20))
    far = shapely.box(100, 100, 120, 110)
    assert isinstance(ring, shapely.Polygon)
    nested = shapely.GeometryCollection([shapely.Point(1, 1), shapely.MultiPolygon([ring, far])])
    for placement in (VIRGINIA, GLOBE, PLACEMENTS["polar stereographic"]):
        areas = areas_m2(
            [shapely.Point(3, 3), shapely.LineString([(0, 0), (9, 9)]), shapely.Polygon(), ring, far, nested], placement
        )
        assert areas is not None
        assert areas[:3].tolist() == [0, 0, 0]
        assert areas[5] == pytest.approx(areas[3] + areas[4], rel=1e-7)
        assert areas[3] < area_m2(shapely.box(0, 0, 30, 30), placement)
        assert areas[3] == area_m2(ring.reverse(), placement), "whichever way round"
    none = areas_m2([], VIRGINIA)
    assert none is not None
    assert len(none) == 0


def test_a_geometry_off_the_map_has_no_area() -> None:
    disc = north_up("+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=WGS84", 3000.0, -5570000.0, 5570000.0)
    inside, limb = shapely.box(1600, 1600, 2000, 2000), shapely.box(0, 0, 1000, 1000)
    areas = areas_m2([inside, limb], disc)
    assert areas is not None
    assert areas[0] == pytest.approx(geodesic_area(inside, disc, 1000), rel=1e-6)
    assert math.isnan(areas[1])
    assert area_m2(limb, disc) is None
    assert geodesy.metres_per_pixel(disc, (0, 0)) is None
    assert geodesy.metres_per_pixel(disc, (5570 / 3, 5570 / 3)) == pytest.approx((3000, 3000), rel=2e-3)
    assert np.isnan(geodesy.lonlat_or_nan(disc, [(0, 0)])).all()
    with pytest.raises(ReadError, match=r"pixel \[0.0, 0.0\]"):
        geodesy.to_lonlat(disc, [(1800, 1800), (0, 0)])


@st.composite
def partitions(draw: st.DrawFn) -> list[shapely.Geometry]:
    """An image of 10 980 px cut into a few rectilinear pieces with holes and parts: cells of a grid, by label."""
    cuts = [sorted(draw(st.sets(st.integers(1, 10979), min_size=2, max_size=5))) for _ in range(2)]
    xs, ys = ([0, *cut, 10980] for cut in cuts)
    cells: dict[int, list[shapely.Geometry]] = {}
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            cells.setdefault(draw(st.integers(0, 3)), []).append(shapely.box(x0, y0, x1, y1))
    return [shapely.union_all(boxes) for boxes in cells.values()]


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    partitions(), st.sampled_from(["UTM", "rotated", "degrees", "web Mercator at 60° N", "UTM over the antimeridian"])
)
def test_pieces_add_up_to_the_whole(pieces: list[BaseGeometry], name: str) -> None:
    placement = PLACEMENTS[name]
    areas = areas_m2(pieces, placement)
    assert areas is not None
    assert areas.sum() == pytest.approx(area_m2(shapely.box(0, 0, 10980, 10980), placement), rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["UTM", "degrees", "degrees, rotated", "polar stereographic"])
def test_an_area_does_not_depend_on_the_others_of_the_call(name: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 3000, (2, 150))
    wide, high = rng.integers(8, 1500, (2, 150))
    shapes = shapely.union(shapely.box(x, y, x + wide, y + 7), shapely.box(x, y, x + 4, y + high))
    together = areas_m2(shapes, PLACEMENTS[name])
    assert together is not None
    assert together.tolist() == [area_m2(shape, PLACEMENTS[name]) for shape in shapes]


def test_known_distances() -> None:
    assert geodesy.metres_per_pixel(north_up(32618, 10.0, 5e5, 4e6), (0, 0)) == pytest.approx(
        (10 / 0.9996, 10 / 0.9996), rel=1e-8
    )
    assert geodesy.metres_per_pixel(north_up(4326, 1e-4, 0.0, 0.0), (0, 0)) == pytest.approx(
        (11.1319491, 11.0574276), rel=1e-7
    ), "a degree of longitude and of latitude at the equator"
    sine2 = 0.75  # of 60°
    e2 = 0.00669437999014
    assert geodesy.metres_per_pixel(PLACEMENTS["web Mercator at 60° N"], (0, 0)) == pytest.approx(
        (10 * 0.5 / math.sqrt(1 - e2 * sine2), 10 * 0.5 * (1 - e2) / (1 - e2 * sine2) ** 1.5), rel=1e-6
    )
    mars = north_up("IAU_2015:49910", 100.0, 0.0, 0.0)
    assert geodesy.metres_per_pixel(mars, (0, 0)) == pytest.approx((100, 100), rel=1e-6)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_distances_agree_with_geodesics(name: str) -> None:
    placement = PLACEMENTS[name]
    crs = pyproj.CRS.from_user_input(placement.crs)
    own = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    at = np.array([(700.0, 400.0)])
    found = geodesy.metres_per_pixel(placement, at[0])
    assert found is not None
    for axis, metres in enumerate(found):
        step = np.eye(2)[axis] * 100 / metres
        (x0, x1), (y0, y1) = own.transform(*placement.to_world(np.concatenate([at - step, at + step])).T)
        geod = crs.get_geod()
        assert geod is not None
        assert geod.inv(x0, y0, x1, y1)[2] / 200 == pytest.approx(1.0, rel=1e-6)


EARTHLY = [name for name in PLACEMENTS if not name.startswith("Mars")]


@pytest.mark.parametrize("name", EARTHLY)
def test_longitude_and_latitude_agree_with_proj_and_come_back(name: str) -> None:
    placement = PLACEMENTS[name]
    xy = np.random.default_rng(4).uniform(0, 2000, (50, 2))
    lonlat = geodesy.to_lonlat(placement, xy)
    assert (np.abs(lonlat) <= (180, 90)).all()
    proj = pyproj.Transformer.from_crs(placement.crs, "EPSG:4326", always_xy=True)
    expected = np.stack(proj.transform(*placement.to_world(xy).T), axis=1)
    turns = (lonlat - expected) / (360, 1)
    assert np.abs(turns - np.round(turns) * (1, 0)).max() < 1e-11
    if name == "degrees beyond 180":
        lonlat[:, 0] %= 360
    back = 1e-3 if name == "with heights" else 1e-6  # a datum shift without heights comes back within a millimetre
    assert np.abs(geodesy.from_lonlat(placement, lonlat) - xy).max() < back


def test_mars_has_no_longitude_on_wgs84() -> None:
    mars = PLACEMENTS["Mars, metres"]
    assert not geodesy.on_earth(mars)
    with pytest.raises(ReadError, match=r"Mars.*3396190 m.*source CRS"):
        geodesy.to_lonlat(mars, [(0, 0)])
    assert not geodesy.on_earth(Placement.pixels())
    with pytest.raises(ReadError, match="--crs"):
        geodesy.from_lonlat(Placement.pixels(), [(0, 0)])
    assert all(geodesy.on_earth(PLACEMENTS[name]) for name in EARTHLY)


@pytest.mark.slow
def test_an_unknown_crs_is_refused() -> None:
    with pytest.raises(ReadError, match="PROJ can read"):
        geodesy.on_earth(Placement(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), "m", crs="Middle Earth"))


def strays(dense: BaseGeometry, original: BaseGeometry, placement: Placement) -> float:
    """How many pixels the lines in longitude and latitude between the vertices lie off the original line."""
    lonlat = geodesy.to_lonlat(placement, shapely.get_coordinates(dense))
    step = np.diff(lonlat, axis=0)
    step[:, 0] = (step[:, 0] + 180) % 360 - 180
    assert np.abs(step[:, 0]).max() <= 90 + 1e-9
    along = np.linspace(0, 1, 9)[None, :, None]
    between = (lonlat[:-1, None] + step[:, None] * along).reshape(-1, 2)
    if placement is PLACEMENTS["degrees beyond 180"]:
        between[:, 0] %= 360
    points = shapely.points(geodesy.from_lonlat(placement, between))
    return float(shapely.distance(points, original).max())


@pytest.mark.parametrize("name", EARTHLY)
def test_densified_edges_are_within_the_tolerance(name: str) -> None:
    placement = PLACEMENTS[name]
    rng = np.random.default_rng(5)
    for polygon in [shapely.box(50, 60, 2900, 2800), shapely.Polygon(rng.uniform(0, 2900, (3, 2)))]:
        dense = densify(polygon, placement)
        assert isinstance(dense, shapely.Polygon)
        assert strays(dense.exterior, polygon.exterior, placement) <= 0.055
        assert shapely.get_num_coordinates(dense) < 600
        assert {tuple(p) for p in polygon.exterior.coords} <= {tuple(p) for p in dense.exterior.coords}
        assert dense.symmetric_difference(polygon).area < 1e-6
        assert dense.is_valid


def test_an_s_shaped_edge_is_detected() -> None:
    """Through the point where equator and central meridian cross, one half's bow is the other's turned round."""
    placement = north_up(32733, 1000.0, -500000.0, 11000000.0)
    line = shapely.LineString([(0.0, 0.0), (2000.0, 2000.0)])
    assert strays(line, line, placement) > 0.5
    assert strays(densify(line, placement), line, placement) <= 0.055


def test_straight_edges_get_no_vertices() -> None:
    shapes = [shapely.box(0, 0, 40, 60), shapely.Point(3, 3), shapely.MultiPolygon([shapely.box(0, 0, 9, 9)])]
    shapes += [shapely.Polygon([(0, 0), (60, 60), (0, 60)]), shapely.LineString([(60, 0), (0, 60)])]
    assert densify_all(shapes, VIRGINIA).tolist() == shapes
    assert densify(shapely.box(0, 0, 3600, 3600), PLACEMENTS["degrees"]) == shapely.box(0, 0, 3600, 3600)


def test_geometries_are_densified_each_for_itself() -> None:
    small = shapely.box(0, 0, 40, 60)
    shapes = [small, shapely.box(0, 0, 9000, 9000), shapely.Point(3, 3), small, shapely.LineString([(0, 0), (9000, 9)])]
    dense = densify_all(shapes, VIRGINIA)
    assert dense.tolist() == [densify(one, VIRGINIA) for one in shapes]
    assert [len(after.normalize().wkb) > len(one.wkb) for one, after in zip(shapes, dense, strict=True)] == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert dense.tolist() == densify_all(shapes, VIRGINIA, 0.05).tolist()
    assert (
        shapely.get_num_coordinates(dense).sum()
        > shapely.get_num_coordinates(densify_all(shapes, VIRGINIA, 1.05)).sum()
    )


def test_a_short_edge_over_the_antimeridian_is_short() -> None:
    placement = PLACEMENTS["UTM over the antimeridian"]
    x, y = geodesy.from_lonlat(placement, [(180.0, 63.0)])[0]
    over = shapely.box(x - 10, y - 10, x + 10, y + 10)
    assert np.ptp(geodesy.to_lonlat(placement, shapely.get_coordinates(over))[:, 0]) > 359
    assert densify(over, placement) == over


def test_parts_and_holes_are_densified() -> None:
    ring = shapely.box(0, 0, 9000, 9000).difference(shapely.box(100, 100, 8000, 8000))
    assert isinstance(ring, shapely.Polygon)
    nested = shapely.GeometryCollection(
        [shapely.MultiPolygon([ring, shapely.box(9500, 0, 9600, 9000)]), shapely.Point(1, 1)]
    )
    dense = densify(nested, VIRGINIA)
    assert isinstance(dense, shapely.GeometryCollection)
    assert shapely.get_num_coordinates(dense) > shapely.get_num_coordinates(nested) + 20
    assert shapely.area(dense) == pytest.approx(shapely.area(nested), rel=1e-12)
    assert shapely.get_num_interior_rings(dense.geoms[0].geoms[0]) == 1


@pytest.mark.parametrize("away", [False, True])
def test_an_edge_at_the_limb_is_densified(away: bool) -> None:
    disc = north_up("+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=GRS80 +units=m", 11_000.0, -5.5e6, 5.5e6)
    ends = [(60.0, 300.0), (400.0, 450.0)]
    line = shapely.LineString(ends[::-1] if away else ends)
    assert strays(line, line, disc) > 10
    assert strays(densify(line, disc), line, disc) <= 0.055


def test_a_full_turn_of_longitude_keeps_its_direction() -> None:
    line = shapely.LineString([(0, 100), (1440, 100), (1440, 500)])
    lon = geodesy.to_lonlat(GLOBE, shapely.get_coordinates(densify(line, GLOBE)))[:, 0]
    assert np.ptp(np.unwrap(lon, period=360)) == pytest.approx(360)


def test_densifying_an_edge_through_the_pole_ends() -> None:
    pole = north_up(3413, 1000.0, -3e6, 3e6)
    dense = densify(shapely.box(3000, 0, 5000, 5000), pole)
    assert shapely.get_num_coordinates(dense) < 3000


def test_a_wide_picture_that_is_warped_without_a_crs_is_measured_on_its_plane() -> None:
    x = (5000.0, 5000.0, 0.0, 500.0, 0.0, 0.0)  # metres: a middle, a slope and a bow along x
    y = (5000.0, 0.0, -5000.0, 0.0, 0.0, 0.0)
    warp = Polynomial(TERMS, x, y, (500.0, 500.0), 500.0, 0.1)
    units: list[tuple[Unit, str | None, float]] = [("m", None, 1.0), ("mm", None, 1e-6), ("crs", SITE, 0.3048**2)]
    for unit, crs, m2 in units:
        placement = Placement(((10.0, 0.0, 0.0), (0.0, -10.0, 10000.0)), unit, crs, warp=warp)
        half = area_m2(shapely.box(500, 0, 1000, 1000), placement)
        assert half == pytest.approx((5000 + 500) * 10000 * m2, rel=1e-9)


KM2 = 1e6


def of_fan(points: Points) -> float:
    """The signed area in m² of points (radius in km, angle): edges along a radius stay straight, all others bend."""
    x, y = points[:, 0] * np.cos(points[:, 1]), points[:, 0] * np.sin(points[:, 1])
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2 * KM2


@pytest.mark.parametrize("metres", [1e3, 1e5, 3e6])  # the last is wide enough to be cut into parts
def test_curved_edges_holes_and_parts(metres: float) -> None:
    ring = shapely.box(2, 0, 4, 3).difference(shapely.box(2.5, 1, 3, 2))
    expected = (16 - 4) / 2 * 3 - (9 - 6.25) / 2
    assert polygon_area(ring, of_fan, metres) == pytest.approx(expected * KM2, rel=1e-8)
    both = shapely.GeometryCollection([shapely.union(ring, shapely.box(5, 0, 6, 3)), shapely.Point(9, 9)])
    assert polygon_area(both, of_fan, metres) == pytest.approx((expected + (36 - 25) / 2 * 3) * KM2, rel=1e-8)
    spiral = shapely.Polygon([(1, 0), (4, 3), (1, 3)])  # from 1 + angle inwards to 1
    assert polygon_area(spiral, of_fan, metres) == pytest.approx(((4**3 - 1) / 6 - 3 / 2) * KM2, rel=1e-8)
    assert polygon_area(shapely.Polygon(), of_fan, metres) == 0


def test_an_area_off_the_map_or_without_convergence_is_nan() -> None:
    assert math.isnan(polygon_area(shapely.box(2, 0, 4, 3), lambda xy: of_fan(np.where(xy < 4, xy, np.nan)), 1e3))
    more = count(1)
    assert math.isnan(polygon_area(shapely.box(2, 0, 4, 3), lambda _: float(next(more)), 1e3))


def test_polygon_edges() -> None:
    triangle = shapely.Polygon([(-1, -1), (1, -1), (1, 1)])
    shapes = np.array([shapely.box(0, 0, 1, 1), shapely.Point(0, 0), triangle], dtype=object)
    owner, start, end = polygon_edges(shapes)
    assert np.bincount(owner, minlength=3).tolist() == [4, 0, 3]
    assert {tuple(p) for p in start[owner == 2]} == {tuple(p) for p in end[owner == 2]} == {(-1, -1), (1, -1), (1, 1)}


@pytest.mark.slow
def test_a_crs_cannot_open_files(tmp_path: Path) -> None:
    """Opening a pipe among the grids would block."""
    grid = tmp_path / "grid.gsb"
    os.mkfifo(grid)
    code = (
        "import sys, pyproj\nfrom limner.readers import geodesy\nfrom limner.readers.errors import ReadError\n"
        "from limner.readers.geometry import Placement\n"
        "for text in sys.argv[1:]:\n    for wkt in (text, pyproj.CRS.from_user_input(text).to_wkt()):\n"
        "        try:\n            geodesy.lonlat_or_nan(Placement(((9, 0, 3e5), (0, -9, 4e6)), 'm', wkt), [[0, 0]])\n"
        "            print('placed')\n        except ReadError:\n            print('refused')"
    )
    crs = "+proj=utm +zone=18 +ellps=WGS84 +nadgrids={} +units=m +no_defs +type=crs"
    asked = [crs.format(name) for name in (grid, f"@{grid}", f"@null,{grid}", "../grid.gsb", "none.gsb", "@null")]
    command = [sys.executable, "-c", code, *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["refused"] * 10 + ["placed"] * 2


def test_boxes_have_the_areas_of_their_outlines() -> None:
    corner = np.random.default_rng(5).uniform(0, 9000, (40, 2))
    boxes = np.hstack([corner, corner + np.random.default_rng(6).uniform(1, 90, (40, 2))])
    for shown in (boxes, [*boxes, (0.0, 0.0, 4000.0, 3000.0)], [*boxes, (5.0, 5.0, 5.0, 9.0)]):
        outlines = np.asarray(shapely.box(*np.transpose(shown)))
        assert box_areas_m2(shown, VIRGINIA) == pytest.approx(areas_m2(outlines, VIRGINIA), rel=1e-9)
