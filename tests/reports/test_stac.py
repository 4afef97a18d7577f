"""The run as STAC: valid by the schemas of pystac, with times and places that are stated and not guessed."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest
import rasterio
import shapely
from limner.model.annotator import InputSpec
from limner.model.finding import Finding
from limner.pipelines.run.reporting import load_writers, write_reports
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.reports.contract import check_writer
from limner.reports.stac import Stac, StacOptions
from limner.reports.writer import DISCLAIMER, ImageRecord, Record
from pystac.validation import validate_dict
from rasterio.crs import CRS

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

UTM = (32618, 10.0, 0.0, 5e5, 0.0, -10.0, 4e6)
MOMENT = "2015-08-20T10:07:28Z"
SPEC = InputSpec(256, 32, ("red", "green", "nir"), "toa_reflectance", (-0.2, 2.0), 30.0, variant="three-bands")
MODEL = {
    "name": "my model",
    "version": "1",
    "sha256": "ab" * 32,
    "weights_sha256_three-bands": "ab" * 32,
    "weights_sha256_unused": "cd" * 32,
    "runtime": "onnxruntime 1.31.1",
    "licence": "Apache-2.0",
}
FOUND = (Finding("snow/ice", shapely.box(3, 4, 300, 400), "area", 0.5),)


def stac(moment: str = MOMENT) -> Stac:
    return Stac(StacOptions(datetime=moment))


def load(path: Path) -> dict[str, Any]:
    """Read an object that pystac finds valid by the schemas of STAC 1.1 itself; it has none of the extensions."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["stac_version"] == "1.1.0"
    validate_dict(content, extensions=[])
    (pystac.Collection if content["type"] == "Collection" else pystac.Item).from_dict(content)
    return content


def written(writer: Stac, run: Record, out: Path) -> dict[str, dict[str, Any]]:
    return {path.name: load(path) for path in writer.write(run, out)}


@pytest.fixture
def run(image: MakeImage, placement: MakePlacement, record: MakeRecord) -> Record:
    """One map with one finding of a model of known weights."""
    labels = ("snow/ice", "open water")
    one = image("a", placement(*UTM), FOUND, spec=SPEC, analysis={"Tiles": "256 px"})
    run = record(one, labels=labels, model=MODEL, colours={"open water": "#0102ff"})
    return replace(run, run="0123456789abcdef" * 4, started="2026-11-30T21:17:08+02:00")


def test_an_item_states_place_time_model_and_files(run: Record, out: Path) -> None:
    names = ["findings-csv", "geopackage", "geojson", "overview-png", "summary-csv", "flatgeobuf"]
    writers = [*load_writers(names), *load_writers(["stac"], {"stac.datetime": MOMENT})]
    reports = {report.writer: report for report in write_reports(run, out, writers)}
    assert not any(report.error for report in reports.values())
    item, collection = load(out / "item-a.json"), load(out / "collection.json")
    assert [path.name for path in reports["stac"].paths] == ["item-a.json", "model.json", "collection.json"]
    assert (item["id"], item["collection"], collection["id"]) == ("a", collection["id"], "limner-0123456789abcdef")
    west, south, east, north = item["bbox"]
    assert item["bbox"] == pytest.approx(shapely.from_geojson(json.dumps(item["geometry"])).bounds)
    assert (-75.01 < west < east < -74.8, 36.0 < south < north < 36.2) == (True, True)
    properties = item["properties"]
    assert properties["datetime"] == MOMENT
    assert "start_datetime" not in properties
    assert properties["created"] == "2026-11-30T19:17:08Z"
    assert DISCLAIMER in properties["description"]
    assert properties["processing:software"] == {"limner": "0.1.0"}
    assert (properties["proj:code"], properties["proj:shape"]) == ("EPSG:32618", [800, 1000])
    assert properties["proj:transform"] == [10.0, 0.0, 5e5, 0.0, -10.0, 4e6]
    classes = [
        (one["value"], one["name"], one["title"], one["color_hint"]) for one in properties["classification:classes"]
    ]
    assert classes == [(1, "snow-ice", "snow/ice", "9BE7FF"), (2, "open-water", "open water", "0102FF")]
    expected = {
        "areas.csv": "text/csv",
        "findings.csv": "text/csv",
        "findings.geojson": "application/geo+json",
        "findings.gpkg": "application/geopackage+sqlite3",
        "findings-a.fgb": "application/vnd.flatgeobuf",
        "overview-a.png": "image/png",
        "summary.csv": "text/csv",
    }
    assert {asset["href"]: asset["type"] for asset in item["assets"].values()} == {
        f"./{k}": v for k, v in expected.items()
    }
    assert set(collection["assets"]) == {name for name in expected if not name.endswith(("fgb", "png"))}
    for name, asset in item["assets"].items():
        content = (out / name).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    assert {"metadata"} == set(item["assets"]["summary.csv"]["roles"])
    extensions = {url.split("/")[3] for url in item["stac_extensions"]}
    assert extensions == {"classification", "file", "processing", "projection"}
    links = {link["rel"]: link["href"] for link in item["links"]}
    assert links == dict.fromkeys(["root", "parent", "collection"], "./collection.json") | {
        "derived_from": "./model.json"
    }


