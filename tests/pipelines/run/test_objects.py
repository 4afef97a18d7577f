"""Settings of objects in whole runs: accounted for, the same for any engine, and changed without a new run."""

import csv
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import tifffile
from limner.model import findings_table
from limner.pipelines.run import findings_cache, refining
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run_result import Run
from limner.readers.errors import RequestError

Limner = Callable[..., Any]  # of conftest, which tests cannot import
SETTINGS = ("--min-area", "500m2", "--fill-holes", "1000m2", "--smooth", "--simplify", "5m", "--instances", "bright")
REPORTS = ("--reports", "findings-csv,summary-csv,geojson,geopackage,class-map")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    """Every report of a run."""
    kept = {"manifest.json", "results.jsonl", "sources.json", "parts"}
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in kept}


def by_label(folder: Path, entry: str) -> dict[str, tuple[float, float, int]]:
    """The sum of (pixels, m², findings) by label of a kind of row of areas.csv."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for row in rows(folder / "areas.csv"):
        if row["entry"] == entry:
            sums[row["item"]][0] += float(row["area_px"])
            sums[row["item"]][1] += float(row.get("area_m2") or "nan")
            sums[row["item"]][2] += int(row["findings"])
    return {label: (a, b, int(n)) for label, (a, b, n) in sums.items()}


@pytest.mark.slow
def test_areas_add_up_and_regions_and_engines_make_no_difference(
    tmp_path: Path, scene: Path, card: Path, limner: Limner
) -> None:
    plain = tmp_path / "plain"
    assert limner("run", scene, "--model", card, "--out", plain, *REPORTS).code == 0
    found: list[dict[str, bytes]] = []
    for words in ((), ("--hd-num", "1"), ("--hd-num", "4", "--engine", "local", "--workers", "2")):
        out = tmp_path / "-".join(["run", *words])
        said = limner("run", scene, "--model", card, "--out", out, *REPORTS, *SETTINGS, *words)
        assert said.code == 0, said.err
        assert "smaller than 500 m²" in said.out
        found.append(contents(out))
    for other in found[1:]:
        assert {name for name in found[0] if found[0][name] != other[name]} <= {"summary.csv", "areas.csv"}
    changed, before = by_label(out, "change"), by_label(plain, "label")
    for label, (pixels, m2, count) in by_label(out, "label").items():
        assert count == before[label][2] + changed[label][2]
        assert pixels == pytest.approx(before[label][0] + changed[label][0], abs=0.01)
        assert m2 == pytest.approx(before[label][1] + changed[label][1], rel=1e-7)
    table = rows(out / "findings.csv")
    assert len(table) == sum(count for *_, count in by_label(out, "label").values())
    assert all(float(row["number.pixels"]) >= 5 for row in table if row["label"] == "bright")
    assert json.loads((out / "findings.geojson").read_text())["limner"]["model"]["objects"].startswith("areas below")
    assert json.loads((out / "manifest.json").read_text())["config"]["min_area"] == "500m2"


def test_reports_change_objects_without_a_new_run(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--model", card, "--out", out, *REPORTS).code == 0
    first = contents(out)
    said = limner("report", out, *SETTINGS)
    assert said.code == 0, said.err
    names = {name for name, content in contents(out).items() if content != first[name]}
    assert {"findings.csv", "areas.csv", "findings.geojson", "findings.gpkg"} <= names
    assert limner("report", out).code == 0
    assert contents(out) == first
    assert limner("run", scene, "--model", card, "--out", out, *REPORTS, *SETTINGS).code == 0  # resumed, with others
    assert contents(out)["findings.csv"] != first["findings.csv"]


def test_instances_have_measures_of_their_pixels(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    said = limner("run", scene, "--model", card, "--out", out, "--reports", "findings-csv", "--instances", "bright")
    assert said.code == 0, said.err
    table = [row for row in rows(out / "findings.csv") if row["label"] == "bright"]
    with rasterio.open(scene) as raster:
        red = raster.read(1)
    (image,) = read_record(out).images
    shapes = [one.geometry for one in image.findings() if one.label == "bright"]
    assert len(table) == len(shapes) > 3
    y, x = np.mgrid[: red.shape[0], : red.shape[1]] + 0.5
    for row, shape in zip(table, shapes, strict=True):
        inside = shapely.contains_xy(shape, x, y)
        assert float(row["number.pixels"]) == inside.sum()
        assert float(row["mean.red"]) == pytest.approx(red[inside].mean(), abs=0.001)
        assert 0 < float(row["circularity"]) <= 1
        assert 0.7 * 10 * shape.length < float(row["perimeter_m"]) <= 10 * shape.length
    assert not any(row["perimeter_m"] for row in rows(out / "findings.csv") if row["label"] != "bright")
    scene.rename(tmp_path / "moved.tif")
    assert limner("report", out, "--reports", "findings-csv,summary-csv").code == 0
    assert "mean.red" not in rows(out / "findings.csv")[0]
    assert any("intensities not measured" in row["reason"] for row in rows(out / "areas.csv"))


def test_a_least_area_above_everything_is_told_and_loses_nothing(
    tmp_path: Path, scene: Path, card: Path, limner: Limner
) -> None:
    out = tmp_path / "out"
    said = limner("run", scene, "--model", card, "--out", out, "--reports", "summary-csv", "--min-area", "100km2")
    assert said.code == 0
    assert "no area is left: the largest has" in said.out
    assert by_label(out, "label")["bright"][2] == 0
    assert limner("report", out, "--min-area", "off").code == 0
    assert by_label(out, "label")["bright"][2] > 0
    assert not by_label(out, "change")


def test_a_run_is_opened_with_other_objects(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--model", card, "--out", out, "--reports", "summary-csv").code == 0
    plain, fewer = Run.open(out), Run.open(out, min_area="5px", instances="bright")
    found: Any = fewer.findings
    assert (found["number.pixels"] >= 5).all()
    assert "circularity" in found
    assert len(plain.findings) > (found["label"] == "ridge").sum()
    with pytest.raises(RequestError, match="Did you mean 'min_area'"):
        Run.open(out, min_aera="5px")
    with pytest.raises(RequestError, match="must have a unit of maps"):
        Run.open(out, min_area="5um2")


def test_findings_that_are_no_areas_are_mentioned(tmp_path: Path, scene: Path, per_tile: str, limner: Limner) -> None:
    out = tmp_path / "out"
    words = ("--model", per_tile, "--out", out, "--reports", "summary-csv")
    grey = tmp_path / "grey.tif"
    with rasterio.open(scene) as raster:
        profile, pixels = raster.profile, raster.read(1)
    with rasterio.open(grey, "w", **{**profile, "count": 3, "photometric": "RGB"}) as raster:
        raster.write(np.stack([pixels] * 3))
    said = limner("run", grey, *words, "--min-area", "500m2")
    assert said.code == 0, said.err
    assert "nothing changed: no finding is an area of a class map" in said.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--min-area", "50um2"),
            "--min-area for scene must have a unit of maps. found: 50 µm² try: For example --min-area 500m2.",
        ),
        (
            ("--simplify", "2um"),
            "--simplify for scene must have a unit of maps. found: 2 µm try: For example --simplify 5m.",
        ),
        (("--fill-holes", "5 parsecs"), "must be a positive area with one of the units"),
        (("--min-area", "-5m2"), "must be a positive area"),
        (("--min-area", "0m2"), "must be a positive area"),
        (("--simplify", "5m2"), "must be a positive length"),
        (
            ("--instances", "birght"),
            "--instances must name labels of the model. found: birght try: Did you mean 'bright'?",
        ),
    ],
)
def test_a_unit_must_suit_the_image(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, words: tuple[str, ...], told: str
) -> None:
    said = limner("run", scene, "--model", card, "--out", tmp_path / "out", *words)
    assert said.code == 2
    assert told in " ".join(said.err.split())
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.slow
def test_a_size_on_the_ground_needs_a_pixel_size(
    tmp_path: Path, make_scene: Callable[..., Path], card: Path, limner: Limner
) -> None:
    bare = make_scene(tmp_path / "bare.tif", crs=None)
    given = ("--model", card, "--out", tmp_path / "out", "--reports", "summary-csv", "--resolution", "native")
    said = limner("run", bare, *given, "--min-area", "500m2")
    assert said.code == 2
    assert "must be in px, since the size of its pixels is not known" in said.err
    said = limner("run", bare, *given, "--min-area", "5px")
    assert said.code == 0, said.err


@pytest.mark.slow
def test_a_slide_is_refused_square_metres_and_its_edge_is_no_object(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    slide, card = make_slide(tmp_path / "slide.tif"), slide_card(tmp_path)
    reports = ("--reports", "summary-csv,findings-csv", "--names", "show")
    said = limner("run", slide, "--model", card, "--out", tmp_path / "bad", *reports, "--min-area", "500m2")
    assert said.code == 2
    assert "must have a unit of slides" in said.err
    assert "--min-area 50um2" in said.err
    for name, words in (("edge", ()), ("kept", ("--tissue-edge", "off"))):
        said = limner("run", slide, "--model", card, "--out", tmp_path / name, *reports, *words)
        assert said.code == 0, said.err
    edge, kept = (by_label(tmp_path / name, "label") for name in ("edge", "kept"))
    changes = by_label(tmp_path / "edge", "change")
    assert changes
    assert not by_label(tmp_path / "kept", "change")
    for label in kept:
        assert edge[label][0] == pytest.approx(kept[label][0] + changes.get(label, (0.0, 0.0, 0))[0], abs=0.01)


@pytest.mark.slow
def test_many_objects_are_kept_outside_of_memory_with_the_same_bytes(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--model", card, "--out", out, *REPORTS, *SETTINGS).code == 0
    first = contents(out)
    monkeypatch.setattr(findings_cache, "_IN_MEMORY", 3)
    monkeypatch.setattr(refining, "BATCH", 7)
    monkeypatch.setattr(findings_table, "BATCH", 7)
    assert limner("report", out).code == 0
    assert contents(out) == first
    monkeypatch.setattr(refining, "MOST_VERTICES", 10)
    assert limner("report", out).code == 0
    assert any("outlines not changed" in row["reason"] for row in rows(out / "areas.csv"))


def test_pixels_of_slides_without_a_size_are_counted(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    slide = make_slide(tmp_path / "slide.tif", microns=None)
    with tifffile.TiffFile(slide) as file:
        assert file.pages[0].shape[:2] == (640, 640)
    given = (slide, "--model", slide_card(tmp_path), "--out", tmp_path / "out", "--resolution", "native")
    said = limner("run", *given, "--min-area", "50um2", "--names", "show")
    assert said.code in {2, 3}
    assert "px" in said.err


def test_areas_that_are_only_divided_change_by_nothing(
    tmp_path: Path, make_slide: Callable[..., Path], slide_card: Callable[[Path], Path], limner: Limner
) -> None:
    """Sums of parts differ from the whole in the last digit."""
    slide, out = make_slide(tmp_path / "slide.tif", microns=0.3), tmp_path / "out"
    words = ("--model", slide_card(tmp_path), "--instances", "all", "--tissue-edge", "off", "--reports", "summary-csv")
    said = limner("run", slide, "--out", out, *words)
    assert said.code == 0, said.err
    changes = [row for row in rows(out / "areas.csv") if row["reason"] == "split into instances"]
    assert any(int(row["findings"]) > 0 for row in changes)
    assert {float(row["area_mm2"]) for row in changes} == {0.0}
