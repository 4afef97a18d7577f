"""Processor time to read tiles of 512 px of a slide at half its resolution, by limner and by other libraries.

Every loop opens the slide, which is not counted, and reads all whole tiles in order, in turns in one process, so that
ratios mean something on a machine that others use too. Libraries that are not installed are left out. Prints the least
of all rounds, and by how much pixels differ from exact means of areas of level 0, which a coarser level, where there is
one, does not have. `slide` names another TIFF slide with tiles of JPEG.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import tifffile
from limner.readers.contract import scan_with
from limner.readers.errors import LimnerError
from limner.readers.geometry import Box
from limner.readers.slide.openslide import SlideReader
from limner.readers.slide.pyramid import PyramidReader
from PIL import Image

SAMPLE = Path(__file__).parents[2] / "notebooks/samples/slides/CMU-1-Small-Region.svs"
TILE, HALF = 512, 256
Tiles = Iterator[Any]
"""None when the slide is open, then arrays (256, 256, channels)."""


def corners(path: Path) -> list[tuple[int, int]]:
    """The upper left corners of all whole tiles, row by row."""
    with openslide.OpenSlide(path) as slide:
        width, height = slide.dimensions
    return [(x, y) for y in range(0, height - TILE + 1, TILE) for x in range(0, width - TILE + 1, TILE)]


def by_limner(reader: Any, path: Path) -> Tiles:
    """One of limner's readers."""
    (info,) = scan_with(reader, str(path), {})
    with reader.open(info) as image:
        yield None
        for x, y in corners(path):
            yield image.read(Box(x, y, x + TILE, y + TILE), (HALF, HALF))[0]


def by_openslide(path: Path) -> Tiles:
    """OpenSlide's `read_region`, reduced by Pillow."""
    with openslide.OpenSlide(path) as slide:
        yield None
        for corner in corners(path):
            region = slide.read_region(corner, 0, (TILE, TILE)).convert("RGB")
            yield np.asarray(region.resize((HALF, HALF), Image.Resampling.BOX))


def by_vips(path: Path) -> Tiles:
    """libvips, which reads the tiles through libtiff."""
    import pyvips  # pyright: ignore[reportMissingImports] - optional

    slide: Any = pyvips.Image.tiffload(str(path))  # pyright: ignore[reportUnknownMemberType]
    halved = slide.extract_band(0, n=3).shrink(2, 2)
    region = pyvips.Region.new(halved)
    yield None
    for x, y in corners(path):
        yield np.frombuffer(region.fetch(x // 2, y // 2, HALF, HALF), np.uint8).reshape(HALF, HALF, 3)


def by_opencv(path: Path) -> Tiles:
    """Tiles decoded by imagecodecs and put together by hand, reduced by OpenCV: what one writes for a single file."""
    import cv2  # pyright: ignore[reportMissingImports] - optional
    import imagecodecs

    with tifffile.TiffFile(path) as tiff:
        page: Any = tiff.pages[0]
        wide, high, across = page.tilewidth, page.tilelength, -(-page.imagewidth // page.tilewidth)
        colours: dict[str, Any] = {"colorspace": "RGB"} if int(page.photometric) == 2 else {}
        row_of_tiles: dict[int, Any] = {}
        yield None
        for x, y in corners(path):
            window = np.empty((TILE, TILE, 3), np.uint8)
            for row in range(y // high, -(-(y + TILE) // high)):
                for column in range(x // wide, -(-(x + TILE) // wide)):
                    index = row * across + column
                    if index not in row_of_tiles:
                        tiff.filehandle.seek(page.dataoffsets[index])
                        data = tiff.filehandle.read(page.databytecounts[index])
                        row_of_tiles[index] = imagecodecs.jpeg8_decode(
                            data, tables=page.jpegtables, outcolorspace="RGB", **colours
                        )
                    top, left = row * high - y, column * wide - x
                    y0, y1, x0, x1 = max(0, top), min(TILE, top + high), max(0, left), min(TILE, left + wide)
                    window[y0:y1, x0:x1] = row_of_tiles[index][y0 - top : y1 - top, x0 - left : x1 - left]
            yield cv2.resize(window, (HALF, HALF), interpolation=cv2.INTER_AREA)


def loops(path: Path) -> dict[str, Callable[[], Tiles]]:
    """The loops that can be measured here."""
    found: dict[str, Callable[[], Tiles]] = {"limner, reader slide": lambda: by_limner(SlideReader(), path)}
    try:
        scan_with(PyramidReader(), str(path), {})
        found["limner, reader pyramid"] = lambda: by_limner(PyramidReader(), path)
    except LimnerError:
        pass
    found["OpenSlide and Pillow"] = lambda: by_openslide(path)
    if find_spec("pyvips"):
        found["pyvips"] = lambda: by_vips(path)
    if find_spec("cv2"):
        found["imagecodecs and OpenCV, by hand"] = lambda: by_opencv(path)
    return found


def exact(path: Path) -> list[Any]:
    """Means of areas of the tiles, by tifffile's decoder."""
    whole = tifffile.imread(path, key=0).astype(np.float64)
    return [whole[y : y + TILE, x : x + TILE].reshape(HALF, 2, HALF, 2, 3).mean(axis=(1, 3)) for x, y in corners(path)]


def table(path: Path, rounds: int) -> list[str]:
    """Lines of the report."""
    truth, count = exact(path), len(corners(path))
    lines = [f"{path.name}: {count} tiles of {TILE} px to {HALF} px; ms of processor time a tile, ratio, difference"]
    found, least = loops(path), dict[str, float]()
    for _ in range(rounds):
        for name, loop in found.items():
            tiles = loop()
            next(tiles)
            spent = time.process_time()
            for _ in tiles:
                pass
            spent = (time.process_time() - spent) / count * 1e3
            least[name] = min(spent, least.get(name, spent))
    for name, loop in found.items():
        difference = max(float(np.abs(tile - want).max()) for tile, want in zip(list(loop())[1:], truth, strict=True))
        lines.append(
            f"{name:<34} {least[name]:6.2f} {least[name] / least['OpenSlide and Pillow']:6.2f} {difference:6.2f}"
        )
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("slide", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sys.stdout.write("\n".join(table(options.slide, options.rounds)) + "\n")


if __name__ == "__main__":
    main()
