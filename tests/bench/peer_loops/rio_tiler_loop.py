"""rio-tiler's parts at a fourth of the resolution: python rio_tiler_loop.py PICTURE OUT.npz."""

import sys
import time

import numpy as np
from made import PART, SIDE, SOURCE
from rio_tiler.io import Reader  # pyright: ignore[reportMissingImports] - of another environment


def main(picture: str, out: str) -> None:
    """Read every part, and save all of them (n, 512, 512, 3)."""
    with Reader(picture) as reader:
        affine, crs = reader.dataset.transform, reader.dataset.crs
        begun, parts = time.process_time(), []
        for y in range(0, SIDE, SOURCE):
            for x in range(0, SIDE, SOURCE):
                (left, top), (right, bottom) = affine @ (x, y), affine @ (x + SOURCE, y + SOURCE)
                part = reader.part(
                    (left, bottom, right, top),
                    bounds_crs=crs,
                    dst_crs=crs,
                    width=PART,
                    height=PART,
                    resampling_method="average",
                )
                parts.append(part.data.transpose(1, 2, 0))
        cpu = time.process_time() - begun
    np.savez(out, parts=np.array(parts), cpu=cpu)


if __name__ == "__main__":
    main(*sys.argv[1:])
