"""Look, correct, teach, run again: how right a probe is on held-out ground after each round of review.

    python tests/bench/review_loop.py [DATA]

DATA is the folder with `sentinel2_slovenia_lulc` (Sentinel-2 L1C, 1 km², and official land use as a raster); by default
shared/data/geo beside the checkout. **The reviewer is simulated**: it answers from that raster, where three quarters of
a tile are forest or grassland, from the source's cloud mask, by which 31 July is all cloud, and rejects other tiles. No
person's errors are in it.

The ground is cut into squares of 240 m like a chessboard. Reviewed are tiles of 20 m in the white ones; accuracy is
that on tiles in the black ones that do not lie along a border, and then once more with the colours exchanged. A probe
begins with three tiles of forest and three of grassland on 30 August, which is clear. In each round it labels the
scenes, the reviewer answers for twelve tiles, and the probe is trained on the first tiles and on all reviews so far.
Twelve tiles are either those on which the probe is least sure, or any. Everything goes through the run folder, the
review's log and the functions behind `limner run`, `limner view` and `limner train probe --review`.
"""

import itertools
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
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
from limner.readers.errors import RequestError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("forest", "grassland", "cloud")
CODES = (2, 3)
"""Of forest and grassland in LULC.tif. Other land use, 7 % of the ground, lies in too few places to be taught."""
CLEAR, CLOUDY = "S2_L1C_2015-08-30.tif", "S2_L1C_2015-07-31.tif"
TILE, SQUARE, BLOCK = 2, 24, 20  # pixels; a block is what `limner train probe --review` never splits over folds
PURE = 0.75
ROUNDS, REVIEWED, SEEDS = 4, 12, (1, 2)
BANDS = "colour:blue,green,red,nir,swir16,swir22"

Tile = tuple[str, int, int]
"""The scene, and the row and column of a tile."""
Scenes = Mapping[str, npt.NDArray[np.int8]]
"""The true class of each tile (rows, columns) of each scene: its place in `NAMES`, -1 where there is none."""


@dataclass(frozen=True)
class Label:
    """What a probe said of a tile."""

    key: str
    """Of its finding."""
    name: str
    lead: float
    """By how much the likeliest class leads the next."""


def true_classes(path: Path) -> npt.NDArray[np.int8]:
    """The classes of the tiles of a raster of land use."""
    with rasterio.open(path) as raster:
        codes = raster.read(1)
    rows, columns = codes.shape[0] // TILE, codes.shape[1] // TILE
    tiles = codes[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE)
    found = np.full((rows, columns), -1, np.int8)
    for number, code in enumerate(CODES):
        found[(tiles == code).mean(axis=(1, 3)) >= PURE] = number
    return found


