"""Memory of a run as `limner plan` predicts it, and the most that all processes of `limner run` then hold at once.

Inputs are made on the fly: smooth scenes of six bands as in `end_to_end.py`, noisy ones, and slides; the study is the
sample head. Predicted is what a plan states in a process of its own. Memory is anonymous (`RssAnon`, looked at every
20 ms), since files that the system has cached are no need of its own; with the code of libraries it is `RssFile` too,
of which a plan states one copy. `--held-out` runs other cases, on which no constant of the prediction was chosen.

    python tests/bench/memory_table.py [--held-out] [--only TEXT] [--folder DIR]
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from end_to_end_case import write_network
from end_to_end_case import write_scene as write_smooth
from limner.pipelines.config import Settings
from limner.pipelines.run.estimate import estimate
from limner.pipelines.run.execute import prepare
from memory_curve import peaks
from rasterio.windows import Window

MIB = 2**20
BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
SAMPLE = Path(__file__).parents[2] / "notebooks" / "samples" / "head"
ASKED = {"model": "4khd:small", "ask": "What is this?", "resolution": "native", "force_domain": True}
CSMASK = {"model": "csmask", "preset": "sentinel2-l1c", "fetch": True}
GLAND, STAIN = {"model": "gland", "fetch": True}, {"model": "threshold:haematoxylin"}
TINY, WIDE, ENCODER = {"model": "tiny"}, {"model": "wide"}, {"model": "encoder", "reports": ["features-h5"]}
TWO = {"engine": "local", "workers": 2}

Case = tuple[str, dict[str, Any]]
"""The kind and sides of its inputs, such as "smooth 300", and settings."""

CASES: dict[str, Case] = {
    "scene of 300 px": ("smooth 300", TINY),
    "scene of 900 px": ("smooth 900", TINY),
    "scene of 2400 px": ("smooth 2400", TINY),
    "scene of 4096 px": ("smooth 4096", TINY),
    "the same, regions of a tile": ("smooth 4096", {**TINY, "hd_num": 1}),
    "the same, probabilities": ("smooth 4096", {**TINY, "probabilities": True}),
    "the same, two workers": ("smooth 4096", {**TINY, **TWO}),
    "the same, two workers, 4 tiles": ("smooth 4096", {**TINY, **TWO, "hd_num": 4}),
    "the same, a wider network": ("smooth 4096", WIDE),
    "scene of 8192 px": ("smooth 8192", TINY),
    "scene of 6000 px, `csmask`": ("scene 6000", CSMASK),
    "slide of 6000 px, `gland`": ("slide 6000", {**GLAND, "hd_num": 4}),
    "slide of 6000 px, `threshold`": ("slide 6000", STAIN),
    "slide of 700 px, `threshold`": ("slide 700", STAIN),
    "slide of 4000 px, `4khd:small`": ("slide 4000", ASKED),
    "slide of 700 px, `4khd:small`": ("slide 700", ASKED),
    "slide of 1500 px, an encoder": ("slide 1500", ENCODER),
    "study, `brain`": ("study", {"model": "brain", "fetch": True}),
}
HELD_OUT: dict[str, Case] = {
    "scene of 1300 px": ("smooth 1300", TINY),
    "scene of 3400 px, batches of 3": ("smooth 3400", {**TINY, "hd_num": 4, "batch": 3}),
    "scene of 3400 px, two workers, wider": ("smooth 3400", {**WIDE, **TWO}),
    "the same, `--memory 900MB`": ("smooth 3400", {**WIDE, "memory": "900MB"}),
    "scene of 2500 px, `csmask`": ("scene 2500", CSMASK),
    "the same, tiles blended, 9 tiles": ("scene 2500", {**CSMASK, "hd_num": 9, "model_options": {"blend": "true"}}),
    "the same, two workers, probabilities": ("scene 2500", {**CSMASK, **TWO, "hd_num": 1, "probabilities": True}),
    "slide of 3000 px, `gland`": ("slide 3000", GLAND),
    "slides of 3000 and 5000 px, `threshold`": ("slide 3000 5000", STAIN),
    "slide of 5000 px, `4khd:small`, two workers": ("slide 5000", {**ASKED, **TWO}),
    "slide of 5000 px, an encoder": ("slide 5000", ENCODER),
    "study, `brain`, two workers": ("study", {"model": "brain", "fetch": True, **TWO}),
}


def write_scene(path: Path, side: int) -> None:
    """Six bands of 16 bits at 10 m: blocks of 512 px, all bands of a block together."""
    random = np.random.default_rng(0)
    profile = {"driver": "GTiff", "width": side, "height": side, "count": len(BANDS), "dtype": "uint16", "nodata": 0}
    where = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 43e5)}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1, "predictor": 2}
    with rasterio.open(path, "w", **profile, **where, **layout, interleave="pixel", bigtiff="yes") as raster:
        for number, name in enumerate(BANDS, 1):
            raster.set_band_description(number, name)
        field = random.integers(300, 3000, (len(BANDS), 16, side // 32 + 1)).repeat(32, axis=1).repeat(32, axis=2)
        for top in range(0, side, 512):
            high = min(512, side - top)
            strip = field[:, :high, :side] + random.integers(0, 60, (1, high, side)) + top // 16
            raster.write(strip.astype(np.uint16), window=Window(0, top, side, high))  # pyright: ignore[reportCallIssue] - rasterio states no types


def write_slide(path: Path, side: int) -> None:
    """A pyramid of JPEG tiles at 0.5 µm/px, a third of it stained."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    stained = np.hypot(x - side / 2, y - side / 2) < side / 3
    picture = np.full((side, side, 3), 243, np.uint8)
    waves = (190 + 40 * np.sin(x / 7), 120 + 50 * np.sin(y / 5 + x / 11), 180 + 30 * np.cos(y / 9))
    picture[stained] = np.stack(waves, axis=2)[stained].astype(np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(3):
            cut = {"subifds": 2} if level == 0 else {"subfiletype": 1}
            spacing = {"resolution": (20000 / 4**level, 20000 / 4**level), "resolutionunit": "CENTIMETER"}
            shape = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}
            file.write(np.ascontiguousarray(picture[:: 4**level, :: 4**level]), **shape, **spacing, **cut)  # pyright: ignore[reportArgumentType] - a test's


