"""findings.geojson, read as map programs read it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from limner.model.finding import Finding
from limner.readers import areas, geodesy
from limner.readers.geometry import Placement
from limner.reports.geojson import GeoJson
from limner.reports.writer import DISCLAIMER, ImageRecord, Record
from pyogrio import raw

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
PROPERTIES = {
    "image",
    "name",
    "finding",
    "label",
    "kind",
    "score",
    "text",
    "cut",
    "area_m2",
    "area_px",
    "fill",
    "stroke",
    "fill-opacity",
}


def written(run: Record, out: Path) -> dict[str, Any]:
    (path,) = GeoJson().write(run, out)
    assert [entry.name for entry in out.iterdir()] == ["findings.geojson"]
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def ring_area(ring: list[list[float]]) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_features_follow_rfc_7946(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    lake = shapely.box(10, 10, 90, 90).difference(shapely.box(40, 40, 60, 60))
    findings = [Finding("water", lake, "area", 0.123456), Finding("land", shapely.box(40, 40, 60, 60), "area")]
    place = placement(32618, *NORTH_UP)
    read = written(record(image("a", place, findings)), out)
    assert set(read) == {"type", "limner", "features", "bbox"}, "no crs member"
    assert [feature["id"] for feature in read["features"]] == ["a/1", "a/2"]
    for feature in read["features"]:
        assert set(feature) == {"type", "id", "properties", "geometry"}
        assert set(feature["properties"]) == PROPERTIES
        exterior, *holes = feature["geometry"]["coordinates"]
        assert ring_area(exterior) > 0
        assert all(ring_area(hole) < 0 for hole in holes)
        for lon, lat in [vertex for ring in [exterior, *holes] for vertex in ring]:
            assert (round(lon, 7), round(lat, 7)) == (lon, lat)
    assert len(read["features"][0]["geometry"]["coordinates"]) == 2
    coordinates = (out / "findings.geojson").read_text(encoding="utf-8").partition('"coordinates"')[2]
    assert not re.search(r"\d\.\d{8}", coordinates.partition("}")[0])
    properties = read["features"][0]["properties"]
    assert (properties["score"], properties["label"], properties["finding"]) == (0.1235, "water", 1)
    assert properties["area_m2"] == pytest.approx(areas.area_m2(lake, place), rel=1e-8)
    west, south, east, north = read["bbox"]
    corners = geodesy.to_lonlat(place, [(10, 90), (90, 10)])
    assert np.allclose([west, south], corners.min(axis=0), atol=1e-4)
    assert np.allclose([east, north], corners.max(axis=0), atol=1e-4)


def test_the_file_states_use_model_and_version(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    mars = placement("+proj=eqc +R=3396190 +units=m +no_defs", *NORTH_UP)
    findings = [Finding("water", shapely.box(0, 0, 9, 9), "box")]
    run = record(
        image("map", placement(32618, *NORTH_UP), findings),
        image("mars", mars, findings),
        image("snap", Placement.pixels(), findings),
    )
    read = written(run, out)
    topic = read["limner"]
    assert topic["use"] == DISCLAIMER
    assert topic["model"] == {"name": "toy", "sha256": "0" * 64, "version": "1"}
    assert set(topic["omitted"]) == {"mars", "snap"} == set(GeoJson().omitted(run))
    assert "not on Earth" in topic["omitted"]["mars"]
    assert "no CRS" in topic["omitted"]["snap"]
    assert [feature["properties"]["image"] for feature in read["features"]] == ["map"]


def test_across_the_antimeridian(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    place = placement(32660, 10.0, 0.0, 700_000.0, 0.0, -10.0, 5_700_000.0)
    read = written(record(image("a", place, [Finding("water", shapely.box(0, 0, 1000, 800), "region")])), out)
    (feature,) = read["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"
    west, _, east, _ = read["bbox"]
    assert 179 < west <= 180
    assert -180 <= east < -179
    for (exterior,) in feature["geometry"]["coordinates"]:
        assert ring_area(exterior) > 0
        lons = {lon for lon, _ in exterior}
        assert max(lons) - min(lons) < 1


def test_a_shape_too_small_is_a_point_with_a_note(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    place = placement(32618, 1e-3, 0.0, 500_000.0, 0.0, -1e-3, 4_000_000.0)
    read = written(record(image("a", place, [Finding("water", shapely.box(0, 0, 1, 1), "box")])), out)
    (feature,) = read["features"]
    assert feature["geometry"]["type"] == "Point"
    assert feature["geometry"]["coordinates"] == np.round(geodesy.to_lonlat(place, [(0.5, 0.5)])[0], 7).tolist()
    assert "7 decimals" in feature["properties"]["geometry_note"]


def test_texts_are_data(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    bad = 'a"b\\c\n</script>\u202e\ud800'
    finding = Finding(bad, shapely.box(0, 0, 9, 9), "box", text=bad, notes={bad: bad}, numbers={"n": 1.5})
    read = written(record(image("a", placement(32618, *NORTH_UP), [finding])), out)
    properties = read["features"][0]["properties"]
    clean = 'a"b\\c </script>\ufffd\ufffd'
    assert (properties["label"], properties["text"], properties[f"note.{clean}"]) == (clean, clean, clean)
    assert properties["number.n"] == 1.5


def test_gdal_reads_it(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    findings = [Finding("water", shapely.box(x, 0, x + 10, 10), "area", 0.5) for x in range(0, 200, 20)]
    place = placement(32618, *NORTH_UP)
    (path,) = GeoJson().write(record(image("a", place, findings), colours={"water": "#0000FF"}), out)
    meta, _, geometry, _ = raw.read(path)
    assert meta["crs"] == "EPSG:4326"
    assert len(geometry) == 10
    shapes = shapely.from_wkb(geometry)
    back = geodesy.from_lonlat(place, shapely.get_coordinates(shapely.centroid(shapes)))
    assert np.abs(back - [(x + 5, 5) for x in range(0, 200, 20)]).max() < 1e-2


def test_an_empty_run_is_an_empty_collection(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    for run in (record(), record(image("a", placement(32618, *NORTH_UP)))):
        read = written(run, out)
        assert read["features"] == []
        assert "bbox" not in read


def test_the_same_record_gives_the_same_bytes(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, tmp_path: Path
) -> None:
    findings = [
        Finding("water", shapely.box(x, 0, x + 1 / 3, 7), "area", 1 / 3, numbers={"b": x, "a": 1.0}) for x in range(9)
    ]
    written: list[bytes] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (path,) = GeoJson().write(record(image("a", placement(32618, *NORTH_UP), findings)), tmp_path / name)
        written.append(path.read_bytes())
    assert written[0] == written[1]
