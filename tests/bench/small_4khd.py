"""Train the small 4KHD that ships again from its data, and measure it.

    python small_4khd.py DATA OUT

DATA holds `tiles/pneumoniamnist28/pneumoniamnist_dev.npz`, `tiles/eurosat100_ms/eurosat100_train_val.zip` with
`split.csv`, and the scenes of `small_vision_encoder.py`, which trains the vision encoder. The vocabulary, the pictures
with their questions and the alignment follow, through `limner`'s own commands. One thread, under two hours; steps that
are complete are not repeated. The figures are those of the annotator `4khd`,
asked as `limner run` asks: films with `--hd-num 1`, enlarged and as they are, and tiles of EuroSAT, which need no
enlarging, with `--hd-num 4` and `--stretch 0,2750`.
"""

import argparse
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from labelled import eurosat, pneumonia, shown, wilson
from limner.model.annotator import Answer, InputSpec, View
from limner.model.tiling import TileGrid, cut_tiles, place_on_canvas, squash_to_tile
from limner.model.training.align import AlignmentConfig, StepRecord
from limner.model.vlm.fourkhd.annotator import FourKhdAnnotator
from limner.model.vlm.fourkhd.build import build
from limner.model.vlm.fourkhd.tokenizer import read_texts, train_tokenizer
from limner.pipelines.train.align import MODEL, align
from limner.readers.options import make_plugin
from limner.readers.regions import Grid, cut_regions
from PIL import Image
from small_vision_encoder import TILE, distil, save

LANGUAGE = "new:hidden=128,layers=2,heads=4,kv_heads=2,mlp=256,theta=10000,positions=2048"
VOCAB = 768
SEED = 4
THREADS = 1

TRAINING = AlignmentConfig(
    language=True,
    peak=1e-3,
    warmup=0.05,
    steps=1500,
    batch=32,
    weight_decay=0.3,
    seed=SEED,
)
STRETCHED = 3  # of ten lines about land
# a film that is only ever zoomed teaches that one that is not has no opacity: a second part shows them as they are
SETTLING = replace(TRAINING, peak=4e-4, steps=600, seed=SEED + 1)
CHEST_LINES, LAND_LINES = 3, 100  # lines of each picture: other words, other options

# a film of 28 pixels fills one tile or four, or lies in one as a run without --enlarge shows it; a tile of EuroSAT
# fills four as it is, and is sometimes reduced to one
CHEST_SHOWN: tuple[dict[str, Any], ...] = ({"hd_num": 1}, {"hd_num": 1}, {"hd_num": 1, "enlarge": False}, {"hd_num": 4})
LAND_SHOWN: tuple[dict[str, Any], ...] = ({"hd_num": 4}, {"hd_num": 4}, {"hd_num": 1})

# how pictures are asked about: hd_num, whether enlarged, whether with the global view
SEEN = {
    "chest": ((1, True, True), (1, False, True), (1, True, False), (4, True, True), (4, True, False)),
    "land": ((4, False, True), (4, False, False)),
}

CHEST = (
    ("no opacity", "opacity"),
    ("no lung opacity", "lung opacity"),
    ("normal", "pneumonia"),
    ("clear lungs", "lung opacity"),
    ("normal", "opacity"),
)
LAND = {
    "AnnualCrop": ("annual crop", "annual crops", "cropland"),
    "Forest": ("forest", "woodland"),
    "HerbaceousVegetation": ("herbaceous vegetation", "grass and shrubs"),
    "Highway": ("highway", "road"),
    "Industrial": ("industrial", "industrial buildings", "factory buildings"),
    "Pasture": ("pasture", "meadow"),
    "PermanentCrop": ("permanent crop", "permanent crops", "orchard or vineyard"),
    "Residential": ("residential", "residential area", "houses"),
    "River": ("river", "stream"),
    "SeaLake": ("sea or lake", "lake", "open water"),
}
ASKED = ("What does this image show?", "What is this?", "What do you see?", "Which of these is it?")
CHEST_ASKED = ("Is there an opacity in the lungs?", "What does this chest X-ray show?")
LAND_ASKED = ("What kind of land is this?", "What covers the ground here?", "Which land cover is this?")
DESCRIBE = ("Describe this image in detail.", "Describe this image.", "Describe this picture.")


@dataclass(frozen=True, slots=True)
class Picture:
    """A labelled picture; `kind` is "chest", with label "0" or "1", or "land"."""

    kind: str
    label: str
    pixels: npt.NDArray[np.uint8]


