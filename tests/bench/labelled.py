"""Labelled sets of small pictures, fields of tiles made of them, and what fusion does to whoever judges these.

What the other scripts here share that measure or train with them.
"""

import io
import json
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from limner.model.clip.fusion import Fusion
from limner.model.tiling import TileGrid, cut_tiles
from limner.model.training.metrics import accuracy_gain
from limner.model.training.tile_labels import Outline, label_tiles
from limner.readers.geometry import Box
from limner.readers.render import Stretch, render
from PIL import Image
from shapely.geometry import box, shape

Pixels = npt.NDArray[Any]
Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]
Judge = Callable[[int, Fusion | None], Values]

SEED = 20
WHITE = 2750.0  # EuroSAT's own: a reflectance of 0.275
COLOURS = [3, 2, 1]  # red, green and blue among its bands
SIDE = 5  # tiles along a region: 25, as a run has them
CELL, BLOOD = 16, 32  # pixels of a tile on nuclei and on blood
FUSIONS = [Fusion(scale, mix) for scale in (5.0, 10.0, 20.0) for mix in (0.25, 0.5, 0.75)]


@dataclass(frozen=True)
class Tiles:
    """Pictures (n, side, side, channels), their classes (n,) and the units (n,) that stay on one side of a fold."""

    pictures: Pixels
    classes: Numbers
    units: Numbers


def print_line(line: str) -> None:
    """A line of a table, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def resized(picture: Pixels, side: int) -> Pixels:
    """A picture (h, w, 3) at side × side; as it is where it has that size or any will do."""
    if side in {0, picture.shape[0]}:
        return picture
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR))


def wilson(right: int, of: int) -> tuple[float, float]:
    """The interval of Wilson (1927) for `right` of `of`, 95 %."""
    z, p = 1.959964, right / of
    middle, half = p + z * z / (2 * of), z * np.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def eurosat(data: Path) -> tuple[dict[str, Tiles], list[str]]:
    """Tiles of the train and val rows in all thirteen bands, B01 to B12 and B8A, and the classes' names."""
    folder = data / "tiles" / "eurosat100_ms"
    rows = [line.split(",") for line in (folder / "split.csv").read_text(encoding="utf-8").split()[1:]]
    names = sorted({row[1] for row in rows})
    found: dict[str, Tiles] = {}
    with zipfile.ZipFile(folder / "eurosat100_train_val.zip") as held:
        for split in ("train", "val"):
            some = [(f"tif/{name}/{tile}.tif", names.index(name)) for tile, name, part in rows if part == split]
            native: list[Pixels] = []
            for path, _ in some:
                with rasterio.MemoryFile(held.read(path)) as file, file.open() as raster:
                    native.append(raster.read().transpose(1, 2, 0))
            classes = np.array([place for _, place in some], dtype=np.intp)
            found[split] = Tiles(np.stack(native), classes, np.arange(len(some)))
    return found, names


def shown(native: Tiles) -> Tiles:
    """EuroSAT's tiles of thirteen bands as `limner run --stretch 0,2750` shows their red, green and blue."""
    stretch = Stretch(("B04", "B03", "B02"), (0.0,) * 3, (WHITE,) * 3, "as given")
    valid = np.ones(native.pictures.shape[1:3], dtype=np.bool_)
    pictures = [render(one[..., COLOURS], valid, stretch) for one in native.pictures]
    return Tiles(np.stack(pictures), native.classes, native.units)


def pneumonia(data: Path, part: str) -> Tiles:
    """The films of a part, "train", "val" or "test", grey three times; each is its own unit."""
    with np.load(data / "tiles" / "pneumoniamnist28" / "pneumoniamnist_dev.npz") as held:
        pictures, classes = held[f"{part}_images"], held[f"{part}_labels"]
    return Tiles(np.repeat(pictures[..., None], 3, axis=3), classes.ravel().astype(np.intp), np.arange(len(pictures)))


def nuclei(data: Path) -> Iterator[tuple[Pixels, list[Outline]]]:
    """Every third field of the stained set, and its nuclei."""
    with zipfile.ZipFile(data / "slides" / "nuclei_dsb2018_he" / "dsb2018_he.zip") as held:
        for name in sorted(one for one in held.namelist() if one.startswith("images/"))[::3]:
            drawn = json.loads(held.read(name.replace("images", "polygons").replace(".png", ".geojson")))
            shapes = [shape(one["geometry"]).buffer(0) for one in drawn["features"]]
            picture = np.asarray(Image.open(io.BytesIO(held.read(name))).convert("RGB"))
            yield picture, [Outline("nucleus", one, str(i)) for i, one in enumerate(shapes)]


def blood(data: Path) -> Iterator[tuple[Pixels, list[Outline]]]:
    """Every seventh field of the smears, and the boxes of its cells."""
    with zipfile.ZipFile(data / "tiles" / "bccd_blood_cells" / "bccd_train_val.zip") as held:
        for name in sorted(one for one in held.namelist() if one.endswith(".jpg"))[::7]:
            tree = ET.fromstring(held.read(name.replace("JPEGImages", "Annotations").replace(".jpg", ".xml")))  # noqa: S314 - of the set itself
            boxes = [tuple(int(found.text or 0) for found in one)[:4] for one in tree.iter("bndbox")]
            picture = np.asarray(Image.open(io.BytesIO(held.read(name))).convert("RGB"))
            yield (
                picture,
                [Outline("cell", box(x0, y0, x1, y1), str(i)) for i, (x0, y0, x1, y1) in enumerate(boxes) if x0 < x1],
            )


