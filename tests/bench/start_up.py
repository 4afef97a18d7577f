"""What commands take to start: processor and wall-clock seconds of `limner info` of a small map, and of others.

Beside them `import rasterio`, which reading a map needs. Processor seconds are those of all processes of a command. The
commands take turns, so that a busy machine slows all of them alike, and the least of all turns counts.

    python tests/bench/start_up.py [--turns 15]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio

IMPORT = "import rasterio"


def write_map(path: Path) -> None:
    """A map of 256 × 256 px in three bands."""
    profile = {"driver": "GTiff", "width": 256, "height": 256, "count": 3, "dtype": "uint8"}
    where = {"crs": "EPSG:32618", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 43e5)}
    pixels = np.random.default_rng(0).integers(0, 255, (3, 256, 256)).astype(np.uint8)
    with rasterio.open(path, "w", **profile, **where) as raster:
        raster.write(pixels)


def measured(words: Sequence[str]) -> tuple[float, float]:
    """(processor seconds, wall seconds) of a Python process and its children."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - start


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        write_map(Path(folder) / "map.tif")
        commands = ("info map.tif", "plan map.tif --model none", "models", "--help", "run --help", "doctor")
        rows = {IMPORT: ["-c", IMPORT], "import limner": ["-c", "import limner"]}
        rows |= {f"limner {words}": ["-m", "limner", *words.split()] for words in commands}
        os.chdir(folder)
        found = [[measured(words) for words in rows.values()] for _ in range(turns)]
        sys.stdout.write("| command | processor s | wall s |\n| --- | --- | --- |\n")
        for place, name in enumerate(rows):
            cpu, wall = (min(times) for times in zip(*(turn[place] for turn in found), strict=True))
            sys.stdout.write(f"| `{name}` | {cpu:.2f} | {wall:.2f} |\n")


if __name__ == "__main__":
    main()
