"""Look, correct, teach, run again: how right a probe is on held-out ground after each round of review.

    python tests/bench/review_loop.py [DATA]

DATA is the folder with `sentinel2_slovenia_lulc` (Sentinel-2 L1C, 1 km², and official land use as a raster); by default
shared/data/geo beside the checkout. **The reviewer is simulated**: it answers from that raster, where three quarters of
a tile are forest or grassland, and rejects other tiles. No person's errors are in it.

The ground is cut into squares of 240 m like a chessboard. Reviewed are tiles of 20 m in the white ones; accuracy is
that on tiles in the black ones that do not lie along a border, and then once more with the colours exchanged. A probe
begins with three tiles of each class, of the reviewed date or of another one. In each round it labels the scene, the
reviewer answers for twelve tiles, and the probe is trained on the first tiles and on all reviews so far. Twelve tiles
are either those on which the probe is least sure, or any. Everything goes through the run folder, the review's log and
the functions behind `limner run`, `limner view` and `limner train probe --review`.
"""

import itertools
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import limner
import numpy as np
import numpy.typing as npt
import rasterio
from limner.pipelines.config import Settings
from limner.pipelines.review.review import Review
from limner.pipelines.train.probe import train_probe
from limner.pipelines.train.training_set import ProbeConfig

ROOT = Path(__file__).resolve().parents[2]
CLASSES = {"forest": 2, "grassland": 3}
"""By their codes in LULC.tif. Other land use, 7 % of the ground, lies in too few places: tiles of it are rejected."""
NAMES = tuple(CLASSES)
TILE, SQUARE, BLOCK = 2, 24, 20  # pixels; a block is what `limner train probe --review` never splits over folds
PURE = 0.75
ROUNDS, REVIEWED, SEEDS = 4, 12, (1, 2)
BANDS = "colour:blue,green,red,nir,swir16,swir22"


