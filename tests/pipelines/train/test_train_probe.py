"""`limner train probe` from outlines to a run with the probe, and its errors."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import yaml
from limner.model.probe.card import read_card
from limner.model.probe.encoders import ColourEncoder
from limner.pipelines.train import training_set
from PIL import Image
from rasterio.enums import ColorInterp
from shapely.geometry import box, mapping

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
EAST, NORTH, PATCH, SIDE = 500000.0, 5200000.0, 48, 8
TO_LONLAT = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
COLOURS = {"field": (150, 140, 60), "water": (30, 50, 90), "wood": (20, 80, 30)}
NAMES = tuple(COLOURS)


def layout() -> np.ndarray:
    """(8, 8): which class each patch of 48 px is."""
    return np.random.default_rng(12).permutation(np.arange(SIDE * SIDE) % 3).reshape(SIDE, SIDE)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 8 × 8 patches of 48 px of 10 m in noisy colours."""
    path = tmp_path_factory.mktemp("map") / "scene.tif"
    classes = np.kron(layout(), np.ones((PATCH, PATCH), dtype=int))
    noise = np.random.default_rng(13).normal(0, 12, (*classes.shape, 3))
    pixels = np.clip(np.array(list(COLOURS.values()))[classes] + noise, 0, 255).astype(np.uint8)
    transform = rasterio.Affine(10.0, 0.0, EAST, 0.0, -10.0, NORTH)
    shape = {"width": classes.shape[1], "height": classes.shape[0], "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", transform=transform, **shape) as raster:
        raster.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        raster.write(pixels.transpose(2, 0, 1))
    return path


