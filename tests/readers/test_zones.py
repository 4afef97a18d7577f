"""Zones are read with their ids and edges, and laid on images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import shapely
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.readers.zones import read_zones
from rasterio.crs import CRS

SQUARE = shapely.box(500_100, 5_199_000, 500_150, 5_199_050)


def scene(epsg: int = 32633, x: float = 500_000.0) -> ImageInfo:
    placement = Placement(((10.0, 0.0, x), (0.0, -10.0, 5_200_000.0)), "m", CRS.from_epsg(epsg).to_wkt())
    return ImageInfo("a.tif", "raster", (300, 200), (Channel("b1"),), placement, id="a")


def layer(path: Path, shapes: Sequence[Any], crs: Any = "EPSG:32633", **columns: Sequence[Any]) -> Path:
    gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs).to_file(path, driver="GPKG")
    return path


def features(path: Path, *several: tuple[Any, Mapping[str, object]], **members: object) -> Path:
    rows = [
        {"type": "Feature", "properties": properties, "geometry": shape and shapely.geometry.mapping(shape)}
        for shape, properties in several
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": rows, **members}))
    return path


def test_edges_in_the_image_s_crs_are_exact(tmp_path: Path) -> None:
    zones = read_zones(str(layer(tmp_path / "a.gpkg", [SQUARE], field=["north"])), "lonlat", column="field")
    assert zones.ids == ("north",)
    assert zones.on(scene())[0].normalize().equals_exact(shapely.box(10, 95, 15, 100).normalize(), 0.0)
    assert zones.areas_m2[0] == pytest.approx(2502.0, abs=0.1)


def test_zones_in_other_crs_lie_on_the_same_pixels(tmp_path: Path) -> None:
    shape = shapely.box(500_100, 5_199_000, 501_100, 5_199_600)
    near = layer(tmp_path / "a.gpkg", [shape])
    far = tmp_path / "b.gpkg"
    gpd.read_file(near).to_crs(3035).to_file(far, driver="GPKG")
    [a], [b] = (read_zones(str(path), "lonlat").on(scene()) for path in (near, far))
    assert a.symmetric_difference(b).area < 0.02 * a.length


def test_zones_beside_the_image_are_empty_and_those_on_its_border_are_cut(tmp_path: Path) -> None:
    shapes = [shapely.box(499_950, 5_199_900, 500_050, 5_200_000), shapely.box(10_000, 10_000, 10_100, 10_100)]
    for path in (layer(tmp_path / "a.gpkg", shapes), layer(tmp_path / "b.gpkg", shapes, "EPSG:32634")):
        found = read_zones(str(path), "lonlat").on(scene(32633 if path.stem == "a" else 32634))
        assert [one.area for one in found] == pytest.approx([50.0, 0.0])


def test_parts_of_one_zone_stay_together(tmp_path: Path) -> None:
    whole = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(2, 0, 3, 1)])
    zones = read_zones(str(features(tmp_path / "a.geojson", (whole, {"id": 7.0}))), "lonlat", column="id")
    assert (len(zones), zones.ids, zones.source[0].area) == (1, ("7",), 2.0)


def test_features_without_a_polygon_are_kept(tmp_path: Path) -> None:
    path = features(tmp_path / "a.geojson", (None, {"id": "x"}), (shapely.box(0, 0, 1, 1), {"id": "y"}))
    zones = read_zones(str(path), "lonlat", column="id")
    assert zones.ids == ("x", "y")
    assert zones.source[0].is_empty
    path = features(tmp_path / "b.geojson", (shapely.Point(1, 1), {}), (shapely.box(0, 0, 9, 9), {}))
    assert len(read_zones(str(path), "pixels")) == 2


def test_pixels_of_qupath_count_from_the_scanned_area(tmp_path: Path) -> None:
    zones = read_zones(str(features(tmp_path / "a.geojson", (shapely.box(0, 0, 9, 9), {}))), "pixels")
    placed = zones.on(ImageInfo("a.svs", "slide", (99, 99), (), Placement.pixels(), id="a", origin=(30, 40)))
    assert placed[0].bounds == (30, 40, 39, 49)


def test_overlaps_are_counted_but_common_edges_are_not(tmp_path: Path) -> None:
    boxes = [shapely.box(0, 0, 2, 2), shapely.box(2, 0, 4, 2), shapely.box(1, 1, 3, 3), shapely.box(9, 9, 10, 10)]
    path = features(tmp_path / "a.geojson", *((box, {}) for box in boxes))
    assert read_zones(str(path), "lonlat").overlaps.tolist() == [1, 1, 2, 0]


@pytest.mark.parametrize(("rows", "column", "message"), [
    ([(shapely.box(0, 0, 1, 1), {"name": "a"})], "nam", "must be a column of the zones.*Did you mean 'name'"),
    ([(shapely.box(0, 0, 1, 1), {"id": "a"}), (shapely.box(2, 0, 3, 1), {"id": None})], "id", "a value for every zone"),
    ([(shapely.box(0, 0, 1, 1), {"id": 1}), (shapely.box(2, 0, 3, 1), {"id": 1})], "id", "different for every zone"),
    ([], "", "must contain a polygon .found: no features"),
    ([(None, {})], "", "must contain a polygon .found: 1 features without one"),
    ([(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), {})], "", "must be a valid polygon"),
    ([(shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(1, 1, 3, 3)]), {})], "", "parts do not overlap"),
])  # fmt: skip
def test_wrong_zones_are_refused(tmp_path: Path, rows: list[Any], column: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_zones(str(features(tmp_path / "a.geojson", *rows)), "lonlat", column=column)


def test_a_layer_without_a_crs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must state its coordinate reference system"):
        read_zones(str(layer(tmp_path / "a.gpkg", [SQUARE], None)), "lonlat")


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="must be a GeoJSON file"):
        read_zones(str(tmp_path / "none.gpkg"), "lonlat")
