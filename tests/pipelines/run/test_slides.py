"""End-to-end runs on slides: pixel size, tissue, areas of interest."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run.run_folder import read_entries
from rasterio.features import shapes
from shapely.geometry import shape

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms that are the same in every run."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", KEY)


@pytest.fixture
def slide(tmp_path: Path, make_slide: Callable[..., Path]) -> Path:
    return make_slide(tmp_path / "slide.tif")


@pytest.fixture
def card(tmp_path: Path, slide_card: Callable[[Path], Path]) -> Path:
    return slide_card(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every report of a run."""
    return {
        p.name: p.read_bytes()
        for p in sorted(folder.iterdir())
        if p.name not in {"manifest.json", "results.jsonl", "sources.json", "parts"}
    }


def test_findings_match_the_network_on_the_whole_slide(tmp_path: Path, slide: Path, card: Path, limner: Limner) -> None:
    """The oracle: the level that has just this scale, the same convolution in numpy, traced in one piece."""
    found = {}
    for hd_num in (1, 4, 25):
        out = tmp_path / str(hd_num)
        output = limner("run", slide, "--out", out, "--model", card, "--hd-num", hd_num, "--set", "tissue=off")
        assert output.code == 0, output.err
        (image,) = read_record(out).images
        assert image.scale == (2.0, 2.0)
        found[hd_num] = [(f.label, f.geometry.wkt, f.score) for f in image.findings()]
    assert found[1] == found[4] == found[25]
    red = tifffile.imread(slide, level=1)[..., 0].astype(np.float32)
    value = (red - 160) / 32
    padded = np.pad(value, 1)
    ridge = 4 * value - padded[:-2, 1:-1] - padded[2:, 1:-1] - padded[1:-1, :-2] - padded[1:-1, 2:]
    classes = np.argmax([-value, value, ridge], axis=0).astype(np.uint8)
    inner = shapely.box(4, 4, 636, 636)  # off the rim, where what is beyond the picture is filled
    for label, number in (("bright", 1), ("ridge", 2)):
        ours = shapely.union_all([shapely.from_wkt(w) for name, w, _ in found[1] if name == label])
        theirs = shapely.union_all([shape(s) for s, v in shapes(classes, mask=classes == number, connectivity=4)])
        theirs = shapely.transform(theirs, lambda xy: xy * 2.0)
        assert ours.area > 1000
        assert ours.intersection(inner).symmetric_difference(theirs.intersection(inner)).area == 0


def test_glass_is_skipped_and_counted(tmp_path: Path, slide: Path, card: Path, limner: Limner) -> None:
    out = tmp_path / "out"
    assert limner("run", slide, "--out", out, "--model", card, "--hd-num", 1).code == 0
    (image,) = read_record(out).images
    parts = {(area.status, area.reason): area for area in image.areas}
    assert set(parts) == {("analysed", ""), ("skipped", "no tissue")}
    assert math.fsum(area.pixels for area in image.areas) == 640 * 640
    assert math.fsum(area.m2 or 0 for area in image.areas) == pytest.approx(640 * 640 * 0.25e-12, rel=1e-9)
    disc = math.pi * (640 * 0.3) ** 2
    assert 0.9 < parts["analysed", ""].pixels / disc < 1.15
    reasons = {entry.error for entry in read_entries(out).values() if entry.status == "skipped"}
    assert reasons == {"no tissue"}
    assert image.roi is not None
    outside = [f for f in image.findings() if f.geometry.difference(image.roi.buffer(2.1)).area > 0]
    assert not outside
    manifest = json.loads((out / "manifest.json").read_text())
    assert "Otsu" in manifest["images"][0]["tissue"]


def test_tissue_off_analyses_the_whole_slide(tmp_path: Path, slide: Path, card: Path, limner: Limner) -> None:
    assert limner("run", slide, "--out", tmp_path / "out", "--model", card, "--set", "tissue=off").code == 0
    (image,) = read_record(tmp_path / "out").images
    assert [(area.status, area.pixels) for area in image.areas] == [("analysed", 640 * 640)]


def drawn(path: Path, box: tuple[float, float, float, float]) -> Path:
    polygon = shapely.geometry.mapping(shapely.box(*box))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": polygon}]}))
    return path


def test_an_area_drawn_in_qupath_limits_or_replaces_the_tissue(
    tmp_path: Path, slide: Path, card: Path, limner: Limner
) -> None:
    area = drawn(tmp_path / "area.geojson", (300, 100, 620, 400))  # half tissue, half glass
    pixels = {}
    for tissue in ("auto", "off"):
        out = tmp_path / tissue
        words = ("--area", area, "--set", f"tissue={tissue}", "--hd-num", 1)
        output = limner("run", slide, "--out", out, "--model", card, *words)
        assert output.code == 0, output.err
        (image,) = read_record(out).images
        assert math.fsum(one.pixels for one in image.areas) == 640 * 640
        pixels[tissue] = {(one.status, one.reason): one.pixels for one in image.areas}
    assert pixels["off"]["analysed", ""] == 320 * 300
    assert ("skipped", "no tissue") not in pixels["off"]
    assert 0.3 < pixels["auto"]["analysed", ""] / (320 * 300) < 0.9
    assert pixels["auto"]["skipped", "outside the area of interest"] > 0


