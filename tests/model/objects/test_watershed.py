"""Instances: objects partition their areas, and are the same wherever regions and the picture's origin are."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.annotator import Answer, InputSpec, View
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.model.findings_table import FindingsTable
from limner.model.merging import merge_chunks
from limner.model.objects import watershed as module
from limner.model.objects.outlines import follow_pixels
from limner.model.objects.watershed import PERIMETER, split, watershed
from limner.model.tiling import TileGrid
from limner.model.views import core_window, to_image_coordinates
from limner.readers.regions import Grid, Region, cut_regions

Mask = npt.NDArray[np.bool_]


def discs(seed: int, shape: tuple[int, int], count: int, largest: float = 7.0) -> Mask:
    """A mask of discs, many of which touch."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    mask = np.zeros(shape, dtype=np.bool_)
    for cx, cy, r in rng.uniform((0, 0, 1), (shape[1], shape[0], largest), (count, 3)).tolist():
        mask |= (x - cx) ** 2 + (y - cy) ** 2 < r * r
    return mask


def traced(region: Region, mask: Mask) -> list[Finding]:
    """What a perfect annotator finds in the core of a region."""
    width, height = region.size
    canvas = np.zeros((height, width), dtype=np.bool_)
    x0, y0 = region.columns.start, region.rows.start
    part = mask[y0 : y0 + height, x0 : x0 + width]
    canvas[: part.shape[0], : part.shape[1]] = part
    keep = np.zeros_like(canvas)
    keep[core_window(region)] = canvas[core_window(region)]
    tiles = TileGrid.exact(*region.tiles, tile=16)
    view = View(region, InputSpec(16), tiles, np.zeros((0,)), np.zeros((0,), np.bool_), keep)
    found = polygonise(keep.astype(np.uint8), np.full(keep.shape, 0.5, np.float32), keep)
    return [
        to_image_coordinates([Answer("n", one.polygon, "area", 0.5, numbers={"pixels": float(one.pixels)})], view)[0]
        for one in found
    ]


def instances(grid: Grid, mask: Mask, hd_num: int) -> FindingsTable:
    """The instances of a mask that is cut into regions."""
    found = [one for region in cut_regions(grid, tile=16, hd_num=hd_num) for one in traced(region, mask)]
    merged = merge_chunks([FindingsTable.of(found)])[:]
    return split(merged, np.ones(len(merged), np.bool_), grid)[0]


def facts(table: FindingsTable, shift: tuple[float, float] = (0.0, 0.0)) -> Counter[tuple[object, ...]]:
    moved = shapely.normalize(shapely.transform(table.geometries, lambda xy: xy - shift))
    perimeters = np.round(table.numbers[PERIMETER], 9).tolist()
    return Counter(zip(shapely.to_wkb(moved).tolist(), table.numbers["pixels"].tolist(), perimeters, strict=True))


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.sampled_from([1.0, 2.0, 4.0, 0.5]),
    st.integers(1, 9),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
    st.integers(0, 2**32 - 1),
)
def test_objects_do_not_depend_on_regions_or_the_origin(
    shape: tuple[int, int], scale: float, hd_num: int, origin: tuple[int, int], seed: int
) -> None:
    mask = discs(seed, shape, 25)
    mask[0] = mask[-1] = False
    mask[:, 0] = mask[:, -1] = False
    size = round(shape[1] * scale), round(shape[0] * scale)
    if (size[0] / scale, size[1] / scale) != (shape[1], shape[0]):
        return
    found = facts(instances(Grid("a", size, (scale, scale)), mask, hd_num))
    assert found == facts(instances(Grid("a", size, (scale, scale)), mask, 1000))
    moved = np.pad(mask, ((origin[1], 3), (origin[0], 5)))
    larger = round(moved.shape[1] * scale), round(moved.shape[0] * scale)
    if (larger[0] / scale, larger[1] / scale) == (moved.shape[1], moved.shape[0]):
        elsewhere = instances(Grid("a", larger, (scale, scale)), moved, hd_num)
        assert found == facts(elsewhere, (origin[0] * scale, origin[1] * scale))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1.0))
def test_objects_partition_their_areas(seed: int, neck: float) -> None:
    mask, grid = discs(seed, (70, 80), 40), Grid("a", (160, 140), (2.0, 2.0))
    whole = cut_regions(grid, tile=16, hd_num=1000)
    table = FindingsTable.of(traced(whole[0], mask))
    made, large = split(table, np.ones(len(table), np.bool_), grid, neck)
    assert not large.any()
    assert made.numbers["pixels"].sum() == mask.sum()
    assert shapely.is_valid(made.geometries).all()
    assert (shapely.area(made.geometries) == 4 * made.numbers["pixels"]).all()
    union = shapely.union_all(made.geometries)
    assert union.area == 4 * mask.sum()  # so none overlap
    assert union.symmetric_difference(shapely.union_all(table.geometries)).area == 0


