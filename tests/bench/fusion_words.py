"""What fusion across tiles does to `zero-shot`, with an image-text checkpoint whose training is known: it is made here.

    python tests/bench/fusion_words.py DATA ENCODER OUT

DATA holds the labelled sets that `probe_tables.py` names. ENCODER is the image half of a CLIP in transformers' format.
OUT becomes a CLIP checkpoint: the image encoder, frozen, and a text encoder trained to match it, as in
LiT (arXiv 2111.07991). All pictures and captions of a class belong together, as in UniCL (arXiv 2204.03610). Trained on
EuroSAT100's train rows, PneumoniaMNIST's, and every other field of nuclei and of blood cells; measured on the others,
through the annotator. Three minutes on one thread.

CLIP reads the class token, and an encoder trained by its patches alone has nothing there. So a layer without
training is put on top, in which the class token attends to all tokens alike. What learns is the norm that follows, both
projections, the words and the temperature.
"""

import argparse
import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from limner.model.annotator import InputSpec
from limner.model.checkpoints.loading import to_tensor
from limner.model.clip.annotator import ZeroShot
from limner.model.clip.checkpoint import find_checkpoint
from limner.model.clip.fusion import Fusion
from limner.readers.options import make_plugin
from small_4khd import CHEST, LAND, Picture, mosaic, view
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPVisionModel, PreTrainedTokenizerFast

VARIANTS = 100  # pictures made of each of EuroSAT's tiles
GATHER = 100.0  # so much of the patches' mean that the class token's own features hardly count
WIDTH, LAYERS, HEADS, LENGTH, DIMENSIONS = 64, 2, 2, 16, 64  # of what reads the words
STEPS, BATCH, PEAK, WARMUP, DECAY = 1500, 64, 1e-3, 50, 0.1

TEMPLATES = ("a photo of {}.", "a picture of {}.", "this is {}.", "{}")
# the names of the classes of each set, in their order; a run asks by the first
WORDS: dict[str, list[tuple[str, ...]]] = {
    "land": [LAND[name] for name in sorted(LAND)],
    "films": list(zip(*CHEST, strict=True)),
    "nuclei": [("tissue", "tissue between nuclei"), ("nucleus", "nucleus of a cell")],
    "blood": [("plasma", "space between cells"), ("blood cell", "cell of blood")],
}


def varied(tiles: Tiles, count: int) -> Tiles:
    """Pictures made of each tile: shifted, turned and mirrored, or of quarters of its class."""
    chance = random.Random(SEED)  # noqa: S311 - nothing secret
    found: list[Pixels] = []
    for one, label in zip(tiles.pictures, tiles.classes, strict=True):
        alike = [Picture("land", str(label), other) for other in tiles.pictures[tiles.classes == label]]
        for number in range(count):
            if number % 2:
                found.append(mosaic(alike, chance).pixels)
                continue
            moved = np.roll(one, (chance.randrange(one.shape[0]), chance.randrange(one.shape[1])), axis=(0, 1))
            turned = np.rot90(moved, chance.randrange(4))
            found.append(turned[:, ::-1] if chance.random() < 0.5 else turned)
    return Tiles(np.stack(found), tiles.classes.repeat(count), tiles.units.repeat(count))


def captions(names: Sequence[str]) -> list[str]:
    """What is said of a class."""
    return [template.replace("{}", name) for template in TEMPLATES for name in dict.fromkeys(names)]


