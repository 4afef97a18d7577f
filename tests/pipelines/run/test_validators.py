"""What a run of a map writes is valid by the validators of each format, and drawn by QGIS where it belongs.

The validators that are not packages of Python are those of Debian: python3-gdal, gdal-bin and QGIS.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from PIL import Image
from pystac.validation import validate_dict

pytestmark = pytest.mark.slow

PYTHON = "/usr/bin/python3"
FORMATS = "class-map,probabilities,geopackage,geojson,geoparquet,flatgeobuf,pmtiles,stac,findings-csv"
WIDTH, HEIGHT = 1500, 1100
DRAW = Path(__file__).parents[2] / "qgis_picture.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one run."""
    return tmp_path_factory.mktemp("validators")


@pytest.fixture
def run(folder: Path, make_scene: Callable[..., Path], make_card: Callable[..., Path], limner: Any) -> Path:
    """A run of a scene with all formats for maps, made once."""
    out = folder / "run"
    if not out.exists():
        scene = make_scene(folder / "scene.tif", width=WIDTH, height=HEIGHT)
        words = ("--probabilities", "--reports", FORMATS, "--set", "report_options.stac.datetime=2023-06-14")
        said = limner("run", scene, "--model", make_card(folder), "--out", out, *words)
        assert said.code == 0, said.err
    return out


def system(*words: object) -> str:
    """What a program of Debian says. Skips without it."""
    environment = {"QT_QPA_PLATFORM": "offscreen", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}  # noqa: S108
    try:
        done = subprocess.run(
            [*map(str, words)], capture_output=True, text=True, check=False, env=environment, timeout=300
        )
    except FileNotFoundError:
        pytest.skip(f"{words[0]} is not installed")
    if "No module named" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", ["classes-scene.tif", "probabilities-scene.tif"])
def test_rasters_are_valid_cogs_without_a_warning(run: Path, name: str) -> None:
    cogeo = pytest.importorskip("rio_cogeo.cogeo", reason="rio-cogeo is not installed")
    assert cogeo.cog_validate(str(run / name), strict=True) == (True, [], [])
    with rasterio.open(run / name) as raster:
        assert raster.overviews(1)


@pytest.mark.parametrize("name", ["classes-scene.tif", "probabilities-scene.tif"])
def test_rasters_are_valid_cogs_by_gdal(run: Path, name: str) -> None:
    said = system(PYTHON, "-m", "osgeo_utils.samples.validate_cloud_optimized_geotiff", run / name)
    assert "is a valid cloud optimized GeoTIFF" in said
    assert "warning" not in said.lower()


def test_the_geopackage_is_valid_by_gdal(run: Path) -> None:
    said = system(PYTHON, "-m", "osgeo_utils.samples.validate_gpkg", run / "findings.gpkg")
    assert "Req" not in said
    assert "error" not in said.lower()


@pytest.mark.parametrize("name", ["findings.gpkg", "findings.geojson", "findings-scene.fgb"])
def test_other_programs_read_layers_without_a_warning(run: Path, name: str) -> None:
    said = system("/usr/bin/ogrinfo", "-ro", "-al", "-so", run / name)
    rows = (run / "findings.csv").read_text(encoding="utf-8").count("\n") - 1
    assert f"Feature Count: {rows}" in said
    assert "warning" not in said.lower()
    assert "error" not in said.lower()


def test_stac_is_valid_by_pystac(run: Path) -> None:
    hrefs: dict[str, set[str]] = {}
    kinds = {"item-scene.json": pystac.Item, "collection.json": pystac.Collection, "model.json": pystac.Item}
    for name, kind in kinds.items():
        content = json.loads((run / name).read_text(encoding="utf-8"))
        validate_dict(content, extensions=[])
        found: Any = kind.from_dict(content)
        hrefs[name] = {asset.href.removeprefix("./") for asset in found.assets.values()}
    assert all((run / href).exists() for href in hrefs["item-scene.json"] | hrefs["collection.json"])
    assert {"classes-scene.tif", "probabilities-scene.tif", "findings-scene.parquet"} <= hrefs["item-scene.json"]


def test_qgis_draws_outlines_classes_and_zones_where_they_belong(run: Path, limner: Any, tmp_path: Path) -> None:
    """Pixels of a class have its colour, under the outlines of the same; a zone is drawn at its edge."""
    zones, edge = tmp_path / "zones.gpkg", shapely.box(503000, 5192000, 508000, 5197000)
    gpd.GeoDataFrame({"field": ["a"]}, geometry=[edge], crs="EPSG:32633").to_file(zones)
    assert limner("zones", run, "--zones", zones, "--out", tmp_path / "zones").code == 0
    picture, across = tmp_path / "qgis.png", 750
    layers = [tmp_path / "zones" / "zones.gpkg", f"{run / 'findings.gpkg'}|layername=scene", run / "classes-scene.tif"]
    said = system(PYTHON, DRAW, picture, across, *layers, run.parent / "scene.tif")
    found = re.search(r"valid: (\d+) of (\d+)", said)
    assert found is not None
    assert found[1] == found[2] != "0"
    with Image.open(picture) as file:
        drawn = np.asarray(file.convert("RGB")).astype(int)
    with rasterio.open(run / "classes-scene.tif") as raster:
        classes, table = raster.read(1), raster.colormap(1)
    step = WIDTH // across
    middle = classes[step // 2 :: step, step // 2 :: step]
    for number in (1, 2):
        off = np.abs(drawn[middle == number] - np.array(table[number][:3])).max(axis=1)
        assert np.mean(off < 40) > 0.5, "but for outlines"
    row, columns = round((5200000 - 5197000) / 10 / step), slice(155, 395)
    assert (drawn[row - 1 : row + 2, columns].min(axis=0) < 40).all(axis=1).mean() > 0.9, "a black line"