def chest(data: Path, part: str) -> list[Picture]:
    """Films of PneumoniaMNIST, grey as RGB."""
    held = pneumonia(data, part)
    return [Picture("chest", str(label), film) for film, label in zip(held.pictures, held.classes, strict=True)]


def land(data: Path, part: str) -> list[Picture]:
    """Tiles of EuroSAT100, as light as `--stretch 0,2750` shows them."""
    native, names = eurosat(data)
    held = shown(native[part])
    return [Picture("land", names[label], tile) for tile, label in zip(held.pictures, held.classes, strict=True)]


def conversation(picture: Picture, chance: random.Random) -> tuple[str, str]:
    """A question about a picture and its answer: usually a choice, sometimes a description."""
    if picture.kind == "chest":
        names = list(chance.choice(CHEST) if chance.random() < 0.6 else CHEST[0])
        truth = names[int(picture.label)]
        own, others = CHEST_ASKED, [words[0] for words in LAND.values()]
    else:
        words = {label: (texts[0] if chance.random() < 0.75 else chance.choice(texts)) for label, texts in LAND.items()}
        truth = words.pop(picture.label)
        rest = list(words.values())
        chance.shuffle(rest)
        names = [truth, *(rest if chance.random() < 0.6 else rest[: chance.randint(1, 5)])]
        own, others = LAND_ASKED, list(CHEST[0])
    if chance.random() < 0.1:
        question = chance.choice(DESCRIBE) if chance.random() < 0.5 else DESCRIBE[0]
        return question, description(picture)
    if chance.random() < 0.15:
        names += others
    chance.shuffle(names)
    asked = ASKED[0] if chance.random() < 0.5 else chance.choice([*ASKED, *own])
    options = f"Options: {'; '.join(names)}.\nAnswer with one of the options and nothing else."
    return f"{asked}\n{options}", truth


def description(picture: Picture) -> str:
    """What is said of a picture where it is to be described."""
    if picture.kind == "chest":
        return ("A chest X-ray without lung opacity.", "A chest X-ray with lung opacity.")[int(picture.label)]
    return f"A satellite picture: {LAND[picture.label][0]}."


def mosaic(tiles: Sequence[Picture], chance: random.Random) -> Picture:
    """A picture of four quarters, each cut out of some tile of one class and turned: few tiles make many pictures."""
    side = tiles[0].pixels.shape[0] // 2
    quarters: list[npt.NDArray[np.uint8]] = []
    for _ in range(4):
        pixels = chance.choice(tiles).pixels
        y, x = chance.randint(0, side), chance.randint(0, side)
        quarter = np.rot90(pixels[y : y + side, x : x + side], chance.randrange(4))
        quarters.append(quarter[:, ::-1] if chance.random() < 0.5 else quarter)
    rows = [np.concatenate(quarters[i : i + 2], axis=1) for i in (0, 2)]
    return Picture("land", tiles[0].label, np.concatenate(rows))


