"""Masks of areas: pixels whose centres lie inside, tile by tile, and rings without holes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.model.findings_table import BATCH
from limner.readers.geometry import Placement
from limner.reports.dicom.masks import Patch, area_outlines, patches
from limner.reports.dicom.outlines import rings
from limner.reports.writer import ImageRecord

SIDE = 24


@pytest.fixture(scope="session")
def areas(image: Callable[..., ImageRecord]) -> Callable[..., ImageRecord]:
    """A picture with areas, given as (label, geometry)."""

    def make(*found: tuple[str, Any], size: tuple[int, int] = (SIDE, SIDE)) -> ImageRecord:
        findings = [Finding(label, geometry, "area") for label, geometry in found]
        return image("a", Placement.pixels(), findings, size=size)

    return make


def drawn(found: Any, label: str, size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    """The mask of a label, put together from patches, none of which is empty or comes twice."""
    whole, places = np.zeros(size[::-1], dtype=bool), set()
    for patch in found:
        assert patch.mask.any()
        assert (patch.label, patch.x, patch.y) not in places
        places.add((patch.label, patch.x, patch.y))
        if patch.label == label:
            height, width = patch.mask.shape
            whole[patch.y : patch.y + height, patch.x : patch.x + width] |= patch.mask
    return whole


def centres(geometry: Any, size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    """Which centres of pixels lie in a geometry."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    return shapely.contains_xy(geometry, x, y)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tile=st.sampled_from([None, (1, 1), (7, 5), (16, 16), (100, 3)]))
def test_areas_traced_from_a_class_map_give_it_back(
    areas: Callable[..., ImageRecord], seed: int, tile: tuple[int, int] | None
) -> None:
    random = np.random.default_rng(seed)
    classes = (random.random((SIDE, SIDE)) ** 2 * 3).astype(np.uint8)
    outlines = polygonise(classes, np.ones(classes.shape, np.float32), classes > 0)
    found = [(f"class {one.value}", one.polygon) for one in outlines]
    random.shuffle(found)
    image = areas(*found)
    for value in (1, 2):
        assert np.array_equal(drawn(patches(image, (), tile), f"class {value}"), classes == value)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tile=st.sampled_from([None, (7, 5), (16, 16)]))
def test_any_outline_has_the_pixels_whose_centres_it_encloses(
    areas: Callable[..., ImageRecord], seed: int, tile: tuple[int, int] | None
) -> None:
    random = np.random.default_rng(seed)
    shapes = []
    for _ in range(4):  # which overlap, have holes and reach outside of the picture
        x, y = random.uniform(-5, SIDE + 5, 2)
        ring = shapely.Point(x, y).buffer(random.uniform(1, 15), quad_segs=3)
        shapes.append(ring.difference(shapely.Point(x + 1, y).buffer(random.uniform(0.1, 9))))
    shapes = [shape for shape in shapes if not shape.is_empty]
    image = areas(*(("one", shape) for shape in shapes))
    assert np.array_equal(drawn(patches(image, (), tile), "one"), centres(shapely.union_all(shapes)))


def test_areas_that_share_a_slanted_edge_share_no_pixel_and_leave_none_out(areas: Callable[..., ImageRecord]) -> None:
    left = shapely.Polygon([(0, 0), (3.7, 0), (20.1, 24), (0, 24)])
    right = shapely.Polygon([(24, 0), (24, 24), (20.1, 24), (3.7, 0)])
    image = areas(("left", left), ("right", right))
    both = [drawn(patches(image, ()), label) for label in ("left", "right")]
    assert np.array_equal(both[0], ~both[1])


def test_edges_through_centres_belong_to_the_area_right_of_or_below_them(areas: Callable[..., ImageRecord]) -> None:
    image = areas(("one", shapely.box(1.5, 2.5, 4.5, 5.5)))
    expected = np.zeros((SIDE, SIDE), dtype=bool)
    expected[2:5, 1:4] = True
    assert np.array_equal(drawn(patches(image, ()), "one"), expected)


