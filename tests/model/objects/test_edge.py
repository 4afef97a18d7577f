"""Ribbons along the edge of the tissue are no objects; what lies deeper, or does not touch the edge, is."""

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.model.findings_table import FindingsTable
from limner.model.merged_findings import arranged
from limner.model.objects import edge
from limner.model.objects.edge import find_strips, without_strips
from limner.readers.regions import Grid
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

TISSUE = box(40, 40, 360, 260)
GRID = Grid("a", (400, 300), (2.0, 2.0))


def cleaned(*shapes: BaseGeometry, width: float = 5.0, tissue: BaseGeometry = TISSUE) -> list[BaseGeometry]:
    """What is left of areas, in the order of reports; `width` in pixels of 2 level-0 pixels."""
    found = arranged(
        [FindingsTable.of(Finding("x", one, "area", 0.5, numbers={"pixels": one.area / 4}) for one in shapes)]
    )
    strips = find_strips(found, found[:].bounds, GRID, tissue, width)
    made = without_strips(found[:], strips)
    assert np.allclose(made.numbers["pixels"], shapely.area(made.geometries) / 4)
    return list(made.geometries)


def test_a_ribbon_all_round_goes() -> None:
    assert cleaned(TISSUE.difference(box(48, 48, 352, 252))) == []


def test_a_deeper_area_at_the_edge_stays_whole() -> None:
    [left] = cleaned(box(40, 100, 80, 150))
    assert left.equals(box(40, 100, 80, 150))


def test_a_ribbon_is_cut_off_from_the_area_that_it_is_part_of() -> None:
    deep = box(40, 100, 80, 150)
    [left] = cleaned(deep.union(TISSUE.difference(box(48, 48, 352, 252))))
    assert left.covers(deep)
    x0, y0, x1, y1 = left.bounds
    assert (x0, x1) == (40, 80)
    assert y0 > 70
    assert y1 < 180


def test_a_small_area_near_the_edge_that_does_not_touch_it_stays() -> None:
    assert len(cleaned(box(42, 100, 48, 106), box(40, 200, 46, 206))) == 1


def test_the_border_of_the_picture_is_no_edge() -> None:
    assert len(cleaned(box(0, 100, 6, 150), tissue=box(0, 0, 400, 200))) == 1
    assert cleaned(box(0, 194, 300, 200), tissue=box(0, 0, 400, 200)) == []


@pytest.mark.parametrize("block", [16, 37, 64])
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    rng = np.random.default_rng(3)
    tissue = shapely.union_all(
        [box(*(c := rng.integers(10, 120, 2) * 2), *(c + rng.integers(10, 60, 2) * 2)) for _ in range(9)]
    )
    ribbon = tissue.difference(tissue.buffer(-8, join_style="mitre"))
    shapes = [*shapely.get_parts(ribbon), box(100, 100, 140, 140).difference(ribbon)]
    shapes = [one for one in shapes if one.geom_type == "Polygon"]
    whole = cleaned(*shapes, tissue=tissue)
    monkeypatch.setattr(edge, "_BLOCK", block)
    assert [one.wkb for one in shapely.normalize(whole)] == [
        one.wkb for one in shapely.normalize(cleaned(*shapes, tissue=tissue))
    ]
