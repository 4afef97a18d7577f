"""Joined images have each place once, and the areas of the whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.readers.errors import RequestError
from limner.reports.measures import areas_m2, label_areas
from limner.reports.overlay.analysed import analysed_outlines
from limner.reports.overlay.joining import Joined, join_images
from limner.reports.writer import Record

Make = Callable[..., Any]

LABELS = ("land", "water", "cloud")


def joined(*runs: Record) -> Joined:
    return join_images([run.images[0] for run in runs], "merged")


def traced(codes: np.ndarray[Any, np.dtype[np.uint8]]) -> list[Finding]:
    found = polygonise(codes, np.ones(codes.shape, dtype=np.float32), codes > 0)
    return [
        Finding(LABELS[one.value - 1], one.polygon, "area", 1.0, numbers={"pixels": float(one.pixels)}) for one in found
    ]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(20, 45), st.integers(0, 20))
def test_parts_of_a_scene_give_the_whole(run: Make, seed: int, cut: int, overlap: int) -> None:
    codes = np.repeat(np.repeat(np.random.default_rng(seed).integers(0, 4, (10, 12)), 5, 0), 5, 1).astype(np.uint8)
    start = cut - min(overlap, cut - 1)
    left = run(traced(codes[:, :cut]), size=(cut, 50))
    right = run(traced(codes[:, start:]), size=(60 - start, 50), corner=(500_000.0 + 10 * start, 5_200_000.0))
    found = joined(left, right).image
    whole = traced(codes)
    assert found.info.size == (60, 50)
    assert found.info.placement == left.images[0].info.placement
    assert len(found.findings()) == len(whole)
    mine = sorted((one.label, shapely.normalize(one.geometry).wkt, one.numbers["pixels"]) for one in found.findings())
    assert mine == sorted((one.label, shapely.normalize(one.geometry).wkt, one.numbers["pixels"]) for one in whole)
    assert [area.pixels for area in found.areas] == [3000]


def test_the_first_has_what_several_cover(run: Make, area: Make) -> None:
    first = run([area("land", (0, 0, 100, 80))])
    second = run([area("water", (0, 0, 100, 80))], corner=(500_600.0, 5_200_000.0))
    found = joined(first, second)
    assert [(one.label, one.geometry.bounds) for one in found.image.findings()] == [
        ("land", (0, 0, 100, 80)),
        ("water", (100, 0, 160, 80)),
    ]
    assert [one.pixels for one in found.coverage] == [8000, 4800]
    assert [one.analysed_m2 for one in found.coverage] == pytest.approx([800_640, 800_640], rel=1e-3)
    again = joined(second, first)
    assert [one.pixels for one in again.coverage] == [8000, 4800]
    assert again.image.info.placement.matrix[0][2] == 500_000.0
    assert sum(part.area for shapes in analysed_outlines(again.image) for part in shapes) == 12_800


def test_an_image_that_others_cover_gives_nothing(run: Make, area: Make) -> None:
    found = joined(run([area("land", (0, 0, 100, 80))]), run([area("water", (0, 0, 50, 50))], size=(50, 50)))
    assert [one.label for one in found.image.findings()] == ["land"]
    assert found.coverage[1].shape.is_empty


def test_a_box_belongs_to_the_image_with_its_centre(run: Make) -> None:
    boxes = [Finding("land", shapely.box(x, 0, x + 10, 10), "box", 0.5) for x in (90, 96)]
    first = run(boxes[:1])
    second = run(
        [Finding("land", shapely.box(x, 0, x + 10, 10), "box", 0.6) for x in (30, 36)], corner=(500_600.0, 5_200_000.0)
    )
    found = joined(first, second).image.findings()
    assert [(one.geometry.bounds[0], one.score) for one in found] == [(90, 0.5), (96, 0.6)]


def measured(run: Record) -> float:
    """The analysed area in m² of a run's image."""
    image = run.images[0]
    return float(areas_m2(np.concatenate([*analysed_outlines(image)]), image.info).sum())


def test_neighbours_in_two_utm_zones_keep_their_areas(run: Make, area: Make, in_zone_34: Make) -> None:
    """A scene in zone 33 and one beside it in zone 34: areas add up, and a shape across the border is one."""
    first = run([area("land", (0, 0, 100, 80))], corner=(725_000.0, 5_205_000.0))
    stripes = [area("land", (0, 0, 120, 40)), area("water", (0, 40, 120, 100))]
    second = run(stripes, epsg=32634, corner=in_zone_34(725_900.0, 5_205_100.0), size=(120, 100))
    found = joined(first, second)
    assert found.coverage[0].m2 == pytest.approx(measured(first), rel=1e-9)
    assert found.coverage[1].analysed_m2 == pytest.approx(measured(second), rel=1e-9)
    assert 0.85 < found.coverage[1].m2 / found.coverage[1].analysed_m2 < 0.99
    labels = {one.label: one for one in label_areas(Record((found.image,), (), {}, (), "0"), found.image)}
    total = sum(one.m2 for one in found.coverage)
    assert sum(one.m2 for one in labels.values()) == pytest.approx(total, rel=1e-6)
    assert found.image.areas[0].m2 == pytest.approx(total)
    assert {label: one.findings for label, one in labels.items()} == {"land": 1, "water": 1}


def test_scenes_of_two_utm_zones_that_do_not_touch_are_as_large_as_both(
    run: Make, area: Make, in_zone_34: Make
) -> None:
    first = run([area("land", (0, 0, 100, 80))], corner=(725_000.0, 5_205_000.0))
    second = run([area("land", (0, 0, 90, 9))], epsg=32634, corner=in_zone_34(727_000.0, 5_205_000.0))
    found = joined(first, second)
    assert sum(one.m2 for one in found.coverage) == pytest.approx(measured(first) + measured(second), rel=1e-6)
    own = [
        float(areas_m2(np.array([one.images[0].findings()[0].geometry]), one.images[0].info)[0])
        for one in (first, second)
    ]
    both = label_areas(Record((found.image,), (), {}, ("land",), "0"), found.image)[0].m2
    assert both == pytest.approx(sum(own), rel=1e-6)


def test_what_cannot_be_joined_is_refused(run: Make) -> None:
    with pytest.raises(RequestError, match="must be a map with a place in the world"):
        joined(run(), run(epsg=None))
    with pytest.raises(RequestError, match="must be analysed somewhere"):
        joined(run(analysed=[]), run(analysed=[]))