def write_samples(data: Path, out: Path, name: str, *, varied: bool, seed: int) -> Path:
    """The training rows as PNG files and a JSONL of that name; not `varied` shows them much as they will be asked."""
    chance = random.Random(seed)  # noqa: S311 - nothing secret
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    tiles = land(data, "train")
    low, high = np.percentile(np.stack([tile.pixels for tile in tiles]), (2, 98), axis=(0, 1, 2))
    lines: list[str] = []

    def add(picture: Picture, file: str) -> None:
        if not (out / file).is_file():
            Image.fromarray(picture.pixels).save(out / file)
        of_chest = picture.kind == "chest"
        question, answer = conversation(picture, chance)
        # the heart lies on the left: a film is neither mirrored nor turned; a nadir view has no upper side
        vary = ["zoom", "shift", "light"] if of_chest else ["zoom", "shift", "mirror", "turn", "light"]
        if not varied:
            gently = chance.random() < 0.5
            vary = ["shift"] * gently if of_chest else ["mirror", "turn", *["shift", "light"] * gently]
        fit = chance.choice(CHEST_SHOWN if of_chest else LAND_SHOWN)
        result = {"image": file, "question": question, "answer": answer, "vary": vary, **fit}
        lines.append(json.dumps(result, ensure_ascii=False))

    for number, film in enumerate(chest(data, "train")):
        for _ in range(CHEST_LINES):
            add(film, f"pictures/film-{number:04d}.png")
    for number, tile in enumerate(tiles):
        alike = [other for other in tiles if other.label == tile.label]
        for line in range(LAND_LINES):
            one, file = tile, f"pictures/tile-{number:02d}"
            if line % 2:
                one, file = mosaic(alike, chance), f"{file}-mosaic-{line:02d}-{seed}"
            if line % 10 < STRETCHED:  # as a run shows a scene: from its own low values to its own high ones
                stretched = np.clip((one.pixels - low) / (high - low), 0, 1) * 255
                one = Picture("land", tile.label, np.rint(stretched).astype(np.uint8))
                file += "-stretched"
            add(one, f"{file}.png")
    path = out / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def view(pixels: npt.NDArray[np.uint8], spec: InputSpec, *, hd_num: int, enlarge: bool) -> View:
    """A picture as `limner run` shows it in one region, enlarged or as it is."""
    height, width = pixels.shape[:2]
    [region] = cut_regions(Grid("picture", (width, height), (1.0, 1.0)), tile=spec.tile, hd_num=hd_num)
    if enlarge:
        grid = TileGrid.fit(width, height, hd_num=hd_num, tile=spec.tile)
        canvas = place_on_canvas(pixels, grid)
    else:
        grid = TileGrid.exact(*region.tiles, tile=spec.tile)
        canvas = np.full((*grid.size[::-1], 3), 255, dtype=np.uint8)
        canvas[:height, :width] = pixels
    inside = np.ones(canvas.shape[:2], dtype=np.bool_)
    whole = squash_to_tile(canvas.astype(np.float32), spec.tile)
    return View(region, spec, grid, cut_tiles(canvas, grid), cut_tiles(inside, grid), inside, whole)


def answers(
    model: Path, pictures: Sequence[Picture], labels: Sequence[str], *, hd_num: int, enlarge: bool, glance: bool
) -> list[list[str]]:
    """The labels in the order of the annotator's probabilities, for each picture."""
    options = {"labels": ",".join(labels), "margin": "0", "overall": str(glance).lower()}
    found = asked(model, pictures, options, hd_num=hd_num, enlarge=enlarge)
    return [sorted(labels, key=lambda label, one=one: -one.numbers[f"p.{label}"]) for one in found]


def asked(
    model: Path, pictures: Sequence[Picture], options: dict[str, str], *, hd_num: int, enlarge: bool
) -> list[Answer]:
    """The annotator's answer about each picture."""
    vlm_annotator = make_plugin(
        FourKhdAnnotator, {"checkpoint": str(model), "batch_size": "16", "threads": str(THREADS), **options}
    )
    spec = InputSpec(tile=TILE, overall=True)
    views = [view(picture.pixels, spec, hd_num=hd_num, enlarge=enlarge) for picture in pictures]
    return [one for [one] in vlm_annotator.annotate(views)]


def figures(data: Path, model: Path, parts: Sequence[str]) -> Iterator[str]:
    """A line for each: what was asked of which rows, how many answers were right, and the 95 % interval."""
    shown = [("chest", part, chest(data, part)) for part in parts] + [("land", "val", land(data, "val"))]
    for kind, part, pictures in shown:
        labels = list(CHEST[0]) if kind == "chest" else [words[0] for words in LAND.values()]
        truth = [labels[int(p.label)] if kind == "chest" else LAND[p.label][0] for p in pictures]
        for hd_num, enlarge, glance in SEEN[kind]:
            ranked = answers(model, pictures, labels, hd_num=hd_num, enlarge=enlarge, glance=glance)
            result = [ranks[0] for ranks in ranked]
            how = f"{kind} {part}, hd_num {hd_num}, {'enlarged' if enlarge else 'as it is'}"
            line = accuracy_line(how + ("" if glance else ", no global view"), result, truth)
            if kind == "land":
                among = [one if one in ranks[:3] else "" for one, ranks in zip(truth, ranked, strict=True)]
                line += "\n" + accuracy_line("  among the first three", among, truth)
            if kind == "chest":
                hit = [[a == t for a, t in zip(result, truth, strict=True) if t == label] for label in labels]
                line += f"; specificity {np.mean(hit[0]):.3f}, sensitivity {np.mean(hit[1]):.3f}"
            yield line
        hd_num, enlarge, _ = SEEN[kind][0]
        described = asked(model, pictures, {"answer": "describe", "max_tokens": "24"}, hd_num=hd_num, enlarge=enlarge)
        yield accuracy_line(
            f"{kind} {part}, described", [one.text for one in described], [description(one) for one in pictures]
        )


