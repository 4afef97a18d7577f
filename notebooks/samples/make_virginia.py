"""Cut the sample scene `virginia/` out of the bands it comes from, and check that no pixel changed.

    python notebooks/samples/make_virginia.py FOLDER [OUT]

FOLDER holds the bands of the scene as `S2_B02.tif` or, as in the package they come from, `s2_B02.jp2`.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import from_bounds

BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
BOUNDS = (440_760.0, 4_162_740.0, 450_660.0, 4_172_940.0)
"""Left, bottom, right, top in metres of EPSG:32618: whole pixels of the 10, 20 and 60 m grids alike."""


def cut(source: Path, target: Path) -> None:
    """Write the part of `source` within BOUNDS to `target`: same values, same grid, tiled and deflated."""
    with rasterio.open(source) as band:
        window = from_bounds(*BOUNDS, transform=band.transform)
        whole = window.round_offsets().round_lengths()
        parts = ("col_off", "row_off", "width", "height")
        if any(round(getattr(window, part), 6) != getattr(whole, part) for part in parts):
            sys.exit(f"{source}: the crop must consist of whole pixels: {window}")
        pixels = band.read(1, window=whole)
        if pixels.shape != (whole.height, whole.width):
            sys.exit(f"{source}: the crop must lie within the band: {window}")
        profile = {
            "driver": "GTiff",
            "width": whole.width,
            "height": whole.height,
            "count": 1,
            "dtype": band.dtypes[0],
            "crs": band.crs,
            "transform": band.window_transform(whole),
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
            "compress": "deflate",
            "predictor": 2,
            "zlevel": 9,
        }
        with rasterio.open(target, "w", **profile) as crop:
            crop.write(pixels, 1)
        with rasterio.open(target) as crop:
            left, bottom, right, top = crop.bounds
            again = band.read(1, window=from_bounds(left, bottom, right, top, transform=band.transform))
            if (left, bottom, right, top) != BOUNDS or not np.array_equal(crop.read(1), again):
                sys.exit(f"{target}: the crop must hold the band's own pixels at their own place")


def main(folder: Path, out: Path) -> None:
    """Cut every band and print the table of the README: file, size in pixels, bytes and sha256."""
    for band in BANDS:
        candidates = [folder / f"S2_{band}.tif", folder / f"s2_{band}.jp2"]
        source = next((path for path in candidates if path.exists()), None)
        if source is None:
            sys.exit(f"{folder}: it must hold band {band} as S2_{band}.tif or s2_{band}.jp2")
        target = out / f"S2_{band}.tif"
        cut(source, target)
        with rasterio.open(target) as crop:
            size = f"{crop.width} × {crop.height}"
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        print(f"| `{target.name}` | {size} | {target.stat().st_size} | `{digest}` |")


if __name__ == "__main__":
    match [Path(argument) for argument in sys.argv[1:]]:
        case [folder]:
            main(folder, Path(__file__).parent / "virginia")
        case [folder, out]:
            main(folder, out)
        case _:
            sys.exit(__doc__)