@dataclass(frozen=True)
class Field:
    """A field's tiles (rows · cols, side, side, 3), row by row, and their classes; -1 where a tile is at an edge."""

    tiles: Pixels
    cols: int
    classes: Numbers


def fields(source: Iterator[tuple[Pixels, list[Outline]]], side: int, names: Sequence[str]) -> list[Field]:
    """Fields cut into tiles; class 0 is what nobody outlined, class 1 what somebody did."""
    found: list[Field] = []
    for picture, outlines in source:
        rows, cols = picture.shape[0] // side, picture.shape[1] // side
        grid = TileGrid.exact(cols, rows, tile=side)
        boxes = [Box(*map(float, one)) for one in grid.boxes()]
        whole = Box(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
        labels = label_tiles(boxes, outlines, image=whole, inside=0.5, rest=names[0])
        classes = [names.index(one.label) if one.outcome == "labelled" else -1 for one in labels]
        tiles = cut_tiles(picture[: rows * side, : cols * side], grid)
        found.append(Field(tiles, cols, np.array(classes, dtype=np.intp)))
    return found


def mosaics(tiles: Tiles, count: int) -> list[Field]:
    """Scenes of 10 × 10 tiles in patches of 2 × 5 of one class, each tile turned or mirrored at random."""
    random = np.random.Generator(np.random.PCG64(SEED))
    found: list[Field] = []
    for _ in range(count):
        order = random.permutation(10)
        classes = np.array(
            [[order[(r // 5) * 5 + c // 2] for c in range(10)] for r in range(10)], dtype=np.intp
        ).ravel()
        pictures = [tiles.pictures[random.choice(np.flatnonzero(tiles.classes == one))] for one in classes]
        turned = [np.rot90(one, int(random.integers(4))) for one in pictures]
        mirrored = [one[:, ::-1] if random.integers(2) else one for one in turned]
        found.append(Field(np.stack(mirrored), 10, classes))
    return found


def pooled(some: Sequence[Field]) -> Tiles:
    """The tiles of fields whose class is known, blocked by field."""
    units = np.concatenate([np.full(len(one.classes), i) for i, one in enumerate(some)])
    classes = np.concatenate([one.classes for one in some])
    known = classes >= 0
    return Tiles(np.concatenate([one.tiles for one in some])[known], classes[known], units[known])


def regions(field: Field) -> Iterator[Numbers]:
    """Places of the tiles of each region of at most 5 × 5."""
    rows = len(field.tiles) // field.cols
    grid = np.arange(rows * field.cols).reshape(rows, field.cols)
    for top in range(0, rows, SIDE):
        for left in range(0, field.cols, SIDE):
            yield grid[top : top + SIDE, left : left + SIDE]


def canvas(field: Field, places: Numbers) -> Pixels:
    """The picture (h, w, 3) that the tiles at these places (rows, columns) make together."""
    side = field.tiles.shape[1]
    joined = field.tiles[places].transpose(0, 2, 1, 3, 4)
    return joined.reshape(places.shape[0] * side, places.shape[1] * side, 3)


def fusion_table(title: str, judged: Judge, some: Sequence[Field]) -> None:
    """Accuracy, what it exceeds that without fusion by, and isolated errors: without fusion, and with every setting.

    `judged` gives the probabilities (n, classes) of the tiles of a field, by the field's number and the fusion. The
    interval of what is exceeded is paired on the same tiles, and bootstrapped over fields.
    """
    judges = pooled(some)
    before: Values | None = None
    print_line(f"\n### Fusion, {title}\n")
    print_line("| fusion | accuracy | more than off | isolated errors | tiles |")
    print_line("| --- | --- | --- | --- | --- |")
    for fusion in (None, *FUSIONS):
        every = [judged(number, fusion) for number in range(len(some))]
        chances = np.concatenate([one[field.classes >= 0] for field, one in zip(some, every, strict=True)])
        isolated = sum(alone(field, one.argmax(axis=1)) for field, one in zip(some, every, strict=True))
        right = int((chances.argmax(axis=1) == judges.classes).sum())
        tiles = len(chances)
        low, high = wilson(right, tiles)
        before = chances if before is None else before
        gain = accuracy_gain(chances, before, judges.classes, judges.units)
        name = "off" if fusion is None else f"scale {fusion.scale:g}, mix {fusion.mix:g}"
        more = "" if fusion is None else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        print_line(f"| {name} | {right / tiles:.3f} ({low:.3f} to {high:.3f}) | {more} | {isolated} | {tiles} |")


def alone(field: Field, result: Numbers) -> int:
    """Tiles that are wrong though all their neighbours are of their class and right."""
    rows = len(field.tiles) // field.cols
    truth, named = field.classes.reshape(rows, -1), result.reshape(rows, -1)
    count = 0
    for r in range(rows):
        for c in range(field.cols):
            around = [(r + y, c + x) for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1))]
            near = [one for one in around if 0 <= one[0] < rows and 0 <= one[1] < field.cols]
            if truth[r, c] >= 0 and named[r, c] != truth[r, c]:
                count += all(truth[one] == truth[r, c] == named[one] for one in near)
    return count
