"""Into how many pieces edges are cut for their areas, and which areas need none."""

import math
from collections.abc import Callable

import numpy as np
import pyproj
import pytest
import shapely
from limner.readers import geodesy
from limner.readers.areas import area_m2, areas_m2, polygon_area
from limner.readers.geometry import Placement, Points, Polynomial, Unit
from shapely.geometry.base import BaseGeometry

UTM = pyproj.CRS.from_epsg(32618).to_wkt()
WGS84_SURFACE = 510065621724088.44  # m², Karney 2013, eq. 60 with WGS84's parameters
ACROSS = 16.0
SQUARE = shapely.box(2, 3, 2 + ACROSS / math.sqrt(2), 3 + ACROSS / math.sqrt(2))  # whose diagonal is 16


def longest_pieces(metres: float, areas: list[float]) -> list[float]:
    """Metres of the longest piece that each call of `ring_area` was given, which returned these areas."""
    seen: list[float] = []

    def ring_area(xy: Points) -> float:
        seen.append(float(np.hypot(*np.diff(xy, axis=0).T).max()) * metres)
        return areas[min(len(seen), len(areas)) - 1]

    polygon_area(SQUARE, ring_area, metres)
    return seen


@pytest.mark.parametrize(
    ("metres", "first"),
    [
        (1e3, 250.0),  # 16 km: 64 pieces
        (1e2, 25.0),  # 1.6 km: 64 pieces, although they are short
        (1e4, 250.0),  # 160 km: pieces of 250 m
        (6e5, 2400.0),  # 9600 km: 4000 pieces, although they are longer
    ],
)
def test_the_first_pieces_and_the_second_of_half_their_length(metres: float, first: float) -> None:
    pieces = longest_pieces(metres, [1.0, 1.0])
    assert len(pieces) == 2, "an area that stays the same has converged"
    assert 0.97 * first < pieces[0] <= first * (1 + 1e-9)
    assert 0.97 * first / 2 < pieces[1] <= first / 2 * (1 + 1e-9)


def test_pieces_are_halved_down_to_a_share_of_2_to_the_18() -> None:
    pieces = longest_pieces(1e3, [float(area) for area in range(1, 30)])
    assert len(pieces) == 1 + 18 - 6
    assert pieces[-1] == pytest.approx(ACROSS * 1e3 / 2**18, rel=1e-2)


def test_rounding_of_each_vertex_is_no_lack_of_convergence() -> None:
    """A geodesic area of any size is rounded by some 1e-7 m² a vertex; here it is wrong by 0.9e-7, in turn."""
    signs = [1.0, -1.0] * 20

    def ring_area(xy: Points) -> float:
        return 1e-3 + signs.pop() * 0.9e-7 * len(xy)

    assert polygon_area(SQUARE, ring_area, 1e-3) == pytest.approx(1e-3, abs=1e-4)


def test_the_difference_of_two_steps_is_extrapolated_by_a_third() -> None:
    areas = [4.0, 3.0, 2.0, 2.0 - 1.5e-7]
    assert polygon_area(SQUARE, lambda _: areas.pop(0), 1e-3) == pytest.approx(2.0 - 1.5e-7 * 4 / 3, rel=1e-12)


SHEARED = Placement(((10.0, 300.0, 4e5), (0.0, -10.0, 4.1e6)), "m", UTM)  # pixels of 10 m by some 300 m
FEET = Placement(((30.0, 0.0, 9e5), (0.0, -60.0, 2e5)), "crs", pyproj.CRS.from_epsg(2263).to_wkt())
BENT = Polynomial(
    ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)),
    (4.5e5, 5e4, 0.0, 900.0, 0.0, 0.0), (4e6, 0.0, -5e4, 0.0, 0.0, 800.0), (5e3, 5e3), 5e3, 0.1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("placement", "side", "small", "wide"),
    [
        (SHEARED, 300.0, [(250, 1), (3, 8), (180, 7)], [(10, 12), (400, 1)]),  # (width, height) in pixels
        (FEET, 18.3, [(300, 20), (20, 150)], [(360, 1), (1, 190)]),  # of 9.1 m by 18.3 m
        (Placement(((10.0, 0.0, 4e5), (0.0, -10.0, 4.1e6)), "m", UTM, warp=BENT), 10, [(290, 2), (2, 290)], [(310, 2)]),
    ],
    ids=["sheared", "feet", "control points"],
)
def test_only_polygons_of_more_than_3_km_are_cut(
    placement: Placement,
    side: float,
    small: list[tuple[int, int]],
    wide: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Far from the origin of the picture, where a bound of the polygon is no size."""
    sizes = np.array([*small, *wide])
    corner = np.array([[5003.0, 4007.0]] * len(sizes))
    shapes = np.asarray(shapely.box(*corner.T, *(corner + sizes).T), dtype=object)
    cut: list[BaseGeometry] = []

    def counted(geometry: BaseGeometry, ring_area: Callable[[Points], float], metres: float) -> float:
        cut.append(geometry)
        assert metres == pytest.approx(side, rel=2e-3)
        return polygon_area(geometry, ring_area, metres)

    monkeypatch.setattr("limner.readers.areas.polygon_area", counted)
    areas = areas_m2(shapes, placement)
    assert areas is not None
    assert cut == shapes[len(small) :].tolist()
    vectors = geodesy.tangents(placement, shapely.get_coordinates(shapely.centroid(shapes)))
    assert vectors is not None
    elements = np.linalg.norm(np.cross(vectors[:, 0], vectors[:, 1]), axis=1)
    assert areas == pytest.approx(shapely.area(shapes) * elements, rel=1e-7)


@pytest.mark.parametrize(("unit", "metres"), [("um", 1e-6), ("mm", 1e-3), ("m", 1.0)])
def test_a_ring_far_from_the_origin_of_its_plane_has_the_same_area(unit: Unit, metres: float) -> None:
    """Squares of coordinates would need 24 digits."""
    warp = Polynomial(((0, 0), (1, 0), (0, 1)), (4e11, 5e7, 0.0), (4e11, 0.0, -5e7), (500.0, 500.0), 500.0, 0.1)
    placement = Placement(((1e5, 0.0, 0.0), (0.0, -1e5, 0.0)), unit, warp=warp)
    area = area_m2(shapely.box(0, 0, 10, 10), placement)
    assert area == pytest.approx((10 * 1e5 * metres) ** 2, rel=1e-8)


@pytest.mark.slow
def test_a_turned_grid_over_the_globe_has_its_surface() -> None:
    """In degrees about another pole, and in metres, both too wide to be measured in one piece."""
    crs = "+proj=ob_tran +o_proj=longlat +o_lon_p=-162 +o_lat_p=39.25 +lon_0=180 +datum=WGS84"
    turned = pyproj.CRS.from_user_input(f"{crs} +to_meter=0.0174532925199433").to_wkt()
    globe = area_m2(shapely.box(0, 0, 360, 180), Placement(((1, 0, -180.0), (0, -1, 90.0)), "deg", turned))
    assert globe == pytest.approx(WGS84_SURFACE, rel=1e-6)
