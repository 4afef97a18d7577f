"""Outlines as WKB, made of all vertices at once, are those that GEOS writes."""

from collections.abc import Callable

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from limner.model.finding import Finding
from limner.readers.geometry import Placement
from limner.reports import wkb
from limner.reports.measures import FindingsBatch, Shapes
from limner.reports.rfc7946 import to_crs
from limner.reports.wkb import batch_boxes, batch_to_wkb
from limner.reports.writer import ImageRecord, Record
from shapely.geometry.base import BaseGeometry

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

PLACEMENTS = {
    "north up": (10, 0, 5e5, 0, -10, 4e6),
    "south up": (0.3, 0, 5e5, 0, 0.3, 4e6),
    "mirrored": (-10, 0, 5e5, 0, -10, 4e6),
    "a quarter turn": (0, 10, 5e5, 10, 0, 4e6),
    "turned": (9, 1.1, 5e5, 1.3, -8, 4e6),
}
RING = [(0, 0), (9, 2), (5, 3), (4, 9), (0, 0)]
SHAPES: list[BaseGeometry] = [
    shapely.normalize(shapely.Polygon(RING)),
    shapely.Polygon(RING),
    shapely.Polygon(RING[::-1]),
    shapely.Polygon([(3, 1), (1, 1), (1, 0), (5, 0), (5, 1), (3, 1)]),  # the first vertex is no corner
    shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4), (0, 0)]),  # crosses itself
    shapely.Polygon([(0, 0), (100, 1e-9), (50, 0), (0, 0)]),  # hardly any area
    shapely.box(1, 2, 3, 4, ccw=False),
    shapely.box(0, 0, 9, 9).difference(shapely.box(1, 1, 2, 2)),
    shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(5, 5, 6, 6)]),
    shapely.Polygon(),
    shapely.Polygon([(0, 0, 1), (0, 4, 2), (4, 4, 3), (0, 0, 1)]),
    shapely.Point(1, 2),
    shapely.LineString([(0, 0), (1, 1)]),
]


@pytest.fixture(scope="session")
def made(image: MakeImage, record: MakeRecord, placement: MakePlacement) -> Callable[..., FindingsBatch]:
    """A batch of outlines on a map of UTM, placed by an affine matrix."""

    def make(matrix: tuple[float, ...], shapes: list[BaseGeometry]) -> FindingsBatch:
        findings = [Finding("a", shape, "area") for shape in shapes]
        one = image("map", placement(32618, *matrix), findings)
        return FindingsBatch(record(one), one, findings)

    return make


def check(batch: FindingsBatch) -> None:
    placed = to_crs(batch.geometries, batch.image.info.placement)
    assert batch_to_wkb(batch).tolist() == shapely.to_wkb(placed, byte_order=1).tolist()
    assert np.array_equal(batch_boxes(batch), shapely.bounds(placed).reshape(-1, 4), equal_nan=True)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_all_kinds_of_outlines(made: Callable[..., FindingsBatch], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for shapes in (SHAPES, SHAPES[:1], []):
        check(made(PLACEMENTS[name], shapes))
    monkeypatch.setattr(wkb, "_AT_ONCE", 3)
    check(made(PLACEMENTS[name], SHAPES))


def test_polygons_that_turn_left_are_not_given_to_geos(
    made: Callable[..., FindingsBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    given_to_geos: list[int] = []

    def counted(shapes: Shapes, where: Placement) -> Shapes:
        given_to_geos.append(len(shapes))
        return to_crs(shapes, where)

    monkeypatch.setattr(wkb, "to_crs", counted)
    check(made(PLACEMENTS["north up"], SHAPES[:2]))
    assert given_to_geos == [1]


EIGHTHS = st.integers(-8000, 8000).map(lambda number: number / 8)


@given(
    st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=3, max_size=6),
    st.sampled_from([(1, 1), (-1, 1), (1, -1)]),
    st.floats(1e-5, 1e3),
    EIGHTHS,
)
def test_any_outline(
    made: Callable[..., FindingsBatch],
    points: list[tuple[float, float]],
    signs: tuple[int, int],
    side: float,
    at: float,
) -> None:
    """Those that do not cross themselves, since which way the others turn is open."""
    hull = shapely.MultiPoint(points).convex_hull
    outlines = [shapely.Polygon(points), hull, shapely.normalize(hull), shapely.reverse(hull)]
    plain = [one for one in outlines if one.geom_type == "Polygon" and one.is_valid]
    check(made((signs[0] * side, 0, at, 0, signs[1] * side, -at), plain))
