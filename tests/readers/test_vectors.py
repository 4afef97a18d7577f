"""Polygons in the formats of GIS programs: the CRS, layers, and files that are refused."""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from limner.readers.annotations import TITLES, Frame, read_polygons, read_roi
from limner.readers.errors import RequestError
from limner.readers.vectors import BLOCKED, NAMES, vector_digest, vector_files
from pyogrio import raw

METRES = shapely.box(446000, 4166000, 448000, 4168000)  # in UTM zone 18 north
DEGREES = shapely.box(-75.6, 37.6, -75.5, 37.7)
FIELDS = {"kml": "Name"}  # the one that KML has
DRIVERS = {"gpkg": "GPKG", "fgb": "FlatGeobuf", "shp": "ESRI Shapefile", "kml": "KML"}


def save(
    path: Path, *shapes: shapely.Geometry | None, crs: str | None = "EPSG:32618", layer: str = "fields", **how: Any
) -> str:
    names = np.array([f"class {number}" for number in range(len(shapes))], dtype=object)
    outlines = np.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], dtype=object)
    driver = DRIVERS[path.suffix[1:]]
    layers = {} if driver == "ESRI Shapefile" else {"layer": layer}
    kind = {"geometry_type": "Polygon", **how}
    field = FIELDS.get(path.suffix[1:], "label")
    raw.write(path, outlines, [names], [field], crs=crs, driver=driver, append=path.exists(), **layers, **kind)
    return str(path)


def bounds(path: str) -> Sequence[float]:
    return [round(number, 6) for number in read_roi(path).bounds]


@pytest.fixture
def expected(tmp_path: Path) -> Sequence[float]:
    """The bounds of METRES in degrees, as GeoJSON of the same coordinates gives them."""
    path = tmp_path / "same.geojson"
    named = {"crs": {"type": "name", "properties": {"name": "EPSG:32618"}}}
    path.write_text(json.dumps({**json.loads(shapely.to_geojson(METRES)), **named}))
    return bounds(str(path))


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "shp"])
def test_the_crs_of_a_layer_is_respected(tmp_path: Path, expected: Sequence[float], suffix: str) -> None:
    assert bounds(save(tmp_path / f"a.{suffix}", METRES)) == expected