def on_map(x0: float, y0: float, x1: float, y1: float) -> dict[str, Any]:
    corners = [(EAST + 10 * x, NORTH - 10 * y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
    return {"type": "Polygon", "coordinates": [[list(TO_LONLAT.transform(*corner)) for corner in corners]]}


def outlined(every: int = 2, only: tuple[str, ...] = NAMES) -> list[dict[str, Any]]:
    """Every second patch, drawn a little within its bounds."""
    places = [(r, c) for r in range(SIDE) for c in range(SIDE)][::every]
    features = []
    for r, c in places:
        label = NAMES[layout()[r, c]]
        if label in only:
            shape = on_map(c * PATCH + 2, r * PATCH + 2, (c + 1) * PATCH - 2, (r + 1) * PATCH - 2)
            features.append({"type": "Feature", "properties": {"label": label}, "geometry": shape})
    return features


def save(path: Path, features: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("labels") / "labels.geojson", outlined())


def findings(folder: Path) -> list[dict[str, str]]:
    with (folder / "findings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_classes_are_found_outside_the_outlines(
    tmp_path: Path, scene: Path, labels: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = tmp_path / "probe"
    train = ("train", "probe", scene, "--labels", labels, "--tile", 16, "--out", probe)
    result = limner(*train)
    assert result.code == 0, result.err
    assert "accuracy" in result.out
    assert "Research use only" in result.out
    card = read_card(probe)
    assert card.labels == NAMES
    assert (card.seen.tile, card.seen.metres, card.seen.channels) == (16, pytest.approx(10, rel=1e-3), 3)
    assert card.figures.accuracy.value > 0.95
    assert card.colour is None
    assert sum(one.tiles for one in card.classes) == sum(map(sum, card.confusion)) == 32 * 9
    assert card.validation.left_out.get("two classes", 0) == 0
    assert Image.open(probe / "confusion.png").size[0] >= 700
    words = (probe / "README.md").read_text(encoding="utf-8")
    assert f"{card.figures.accuracy.value:.3f} ({card.figures.accuracy.low:.3f} to" in words
    assert all(text in words for text in card.not_for)

    files = {path.name: path.read_bytes() for path in probe.iterdir() if path.is_file()}
    assert set(files) == {"card.yaml", "head.safetensors", "confusion.png", "README.md"}
    assert f"{probe}: skipped. a folder of results, which limner wrote" in limner("info", tmp_path).out
    with monkeypatch.context() as patched:
        patched.setattr(training_set.RegionJob, "read", lambda *_: pytest.fail("pixels were read again"))
        assert limner(*train).code == 0
    assert files == {path.name: path.read_bytes() for path in probe.iterdir() if path.is_file()}
    other = limner(*train[:-1], tmp_path / "other", "--set", "hd_num=4")
    assert other.code == 0
    assert (tmp_path / "other" / "card.yaml").read_bytes() == files["card.yaml"], "regions do not decide"

    run = ("run", scene, "--model", f"probe:{probe}", "--hd-num", 4, "--out", tmp_path / "run")
    result = limner(*run)
    assert result.code == 0, result.err
    found = findings(tmp_path / "run")
    assert len(found) == (SIDE * PATCH // 16) ** 2
    right = [
        row["label"] == NAMES[layout()[int(y // PATCH), int(x // PATCH)]] for row in found for x, y in [_middle(row)]
    ]
    assert np.mean(right) > 0.97
    assert {row["kind"] for row in found} == {"tile"}
    assert sum(float(found[0][f"number.p.{name}"]) for name in NAMES) == pytest.approx(1, abs=2e-4)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["annotator"]["identity"]["sha256_head"] == card.head.sha256


def _middle(row: dict[str, str]) -> tuple[float, float]:
    return float(row["x_px"]), float(row["y_px"])


def test_another_or_no_resolution_is_refused(tmp_path: Path, scene: Path, labels: Path, limner: Limner) -> None:
    probe = tmp_path / "probe"
    assert limner("train", "probe", scene, "--labels", labels, "--tile", 16, "--out", probe).code == 0
    result = limner("run", scene, "--model", f"probe:{probe}", "--resolution", "30m", "--out", tmp_path / "run")
    assert result.code == 2
    assert "within a factor 1.5 of the 10 m of the model" in result.err
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    result = limner("run", tmp_path / "photo.png", "--model", f"probe:{probe}", "--out", tmp_path / "run")
    assert result.code in {2, 3}
    assert "must have a known pixel size" in result.err
    card = probe / "card.yaml"
    content = yaml.safe_load(card.read_text())
    content["encoder"]["identity"]["statistics"] = "mean"
    card.write_text(yaml.safe_dump(content))
    result = limner("run", scene, "--model", f"probe:{probe}", "--out", tmp_path / "run")
    assert result.code == 2
    assert "instead of mean" in result.err


def test_a_probe_renders_images_as_in_training(tmp_path: Path, scene: Path, labels: Path, limner: Limner) -> None:
    probe, run = tmp_path / "probe", tmp_path / "run"
    train = ("train", "probe", scene, "--labels", labels, "--tile", 16, "--stretch", "10,90", "--out", probe)
    assert limner(*train).code == 0
    assert read_card(probe).seen.limits == (10, 90)
    assert "10 black and 90 white" in (probe / "README.md").read_text(encoding="utf-8")
    result = limner("run", scene, "--model", f"probe:{probe}", "--hd-num", 4, "--stretch", "0,255", "--out", run)
    assert result.code == 2
    assert "stretch of the model's training images (10,90)" in result.err
    assert limner("run", scene, "--model", f"probe:{probe}", "--hd-num", 4, "--out", run).code == 0
    stretch = json.loads((run / "manifest.json").read_text())["images"][0]["stretch"]
    assert (stretch["low"], stretch["high"]) == ([10.0] * 3, [90.0] * 3)
    assert limner(*train[:7], "--out", tmp_path / "own").code == 0
    result = limner(
        "run", scene, "--model", f"probe:{tmp_path / 'own'}", "--stretch", "0,255", "--out", tmp_path / "no"
    )
    assert result.code == 2
    assert "each stretched by its own percentiles" in result.err


def test_an_encoder_is_compared_with_colour_statistics(
    tmp_path: Path, scene: Path, labels: Path, made_checkpoints: Path, limner: Limner
) -> None:
    probe = tmp_path / "probe"
    result = limner(
        "train",
        "probe",
        scene,
        "--labels",
        labels,
        "--encoder",
        made_checkpoints / "clip",
        "--out",
        probe,
        "--head",
        "mlp",
    )
    assert result.code == 0, result.err
    card = read_card(probe)
    assert card.seen.tile == 32
    assert card.head.kind == "mlp"
    assert card.colour is not None
    assert card.gain is not None
    assert card.gain.value == pytest.approx(card.figures.accuracy.value - card.colour.accuracy.value, abs=2e-4)
    assert "colour statistics of the same tiles" in (probe / "README.md").read_text(encoding="utf-8")
    for fusion in ("off", "attention"):
        options = ("--set", f"model_options.fusion={fusion}", "--hd-num", 4, "--out", tmp_path / fusion)
        result = limner("run", scene, "--model", f"probe:{probe}", *options)
        assert result.code == 0, result.err
    off, on = (findings(tmp_path / fusion) for fusion in ("off", "attention"))
    assert len(off) == len(on)
    assert [row["number.p.water"] for row in off] != [row["number.p.water"] for row in on]


def test_native_bands_are_physical_values(tmp_path: Path, virginia: Path, limner: Limner) -> None:
    to_lonlat = pyproj.Transformer.from_crs(32618, 4326, always_xy=True)
    features = []
    for label, places in (("sea", [(800, y) for y in (300, 450, 600)]), ("land", [(100, 130), (30, 380), (450, 40)])):
        for x, y in places:
            corners = [
                (440760 + 10 * (x + a), 4172940 - 10 * (y + b)) for a, b in ((0, 0), (64, 0), (64, 40), (0, 40), (0, 0))
            ]
            shape = {"type": "Polygon", "coordinates": [[list(to_lonlat.transform(*corner)) for corner in corners]]}
            features.append({"type": "Feature", "properties": {"class": label}, "geometry": shape})
    probe = tmp_path / "probe"
    result = limner(
        *("train", "probe", virginia, "--sensor", "sentinel-2-l1c", "--labels", save(tmp_path / "l.geojson", features)),
        *("--encoder", "colour:nir,swir16", "--tile", 8, "--folds", 3, "--out", probe),
    )
    assert result.code == 0, result.err
    card = read_card(probe)
    assert (card.seen.bands, card.seen.quantity) == (("nir", "swir16"), "toa_reflectance")
    assert card.figures.accuracy.value > 0.8  # of three places a class
    result = limner("run", virginia, "--model", f"probe:{probe}", "--out", tmp_path / "run")
    assert result.code == 2, "without the sensor the numbers are no reflectances"
    assert "trained on: nir, swir16 in toa_reflectance" in result.err


def test_blocks_and_the_rest_class(tmp_path: Path, limner: Limner) -> None:
    """Dark discs on bright ground in six pictures: everything else is the ground, and pictures stay whole."""
    (tmp_path / "drawn").mkdir()
    (tmp_path / "fields").mkdir()
    random = np.random.default_rng(3)
    for number in range(6):
        pixels = random.normal(200, 8, (96, 128, 3))
        features = []
        for _ in range(4):
            x, y = int(random.integers(0, 6)) * 16, int(random.integers(0, 4)) * 16
            pixels[y : y + 32, x : x + 32] -= 120
            shape = mapping(box(x, y, x + 32, y + 32))
            features.append({"type": "Feature", "properties": {"classification": {"name": "cell"}}, "geometry": shape})
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "fields" / f"f{number}.png")
        save(tmp_path / "drawn" / f"f{number}.geojson", features)
    train = ("train", "probe", tmp_path / "fields", "--labels", tmp_path / "drawn", "--tile", 16)
    result = limner(*train, "--rest", "ground", "--out", tmp_path / "probe")
    assert result.code == 0, result.err
    card = read_card(tmp_path / "probe")
    assert card.labels == ("cell", "ground")
    assert (card.validation.unit, card.validation.units, card.seen.metres) == ("image", 6, None)
    assert card.figures.accuracy.value > 0.95
    result = limner(*train, "--rest", "ground", "--block", "32px", "--out", tmp_path / "blocks")
    assert result.code == 0, result.err
    assert read_card(tmp_path / "blocks").validation.unit == "block of 32px"
    assert read_card(tmp_path / "blocks").validation.units == 6 * 3 * 4
    for block, words in (("500m", "known pixel size"), ("wide", "must be outline, image, or a length")):
        result = limner(*train, "--rest", "ground", "--block", block, "--out", tmp_path / "other")
        assert (result.code, words in result.err) == (2, True), result.err
    result = limner(*train, "--out", tmp_path / "other")
    assert result.code == 2
    assert "two classes or more" in result.err
    assert "--rest" in result.err


@pytest.mark.parametrize(
    ("only", "every", "options", "message"),
    [
        (("water",), 2, (), "only water"),
        (NAMES, 9, (), "at least as many outlines as there are folds"),
        (NAMES, 2, ("--tile", 128), "must fill some tiles with each class"),
        (NAMES, 2, ("--inside", 1.5), "share above 0"),
        (NAMES, 2, ("--folds", 2), "3 or more"),
        (NAMES, 2, ("--head", "forest"), "linear or mlp"),
        (NAMES, 2, ("--encoder", "nowhere"), "folder on this machine"),
        (NAMES, 2, ("--label-field", "kind"), "fields: label"),
    ],
)
def test_invalid_requests_are_refused(
    tmp_path: Path,
    scene: Path,
    limner: Limner,
    only: tuple[str, ...],
    every: int,
    options: tuple[Any, ...],
    message: str,
) -> None:
    label_file = save(tmp_path / "labels.geojson", outlined(every, only))
    tile = () if "--tile" in options else ("--tile", 16)
    result = limner("train", "probe", scene, "--labels", label_file, *tile, *options, "--out", tmp_path / "probe")
    assert result.code == 2, result.err
    assert message in result.err
    assert not (tmp_path / "probe" / "card.yaml").exists()


def test_tiles_in_overlapping_outlines_are_left_out(tmp_path: Path, scene: Path, limner: Limner) -> None:
    features = outlined()
    twice = {**features[0], "properties": {"label": next(n for n in NAMES if n != features[0]["properties"]["label"])}}
    label_file = save(tmp_path / "labels.geojson", [*features, twice])
    result = limner("train", "probe", scene, "--labels", label_file, "--tile", 16, "--out", tmp_path / "probe")
    assert result.code == 0, result.err
    assert "overlap on 1 images: tiles there are not used" in result.err
    assert read_card(tmp_path / "probe").validation.left_out["two classes"] == 9


def test_outlines_outside_the_image_are_counted(tmp_path: Path, scene: Path, limner: Limner) -> None:
    far = {"type": "Feature", "properties": {"label": "water"}, "geometry": on_map(9000, 9000, 9100, 9100)}
    label_file = save(tmp_path / "labels.geojson", [*outlined(), far])
    result = limner("train", "probe", scene, "--labels", label_file, "--tile", 16, "--out", tmp_path / "probe")
    assert result.code == 0, result.err
    assert "1 outlines lie on none of the images" in result.err
    assert read_card(tmp_path / "probe").validation.left_out["outlines on no image"] == 1


def test_features_that_are_not_finite_are_refused(
    tmp_path: Path, scene: Path, labels: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ColourEncoder, "__call__", lambda *_: np.full(21, np.nan, dtype=np.float32))
    result = limner("train", "probe", scene, "--labels", labels, "--tile", 16, "--out", tmp_path / "probe")
    assert result.code == 2
    assert "must have finite features" in result.err
    assert "of 21 for tile" in result.err


def test_other_folders_are_not_overwritten(tmp_path: Path, scene: Path, labels: Path, limner: Limner) -> None:
    (tmp_path / "thesis.docx").touch()
    result = limner("train", "probe", scene, "--labels", labels, "--tile", 16, "--out", tmp_path)
    assert result.code == 2
    assert "thesis.docx" in result.err


def test_a_slide_s_name_is_redacted(tmp_path: Path, make_slide: Callable[..., Path], limner: Limner) -> None:
    slide = make_slide(tmp_path / "Smith-Jane-1961.tif")
    features = []
    for label, boxes in (("tissue", [(200, 200), (200, 330), (330, 200)]), ("glass", [(0, 0), (560, 0), (0, 560)])):
        for x, y in boxes:
            shape = mapping(box(x, y, x + 80, y + 80))
            features.append({"type": "Feature", "properties": {"classification": {"name": label}}, "geometry": shape})
    (tmp_path / "drawn").mkdir()
    save(tmp_path / "drawn" / "Smith-Jane-1961.geojson", features)
    probe = tmp_path / "probe"
    train = ("train", "probe", slide, "--tile", 16, "--folds", 3, "--out", probe, "--labels")
    result = limner(*train, tmp_path / "drawn")
    assert result.code == 0, result.err
    written = "".join(str(path.relative_to(probe)) for path in probe.rglob("*"))
    written += "".join(path.read_bytes().decode("latin-1") for path in probe.rglob("*") if path.is_file())
    for text in (result.err, written):
        assert "Smith" not in text
        assert "1961" not in text
    assert read_card(probe).seen.metres == pytest.approx(5e-7)
    wrong = save(tmp_path / "drawn" / "Smith-Jane-1961.geojson", [])
    result = limner(*train, wrong)
    assert result.code == 2
    assert "Smith" not in result.err


def test_openclip_weights_alone_are_an_encoder(
    tmp_path: Path, scene: Path, labels: Path, tiny_clip: Path, limner: Limner
) -> None:
    probe, encoder = tmp_path / "probe", f"openclip:tiny:{tiny_clip / 'tiny.safetensors'}"
    train = ("train", "probe", scene, "--labels", labels, "--folds", 3, "--block", "48px", "--out", probe)
    result = limner(*train, "--encoder", encoder, "--resolution", "10m", "--inside", "0.3")
    assert result.code == 0, result.err
    card = read_card(probe)
    assert (card.encoder.source, card.encoder.identity["architecture"], card.seen.tile) == (encoder, "tiny", 32)
    run = ("run", scene, "--model", f"probe:{probe}", "--out", tmp_path / "run")
    result = limner(*run)
    assert result.code == 0, result.err
    assert {row["kind"] for row in findings(tmp_path / "run")} == {"tile"}
    other = encoder.replace("tiny:", "tiny-quickgelu:")
    refused = limner(*run[:-1], tmp_path / "none", "--set", f"model_options.encoder={other}")
    assert refused.code == 2
    assert "its architecture is tiny-quickgelu instead of tiny" in " ".join(refused.err.split())
