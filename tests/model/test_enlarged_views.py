"""Views that are enlarged to fill their tiles: the released transform's pixels, each still once and in place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.annotator import Answer, InputSpec
from limner.model.tiling import TileGrid, cut_tiles, join_tiles, place_on_canvas
from limner.model.views import (
    core_window,
    measure_coverage,
    read_view,
    to_image_coordinates,
    to_region_mask,
    valid_share,
)
from limner.readers.image import Image as OpenImage
from limner.readers.regions import Grid, Region, cut_regions
from limner.readers.render import Stretch
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "4khd"
HD_NUM = {"A": 6, "B": 4, "C": 1}
PLAIN = Stretch(("b0", "b1", "b2"), (0.0,) * 3, (255.0,) * 3, "as it is")
Make = Callable[..., OpenImage]


def regions(size: tuple[int, int], tile: int, hd_num: int, overlap: int = 0) -> list[Region]:
    return cut_regions(Grid("picture", size, (1.0, 1.0)), tile=tile, hd_num=hd_num, overlap=overlap)


@pytest.mark.parametrize("name", sorted(HD_NUM))
def test_an_enlarged_view_equals_the_reference_canvas(picture: Make, name: str) -> None:
    source = np.asarray(Image.open(GOLDEN / f"{name}_source_rgb.png").convert("RGB"))
    expected = np.asarray(Image.open(GOLDEN / f"{name}_hd_rgb.png").convert("RGB"))
    image = picture(source, bands=("red", "green", "blue"))
    [region] = regions(image.info.size, 336, HD_NUM[name])
    view = read_view(image, region, InputSpec(tile=336, overall=True, enlarge=HD_NUM[name]), stretch=PLAIN)
    canvas = join_tiles(view.tiles, view.grid)
    assert np.abs(canvas.astype(int) - expected).max() <= (0 if Image.__version__.startswith("13.") else 1)
    assert (view.keep_mask == (np.asarray(view.valid).any() & join_tiles(view.valid, view.grid))).all()
    assert valid_share(view) == 1
    plain = read_view(image, region, InputSpec(tile=336, overall=True), stretch=PLAIN)
    assert plain.grid.size == (336, 336)  # unasked, nothing is enlarged
    assert (plain.tiles[0][: source.shape[0], : source.shape[1]] == source).all()


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(1, 12),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
)
def test_each_pixel_of_an_enlarged_view_counts_once(
    picture: Make, size: tuple[int, int], hd_num: int, overlap: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(size) < 0.7
    image = picture(np.zeros((*size, 3), dtype=np.uint8), bands=("red", "green", "blue"), mask=mask)
    area = shapely.box(0, 0, size[1] * 0.6, size[0] * 0.8)
    found = np.zeros(size, dtype=int)
    whole = 0.0
    for region in regions(image.info.size, 16, hd_num, overlap):
        view = read_view(image, region, InputSpec(tile=16, overall=True, enlarge=hd_num), stretch=PLAIN, roi=area)
        assert view.grid.cols * view.grid.rows <= hd_num
        rows, columns = core_window(region)
        kept = to_region_mask(view.keep_mask, view)
        c, r = region.columns, region.rows
        found[r.core_start : r.core_stop, c.core_start : c.core_stop] += kept[rows, columns]
        assert kept.sum() == kept[rows, columns].sum()
        coverage = measure_coverage(view, image.info.placement, area)
        whole += coverage.valid_px + coverage.invalid_px + coverage.outside_px
        assert coverage.valid_px == pytest.approx(kept.sum(), rel=1e-12)
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    assert (found == (mask & shapely.contains_xy(area, x, y))).all()
    assert whole == pytest.approx(size[0] * size[1], rel=1e-12)


@pytest.mark.parametrize("size", [(200, 130), (90, 160), (33, 33), (700, 300)])
def test_boxes_on_an_enlarged_canvas_map_back_to_the_picture(picture: Make, size: tuple[int, int]) -> None:
    width, height = size
    image = picture(np.zeros((height, width, 3), dtype=np.uint8), bands=("red", "green", "blue"))
    for region in regions(size, 56, 9):
        view = read_view(image, region, InputSpec(tile=56, overall=True, enlarge=9), stretch=PLAIN)
        core = region.core
        corners = np.array([[core.x0 + 1.25, core.y0 + 2.5], [core.x1 - 1.5, core.y1 - 0.75]])
        canvas = view.grid.to_canvas(corners - (region.columns.start, region.rows.start))
        observed = Answer("thing", shapely.box(*canvas[0], *canvas[1]), "box")
        assert to_image_coordinates([observed], view)[0].geometry.bounds == pytest.approx(
            tuple(corners.ravel()), abs=1e-9
        )


def test_tiles_join_to_the_canvas_they_were_cut_from() -> None:
    canvas = np.random.default_rng(2).integers(0, 256, (112, 168, 3), dtype=np.uint8)
    for grid in (TileGrid.exact(3, 2, tile=56), TileGrid.exact(5, 3, tile=40, overlap=8)):
        fitting = canvas[: grid.size[1], : grid.size[0]]
        assert (join_tiles(cut_tiles(fitting, grid), grid) == fitting).all()
    assert place_on_canvas(canvas, TileGrid.exact(3, 2, tile=56)) is canvas
