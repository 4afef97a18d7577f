"""How long a scene of 20,000 × 20,000 pixels in six bands takes, and how much memory: made on the fly, run, measured.

The scene is the sample scene, mirrored to and fro, with the brightness of broad fields changing over it, so that its
coasts, fields, water and clouds are real and no two repetitions are the same. It is written as tiled GeoTIFF with
deflate, 16 bits, about 3 GB. The run is a process of its own; memory is the sum over it and all its children.

    python tests/bench/big_scene.py [--side 20000] [--folder DIR] [--keep] [-- further words for limner run]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from limner.pipelines.run.reporting import read_record
from limner.pipelines.run.run_folder import read_entries
from rasterio.windows import Window

SAMPLE = Path(__file__).resolve().parents[2] / "notebooks" / "samples" / "virginia"
BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
STRIP = 512


def read_sample() -> npt.NDArray[np.uint16]:
    """(6, H, W): the sample's bands at 10 m; coarser ones repeated."""
    bands: list[npt.NDArray[np.uint16]] = []
    for name in BANDS:
        with rasterio.open(SAMPLE / f"S2_{name}.tif") as band:
            pixels = band.read(1)
        if bands and pixels.shape != bands[0].shape:
            factor = round(bands[0].shape[0] / pixels.shape[0])
            pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)[: bands[0].shape[0], : bands[0].shape[1]]
            missing = [(0, whole - part) for whole, part in zip(bands[0].shape, pixels.shape, strict=True)]
            pixels = np.pad(pixels, missing, mode="edge")
        bands.append(pixels)
    return np.stack(bands)


def mirrored(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Indices that run to and fro over `length` samples."""
    place = np.arange(start, stop) % (2 * length)
    return np.minimum(place, 2 * length - 1 - place)


def write_scene(path: Path, side: int) -> None:
    """Write the scene strip by strip."""
    sample = read_sample()
    profile = {
        "driver": "GTiff",
        "width": side,
        "height": side,
        "count": len(BANDS),
        "dtype": "uint16",
        "nodata": 0,
        "crs": "EPSG:32618",
        "transform": rasterio.Affine(10, 0, 300000, 0, -10, 4300000),
        "tiled": True,
        "blockxsize": STRIP,
        "blockysize": STRIP,
        "compress": "deflate",
        "predictor": 2,
        "zlevel": 1,
        "num_threads": "all_cpus",
        "bigtiff": "yes",
        "interleave": "band",
    }
    columns = mirrored(0, side, sample.shape[2])
    with rasterio.open(path, "w", **profile) as raster:
        for top in range(0, side, STRIP):
            bottom = min(top + STRIP, side)
            rows = mirrored(top, bottom, sample.shape[1])
            y, x = np.arange(top, bottom)[:, None], np.arange(side)[None, :]
            light = 1 + 0.1 * np.sin(x / 2311) * np.cos(y / 1789) + 0.05 * np.sin((x + y) / 701)
            strip = sample[:, rows[:, None], columns[None, :]] * light
            raster.write(np.clip(strip, 1, 65535).astype(np.uint16), window=Window(0, top, side, bottom - top))  # pyright: ignore[reportCallIssue] - rasterio states no types


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    except OSError:
        pass  # it has just ended
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def measured_run(command: list[str]) -> tuple[int, float, float, int]:
    """(exit code, seconds, CPU seconds, most bytes of memory held at once), the last two with all its children."""
    peak, before = 0, os.times()
    start = time.perf_counter()
    process = subprocess.Popen(command)
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.2):
            peak = max(peak, sum(resident(pid) for pid in family(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return code, time.perf_counter() - start, processor, peak


def print_line(line: str) -> None:
    """One line on standard out, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Make the scene, run, and print the measurements."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--side", type=int, default=20000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-big-"))
    folder.mkdir(parents=True, exist_ok=True)
    scene, out = folder / f"scene-{asked.side}.tif", folder / "run"
    try:
        if not scene.exists():
            start = time.perf_counter()
            write_scene(scene, asked.side)
            print_line(f"scene written in {time.perf_counter() - start:.0f} s, {scene.stat().st_size / 1e9:.2f} GB")
        shutil.rmtree(out, ignore_errors=True)
        named = ["--preset", "sentinel2-l1c", "--bands", ",".join(BANDS), "--fetch"]
        command = [sys.executable, "-m", "limner.pipelines.cli.main", "run", str(scene), "--out", str(out), *named]
        code, seconds, processor, peak = measured_run([*command, *asked.words])
        if not (out / "manifest.json").exists():
            return code
        statuses = Counter(entry.status for entry in read_entries(out).values())
        found = sum(len(image.findings()) for image in read_record(out).images)
        print_line(f"exit code        {code}")
        print_line(f"wall time        {seconds:.0f} s")
        print_line(f"CPU time         {processor:.0f} s")
        print_line(f"peak memory      {peak / 2**20:.0f} MiB")
        print_line(f"regions          {dict(statuses)}")
        print_line(f"findings         {found}")
        for path in sorted(out.iterdir()):
            print_line(f"  {path.name:<24} {path.stat().st_size / 1e6:10.2f} MB")
        return code
    finally:
        if not asked.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
