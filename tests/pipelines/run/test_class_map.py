"""Class maps of whole runs: their areas are those of the outlines, and no data is where the file has none."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

Limner = Callable[..., Any]  # of conftest, which tests cannot import


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("words", [(), ("--hd-num", "1")], ids=["one region", "a region for each tile"])
def test_a_map_of_classes_agrees_with_the_outlines(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, words: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    reports = ("--reports", "class-map,findings-csv,summary-csv")
    said = limner("run", scene, "--model", card, "--out", out, *reports, *words)
    assert said.code == 0, said.err
    with rasterio.open(out / "classes-scene.tif") as raster:
        classes = raster.read(1)
        assert raster.transform == rasterio.Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5200000.0)
    assert classes.shape == (110, 150)
    found = rows(out / "findings.csv")
    numbers = {"bright": 1, "ridge": 2}
    assert {row["label"] for row in found} == set(numbers)
    for label, number in numbers.items():
        assert (classes == number).sum() == sum(float(row["area_px"]) for row in found if row["label"] == label)
    y, x = np.mgrid[:110, :150]
    assert ((classes == 255) == ((x < 40) & (y < 40))).all()
    assert (classes == 0).sum() > 1000  # ground is background


def test_a_class_map_needs_the_image_for_its_masks(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--model", card, "--out", out, "--reports", "findings-csv").code == 0
    scene.rename(tmp_path / "moved.tif")
    said = limner("report", out, "--reports", "class-map")
    assert said.code == 1
    assert "scene must still be where the run read it" in said.err
    assert not list(out.glob("classes-*"))


def test_a_slide_has_an_ome_tiff_of_its_classes(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    slide, out = make_slide(tmp_path / "slide.tif"), tmp_path / "out"
    reports = ("--names", "show", "--reports", "class-map,findings-csv")
    said = limner("run", slide, "--model", slide_card(tmp_path), "--out", out, *reports)
    assert said.code == 0, said.err
    [path] = out.glob("classes-*.ome.tif")
    with tifffile.TiffFile(path) as file:
        classes = file.asarray()
        pixels = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert classes.shape == (320, 320)
    assert float(pixels["PhysicalSizeX"]) == float(pixels["PhysicalSizeY"]) == 1.0
    assert classes[0, 0] == 255  # glass is not analysed
    for label, number in (("bright", 1), ("ridge", 2)):
        areas = [float(row["area_um2"]) for row in rows(out / "findings.csv") if row["label"] == label]
        assert (classes == number).sum() == pytest.approx(sum(areas), abs=1e-6)
