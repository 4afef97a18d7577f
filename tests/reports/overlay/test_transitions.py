"""The matrix of transitions adds up to what both runs analysed, and its layer is what differs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from limner.model.class_maps import polygonise
from limner.model.finding import Finding
from limner.model.merging import merge_across_regions
from limner.readers.errors import RequestError
from limner.reports.overlay import transitions as module
from limner.reports.overlay.transitions import NONE, NOT_ANALYSED, Transitions, changed_labels, transitions
from limner.reports.writer import Record

Make = Callable[..., Any]
Codes = np.ndarray[Any, np.dtype[np.uint8]]

LABELS = ("land", "water", "cloud")


def compared(first: Record, second: Record) -> tuple[Transitions, list[Finding]]:
    found = Transitions()
    blocks = transitions((first, first.images[0]), (second, second.images[0]), found)
    return found, merge_across_regions([change for block in blocks for change in block], first.images[0].info)


def pixels(found: Transitions) -> dict[tuple[str, str], float]:
    return {pair: round(found.area(pair)[0], 6) for pair in found.pixels}


def traced(codes: Codes) -> list[Finding]:
    """The areas of a class map whose 0 is nothing."""
    found = polygonise(codes, np.ones(codes.shape, dtype=np.float32), codes > 0)
    return [Finding(LABELS[one.value - 1], one.polygon, "area", 1.0) for one in found]


def test_every_place_has_its_transition(run: Make, area: Make) -> None:
    first = run([area("land", (0, 0, 50, 80)), area("water", (50, 0, 80, 80))])
    second = run([area("land", (0, 0, 40, 80)), area("cloud", (40, 0, 60, 80))], analysed=[(0, 0, 90, 80)])
    found, changes = compared(first, second)
    assert pixels(found) == {
        ("land", "land"): 3200,
        ("land", "cloud"): 800,
        ("water", "cloud"): 800,
        ("water", NONE): 1600,
        (NONE, NONE): 800,
        (NONE, NOT_ANALYSED): 800,
    }
    assert found.total()[0] == 90 * 80
    assert [(one.label, one.notes["from"], one.geometry.bounds) for one in changes] == [
        ("land → cloud", "land", (40, 0, 50, 80)),
        ("water → cloud", "water", (50, 0, 60, 80)),
        ("water → none", "water", (60, 0, 80, 80)),
    ]
    assert changed_labels(found, first, second) == ["land → cloud", "water → cloud", "water → none"]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10_000))
def test_areas_of_class_maps_are_counts_of_pixels(run: Make, seed: int) -> None:
    """Random maps of two runs, whose grids are shifted, in blocks that cut most areas."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, (2, 10, 12)).astype(np.uint8)
    a, b = np.repeat(np.repeat(coarse, 5, axis=1), 5, axis=2)
    first = run(traced(a), size=(60, 50))
    second = run(traced(b), size=(60, 50), corner=(500_070.0, 5_199_970.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", (16, 16))
        found, changes = compared(first, second)
    names = np.array([NONE, *LABELS])
    here, there = names[a[3:, 7:]].ravel(), names[b[:-3, :-7]].ravel()
    pairs, counts = np.unique(np.stack([here, there]), axis=1, return_counts=True)
    expected = {(str(x), str(y)): float(count) for (x, y), count in zip(pairs.T, counts, strict=True)}
    inside = {pair: value for pair, value in pixels(found).items() if NOT_ANALYSED not in pair}
    assert inside == expected
    assert found.total()[0] == 53 * 47
    assert sum(value for (x, _), value in pixels(found).items() if x != NOT_ANALYSED) == 60 * 50
    assert sum(value for (_, y), value in pixels(found).items() if y != NOT_ANALYSED) == 60 * 50
    differing = sum(value for (x, y), value in expected.items() if x != y)
    assert sum(one.geometry.area for one in changes) == pytest.approx(differing)
    assert all(one.geometry.is_valid for one in changes)


def test_rows_add_up_across_utm_zones(run: Make, area: Make, in_zone_34: Make) -> None:
    """The same ground in zones 33 and 34, cut in three labels by the second run."""
    first = run([area("land", (0, 0, 100, 80))], corner=(725_000.0, 5_205_000.0))
    parts = [area("land", (0, 0, 40, 120)), area("water", (40, 0, 80, 120)), area("cloud", (80, 0, 120, 120))]
    second = run(parts, epsg=32634, corner=in_zone_34(725_100.0, 5_205_300.0), size=(120, 120))
    found, changes = compared(first, second)
    total, m2 = found.total()
    row = [found.area(("land", label)) for label in ("land", "water", "cloud", NOT_ANALYSED)]
    assert sum(pixels for pixels, _ in row) == pytest.approx(8000, rel=1e-9)
    assert 0 < total < 8000
    assert m2 == pytest.approx(total * 100, rel=3e-3)
    assert sum(one.geometry.area for one in changes) == pytest.approx(row[1][0] + row[2][0], rel=1e-6)


def test_runs_without_a_common_place_are_refused(run: Make) -> None:
    with pytest.raises(RequestError, match="must both have analysed some place"):
        compared(run(analysed=[(0, 0, 10, 10)]), run(analysed=[(20, 20, 30, 30)]))
    with pytest.raises(RequestError, match="must both have analysed some place"):
        compared(run(analysed=[]), run(analysed=[]))


def test_findings_that_overlap_or_are_boxes_are_refused(run: Make, area: Make) -> None:
    overlapping = run([area("land", (0, 0, 50, 80)), area("water", (40, 0, 80, 80))])
    with pytest.raises(RequestError, match=r"must have areas that do not overlap \(found: more than 0\.1% of"):
        compared(overlapping, run())
    box = Finding("land", shapely.box(0, 0, 5, 5), "box", 0.5)
    with pytest.raises(RequestError, match=r"must have areas that do not overlap \(found: findings of the kind box"):
        compared(run(), run([box]))


def test_tiles_count_where_they_were_analysed(run: Make) -> None:
    tile = Finding("land", shapely.box(0, 0, 20, 20), "tile", 0.5)
    found, _ = compared(run([tile], analysed=[(0, 0, 10, 80)]), run())
    assert pixels(found) == {("land", NONE): 200, (NONE, NONE): 600, (NOT_ANALYSED, NONE): 7200}


def test_a_model_s_own_label_none_is_no_clash(run: Make, area: Make) -> None:
    found, _ = compared(run([area(NONE, (0, 0, 50, 80))]), run([area("land", (0, 0, 100, 80))]))
    assert pixels(found) == {(NONE, "land"): 8000}
