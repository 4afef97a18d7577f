"""Zones, comparisons and merging from the command line and from Python, on runs in folders."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import geopandas as gpd
import limner as package
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from limner.pipelines.overlay.checks import acquired, model_differences
from limner.pipelines.run import run_files
from limner.readers.errors import RequestError
from limner.readers.geometry import Placement
from limner.readers.image import Channel, ImageInfo
from limner.reports.writer import DISCLAIMER, Record

pytestmark = pytest.mark.slow

QGIS = Path("/usr/bin/python3")
FIELD = ((0, 0, 0), (0, 0, 0), (0, 0, 0))  # of the toy network, so that every pixel is labelled by itself


def split(path: Path, folder: Path, name: str, columns: slice, *, crs: str = "EPSG:32633") -> Path:
    """Some columns of a scene as another."""
    with rasterio.open(path) as raster:
        pixels, transform = raster.read(), raster.transform @ rasterio.Affine.translation(columns.start or 0, 0)
        profile = raster.profile | {"transform": transform, "crs": crs}
    pixels = pixels[:, :, columns]
    with rasterio.open(folder / f"{name}.tif", "w", **(profile | {"width": pixels.shape[2]})) as raster:
        raster.set_band_description(1, "red")
        raster.write(pixels)
    return folder / f"{name}.tif"


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., Path], make_card: Callable[..., Path]
) -> Iterator[Callable[[str], Path]]:
    """The folder of a run by the name of its scene: whole, left, right, 20240301, 20240310 and 20241101."""
    folder = tmp_path_factory.mktemp("overlays")
    card, whole = make_card(folder, ridge=FIELD), make_scene(folder / "whole.tif")
    split(whole, folder, "left", slice(0, 90))
    split(whole, folder, "right", slice(70, 150))
    with rasterio.open(whole) as raster:
        profile, pixels = raster.profile, raster.read()
    for name, change in (("20240301", 0), ("20240310", 400), ("20241101", 400)):
        later = pixels.copy()
        later[:, 60:80, 60:90] += np.uint16(change)
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as raster:
            raster.set_band_description(1, "red")
            raster.write(later)

    def run(name: str) -> Path:
        out = folder / "runs" / name
        if not out.exists():
            package.run(
                folder / f"{name}.tif", model=str(card), out=out, reports="summary-csv", names="show", workers=1
            )
        return out

    before = Path.cwd()
    yield run
    os.chdir(before)


def areas(run: Path) -> dict[str, float]:
    table = pd.read_csv(run / "areas.csv")
    return dict(zip(table[table.entry == "label"]["item"], table[table.entry == "label"].area_m2, strict=True))


def test_a_cloud_of_zones_is_a_partition_of_the_run(runs: Any, limner: Any, tmp_path: Path) -> None:
    """Turned squares over the whole scene: sums over them are the run's areas, and no data is not analysed."""
    cells = [
        shapely.box(x, y, x + 300, y + 300)
        for x in range(499_000, 503_000, 300)
        for y in range(5_198_000, 5_201_000, 300)
    ]
    turned = [shapely.affinity.rotate(cell, 20, (500_700, 5_199_500)) for cell in cells]
    frame = gpd.GeoDataFrame({"name": [f"n{at}" for at in range(len(turned))]}, geometry=turned, crs="EPSG:32633")
    frame.to_file(tmp_path / "zones.gpkg", driver="GPKG")
    run = runs("whole")
    done = limner("zones", run, "--zones", tmp_path / "zones.gpkg", "--id", "name", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "not analysed at all" in done.err
    assert DISCLAIMER in done.err
    assert done.out.split() == [str(tmp_path / "out" / name) for name in ("zones.csv", "zones.parquet", "zones.gpkg")]
    table: Any = pd.read_csv(tmp_path / "out" / "zones.csv")
    assert set(table.zone_id) == set(frame.name)
    own = areas(run)
    assert own["bright"] > 0
    for label, area in own.items():
        assert float(table[f"area_m2.{label}"].sum()) == pytest.approx(area, rel=1e-6, abs=0.1)
    summary: Any = pd.read_csv(run / "summary.csv")
    assert table.analysed_m2.sum() == pytest.approx(summary.analysed_km2[0] * 1e6, rel=1e-6)
    assert int(table["count.bright"].sum()) == int(summary["count.bright"][0])
    again = package.Run.open(run).zones(tmp_path / "zones.gpkg", id="name")
    assert again.crs == "EPSG:32633"
    assert again["area_m2.bright"].fillna(-1).round(3).tolist() == table["area_m2.bright"].fillna(-1).round(3).tolist()
    assert any("not analysed at all" in one for one in again.attrs["statements"])


@pytest.mark.skipif(not QGIS.exists(), reason="no system Python that may have QGIS")
def test_qgis_measures_the_same(runs: Any, limner: Any, tmp_path: Path) -> None:
    script = """
import json, os, sys
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from qgis.core import QgsApplication, QgsDistanceArea, QgsProject, QgsVectorLayer
app = QgsApplication([], False)
app.initQgis()
found = {}
for path, name in zip(sys.argv[1::2], sys.argv[2::2]):
    layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
    measure = QgsDistanceArea()
    measure.setSourceCrs(layer.crs(), QgsProject.instance().transformContext())
    measure.setEllipsoid("EPSG:7030")
    rows = []
    for one in layer.getFeatures():
        shape, fields = one.geometry(), one.attributeMap()
        numbers = {key: value for key, value in fields.items() if isinstance(value, (int, float))}
        rows.append([shape.isGeosValid(), measure.measureArea(shape), numbers])
    found[name] = [layer.isValid(), layer.crs().authid(), rows]
print("FOUND" + json.dumps(found))
"""
    probe = subprocess.run([QGIS, "-c", "import qgis.core"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("the system Python has no QGIS")
    shape = shapely.affinity.rotate(shapely.box(500_500, 5_199_000, 501_200, 5_199_500), 10)
    gpd.GeoDataFrame(geometry=[shape], crs="EPSG:32633").to_file(tmp_path / "zones.gpkg", driver="GPKG")
    limner("zones", runs("whole"), "--zones", tmp_path / "zones.gpkg", "--out", tmp_path / "z")
    limner("compare", runs("20240301"), runs("20240310"), "--out", tmp_path / "c")
    limner("merge", runs("left"), runs("right"), "--out", tmp_path / "m")
    layers = [(tmp_path / "z" / "zones.gpkg", "zones"), (tmp_path / "c" / "changes.gpkg", "20240301")]
    layers += [(tmp_path / "m" / "findings.gpkg", "merged"), (tmp_path / "m" / "coverage.gpkg", "coverage")]
    words = [str(word) for pair in layers for word in pair]
    done = subprocess.run([QGIS, "-c", script, *words], capture_output=True, text=True, check=False, timeout=300)
    assert "FOUND" in done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout.partition("FOUND")[2])
    for name, column in (("zones", "zone_m2"), ("20240301", "area_m2"), ("merged", "area_m2"), ("coverage", "area_m2")):
        valid, crs, rows = found[name]
        assert valid
        assert crs == "EPSG:32633"
        assert rows
        assert all(one for one, *_ in rows)
        for _, area, fields in rows:
            assert fields[column] == pytest.approx(area, rel=2e-5, abs=0.01)


def test_two_dates_of_one_season_are_compared(runs: Any, limner: Any, tmp_path: Path) -> None:
    done = limner("compare", runs("20240301"), runs("20240310"), "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "The dates are 2024-03-01 and 2024-03-10; the season is the same." in done.err
    table = pd.read_csv(tmp_path / "out" / "transitions.csv")
    analysed = pd.read_csv(runs("20240301") / "summary.csv").analysed_km2[0] * 1e6
    assert table.area_m2.sum() == pytest.approx(analysed, rel=1e-7)
    assert table.share.sum() == pytest.approx(1.0, abs=1e-5)
    own = areas(runs("20240301"))
    assert table[table["from"] == "bright"].area_m2.sum() == pytest.approx(own["bright"], rel=1e-7)
    assert table[table.to == "bright"].area_m2.sum() == pytest.approx(areas(runs("20240310"))["bright"], rel=1e-7)
    changes = gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="20240301")
    [[label, count]] = changes.label.value_counts().reset_index().to_numpy().tolist()
    assert (label, bool(count)) == ("none → bright", True)
    changed = table[(table["from"] == "none") & (table.to == "bright")].area_m2.item()
    assert changes.area_m2.sum() == pytest.approx(changed, rel=1e-6)
    assert shapely.box(500_600, 5_199_200, 500_900, 5_199_400).buffer(1e-6).covers(changes.union_all())
    matrix = pd.read_csv(tmp_path / "out" / "matrix.csv", index_col=0)
    assert matrix.loc["total", "total"] == pytest.approx(analysed, rel=1e-7)
    assert limner("info", tmp_path / "out").out.endswith("out: failed. a folder of results, which limner wrote\n")
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["use"] == DISCLAIMER
    back = package.compare(runs("20240310"), runs("20240301"))
    assert "The first run is of the later day: transitions go back in time." in back.statements
    assert back.changes["label"].unique().tolist() == ["bright → none"]
    again = package.compare(runs("20240301"), runs("20240310"))
    assert len(again.statements) == 1
    assert again.matrix.loc["none", "bright"] == pytest.approx(changed)
    assert len(again.changes) == len(changes)
    assert again.changes["note.to"].unique().tolist() == ["bright"]


def test_other_seasons_and_models_need_to_be_accepted(runs: Any, limner: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = limner("compare", runs("20240301"), runs("20241101"), "--out", out)
    assert done.code == 2
    assert "The seasons differ: 2024-03-01 and 2024-11-01, 120 days of the year apart." in done.err.replace("\n", " ")
    assert not out.exists()
    assert limner("compare", runs("20240301"), runs("20241101"), "--accept", "--out", out).code == 0
    assert "The seasons differ" in json.loads((out / "about.json").read_text())["statements"][0]


def test_other_pixel_sizes_need_to_be_accepted(runs: Any, limner: Any, tmp_path: Path) -> None:
    fine = runs("20240301")
    folder = fine.parents[1]
    [card] = folder.glob("*.yaml")
    scene, coarse, out = folder / "20240310.tif", tmp_path / "coarse", tmp_path / "out"
    done = limner("run", scene, "--model", card, "--resolution", "12m", "--out", coarse, "--reports", "summary-csv")
    assert done.code == 0, done.err
    before = {path: path.read_bytes() for path in fine.rglob("*") if path.is_file()}
    for command in ("compare", "merge"):
        done = limner(command, fine, coarse, "--out", out)
        assert done.code == 2
        said = " ".join(done.err.split())
        assert "The analyses have pixels of 10 and of 12 m: one misses smaller objects." in said
        assert not out.exists()
    assert {path: path.read_bytes() for path in fine.rglob("*") if path.is_file()} == before
    done = limner("compare", fine, coarse, "--accept", "--out", out)
    assert done.code == 0, done.err
    matrix = pd.read_csv(out / "transitions.csv")
    both = matrix[~matrix["from"].eq("not analysed") & ~matrix["to"].eq("not analysed")]
    assert both.area_m2.sum() == pytest.approx(pd.read_csv(fine / "summary.csv").analysed_km2[0] * 1e6, rel=0.02)


def test_halves_merged_are_the_whole(runs: Any, limner: Any, tmp_path: Path) -> None:
    done = limner("merge", runs("left"), runs("right"), "--out", tmp_path / "out")
    assert done.code == 0, done.err
    merged, whole = pd.read_csv(tmp_path / "out" / "findings.csv"), package.Run.open(runs("whole")).findings
    assert len(merged) == len(whole)
    assert sorted(merged.area_m2.round(2)) == pytest.approx(sorted(whole.area_m2.round(2)))
    assert {"findings.gpkg", "findings.geojson", "findings-merged.parquet", "summary.csv", "coverage.csv"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    summary = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert summary.analysed_km2[0] == pytest.approx(
        pd.read_csv(runs("whole") / "summary.csv").analysed_km2[0], rel=1e-7
    )
    coverage = pd.read_csv(tmp_path / "out" / "coverage.csv")
    assert coverage.run.tolist() == ["left", "right"]
    assert coverage.area_m2.sum() == pytest.approx(summary.analysed_km2[0] * 1e6, rel=1e-7)
    assert gpd.read_file(tmp_path / "out" / "coverage.gpkg", layer="coverage").run.tolist() == ["left", "right"]
    found = package.merge([runs("left"), package.Run.open(runs("right"))])
    assert found.coverage.area_m2.sum() == pytest.approx(coverage.area_m2.sum())
    gpd.GeoDataFrame(geometry=[shapely.box(500_600, 5_199_200, 501_100, 5_199_400)], crs="EPSG:32633").to_file(
        tmp_path / "z.gpkg"
    )
    both, one = (run.zones(tmp_path / "z.gpkg") for run in (found.run, package.Run.open(runs("whole"))))
    assert both["area_m2.bright"].tolist() == pytest.approx(one["area_m2.bright"].tolist(), rel=1e-9)
    assert both.status.tolist() == ["analysed"]


def test_results_replace_nothing(runs: Any, limner: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for words in (
        ("zones", runs("whole"), "--zones", "z.gpkg"),
        ("compare", runs("left"), runs("right")),
        ("merge", runs("left")),
    ):
        done = limner(*words, "--out", tmp_path / "out")
        assert done.code == 2
        assert "must be a new folder" in done.err
    assert [*(tmp_path / "out").iterdir()] == []
    assert run_files.MANIFEST in {path.name for path in runs("whole").iterdir()}


def test_what_cannot_be_compared_or_merged_is_said(runs: Any, limner: Any, tmp_path: Path) -> None:
    done = limner("merge", runs("left"), "--out", tmp_path / "out")
    assert "must have two maps or more" in done.err
    done = limner("compare", runs("left"), runs("right"), "--images", "left", "--out", tmp_path / "out")
    assert "must be the ids of two images" in done.err
    done = limner("compare", runs("left"), runs("right"), "--images", "left,other", "--out", tmp_path / "out")
    assert "the second run must have one image to compare" in done.err.replace("\n", " ")
    done = limner("zones", runs("left"), "--zones", "z.gpkg", "--image", "lift", "--out", tmp_path / "out")
    assert "Did you mean 'left'?" in done.err


def test_zones_in_pixels_belong_to_one_slide(
    limner: Any, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        make_slide(tmp_path / f"{name}.tif")
    inputs = [str(tmp_path / f"{name}.tif") for name in ("one", "two")]
    package.run(
        inputs, model=str(slide_card(tmp_path)), out=tmp_path / "run", reports="summary-csv", names="show", workers=1
    )
    drawn = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.box(200, 200, 400, 420))}
    (tmp_path / "a.geojson").write_text(json.dumps([drawn]))
    done = limner("zones", tmp_path / "run", "--zones", tmp_path / "a.geojson")
    assert "must belong to one image" in done.err
    done = limner("zones", tmp_path / "run", "--zones", tmp_path / "a.geojson", "--image", "one")
    assert done.code == 0, done.err
    [row] = pd.read_csv(tmp_path / "run-zones" / "zones.csv").to_dict("records")
    assert row["zone_um2"] == pytest.approx(200 * 220 / 4)
    assert 0 < row["analysed_share"] <= 1
    assert (tmp_path / "run-zones" / "zones.geojson").exists()
    assert "a folder of results, which limner wrote" in limner("info", tmp_path).out
    done = limner("merge", tmp_path / "run", "--out", tmp_path / "m")
    assert "must be a map with a place in the world" in done.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("uri", "facts", "day"),
    [
        ("S2A_MSIL2A_20230614T154911.SAFE", (), date(2023, 6, 14)),
        ("/a/b.tif", (("acquired", "2021-02-03"),), date(2021, 2, 3)),
        ("file-2023061412345678.tif", (), None),
        ("/a/b.tif", (), None),
    ],
)
def test_dates_come_from_metadata_or_names(uri: str, facts: Any, day: date | None) -> None:
    info = ImageInfo(uri, "raster", (9, 9), (Channel("b1"),), Placement.pixels(), id="a", facts=facts)
    assert acquired(info) == day


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "b"}, "The models differ: a 1, and b 1."),
        ({"sha256": "f" * 64}, "other weights: sha256 000000000000 and ffffffffffff"),
        ({"version": "2"}, "The versions of the model differ: a 1, and a 2."),
    ],
)
def test_models_that_differ_are_doubtful(other: dict[str, str], words: str) -> None:
    model = {"name": "a", "version": "1", "sha256": "0" * 64}
    first, second = (Record((), (), one, ("x",), "0.1.0") for one in (model, model | other))
    [found] = model_differences([first, second])
    assert words in found.text
    assert found.doubtful
    assert model_differences([first, first]) == []


