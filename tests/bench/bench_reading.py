"""Windows a second of the raster reader against plain rasterio loops, on files made on the fly: run this file.

Every pair runs in turns in one process, so that the ratio means something on a machine that others use too. `--side`
sets the picture's side in pixels.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from limner.readers.contract import scan_with
from limner.readers.geometry import Box
from limner.readers.raster.geotiff import RasterReader
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.windows import Window

TILE = 336
LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles 512, deflate": {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2},
    "strips, deflate": {"blockysize": 16, "compress": "deflate", "predictor": 2},
}


def write(path: Path, side: int, layout: dict[str, Any]) -> Path:
    """A textured picture of three 8-bit channels."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 200, (3, side // 8, side // 8)).repeat(8, axis=1).repeat(8, axis=2)
    picture = (coarse + random.integers(0, 8, coarse.shape)).astype(np.uint8)
    profile = {"driver": "GTiff", "width": picture.shape[2], "height": picture.shape[1], "count": 3, "dtype": "uint8"}
    where = {"crs": "EPSG:32618", "transform": from_origin(3e5, 4e6, 1, 1)}
    with rasterio.open(path, "w", **profile, **where, **layout, interleave="pixel") as file:
        file.write(picture)
    return path


def windows(side: int, step: int) -> Iterator[tuple[int, int]]:
    """The upper left corners of all whole windows, row by row."""
    whole = range(0, side - step * TILE + 1, step * TILE)
    return ((x, y) for y in whole for x in whole)


def ours(path: Path, side: int, step: int) -> int:
    """Our reader's loop."""
    (info,) = scan_with(RasterReader(), str(path), {})
    count = 0
    with RasterReader().open(info) as image:
        for x, y in windows(side, step):
            pixels, _ = image.read(Box(x, y, x + step * TILE, y + step * TILE), (TILE, TILE))
            count += pixels.shape[0] // TILE
    return count


def plain(path: Path, side: int, step: int) -> int:
    """One handle, `read(window)`, the mask, and the axes turned: what one writes first."""
    count = 0
    with rasterio.open(path) as file:
        for x, y in windows(side, step):
            window = Window(x, y, step * TILE, step * TILE)  # pyright: ignore[reportCallIssue] - rasterio states no types
            shape = (TILE, TILE)
            pixels = file.read(window=window, out_shape=(3, *shape), resampling=Resampling.average)
            file.dataset_mask(window=window, out_shape=shape)
            count += np.ascontiguousarray(np.moveaxis(pixels, 0, 2)).shape[0] // TILE
    return count


def boundless(path: Path, side: int, step: int) -> int:
    """The same with `boundless=True`, as one writes next, for the edges."""
    count = 0
    with rasterio.open(path) as file:
        for x, y in windows(side, step):
            window = Window(x, y, step * TILE, step * TILE)  # pyright: ignore[reportCallIssue] - rasterio states no types
            pixels = file.read(window=window, out_shape=(3, TILE, TILE), boundless=True, fill_value=0)
            count += np.moveaxis(pixels, 0, 2).shape[0] // TILE
    return count


def rate(loop: Callable[[Path, int, int], int], path: Path, side: int, step: int) -> tuple[float, float]:
    """(windows a second, windows a second of processor time)."""
    wall, spent = time.perf_counter(), time.process_time()
    count = loop(path, side, step)
    return count / (time.perf_counter() - wall), count / (time.process_time() - spent)


def table(side: int, rounds: int) -> list[str]:
    """Lines of the report: the best of some rounds for each loop, and the ratios."""
    lines = [f"{side} × {side} px, 3 × uint8, windows of {TILE} px; windows a second (a second of processor time)"]
    with tempfile.TemporaryDirectory() as folder:
        for name, layout in LAYOUTS.items():
            path = write(Path(folder) / "picture.tif", side, layout)
            for step in (1, 2):
                best: dict[str, tuple[float, float]] = {}
                for _ in range(rounds):
                    for loop in (ours, plain, boundless):
                        found, before = rate(loop, path, side, step), best.get(loop.__name__, (0.0, 0.0))
                        best[loop.__name__] = max(found[0], before[0]), max(found[1], before[1])
                rates = "   ".join(f"{key} {wall:6.0f} ({cpu:5.0f})" for key, (wall, cpu) in best.items())
                against = " ".join(f"{best['ours'][0] / best[key][0]:.2f}" for key in ("plain", "boundless"))
                lines.append(f"{name:<20} 1/{step}   {rates}   ours to the others: {against}")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    sys.stdout.write("\n".join(table(options.side, options.rounds)) + "\n")


if __name__ == "__main__":
    main()
