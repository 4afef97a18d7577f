"""Prints the memory and time of runs that find 100,000 and 1,000,000 objects on a made slide, with instances.

python tests/bench/object_memory.py [--counts 100000,1000000] [--area] [--folder FOLDER]

Discs lie on a grid, 18 px apart and moved at random, so that many touch a neighbour. Each run is a process of its own.
With `--area` they are holes in one area, of some 35 vertices each, with a ribbon round it along the edge of the tissue.
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

TILE = 432
APART = 18
PER_TILE = (TILE // APART) ** 2
DIFFERENT = 16
RIBBON = 30
DARK, LIGHT, GLASS = (90, 50, 130), (225, 150, 200), (243, 243, 243)
WORDS = ("--model", "threshold:red", "--set", "model_options.side=below")
OBJECTS = ("--instances", "nucleus", "--min-area", "10px", "--fill-holes", "20px", "--smooth")
CASES = {
    False: (*WORDS, "--set", "model_options.label=nucleus", *OBJECTS, "--tissue", "off"),
    True: (*WORDS, "--set", "model_options.label=stroma", "--hd-num", "9", "--tissue"),
}
REPORTS = {False: "findings-csv,summary-csv,qupath-gz", True: "findings-csv,summary-csv"}


def tile(seed: int, *, dark: bool) -> npt.NDArray[np.uint8]:
    """Dark discs on what is light, or the other way round."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:TILE, :TILE] + 0.5
    near = np.zeros((TILE, TILE), dtype=np.bool_)
    for i in range(TILE // APART):
        for j in range(TILE // APART):
            cy, cx = (np.array([i, j]) + 0.5) * APART + rng.uniform(-1.5, 1.5, 2)
            here = np.s_[i * APART : (i + 1) * APART, j * APART : (j + 1) * APART]
            near[here] |= (x[here] - cx) ** 2 + (y[here] - cy) ** 2 < rng.uniform(6, 8.5) ** 2
    return np.where((near == dark)[..., None], DARK, LIGHT).astype(np.uint8)


def edge_tile(row: int, column: int, last: int) -> npt.NDArray[np.uint8]:
    """Glass, or next to it a ribbon of dark with a bridge to what is inside, on light."""
    if {row, column} & {0, last}:
        return np.full((TILE, TILE, 3), GLASS, dtype=np.uint8)
    y, x = np.mgrid[:TILE, :TILE]
    depth = np.full((TILE, TILE), TILE)
    for at, place in ((row, y), (column, x)):
        if at in {1, last - 1}:
            depth = np.minimum(depth, place if at == 1 else TILE - 1 - place)
    dark = (depth < RIBBON) | (abs(x - TILE // 2) < 6) | (abs(y - TILE // 2) < 6)
    return np.where(dark[..., None], DARK, LIGHT).astype(np.uint8)


def write_slide(path: Path, count: int, *, area: bool) -> int:
    """Write a slide of at least so many discs; returns the pixels of a side."""
    edge = 2 if area else 0
    side = math.ceil(math.sqrt(count / PER_TILE)) + 2 * edge
    tiles = [tile(seed, dark=not area) for seed in range(DIFFERENT)]

    def every() -> Iterator[npt.NDArray[np.uint8]]:
        for place in range(side * side):
            row, column = divmod(place, side)
            inside = edge <= row < side - edge and edge <= column < side - edge
            yield tiles[(place * 7) % DIFFERENT] if inside else edge_tile(row, column, side - 1)

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        shape, size = (side * TILE, side * TILE, 3), (TILE, TILE)
        resolution = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
        file.write(every(), shape=shape, dtype=np.uint8, tile=size, photometric="rgb", compression="zlib", **resolution)
    return side * TILE


def tissue(slide: Path, side: int) -> Path:
    """A file beside the slide that says that all but the glass round it is tissue."""
    low, high = TILE, side - TILE
    ring = [[low, low], [high, low], [high, high], [low, high], [low, low]]
    path = slide.with_suffix(".geojson")
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}), encoding="utf-8")
    return path


def main() -> None:
    """Run each count, and print a row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", default="100000,1000000")
    parser.add_argument("--area", action="store_true")
    parser.add_argument("--folder", default="")
    given = parser.parse_args()
    print("| discs | slide | findings | run: peak memory | processor | reports again: peak memory | processor |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
    with tempfile.TemporaryDirectory(dir=given.folder or None) as temporary:
        for count in map(int, given.counts.split(",")):
            slide, out = Path(temporary) / f"{count}.tif", Path(temporary) / f"run-{count}"
            side = write_slide(slide, count, area=given.area)
            words = [*CASES[given.area], *([str(tissue(slide, side))] if given.area else [])]
            common = ("run", str(slide), "--out", str(out), "--names", "show", *words)
            peak, seconds = measured(*common, "--reports", REPORTS[given.area], "--microns-per-pixel", "0.25")
            alone, of_reports = measured("report", str(out))
            with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
                found = next(csv.DictReader(file))["findings"]
            discs = (side // TILE - (4 if given.area else 0)) ** 2 * PER_TILE
            row = (f"{discs:,}", f"{side:,} px square", f"{int(found):,}", f"{peak:,.0f} MB", f"{seconds:.0f} s")
            print("| " + " | ".join([*row, f"{alone:,.0f} MB", f"{of_reports:.0f} s"]) + " |", flush=True)  # noqa: T201


def measured(*words: str) -> tuple[float, float]:
    """The peak memory in MB of a command of limner, and its processor time in seconds."""
    process = subprocess.Popen([sys.executable, "-m", "limner", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"limner {' '.join(words)} ended with {process.returncode}")
    return usage.ru_maxrss * 1024 / 1e6, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
