"""findings.gpkg, read back by GDAL."""

import json
import math
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
import shapely.affinity
from affine import Affine
from limner.model import findings_table
from limner.model.finding import Finding
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement, Polynomial
from limner.reports import geopackage
from limner.reports.columns import FindingsCsv, findings_columns
from limner.reports.geopackage import GeoPackage
from limner.reports.palette import Palette, rgb
from limner.reports.writer import DISCLAIMER, ImageRecord, Record
from pyogrio import raw
from rasterio.crs import CRS

MakeImage = Callable[..., ImageRecord]
MakeRecord = Callable[..., Record]
MakePlacement = Callable[..., Placement]

NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_000_000.0)
SHAPE = shapely.Polygon([(3.25, 4), (300, 17.5), (250, 444), (8, 390)], [[(50, 50), (60, 80), (90, 60)]])


def layers(path: Path) -> list[str]:
    return [name for name, _ in pyogrio.list_layers(path)]


def read(path: Path, layer: str) -> tuple[dict[str, np.ndarray], np.ndarray, str]:
    meta, _, geometry, columns = raw.read(path, layer=layer)
    return dict(zip(meta["fields"], columns, strict=True)), shapely.from_wkb(geometry), meta["crs"]


@pytest.mark.parametrize(
    ("crs", "matrix"),
    [
        (32618, NORTH_UP),
        (32618, (10.0, 0.0, 5e5, 0.0, 10.0, 4e6)),
        (32631, (0.3, 0.4, 5e5, 0.4, -0.3, 5.7e6)),
        (32618, (10.0, 0.0, 5e5, 0.0, -20.0, 4e6)),
        (4326, (1e-4, 0.0, -70.0, 0.0, -1e-4, 40.0)),
        (3031, (100.0, 0.0, -3e5, 0.0, -100.0, 3e5)),
    ],
    ids=["north up", "south up", "rotated", "not square", "degrees", "polar"],
)
def test_vertices_follow_the_geotransform(
    crs: int,
    matrix: tuple[float, ...],
    placement: MakePlacement,
    image: MakeImage,
    record: MakeRecord,
    out: Path,
) -> None:
    (path,) = GeoPackage().write(record(image("a", placement(crs, *matrix), [Finding("water", SHAPE, "area")])), out)
    columns, (shape,), name = read(path, "a")
    assert name == f"EPSG:{crs}"
    back = shapely.get_coordinates(shape) @ np.array((~Affine(*matrix))[:6]).reshape(2, 3)[:, :2].T
    back += np.array((~Affine(*matrix))[:6]).reshape(2, 3)[:, 2]
    expected = shapely.get_coordinates(SHAPE)
    assert len(back) == len(expected)
    assert max(np.abs(back - vertex).sum(axis=1).min() for vertex in expected) < 1e-6
    assert columns["area_px"].tolist() == [round(SHAPE.area, 2)]


def test_edges_are_densified_on_images_with_ground_control_points(
    image: MakeImage, record: MakeRecord, out: Path
) -> None:
    bend = Polynomial(((0, 0), (1, 0), (0, 1), (0, 2)), (10, 0.5, 0, 0.3), (50, 0, -0.5, 0), (500.0, 400.0), 500.0, 0.1)
    place = Placement(((1e-3, 0, 9.5), (0, -1e-3, 50.4)), "deg", CRS.from_epsg(4326).to_wkt(), warp=bend)
    (path,) = GeoPackage().write(record(image("a", place, [Finding("w", shapely.box(0, 0, 1000, 800), "box")])), out)
    _, (shape,), _ = read(path, "a")
    places = place.to_pixel(shapely.get_coordinates(shapely.segmentize(shape, 1e-3)))
    box = shapely.box(0, 0, 1000, 800).exterior
    assert max(box.distance(shapely.Point(xy)) for xy in places) < 0.06


