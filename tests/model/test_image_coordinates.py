"""The lift: canvas pixels to level-0 pixels, the same bits from both sides of a seam."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.annotator import Answer, InputSpec, View
from limner.model.finding import Finding
from limner.model.tiling import TileGrid
from limner.model.views import to_image_coordinates
from limner.readers.errors import ModelError
from limner.readers.regions import Grid, Region, cut_regions
from shapely.geometry import box


def view(region: Region, grid: TileGrid | None = None) -> View:
    """An empty view: converting coordinates reads no pixel."""
    exact = TileGrid.exact(*region.tiles, tile=region.size[0] // region.tiles[0])
    return View(
        region, InputSpec(10), grid or exact, np.zeros((0,)), np.zeros((0,), np.bool_), np.zeros((0,), np.bool_)
    )


def regions(size: tuple[int, int], scale: float, *, overlap: int = 0) -> list[Region]:
    return cut_regions(Grid("picture", size, (scale, scale)), tile=10, hd_num=4, overlap=overlap)


def on(region: Region, *canvas: float, kind: str = "area") -> Finding:
    return to_image_coordinates([Answer("a", box(*canvas), kind, 0.5)], view(region))[0]  # pyright: ignore[reportArgumentType] - a test


def test_a_box_is_mapped_to_level_0() -> None:
    first, second = regions((60, 40), 2.0)
    assert on(first, 3, 4, 5, 6).geometry.equals(box(6, 8, 10, 12))
    assert on(second, 3, 4, 5, 6).geometry.equals(box(46, 8, 50, 12))


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.floats(0.3, 20), st.integers(50, 3000), st.integers(0, 3))
def test_neighbouring_regions_share_their_border_bit_for_bit(scale: float, width: int, overlap: int) -> None:
    row = [region for region in regions((width, 40), scale, overlap=overlap) if region.rows.start == 0]
    for left, right in pairwise(row):
        stop = left.columns.core_stop
        one = on(left, 0, 0, stop - left.columns.start, 5)
        other = on(right, stop - right.columns.start, 0, right.size[0], 5)
        assert one.geometry.bounds[2] == other.geometry.bounds[0]
        assert one.cut
        assert other.cut
    last = row[-1]
    assert on(last, 0, 0, *last.size).geometry.bounds[2] == width


def test_cut_is_set_only_at_an_inner_border() -> None:
    first, second = regions((25, 12), 1.0)
    assert (first.columns.core_stop, second.columns.core_start) == (20, 20)
    assert not on(first, 0, 0, 19, 12).cut
    assert on(first, 0, 0, 20, 12).cut
    assert not on(second, 1, 0, 5, 12).cut
    assert on(second, 0, 0, 1, 1).cut


def test_geometries_are_clipped_to_the_picture() -> None:
    second = regions((25, 12), 1.0)[1]
    assert on(second, 2, 3, 10, 20, kind="box").geometry.equals(box(22, 3, 25, 12))
    with pytest.raises(ModelError, match="on the picture"):
        on(second, 6, 3, 10, 5)


def test_the_last_grid_line_is_the_pictures_border_at_any_scale() -> None:
    scale = 10 * (1 - 1e-11)
    (region,) = cut_regions(Grid("picture", (30, 30), (scale, scale)), tile=3)
    assert 3 * scale < 30
    assert on(region, 0, 0, 3, 3).geometry.bounds == (0, 0, 30, 30)


def test_an_answer_without_geometry_covers_the_core() -> None:
    second = regions((25, 12), 1.0, overlap=4)[1]
    found = to_image_coordinates(
        [Answer("sea", None, "region", None, text="water", notes={"why": "blue"})], view(second)
    )[0]
    core = second.core
    assert found.geometry.equals(box(core.x0, core.y0, core.x1, core.y1))
    assert (found.label, found.kind, found.score, found.text) == ("sea", "region", None, "water")
    assert found.notes == {"why": "blue"}
    assert not found.cut


def test_coordinates_of_a_resampled_canvas() -> None:
    (region,) = regions((20, 10), 1.0)
    grid = TileGrid.fit(20, 10, hd_num=6)
    answer = Answer("a", box(*grid.to_canvas([[2, 3], [5, 7]]).ravel()[:4].tolist()), "box", None)
    assert to_image_coordinates([answer], view(region, grid))[0].geometry.bounds == pytest.approx(
        (2, 3, 5, 7), abs=1e-9
    )
