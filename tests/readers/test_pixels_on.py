"""Pixels of one image on the grid of another, against pyproj, and where longitudes differ by a turn."""

import math

import numpy as np
import pyproj
import pytest
from limner.readers.errors import ReadError
from limner.readers.geodesy import pixels_on
from limner.readers.geometry import Placement, Unit

XY = np.array([[0.0, 0.0], [30.5, 12.0], [99.0, 40.25]])


def north_up(crs: int, pixel: float, west: float, north: float, unit: Unit = "m") -> Placement:
    crs_wkt = pyproj.CRS.from_epsg(crs).to_wkt()
    return Placement(((pixel, 0.0, west), (0.0, -pixel, north)), unit, crs=crs_wkt, source="test")


def test_of_one_crs_they_are_only_moved_and_scaled() -> None:
    source, target = north_up(32618, 10.0, 400_000.0, 4_100_000.0), north_up(32618, 20.0, 399_000.0, 4_101_000.0)
    assert pixels_on(target, source, XY, 1000) == pytest.approx(XY / 2 + 50.0, abs=1e-9)


def test_between_zones_they_lie_at_the_same_longitude_and_latitude() -> None:
    source, target = north_up(32618, 10.0, 760_000.0, 4_100_000.0), north_up(32619, 10.0, 200_000.0, 4_130_000.0)
    moved = pyproj.Transformer.from_crs(32618, 32619, always_xy=True).transform(*source.to_world(XY).T)
    assert pixels_on(target, source, XY, 10_000) == pytest.approx(target.to_pixel(np.stack(moved, axis=1)), abs=1e-3)


@pytest.mark.parametrize(
    ("west", "column"),
    [(-180.0, 3598.5), (0.0, 1798.5), (175.0, 48.5), (179.85, 0.0)],
    ids=["from -180", "from 0", "across 180", "begins there"],
)
def test_a_grid_of_longitudes_may_begin_anywhere(west: float, column: float) -> None:
    """A point at 179.85° and one 0.3° further, at -179.85°, on a grid of 0.1°."""
    source = north_up(32660, 10.0, 0.0, 0.0)
    east = pyproj.Transformer.from_crs(4326, 32660, always_xy=True).transform([179.85, -179.85], [10.0, 10.0])
    xy = source.to_pixel(np.stack(east, axis=1))
    target = north_up(4326, 0.1, west, 20.0, "deg")
    (first, second) = pixels_on(target, source, xy, 3600)
    assert first == pytest.approx((column, 100.0), abs=1e-5)
    assert second == pytest.approx(((column + 3.0) % 3600, 100.0), abs=1e-5)


def test_what_is_outside_of_a_grid_of_longitudes_stays_outside() -> None:
    target = north_up(4326, 0.1, 20.0, 20.0, "deg")
    source = north_up(32660, 10.0, 500_000.0, 1_000_000.0)
    assert pixels_on(target, source, XY[:1], 400)[0, 0] == pytest.approx(1570.0)


def test_without_a_place_on_the_other_map_there_is_none() -> None:
    crs = pyproj.CRS.from_user_input("+proj=ortho +lat_0=0 +lon_0=0 +datum=WGS84").to_wkt()
    disc = Placement(((1e6, 0.0, -7e6), (0.0, -1e6, 7e6)), "m", crs=crs, source="test")
    space, earth = pixels_on(north_up(32631, 10.0, 0.0, 0.0), disc, [[0.0, 0.0], [7.0, 7.0]], 10)
    assert all(map(math.isnan, space))
    assert np.isfinite(earth).all()


def test_without_a_crs_on_the_earth_it_is_an_error() -> None:
    with pytest.raises(ReadError):
        pixels_on(Placement.pixels(), north_up(32618, 10.0, 0.0, 0.0), XY, 10)
