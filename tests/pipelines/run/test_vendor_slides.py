"""End-to-end runs on slides as scanners write them: bounds offsets and damaged tiles."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from limner.pipelines.run.plan import ImagePlan
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run.run_folder import read_entries

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import


@pytest.fixture(autouse=True)
def same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms that are the same in every run."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")


@pytest.fixture(params=["mirax", "leica"])
def bounded(request: pytest.FixtureRequest, tmp_path: Path, scanners: ModuleType) -> tuple[Path, np.ndarray]:
    """A slide whose scan begins at (128, 128), and the scan's pixels, which say where they are."""
    pixels = scanners.smooth(192, 256)
    if request.param == "leica":
        return scanners.leica(tmp_path / "DOE^JANE.scn", pixels, first=(128, 128)), pixels
    return scanners.mirax(tmp_path / "DOE^JANE.mrxs", pixels, first=(2, 2)), pixels


def features(out: Path) -> list[dict]:
    (path,) = out.glob("*.qupath.geojson")
    return json.loads(path.read_text(encoding="utf-8"))["features"]


def test_qupath_coordinates_start_at_the_scanned_part(
    tmp_path: Path, bounded: tuple[Path, np.ndarray], per_tile: str, limner: Limner
) -> None:
    """The oracle: at the position in QuPath's file, the scan is as bright as the finding states."""
    path, pixels = bounded
    out = tmp_path / "out"
    output = limner("run", path, "--model", per_tile, "--out", out, "--set", "tissue=off", "--hd-num", 4)
    assert output.code == 0, output.err
    (image,) = read_record(out).images
    assert image.info.origin == (128, 128)
    found = features(out)
    assert len(found) == 12 * 16, "one finding for each tile of the scan, none for the glass"
    corners = set()
    for feature in found:
        ring = np.array(feature["geometry"]["coordinates"][0])
        (x, y), (right, bottom) = ring.min(axis=0).astype(int), ring.max(axis=0).astype(int)
        assert (right - x, bottom - y) == (16, 16)
        corners.add((x, y))
        measured = feature["properties"]["measurements"]
        assert measured["area_um2"] == 16 * 16 * 0.0625
        assert measured["score"] == pytest.approx(pixels[y : y + 16, x : x + 16].mean() / 255, abs=2 / 255)
    assert corners == {(x, y) for x in range(0, 256, 16) for y in range(0, 192, 16)}
    with (out / "findings.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert min(float(row["x0_px"]) for row in rows) == 128, "tables count in level-0 pixels"
    assert min(float(row["x_um"]) for row in rows) == (128 + 8) * 0.25
    parts = {area.status: area.pixels for area in image.areas}
    assert parts == {"analysed": 256 * 192, "no data": image.info.size[0] * image.info.size[1] - 256 * 192}


def test_qupath_areas_start_at_the_scanned_part(
    tmp_path: Path, bounded: tuple[Path, np.ndarray], per_tile: str, limner: Limner
) -> None:
    square = {"type": "Polygon", "coordinates": [[[32, 16], [96, 16], [96, 64], [32, 64], [32, 16]]]}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "Feature", "geometry": square, "properties": {}}))
    out = tmp_path / "out"
    words = ("--area", tmp_path / "area.geojson", "--set", "tissue=off", "--hd-num", 1)
    assert limner("run", bounded[0], "--model", per_tile, "--out", out, *words).code == 0
    (image,) = read_record(out).images
    assert {area.status: area.pixels for area in image.areas}["analysed"] == 64 * 48
    rings = np.concatenate([feature["geometry"]["coordinates"][0] for feature in features(out)])
    assert (rings.min(axis=0).tolist(), rings.max(axis=0).tolist()) == ([32, 16], [96, 64])


def test_no_name_leaves_the_run(
    tmp_path: Path, bounded: tuple[Path, np.ndarray], per_tile: str, limner: Limner
) -> None:
    out = tmp_path / "out"
    output = limner("run", bounded[0], "--model", per_tile, "--out", out, "--set", "tissue=off")
    told = output.out + output.err
    told += "".join(p.read_text(errors="replace") for p in out.rglob("*") if p.is_file() and p.name != "sources.json")
    assert "DOE" not in told
    assert "JANE" in (out / "sources.json").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the journal, whose lines come in any order and hold seconds, and when the run began."""
    files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in {"results.jsonl", "parts"}}
    return {name: re.sub(rb'"(started|sha256)": "[^"]*"', b"", content) for name, content in files.items()}


@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_damaged_tile_fails_only_its_regions(
    tmp_path: Path,
    scanners: ModuleType,
    make_slide: Callable[..., Path],
    slide_card: Callable[[Path], Path],
    limner: Limner,
    engine: str,
) -> None:
    grid, hole = (10, 9), (4, 4)
    tissue = tifffile.imread(make_slide(tmp_path / "tissue.tif", side=384))
    path = scanners.mirax(tmp_path / "slide.mrxs", tissue, grid=grid, first=(2, 1), microns=1.0, levels=3, beside=2**20)
    words = ("run", path, "--model", slide_card(tmp_path), "--hd-num", 1, "--engine", engine, "--workers", 2)
    sound = tmp_path / "sound"
    assert limner(*words, "--out", sound).code == 0

    data = path.with_suffix("") / "Data0000.dat"
    whole = data.read_bytes()
    offset, length = scanners.mirax_images(path, grid[0])[hole]
    assert min(offset, len(whole) - offset - length) >= 2**20, "a slide is told from another by its ends"
    data.write_bytes(whole[:offset] + bytes(length) + whole[offset + length :])
    out = tmp_path / "out"
    output = limner(*words, "--out", out)
    assert output.code == 1, output.err
    before, after = read_entries(sound), read_entries(out)
    assert set(before) == set(after)
    (image,) = read_record(out).images
    x0, y0 = (at * 64 for at in hole)
    need = set()
    for region in image_regions(out):
        box = region.box
        if (
            before[region.key].status == "done"
            and box.x1 > x0
            and box.x0 < x0 + 64
            and box.y1 > y0
            and box.y0 < y0 + 64
        ):
            need.add(region.key)
    assert len(need) == 16, "two regions of 32 px each way, and those whose halo reaches in"
    assert {key for key, entry in after.items() if entry.status == "failed"} == need
    for key, entry in after.items():
        if key in need:
            assert "must be readable" in entry.error
            assert "level 0, pixels 256–320, 256–320" in entry.error
            assert str(path) not in entry.error
        else:
            assert (entry.status, entry.error) == (before[key].status, before[key].error)
    assert sum(entry.status == "done" for entry in after.values()) > 2 * len(need)
    assert {key for key, _ in image.failures} == need
    assert not image.complete
    assert f"{len(need)} regions failed" in output.out
    again = limner(*words, "--out", out)
    assert again.code == 1, "still damaged: tried again, failed again"

    data.write_bytes(whole)
    output = limner(*words, "--out", out)
    assert output.code == 0, output.err
    assert contents(out) == contents(sound)
    assert read_record(out).images[0].complete


def image_regions(out: Path) -> tuple:
    """The regions of a run's only image."""
    (record,) = json.loads((out / "manifest.json").read_text())["images"]
    return ImagePlan.from_json(record).regions