def test_a_part_far_below_does_not_hide_what_comes_next(areas: Callable[..., ImageRecord]) -> None:
    apart = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(0, 20, 2, 22)])
    other = shapely.box(10, 1, 12, 3)
    found = list(patches(areas(("one", apart), ("one", other)), (), (8, 4)))
    assert [(patch.x, patch.y) for patch in found] == [(0, 0), (8, 0), (0, 20)]
    assert np.array_equal(drawn(found, "one"), centres(apart.union(other)))


def test_many_areas_of_a_row_come_in_parts_by_their_upper_edge(areas: Callable[..., ImageRecord]) -> None:
    """Three parts are of one row of tiles, which is filled from all of them before the next one begins."""
    random, count = np.random.default_rng(2), 5 * BATCH // 2
    size = (2 * count + 90, 8)
    tops = random.integers(0, 2, count)
    found = [("one", shapely.box(2 * at + 50, y, 2 * at + 51, y + 1)) for at, y in enumerate(tops.tolist())]
    found += [("one", shapely.box(0, 6, 40, 7)), ("one", shapely.box(2, 5, 30, 6))]
    random.shuffle(found)
    parts = [part for _, parts in area_outlines(areas(*found, size=size)) for part in parts]
    assert [len(part) for part in parts] == [BATCH, BATCH, count + 2 - 2 * BATCH]
    upper = np.concatenate([shapely.bounds(part)[:, 1] for part in parts])
    assert (np.diff(upper) >= 0).all()
    mask = drawn(patches(areas(*found, size=size), (), (1000, 4)), "one", size)
    expected = np.zeros(size[::-1], bool)
    expected[tops, 2 * np.arange(count) + 50] = expected[6, :40] = expected[5, 2:30] = True
    assert np.array_equal(mask, expected)


def test_label_maps_come_slice_by_slice_with_their_labels(image: Callable[..., ImageRecord]) -> None:
    maps = np.zeros((3, 4, 5), np.uint8)
    maps[0, 1, 2], maps[2, 0, 0], maps[2, 3, 4] = 2, 1, 2
    stack = image("a", Placement.pixels(), size=(5, 4), label_maps=lambda: iter(maps))
    found = list(patches(stack, ("one", "two")))
    assert [(patch.label, patch.plane) for patch in found] == [("two", 0), ("one", 2), ("two", 2)]
    assert {(patch.x, patch.y) for patch in found} == {(0, 0)}
    for patch in found:
        assert isinstance(patch, Patch)
        assert np.array_equal(patch.mask, maps[patch.plane] == ("one", "two").index(patch.label) + 1)


def test_other_kinds_of_findings_have_no_mask(image: Callable[..., ImageRecord]) -> None:
    findings = [Finding("one", shapely.box(0, 0, 5, 5), kind) for kind in ("box", "tile", "region")]
    assert list(patches(image("a", Placement.pixels(), findings), ())) == []
    assert list(area_outlines(image("a", Placement.pixels(), findings))) == []


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_ring_encloses_what_its_polygon_with_holes_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = shapely.box(0, 0, SIDE, SIDE)
    for x, y in random.integers(1, SIDE - 3, (6, 2)).tolist():
        shape = shape.difference(shapely.box(x, y, x + 2, y + 2))
    shapes = np.array([shape, shapely.box(30, 0, 31, 1)], dtype=object)
    found = rings(shapes)
    corners = set(map(tuple, shapely.get_coordinates(shapes).tolist()))
    assert set(map(tuple, found.vertices.tolist())) == corners
    assert found.counts.sum() == len(found.vertices)
    parts = found.each()
    for ring in parts:
        assert not np.array_equal(ring[0], ring[-1])
    areas = [shapely.Polygon(ring).area for ring in parts]
    assert areas == pytest.approx(shapely.area(found.polygons).tolist())
    assert np.bincount(found.owners, weights=areas).tolist() == pytest.approx(shapely.area(shapes).tolist())


def test_no_geometry_has_no_ring() -> None:
    found = rings(np.array([shapely.Point(1, 1), shapely.Polygon()], dtype=object))
    assert len(found.vertices) == len(found.counts) == 0
    assert found.each() == []