def test_the_model_has_what_mlm_demands(run: Record, out: Path) -> None:
    model = written(stac(), run, out)["model.json"]
    properties = model["properties"]
    assert (model["id"], properties["mlm:name"], properties["license"]) == ("my-model", "my-model", "Apache-2.0")
    assert properties["mlm:tasks"] == ["semantic-segmentation"]
    assert (properties["mlm:framework"], properties["mlm:framework_version"]) == ("ONNX", "1.31.1")
    assert properties["mlm:architecture"] == "not stated"
    [taken], [given] = properties["mlm:input"], properties["mlm:output"]
    assert (taken["name"], taken["bands"]) == ("three-bands", ["red", "green", "nir"])
    assert taken["input"] == {
        "shape": [-1, 256, 256, 3],
        "dim_order": ["batch", "height", "width", "bands"],
        "data_type": "float32",
    }
    assert [one["name"] for one in properties["bands"]] == taken["bands"]
    assert given["result"] == {"shape": [-1, 256, 256], "dim_order": ["batch", "height", "width"], "data_type": "uint8"}
    assert [one["value"] for one in given["classification:classes"]] == [1, 2]
    [(name, asset)] = model["assets"].items()
    assert (name, "mlm:model" in asset["roles"], asset["mlm:artifact_type"]) == ("three-bands", True, "onnx")
    assert asset["file:checksum"] == "1220" + "ab" * 32
    assert any("/mlm/" in url for url in model["stac_extensions"])


def test_a_model_without_weights_has_no_item(run: Record, out: Path) -> None:
    unknown = replace(run, model={"name": "server", "version": "1"})
    found = written(stac(), unknown, out)
    assert list(found) == ["item-a.json", "collection.json"]
    assert all(link["rel"] != "derived_from" for link in found["item-a.json"]["links"])


@pytest.mark.parametrize(
    ("uri", "stated", "expected"),
    [
        ("/data/S2A_MSIL1C_20150711T100008_N0204_R122_T33TWM_20150711T100008.SAFE", MOMENT, "2015-07-11T10:00:08Z"),
        ("/data/T33TWM_20150711T100008_B02.jp2", "", "2015-07-11T10:00:08Z"),
        ("/data/LC08_L1TP_224078_20200518_20200518_01_RT.TIF", "", ("2020-05-18T00:00:00Z", "2020-05-18T23:59:59Z")),
        ("/data/a.tif", "2015-08-20", ("2015-08-20T00:00:00Z", "2015-08-20T23:59:59Z")),
        ("/data/a.tif", "2015-08-20T12:07:28+02:00/2015-08-21", (MOMENT, "2015-08-21T23:59:59Z")),
        ("/data/2015-08-20/a_20150820T100728.tif", "", None),
        ("/data/LC08_L1TP_224078_20209918_20200518_01_RT.TIF", "", None),
    ],
)
def test_times_are_stated_and_not_guessed(
    run: Record, out: Path, uri: str, stated: str, expected: str | tuple[str, str] | None
) -> None:
    [one] = run.images
    changed = replace(run, images=(replace(one, info=replace(one.info, uri=uri)),))
    found = written(stac(stated), changed, out)
    if expected is None:
        assert found == {}
        assert "it is not known when it was acquired" in stac(stated).omitted(changed)["a"]
        return
    properties = found["item-a.json"]["properties"]
    if isinstance(expected, str):
        assert properties["datetime"] == expected
    else:
        assert properties["datetime"] is None
        assert (properties["start_datetime"], properties["end_datetime"]) == expected
    ends = [expected, expected] if isinstance(expected, str) else list(expected)
    assert found["collection.json"]["extent"]["temporal"]["interval"] == [ends]


