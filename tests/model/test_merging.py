"""Merging areas across region borders: the result equals that of one large region."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.annotator import Answer, InputSpec, View
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.model.merging import merge_across_regions
from limner.model.tiling import TileGrid
from limner.model.views import core_window, to_image_coordinates
from limner.readers.regions import Grid, Region, cut_regions
from shapely.geometry import box


def trace(region: Region, classes: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32], tile: int) -> list[Finding]:
    """What a perfect annotator finds in a region of a class map (grid pixels; 255 is nothing)."""
    width, height = region.size
    canvas = np.full((height, width), 255, dtype=np.uint8)
    shades = np.zeros((height, width), dtype=np.float32)
    x0, y0 = region.columns.start, region.rows.start
    part = classes[y0 : y0 + height, x0 : x0 + width]
    canvas[: part.shape[0], : part.shape[1]] = part
    shades[: part.shape[0], : part.shape[1]] = scores[y0 : y0 + height, x0 : x0 + width]
    wanted = np.zeros(canvas.shape, dtype=np.bool_)
    window = core_window(region)
    wanted[window] = canvas[window] != 255
    grid = TileGrid.exact(*region.tiles, tile=tile)
    view = View(region, InputSpec(tile), grid, np.zeros((0,)), np.zeros((0,), np.bool_), wanted)
    return [
        to_image_coordinates(
            [Answer(str(p.value), p.polygon, "area", p.score, numbers={"pixels": float(p.pixels)})], view
        )[0]
        for p in polygonise(canvas, shades, wanted)
    ]


def pieces(
    grid: Grid,
    classes: npt.NDArray[np.uint8],
    scores: npt.NDArray[np.float32],
    tile: int,
    hd_num: int,
    overlap: int = 0,
) -> list[Finding]:
    """The findings of all regions, through the run folder's JSON."""
    regions = cut_regions(grid, tile=tile, hd_num=hd_num, overlap=overlap)
    found = [finding for region in regions for finding in trace(region, classes, scores, tile)]
    return [Finding.from_json(json.loads(json.dumps(finding.to_json()))) for finding in found]


def facts(findings: Iterable[Finding]) -> list[tuple[str, bytes, float | None, dict[str, float], bool]]:
    return [(f.label, f.geometry.wkb, f.score, dict(f.numbers), f.cut) for f in findings]


