"""Memory as `limner plan` predicts it for a worker, and the peak of that worker in a run of the same input.

Inputs are made on the fly: a scene of six bands, and a slide; the study is the sample head. The peak is the anonymous
memory of a process that loads the model and annotates the largest regions, of which it reads one ahead as in a run
(`RssAnon`, looked at every 20 ms), since files that the system has cached are no need of its own.

    python tests/bench/memory_table.py [--side 12000] [--folder DIR]
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
from limner.pipelines.config import Settings
from limner.pipelines.run.engines import Task, WorkerProcess
from limner.pipelines.run.estimate import estimate
from limner.pipelines.run.execute import prepare
from rasterio.windows import Window

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
REGIONS = 8  # enough to fill the caches
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "scene of 6 bands, csmask": ("scene", {"model": "csmask", "preset": "sentinel2-l1c", "fetch": True}),
    "scene of 6 bands, csmask, 9 tiles": (
        "scene",
        {"model": "csmask", "preset": "sentinel2-l1c", "fetch": True, "hd_num": 9},
    ),
    "scene of 6 bands, csmask, tiles blended": (
        "scene",
        {"model": "csmask", "preset": "sentinel2-l1c", "fetch": True, "model_options": {"blend": "true"}},
    ),
    "slide, gland": ("slide", {"model": "gland", "fetch": True, "hd_num": 4}),
    "slide, threshold": ("slide", {"model": "threshold:haematoxylin"}),
    "slide, 4khd:small": (
        "slide",
        {"model": "4khd:small", "ask": "What is this?", "resolution": "native", "force_domain": True},
    ),
    "study, brain": ("study", {"model": "brain", "fetch": True}),
}
SAMPLE = Path(__file__).parents[2] / "notebooks" / "samples" / "head"


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


MAKERS: dict[str, Callable[[Path, int], None]] = {"scene": write_scene, "slide": write_slide}


def anonymous(pid: int) -> float:
    """Bytes of memory that a process has allocated."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0.0)


def measure(settings: Settings) -> tuple[float, float, float]:
    """(predicted bytes, those after loading, peak of a worker that annotates the largest regions one by one)."""
    prepared = prepare(settings)
    predicted = estimate(prepared, batch=settings.batch).memory
    job = prepared.job(1)
    if job is None:
        raise SystemExit("the case has no model")
    todo = [region for image in prepared.plan.images for region in image.remaining]
    todo.sort(key=lambda region: -region.tiles[0] * region.tiles[1])
    tasks = [todo] if prepared.plan.volumes else [[region] for region in todo[:REGIONS]]
    worker = WorkerProcess.start(job, 1)
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous(worker.process.pid or 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        worker.receive()
        loaded = anonymous(worker.process.pid or 0)
        for number, task in enumerate(tasks):
            worker.send(Task(task))
            if number:
                worker.receive()
        worker.receive()
    finally:
        ended.set()
        watcher.join()
        worker.stop()
    return predicted, loaded, peak[0]


def main() -> None:
    """Make, plan, run, tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--side", type=int, default=12000)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-memory-"))
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write("| case | loaded, MiB | predicted, MiB | peak, MiB | predicted / peak | s |\n")
    for case, (kind, words) in CASES.items():
        path = SAMPLE if kind == "study" else folder / f"{kind}-{asked.side}.tif"
        if not path.exists():
            MAKERS[kind](path, asked.side)
        start = time.perf_counter()
        settings = Settings.resolve({"inputs": [os.fspath(path)], **words}, source="the case")
        predicted, loaded, peak = measure(settings)
        numbers = f"{loaded / 2**20:.0f} | {predicted / 2**20:.0f} | {peak / 2**20:.0f} | {predicted / peak:.2f}"
        sys.stdout.write(f"| {case} | {numbers} | {time.perf_counter() - start:.0f} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
