"""Processor time and memory that `limner plan` takes for a slide of one level, of which an overview has to be made.

The slide is made on the fly: JPEG tiles at 0.5 µm/px, of which a few are repeated, a third of it stained.

    python tests/bench/flat_slide.py [--side 40000] [--folder DIR]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

TILE = 256


def write_slide(path: Path, side: int) -> None:
    """A flat TIFF of tiles in JPEG."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)

    def encoded(pixels: np.ndarray) -> bytes:
        rgb = np.clip(pixels, 0, 255).astype(np.uint8)
        return bytes(imagecodecs.jpeg_encode(rgb, level=80, colorspace="RGB", outcolorspace="YCBCR", subsampling="420"))

    glass = encoded(243 + random.normal(0, 1, (TILE, TILE, 3)))
    stained = [
        encoded(
            np.stack([190 + 40 * np.sin(x / 7 + k), 120 + 50 * np.sin(y / 5 + x / 11 + k), 180 + 30 * np.cos(y / 9)], 2)
            + random.normal(0, 6, (TILE, TILE, 3))
        )
        for k in range(16)
    ]
    count = -(-side // TILE)

    def tiles() -> Iterator[bytes]:
        for row in range(count):
            for column in range(count):
                inside = np.hypot((column + 0.5) / count - 0.5, (row + 0.5) / count - 0.5) < 0.3
                yield stained[(row * 7 + column) % len(stained)] if inside else glass

    layout = {"tile": (TILE, TILE), "compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2)}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(tiles(), shape=(side, side, 3), dtype=np.uint8, metadata=None, **layout)  # pyright: ignore[reportArgumentType] - a test's


def main() -> None:
    """Make, plan, tell."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--side", type=int, default=40000)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="limner-flat-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"flat-{asked.side}.tif"
    if not path.exists():
        write_slide(path, asked.side)
    command = [
        sys.executable,
        "-m",
        "limner",
        "plan",
        os.fspath(path),
        "--model",
        "gland",
        "--microns-per-pixel",
        "0.5",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            try:
                lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
            except OSError:
                return
            found = (float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
            peak[0] = max([peak[0], *found])

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    ended.set()
    watcher.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.stdout.write(f"{said}\n{used.ru_utime + used.ru_stime:.0f} s of processor time, {peak[0]:.0f} MiB held\n")


if __name__ == "__main__":
    main()
