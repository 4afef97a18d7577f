"""Edges that are surely straight are not tried one by one."""

import numpy as np
import numpy.typing as npt
import pyproj
import pytest
import shapely
from limner.readers import densify
from limner.readers.geometry import Placement, Points

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


def test_near_a_pole_every_edge_is_tried(tried: list[int]) -> None:
    densify.densify_all(boxes(1200, 50.0), Placement(((100.0, 0.0, -2e5), (0.0, -100.0, 2e5)), "m", POLAR))
    assert tried[0] == 4 * 1200


def test_few_edges_are_tried(tried: list[int]) -> None:
    densify.densify_all(boxes(10, 50.0), Placement(((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), "m", UTM))
    assert tried == [40]