def reader() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of all captions."""
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    split = pre_tokenizers.Whitespace()
    result = [caption for classes in WORDS.values() for names in classes for caption in captions(names)]
    known = sorted({word for caption in result for word, _ in split.pre_tokenize_str(caption)})
    words = {word: number for number, word in enumerate([*marks.values(), *known])}
    made = Tokenizer(models.WordLevel(words, unk_token=marks["unk_token"]))
    made.pre_tokenizer = split
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=marks["eos_token"], **marks)


def start(folder: Path, vocabulary: int) -> CLIPModel:
    """A CLIP of the image encoder, the layer that gathers its patches, and an untrained text encoder."""
    vision_encoder = CLIPVisionModel.from_pretrained(folder)
    vision = vision_encoder.config.to_dict() | {"num_hidden_layers": vision_encoder.config.num_hidden_layers + 1}
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS}
    marks = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**sizes, **marks, "num_attention_heads": HEADS, "vocab_size": vocabulary, "max_position_embeddings": LENGTH}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIMENSIONS))
    lacking = model.vision_model.load_state_dict(vision_encoder.state_dict(), strict=False)
    last: Any = model.vision_model.encoder.layers[-1]
    if lacking.unexpected_keys or len(lacking.missing_keys) != len(last.state_dict()):
        raise SystemExit(f"{folder} is not the image half of a CLIP: {lacking}")
    with torch.no_grad():
        for weight in last.parameters():
            weight.zero_()  # no queries: the class token attends to all alike
        last.layer_norm1.weight.fill_(1.0)
        last.self_attn.v_proj.weight.copy_(torch.eye(vision_encoder.config.hidden_size))
        last.self_attn.out_proj.weight.copy_(GATHER * torch.eye(vision_encoder.config.hidden_size))
    return model.eval()


def train_text_encoder(
    model: CLIPModel, pictures_features: torch.Tensor, classes: torch.Tensor, result: torch.Tensor, of: torch.Tensor
) -> None:
    """Features (n, hidden) of pictures of `classes`, and captions (m, LENGTH) `of` classes: what agrees is learnt.

    Each class is drawn as often as any other.
    """
    learnt: list[Any] = [model.text_model, model.text_projection, model.visual_projection]
    weights = [weight for part in (*learnt, model.vision_model.post_layernorm) for weight in part.parameters()]
    optimizer = torch.optim.AdamW([*weights, model.logit_scale], lr=PEAK, weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / STEPS))
    )
    chance = torch.Generator().manual_seed(SEED)
    pictures, texts = ([torch.nonzero(kind == one)[:, 0] for one in range(int(of.max()) + 1)] for kind in (classes, of))

    def drawn(places: Sequence[torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
        return torch.stack([places[i][torch.randint(len(places[i]), (), generator=chance)] for i in wanted.tolist()])

    for _ in range(STEPS):
        wanted = torch.randint(len(texts), (BATCH,), generator=chance)
        looks = model.visual_projection(model.vision_model.post_layernorm(pictures_features[drawn(pictures, wanted)]))
        words: Any = model.get_text_features(input_ids=result[drawn(texts, wanted)]).pooler_output  # pyright: ignore[reportAttributeAccessIssue] - or a tuple, for who asks for one
        agreement = functional.normalize(looks) @ functional.normalize(words).T * model.logit_scale.exp()
        same = (wanted[:, None] == wanted).float()
        truth = same / same.sum(dim=1, keepdim=True)
        loss = (functional.cross_entropy(agreement, truth) + functional.cross_entropy(agreement.T, truth)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))  # as CLIP does


def make(sets: dict[str, Tiles], vision_encoder: Path, out: Path) -> None:
    """Write the checkpoint to `out`."""
    torch.manual_seed(SEED)
    tokenizer = reader()
    model = start(vision_encoder, len(tokenizer))
    for part in (model, tokenizer):
        part.save_pretrained(out)
    shutil.copy(vision_encoder / "preprocessor_config.json", out)
    checkpoint = find_checkpoint(str(out), fetch=False)
    looks: list[torch.Tensor] = []
    classes: list[int] = []
    result: list[str] = []
    of: list[int] = []
    for name, tiles in sets.items():
        first = max(of, default=-1) + 1
        for number, names in enumerate(WORDS[name]):
            result += captions(names)
            of += [first + number] * len(captions(names))
        classes += [first + int(one) for one in tiles.classes]
        with torch.inference_mode():
            for some in np.array_split(tiles.pictures, math.ceil(len(tiles.pictures) / 256)):
                values = to_tensor(np.stack([resized(one, checkpoint.tile) for one in some]), checkpoint)
                looks.append(model.vision_model(values).last_hidden_state[:, 0])
    read = tokenizer(result, padding="max_length", max_length=LENGTH, return_tensors="pt")["input_ids"]
    train_text_encoder(model, torch.cat(looks).clone(), torch.tensor(classes), read, torch.tensor(of))
    model.save_pretrained(out)


def by_words(folder: Path, names: Sequence[tuple[str, ...]], some: Sequence[Field]) -> Judge:
    """What the annotator says of fields' tiles, region by region, as `fusion_table` asks."""
    labels = [one[0] for one in names]
    tile = find_checkpoint(str(folder), fetch=False).tile
    annotators: dict[str, ZeroShot] = {}
    views = []
    for field in some:
        larger = Field(np.stack([resized(one, tile) for one in field.tiles]), field.cols, field.classes)
        shows = [canvas(larger, places) for places in regions(larger)]
        views.append([view(one, InputSpec(tile, overall=True), hd_num=25, enlarge=False) for one in shows])

    def judged(number: int, fusion: Fusion | None) -> Values:
        option = "off" if fusion is None else f"attention,{fusion.scale:g},{fusion.mix:g}"
        if option not in annotators:
            given = {"checkpoint": str(folder), "labels": ",".join(labels), "aggregate": "tile", "threads": "1"}
            annotators[option] = make_plugin(ZeroShot, {**given, "fusion": option})
        chances = np.empty((len(some[number].tiles), len(labels)))
        answers = annotators[option].annotate(views[number])
        for places, region in zip(regions(some[number]), answers, strict=True):
            chances[places.ravel()] = [[one.numbers[f"p.{label}"] for label in labels] for one in region]
        return chances

    return judged


def main() -> None:
    """Make the checkpoint, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("data", "vision_encoder", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    if not (given.data / "tiles").is_dir():
        parser.error(f"DATA must hold the labelled sets, and {given.data} has no folder tiles")
    torch.set_num_threads(1)
    bands, _ = eurosat(given.data)
    train, test = (pneumonia(given.data, part) for part in ("train", "test"))
    cells = fields(nuclei(given.data), CELL, ("background", "nucleus"))
    smears = fields(blood(given.data), BLOOD, ("background", "cell"))
    trained = {"nuclei": pooled(cells[::2]), "blood": pooled(smears[::2])}
    make({"land": varied(shown(bands["train"]), VARIANTS), "films": train, **trained}, given.vision_encoder, given.out)
    films = [Field(test.pictures[i : i + 1], 1, test.classes[i : i + 1]) for i in range(len(test.classes))]
    judged = by_words(given.out, WORDS["films"], films)
    right = sum(int(judged(i, None).argmax() == one) for i, one in enumerate(test.classes))
    print_line(
        "PneumoniaMNIST, test rows: {:.3f} ({:.3f} to {:.3f})".format(right / len(films), *wilson(right, len(films)))
    )
    scenes = mosaics(shown(bands["val"]), 10)
    for title, some, name in (
        ("mosaics of EuroSAT100's val rows", scenes, "land"),
        ("nuclei, the fields not used for training", cells[1::2], "nuclei"),
        ("blood cells, the fields not used for training", smears[1::2], "blood"),
    ):
        fusion_table(title, by_words(given.out, WORDS[name], some), some)


if __name__ == "__main__":
    main()
