"""The samples match their READMEs."""

import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import limner
import numpy as np
import openslide
import pydicom
import pytest
import rasterio
import shapely.geometry
from rasterio.warp import transform_bounds

BANDS = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B11": 20, "B12": 20}


def test_the_table_of_the_readme_is_the_folder(virginia: Path) -> None:
    text = (virginia / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(S2_B\d\d\.tif)` \| (\d+) × (\d+) \| (\d+) \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    found = []
    for path in sorted(virginia.glob("*.tif")):
        with rasterio.open(path) as band:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.append((path.name, str(band.width), str(band.height), str(path.stat().st_size), digest))
    assert rows == found
    assert [row[0] for row in rows] == [f"S2_{band}.tif" for band in BANDS]


def test_it_is_small(virginia: Path) -> None:
    assert sum(path.stat().st_size for path in virginia.iterdir()) <= 6_000_000


def test_all_bands_cover_the_same_ground_on_the_scenes_grids(virginia: Path) -> None:
    bounds = set()
    for name, metres in BANDS.items():
        with rasterio.open(virginia / f"S2_{name}.tif") as band:
            assert (band.crs.to_epsg(), band.res, band.dtypes) == (32618, (metres, metres), ("uint16",))
            bounds.add(tuple(band.bounds))
    [(left, bottom, right, top)] = bounds
    origin_x, origin_y = 435_720, 4_179_480  # of the scene's 60 m bands
    assert {(left - origin_x) % 60, (right - origin_x) % 60, (origin_y - bottom) % 60, (origin_y - top) % 60} == {0}


@pytest.mark.parametrize("name", BANDS)
def test_no_pixel_changed(virginia: Path, shared_data: Path, name: str) -> None:
    original = shared_data / "geo" / "sentinel2_virginia_l1c" / f"S2_{name}.tif"
    with rasterio.open(virginia / f"S2_{name}.tif") as crop, rasterio.open(original) as whole:
        column, row = ~whole.transform @ (crop.bounds.left, crop.bounds.top)
        assert (column, row) == (int(column), int(row))
        pixels = whole.read(1)[int(row) : int(row) + crop.height, int(column) : int(column) + crop.width]
        assert np.array_equal(crop.read(1), pixels)


def test_the_slides_are_those_of_the_readme(root: Path) -> None:
    folder = root / "notebooks" / "samples" / "slides"
    text = (folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.-]+)` \| (\d+) × (\d+) \| (\d+) \| `([0-9a-f]{64})` \|$", text, re.MULTILINE)
    found = []
    for path in sorted(path for path in folder.iterdir() if path.suffix in {".svs", ".tiff"}):
        with openslide.OpenSlide(path) as slide:
            width, height = slide.dimensions
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append((path.name, str(width), str(height), str(path.stat().st_size), digest))
    assert rows == found


def test_the_head_is_that_of_the_readme(root: Path) -> None:
    folder = root / "notebooks" / "samples" / "head"
    text = (folder / "README.md").read_text(encoding="utf-8")
    path = folder / "head.zip"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    info = limner.open(str(path)).info
    width, height = info.size
    row = f"| `head.zip` | {len(info.planes)} | {width} × {height} | {path.stat().st_size} | `{digest}` |"
    assert row in text


def test_the_headers_of_the_head_name_nobody(root: Path) -> None:
    personal = ("Patient", "Study", "Institution", "Referring", "Operator", "Physician")
    kept = {"PatientPosition", "PatientIdentityRemoved", "StudyInstanceUID"}
    with zipfile.ZipFile(root / "notebooks" / "samples" / "head" / "head.zip") as archive:
        for name in archive.namelist():
            header = pydicom.dcmread(io.BytesIO(archive.read(name)), stop_before_pixels=True)
            named = {one.keyword for one in header if one.keyword.startswith(personal) and str(one.value)}
            assert named <= kept


def test_the_head_is_made_again_byte_for_byte(root: Path, shared_data: Path, tmp_path: Path) -> None:
    samples = root / "notebooks" / "samples"
    study = shared_data / "dicom" / "mr_t1_7t_head" / "mr_t1_7t_384slices.zip"
    subprocess.run([sys.executable, samples / "make_head.py", study, tmp_path / "head.zip"], check=True)
    assert (tmp_path / "head.zip").read_bytes() == (samples / "head" / "head.zip").read_bytes()


def test_all_samples_together_are_small(root: Path) -> None:
    assert (
        sum(path.stat().st_size for path in (root / "notebooks" / "samples").rglob("*") if path.is_file()) <= 12_000_000
    )


def test_the_labels_lie_on_the_scene(root: Path, virginia: Path) -> None:
    content = json.loads((root / "notebooks" / "samples" / "virginia-labels.geojson").read_text(encoding="utf-8"))
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in content["features"]]
    with rasterio.open(virginia / "S2_B02.tif") as band:
        scene = shapely.box(*transform_bounds(band.crs, "EPSG:4326", *band.bounds))
    assert all(shape.is_valid and scene.contains(shape) for shape in shapes)
    counts = Counter(feature["properties"]["label"] for feature in content["features"])
    assert counts == {"field": 8, "forest": 7, "marsh": 7, "water": 8}