def test_an_unknown_pixel_size_names_the_remedy(
    tmp_path: Path, card: Path, make_slide: Callable[..., Path], limner: Limner
) -> None:
    slide = make_slide(tmp_path / "plain.tif", microns=None)
    words = ("run", slide, "--reader", "pyramid", "--model", card, "--out", tmp_path / "out")
    output = limner(*words)
    assert output.code == 2
    assert "--microns-per-pixel" in output.err
    assert "spacing_csv" in output.err
    assert "--crs" not in output.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"sources.json"}  # to find its name
    assert limner(*words, "--microns-per-pixel", "0.5").code == 0
    (tmp_path / "slides.csv").write_text("name,mpp_x,mpp_y\nplain,0.5,0.5\n")
    table = ("--set", f"reader_options.spacing_csv={tmp_path / 'slides.csv'}")
    assert limner(*words[:-1], tmp_path / "2", *table).code == 0


def test_engines_and_batches_give_the_same_bytes(tmp_path: Path, slide: Path, card: Path, limner: Limner) -> None:
    made = []
    for engine, batch in (("inline", 1), ("inline", 5), ("local", 2)):
        out = tmp_path / f"{engine}{batch}"
        words = ("--engine", engine, "--workers", 2, "--batch", batch, "--hd-num", 4)
        assert limner("run", slide, "--out", out, "--model", card, *words).code == 0
        made.append(contents(out))
    assert made[0] == made[1] == made[2]
    assert len(made[0]["findings.csv"].splitlines()) > 20


def test_a_run_makes_and_keeps_a_key(
    tmp_path: Path, slide: Path, card: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIMNER_PSEUDONYM_KEY")
    out = tmp_path / "out"
    assert limner("run", slide, "--out", out, "--model", card).code == 0
    for name in ("pseudonym.key", "sources.json"):
        assert (out / name).stat().st_mode & 0o777 == 0o600
    before = {**contents(out), "manifest.json": (out / "manifest.json").read_bytes()}
    assert limner("run", slide, "--out", out, "--model", card).code == 0
    assert {**contents(out), "manifest.json": (out / "manifest.json").read_bytes()} == before
    (picture,) = out.glob("overview-*.png")
    picture.unlink()
    assert limner("report", out).code == 0
    assert contents(out) == contents(out) | {picture.name: before[picture.name]}
    with (out / "files.csv").open() as table:
        (row,) = csv.DictReader(table)
    assert row["path"].startswith("file-")
    assert row["status"] == "read"


def test_cores_of_a_microarray_are_a_row_each(tmp_path: Path, card: Path, limner: Limner) -> None:
    pixels, turn = np.full((900, 1100, 3), 243, dtype=np.uint8), math.radians(8)
    y, x = np.mgrid[:900, :1100]
    for row in range(3):
        for column in range(4):
            at = (
                230 + 220 * column * math.cos(turn) - 240 * row * math.sin(turn),
                130 + 220 * column * math.sin(turn) + 240 * row * math.cos(turn),
            )
            if (row, column) != (1, 2):
                pixels[(x - at[0]) ** 2 + (y - at[1]) ** 2 < 80**2] = (190, 120, 170)
    path = tmp_path / "array.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), metadata=None)
    out, how = tmp_path / "out", ("--microns-per-pixel", "1", "--reports", "cores,summary-csv")
    output = limner("run", path, "--out", out, "--model", card, "--tma", *how)
    assert output.code == 0, output.err
    with (out / "cores.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["core"] for row in found if row["status"] == "missing"] == ["B-3"]
    assert len(found) == 12
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        [whole] = csv.DictReader(file)
    assert sum(float(row["tissue_mm2"]) for row in found) == pytest.approx(float(whole["analysed_mm2"]), rel=0.1)
    for column in [name for name in whole if name.startswith("area_mm2.")]:
        divided = sum(float(row[column]) for row in found if row[column])
        assert divided == pytest.approx(float(whole[column]), rel=1e-6, abs=1e-9)
    assert (out / f"cores-{found[0]['image']}.png").is_file()
    output = limner("run", path, "--out", tmp_path / "no", "--model", card, "--tma", *how, "--area", area(tmp_path))
    assert output.code != 0
    assert "must show the cores of a tissue microarray" in output.err


def area(folder: Path) -> Path:
    """A part of the slide with one core."""
    path = folder / "area.geojson"
    path.write_text(json.dumps(shapely.geometry.mapping(shapely.box(100, 0, 360, 260))))
    return path


def test_cores_are_asked_for_of_slides_alone(tmp_path: Path, make_scene: Callable[..., Path], limner: Limner) -> None:
    scene, out = make_scene(tmp_path / "scene.tif"), tmp_path / "out"
    output = limner("run", scene, "--out", out, "--model", "none", "--tma")
    assert output.code == 2
    assert "--tma must be given for slides.\n  found:  a map\n" in output.err
    assert not out.exists()
