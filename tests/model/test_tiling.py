"""The 4KHD tiler against the reference's numbers and pixels, and its own inverse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.tiling import (
    CanvasTiles,
    TileGrid,
    cut_tiles,
    join_tiles,
    place_on_canvas,
    sample_tiles,
    squash_to_tile,
)
from limner.readers.errors import RequestError
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden" / "4khd"
ROWS = json.loads((GOLDEN / "hd_transform_cases.json").read_text(encoding="utf-8"))
HD_NUM = {"A": 6, "B": 4, "C": 1}
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def golden_rgb(name: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(GOLDEN / f"{name}.png").convert("RGB"))


@pytest.mark.parametrize(
    "row", ROWS["cases"] + ROWS["edge_cases"], ids=lambda r: f"{r['width']}x{r['height']}@{r['hd_num']}"
)
def test_grids_equal_every_row_of_the_reference(row: dict[str, Any]) -> None:
    if "error" in row:
        with pytest.raises(RequestError, match=r"hd-num|long side"):
            TileGrid.fit(row["width"], row["height"], hd_num=row["hd_num"])
        return
    grid = TileGrid.fit(row["width"], row["height"], hd_num=row["hd_num"])
    left, top = row["pad_left"], row["pad_top"]
    assert grid.size == (row["out_width"], row["out_height"])
    assert grid.content == (left, top, left + row["resized_width"], top + row["resized_height"])
    assert grid.size == (grid.content[2] + row["pad_right"], grid.content[3] + row["pad_bottom"])
    assert (grid.cols, grid.rows) == (row["grid_cols"], row["grid_rows"])
    assert len(grid.boxes()) == row["num_local_tiles"]
    assert grid.tokens == row["num_visual_tokens"]


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match="must have pixels"):
        TileGrid.fit(*size, hd_num=4)


def test_pictures_that_the_reference_refuses() -> None:
    assert len(ROWS["cases"]) == 156
    assert len(ROWS["edge_cases"]) == 60
    assert any("error" in row for row in ROWS["edge_cases"])


@pytest.mark.parametrize("name", sorted(HD_NUM))
def test_the_canvas_equals_the_reference_pixel_for_pixel(name: str) -> None:
    source, expected = golden_rgb(f"{name}_source_rgb"), golden_rgb(f"{name}_hd_rgb")
    canvas = place_on_canvas(source, TileGrid.fit(source.shape[1], source.shape[0], hd_num=HD_NUM[name]))
    assert canvas.shape == expected.shape
    assert np.abs(canvas.astype(int) - expected).max() <= (0 if Image.__version__.startswith("13.") else 1)


@pytest.mark.parametrize("name", sorted(HD_NUM))
def test_global_view_and_tiles_equal_the_reference(name: str) -> None:
    golden = np.load(GOLDEN / "views.npz")
    canvas = (((golden_rgb(f"{name}_hd_rgb") / np.float32(255)) - MEAN) / STD).astype(np.float32)
    source = golden_rgb(f"{name}_source_rgb")
    grid = TileGrid.fit(source.shape[1], source.shape[0], hd_num=HD_NUM[name])
    view = squash_to_tile(canvas)
    assert view.shape == (336, 336, 3)
    assert np.abs(view[::8, ::8].transpose(2, 0, 1) - golden[f"{name}_global_view_sub8"]).max() < 1e-4
    means = np.concatenate([view[None], cut_tiles(canvas, grid)]).mean(axis=(1, 2), dtype=np.float64)
    assert np.abs(means - golden[f"{name}_tile_channel_means"]).max() < 1e-4


def test_the_global_view_can_be_normalised_before_or_after() -> None:
    canvas = golden_rgb("A_hd_rgb").astype(np.float32)
    after = (squash_to_tile(canvas) / 255 - MEAN) / STD
    assert np.abs(after - squash_to_tile(((canvas / 255 - MEAN) / STD).astype(np.float32))).max() < 1e-4


def test_a_picture_that_fills_its_tiles_is_not_resampled() -> None:
    grid = TileGrid.exact(2, 1)
    source = np.random.default_rng(1).integers(0, 256, size=(336, 672, 3), dtype=np.uint8)
    assert place_on_canvas(source, grid) is source
    assert TileGrid.fit(672, 336, hd_num=2) == grid
    with pytest.raises(ValueError, match="source"):
        place_on_canvas(source[1:], grid)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.integers(1, 60),
    st.lists(st.tuples(st.floats(-2, 3), st.floats(-2, 3)), min_size=1, max_size=5),
)
def test_fitting_is_invertible(width: int, height: int, hd_num: int, points: list[tuple[float, float]]) -> None:
    if max(width, height) > min(width, height) * hd_num:
        return
    grid = TileGrid.fit(width, height, hd_num=hd_num)
    region_xy = np.array(points) * (width, height)
    assert np.allclose(grid.to_region(grid.to_canvas(region_xy)), region_xy, rtol=1e-12, atol=1e-8)
    corners = grid.to_canvas([[0, 0], [width, height]])
    assert np.allclose(corners.ravel(), grid.content, atol=1e-9)
    assert grid.cols * grid.rows <= hd_num
    assert 0 <= grid.content[0] < grid.content[2] <= grid.size[0]
    assert 0 <= grid.content[1] < grid.content[3] <= grid.size[1]


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 24), st.data())
def test_tiles_and_cores_cover_the_canvas(cols: int, rows: int, tile: int, data: st.DataObject) -> None:
    grid = TileGrid.exact(cols, rows, tile=tile, overlap=data.draw(st.integers(0, tile - 1)))
    observed = np.zeros(grid.size[::-1], dtype=int)
    owned = np.zeros_like(observed)
    for (x0, y0, x1, y1), (a, b, c, d) in zip(grid.boxes(), grid.core_boxes(), strict=True):
        assert (x1 - x0, y1 - y0) == (tile, tile)
        assert x0 <= a < c <= x1
        assert y0 <= b < d <= y1
        observed[y0:y1, x0:x1] += 1
        owned[b:d, a:c] += 1
    assert (owned == 1).all()
    assert (observed >= 1).all()
    if grid.overlap == 0:
        assert (observed == 1).all()
        assert grid.core_boxes() == grid.boxes()


def test_cores_meet_in_the_middle_of_the_overlap() -> None:
    grid = TileGrid.exact(3, 2, tile=16, overlap=6)
    assert grid.core_boxes()[:3] == [(0, 0, 13, 13), (13, 0, 23, 13), (23, 0, 36, 13)]
    assert grid.core_boxes()[3] == (0, 13, 13, 26)


def test_tiles_hold_the_canvas_in_their_boxes() -> None:
    grid = TileGrid.exact(3, 2, tile=16, overlap=4)
    y, x = np.mgrid[: grid.size[1], : grid.size[0]]
    tiles = cut_tiles(np.stack([x, y], axis=2), grid)
    assert [tuple(tile[0, 0]) for tile in tiles] == [box[:2] for box in grid.boxes()]
    assert join_tiles(tiles, grid).shape == (28, 40, 2)
    assert (join_tiles(tiles, grid) == np.stack([x, y], axis=2)).all()
    with pytest.raises(ValueError, match="does not fit"):
        cut_tiles(np.zeros((4, 4)), grid)


def test_tokens_are_of_whole_patches() -> None:
    grid = TileGrid.exact(2, 1, tile=300)
    assert grid.tokens == 3 * 10 * 10 + 1 + 2 * 10, "300 px hold 21 patches of 14, of which ten pairs are merged"


def test_tiles_of_a_canvas_are_copies_of_its_parts() -> None:
    canvas = np.random.default_rng(3).integers(0, 256, (7, 10, 3), dtype=np.uint8)
    grid = TileGrid.exact(3, 2, tile=4, overlap=1)
    assert grid.size == grid.source == grid.content[2:] == (10, 7)
    tiles = CanvasTiles(canvas, grid)
    assert (tiles.shape, tiles.dtype, len(tiles)) == ((6, 4, 4, 3), np.uint8, 6)
    assert (np.asarray(tiles) == cut_tiles(canvas, grid)).all()
    assert (tiles[1:5, 2] == cut_tiles(canvas, grid)[1:5, 2]).all()
    assert (tiles.whole == canvas).all()
    assert (join_tiles(tiles, grid) == canvas).all()
    assert np.asarray(tiles, dtype=np.float32).dtype == np.float32
    assert np.array_equal(sample_tiles(tiles, 3), canvas[::3, ::3])
    assert np.array_equal(sample_tiles(cut_tiles(canvas, grid), 3), cut_tiles(canvas, grid)[:, ::3, ::3])
    valid = canvas[..., 0] > 100
    converted = CanvasTiles(canvas, grid, lambda part, mask: np.where(mask[..., None], part / 2, np.nan), valid)
    assert converted.dtype == np.float64
    assert np.array_equal(converted[4], np.where(valid[3:7, 3:7, None], canvas[3:7, 3:7] / 2, np.nan), equal_nan=True)
    for mine in (tiles[5], tiles.whole):
        mine[...] = 0
    assert (tiles[5] == canvas[3:7, 6:10]).all()
    assert canvas.any()
