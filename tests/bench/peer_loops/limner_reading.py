"""limner's side of the loops that only read: python limner_reading.py chips|parts PICTURE OUT.npz."""

import sys
import time

import numpy as np
from limner.readers.contract import scan_with
from limner.readers.geometry import Box
from limner.readers.raster.geotiff import RasterReader
from made import CHIP, PART, SIDE, SOURCE, STRIDE

CHIPS = 5  # a side of a window, as a region has tiles


def parts(picture: str, out: str) -> None:
    """The parts of `rio_tiler_loop.py`."""
    [info] = scan_with(RasterReader(), picture, {})
    with RasterReader().open(info) as image:
        begun = time.process_time()
        places = [(x, y) for y in range(0, SIDE, SOURCE) for x in range(0, SIDE, SOURCE)]
        read = [image.read(Box(x, y, x + SOURCE, y + SOURCE), (PART, PART))[0] for x, y in places]
        cpu = time.process_time() - begun
    np.savez(out, parts=np.array(read), cpu=cpu)


def chips(scene: str, out: str) -> None:
    """The chips of `torchgeo_loop.py`, cut out of windows of 5 × 5, in floating point like those."""
    [info] = scan_with(RasterReader(), scene, {})
    side = info.size[0]
    corners = range(0, side - CHIP + 1, STRIDE)
    with RasterReader().open(info) as image:
        begun, rows = time.process_time(), []
        for top in corners[::CHIPS]:
            for left in corners[::CHIPS]:
                right, bottom = (min(side, at + (CHIPS - 1) * STRIDE + CHIP) for at in (left, top))
                pixels, _ = image.read(Box(left, top, right, bottom), (right - left, bottom - top))
                for y in range(top, bottom - CHIP + 1, STRIDE):
                    for x in range(left, right - CHIP + 1, STRIDE):
                        chip = pixels[y - top : y - top + CHIP, x - left : x - left + CHIP].transpose(2, 0, 1)
                        rows.append((x, y, float(chip.astype(np.float32).sum(dtype=np.float64))))
        cpu = time.process_time() - begun
    np.savez(out, rows=np.array(rows), cpu=cpu)


if __name__ == "__main__":
    {"chips": chips, "parts": parts}[sys.argv[1]](*sys.argv[2:])