@dataclass(frozen=True)
class Ground:
    """The true class of each tile (rows, columns): its number, -1 where there is none."""

    classes: npt.NDArray[np.int8]

    @classmethod
    def read(cls, path: Path) -> "Ground":
        """The classes of the tiles of a raster of land use."""
        with rasterio.open(path) as raster:
            codes = raster.read(1)
        rows, columns = codes.shape[0] // TILE, codes.shape[1] // TILE
        tiles = codes[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE)
        found = np.full((rows, columns), -1, np.int8)
        for number, code in enumerate(CLASSES.values()):
            found[(tiles == code).mean(axis=(1, 3)) >= PURE] = number
        return cls(found)

    def white(self, colour: int) -> npt.NDArray[np.bool_]:
        """Whether each tile lies in a square of this colour, 0 or 1."""
        row, column = np.indices(self.classes.shape) * TILE // SQUARE
        return (row + column) % 2 == colour

    def held_out(self, colour: int) -> npt.NDArray[np.bool_]:
        """The tiles of known class in squares of the other colour that do not lie along the border of one."""
        row, column = (at * TILE % SQUARE for at in np.indices(self.classes.shape))
        inside = (row >= TILE) & (row < SQUARE - TILE) & (column >= TILE) & (column < SQUARE - TILE)
        return ~self.white(colour) & inside & (self.classes >= 0)

    def first_tiles(self, colour: int, chance: random.Random) -> list[tuple[int, int]]:
        """Three tiles of each class in three blocks."""
        chosen: list[tuple[int, int]] = []
        for number in range(len(CLASSES)):
            places = [(int(y), int(x)) for y, x in np.argwhere(self.white(colour) & (self.classes == number))]
            chance.shuffle(places)
            blocks = {(y * TILE // BLOCK, x * TILE // BLOCK): (y, x) for y, x in places}
            chosen += chance.sample(sorted(blocks.values()), 3)
        return chosen


def teach(scenes: Sequence[Path], folder: Path, labels: Path, reviews: Sequence[Path], number: int) -> Path:
    """Train a probe on the first labels and on the reviews of earlier runs."""
    out = folder / f"probe-{number}"
    given = {"inputs": [str(scene) for scene in scenes], "sensor": "sentinel-2-l1c", "out": str(out)}
    named = {"encoder": BANDS, "tile": TILE, "folds": 3, "block": f"{BLOCK}px", "features": str(folder / "features")}
    config = ProbeConfig(str(labels), reviews=tuple(map(str, reviews)), **named)
    train_probe(Settings.resolve(given), config, lambda _: None)
    return out


def look(
    scene: Path, folder: Path, probe: Path, number: int
) -> tuple[Path, dict[tuple[int, int], tuple[int, str, float]]]:
    """Run a probe; the run, and by tile the number of its finding, its label and by how much that leads."""
    out = folder / f"run-{number}"
    run = limner.run(
        str(scene),
        sensor="sentinel-2-l1c",
        model=f"probe:{probe}",
        model_options={"margin": "0"},
        out=str(out),
        reports=[],
    )
    found: dict[tuple[int, int], tuple[int, str, float]] = {}
    for place, one in enumerate(run.record.images[0].findings(), 1):
        x, y = one.geometry.bounds[:2]
        chances = sorted((one.numbers[f"p.{name}"] for name in CLASSES), reverse=True)
        found[round(y / TILE), round(x / TILE)] = (place, one.label, chances[0] - chances[1])
    return out, found


def correct(
    run: Path,
    image: str,
    ground: Ground,
    tiles: Sequence[tuple[int, int]],
    labels: dict[tuple[int, int], tuple[int, str, float]],
) -> None:
    """Answer for tiles of a run from the true classes, as a simulated reviewer."""
    with Review.open(run, "simulated") as review:
        for tile in tiles:
            place, label, _ = labels[tile]
            key, number = f"{image}/{place}", int(ground.classes[tile])
            if number < 0:
                review.act({"action": "reject", "findings": [key]})
            elif NAMES[number] == label:
                review.act({"action": "accept", "findings": [key]})
            else:
                review.act({"action": "relabel", "findings": [key], "label": NAMES[number]})


def rounds(
    scenes: Sequence[Path], ground: Ground, folder: Path, colour: int, chance: random.Random, *, unsure: bool
) -> list[tuple[float, float, int]]:
    """(accuracy, mean recall of the classes, tiles reviewed so far) on held-out tiles, of each probe in turn.

    The first labels are of the first scene, and the last one is reviewed.
    """
    first = ground.first_tiles(colour, chance)
    labels = folder / "labels.csv"
    places = [f"{scenes[0].name},{NAMES[ground.classes[y, x]]},{(x + 0.5) * TILE},{(y + 0.5) * TILE}" for y, x in first]
    labels.write_text("\n".join(["image,label,x,y", *places]) + "\n", encoding="utf-8")
    held = ground.held_out(colour)
    white = ground.white(colour)
    reviewed: set[tuple[int, int]] = set()
    runs: list[Path] = []
    figures: list[tuple[float, float, int]] = []
    for number in range(ROUNDS + 1):
        probe = teach(scenes, folder, labels, runs, number)
        run, found = look(scenes[-1], folder, probe, number)
        right: dict[str, list[bool]] = {name: [] for name in NAMES}
        for y, x in np.argwhere(held).tolist():
            name = NAMES[ground.classes[y, x]]
            right[name].append(found[y, x][1] == name)
        every = [one for several in right.values() for one in several]
        figures.append((mean(every), mean(mean(several) for several in right.values()), len(reviewed)))
        left = sorted(one for one in found if one[0] < len(white) and white[one] and one not in {*reviewed, *first})
        tiles = sorted(left, key=lambda one: found[one][2])[:REVIEWED] if unsure else chance.sample(left, REVIEWED)
        correct(run, limner.Run.open(run).record.images[0].info.id, ground, tiles, found)
        reviewed.update(tiles)
        runs.append(run)
    return figures


def main() -> None:
    """Print the table."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "shared" / "data" / "geo"
    place = data / "sentinel2_slovenia_lulc"
    if not place.is_dir():
        sys.stdout.write(f"{data} has no sentinel2_slovenia_lulc: nothing is measured\n")
        return
    ground = Ground.read(place / "LULC.tif")
    july, august = (place / f"S2_L1C_2015-{day}.tif" for day in ("07-11", "08-30"))
    for scenes, first in (([july, august], "11 July"), ([august], "30 August")):
        for unsure in (True, False):
            every: list[list[tuple[float, float, int]]] = []
            for seed, colour in itertools.product(SEEDS, (0, 1)):
                chance = random.Random(seed)  # noqa: S311 - it chooses tiles
                with tempfile.TemporaryDirectory() as folder:
                    every.append(rounds(scenes, ground, Path(folder), colour, chance, unsure=unsure))
            reviewed = "the least sure tiles" if unsure else "any tiles"
            title = f"First tiles of {first}, 30 August reviewed: {reviewed}; {len(every)} repetitions"
            sys.stdout.write(f"\n{title}\n\n| round | tiles reviewed | accuracy | least to most | mean recall |\n")
            sys.stdout.write("| --- | --- | --- | --- | --- |\n")
            for number, several in enumerate(zip(*every, strict=True)):
                accuracy, recall, tiles = zip(*several, strict=True)
                spread = f"{min(accuracy):.1%} to {max(accuracy):.1%}"
                cells = [str(number), str(tiles[0]), f"{mean(accuracy):.1%}", spread, f"{mean(recall):.1%}"]
                sys.stdout.write(f"| {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