@pytest.mark.network
def test_slovenia_of_two_dates(shared_data: Path, csmask: Path, tmp_path: Path) -> None:
    """A clear and a cloudy date: what was land is under cloud, and rows add up to what both analysed."""
    del csmask
    scenes = shared_data / "geo" / "sentinel2_slovenia_lulc"
    for day in ("2015-08-30", "2015-07-31"):
        package.run(
            scenes / f"S2_L1C_{day}.tif",
            model="csmask",
            sensor="sentinel-2-l1c",
            out=tmp_path / day,
            reports="summary-csv",
        )
    found = package.compare(tmp_path / "2015-08-30", tmp_path / "2015-07-31")
    assert found.matrix.loc["land", "cloud"] > 0.9 * found.matrix.loc["total", "total"]
    assert found.matrix.loc["total", "total"] == pytest.approx(1_009_995, rel=1e-6)
    zones: Any = package.Run.open(tmp_path / "2015-07-31").zones(scenes / "LULC.gpkg", id="index")
    assert len(zones) == 88
    assert float(zones["area_m2.cloud"].sum()) == pytest.approx(found.matrix.loc["total", "cloud"], rel=1e-3)
    with pytest.raises(RequestError, match="--id RABA_ID must be different for every zone"):
        package.Run.open(tmp_path / "2015-07-31").zones(scenes / "LULC.gpkg", id="RABA_ID")
