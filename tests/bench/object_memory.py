"""Prints the memory and time of runs that find 100,000 and 1,000,000 objects on a made slide, with instances.

python tests/bench/object_memory.py [--counts 100000,1000000] [--folder FOLDER]

Discs lie on a grid, 18 px apart and moved at random, so that many touch a neighbour. Each run is a process of its own.
"""

import argparse
import csv
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
WORDS = ("--model", "threshold:red", "--set", "model_options.side=below", "--set", "model_options.label=nucleus")
OBJECTS = ("--instances", "nucleus", "--min-area", "10px", "--fill-holes", "20px", "--smooth")
REPORTS = ("--reports", "findings-csv,summary-csv,qupath-gz")


def tile(seed: int) -> npt.NDArray[np.uint8]:
    """Dark discs on pink."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:TILE, :TILE] + 0.5
    near = np.zeros((TILE, TILE), dtype=np.bool_)
    for i in range(TILE // APART):
        for j in range(TILE // APART):
            cy, cx = (np.array([i, j]) + 0.5) * APART + rng.uniform(-1.5, 1.5, 2)
            here = np.s_[i * APART : (i + 1) * APART, j * APART : (j + 1) * APART]
            near[here] |= (x[here] - cx) ** 2 + (y[here] - cy) ** 2 < rng.uniform(6, 8.5) ** 2
    return np.where(near[..., None], (90, 50, 130), (225, 150, 200)).astype(np.uint8)


def write_slide(path: Path, count: int) -> int:
    """Write a slide of at least so many discs; returns how many."""
    side = math.ceil(math.sqrt(count / PER_TILE))
    tiles = [tile(seed) for seed in range(DIFFERENT)]

    def every() -> Iterator[npt.NDArray[np.uint8]]:
        for place in range(side * side):
            yield tiles[(place * 7) % DIFFERENT]

    with tifffile.TiffWriter(path, bigtiff=True) as file:
        shape, size = (side * TILE, side * TILE, 3), (TILE, TILE)
        resolution = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
        file.write(every(), shape=shape, dtype=np.uint8, tile=size, photometric="rgb", compression="zlib", **resolution)
    return side * side * PER_TILE


def main() -> None:
    """Run each count, and print a row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", default="100000,1000000")
    parser.add_argument("--folder", default="")
    given = parser.parse_args()
    print("| discs | slide | findings | run: peak memory | processor | reports again: peak memory | processor |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
    with tempfile.TemporaryDirectory(dir=given.folder or None) as temporary:
        for count in map(int, given.counts.split(",")):
            slide, out = Path(temporary) / f"{count}.tif", Path(temporary) / f"run-{count}"
            discs = write_slide(slide, count)
            common = ("run", str(slide), "--out", str(out), "--names", "show", *WORDS, *OBJECTS, *REPORTS)
            peak, seconds = measured(*common, "--tissue", "off", "--microns-per-pixel", "0.25")
            alone, of_reports = measured("report", str(out))
            with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
                found = next(csv.DictReader(file))["findings"]
            side = round(math.sqrt(discs / PER_TILE)) * TILE
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
