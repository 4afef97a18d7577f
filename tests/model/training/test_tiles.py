"""Which tiles teach: those within one class's outlines, and only there."""

import numpy as np
import pytest
from limner.model.annotator import InputSpec
from limner.model.training.training_tiles import Outline, block_of, judge, overlaps, tile_boxes
from limner.model.views import View, _to_grid
from limner.readers.geometry import Box
from limner.readers.regions import Grid, cut_regions
from shapely import Point, box
from shapely.geometry.base import BaseGeometry

WHOLE = Box(0.0, 0.0, 100.0, 100.0)
TILE = [Box(20.0, 20.0, 30.0, 30.0)]


def fate(
    *outlines: tuple[str, BaseGeometry], inside: float = 0.5, rest: str = "", tile: Box = TILE[0]
) -> tuple[str, str]:
    drawn = [Outline(label, geometry, f"o{i}") for i, (label, geometry) in enumerate(outlines)]
    [found] = judge([tile], drawn, picture=WHOLE, inside=inside, rest=rest)
    return found.fate, found.label


@pytest.mark.parametrize(
    ("outlines", "inside", "rest", "want"),
    [
        ([("a", box(0, 0, 100, 100))], 0.5, "", ("taught", "a")),
        ([("a", box(0, 0, 25, 100))], 0.5, "", ("taught", "a")),
        ([("a", box(0, 0, 25, 100))], 0.6, "", ("at an edge", "")),
        ([("a", box(0, 0, 24, 100))], 0.5, "", ("at an edge", "")),
        ([("a", box(0, 0, 10, 100))], 0.5, "", ("outside", "")),
        ([("a", box(0, 0, 28, 100)), ("b", box(28, 0, 100, 100))], 0.5, "", ("two classes", "")),
        ([("a", box(0, 0, 29, 100)), ("b", box(29, 0, 100, 100))], 0.5, "", ("taught", "a")),
        ([("a", box(0, 0, 100, 100)), ("b", box(0, 0, 100, 100))], 0.5, "", ("two classes", "")),
        ([("a", box(0, 0, 24, 100)), ("a", box(22, 0, 25, 100))], 0.5, "", ("taught", "a")),
        ([("a", box(0, 0, 23, 100)), ("a", box(20, 0, 24, 100))], 0.5, "", ("at an edge", "")),
        ([("a", Point(25, 25))], 0.5, "", ("taught", "a")),
        ([("a", Point(30, 25))], 0.5, "", ("outside", "")),
        ([("a", Point(25, 25)), ("b", Point(20, 20))], 0.5, "", ("two classes", "")),
        ([("a", box(60, 60, 70, 70))], 0.5, "rest", ("taught", "rest")),
        ([("a", box(0, 0, 21, 100))], 0.5, "rest", ("taught", "rest")),
        ([("a", box(0, 0, 24, 100))], 0.5, "rest", ("at an edge", "")),
        ([("a", box(0, 0, 25, 100))], 0.5, "rest", ("taught", "a")),
        ([("a", Point(25, 25))], 0.5, "rest", ("taught", "a")),
    ],
)
def test_a_tile_is_judged_by_what_lies_in_it(
    outlines: list[tuple[str, BaseGeometry]], inside: float, rest: str, want: tuple[str, str]
) -> None:
    assert fate(*outlines, inside=inside, rest=rest) == want


def test_what_lies_beyond_the_picture_is_not_the_rest() -> None:
    assert fate(("a", box(0, 0, 1, 1)), rest="rest", tile=Box(94.0, 94.0, 104.0, 104.0)) == ("at an edge", "")
    assert fate(("a", box(0, 0, 1, 1)), rest="rest", tile=Box(92.0, 92.0, 102.0, 102.0)) == ("taught", "rest")


def test_a_tile_names_the_outlines_that_it_lies_in() -> None:
    drawn = [Outline("a", box(0, 0, 25, 100), "left"), Outline("a", box(25, 0, 100, 100), "right")]
    [found] = judge(TILE, drawn, picture=WHOLE)
    assert found.outlines == ("left", "right")


def test_overlaps_are_told_by_class() -> None:
    drawn = [
        Outline("b", box(0, 0, 10, 10), "1"),
        Outline("a", box(5, 0, 15, 10), "2"),
        Outline("a", box(8, 0, 12, 10), "3"),
        Outline("c", box(15, 0, 20, 10), "4"),
    ]
    assert overlaps(drawn) == {("a", "b"): 70.0}


def test_tiles_lie_where_answers_come_to_lie() -> None:
    grid = Grid("image", (150, 110), (2.0, 2.0))
    spec = InputSpec(tile=16)
    for region in cut_regions(grid, tile=16, hd_num=4):
        for one, (x0, y0, x1, y1) in zip(tile_boxes(region, spec), _grid(region).boxes(), strict=True):
            view = View(region, spec, _grid(region), None, None, None)  # type: ignore[arg-type]
            placed = _to_grid(np.array([[x0, y0], [x1, y1]], dtype=np.float64), view) * 2.0
            assert placed.ravel().tolist() == [one.x0, one.y0, one.x1, one.y1]


def _grid(region):  # noqa: ANN001, ANN202 - of one test
    from limner.model.tiling import TileGrid

    return TileGrid.exact(*region.tiles, tile=16)


def test_a_block_is_found_by_a_tile_s_middle() -> None:
    assert block_of(Box(95.0, 5.0, 105.0, 15.0), (100.0, 10.0)) == (1, 1)
    assert block_of(Box(90.0, 0.0, 100.0, 8.0), (100.0, 10.0)) == (0, 0)