def whole(grid: Grid, classes: npt.NDArray[np.uint8], scores: npt.NDArray[np.float32]) -> list[Finding]:
    found = pieces(grid, classes, scores, max(classes.shape), 1)
    assert not any(finding.cut for finding in found)
    return merge_across_regions(found)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.tuples(st.integers(2, 60), st.integers(2, 60)),
    st.sampled_from([1.0, 2.0, 3.0, 1.7, 10 / 3, 0.7]),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_regions_merge_to_the_polygons_of_the_whole_class_map(
    size: tuple[int, int], scale: float, tile: int, hd_num: int, overlap: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid("picture", size, (scale, scale))
    classes = rng.choice(np.array([0, 0, 1, 255], dtype=np.uint8), size=grid.shape[::-1])
    scores = rng.random(classes.shape, dtype=np.float32)
    cut_up = pieces(grid, classes, scores, tile, hd_num, min(overlap, (tile - 1) // 2))
    joined = merge_across_regions([cut_up[i] for i in rng.permutation(len(cut_up))])
    assert facts(joined) == facts(whole(grid, classes, scores))
    outlines = [finding.geometry for finding in joined]
    assert all(shapely.is_valid(outlines))
    if (classes != 255).all():
        assert shapely.union_all(outlines).equals(box(0, 0, *size))


@pytest.mark.slow
def test_a_large_scene_merges_in_seconds() -> None:
    scale = 2.5
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(330, 411))
    for axis in (0, 1):
        noise = np.sum([np.roll(noise, shift, axis) for shift in range(-3, 4)], axis=0)
    classes = np.digitize(noise, [-2.0, 2.0]).astype(np.uint8)
    scores = rng.random(classes.shape, dtype=np.float32)
    grid = Grid("picture", (int(411 * scale), int(330 * scale)), (scale, scale))
    expected = whole(grid, classes, scores)
    assert len(expected) > 500
    for tile, hd_num in ((32, 4), (128, 2)):
        found = pieces(grid, classes, scores, tile, hd_num)
        assert sum(finding.cut for finding in found) > 100
        assert facts(merge_across_regions(found)) == facts(expected)


def area(x0: float, y0: float, x1: float, y1: float, **changes: object) -> Finding:
    values: dict[str, object] = {"label": "a", "kind": "area", "cut": True, "score": 0.5, "numbers": {"pixels": 4.0}}
    return Finding(geometry=box(x0, y0, x1, y1), **(values | changes))  # pyright: ignore[reportArgumentType] - a test


def bounds(findings: Sequence[Finding]) -> list[tuple[float, ...]]:
    return [finding.geometry.bounds for finding in findings]


def test_neighbouring_pieces_merge_with_a_weighted_score() -> None:
    (one,) = merge_across_regions([area(0, 0, 2, 2, score=0.9), area(2, 0, 3, 2, score=0.3, numbers={"pixels": 2.0})])
    assert one.geometry.equals(box(0, 0, 3, 2))
    assert isinstance(one.geometry, shapely.Polygon)
    assert len(one.geometry.exterior.coords) == 5
    assert one.score == 0.7
    assert one.numbers == {"pixels": 6.0}
    assert one.cut is False


@pytest.mark.parametrize(
    "other",
    [
        area(2, 2, 4, 4),
        area(2, 0, 4, 2, label="b"),
        area(2, 0, 4, 2, text="else"),
        area(2, 0, 4, 2, notes={"colour": "red"}),
        area(2, 0, 4, 2, cut=False),
        area(2, 0, 4, 2, kind="box"),
    ],
    ids=["corner", "label", "text", "notes", "not cut", "not an area"],
)
def test_pieces_that_differ_are_not_merged(other: Finding) -> None:
    assert len(merge_across_regions([area(0, 0, 2, 2), other])) == 2


def test_merged_scores_have_four_decimals_and_missing_numbers_count_as_0() -> None:
    (one,) = merge_across_regions(
        [area(0, 0, 2, 2, score=1.0, numbers={"depth": 2.5}), area(2, 0, 4, 4, score=0.0, numbers={"pixels": 8.0})]
    )
    assert one.score == 0.3333, "a third: 4 px² of one beside 8 pixels of the other"
    assert one.numbers == {"depth": 2.5, "pixels": 8.0}


def test_boxes_of_one_object_merge() -> None:
    found = [
        replace(area(4, 4, 8, 8, kind="box", cut=False), window=observed) for observed in ((0, 0, 9, 9), (3, 0, 9, 9))
    ]
    (one,) = merge_across_regions(found)
    assert (one.geometry.bounds, one.window) == ((4, 4, 8, 8), None)


def test_findings_without_a_score_sort_first() -> None:
    found = [area(0, 0, 2, 2, kind="tile", score=score) for score in (0.9, None, 0.0)]
    assert [one.score for one in merge_across_regions(found)] == [None, 0.0, 0.9]


def test_a_piece_without_a_score_leaves_the_area_without() -> None:
    (one,) = merge_across_regions([area(0, 0, 2, 2, score=None), area(2, 0, 3, 2)])
    assert one.score is None


def test_other_findings_are_unchanged_and_all_are_sorted() -> None:
    box_b = area(5, 5, 6, 6, label="b", kind="box", score=0.123456)
    region = area(0, 0, 9, 9, label="a", kind="region", text="sea")
    found = [box_b, area(4, 0, 5, 1), area(0, 0, 1, 1), region]
    joined = merge_across_regions(found)
    assert box_b in joined
    assert region in joined
    assert bounds(joined) == [(0, 0, 1, 1), (0, 0, 9, 9), (4, 0, 5, 1), (5, 5, 6, 6)]
    assert joined == merge_across_regions(reversed(found))
    assert merge_across_regions([]) == []
