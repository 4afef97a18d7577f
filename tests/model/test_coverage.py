"""Unions of areas that share edges, beside GEOS's overlay."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio.features
import shapely
from limner.model import coverage
from limner.model.coverage import difference_parts, union_parts, without_straight_vertices

Shapes = npt.NDArray[np.object_]


def by_overlay(polygons: Shapes) -> list[bytes]:
    """The parts as GEOS finds them."""
    return wkb(without_straight_vertices(shapely.get_parts(shapely.disjoint_subset_union_all(polygons))))


def wkb(polygons: Any) -> list[bytes]:
    """Polygons in a canonical order."""
    return sorted(shapely.to_wkb(shapely.normalize(polygons)).tolist())


def pieces(seed: int, scale: tuple[float, float]) -> Shapes:
    """The areas of a class map that was traced in parts."""
    random = np.random.default_rng(seed)
    side = int(random.integers(20, 90))
    mask = (random.random((side, side)) < random.uniform(0.3, 0.95)).astype(np.uint8)
    cuts = [0, *np.unique(random.integers(1, side, 3)).tolist(), side]
    found: list[Any] = []
    for top, bottom in pairwise(cuts):
        for left, right in pairwise(cuts):
            part = np.ascontiguousarray(mask[top:bottom, left:right])
            shapes = [shapely.geometry.shape(one) for one, value in rasterio.features.shapes(part) if value]
            moved = [shapely.transform(one, lambda xy, at=(left, top): (xy + at) * scale) for one in shapes]
            found += moved
    return np.array(found, dtype=object)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.9881, 1.9881), (3.3333, 2.5)])
def test_pieces_of_areas_are_joined_without_an_overlay(
    scale: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [pieces(seed, scale) for seed in range(12)]
    expected = [by_overlay(case) for case in cases]
    monkeypatch.setattr(coverage.shapely, "disjoint_subset_union_all", None)
    assert [wkb(union_parts(case)[0]) for case in cases] == expected
    for case in cases:
        wholes, member = union_parts(case)
        assert shapely.contains(wholes[member], shapely.point_on_surface(case)).all()
    assert max(map(len, expected)) > 30
    assert max(shapely.get_num_interior_rings(union_parts(case)[0]).max() for case in cases) > 30


@pytest.mark.parametrize(
    "shapes",
    [
        [shapely.box(0, 0, 4, 4), shapely.box(2, 1, 6, 3)],
        [shapely.box(0, 0, 4, 4), shapely.box(1, 1, 2, 2)],
        [shapely.box(0, 0, 4, 4), shapely.box(0, 0, 4, 4)],
        [shapely.box(0, 0, 4, 4), shapely.box(2, 0, 6, 4), shapely.box(6, 0, 8, 4)],
        [shapely.Point(0, 0).buffer(2), shapely.box(0, 0, 4, 4)],
        [shapely.box(0, 0, 4, 4), shapely.box(3.9999, 0, 8, 4)],
        [shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(4, 0, 6, 2)]), shapely.box(2, 0, 4, 2)],
    ],
)
def test_areas_that_overlap_or_have_oblique_edges_are_left_to_an_overlay(shapes: list[Any]) -> None:
    given = np.array(shapes, dtype=object)
    assert wkb(union_parts(given)[0]) == by_overlay(given)


def test_random_overlaps_are_noticed() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        corner, size = random.integers(0, 12, (6, 2)), random.integers(1, 6, (6, 2))
        boxes: Any = shapely.box(*corner.T, *(corner + size).T)
        assert wkb(union_parts(boxes)[0]) == by_overlay(boxes)


def test_areas_that_touch_at_a_corner_stay_apart() -> None:
    boxes: Any = shapely.box([0, 1, 1], [0, 1, 0], [1, 2, 2], [1, 2, 1])
    assert len(union_parts(boxes[:2])[0]) == 2
    assert wkb(union_parts(boxes)[0]) == by_overlay(boxes)


@pytest.mark.parametrize("scale", [1.0, 1.9881, 3.3333])
def test_parts_are_cut_out_of_an_area_without_an_overlay(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[tuple[Any, Shapes]] = []
    for seed in range(16):
        random = np.random.default_rng(seed)
        wholes, member = union_parts(pieces(seed, (1.0, 1.0)))
        area = wholes[np.bincount(member).argmax()]
        side = int(max(area.bounds)) + 1
        inside = np.asarray(rasterio.features.rasterize([area], out_shape=(side, side)), dtype=np.bool_)
        gone = inside & (random.random(inside.shape) < random.uniform(0.05, 0.9))
        found = [shapely.geometry.shape(one) for one, value in rasterio.features.shapes(gone.astype(np.uint8)) if value]
        both = shapely.transform(np.array([area, *found], dtype=object), lambda xy: xy * scale)
        cases.append((both[0], both[1:]))
    left = [shapely.get_parts(shapely.difference(area, shapely.union_all(cut))) for area, cut in cases]
    expected = [wkb(without_straight_vertices(one[shapely.area(one) > 0])) for one in left]
    assert max(map(len, expected)) > 30
    monkeypatch.setattr(coverage.shapely, "difference", None)
    assert [wkb(difference_parts(area, cut)) for area, cut in cases] == expected


def test_nothing_and_islands_may_be_left_of_an_area() -> None:
    whole, hole, island = shapely.box(0, 0, 9, 9), shapely.box(2, 2, 7, 7), shapely.box(4, 4, 5, 5)
    assert len(difference_parts(whole, np.array([whole]))) == 0
    ring = hole.difference(island)
    assert wkb(difference_parts(whole, np.array([ring]))) == wkb([whole.difference(hole), island])
    cut = np.array([shapely.box(3, 0, 4, 4), shapely.box(4, 4, 9, 5)])  # what is left hangs together by a corner
    assert wkb(difference_parts(whole, cut)) == wkb(shapely.get_parts(whole.difference(shapely.union_all(cut))))
