"""Outlines that are laid on another image keep their area and their common edges."""

import numpy as np
import pytest
import shapely
from limner.readers.areas import areas_m2
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.remap import pixel_mapping, polygonal, snapped
from rasterio.crs import CRS


def image(crs: int | None, *matrix: float, unit: str = "m", size: tuple[int, int] = (400, 300)) -> ImageInfo:
    a, b, c, d, e, f = matrix
    wkt = None if crs is None else CRS.from_epsg(crs).to_wkt()
    placement = Placement(((a, b, c), (d, e, f)), unit, wkt)  # type: ignore[arg-type]
    return ImageInfo("a.tif", "raster", size, (Channel("b1"),), placement, id="a")


def shapes(*several: object) -> np.ndarray:
    return np.array([*several, None], dtype=object)[:-1]


def test_a_shifted_grid_gives_whole_numbers() -> None:
    mapping = pixel_mapping(image(32633, 10, 0, 448_010, 0, -10, 5e6), image(32633, 10, 0, 448_000, 0, -10, 5e6 + 70))
    [moved] = mapping(shapes(shapely.box(0, 0, 3, 4)))
    assert mapping.straight
    assert moved.equals_exact(shapely.box(1, 7, 4, 11), 0.0)


@pytest.mark.parametrize(
    ("crs", "unit", "matrix"),
    [
        (32634, "m", (10.0, 0.0, 272_000.0, 0.0, -10.0, 5_207_000.0)),
        (4326, "deg", (1e-4, 0.0, 17.9, 0.0, -1e-4, 47.1)),
    ],
)
def test_areas_are_the_same_in_another_crs(crs: int, unit: str, matrix: tuple[float, ...]) -> None:
    source = image(32633, 10, 0, 725_000, 0, -10, 5_205_000)
    target = image(crs, *matrix, unit=unit)
    drawn = shapes(shapely.box(0, 0, 300, 200), shapely.Polygon([(300, 10), (390, 20), (300, 200)]))
    mapping = pixel_mapping(source, target)
    laid = mapping(drawn)
    before, after = areas_m2(drawn, source.placement), areas_m2(laid, target.placement)
    assert before is not None
    assert after == pytest.approx(before, rel=2e-6)


def test_edges_bend_where_they_do_on_the_ground() -> None:
    """A long edge is cut, so that the mapped middle of it lies on the mapped outline."""
    source, target = image(32633, 10, 0, 725_000, 0, -10, 5_205_000), image(3035, 10, 0, 4_950_000, 0, -10, 2_700_000)
    mapping = pixel_mapping(source, target)
    [laid] = mapping(shapes(shapely.box(0, 0, 4000, 4000)))
    for x in (500.0, 1333.0, 2000.0, 3900.0):
        assert laid.boundary.distance(shapely.Point(mapping.points(np.array([[x, 0.0]]))[0])) < 0.001


def test_images_without_a_place_in_common_are_refused() -> None:
    with pytest.raises(RequestError, match="one coordinate reference system"):
        pixel_mapping(image(None, 1, 0, 0, 0, 1, 0, unit="px"), image(32633, 10, 0, 0, 0, -10, 0))


def test_longitudes_beyond_180_are_those_of_the_target() -> None:
    source = image(4326, 0.01, 0.0, -179.5, 0.0, -0.01, 10.0, unit="deg")
    target = image(4979, 0.01, 0.0, 179.0, 0.0, -0.01, 10.0, unit="deg")  # to 183
    [laid] = pixel_mapping(source, target)(shapes(shapely.box(0, 0, 10, 10)))
    assert laid.bounds == pytest.approx((150, 0, 160, 10), abs=1e-4)


def test_only_polygons_are_left_of_an_overlay() -> None:
    mixed = shapely.GeometryCollection([shapely.box(0, 0, 1, 1), shapely.LineString([(0, 0), (5, 5)])])
    found = polygonal(shapes(mixed, shapely.Point(0, 0), shapely.box(0, 0, 2, 2)))
    assert [one.area for one in found] == [1, 0, 4]
    assert not shapely.is_missing(found).any()


def test_an_outline_that_rounding_breaks_is_repaired() -> None:
    thin = shapely.Polygon([(0, 0), (10, 0), (10, 1), (5, 1e-9), (0, 1)])
    [found] = snapped(shapes(thin))
    assert found.is_valid
    assert found.area == pytest.approx(thin.area, abs=1e-5)
