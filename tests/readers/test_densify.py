"""Edges that are surely straight are not tried one by one, and that changes nothing."""

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from limner.readers import densify
from limner.readers.geometry import Placement, Points, Polynomial

UTM = pyproj.CRS.from_epsg(32618).to_wkt()
POLAR = pyproj.CRS.from_epsg(3413).to_wkt()


def boxes(count: int, side: float) -> npt.NDArray[np.object_]:
    corner = np.random.default_rng(3).uniform(0, 5000, (count, 2))
    return np.asarray(shapely.box(*corner.T, *(corner + side).T))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many edges each call of `_deviation` was given."""
    counts: list[int] = []
    measure = densify._deviation  # noqa: SLF001 - what is counted

    def counted(start: Points, end: Points, placement: Placement) -> npt.NDArray[np.float64]:
        counts.append(len(start))
        return measure(start, end, placement)

    monkeypatch.setattr(densify, "_deviation", counted)
    return counts


@pytest.mark.parametrize(("side", "all_tried"), [(50.0, False), (600.0, True)])
def test_short_edges_of_a_map_are_not_tried(tried: list[int], side: float, *, all_tried: bool) -> None:
    shapes = boxes(1200, side)
    dense = densify.densify_all(shapes, Placement(((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), "m", UTM))
    assert tried[:2] == [4 * 81, 4 * 1200 if all_tried else 0]
    assert (shapely.get_num_coordinates(dense) > 5).any() == all_tried


def test_edges_that_stand_for_the_others_have_32_pixels_in_four_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[Points] = []
    measure = densify._deviation  # noqa: SLF001 - what is counted

    def kept(start: Points, end: Points, placement: Placement) -> npt.NDArray[np.float64]:
        probes.extend((end - start, (end + start) / 2))
        return measure(start, end, placement)

    monkeypatch.setattr(densify, "_deviation", kept)
    shapes = boxes(1200, 50.0)
    densify.densify_all(shapes, Placement(((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), "m", UTM))
    along, across = probes[0].T
    assert np.hypot(along, across) == pytest.approx(32.0, rel=0.011)
    assert set(np.round(np.degrees(np.arctan2(across, along))).tolist()) == {-45.0, 0.0, 45.0, 90.0}
    assert [*probes[1].min(axis=0), *probes[1].max(axis=0)] == pytest.approx(shapely.total_bounds(shapes))


def test_near_a_pole_every_edge_is_tried(tried: list[int]) -> None:
    densify.densify_all(boxes(1200, 50.0), Placement(((100.0, 0.0, -2e5), (0.0, -100.0, 2e5)), "m", POLAR))
    assert tried[0] == 4 * 1200


@pytest.mark.parametrize(("pixel", "probed"), [(600.0, True), (1000.0, False)])  # 27° and 45° of latitude
def test_edges_are_probed_within_half_of_75_degrees(tried: list[int], pixel: float, *, probed: bool) -> None:
    shapes = boxes(1200, 50.0)
    densify.densify_all(shapes, Placement(((pixel, 0.0, 4e5), (0.0, pixel, 0.0)), "m", UTM))
    assert tried[0] == (4 * 81 if probed else 4 * 1200)


def test_a_quarter_turn_needs_no_vertices() -> None:
    globe = Placement(((0.25, 0.0, -180.0), (0.0, -0.25, 90.0)), "deg", pyproj.CRS.from_epsg(4326).to_wkt())
    for end, points in ((360, 2), (364, 3)):
        line = shapely.LineString([(0, 100), (end, 100)])
        assert shapely.get_num_coordinates(densify.densify(line, globe)) == points


def test_few_edges_are_tried(tried: list[int]) -> None:
    densify.densify_all(boxes(10, 50.0), Placement(((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), "m", UTM))
    assert tried == [40]


TERMS = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
BENT = Polynomial(TERMS, (4e5, 3e4, 0.0, 900.0, 0.0, 0.0), (4.1e6, 0.0, -3e4, 0.0, 0.0, 1800.0), (3e3, 3e3), 3e3, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("crs", "matrix", "warp"),
    [
        ("EPSG:32618", ((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), None),
        ("EPSG:32618", ((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), BENT),
        ("EPSG:25832", ((8.0, 3.0, 5e5), (3.0, -8.0, 5.6e6)), None),
        ("EPSG:3857", ((10.0, 0.0, 0.0), (0.0, -10.0, 8.4e6)), None),
        ("EPSG:3413", ((1000.0, 0.0, -3e6), (0.0, -1000.0, 3e6)), None),
        ("EPSG:4326", ((0.01, 0.0, 175.0), (0.0, -0.01, 10.0)), None),
        ("ESRI:54009", ((1000.0, 0.0, -3e6), (0.0, -1000.0, 3e6)), None),
        ("EPSG:32618", ((400.0, 0.0, 5e5), (0.0, 400.0, 0.0)), None),
    ],
    ids=["UTM", "control points", "rotated", "Mercator", "polar", "degrees beyond 180", "Mollweide", "one-sided"],
)
def test_many_geometries_are_densified_as_few_are(
    crs: str, matrix: tuple[tuple[float, float, float], tuple[float, float, float]], warp: Polynomial | None
) -> None:
    placement = Placement(matrix, "m", pyproj.CRS.from_user_input(crs).to_wkt(), warp=warp)
    rng = np.random.default_rng(6)
    corner, side = rng.uniform(0, 5600, (1100, 2)), rng.choice([6.0, 20.0, 60.0, 200.0, 400.0], (1100, 2))
    shapes = shapely.box(*corner.T, *(corner + side).T)
    few = [densify.densify_all(shapes[start : start + 220], placement) for start in range(0, 1100, 220)]
    assert densify.densify_all(shapes, placement).tolist() == np.concatenate(few).tolist()