@pytest.mark.parametrize("moment", ["yesterday", "2015-08-20T10:07:28", "2015-08-21/2015-08-20", "2015-13-01"])
def test_a_time_that_is_none_is_refused(moment: str) -> None:
    with pytest.raises(RequestError, match=r"must be a moment by RFC 3339.*Write 2015-08-20T10:07:28Z"):
        stac(moment)


def test_places_across_the_antimeridian_are_cut(
    image: MakeImage, placement: MakePlacement, record: MakeRecord, out: Path
) -> None:
    across = image("across", placement(32660, 1000.0, 0.0, 5e5, 0.0, -1000.0, 5.7e6), size=(500, 400))
    found = written(stac(), record(across, image("a", placement(*UTM))), out)
    item = found["item-across.json"]
    assert item["geometry"]["type"] == "MultiPolygon"
    west, _, east, _ = item["bbox"]
    assert (west > 176, east < -175) == (True, True)
    assert all(-180 <= x <= 180 for ring in item["geometry"]["coordinates"] for x, _ in ring[0])
    [box] = found["collection.json"]["extent"]["spatial"]["bbox"]
    assert box[0] == pytest.approx(west)
    assert box[2] == pytest.approx(-74.89, abs=0.01)
    assert "findings.csv" not in item["assets"]


def test_images_without_a_place_are_named(
    image: MakeImage, placement: MakePlacement, record: MakeRecord, out: Path
) -> None:
    mars = placement("+proj=eqc +R=3396190 +units=m +no_defs", *UTM[1:])
    run = record(image("a", placement(*UTM)), image("mars", mars), image("none", Placement.pixels()))
    assert [path.name for path in stac().write(run, out)] == ["item-a.json", "collection.json"]
    assert list(stac().omitted(run)) == ["mars", "none"]
    assert list(Stac().omitted(run)) == ["a", "mars", "none"]
    assert Stac().write(run, out) == []


def test_a_crs_without_a_code_is_stated_in_full(image: MakeImage, record: MakeRecord, out: Path) -> None:
    crs = CRS.from_string("+proj=laea +lat_0=10 +lon_0=20 +units=m +ellps=WGS84").to_wkt()
    one = image("a", Placement(((10.0, 0.0, 0.0), (0.0, -10.0, 0.0)), "m", crs))
    properties = written(stac(), record(one), out)["item-a.json"]["properties"]
    assert properties["proj:code"] is None
    assert properties["proj:wkt2"].startswith("PROJCRS[")


def test_a_class_map_states_its_grid_and_the_numbers_of_its_classes(run: Record, out: Path) -> None:
    with rasterio.open(
        out / "classes-a.tif", "w", "GTiff", 30, 20, 1, "EPSG:32618", rasterio.Affine(30, 0, 5e5, 0, -30, 4e6), "uint8"
    ):
        pass
    (out / "classes-b-a.tif").write_bytes(b"of another image")
    (out / "notes-a.txt").write_text("not of limner")
    item = written(stac(), run, out)["item-a.json"]
    assert list(item["assets"]) == ["classes-a.tif"]
    asset = item["assets"]["classes-a.tif"]
    assert (asset["proj:shape"], asset["proj:transform"]) == ([20, 30], [30.0, 0.0, 5e5, 0.0, -30.0, 4e6])
    assert {one["value"]: one["title"] for one in asset["classification:classes"]} == {
        0: "none",
        1: "snow/ice",
        2: "open water",
        255: "no data",
    }


def test_the_writer_keeps_its_contract(run: Record, tmp_path: Path) -> None:
    check_writer(stac(), run, tmp_path)
