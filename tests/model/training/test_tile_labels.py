"""Labels of tiles by the outlines that they lie in."""

import numpy as np
import pytest
from limner.model.annotator import InputSpec
from limner.model.training.tile_labels import Outline, block_of, label_tiles, overlapping_classes, tile_boxes
from limner.model.views import View, _to_grid
from limner.readers.geometry import Box
from limner.readers.regions import Grid, cut_regions
from shapely import Point, box
from shapely.geometry.base import BaseGeometry

WHOLE = Box(0.0, 0.0, 100.0, 100.0)
TILE = [Box(20.0, 20.0, 30.0, 30.0)]


def outcome(
    *outlines: tuple[str, BaseGeometry], inside: float = 0.5, rest: str = "", tile: Box = TILE[0]
) -> tuple[str, str]:
    annotated = [Outline(label, geometry, f"o{i}") for i, (label, geometry) in enumerate(outlines)]
    [found] = label_tiles([tile], annotated, image=WHOLE, inside=inside, rest=rest)
    return found.outcome, found.label


@pytest.mark.parametrize(
    ("outlines", "inside", "rest", "want"),
    [
        ([("a", box(0, 0, 100, 100))], 0.5, "", ("labelled", "a")),
        ([("a", box(0, 0, 25, 100))], 0.5, "", ("labelled", "a")),
        ([("a", box(0, 0, 25, 100))], 0.6, "", ("at an edge", "")),
        ([("a", box(0, 0, 24, 100))], 0.5, "", ("at an edge", "")),
        ([("a", box(0, 0, 10, 100))], 0.5, "", ("outside", "")),
        ([("a", box(0, 0, 28, 100)), ("b", box(28, 0, 100, 100))], 0.5, "", ("two classes", "")),
        ([("a", box(0, 0, 29, 100)), ("b", box(29, 0, 100, 100))], 0.5, "", ("labelled", "a")),
        ([("a", box(0, 0, 100, 100)), ("b", box(0, 0, 100, 100))], 0.5, "", ("two classes", "")),
        ([("a", box(0, 0, 24, 100)), ("a", box(22, 0, 25, 100))], 0.5, "", ("labelled", "a")),
        ([("a", box(0, 0, 23, 100)), ("a", box(20, 0, 24, 100))], 0.5, "", ("at an edge", "")),
        ([("a", Point(25, 25))], 0.5, "", ("labelled", "a")),
        ([("a", Point(30, 25))], 0.5, "", ("outside", "")),
        ([("a", Point(25, 25)), ("b", Point(20, 20))], 0.5, "", ("two classes", "")),
        ([("a", box(60, 60, 70, 70))], 0.5, "rest", ("labelled", "rest")),
        ([("a", box(0, 0, 21, 100))], 0.5, "rest", ("labelled", "rest")),
        ([("a", box(0, 0, 24, 100))], 0.5, "rest", ("at an edge", "")),
        ([("a", box(0, 0, 25, 100))], 0.5, "rest", ("labelled", "a")),
        ([("a", Point(25, 25))], 0.5, "rest", ("labelled", "a")),
    ],
)
def test_a_tile_has_the_class_of_the_outlines_inside(
    outlines: list[tuple[str, BaseGeometry]], inside: float, rest: str, want: tuple[str, str]
) -> None:
    assert outcome(*outlines, inside=inside, rest=rest) == want


def test_the_area_outside_the_image_is_not_the_rest_class() -> None:
    assert outcome(("a", box(0, 0, 1, 1)), rest="rest", tile=Box(94.0, 94.0, 104.0, 104.0)) == ("at an edge", "")
    assert outcome(("a", box(0, 0, 1, 1)), rest="rest", tile=Box(92.0, 92.0, 102.0, 102.0)) == ("labelled", "rest")


def test_a_tile_names_the_outlines_that_it_lies_in() -> None:
    annotated = [Outline("a", box(0, 0, 25, 100), "left"), Outline("a", box(25, 0, 100, 100), "right")]
    [found] = label_tiles(TILE, annotated, image=WHOLE)
    assert found.outlines == ("left", "right")


def test_overlapping_classes_are_found() -> None:
    annotated = [
        Outline("b", box(0, 0, 10, 10), "1"),
        Outline("a", box(5, 0, 15, 10), "2"),
        Outline("a", box(8, 0, 12, 10), "3"),
        Outline("c", box(15, 0, 20, 10), "4"),
    ]
    assert overlapping_classes(annotated) == {("a", "b")}


def test_tile_boxes_agree_with_the_coordinates_of_answers() -> None:
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


def test_a_block_contains_the_tile_s_centre() -> None:
    assert block_of(Box(95.0, 5.0, 105.0, 15.0), (100.0, 10.0)) == (1, 1)
    assert block_of(Box(90.0, 0.0, 100.0, 8.0), (100.0, 10.0)) == (0, 0)