def logistic(
    observed: npt.NDArray[np.float64], labels: Sequence[int], asked: npt.NDArray[np.float64], *, pull: float
) -> list[int]:
    """What a logistic regression on standardised features (n, d), with a quadratic pull to 0, calls others (m, d)."""
    mean, spread = observed.mean(axis=0), observed.std(axis=0) + 1e-3
    known, others = (torch.tensor((part - mean) / spread, dtype=torch.float32) for part in (observed, asked))
    weights = torch.zeros(observed.shape[1] + 1, max(labels) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(known @ weights[:-1] + weights[-1], torch.tensor(labels))
        value = value + pull * (weights[:-1] ** 2).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return (others @ weights[:-1] + weights[-1]).argmax(dim=1).tolist()


def statistics(picture: Picture) -> npt.NDArray[np.float64]:
    """Of each colour: mean, deviation, mean step between neighbours both ways, five percentiles."""
    pixels = picture.pixels / 255
    steps = [np.abs(np.diff(pixels, axis=axis)).mean(axis=(0, 1)) for axis in (0, 1)]
    ranks = np.percentile(pixels, (5, 25, 50, 75, 95), axis=(0, 1)).ravel()
    return np.concatenate([pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1)), *steps, ranks])


def baselines(data: Path, parts: Sequence[str]) -> Iterator[str]:
    """The same rows by logistic regression: on a film's pixels, and on a tile's statistics of colour."""
    films, tiles = chest(data, "train"), land(data, "train")
    names = sorted(LAND)
    known = np.array([film.pixels[..., 0].ravel() / 255 for film in films])
    for part in parts:
        asked = chest(data, part)
        pixels = np.array([film.pixels[..., 0].ravel() / 255 for film in asked])
        result = logistic(known, [int(film.label) for film in films], pixels, pull=1e-3)
        yield accuracy_line(
            f"chest {part}, logistic regression", [str(one) for one in result], [film.label for film in asked]
        )
    asked = land(data, "val")
    known, features = (np.array([statistics(tile) for tile in part]) for part in (tiles, asked))
    result = logistic(known, [names.index(tile.label) for tile in tiles], features, pull=1e-2)
    yield accuracy_line("land val, logistic regression", [names[one] for one in result], [tile.label for tile in asked])


def accuracy_line(what: str, result: Sequence[str], truth: Sequence[str]) -> str:
    """How many answers are right, and the 95 % interval of their share."""
    right = sum(one == other for one, other in zip(result, truth, strict=True))
    low, high = wilson(right, len(truth))
    return f"{what}: {right} of {len(truth)} = {right / len(truth):.3f} ({low:.3f} to {high:.3f})"


def print_step(row: StepRecord, steps: int) -> None:
    """A line now and then, on standard error."""
    if row.step % 10 == 0:
        sys.stderr.write(f"{row.step} of {steps}: {row.loss:.4f}\n")


def main() -> None:
    """Make what is not there yet, and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="*", default=["val", "test"], help="rows of the films to report")
    given = parser.parse_args()
    samples, closing = given.out / "train.jsonl", given.out / "settle.jsonl"
    if not closing.is_file():
        write_samples(given.data, given.out, samples.name, varied=True, seed=SEED)
        write_samples(given.data, given.out, closing.name, varied=False, seed=SEED + 1)
    start = given.out / "start"
    encoder = given.out / "vision-encoder"
    if not (encoder / "preprocessor_config.json").is_file():
        save(distil(given.data, report=lambda line: sys.stderr.write(f"{line}\n")), encoder)
    if not (start / "model.safetensors").is_file():
        shutil.rmtree(start, ignore_errors=True)
        train_tokenizer(read_texts([samples]), VOCAB, given.out / "tokenizer.model")
        build(str(encoder), LANGUAGE, start, tokenizer=str(given.out / "tokenizer.model"), seed=SEED)
    made = start
    for name, lines, settings in (("aligned", samples, TRAINING), ("settled", closing, SETTLING)):
        base, made = made, given.out / name / MODEL
        if not made.is_dir():
            common: dict[str, Any] = {"every": 100, "dtype": "float16", "device": "cpu", "threads": THREADS}
            align(str(base), lines, given.out / name, settings, on_step=print_step, **common)
    for line in (*figures(given.data, made, given.parts), *baselines(given.data, given.parts)):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