def white_tiles(scenes: Scenes, colour: int) -> set[Tile]:
    """The tiles in squares of a colour, 0 or 1."""
    return {
        (scene, y, x)
        for scene, classes in scenes.items()
        for y, x in np.ndindex(classes.shape)
        if (y * TILE // SQUARE + x * TILE // SQUARE) % 2 == colour
    }


def held_out_tiles(scenes: Scenes, colour: int) -> list[Tile]:
    """The tiles of known class in squares of the other colour that do not lie along the border of one."""
    inside = range(TILE, SQUARE - TILE)
    return [
        (scene, y, x)
        for scene, y, x in sorted(white_tiles(scenes, 1 - colour))
        if scenes[scene][y, x] >= 0 and y * TILE % SQUARE in inside and x * TILE % SQUARE in inside
    ]


def first_tiles(scenes: Scenes, white: set[Tile], chance: random.Random) -> list[Tile]:
    """Three tiles of forest and three of grassland on the clear scene, in three blocks each."""
    chosen: list[Tile] = []
    for number in range(len(CODES)):
        tiles = [tile for tile in sorted(white) if tile[0] == CLEAR and scenes[CLEAR][tile[1:]] == number]
        chance.shuffle(tiles)
        blocks = {(y * TILE // BLOCK, x * TILE // BLOCK): (scene, y, x) for scene, y, x in tiles}
        chosen += chance.sample(sorted(blocks.values()), 3)
    return chosen


def teach(inputs: Sequence[str], folder: Path, labels: Path, reviews: Sequence[Path]) -> Path | None:
    """Train a probe on the first labels and on the reviews of earlier runs; None where a class has too few places."""
    out = folder / f"probe-{len(reviews)}"
    given = {"inputs": list(inputs), "sensor": "sentinel-2-l1c", "out": str(out)}
    named = {"encoder": BANDS, "tile": TILE, "folds": 3, "block": f"{BLOCK}px", "features": str(folder / "features")}
    config = ProbeConfig(str(labels), reviews=tuple(map(str, reviews)), **named)
    try:
        train_probe(Settings.resolve(given), config, lambda _: None)
    except RequestError as error:
        if "as many blocks as there are folds" not in str(error):
            raise
        return None
    return out


def look(inputs: Sequence[str], out: Path, probe: Path) -> dict[Tile, Label]:
    """Run a probe; what it said of each tile."""
    options = {"margin": "0"}
    run = limner.run(
        list(inputs), sensor="sentinel-2-l1c", model=f"probe:{probe}", model_options=options, out=str(out), reports=[]
    )
    found: dict[Tile, Label] = {}
    for image in run.record.images:
        for place, one in enumerate(image.findings(), 1):
            x, y = one.geometry.bounds[:2]
            chances = sorted(value for name, value in one.numbers.items() if name.startswith("p."))
            tile = Path(image.info.uri).name, round(y / TILE), round(x / TILE)
            found[tile] = Label(f"{image.info.id}/{place}", one.label, chances[-1] - chances[-2])
    return found


def correct(run: Path, scenes: Scenes, tiles: Sequence[Tile], labels: Mapping[Tile, Label]) -> None:
    """Answer for tiles of a run from the true classes, as a simulated reviewer."""
    with Review.open(run, "simulated") as review:
        for scene, y, x in tiles:
            label, number = labels[scene, y, x], int(scenes[scene][y, x])
            if number < 0:
                review.act({"action": "reject", "findings": [label.key]})
            elif NAMES[number] == label.name:
                review.act({"action": "accept", "findings": [label.key]})
            else:
                review.act({"action": "relabel", "findings": [label.key], "label": NAMES[number]})


def rounds(data: Path, scenes: Scenes, colour: int, seed: int, *, unsure: bool) -> list[list[float]]:
    """Shares of held-out tiles that each probe labels right: of all, and of each class, NaN of an absent one."""
    chance = random.Random(seed)  # noqa: S311 - it chooses tiles
    white, held = white_tiles(scenes, colour), held_out_tiles(scenes, colour)
    first = first_tiles(scenes, white, chance)
    inputs = [str(data / scene) for scene in scenes]
    figures: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"{scene},{NAMES[scenes[scene][y, x]]},{(x + 0.5) * TILE},{(y + 0.5) * TILE}" for scene, y, x in first]
        labels = folder / "labels.csv"
        labels.write_text("\n".join(["image,label,x,y", *rows]) + "\n", encoding="utf-8")
        reviewed, runs, probe = {*first}, list[Path](), None
        for number in range(ROUNDS + 1):
            probe = teach(inputs, folder, labels, runs) or probe  # with too few places, the one before
            assert probe is not None
            found = look(inputs, folder / f"run-{number}", probe)
            right = [found[tile].name == NAMES[scenes[tile[0]][tile[1:]]] for tile in held]
            of_class = [
                [one for one, tile in zip(right, held, strict=True) if scenes[tile[0]][tile[1:]] == place]
                for place in range(len(NAMES))
            ]
            figures.append([mean(several) if several else np.nan for several in (right, *of_class)])
            left = sorted((white & {*found}) - reviewed)
            by_lead = sorted(left, key=lambda tile: found[tile].lead)
            tiles = by_lead[:REVIEWED] if unsure else chance.sample(left, REVIEWED)
            correct(folder / f"run-{number}", scenes, tiles, found)
            reviewed.update(tiles)
            runs.append(folder / f"run-{number}")
    return figures


def main() -> None:
    """Print the tables."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "shared" / "data" / "geo"
    place = data / "sentinel2_slovenia_lulc"
    if not place.is_dir():
        sys.stdout.write(f"{data} has no sentinel2_slovenia_lulc: nothing is measured\n")
        return
    land = true_classes(place / "LULC.tif")
    clear, both = {CLEAR: land}, {CLEAR: land, CLOUDY: np.full_like(land, NAMES.index("cloud"))}
    for scenes, title in (
        (both, "A clear scene and one under cloud, a class that the probe does not know"),
        (clear, "The clear scene"),
    ):
        for unsure in (True, False):
            repetitions = itertools.product(SEEDS, (0, 1))
            every = [rounds(place, scenes, colour, seed, unsure=unsure) for seed, colour in repetitions]
            chosen = "on which it is least sure" if unsure else "of any kind"
            sys.stdout.write(f"\n{title}; tiles {chosen}; mean of {len(every)} repetitions, and least to most\n\n")
            sys.stdout.write("| round | tiles reviewed | right | least to most | forest | grassland | cloud |\n")
            sys.stdout.write("| --- | --- | --- | --- | --- | --- | --- |\n")
            for number, several in enumerate(zip(*every, strict=True)):
                right, *classes = zip(*several, strict=True)
                spread = f"{min(right):.1%} to {max(right):.1%}"
                cells = [str(number), str(number * REVIEWED), f"{mean(right):.1%}", spread]
                cells += ["–" if np.isnan(values).any() else f"{mean(values):.1%}" for values in classes]
                sys.stdout.write(f"| {' | '.join(cells)} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
