"""End-to-end runs with every reader: findings do not depend on the regions, and killed runs resume."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from limner.pipelines.run.reporting import read_record
from limner.readers.registry import readers

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import

KINDS = ("raster", "scene", "slide", "pyramid", "zarr", "czi", "stack", "radiograph")


@pytest.fixture(autouse=True)
def same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pseudonyms that are the same in every run."""
    monkeypatch.setenv("LIMNER_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")


@dataclass(frozen=True)
class Case:
    """A picture of one kind, the reader that must take it, and a model that suits it."""

    path: Path
    reader: str
    model: str


@pytest.fixture
def case(  # noqa: PLR0911 - one for each kind
    kind: str, tmp_path: Path, per_tile: str, making: ModuleType, request: pytest.FixtureRequest
) -> Case:
    ask = request.getfixturevalue
    if kind == "raster":
        return Case(ask("make_scene")(tmp_path / "scene.tif"), "raster", str(ask("make_card")(tmp_path)))
    if kind == "scene":
        folder = tmp_path / "bands"
        folder.mkdir()
        for band in ("B02", "B03", "B04"):
            with rasterio.open(ask("make_scene")(folder / f"S2_{band}.tif"), "r+") as file:
                file.set_band_description(1, "")
        return Case(folder, "scene", str(ask("make_card")(tmp_path)))
    if kind == "slide":
        pixels = tifffile.imread(ask("make_slide")(tmp_path / "tissue.tif", side=256))
        path = ask("scanners").mirax(tmp_path / "in" / "a.mrxs", pixels, first=(1, 1), microns=1.0)
        return Case(path, "slide", str(ask("slide_card")(tmp_path)))
    if kind == "pyramid":
        return Case(ask("make_slide")(tmp_path / "a.tif", side=384), "pyramid", str(ask("slide_card")(tmp_path)))
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        pixels = tifffile.imread(ask("make_slide")(tmp_path / "tissue.tif", side=256)).transpose(2, 0, 1)
        group = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=3)
        group.create_array("0", shape=pixels.shape, dtype=pixels.dtype, chunks=(1, 64, 64))[:] = pixels
        axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "yx")]
        scaled = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]}
        colours = {"Red": "FF0000", "Green": "00FF00", "Blue": "0000FF"}
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [{"axes": axes, "datasets": [scaled], "name": "a"}],
            "omero": {"channels": [{"label": name, "color": colour} for name, colour in colours.items()]},
        }
        return Case(tmp_path / "a.zarr", "ome-zarr", str(ask("slide_card")(tmp_path)))
    if kind == "czi":
        czi = pytest.importorskip("pylibCZIrw.czi")
        pixels = tifffile.imread(ask("make_slide")(tmp_path / "tissue.tif", side=256))
        with czi.create_czi(str(tmp_path / "a.czi")) as document:
            document.write(data=np.ascontiguousarray(pixels[..., ::-1]), plane={"C": 0})
            document.write_metadata("a", scale_x=1e-6, scale_y=1e-6)
        return Case(tmp_path / "a.czi", "czi", str(ask("slide_card")(tmp_path)))
    if kind == "stack":
        order = [*range(5, 11), *range(5)]
        slices = making.slices(11, WindowCenter=5000, WindowWidth=12500)  # in which all of them show something
        return Case(making.save_all(slices, tmp_path / "ct", order=order), "dicom", per_tile)
    pixels = (making.ramp(90, 130) % 3000).astype(np.uint16)
    window = {"WindowCenter": 1500, "WindowWidth": 2000, "VOILUTFunction": "SIGMOID"}
    data = making.image(pixels, sop_class=making.CR, PixelSpacing=[0.2, 0.2], **window)
    return Case(making.save(data, tmp_path / "cr.dcm"), "dicom", per_tile)


def test_every_reader_is_tested() -> None:
    tested = {"raster", "scene", "slide", "pyramid", "ome-zarr", "czi", "dicom"}
    assert set(readers()) == {"array", *tested}  # arrays: see test_api


@pytest.mark.parametrize("kind", KINDS)
def test_findings_do_not_depend_on_the_regions(tmp_path: Path, case: Case, kind: str, limner: Limner) -> None:
    found = {}
    for hd_num in (1, 4, 25):
        out = tmp_path / f"out{hd_num}"
        output = limner("run", case.path, "--model", case.model, "--out", out, "--hd-num", hd_num)
        assert output.code == 0, output.err
        (image,) = read_record(out).images
        assert image.info.reader == case.reader
        assert len(image.info.planes) == (11 if kind == "stack" else 1)
        found[hd_num] = [(f.label, f.plane, f.geometry.normalize().wkt, f.score) for f in image.findings()]
    assert found[1] == found[4] == found[25]
    assert len(found[1]) >= 10


KILLING = """
import os, signal, sys, json
from limner.pipelines.config import Settings
from limner.pipelines.progress import RegionDone
from limner.pipelines.run.execute import run
if __name__ == "__main__":
    wish = json.loads(sys.argv[1])
    seen = 0
    def listen(event):
        global seen
        seen += isinstance(event, RegionDone)
        if isinstance(event, RegionDone) and seen == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(run(Settings.resolve(wish), listen).exit_code)
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the journal, whose lines come in any order and hold seconds, and the manifest."""
    return {
        p.name: p.read_bytes()
        for p in sorted(folder.iterdir())
        if p.name not in {"manifest.json", "results.jsonl", "parts"}
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, case: Case, limner: Limner) -> None:
    hd_num = 4
    assert limner("run", case.path, "--out", tmp_path / "whole", "--model", case.model, "--hd-num", hd_num).code == 0
    script = tmp_path / "killing.py"
    script.write_text(KILLING)
    wish = {"inputs": [str(case.path)], "out": str(tmp_path / "out"), "model": case.model, "hd_num": hd_num}
    command = [sys.executable, str(script), json.dumps(wish)]
    assert subprocess.run([*command, "1"], check=False).returncode == -9
    assert subprocess.run([*command, "2"], check=False).returncode in {-9, 0}
    other = {**wish, "engine": "local", "workers": 2, "batch": 2}
    assert subprocess.run([*command[:2], json.dumps(other), "0"], check=False).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
