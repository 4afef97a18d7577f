"""Looking: what a region's tiles hold, what of it counts, and how much ground that is."""

from collections.abc import Callable

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model import views
from limner.model.annotator import InputSpec
from limner.model.finding import Coverage
from limner.model.views import core_window, measure_coverage, read_view, roi_mask
from limner.readers.areas import area_m2, box_areas_m2
from limner.readers.geometry import Placement
from limner.readers.image import Image
from limner.readers.regions import Grid, Region, cut_regions
from limner.readers.render import Stretch
from shapely.geometry import Polygon, box

Make = Callable[..., Image]
UTM = Placement(((30.0, 0.0, 300000.0), (0.0, -30.0, 4200000.0)), "m", crs=pyproj.CRS(32618).to_wkt())
DEGREES = Placement(((0.01, 0.0, 10.0), (0.0, -0.01, 70.0)), "deg", crs=pyproj.CRS(4326).to_wkt())


def coordinates(height: int, width: int) -> np.ndarray:
    """A picture (H, W, 2) of uint16 whose pixels are their own x and y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y], axis=2).astype(np.uint16)


def cuts(image: Image, spec: InputSpec, *, scale: float = 1.0, hd_num: int = 4, overlap: int = 0) -> list[Region]:
    grid = Grid("picture", image.info.size, (scale, scale))
    return cut_regions(grid, tile=spec.tile, halo=spec.halo, overlap=overlap, hd_num=hd_num)


def test_tiles_hold_physical_values_at_their_place(picture: Make) -> None:
    image = picture(coordinates(90, 131), bands=("red", "nir"), quantity="toa_reflectance", scale=0.5, offset=-3.0)
    spec = InputSpec(tile=32, halo=4, bands=("red", "nir"), quantity="toa_reflectance")
    for region in cuts(image, spec):
        view = read_view(image, region, spec)
        assert view.tiles.dtype == np.float32
        for tile, valid, (x0, y0, _, _) in zip(view.tiles, view.valid, view.grid.boxes(), strict=True):
            y, x = np.mgrid[:32, :32] + np.array([y0 + region.rows.start, x0 + region.columns.start])[:, None, None]
            assert (valid == ((x >= 0) & (x < 131) & (y >= 0) & (y < 90))).all()
            assert (tile[valid] == np.stack([x, y], axis=2)[valid] * 0.5 - 3).all()
            assert np.isnan(tile[~valid]).all()


def test_a_nan_in_one_band_makes_a_pixel_invalid_and_amplitudes_are_taken(picture: Make) -> None:
    pixels = np.full((8, 8, 2), 3 + 4j, dtype=np.complex64)
    pixels[2, 5, 1] = np.nan
    image = picture(pixels, bands=("hh", "hv"))
    spec = InputSpec(tile=8, bands=("hh", "hv"))
    view = read_view(image, cuts(image, spec)[0], spec)
    assert view.keep_mask.sum() == 63
    assert not view.keep_mask[2, 5]
    assert (view.tiles[view.valid] == 5).all()


def test_rgb_is_rendered_with_the_stretch_and_white_where_invalid(picture: Make) -> None:
    pixels = np.full((20, 20, 3), 100, dtype=np.uint16)
    mask = np.ones((20, 20), dtype=bool)
    mask[3, 4] = False
    image = picture(pixels, bands=("red", "green", "blue"), mask=mask)
    spec = InputSpec(tile=16, overall=True)
    stretch = Stretch(("b0", "b1", "b2"), (0.0,) * 3, (200.0,) * 3, "test")
    view = read_view(image, cuts(image, spec)[0], spec, stretch=stretch)
    assert view.tiles.dtype == np.uint8
    assert view.tiles.shape == (4, 16, 16, 3)
    assert (view.tiles[0, 3, 4] == 255).all()
    assert (view.tiles[3, 10, 10] == 255).all()
    assert abs(int(view.tiles[0, 0, 0, 0]) - 127) <= 1
    assert view.global_view is not None
    assert view.global_view.shape == (16, 16, 3)
    assert view.global_view[:8, :8].mean() < view.global_view[12:, 12:].mean()
    with pytest.raises(ValueError, match="stretch"):
        read_view(image, view.region, spec)


def test_image_region_and_spec_must_belong_together(picture: Make) -> None:
    image = picture(coordinates(40, 40), bands=("red", "nir"))
    spec = InputSpec(tile=16, bands=("red", "nir"))
    region = cuts(image, spec)[0]
    with pytest.raises(ValueError, match="not cut for"):
        read_view(image, region, InputSpec(tile=20, bands=("red", "nir")))
    with pytest.raises(ValueError, match="opened with"):
        read_view(image, region, InputSpec(tile=16, bands=("nir", "red")))
    with pytest.raises(ValueError, match="opened with"):
        read_view(image, region, InputSpec(tile=16, bands=("red", "nir"), quantity="toa_reflectance"))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([1.0, 2.0, 1.5]),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(1, 9),
)
@pytest.mark.slow
def test_each_grid_pixel_is_kept_once(
    picture: Make, size: tuple[int, int], scale: float, halo: int, overlap: int, hd_num: int
) -> None:
    image = picture(coordinates(*size), bands=("red", "nir"))
    spec = InputSpec(tile=16, halo=halo, bands=("red", "nir"))
    grid = Grid("picture", image.info.size, (scale, scale))
    counts = np.zeros(grid.shape[::-1], dtype=int)
    total = 0.0
    for region in cuts(image, spec, scale=scale, hd_num=hd_num, overlap=overlap):
        view = read_view(image, region, spec)
        rows, columns = core_window(region)
        c, r = region.columns, region.rows
        counts[r.core_start : r.core_stop, c.core_start : c.core_stop] += view.keep_mask[rows, columns]
        assert view.keep_mask.sum() == view.keep_mask[rows, columns].sum()
        total += measure_coverage(view, image.info.placement).valid_px
    assert (counts == 1).all()
    assert total == pytest.approx(size[0] * size[1], rel=1e-12)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-50, 350), st.floats(-50, 350)), min_size=3, max_size=9),
    st.sampled_from([1.0, 2.0, 0.7]),
)
def test_the_roi_mask_equals_a_test_of_each_pixel(points: list[tuple[float, float]], scale: float) -> None:
    area = shapely.make_valid(Polygon(points)).buffer(0)
    grid = Grid("picture", (300, 200), (scale, scale))
    for region in cut_regions(grid, tile=128, hd_num=2):
        c, r = region.columns, region.rows
        x = np.arange(c.core_start, c.core_stop) * scale + scale / 2
        y = np.arange(r.core_start, r.core_stop) * scale + scale / 2
        assert (roi_mask(region, area) == shapely.contains_xy(area, *np.meshgrid(x, y))).all()
        assert roi_mask(region, None).all()


def test_coverage_adds_up_with_a_roi_and_nodata(picture: Make) -> None:
    mask = np.ones((150, 200), dtype=bool)
    mask[:, :40] = False
    image = picture(coordinates(150, 200), bands=("red", "nir"), mask=mask, placement=UTM)
    spec = InputSpec(tile=32, halo=2, bands=("red", "nir"))
    area = box(20, 10, 120, 110)
    parts = [
        measure_coverage(read_view(image, region, spec, roi=area), UTM, area)
        for region in cuts(image, spec, scale=2.0, hd_num=4)
    ]
    assert len(parts) > 3
    assert sum(p.valid_px for p in parts) == 80 * 100
    assert sum(p.invalid_px for p in parts) == 20 * 100
    assert sum(p.outside_px for p in parts) == 150 * 200 - 100 * 100
    m2 = [sum(getattr(p, name) for p in parts) for name in ("valid_m2", "invalid_m2", "outside_m2")]
    assert sum(m2) == pytest.approx(area_m2(box(0, 0, 200, 150), UTM), rel=1e-8)
    assert m2[0] == pytest.approx(area_m2(box(40, 10, 120, 110), UTM), rel=2e-6)


@pytest.mark.parametrize(("pixel", "rel"), [(0.5, 1e-5), (10.0, 1e-5), (300.0, 0.0)])
def test_large_blocks_of_small_pixels_measure_the_same_ground(
    picture: Make, monkeypatch: pytest.MonkeyPatch, pixel: float, rel: float
) -> None:
    """A triangle of Web Mercator at 70° north, where an area changes most with latitude; blocks of 160 m or 16 px."""
    mercator = Placement(((pixel, 0.0, 1e6), (0.0, -pixel, 11e6)), "m", crs=pyproj.CRS(3857).to_wkt())
    image = picture(coordinates(300, 400), bands=("red", "nir"), placement=mercator)
    spec, area = InputSpec(tile=256, bands=("red", "nir")), Polygon([(0, 0), (400, 0), (0, 300)])
    seen = [read_view(image, region, spec, roi=area) for region in cuts(image, spec)]
    large = sum(measure_coverage(view, mercator, area).valid_m2 or 0.0 for view in seen)
    monkeypatch.setattr(views, "WIDE", 16)
    assert large == pytest.approx(sum(measure_coverage(view, mercator, area).valid_m2 or 0.0 for view in seen), rel=rel)


def test_a_partial_pixel_at_the_edge_counts_its_part(picture: Make) -> None:
    image = picture(coordinates(50, 50), bands=("red", "nir"), placement=UTM)
    spec = InputSpec(tile=32, bands=("red", "nir"))
    (region,) = cuts(image, spec, scale=3.0)
    found = measure_coverage(read_view(image, region, spec), UTM)
    assert found.valid_px == pytest.approx(2500, rel=1e-12)
    assert found.valid_m2 == pytest.approx(area_m2(box(0, 0, 50, 50), UTM), rel=1e-9)
    assert (found.invalid_px, found.outside_px) == (0, 0)
    mask = np.ones((50, 50), dtype=bool)
    mask[:, 48:] = False
    (region,) = cuts(image, spec, scale=4.0)
    image = picture(coordinates(50, 50), bands=("red", "nir"), mask=mask, placement=UTM)
    found = measure_coverage(read_view(image, region, spec), UTM)
    assert found.invalid_px == pytest.approx(2 * 50, rel=1e-12)
    assert found.valid_m2 == pytest.approx(area_m2(box(0, 0, 48, 50), UTM), rel=1e-9)


def test_square_metres_follow_latitude_inside_a_region(picture: Make) -> None:
    mask = np.zeros((1000, 300), dtype=bool)
    mask[:333] = True
    image = picture(coordinates(1000, 300), bands=("red", "nir"), mask=mask, placement=DEGREES)
    spec = InputSpec(tile=1000, bands=("red", "nir"))
    (region,) = cuts(image, spec)
    found = measure_coverage(read_view(image, region, spec), DEGREES)
    rows = box_areas_m2(np.array([[0.0, y, 300.0, y + 1.0] for y in range(1000)]), DEGREES)
    assert rows is not None
    assert found.valid_m2 == pytest.approx(rows[:333].sum(), rel=3e-5)
    assert found.invalid_m2 == pytest.approx(rows[333:].sum(), rel=3e-5)
    assert rows[:333].sum() / rows.sum() < 0.3


def test_coverage_without_a_placement_has_no_metres(picture: Make) -> None:
    image = picture(coordinates(20, 20), bands=("red", "nir"))
    spec = InputSpec(tile=32, bands=("red", "nir"))
    (region,) = cuts(image, spec)
    found = measure_coverage(
        read_view(image, region, spec, roi=box(0, 0, 10, 10)), image.info.placement, box(0, 0, 10, 10)
    )
    assert found == Coverage(100, 0, None, None, 300, None)
