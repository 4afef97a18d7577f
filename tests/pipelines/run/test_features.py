"""Features of tiles: the tiles of a run, in files that other programs read, and resumed after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import limner
import numpy as np
import pyarrow.parquet as pq
import pytest
from limner.model.probe.encoders import find_encoder
from limner.readers.errors import LimnerError
from limner.readers.geometry import Box
from limner.readers.registry import open_image

h5py = pytest.importorskip("h5py", reason="the extra features is not installed")


@pytest.fixture
def run_command(request: pytest.FixtureRequest) -> Any:
    """The command line in this process."""
    return request.getfixturevalue("limner")


@pytest.fixture
def slide(tmp_path: Path, make_slide: Callable[..., Path]) -> Path:
    return make_slide(tmp_path / "TCGA-Slide.tif")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features").iterdir())}


def test_the_tiles_are_those_of_a_run(run_command: Any, slide: Path, tmp_path: Path, per_tile: str) -> None:
    """Against an annotator that answers for each tile with a kept pixel, and pixels that are read here."""
    run = limner.run(slide, model=per_tile, out=tmp_path / "run", reports="summary-csv", names="show")
    words = ("--encoder", "colour", "--tile", 16, "--names", "show", "--format", "h5,parquet")
    done = run_command("features", slide, *words, "--out", tmp_path / "features")
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "features" / "features" / "TCGA-Slide.h5") as file:
        boxes, coords, features = file["boxes"][:], file["coords"][:], file["features"][:]
        attributes = {**file["coords"].attrs}
    expected = sorted(tuple(one.geometry.bounds) for one in run.record.images[0].findings())
    inside = np.clip(boxes, 0, 640)
    assert sorted(map(tuple, inside.tolist())) == expected
    assert len(expected) > 300
    assert (coords == boxes[:, :2]).all()
    assert coords.dtype == np.int64
    assert features.shape == (len(boxes), 21)
    encoder, info = find_encoder("colour"), run.record.images[0].info
    with open_image(info) as image:
        for place in (0, 57, len(boxes) - 1):
            x0, y0, x1, y1 = boxes[place].tolist()
            pixels, valid = image.read(Box(x0, y0, x1, y1), (16, 16))
            assert features[place].tolist() == encoder(pixels, valid).tolist()
    assert attributes["patch_size"] == attributes["patch_size_level0"] == 16
    assert (attributes["patch_level"], attributes["overlap"], attributes["name"]) == (0, 0, "TCGA-Slide")
    assert attributes["level0_magnification"] == attributes["target_magnification"] == 20
    table = pq.read_table(tmp_path / "features" / "features" / "TCGA-Slide.parquet")
    assert np.stack(table["features"].to_numpy(zero_copy_only=False)).tolist() == features.tolist()
    assert table["x0"].to_pylist() == boxes[:, 0].tolist()


def test_tiles_at_another_resolution_are_placed_at_level_0(run_command: Any, slide: Path, tmp_path: Path) -> None:
    words = ("--encoder", "colour", "--tile", 32, "--names", "show", "--resolution", "1um", "--tissue", "off")
    assert run_command("features", slide, *words, "--out", tmp_path / "out").code == 0
    with h5py.File(tmp_path / "out" / "features" / "TCGA-Slide.h5") as file:
        assert file["coords"].shape == (100, 2)
        assert set(np.unique(file["coords"])) == set(range(0, 640, 64))
        attributes = {**file.attrs}
    assert (attributes["patch_size"], attributes["patch_size_level0"]) == (32, 64)
    assert (attributes["level0_magnification"], attributes["target_magnification"]) == (20, 10)
    assert "patch_level" not in attributes


def test_a_map_has_outlines_in_its_crs(run_command: Any, scene: Path, tmp_path: Path) -> None:
    words = ("--encoder", "colour:red", "--bands", "red", "--tile", 32, "--format", "parquet")
    done = run_command("features", scene, *words, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    table = geopandas.read_parquet(tmp_path / "out" / "features" / "scene.parquet")
    assert table.crs == "EPSG:32633"
    first = table.iloc[0]
    assert first.geometry.bounds == (
        500000 + first.x0 * 10,
        5200000 - first.y1 * 10,
        500000 + first.x1 * 10,
        5200000 - first.y0 * 10,
    )
    assert (first.x0, first.y0) == (32, 0)  # the first tile has no data
    assert table.geometry.is_valid.all()


def test_a_mask_leaves_tiles_out(run_command: Any, slide: Path, tmp_path: Path) -> None:
    ring = [[0, 0], [320, 0], [320, 640], [0, 640], [0, 0]]
    (tmp_path / "left.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    words = ("--encoder", "colour", "--tile", 64, "--names", "show", "--mask", tmp_path / "left.geojson")
    assert run_command("features", slide, *words, "--out", tmp_path / "out").code == 0
    with h5py.File(tmp_path / "out" / "features" / "TCGA-Slide.h5") as file:
        assert file["coords"][:, 0].min() == 320


def test_other_settings_are_refused_and_nothing_is_lost(run_command: Any, slide: Path, tmp_path: Path) -> None:
    words = ("features", slide, "--encoder", "colour", "--tile", 32, "--out", tmp_path / "out")
    assert run_command(*words).code == 0
    before = files_of(tmp_path / "out")
    for changed, told in (
        (("--tile", 64), "model_options.tile: 32 there, 64 now"),
        (("--encoder", "colour:red"), "identity.encoder: colour there, colour:red now"),
        (("--resolution", "1um"), "resolution:  there, 1um now"),
        (("--tissue", "off"), "tissue: auto there, off now"),
    ):
        done = run_command(*words, *changed)
        assert done.code == 2
        assert told in done.err, done.err
        assert files_of(tmp_path / "out") == before
    assert run_command(*words).code == 0
    assert files_of(tmp_path / "out") == before


def test_wrong_requests(run_command: Any, slide: Path, tmp_path: Path) -> None:
    for words, told in (
        (("--encoder", "colour", "--format", "npz"), "--format must be h5 or parquet"),
        (("--encoder", "colour", "--tile", 4), "must be 8 pixels or more"),
        (("--encoder", ""), "must be"),
        (("--encoder", tmp_path / "nothing"), "must"),
    ):
        done = run_command("features", slide, *words, "--out", tmp_path / "out")
        assert (done.code, told in done.err) == (2, True), done.err
    with pytest.raises(LimnerError, match="must name"):
        limner.run(slide, model="encoder:openclip:", out=tmp_path / "other")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_features_resume_after_a_kill(slide: Path, tmp_path: Path, run_command: Any) -> None:
    """Killed with results behind and regions ahead of it, the same command gives the same bytes."""
    words = [
        "features",
        str(slide),
        "--encoder",
        "colour",
        "--tile",
        "16",
        "--hd-num",
        "1",
        "--names",
        "show",
        "--format",
        "h5,parquet",
    ]
    command = [sys.executable, "-m", "limner.pipelines.cli.main", *words, "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = tmp_path / "killed" / "results.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and not (results.exists() and results.read_bytes().count(b'"done"') > 20):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "features").exists()
    assert run_command(*words, "--out", tmp_path / "killed").code == 0
    assert run_command(*words, "--out", tmp_path / "whole").code == 0
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
