"""A model on images that it was not made for: refused while planning, or told in every report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]
SPACING = {f"PhysicalSize{axis}": 4.0 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
EOSIN_AND_HAEMATOXYLIN = ((205, 130, 180), (120, 90, 165))
BROWN_AND_BLUE = ((150, 110, 80), (150, 165, 200))


@pytest.fixture
def stained(tmp_path: Path) -> Callable[..., Path]:
    """`stained(colours)`: a slide with a square of these colours on glass."""

    def make(colours: tuple[tuple[int, int, int], ...]) -> Path:
        generator = np.random.default_rng(1)
        pixels = np.full((256, 256, 3), 240.0)
        chosen = generator.integers(0, len(colours), (32, 32))
        pixels[64:192, 64:192] = np.array(colours)[chosen].repeat(4, 0).repeat(4, 1)
        pixels += generator.normal(0, 1, pixels.shape)
        path = tmp_path / "a.ome.tif"
        with tifffile.TiffWriter(path, ome=True) as file:
            options = {"photometric": "rgb", "compression": "deflate", "metadata": {"axes": "YXS", **SPACING}}
            file.write(pixels.clip(0, 255).astype(np.uint8), tile=(256, 256), **options)
        return path

    return make


@pytest.fixture
def he_card(tmp_path: Path, make_card: Callable[..., Path]) -> Path:
    """A network that finds what is bright in red, made for H&E at 4 µm."""
    changes = {"resolution": {"value": 4.0, "unit": "um"}, "mean": [160.0], "std": [32.0], "valid_range": [0, 255]}
    path = make_card(tmp_path, **changes)
    path.write_text(f"{path.read_text()}\ndomain:\n- {{kind: slide, stains: [H&E]}}\n")
    return path


def test_a_slide_of_the_stain_is_run(
    tmp_path: Path, stained: Callable[..., Path], he_card: Path, limner: Limner
) -> None:
    said = limner("run", stained(EOSIN_AND_HAEMATOXYLIN), "--model", he_card, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert "domain" not in said.err


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_another_stain_is_refused_with_the_way_out(
    tmp_path: Path, stained: Callable[..., Path], he_card: Path, limner: Limner, verb: str
) -> None:
    out = ["--out", tmp_path / "out"] if verb == "run" else []
    said = limner(verb, stained(BROWN_AND_BLUE), "--model", he_card, *out)
    assert said.code == 2
    assert "its stain is IHC" in said.err
    assert "--force-domain" in said.err
    assert not list(tmp_path.glob("out/*.csv"))


def test_a_forced_domain_is_told_in_every_report(
    tmp_path: Path, stained: Callable[..., Path], he_card: Path, limner: Limner
) -> None:
    out = tmp_path / "out"
    said = limner("run", stained(BROWN_AND_BLUE), "--model", he_card, "--force-domain", "--out", out)
    assert said.code == 0, said.err
    sentence = "forced with --force-domain"
    assert sentence in " ".join(said.err.split())
    assert sentence in " ".join(said.out.split())
    assert json.loads((out / "manifest.json").read_text())["config"]["force_domain"] is True
    texts = {path.name: path.read_text("utf-8", "replace") for path in out.glob("*.csv")}
    assert {"findings.csv", "summary.csv", "areas.csv"} <= set(texts)
    for name in ("findings.csv", "summary.csv"):
        assert all(sentence in line for line in texts[name].splitlines()[1:]), name
    assert "doubtful" in texts["summary.csv"]
    [picture] = out.glob("overview-*.png")
    assert "force-domain" in Image.open(picture).info["Comment"]
    for path in out.glob("*.geojson*"):
        if path.suffix == ".geojson":
            assert sentence in path.read_text()