MAKERS: dict[str, Callable[[Path, int], None]] = {"smooth": write_smooth, "scene": write_scene, "slide": write_slide}


def write_encoder(folder: Path) -> Path:
    """A vision transformer of 22 million random weights, as dinov2-small."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 224, "patch_size": 14}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(folder)
    settings = {"crop_size": 224, "size": 224, "image_mean": [0.5] * 3, "image_std": [0.2] * 3, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


MODELS: dict[str, Callable[[Path], Path]] = {
    "tiny": write_network,
    "wide": lambda folder: write_network(folder, hidden=64),
    "encoder": write_encoder,
}


def resolve(case: Case, folder: Path) -> dict[str, Any]:
    """The settings of a case, whose inputs and model are made where they are not yet there."""
    (kind, *sides), words = case[0].split(), dict(case[1])
    paths = [SAMPLE] if kind == "study" else [folder / f"{kind}-{side}.tif" for side in sides]
    for path in paths:
        if not path.exists():
            MAKERS[kind](path, int(path.stem.partition("-")[2]))
    if make := MODELS.get(words["model"]):
        path = make(folder / words["model"])
        words["model"] = f"encoder:{path}" if words["model"] == "encoder" else str(path)
    return {"inputs": list(map(os.fspath, paths)), **words}


def predict(words: dict[str, Any]) -> dict[str, float]:
    """What a plan states."""
    prepared = prepare(Settings.resolve(words, source="the case"))
    found = estimate(prepared, batch=prepared.division.batch)
    regions = sum(len(image.remaining) for image in prepared.plan.images)
    return {"regions": regions, "run": found.run, "code": found.code}


def flags(words: dict[str, Any]) -> list[str]:
    """Settings as the words of a command."""
    found: list[str] = list(words["inputs"])
    for name, value in words.items():
        flag = f"--{name.replace('_', '-')}"
        if name == "model_options":
            found += [word for key, one in value.items() for word in ("--set", f"model_options.{key}={one}")]
        elif name != "inputs":
            found += [flag] if value is True else [flag, ",".join(value) if isinstance(value, list) else str(value)]
    return found


def row(name: str, words: dict[str, Any], folder: Path) -> str:
    """A row of the table: a plan and a run, each in processes of its own."""
    plan = [sys.executable, __file__, "--plan", json.dumps(words)]
    told = subprocess.run(plan, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    predicted: dict[str, float] = json.loads(told)
    out = folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    seconds, held, own = peaks([sys.executable, "-m", "limner", "run", *flags(words), "--out", str(out)])
    run, whole = predicted["run"], predicted["run"] + predicted["code"]
    numbers = f"{predicted['regions']:.0f} | {run / MIB:.0f} | {own / MIB:.0f} | {run / own:.2f}"
    return f"| {name} | {numbers} | {whole / MIB:.0f} | {held / MIB:.0f} | {whole / held:.2f} | {seconds:.0f} |"


def main() -> None:
    """Make, plan, run, tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plan:
        sys.stdout.write(f"{json.dumps(predict(json.loads(asked.plan)))}\n")
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-memory-"))
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write("| case | regions | predicted | peak | ÷ | with code, predicted | peak | ÷ | s |\n")
    for name, case in (HELD_OUT if asked.held_out else CASES).items():
        if asked.only in name:
            sys.stdout.write(f"{row(name, resolve(case, folder), folder)}\n")
            sys.stdout.flush()
    if asked.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
