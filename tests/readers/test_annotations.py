"""Areas of interest: accepted and refused files, and their positions."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from limner.readers import geodesy
from limner.readers.annotations import read_roi, roi_to_pixels
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo

SQUARE = [[10, 20], [12, 20], [12, 22], [10, 22], [10, 20]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE]}
Save = Callable[[object], str]


@pytest.fixture
def saved(tmp_path: Path) -> Save:
    def save(record: object) -> str:
        path = tmp_path / "area.geojson"
        path.write_text(json.dumps(record), encoding="utf-8")
        return str(path)

    return save


def scene(crs: int | str, pixel: float, west: float, north: float, size: tuple[int, int] = (2000, 1500)) -> ImageInfo:
    wkt = pyproj.CRS.from_user_input(crs).to_wkt()
    placement = Placement(((pixel, 0.0, west), (0.0, -pixel, north)), "m", crs=wkt, source="test")
    return ImageInfo("memory", "array", size, (Channel("1"),), placement, id="scene")


VIRGINIA = scene(32618, 10.0, 399960.0, 4100040.0, (10980, 10980))


@pytest.mark.parametrize(
    "record",
    [
        POLYGON,
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        {"type": "Feature", "properties": None, "geometry": POLYGON},
        {"type": "GeometryCollection", "geometries": [POLYGON]},
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": None}, {"type": "Feature", "geometry": POLYGON}],
        },
        POLYGON | {"crs": {"properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}, "type": "name"}},
        POLYGON | {"crs": {"type": "name", "properties": {"name": "EPSG:4326"}}},
        {"type": "Polygon", "coordinates": [[[*p, 100.0] for p in SQUARE]]},
    ],
)
def test_all_geojson_geometry_types_are_read(saved: Save, record: object) -> None:
    assert read_roi(saved(record)).equals(shapely.box(10, 20, 12, 22))


def test_polygons_are_joined_and_holes_kept(saved: Save) -> None:
    hole = [[10.5, 20.5], [10.5, 21], [11, 21], [11, 20.5], [10.5, 20.5]]
    next_door = [[[12, 20], [13, 20], [13, 22], [12, 22], [12, 20]]]
    area = read_roi(saved({"type": "MultiPolygon", "coordinates": [[SQUARE, hole], next_door]}))
    assert area.equals(shapely.box(10, 20, 13, 22).difference(shapely.box(10.5, 20.5, 11, 21)))


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ([1, 2], "GeoJSON object with a type"),
        ({"type": "Point", "coordinates": [1, 2]}, "made of polygons.*Point"),
        ({"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, "made of polygons.*LineString"),
        (
            {
                "type": "FeatureCollection",
                "features": [
                    {"type": "Feature", "geometry": POLYGON},
                    {
                        "type": "Feature",
                        "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [2, 2], [2, 0], [0, 2], [0, 0]]]},
                    },
                ],
            },
            r"features\[1\].geometry.*must be a valid.*Self-intersection\[1 1\]",
        ),
        ({"type": "FeatureCollection", "features": []}, "must contain a polygon"),
        ({"type": "FeatureCollection"}, "features.*a list"),
        ({"type": "Polygon", "coordinates": []}, "must have a ring"),
        ({"type": "Polygon", "coordinates": [SQUARE[:-1]]}, "ring 0.*end where it begins"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}, "four positions"),
        ({"type": "Polygon", "coordinates": [[[0, 0], ["a", 1], [1, 1], [0, 0]]]}, "longitude, latitude"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1], [1, 1], [0, 0]]]}, "longitude, latitude"),
        ({"type": "Polygon", "coordinates": [[[5e5, 4e6], [6e5, 4e6], [6e5, 4.1e6], [5e5, 4e6]]]}, "within ±180"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [float("nan"), 1], [1, 1], [0, 0]]]}, "within ±180"),
        (POLYGON | {"crs": {"type": "name", "properties": {"name": "EPSG:99999"}}}, "PROJ can read.*99999"),
        (POLYGON | {"crs": {"type": "name"}}, "crs by name"),
    ],
)
def test_invalid_geojson_is_refused_with_its_place(saved: Save, record: object, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read_roi(saved(record))


def test_the_crs_member_of_a_file_is_used(saved: Save) -> None:
    corners = [[440760.0, 4162740.0], [450660.0, 4162740.0], [450660.0, 4172940.0], [440760.0, 4162740.0]]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}
    area = read_roi(saved({"type": "Polygon", "coordinates": [corners], "crs": crs}))
    to_lonlat = pyproj.Transformer.from_crs(32618, 4326, always_xy=True)
    there = [to_lonlat.transform(x, y) for x, y in corners]
    bow = shapely.hausdorff_distance(area, shapely.Polygon(there))
    assert 1e-5 < bow < 1e-4, "corners where they were, and edges that bend in longitude and latitude"
    edge = np.linspace(corners[0], corners[1], 200)
    points = shapely.points(np.stack(to_lonlat.transform(edge[:, 0], edge[:, 1]), axis=1))
    assert shapely.distance(points, area.boundary).max() < 1e-8, "edges are straight where they were drawn"


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "area.csv").write_text("x,y\n1,2\n")
    (tmp_path / "area.kml").write_text("<kml/>")
    for name, rule in (
        ("area.csv", "a GeoJSON file"),
        ("missing.geojson", "a GeoJSON file"),
        ("area.kml", "a readable KML"),
    ):
        with pytest.raises(RequestError, match=f"{name}.*must be {rule}"):
            read_roi(str(tmp_path / name))


def lonlat_of(info: ImageInfo, box: tuple[float, float, float, float]) -> shapely.Polygon:
    """A box of an image in longitude and latitude, densified."""
    dense = shapely.segmentize(shapely.box(*box), 20.0)
    return shapely.Polygon(geodesy.to_lonlat(info.placement, shapely.get_coordinates(dense)))


@pytest.mark.parametrize(
    "info",
    [
        VIRGINIA,
        scene(4326, 1 / 3600, 77.0, 45.0),
        scene(3857, 10.0, 0.0, 8399737.9),
        scene(27700, 10.0, 400000.0, 200000.0),
        scene(4267, 1 / 3600, -77.0, 45.0),
    ],
)
def test_a_roi_is_mapped_to_the_pixels_it_was_drawn_on(info: ImageInfo) -> None:
    placed = roi_to_pixels(lonlat_of(info, (100, 200, 900, 700)), info)
    assert shapely.hausdorff_distance(placed, shapely.segmentize(shapely.box(100, 200, 900, 700), 20.0)) < 0.1


def test_long_edges_are_straight_in_longitude_and_latitude() -> None:
    area = shapely.Polygon([(-76.3, 36.2), (-75.0, 36.1), (-75.1, 36.9), (-76.2, 36.95)])
    placed = roi_to_pixels(area, VIRGINIA)
    along = shapely.get_coordinates(shapely.segmentize(area, 0.001))
    points = geodesy.from_lonlat(VIRGINIA.placement, along)
    inside = ((points >= 0) & (points <= VIRGINIA.size)).all(axis=1)
    assert inside.sum() > 2000
    assert shapely.distance(shapely.points(points[inside]), placed.boundary).max() <= 0.051
    straight = shapely.Polygon(geodesy.from_lonlat(VIRGINIA.placement, shapely.get_coordinates(area)))
    assert shapely.hausdorff_distance(straight, placed) > 10, "pixels between the corners alone would be far off"


def test_an_s_shaped_edge_is_detected() -> None:
    """Through the point where equator and central meridian cross, one half's bow is the other's turned round."""
    info = scene(32733, 1000.0, -500000.0, 11000000.0, (2000, 2000))
    placed = roi_to_pixels(shapely.Polygon([(8, -8), (8.01, -8), (22, 8), (21.99, 8)]), info)
    along = np.stack([np.linspace(8.01, 22, 999), np.linspace(-8, 8, 999)], axis=1)
    points = shapely.points(geodesy.from_lonlat(info.placement, along))
    assert shapely.distance(points, placed.boundary).max() <= 0.051


@pytest.mark.parametrize(
    "area", [shapely.box(-180, -90, 180, 90), shapely.box(-125, 24, -66, 50), shapely.box(-77, 30, -74, 40)]
)
def test_a_roi_larger_than_the_image_covers_it(area: shapely.Polygon) -> None:
    assert roi_to_pixels(area, VIRGINIA).equals(shapely.box(0, 0, *VIRGINIA.size))


def test_a_roi_is_clipped_to_the_image() -> None:
    placed = roi_to_pixels(lonlat_of(VIRGINIA, (-500, -500, 300, 200)), VIRGINIA)
    assert placed.bounds == pytest.approx((0, 0, 300, 200), abs=0.1)


@pytest.mark.parametrize(
    "info",
    [
        scene(32601, 1000.0, 300000.0, 7300000.0, (400, 300)),
        scene(32660, 1000.0, 500000.0, 7300000.0, (400, 300)),
        scene(3832, 1000.0, 3100000.0, 9800000.0, (400, 400)),
        scene(4326, 0.01, 178.0, 66.0, (400, 300)),
        scene(4326, 0.01, 179.0, 66.0, (400, 300)),
        scene(4326, 0.01, -182.0, 66.0, (400, 300)),
        scene(4326, 0.01, -183.0, 66.0, (400, 300)),
    ],
)
def test_a_roi_split_at_the_antimeridian_is_joined(info: ImageInfo) -> None:
    split = shapely.MultiPolygon([shapely.box(179.5, 64, 180, 65.5), shapely.box(-180, 64, -179.5, 65.5)])
    placed = roi_to_pixels(split, info)
    assert isinstance(placed, shapely.Polygon)
    assert placed.area > 1000
    middle = geodesy.from_lonlat(info.placement, [[180.0, 65.0]])[0]
    if not 0 <= middle[0] <= info.size[0]:
        middle = geodesy.from_lonlat(info.placement, [[-180.0, 65.0]])[0]
    assert placed.contains(shapely.Point(middle))


def test_a_grid_from_0_to_360_maps_western_longitudes() -> None:
    world = scene(4326, 0.25, 0.0, 90.0, (1440, 720))
    assert roi_to_pixels(shapely.box(-10, -20, 20, 30), world).equals(
        shapely.union(shapely.box(1400, 240, 1440, 440), shapely.box(0, 240, 80, 440))
    )


def test_the_cap_around_the_pole_is_a_disc() -> None:
    for west, north, lat in [(-3e6, 3e6, 75), (-3e6, 1.9e6, 75), (-1000.0, 1000.0, 85), (-1e4, 5e6, 60)]:
        arctic = scene(3413, 2000.0, west, north, (3000, 3000))
        placed = roi_to_pixels(shapely.box(-180, lat, 180, 90), arctic)
        assert isinstance(placed, shapely.Polygon)
        assert not placed.interiors
        pole = shapely.Point(-west / 2000, north / 2000)
        border = geodesy.from_lonlat(arctic.placement, [(100.0, lat)])[0]
        disc = pole.buffer(np.hypot(*(border - (pole.x, pole.y))), quad_segs=500).intersection(
            shapely.box(0, 0, 3000, 3000)
        )
        assert placed.symmetric_difference(disc).area < 0.05 * disc.length


def test_a_full_disc_image_takes_a_roi() -> None:
    disc = scene("+proj=geos +h=35785831 +lon_0=0 +sweep=y +ellps=WGS84", 3000.0, -5570000.0, 5570000.0, (3713, 3713))
    placed = roi_to_pixels(shapely.box(5, 40, 10, 45), disc)
    x, y = geodesy.from_lonlat(disc.placement, [[7.5, 42.5]])[0]
    assert placed.contains(shapely.Point(x, y))


def test_a_roi_outside_the_image_is_refused_with_both_bounds() -> None:
    with pytest.raises(
        RequestError, match=r"scene.*must overlap.*longitude 10.0000 to 12.0000.*the image longitude -7"
    ):
        roi_to_pixels(shapely.box(10, 20, 12, 22), VIRGINIA)
    near = lonlat_of(VIRGINIA, (-200, 0, -1, 50))
    with pytest.raises(RequestError, match="must overlap"):
        roi_to_pixels(near, VIRGINIA)


def test_a_roi_needs_an_image_on_the_earth() -> None:
    nowhere = ImageInfo("photo.png", "array", (10, 10), (Channel("1"),), Placement.pixels())
    with pytest.raises(RequestError, match=r"photo.png.*coordinate reference system.*--crs"):
        roi_to_pixels(shapely.box(0, 0, 1, 1), nowhere)
    with pytest.raises(RequestError, match="on the Earth"):
        roi_to_pixels(shapely.box(0, 0, 1, 1), scene("IAU_2015:49910", 100.0, 0.0, 0.0))


def test_geojson_nested_too_deep_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.geojson"
    path.write_text('{"type": "Polygon", "coordinates": ' + "[" * 100_000)
    with pytest.raises(RequestError, match="GeoJSON file"):
        read_roi(str(path))
