"""The peer of `end_to_end.py`: what one would write by hand with rasterio and onnxruntime for a scene and a network.

Windows with a halo, repeated at the scene's edge, cut into tiles; the class of each pixel; one polygon per patch, in a
CSV with its area, its centre and its outline. No overview, no masks, no scores, no resume.

    python tests/bench/rasterio_loop.py SCENE NETWORK OUT.csv
"""

import csv
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import rasterio
from end_to_end_case import CLASSES, HALO, MEAN, STD, TILE
from rasterio.features import shapes
from rasterio.warp import transform
from rasterio.windows import Window
from shapely.geometry import shape

TILES = 5  # a side of a window


def main(scene: str, network: str, out: str) -> None:
    """Segment a scene and write its polygons."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    step = TILE - 2 * HALO
    mean, std = np.array(MEAN, np.float32)[:, None, None], np.array(STD, np.float32)[:, None, None]
    with rasterio.open(scene) as raster:
        classes = np.zeros((raster.height, raster.width), np.uint8)
        for top in range(0, raster.height, TILES * step):
            for left in range(0, raster.width, TILES * step):
                y0, x0 = max(0, top - HALO), max(0, left - HALO)
                y1 = min(raster.height, top + TILES * step + HALO)
                x1 = min(raster.width, left + TILES * step + HALO)
                pixels = raster.read(window=Window(x0, y0, x1 - x0, y1 - y0))  # pyright: ignore[reportCallIssue] - rasterio states no types
                for y in range(top, min(top + TILES * step, raster.height), step):
                    for x in range(left, min(left + TILES * step, raster.width), step):
                        rows = np.clip(np.arange(y - HALO, y + step + HALO), 0, raster.height - 1) - y0
                        columns = np.clip(np.arange(x - HALO, x + step + HALO), 0, raster.width - 1) - x0
                        tile = pixels[:, rows[:, None], columns]
                        values = (tile.astype(np.float32) - mean) / std
                        scores = np.asarray(session.run(None, {"x": values[None]})[0])[0]
                        part = scores[:, HALO:-HALO, HALO:-HALO].argmax(axis=0)
                        inside = classes[y : y + step, x : x + step]
                        inside[...] = part[: inside.shape[0], : inside.shape[1]]
        with Path(out).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "area_px", "lon", "lat", "wkt"])
            for traced, value in shapes(classes, mask=classes > 0, connectivity=4, transform=raster.transform):
                outline = shape(traced)
                centre = outline.centroid
                (lon,), (lat,) = transform(raster.crs, "EPSG:4326", [centre.x], [centre.y])[:2]
                writer.writerow([CLASSES[int(value)], outline.area / 100, lon, lat, outline.wkt])


if __name__ == "__main__":
    main(*sys.argv[1:])
