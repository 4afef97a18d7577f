"""End-to-end runs on small scenes: findings, errors, resuming."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run.run_folder import RunFolder, add_checksum, read_entries
from rasterio.features import shapes
from shapely.geometry import shape

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
TABLES = ("areas.csv", "files.csv", "findings.csv", "summary.csv")
REPORTS = (*TABLES, "findings.geojson", "findings.gpkg", "findings-scene.parquet", "overview-scene.png", "report.html")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    """Every report of a run; not the journal, whose lines may come in any order."""
    return {
        p.name: p.read_bytes()
        for p in sorted(folder.iterdir())
        if p.name not in {"manifest.json", "results.jsonl", "parts"}
    }


def test_findings_match_the_network_on_the_whole_image(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    """The oracle: the same convolution over the whole picture in numpy, traced in one piece."""
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--hd-num", 4)
    assert output.code == 0, output.err
    assert sorted(contents(tmp_path / "out")) == sorted(REPORTS)
    with rasterio.open(scene) as raster:
        native, valid = raster.read(1).astype(np.float32), raster.read_masks(1) > 0
    value = np.where(valid, (native - 1000) / 256, 0)
    padded = np.pad(value, 1)
    ridge = 4 * value - padded[:-2, 1:-1] - padded[2:, 1:-1] - padded[1:-1, :-2] - padded[1:-1, 2:]
    classes = np.argmax([-value, value, ridge], axis=0).astype(np.uint8)
    wanted = valid & (classes > 0)
    expected = [(shape(s), v) for s, v in shapes(classes, mask=wanted, connectivity=4)]
    (image,) = read_record(tmp_path / "out").images
    found = image.findings()
    assert len(found) == len(expected) > 20
    for label, value_ in (("bright", 1), ("ridge", 2)):
        ours = sorted((f.geometry for f in found if f.label == label), key=lambda g: g.bounds)
        theirs = sorted((g for g, v in expected if v == value_), key=lambda g: g.bounds)
        assert len(ours) == len(theirs)
        assert sum(g.area for g in ours) == sum(g.area for g in theirs) == (classes[wanted] == value_).sum()
    assert {area.status: area.pixels for area in image.areas} == {"analysed": 150 * 110 - 1600, "no data": 1600}


def test_results_go_to_stdout_and_messages_to_stderr(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--hd-num", 1)
    for words in ("bright", "ridge", "analysed", "no data", "findings.geojson", "Research use only"):
        assert words in output.out
        assert words not in output.err
    assert "regions" in output.err
    assert "Traceback" not in output.err


def test_reports_are_written_again_with_the_same_bytes(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    limner("run", scene, "--out", out, "--model", card)
    before = contents(out)
    for name in before:
        (out / name).unlink()
    output = limner("report", out)
    assert output.code == 0
    assert contents(out) == before
    assert len(output.out.splitlines()) == len(before)


@pytest.mark.parametrize("stated", ["", "ACTIVE"])
def test_threads_of_torch_sleep_while_they_wait(
    tmp_path: Path, scene: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch, stated: str
) -> None:
    """OpenMP reads this when torch is loaded. What the user stated stays."""
    monkeypatch.setenv("OMP_WAIT_POLICY", stated)
    if not stated:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    assert limner("run", scene, "--out", tmp_path / "out", "--model", "none").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == (stated or "PASSIVE")


def test_one_report_can_be_requested(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    output = limner("run", scene, "--out", out, "--model", card, "--reports", "geojson", "--reports", "files-csv")
    assert output.code == 0
    assert sorted(contents(out)) == ["files.csv", "findings.geojson"]
    assert limner("report", out, "--reports", "summary-csv").code == 0
    assert "summary.csv" in contents(out)


def test_reports_are_written_again_with_other_options(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out, page = tmp_path / "out", tmp_path / "out" / "report.html"
    limner("run", scene, "--out", out, "--model", card, "--reports", "html", "--set", "report_options.html.images=50")
    before = page.read_bytes()
    for words in (("--set", "report_options.html.findings=5"), ("--report-options", "html.findings=5")):
        assert limner("report", out, *words).code == 0
        assert len(page.read_bytes()) < len(before)
    assert limner("report", out).code == 0
    assert page.read_bytes() == before
    refused = limner("report", out, "--set", "hd_num=9")
    assert (refused.code, "hd_num" in refused.err) == (2, True), refused.err


def test_reports_do_not_need_the_image(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    limner("run", scene, "--out", out, "--model", card)
    before = contents(out)
    scene.unlink()
    assert limner("report", out).code == 0
    after = contents(out)
    assert {name for name in before if before[name] != after[name]} == {"overview-scene.png", "report.html"}


def test_only_the_requested_labels_are_reported(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--out", out, "--model", card, "--labels", "ridge").code == 0
    assert {row["label"] for row in rows(out / "findings.csv")} == {"ridge"}
    output = limner("run", scene, "--out", tmp_path / "2", "--model", card, "--labels", "ridge,water")
    assert output.code == 2
    assert "water" in output.err
    assert "bright, ridge" in output.err


def test_nodata_regions_are_skipped_and_counted(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    sums = {}
    for name, skip in (("skipping", "true"), ("reading", "false")):
        out = tmp_path / name
        limner("run", scene, "--out", out, "--model", card, "--hd-num", 1, "--set", f"skip_empty={skip}")
        (image,) = read_record(out).images
        sums[name] = {area.status: (area.pixels, area.regions) for area in image.areas}
        assert sum(area.pixels for area in image.areas) == 150 * 110
    assert sums["skipping"] == sums["reading"]
    skipped = [entry for entry in read_entries(tmp_path / "skipping").values() if entry.status == "skipped"]
    assert [entry.coverage for entry in skipped] == [None]


@pytest.mark.parametrize(("valid", "skip", "analysed"), [(1, True, 0), (1, False, 1), (2, True, 2)])
def test_what_fills_no_pixel_of_the_overview_by_half_is_skipped(
    tmp_path: Path, limner: Limner, valid: int, *, skip: bool, analysed: int
) -> None:
    """Where a pixel of the overview is 2 × 2 pixels of the image."""
    pixels = np.zeros((3, 4, 4096), dtype=np.uint8)
    pixels[:, 2, 2000 : 2000 + valid] = 100
    place: Any = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5200000), "nodata": 0}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=4096, height=4, count=3, dtype="uint8", **place
    ) as file:
        file.write(pixels)
    empty = "--skip-empty" if skip else "--no-skip-empty"
    said = limner("run", tmp_path / "a.tif", "--model", "threshold:red", empty, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    (image,) = read_record(tmp_path / "out").images
    assert sum(area.pixels for area in image.areas if area.status == "analysed") == analysed


def test_a_geostationary_image_with_the_limb_of_the_earth_has_no_square_metres(tmp_path: Path, limner: Limner) -> None:
    disk = {"crs": "+proj=geos +h=35785831 +lon_0=0 +ellps=GRS80 +sweep=y", "width": 64, "height": 64}
    place: Any = {**disk, "transform": rasterio.Affine(174000, 0, -5568000, 0, -174000, 5568000)}
    with rasterio.open(tmp_path / "disk.tif", "w", driver="GTiff", count=3, dtype="uint8", **place) as file:
        file.write(np.random.default_rng(1).integers(1, 255, (3, 64, 64), dtype=np.uint8))
    said = limner("run", tmp_path / "disk.tif", "--model", "threshold:red", "--out", tmp_path / "out")
    assert said.code == 0, said.err
    areas = {row["item"]: row for row in rows(tmp_path / "out" / "areas.csv")}
    assert float(areas["analysed"]["area_px"]) == 64 * 64
    assert {row["area_m2"] for row in areas.values()} == {""}
    known = [float(row["area_m2"]) for row in rows(tmp_path / "out" / "findings.csv") if row["area_m2"]]
    assert known
    assert max(known) < 5.1e14


def area_file(path: Path, box: tuple[float, float, float, float]) -> Path:
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    return path


def test_only_the_area_of_interest_is_analysed(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    area = area_file(tmp_path / "area.geojson", (15.005, 46.945, 15.01, 46.948))
    out = tmp_path / "out"
    output = limner("run", scene, "--out", out, "--model", card, "--hd-num", 1, "--area", area)
    assert output.code == 0, output.err
    (image,) = read_record(out).images
    parts = {area.status: area.pixels for area in image.areas}
    assert set(parts) == {"analysed", "skipped"}
    assert sum(parts.values()) == 150 * 110
    assert image.roi is not None
    assert parts["analysed"] == pytest.approx(image.roi.area, rel=0.03)
    assert all(f.geometry.centroid.distance(image.roi) < 1 for f in image.findings())
    statuses = [entry.status for entry in read_entries(out).values()]
    assert statuses.count("skipped") > statuses.count("done")


# Wrong input, each with its own message and nothing lost.


def test_not_an_image(tmp_path: Path, card: Path, limner: Limner) -> None:
    (tmp_path / "letter.tif").write_text("Dear Sir")
    output = limner("run", tmp_path / "letter.tif", "--out", tmp_path / "out", "--model", card)
    assert output.code == 3
    assert "letter.tif" in output.err
    assert "Traceback" not in output.err
    assert not (tmp_path / "out").exists()


def test_no_such_file(tmp_path: Path, card: Path, limner: Limner) -> None:
    output = limner("run", tmp_path / "gone.tif", "--out", tmp_path / "out", "--model", card)
    assert output.code in {2, 3}
    assert "gone.tif" in output.err
    assert "Traceback" not in output.err


def test_one_bad_file_among_good_ones(
    tmp_path: Path, card: Path, make_scene: Callable[..., Path], limner: Limner
) -> None:
    (tmp_path / "in").mkdir()
    good = [make_scene(tmp_path / "in" / f"{name}.tif", width=64, height=64) for name in ("a", "c")]
    bad = tmp_path / "in" / "b.tif"
    bad.write_bytes(good[0].read_bytes()[:60])
    (tmp_path / "in" / "notes.txt").write_text("hello")
    output = limner("run", tmp_path / "in", "--out", tmp_path / "out", "--model", card)
    assert output.code == 1
    assert "b.tif" in output.err
    by_name = {Path(row["path"]).name: row for row in rows(tmp_path / "out" / "files.csv")}
    assert {name: row["status"] for name, row in by_name.items()} == {
        "a.tif": "read",
        "b.tif": "failed",
        "c.tif": "read",
        "notes.txt": "skipped",
    }
    assert by_name["b.tif"]["reason"]
    assert {row["image"] for row in rows(tmp_path / "out" / "findings.csv")} == {"a", "c"}


def test_a_file_truncated_in_the_middle(tmp_path: Path, card: Path, scene: Path, limner: Limner) -> None:
    whole = scene.read_bytes()
    scene.write_bytes(whole[: len(whole) * 2 // 3])
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--hd-num", 1)
    assert output.code == 1
    assert "Traceback" not in output.err
    (image,) = read_record(tmp_path / "out").images
    parts = {area.status: area.pixels for area in image.areas}
    assert parts["unreadable"] > 0
    assert parts["analysed"] > 0
    assert sum(parts.values()) == 150 * 110
    assert image.failures
    assert rows(tmp_path / "out" / "findings.csv")
    again = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--hd-num", 1)
    assert again.code == 1
    assert f"{len(image.failures)} regions failed" in again.out


def test_failed_regions_are_retried(tmp_path: Path, card: Path, scene: Path, limner: Limner) -> None:
    words = ("run", scene, "--model", card, "--hd-num", 1)
    limner(*words, "--out", tmp_path / "whole")
    limner(*words, "--out", tmp_path / "out")
    journal = tmp_path / "out" / "results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    failed = json.loads(lines[-1]) | {"status": "failed", "error": "a hiccup", "findings": 0, "coverage": None}
    failed = {key: value for key, value in failed.items() if key not in {"sha256", "part", "row"}}
    journal.write_bytes("".join(lines[:-1]).encode() + add_checksum(json.dumps(failed, separators=(",", ":")).encode()))
    assert limner("report", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") != contents(tmp_path / "whole")
    assert limner(*words, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_no_crs(tmp_path: Path, card: Path, make_scene: Callable[..., Path], limner: Limner) -> None:
    scene = make_scene(tmp_path / "scene.tif", crs=None)
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card)
    assert output.code == 2
    assert "--crs" in output.err
    assert limner("run", scene, "--out", tmp_path / "out", "--model", card, "--crs", "EPSG:32633").code == 0


def test_bands_missing_for_the_model(tmp_path: Path, scene: Path, limner: Limner) -> None:
    output = limner("run", scene, "--out", tmp_path / "out", "--model", "csmask")
    assert output.code == 2
    for word in ("blue", "nir", "--bands"):
        assert word in output.err


def test_the_default_model_does_not_suit(tmp_path: Path, scene: Path, limner: Limner) -> None:
    output = limner("run", scene, "--out", tmp_path / "out")
    assert output.code == 2
    assert "limner models" in output.err


def test_an_unknown_model_names_the_nearest(tmp_path: Path, scene: Path, limner: Limner) -> None:
    output = limner("run", scene, "--out", tmp_path / "out", "--model", "csmsk")
    assert output.code == 2
    assert "csmask" in output.err


def test_a_model_file_whose_hash_differs(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    with (tmp_path / "toy.onnx").open("ab") as file:
        file.write(b"\0")
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card)
    assert output.code == 2
    assert "sha256" in output.err
    assert not (tmp_path / "out").exists()


def test_missing_weights_without_network(
    tmp_path: Path, scene: Path, make_card: Callable[..., Path], limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    for key, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "RETRIES": "0", "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    card = make_card(tmp_path, weights="pypi:limner-toy==1.0#toy.onnx", sha256="0" * 64)
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card)
    assert output.code == 2
    assert "--fetch" in output.err
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--fetch")
    assert output.code == 2
    assert "network" in output.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "word"), [(("--hd-num", 9), "hd_num"), (("--labels", "ridge"), "labels"), (("--overlap", 2), "overlap")]
)
def test_an_output_folder_of_another_run(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, change: tuple[object, ...], word: str
) -> None:
    out = tmp_path / "out"
    assert limner("run", scene, "--out", out, "--model", card).code == 0
    before = contents(out)
    output = limner("run", scene, "--out", out, "--model", card, *change)
    assert output.code == 2
    assert word in output.err
    assert contents(out) == before
    assert limner("run", scene, "--out", out, "--model", card, "--batch", 5).code == 0


def test_an_input_that_changed_since(
    tmp_path: Path, scene: Path, card: Path, make_scene: Callable[..., Path], limner: Limner
) -> None:
    out = tmp_path / "out"
    limner("run", scene, "--out", out, "--model", card)
    make_scene(scene, metres=10.001)
    output = limner("run", scene, "--out", out, "--model", card)
    assert output.code == 2
    assert f"content of {scene}" in " ".join(output.err.split())


def test_an_output_folder_of_something_else(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "findings.csv").write_text("mine")
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card)
    assert output.code == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["findings.csv"]


def test_two_runs_at_once(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    with RunFolder.open(tmp_path / "out"):
        output = limner("run", scene, "--out", tmp_path / "out", "--model", card)
    assert output.code == 2
    assert "another run" in output.err


@pytest.mark.parametrize("box", [(10.0, 46.0, 10.1, 46.1), (15.0, -46.9, 15.1, -46.8)])
def test_an_area_of_interest_outside_the_scene(
    tmp_path: Path, scene: Path, card: Path, limner: Limner, box: tuple[float, float, float, float]
) -> None:
    area = area_file(tmp_path / "area.geojson", box)
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--area", area)
    assert output.code == 2
    assert "area" in output.err
    assert not (tmp_path / "out").exists()


def test_an_image_beside_the_area_of_interest_is_skipped_where_another_lies_in_it(
    tmp_path: Path, scene: Path, card: Path, make_scene: Callable[..., Path], limner: Limner
) -> None:
    far = make_scene(tmp_path / "far.tif", crs="EPSG:32610")
    area = area_file(tmp_path / "area.geojson", (15.005, 46.945, 15.01, 46.948))
    output = limner("run", scene, far, "--out", tmp_path / "out", "--model", card, "--area", area)
    assert output.code == 0, output.err
    statuses = {Path(row["path"]).name: row["status"] for row in rows(tmp_path / "out" / "files.csv")}
    assert statuses == {"scene.tif": "read", "far.tif": "skipped"}


def test_no_such_area_file(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--area", tmp_path / "gone.geojson")
    assert output.code == 2
    assert "gone.geojson" in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize(("resolution", "code"), [("100m", 2), ("10m", 0), ("native", 0), ("4m", 2), ("1um", 2)])
def test_a_resolution_that_does_not_suit_the_model(
    scene: Path, card: Path, limner: Limner, resolution: str, code: int
) -> None:
    output = limner("plan", scene, "--model", card, "--resolution", resolution)
    assert output.code == code
    if code:
        assert "10 m" in output.err


def test_pixels_too_coarse_for_the_model_are_not_enlarged_to_suit_it(
    tmp_path: Path, card: Path, make_scene: Callable[..., Path], limner: Limner
) -> None:
    scene = make_scene(tmp_path / "scene.tif", metres=100.0)
    output = limner("plan", scene, "--model", card)
    assert output.code == 2
    assert "100 m" in output.err


def test_no_inputs_and_no_output(tmp_path: Path, scene: Path, limner: Limner) -> None:
    assert limner("run", "--out", tmp_path / "out").code == 2
    assert limner("run", scene).code == 2
    assert limner("report", tmp_path).code == 2


def test_an_unknown_report_is_refused_before_anything_runs(
    tmp_path: Path, scene: Path, card: Path, limner: Limner
) -> None:
    output = limner("run", scene, "--out", tmp_path / "out", "--model", card, "--reports", "shapefile")
    assert output.code == 2
    assert "geojson" in output.err
    assert not (tmp_path / "out").exists()


def test_a_moved_run_is_still_a_run(tmp_path: Path, scene: Path, card: Path, limner: Limner) -> None:
    limner("run", scene, "--out", tmp_path / "a", "--model", card)
    before = contents(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert limner("run", scene, "--out", tmp_path / "b", "--model", card).code == 0
    assert contents(tmp_path / "b") == before
