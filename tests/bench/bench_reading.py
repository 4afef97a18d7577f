"""Processor time of the raster reader against plain rasterio loops, on files made on the fly: run this file.

Both loops read the same windows of 2048 source pixels with the file open, rasterio with `Resampling.average` and, where
there is no data, `dataset_mask`. They run in turns in one process, so that the ratio means something on a machine that
others use too; the least of some rounds counts. `--side` sets the picture's side in pixels, `--only` chooses layouts.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from limner.readers.contract import scan_with
from limner.readers.geometry import Box
from limner.readers.image import ImageInfo
from limner.readers.raster.geotiff import RasterReader
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.windows import Window

SOURCE = 2048
REDUCTIONS = (1.0, 2.0, 3.0, 2.5, 2.3, 8.0)
TILES = {"tiled": True, "blockxsize": 512, "blockysize": 512}
DEFLATE = {"compress": "deflate", "predictor": 2}
LAYOUTS: dict[str, dict[str, Any]] = {
    "3 × uint8, tiles by pixel, deflate": {"dtype": "uint8", "count": 3, "interleave": "pixel", **TILES, **DEFLATE},
    "3 × uint8, strips by pixel, deflate": {"dtype": "uint8", "count": 3, "blockysize": 16, **DEFLATE},
    "3 × uint8, tiles by pixel, uncompressed": {"dtype": "uint8", "count": 3, "interleave": "pixel", **TILES},
    "6 × uint16, tiles by band, deflate": {"dtype": "uint16", "count": 6, "interleave": "band", **TILES, **DEFLATE},
    "6 × uint16, tiles by pixel, deflate": {"dtype": "uint16", "count": 6, "interleave": "pixel", **TILES, **DEFLATE},
    "6 × uint16, tiles by pixel, uncompressed, no data": {
        "dtype": "uint16", "count": 6, "interleave": "pixel", "nodata": 0, **TILES,
    },
    "2 × float32, tiles by band, zstd, no data": {
        "dtype": "float32", "count": 2, "interleave": "band", "nodata": -9999, "compress": "zstd", "predictor": 3,
        **TILES,
    },
    "6 × uint16, tiles by band, deflate, 2 × overview": {
        "dtype": "uint16", "count": 6, "interleave": "band", "overview": 2, **TILES, **DEFLATE,
    },
}  # fmt: skip


def write(path: Path, side: int, layout: dict[str, Any]) -> Path:
    """A textured picture, a corner and every thousandth pixel of which are no data if the layout has any."""
    random = np.random.default_rng(0)
    profile = {name: value for name, value in layout.items() if name != "overview"}
    coarse = random.integers(1, 200, (layout["count"], side // 8, side // 8)).repeat(8, axis=1).repeat(8, axis=2)
    picture = coarse + random.integers(0, 8, coarse.shape)
    picture = (picture if layout["dtype"] == "uint8" else picture * 13).astype(layout["dtype"])
    if "nodata" in layout:
        picture[:, : side // 5, : side // 7] = layout["nodata"]
        picture[:, random.random((side, side)) < 1e-3] = layout["nodata"]
    where = {"crs": "EPSG:32618", "transform": from_origin(3e5, 4e6, 1, 1), "width": side, "height": side}
    with rasterio.open(path, "w", driver="GTiff", **where, **profile) as file:
        file.write(picture)
    if "overview" in layout:
        with rasterio.open(path, "r+") as file:
            file.build_overviews([layout["overview"]], Resampling.average)
    return path


def windows(side: int, source: float) -> Iterator[tuple[int, int]]:
    """The upper left corners of all whole windows, row by row."""
    whole = range(0, side - int(source) + 1, int(source))
    return ((x, y) for y in whole for x in whole)


def ours(info: ImageInfo, side: int, size: int, step: float) -> float:
    """Seconds of our reader's loop."""
    with RasterReader().open(info) as image:
        begun = time.process_time()
        for x, y in windows(side, size * step):
            image.read(Box(x, y, x + size * step, y + size * step), (size, size))
        return time.process_time() - begun


def plain(path: Path, side: int, size: int, step: float) -> float:
    """Seconds of what one writes with rasterio."""
    with rasterio.open(path) as file:
        begun = time.process_time()
        for x, y in windows(side, size * step):
            window = Window(x, y, size * step, size * step)  # pyright: ignore[reportCallIssue] - rasterio states no types
            file.read(window=window, out_shape=(file.count, size, size), resampling=Resampling.average)
            if file.nodata is not None:
                file.dataset_mask(window=window, out_shape=(size, size))
        return time.process_time() - begun


def main() -> None:
    """Print the table: limner's seconds of processor time, rasterio's, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", default="", help="a part of the layouts' names")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, layout in LAYOUTS.items():
            if options.only not in name:
                continue
            path = write(Path(folder) / "picture.tif", options.side, layout)
            (info,) = scan_with(RasterReader(), str(path), {})
            sys.stdout.write(f"{name}\n")
            for step in REDUCTIONS:
                size = int(SOURCE / step)
                pairs = [
                    (ours(info, options.side, size, step), plain(path, options.side, size, step))
                    for _ in range(options.rounds)
                ]
                own, other = (min(times) for times in zip(*pairs, strict=True))
                sys.stdout.write(f"    1 : {step:<4g} {own:7.3f} {other:7.3f} {own / other:6.2f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