def pair(gap: int, radius: float = 8.0) -> Mask:
    """Two discs whose centres are `gap` pixels apart."""
    y, x = np.mgrid[:40, :60] + 0.5
    return ((x - 20) ** 2 + (y - 20) ** 2 < radius**2) | ((x - 20 - gap) ** 2 + (y - 20) ** 2 < radius**2)


def test_a_narrow_neck_parts_objects_and_a_wide_one_does_not() -> None:
    for gap, parts in ((8, 1), (15, 2)):
        objects, owner = watershed(np.pad(pair(gap), 1).astype(np.int32), 0.75)
        assert objects.max() == len(owner) == parts, gap
    objects, _ = watershed(np.pad(pair(15), 1).astype(np.int32), 0.1)
    assert objects.max() == 1
    left, right = np.unique(objects[objects > 0], return_counts=True)[1].tolist() * 2
    assert left == right


def test_the_halves_of_a_symmetric_pair_are_equal() -> None:
    objects, _ = watershed(np.pad(pair(16), 1).astype(np.int32), 0.75)
    sizes = np.bincount(objects[objects > 0])[1:]
    assert len(sizes) == 2
    assert abs(int(sizes[0]) - int(sizes[1])) <= 16  # one column, which belongs to one of them


def test_the_perimeter_of_a_disc_is_that_of_a_circle() -> None:
    for radius in (6.0, 12.3, 40.0):
        y, x = np.mgrid[:100, :100] + 0.5
        mask = (x - 50) ** 2 + (y - 50) ** 2 < radius**2
        grid = Grid("a", (100, 100), (1.0, 1.0))
        table = FindingsTable.of(traced(cut_regions(grid, tile=16, hd_num=1000)[0], mask))
        made, _ = split(table, np.ones(1, np.bool_), grid)
        assert made.numbers[PERIMETER][0] == pytest.approx(2 * np.pi * radius, rel=0.03)


def test_amounts_are_shared_out_and_other_findings_stay() -> None:
    grid = Grid("a", (60, 40), (1.0, 1.0))
    [area] = traced(cut_regions(grid, tile=16, hd_num=1000)[0], pair(15))
    area = Finding("n", area.geometry, "area", 0.5, numbers={"pixels": area.numbers["pixels"], "mass": 10.0})
    box = Finding("b", shapely.box(0, 0, 5, 5), "box", 0.9)
    made, _ = split(FindingsTable.of([box, area]), np.array([False, True]), grid)
    assert made.label.tolist() == ["b", "n", "n"]
    assert made.numbers["mass"][1:].sum() == pytest.approx(10.0)
    assert made[0] == box


def test_an_area_that_is_too_large_stays_whole_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 500)
    grid = Grid("a", (60, 40), (1.0, 1.0))
    table = FindingsTable.of(traced(cut_regions(grid, tile=16, hd_num=1000)[0], pair(15)))
    made, large = split(table, np.ones(1, np.bool_), grid)
    assert large.tolist() == [True]
    assert len(made) == 1
    assert made.numbers[PERIMETER][0] > 0


def test_outlines_that_do_not_follow_pixels_stay_as_they_are() -> None:
    grid = Grid("a", (60, 40), (1.0, 1.0))
    [area] = traced(cut_regions(grid, tile=16, hd_num=1000)[0], pair(15))
    slanted = shapely.Polygon([(0, 0), (4, 1), (4, 5), (0, 4)])
    between = shapely.box(10.5, 0, 12.5, 2)
    ring = shapely.box(30, 30, 36, 36).difference(shapely.box(32, 32, 33, 33))
    shapes = [slanted, between, shapely.MultiPolygon([shapely.box(0, 30, 1, 31), shapely.box(3, 30, 4, 31)]), ring]
    table = FindingsTable.of([area, *(Finding("n", one, "area", 0.5) for one in shapes)])
    assert follow_pixels(table.geometries, grid).tolist() == [True, False, False, False, True]
    made, _ = split(table, np.ones(len(table), np.bool_), grid)
    assert [one.equals(other) for one, other in zip(made.geometries[:3], shapes, strict=False)] == [True] * 3
    assert len(made) == 6