@pytest.mark.parametrize("suffix", DRIVERS)
def test_degrees_and_properties_are_read(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", DEGREES, shapely.box(-75.3, 37.6, -75.2, 37.7), crs="EPSG:4326")
    found = read_polygons(path, "labels", "lonlat")
    field = FIELDS.get(suffix, "label")
    named = sorted((one.properties[field], one.geometry.bounds) for one in found)  # FlatGeobuf sorts by place
    assert named == [("class 0", DEGREES.bounds), ("class 1", (-75.3, 37.6, -75.2, 37.7))]


def test_several_layers_are_named_and_one_is_chosen(tmp_path: Path, expected: Sequence[float]) -> None:
    path = save(tmp_path / "a.gpkg", METRES, layer="fields")
    save(tmp_path / "a.gpkg", shapely.Point(1, 2), layer="wells", geometry_type="Point")
    assert bounds(path) == expected  # the only layer of polygons
    save(tmp_path / "a.gpkg", METRES.buffer(100), layer="woods")
    with pytest.raises(RequestError, match=r"fields \(Polygon\), wells \(Point\), woods \(Polygon\)") as refused:
        read_roi(path)
    assert "|layername=fields" in str(refused.value)
    assert bounds(f"{path}|layername=fields") == expected
    assert bounds(f"{path}|layername=woods") != expected
    for wrong in (f"{path}|layername=roads", f"{tmp_path / 'same.geojson'}|layername=roads"):
        with pytest.raises(RequestError, match="must"):
            read_roi(wrong)


def test_a_shapefile_is_several_files(tmp_path: Path) -> None:
    path = save(tmp_path / "a.shp", METRES)
    assert [Path(one).suffix for one in vector_files(path)] == [".shp", ".shx", ".dbf", ".prj", ".cpg"]
    before = vector_digest(path)
    (tmp_path / "a.prj").unlink()
    assert vector_digest(path) != before
    with pytest.raises(RequestError, match=r"must state its coordinate reference system.*without a \.prj"):
        read_roi(path)


@pytest.mark.parametrize("suffix", ["gpkg", "fgb"])
def test_a_layer_without_a_crs_is_placed_nowhere_but_in_pixels(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", shapely.box(10, 20, 30, 40), crs=None)
    with pytest.raises(RequestError, match="must state its coordinate reference system"):
        read_roi(path)
    [one] = read_polygons(path, "labels", "pixels")
    assert one.geometry.bounds == (10, 20, 30, 40)
    placed = save(tmp_path / f"b.{suffix}", METRES)
    with pytest.raises(RequestError, match="must be in pixels"):
        read_polygons(placed, "labels", "pixels")


@pytest.mark.parametrize("frame", TITLES)
def test_a_file_of_limner_is_refused_where_the_image_has_another_frame(tmp_path: Path, frame: Frame) -> None:
    path = tmp_path / "findings.geojson"
    feature = {"type": "Feature", "geometry": shapely.geometry.mapping(DEGREES), "properties": {}}
    path.write_text(
        json.dumps({"type": "FeatureCollection", "limner": {"title": TITLES[frame]}, "features": [feature]})
    )
    assert len(read_polygons(str(path), "drawing", frame)) == 1
    with pytest.raises(RequestError, match="as the image is"):
        read_polygons(str(path), "drawing", "pixels" if frame == "lonlat" else "lonlat")


def test_a_polygon_that_crosses_itself_is_refused_with_its_place(tmp_path: Path) -> None:
    crossed = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    path = save(tmp_path / "a.gpkg", DEGREES, crossed, crs="EPSG:4326")
    with pytest.raises(RequestError, match=r"features\[1\].*valid polygon.*Self-intersection"):
        read_roi(path)


def test_features_without_geometry_are_left_out_and_lines_refused(tmp_path: Path) -> None:
    for name in ("a.gpkg", "a.shp"):
        assert read_roi(save(tmp_path / name, DEGREES, None, crs="EPSG:4326")).bounds == DEGREES.bounds
    assert "must contain a polygon" in refusal(save(tmp_path / "b.gpkg", None, crs="EPSG:4326"))
    line = shapely.LineString([(0, 0), (1, 1)])
    path = save(tmp_path / "c.gpkg", line, geometry_type="LineString", layer="roads")
    assert "roads (LineString)" in refusal(path)


def test_gdal_loads_no_other_driver() -> None:
    """In the sandboxed process; a driver that a new GDAL brings is to be looked at."""
    assert set(pyogrio.list_drivers()) - set(BLOCKED) <= {*NAMES, "MEM", "Memory"}


def refusal(path: str) -> str:
    with pytest.raises(RequestError) as refused:
        read_roi(path)
    return str(refused.value)


@pytest.mark.parametrize(("suffix", "name"), [("gpkg", "GeoPackage"), ("fgb", "FlatGeobuf"), ("shp", "Shapefile")])
def test_a_broken_file_is_refused_by_its_format(tmp_path: Path, suffix: str, name: str) -> None:
    """Cut off after its first bytes, or with noise behind them."""
    path = Path(save(tmp_path / f"a.{suffix}", METRES, METRES.buffer(10)))
    content = path.read_bytes()
    for broken in (
        content[:120],
        content[: len(content) * 9 // 10],
        content[:100] + bytes(byte ^ 0x5A for byte in content[100:]),
    ):
        path.write_bytes(broken)
        assert f"must be a readable {name}" in refusal(str(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A ZIP archive with the way out; whatever GDAL would open otherwise by no driver."""
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + bytes(60))
    assert "unpacked" in refusal(str(tmp_path / "a.zip"))
    (tmp_path / "a.gpkg").write_text("<OGRVRTDataSource><OGRVRTLayer name='x'/></OGRVRTDataSource>")
    assert "GeoPackage, FlatGeobuf, Shapefile or KML" in refusal(str(tmp_path / "a.gpkg"))
    connection = sqlite3.connect(tmp_path / "b.gpkg")
    connection.execute("CREATE TABLE t (x INTEGER)")
    connection.commit()
    connection.close()
    assert "GeoPackage" in refusal(str(tmp_path / "b.gpkg"))


def test_a_geopackage_that_qgis_still_writes_to_is_refused(tmp_path: Path) -> None:
    """Its last changes lie in a file beside it, and GDAL would not see them."""
    path = Path(save(tmp_path / "a.gpkg", METRES))
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE note (x INTEGER)")
    connection.commit()
    assert "must not be in use" in refusal(str(path))
    connection.close()
    assert not Path(f"{path}-wal").exists()
    assert read_roi(str(path)).area > 0
