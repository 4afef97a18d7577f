"""How far our pixel ↔ world mapping is from rasterio's and GDAL's, case by case: run this file.

Each case is a file, made on the fly or real. Its corners, centre and 500 places between are mapped to the world by
rasterio (for control points by GDAL's own transformer) and back to pixels by us: the distance is the first column of
numbers. The second is our own way there and back.
"""

import os
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from limner.readers.contract import scan_with
from limner.readers.raster.geotiff import RasterReader
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import AffineTransformer, GCPTransformer

SIZE = (211, 157)
AFFINES: dict[str, tuple[str, tuple[float, ...]]] = {
    "north-up, UTM": ("EPSG:32618", (10.0, 0.0, 435730.0, 0.0, -10.0, 4179460.0)),
    "south-up": ("EPSG:32618", (10.0, 0.0, 435730.0, 0.0, 10.0, 4160000.0)),
    "rotated by 30°": ("EPSG:32631", (2.165, 1.25, 592317.86, 1.25, -2.165, 5750102.16)),
    "sheared": ("EPSG:32631", (2.0, 0.7, 592317.86, 0.1, -2.4, 5750102.16)),
    "non-square pixels": ("EPSG:32636", (30.0, 0.0, 300000.0, 0.0, -12.5, 1000000.0)),
    "EPSG:4326": ("EPSG:4326", (1 / 3600, 0.0, 126.72447, 0.0, -1 / 3600, 37.94311)),
    "polar stereographic": ("EPSG:3031", (100.0, 0.0, -250000.0, 0.0, -100.0, 1350000.0)),
    "US survey feet": ("EPSG:2225", (0.5, 0.0, 6000000.123, 0.0, -0.5, 2200000.456)),
    "web mercator": ("EPSG:3857", (9.5546285343, 0.0, -11858134.818413, 0.0, -9.5546285343, 4813698.29264)),
}
REAL = (
    "rio_tiler_fixtures/cog_gcps.tif",
    "spacenet6_rotterdam_sar/sar_hh.tif",
    "rio_tiler_fixtures/cog_dateline.tif",
    "rio_tiler_fixtures/inverted_lat.tif",
    "rio_tiler_fixtures/cog_hirise_mars.tif",
    "rasterio_testdata/goes.tif",
    "sentinel2_virginia_l1c/S2_B04_lossless_DERIVED.jp2",
)


def write(path: Path, **profile: Any) -> Path:
    """An empty picture of `SIZE` with that georeference."""
    points = profile.pop("gcps", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", width=SIZE[0], height=SIZE[1], count=1, dtype="uint8", **profile
        ) as file:
            if points is not None:
                file.gcps = points
    return path


def control_points(count: int, bend: float) -> list[GroundControlPoint]:
    """Control points of a tilted frame in degrees, bent by a second-order term and a little noise."""
    random = np.random.default_rng(count)
    side = int(np.ceil(np.sqrt(count)))
    places = [(c * SIZE[0] / (side - 1), r * SIZE[1] / (side - 1)) for r in range(side) for c in range(side)][:count]
    return [
        GroundControlPoint(
            row=y,
            col=x,
            x=80.1 + 1e-3 * x + 2e-4 * y + bend * 1e-7 * (x * x - x * y) + 2e-6 * random.standard_normal(),
            y=13.2 - 1.1e-3 * y + 1e-4 * x + bend * 1e-7 * y * y + 2e-6 * random.standard_normal(),
        )
        for x, y in places
    ]


def cases(folder: Path, real: Path | None) -> Iterator[tuple[str, Path, Affine | None]]:
    """(name, file, the affine it must have where that is known without GDAL)."""
    for at, (name, (crs, numbers)) in enumerate(AFFINES.items()):
        affine = Affine(*numbers)
        yield name, write(folder / f"affine{at}.tif", crs=crs, transform=affine), affine
    affine = Affine(*AFFINES["north-up, UTM"][1])
    point = write(folder / "point.tif", crs="EPSG:32618", transform=affine)
    area, stated = struct.pack("<4H", 1025, 0, 1, 1), point.read_bytes()  # GTRasterTypeGeoKey: pixel is area
    if stated.count(area) != 1:
        msg = "the raster type key was not found"
        raise ValueError(msg)
    point.write_bytes(stated.replace(area, struct.pack("<4H", 1025, 0, 1, 2)))  # pixel is point: ties are centres
    yield "PixelIsPoint", point, affine @ Affine.translation(-0.5, -0.5)
    for count, bend in ((4, 0.0), (16, 1.0), (49, 5.0)):
        file = write(folder / f"gcps{count}.tif", gcps=(control_points(count, bend), CRS.from_epsg(4326)))
        yield f"{count} control points", file, None
    for name in REAL if real is not None else ():
        yield name, Path(str(real)) / name, None


def measure(path: Path, affine: Affine | None) -> tuple[float, float]:
    """(largest distance from rasterio or GDAL, largest distance after pixel → world → pixel), in pixels."""
    (info,) = scan_with(RasterReader(), str(path), {})
    width, height = info.size
    corners = [(0, 0), (width, 0), (0, height), (width, height), (width / 2, height / 2), (0.5, 0.5)]
    pixels = np.vstack([corners, np.random.default_rng(0).random((500, 2)) * (width, height)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            points, transform = file.gcps[0], affine or file.transform
            with GCPTransformer(points) if points else AffineTransformer(transform) as oracle:
                world = np.stack(oracle.xy(pixels[:, 1], pixels[:, 0], offset="ul"), axis=1)
    off = np.abs(info.placement.to_pixel(world) - pixels).max()
    back = np.abs(info.placement.to_pixel(info.placement.to_world(pixels)) - pixels).max()
    return float(off), float(back)


def table(folder: Path, real: Path | None = None) -> list[tuple[str, float, float]]:
    """(case, error against the oracle, error of the round trip) for every case; `real` holds the real files."""
    return [(name, *measure(path, affine)) for name, path, affine in cases(folder, real)]


def main() -> None:
    """Print the table; real files are looked for where the environment variable LIMNER_SHARED says."""
    shared = Path(os.environ.get("LIMNER_SHARED") or Path(__file__).resolve().parents[2].parent / "shared")
    real = shared / "data" / "geo"
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{'case':<54}{'from rasterio/GDAL, px':>24}{'there and back, px':>20}"]
        lines += [f"{n:<54}{a:>24.2e}{b:>20.2e}" for n, a, b in table(Path(folder), real if real.is_dir() else None)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