def test_each_image_has_a_layer_with_the_columns_of_findings(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    findings = [
        Finding("water", SHAPE, "area", 0.5, text="one\ntwo", text_cut=True, numbers={"deep": 2.5}),
        Finding("land", shapely.box(0, 0, 9, 9), "box", notes={"why": "dry"}),
    ]
    run = record(
        image("b", placement(32618, *NORTH_UP), findings),
        image("a", placement(4326, 1e-4, 0.0, -70.0, 0.0, -1e-4, 40.0), findings[:1]),
    )
    (path,) = GeoPackage().write(run, out)
    assert [name for name in layers(path) if name in "ab"] == ["b", "a"]
    columns, shapes, _ = read(path, "b")
    assert list(columns) == [column.name for column in findings_columns(run) if column.topic not in {"world", "run"}]
    assert {"number.deep", "note.why", "name"} <= set(columns)
    assert columns["finding"].tolist() == [1, 2]
    assert columns["text"].tolist() == ["one two", ""]
    assert math.isnan(columns["score"][1])
    assert math.isnan(columns["number.deep"][1])
    assert columns["note.why"].tolist() == [None, "dry"]
    assert all(shape.geom_type == "MultiPolygon" and shape.is_valid for shape in shapes)
    topic, _, _ = (dict(zip(*raw.read(path, layer="about")[3], strict=True)), None, None)
    assert topic["use"] == DISCLAIMER
    assert topic["model name"] == "toy"
    assert topic["CRS of b"] == "EPSG:32618"
    with sqlite3.connect(path) as base:
        assert base.execute("select cut, typeof(cut) from b").fetchall() == [(1, "integer"), (None, "null")]
        kinds = {name: kind for _, name, kind, *_ in base.execute("pragma table_info(b)")}
        described = base.execute("select description from gpkg_contents where table_name = 'b'").fetchall()
    assert described == [(DISCLAIMER,)]
    assert kinds["cut"] == "BOOLEAN"


def test_values_equal_findings_csv(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    """Digits below the precision of a table depend on the processor, so they are not written."""
    findings = [Finding("w", shapely.affinity.translate(SHAPE, place / 7, place / 3), "area") for place in range(9)]
    run = record(image("a", placement(32618, *NORTH_UP), findings))
    (package,) = GeoPackage().write(run, out)
    (table,) = FindingsCsv().write(run, out)
    columns, shapes, _ = read(package, "a")
    frame = pd.read_csv(table)
    for name in ("area_m2", "area_px", "x0_px", "y0_px", "x1_px", "y1_px", "x_px", "y_px", "lon", "lat"):
        assert columns[name].tolist() == frame[name].tolist(), name
    world = shapely.get_coordinates(shapes)
    assert (world == world.round(7)).all(), "1e-8 of a pixel of 10 m"


def test_large_outlines_are_written_in_more_parts(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = [Finding("land", shapely.box(n, 0, n + 1, 9), "box", n / 10) for n in range(9)]
    run = record(image("a", placement(32618, *NORTH_UP), findings))
    (path,) = GeoPackage().write(run, out)
    whole, rows = read(path, "a"), list[int]()
    written = geopackage.write_layer

    def count(path: Path, batches: Sequence[Any], name: str, **options: Any) -> None:
        rows.append(sum(map(len, batches)))
        written(path, batches, name, **options)

    monkeypatch.setattr(geopackage, "write_layer", count)
    monkeypatch.setattr(findings_table, "BATCH", 2)
    monkeypatch.setattr(geopackage, "_VERTICES_AT_ONCE", 20)
    (path,) = GeoPackage().write(run, out)
    assert rows == [4, 4, 1]
    parts = read(path, "a")
    pd.testing.assert_frame_equal(pd.DataFrame(parts[0]), pd.DataFrame(whole[0]))
    assert np.array_equal(parts[1], whole[1])


def test_layer_names_differ_regardless_of_case(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    names = ["scene", "Scene", "about", "gpkg_contents", 'x"; drop table about; --', "layer_styles"]
    finding = Finding("w", SHAPE, "area", numbers={"A": 1.0, "a": 2.0, "Fid": 3.0})
    run = record(*(image(name, placement(32618, *NORTH_UP), [finding]) for name in names))
    (path,) = GeoPackage().write(run, out)
    assert layers(path) == [
        "scene",
        "Scene_2",
        "about_2",
        "image_gpkg_contents",
        "x___drop_table_about__--",
        "layer_styles_2",
        "about",
        "layer_styles",
    ]
    columns, _, _ = read(path, "scene")
    assert columns["number.A"].tolist() == [1.0]
    assert columns["number.a_2"].tolist() == [2.0]


def test_images_without_a_crs_are_omitted(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    mars = placement("+proj=eqc +R=3396190 +units=m +no_defs", *NORTH_UP)
    findings = [Finding("water", SHAPE, "area")]
    run = record(image("mars", mars, findings), image("snap", Placement.pixels(), findings))
    (path,) = GeoPackage().write(run, out)
    assert "mars" in layers(path), "another planet has a CRS of its own"
    assert "3396190" in read(path, "mars")[2]
    assert list(GeoPackage().omitted(run)) == ["snap"]
    topic = dict(zip(*raw.read(path, layer="about")[3], strict=True))
    assert "no CRS" in topic["left out: snap"]


def test_the_style_has_every_label(placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path) -> None:
    finding = Finding("<\"&'>", SHAPE, "area")
    run = record(image("a", placement(32618, *NORTH_UP), [finding]), colours={"water": "#0102ff"})
    (path,) = GeoPackage().write(run, out)
    meta, _, _, columns = raw.read(path, layer="layer_styles")
    style = dict(zip(meta["fields"], (column[0] for column in columns), strict=True))
    assert (style["f_table_name"], style["f_geometry_column"], style["useAsDefault"]) == ("a", "geom", True)
    assert style["styleQML"].count("<category ") == 3
    assert 'value="&lt;&quot;&amp;&#x27;&gt;"' in style["styleQML"]
    assert 'k="color" v="1,2,255,102"' in style["styleQML"]
    rules = re.findall(r"<ogc:Literal>(.*?)</ogc:Literal>.*?name=\"fill\">(.*?)<", style["styleSLD"])
    assert len(rules) == 3
    assert ("water", "#0102ff") in rules
    assert "&lt;&quot;&amp;&#x27;&gt;" in dict(rules)


COLOURED = (("water", "#0102ff"), ("bare soil", None), ("<\"&'>", "#ff8001"))

QGIS = """
import json, sys
from qgis.core import *
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

application = QgsApplication([], False)
application.initQgis()
found = {}
for style in ("default", "sld"):
    layer = QgsVectorLayer(sys.argv[1] + "|layername=a", "a", "ogr")
    if style == "sld":
        layer.setRenderer(QgsNullSymbolRenderer())
        table = QgsVectorLayer(sys.argv[1] + "|layername=layer_styles", "s", "ogr")
        text = next(table.getFeatures())["styleSLD"]
        open(sys.argv[2], "w").write(text)
        assert layer.loadSldStyle(sys.argv[2])[1]
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setBackgroundColor(QColor("white"))
    settings.setOutputSize(QSize(300, 100))
    settings.setExtent(layer.extent())
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    picture = job.renderedImage()
    found[style] = [layer.renderer().type(), [picture.pixelColor(x, 50).name() for x in (50, 150, 250)]]
print(json.dumps(found))
"""


def test_qgis_applies_the_colours_of_all_reports(
    image: MakeImage, placement: MakePlacement, record: MakeRecord, tmp_path: Path
) -> None:
    if not Path("/usr/bin/qgis").exists():
        pytest.skip("QGIS is not installed")
    labels = [label for label, _ in COLOURED]
    found = [Finding(label, shapely.box(10 * k, 0, 10 * k + 10, 10), "area") for k, label in enumerate(labels)]
    colours = {label: colour for label, colour in COLOURED if colour}
    run = record(image("a", placement(32618, *NORTH_UP), found), labels=tuple(labels), colours=colours)
    (path,) = GeoPackage().write(run, tmp_path)
    command = ["/usr/bin/python3", "-c", QGIS, str(path), str(tmp_path / "a.sld")]
    environment = {"QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    palette = Palette.of(labels, colours)
    on_white = [tuple(0.4 * part + 0.6 * 255 for part in rgb(palette[label])) for label in labels]
    drawn = json.loads(done.stdout.splitlines()[-1])
    assert {name: kind for name, (kind, _) in drawn.items()} == {"default": "categorizedSymbol", "sld": "RuleRenderer"}
    for name, (_, colours_drawn) in drawn.items():
        for drawn_colour, expected in zip(colours_drawn, on_white, strict=True):
            assert rgb(drawn_colour) == pytest.approx(expected, abs=2), name


def test_gdal_of_other_programs_reads_without_a_warning(
    image: MakeImage, placement: MakePlacement, record: MakeRecord, tmp_path: Path
) -> None:
    program = shutil.which("ogrinfo")
    if program is None:
        pytest.skip("ogrinfo is not installed")
    run = record(image("a", placement(32618, *NORTH_UP), [Finding("water", SHAPE, "area")]))
    (path,) = GeoPackage().write(run, tmp_path)
    done = subprocess.run([program, "-al", str(path)], capture_output=True, text=True, check=True, timeout=60)
    assert "layer_styles" in done.stdout
    assert done.stderr == ""


def test_empty_runs_give_a_valid_file(
    placement: MakePlacement, image: MakeImage, record: MakeRecord, out: Path
) -> None:
    (path,) = GeoPackage().write(record(), out)
    assert layers(path) == ["about"]
    (path,) = GeoPackage().write(record(image("a", placement(32618, *NORTH_UP))), out)
    assert layers(path) == ["a", "about", "layer_styles"]
    assert pyogrio.read_info(path, layer="a")["features"] == 0
    assert [entry.name for entry in out.iterdir()] == ["findings.gpkg"]


def test_the_same_record_gives_the_same_bytes(
    placement: MakePlacement,
    image: MakeImage,
    record: MakeRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    findings = [Finding("water", SHAPE, "area", 0.5, numbers={"b": 1.0, "a": 2.0})]
    written: list[bytes] = []
    for name, zone in (("one", "UTC"), ("two", "Pacific/Kiritimati")):
        monkeypatch.setenv("TZ", zone)
        (tmp_path / name).mkdir()
        (path,) = GeoPackage().write(record(image("a", placement(32618, *NORTH_UP), findings)), tmp_path / name)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    with sqlite3.connect(path) as base:
        moments = base.execute("select distinct last_change from gpkg_contents").fetchall()
        styled = base.execute("select distinct update_time from layer_styles").fetchall()
        assert base.execute("pragma user_version").fetchone() == (10200,), "what programs of 2018 know"
    assert moments == styled == [("2000-01-01T00:00:00.000Z",)]
    assert pyogrio.get_gdal_config_option("OGR_CURRENT_DATE") is None


def test_a_folder_that_cannot_be_written_to_is_an_error_with_a_remedy(record: MakeRecord, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"findings\.gpkg.*must be writable"):
        GeoPackage().write(record(), tmp_path / "missing")
