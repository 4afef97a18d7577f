"""Regions cover the picture exactly, whatever its size, the tile, the halo, the overlap and the budget."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from limner.readers.errors import RequestError
from limner.readers.regions import Grid, Region, Span, cut_axis, cut_regions, snap_scale, tiles_per_region, whole_scale

plain = settings(deadline=None, derandomize=True, max_examples=300)


@st.composite
def axes(draw: st.DrawFn) -> tuple[int, int, int, int, int]:
    """(length, tile, halo, tiles, margin) of one axis, from one pixel to several regions."""
    tile = draw(st.integers(1, 40))
    halo = draw(st.integers(0, (tile - 1) // 2))
    tiles = draw(st.integers(1, 6))
    full = tiles * (tile - 2 * halo) + 2 * halo
    margin = draw(st.integers(halo, (full - 1) // 2))
    length = draw(st.integers(1, 4 * full))
    return length, tile, halo, tiles, margin


@pytest.mark.slow
@plain
@given(axes())
@example((1, 336, 0, 5, 0))
@example((336, 336, 0, 1, 0))
@example((337, 336, 0, 1, 0))
@example((100, 10, 2, 2, 4))
def test_spans_partition_an_axis_with_margins(axis: tuple[int, int, int, int, int]) -> None:
    length, tile, halo, tiles, margin = axis
    cuts = list(cut_axis(length, tile=tile, halo=halo, tiles=tiles, margin=margin))
    step = tile - 2 * halo
    assert [pixel for s in cuts for pixel in range(s.core_start, s.core_stop)] == list(range(length))
    for span in cuts:
        assert span.stop - span.start == span.tiles * step + 2 * halo
        assert 1 <= span.tiles <= tiles
        assert span.core_start < span.core_stop
        assert span.start <= span.core_start
        assert span.core_stop <= span.stop
        assert span.start < length
        assert span.core_start - span.start >= (margin if span.core_start else halo)
        assert span.stop - span.core_stop >= (margin if span.core_stop < length else halo)
    assert cuts[0].start == -halo
    for before, after in pairwise(cuts):
        assert before.stop - after.start == 2 * margin
        assert before.tiles == tiles
    last = cuts[-1]
    assert last.tiles == 1 or last.stop - step < length + halo, "one tile fewer would do"


@pytest.mark.slow
@plain
@given(axes(), st.integers(0, 90))
def test_a_shift_moves_the_tiles_and_nothing_else(axis: tuple[int, int, int, int, int], shift: int) -> None:
    length, tile, halo, tiles, margin = axis
    cuts = list(cut_axis(length, tile=tile, halo=halo, tiles=tiles, margin=margin, shift=shift))
    assert [pixel for s in cuts for pixel in range(s.core_start, s.core_stop)] == list(range(length))
    for span in cuts:
        assert (span.start + halo + shift) % (tile - 2 * halo) == 0 or margin > halo
        assert span.start <= span.core_start - halo
        assert span.stop >= span.core_stop + halo


def test_a_region_must_be_wider_than_its_overlap() -> None:
    with pytest.raises(RequestError, match="Lower --overlap"):
        list(cut_axis(100, tile=10, halo=0, tiles=2, margin=10))


@plain
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
@example(1, 30, 25)
@example(2, 30, 25)
@example(30, 3, 25)
@pytest.mark.slow
def test_tiles_per_region_uses_the_budget(columns: int, rows: int, hd_num: int) -> None:
    wide, high = tiles_per_region(columns, rows, hd_num)
    assert 1 <= wide <= columns
    assert 1 <= high <= rows
    assert wide * high <= hd_num
    assert wide == columns or (wide + 1) * high > hd_num, "another column would fit"
    assert high == rows or wide * (high + 1) > hd_num, "another row would fit"


@st.composite
def plans(draw: st.DrawFn) -> tuple[Grid, dict[str, int], list[Region]]:
    """A grid at native or another scale, how it is cut, and its regions."""
    scale = st.one_of(st.just(1.0), st.sampled_from([0.5, 1 / 3, 2.0, 3.0]), st.floats(0.2, 5.0), st.floats(0.97, 1.03))
    grid = Grid("scene", (draw(st.integers(1, 120)), draw(st.integers(1, 120))), (draw(scale), draw(scale)))
    tile = draw(st.integers(3, 40))
    how = {
        "tile": tile,
        "halo": draw(st.integers(0, (tile - 1) // 2)),
        "overlap": draw(st.integers(0, 20)),
        "hd_num": draw(st.integers(1, 30)),
    }
    try:
        return grid, how, cut_regions(grid, **how)
    except RequestError:  # an overlap too wide for the budget has its own test
        assume(False)
        raise


@pytest.mark.slow
@plain
@given(plans())
def test_cores_cover_every_grid_pixel_once(plan: tuple[Grid, dict[str, int], list[Region]]) -> None:
    grid, how, regions = plan
    width, height = grid.shape
    owned = Counter(
        (x, y)
        for region in regions
        for x in range(region.columns.core_start, region.columns.core_stop)
        for y in range(region.rows.core_start, region.rows.core_stop)
    )
    assert set(owned) == {(x, y) for x in range(width) for y in range(height)}
    assert set(owned.values()) == {1}
    for region in regions:
        assert region.tiles[0] * region.tiles[1] <= how["hd_num"]
        for observed, tiles in zip(region.size, region.tiles, strict=True):
            assert observed == tiles * (how["tile"] - 2 * how["halo"]) + 2 * how["halo"]


@pytest.mark.slow
@plain
@given(plans())
def test_every_pixel_of_a_core_has_its_halo_and_its_overlap(plan: tuple[Grid, dict[str, int], list[Region]]) -> None:
    grid, how, regions = plan
    for region in regions:
        for span, length in zip((region.columns, region.rows), grid.shape, strict=True):
            room = max(how["halo"], ceil(how["overlap"] / 2))
            before, after = span.core_start - span.start, span.stop - span.core_stop
            left = min(how["halo"], (how["tile"] - length) // 2)  # of tiles below 64 px
            assert before >= (room if span.core_start else left)
            assert after >= (room if span.core_stop < length else left)
            assert length <= how["tile"] or min(before, after) >= how["halo"], "as much context at all four sides"
            assert length > how["tile"] or span.tiles == 1


@pytest.mark.slow
@plain
@given(plans())
def test_cores_tile_the_image_in_level0_pixels(plan: tuple[Grid, dict[str, int], list[Region]]) -> None:
    grid, _, regions = plan
    width, height = grid.size
    cores = [region.core for region in regions]
    area = sum((Fraction(c.x1) - Fraction(c.x0)) * (Fraction(c.y1) - Fraction(c.y0)) for c in cores)
    assert area == width * height, "exact, in rational numbers: nothing lost, nothing twice"
    for region, core in zip(regions, cores, strict=True):
        observed = region.box
        assert 0 <= core.x0 < core.x1 <= width
        assert 0 <= core.y0 < core.y1 <= height
        assert observed.x0 <= core.x0
        assert observed.y0 <= core.y0
        assert core.x1 <= observed.x1 * (1 + 1e-9)
        assert core.y1 <= observed.y1 * (1 + 1e-9)
        assert observed.x0 < width
        assert observed.y0 < height


@pytest.mark.slow
@plain
@given(plans())
def test_neighbours_share_the_same_border(plan: tuple[Grid, dict[str, int], list[Region]]) -> None:
    grid, _, regions = plan
    left = {(r.columns.core_start, r.rows.core_start): r.core for r in regions}
    for region in regions:
        if region.columns.core_stop < grid.shape[0]:
            assert left[region.columns.core_stop, region.rows.core_start].x0 == region.core.x1
        if region.rows.core_stop < grid.shape[1]:
            assert left[region.columns.core_start, region.rows.core_stop].y0 == region.core.y1


@pytest.mark.slow
@plain
@given(plans())
def test_keys_are_unique_positions(plan: tuple[Grid, dict[str, int], list[Region]]) -> None:
    _, _, regions = plan
    assert len({region.key for region in regions}) == len(regions)
    assert all(region.key.startswith("scene/x") for region in regions)


@plain
@given(st.integers(1, 10**7), st.one_of(st.floats(0.01, 100.0), st.sampled_from([1 / 3, 0.1, 0.7, 3.0, 1.1])))
@example(10980, 10980 / 3660)
@example(3, 0.1)
@pytest.mark.slow
def test_a_grid_covers_the_image_without_empty_columns(length: int, scale: float) -> None:
    columns, _ = Grid("scene", (length, 1), (scale, 1.0)).shape
    assert (columns - 1) * scale < length
    assert columns * scale >= length * (1 - 1e-9) - 1e-9 * scale


def test_hd_num_25_cuts_a_sentinel_scene_into_squares_of_1680_px() -> None:
    regions = cut_regions(Grid("s2", (10980, 10980), (1.0, 1.0)), tile=336, hd_num=25)
    assert len(regions) == 49
    assert regions[0].size == (1680, 1680)
    assert regions[-1].tiles == (3, 3)
    assert regions[0].key == "s2/x0y0w1680h1680"


def test_a_narrow_image_gets_long_regions() -> None:
    (region,) = cut_regions(Grid("strip", (300, 8000), (1.0, 1.0)), tile=336, hd_num=25)
    assert region.tiles == (1, 24)


@pytest.mark.parametrize(
    "how",
    [{"tile": 10, "halo": 5}, {"tile": 10, "overlap": -1}, {"tile": 10, "hd_num": 0}, {"tile": 10, "overlap": 100}],
)
def test_impossible_tiles_are_refused(how: dict[str, int]) -> None:
    with pytest.raises(RequestError):
        cut_regions(Grid("scene", (5000, 5000), (1.0, 1.0)), **{"hd_num": 4} | how)


@pytest.mark.parametrize(
    ("wanted", "actual", "scale"),
    [
        (10.0, (10.0, 10.0), (1.0, 1.0)),
        (10.0, (10.004, 9.996), (1.0, 1.0)),
        (30.0, (10.004, 10.004), (3.0, 3.0)),
        (5.0, (10.004, 10.004), (0.5, 0.5)),
        (20.0, (10.0, 60.0), (2.0, 1 / 3)),
        (15.0, (10.0, 10.0), (1.5, 1.5)),
        (10.0, (10.3, 10.0), (10.0 / 10.3, 1.0)),
    ],
)
def test_a_scale_near_a_whole_factor_is_snapped(
    wanted: float, actual: tuple[float, float], scale: tuple[float, float]
) -> None:
    assert snap_scale(wanted, actual) == scale


@plain
@given(st.floats(0.001, 1000.0), st.floats(0.001, 1000.0))
def test_a_snapped_scale_is_never_far_off(wanted: float, actual: float) -> None:
    (scale, _) = snap_scale(wanted, (actual, actual))
    exact = wanted / actual
    whole = scale if scale >= 1 else 1 / scale
    assert scale == exact or (abs(exact / scale - 1) <= 0.02 and whole == pytest.approx(round(whole), rel=1e-12))


@pytest.mark.parametrize("wanted", [0.0, -1.0, float("nan"), float("inf")])
def test_a_resolution_must_be_positive(wanted: float) -> None:
    with pytest.raises(RequestError, match="positive"):
        snap_scale(wanted, (10.0, 10.0))


def test_the_last_core_ends_with_the_image() -> None:
    grid = Grid("scene", (7, 7), (7 / (3 + 5e-10), 7 / (3 + 5e-10)))
    assert grid.shape == (3, 3)
    assert cut_regions(grid, tile=2)[-1].core.x1 == 7.0


@pytest.mark.parametrize(("length", "start"), [(256, 0), (250, -3), (193, -31), (190, -32), (140, -32), (120, -48)])
def test_a_picture_no_larger_than_a_tile_lies_in_its_middle(length: int, start: int) -> None:
    """In step with what networks pool where there is room for it; a halo is enough."""
    (region,) = cut_regions(Grid("p", (length, 600), (1.0, 1.0)), tile=256, halo=48, hd_num=99)
    assert region.columns == Span(start, start + 256, 0, length, 1)
    assert region.rows.start == -48


def test_a_span_of_one_pixel() -> None:
    assert list(cut_axis(1, tile=336, halo=0, tiles=5, margin=0)) == [Span(0, 336, 0, 1, 1)]


@pytest.mark.slow
@pytest.mark.parametrize(("size", "overlap"), [((10**12, 10**12), 0), ((10**9, 1), 0), ((60_000, 60_000), 330)])
def test_the_number_of_regions_is_limited(size: tuple[int, int], overlap: int) -> None:
    with pytest.raises(RequestError, match="at most 1000000 regions"):
        cut_regions(Grid("image", size, (1.0, 1.0)), tile=336, overlap=overlap, hd_num=1)


@pytest.mark.parametrize(("size", "scale"), [((0, 5), (1.0, 1.0)), ((5, 5), (0.0, 1.0)), ((5, 5), (1.0, float("nan")))])
def test_an_empty_grid_is_refused(size: tuple[int, int], scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Grid("image", size, scale)


@pytest.mark.slow
@plain
@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.floats(0.2, 5.0),
    st.integers(1, 65),
    st.sampled_from([(32, 0), (336, 0), (256, 32)]),
)
@example(512, 512, 1.0, 1, (336, 0))
@example(1841, 1955, 1.0, 25, (32, 0))
def test_a_whole_image_is_one_region_at_the_finest_scale_that_fits(
    width: int, height: int, aspect: float, hd_num: int, cut: tuple[int, int]
) -> None:
    tile, halo = cut
    scale = whole_scale((width, height), (1.0, aspect), tile=tile, halo=halo, hd_num=hd_num)
    assert min(scale[0], scale[1] * aspect) >= min(1.0, aspect) * (1 - 1e-12)
    assert scale[0] == pytest.approx(scale[1] * aspect)
    grid = Grid("a", (width, height), scale)
    (region,) = cut_regions(grid, tile=tile, halo=halo, hd_num=hd_num)
    assert region.tiles[0] * region.tiles[1] <= hd_num
    if scale[0] > min(1.0, aspect) * 1.05:
        finer = Grid("a", (width, height), (scale[0] * 0.98, scale[1] * 0.98))
        cols, rows = ((1 if side <= tile else ceil(side / (tile - 2 * halo))) for side in finer.shape)
        assert cols * rows > hd_num or finer.shape == grid.shape
