"""Every way to name a model, on folders that somebody damaged: one error of ours, and nothing else.

Seeded. `LIMNER_DAMAGED=1000` tries that many mutations of each kind of model instead of a few.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from limner.model.annotator import Annotator
from limner.model.probe.card import HEAD, ProbeCard, write_card
from limner.model.probe.encoders import ColourEncoder, find_encoder
from limner.model.probe.head import Head
from limner.model.segmentation.annotator import Segmenter
from limner.model.vlm.fourkhd.checkpoint import FourKhdFiles, convert
from limner.model.vlm.fourkhd.vision_encoder import make_vision_encoder
from limner.readers.errors import ModelError, RequestError
from limner.readers.options import make_plugin
from limner.readers.plugins import load

pytestmark = pytest.mark.slow

TRIES = int(os.environ.get("LIMNER_DAMAGED", "18"))
VALUES = [
    None,
    True,
    0,
    -1,
    10**9,
    10**30,
    0.5,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "a\x1b[31m",
    [],
    [[]],
    {},
    {"a": 1},
]


def make_probe(folder: Path) -> Path:
    """A probe's folder, on colour statistics."""
    head = Head(np.full(21, 128.0), np.full(21, 32.0), ((np.ones((21, 3)), np.zeros(3)),), temperature=0.5)
    digest = head.save(folder / HEAD)
    figure = {"value": 1.0, "low": 1.0, "high": 1.0}
    names = ("accuracy", "balanced_accuracy", "macro_f1", "calibration_error_before", "calibration_error")
    card: dict[str, Any] = {
        "summary": "x",
        "licence": "x",
        "by_class": [],
        "confusion": [],
        "margins": [],
        "not_for": ["x"],
    }
    card |= {"classes": [{"name": name, "tiles": 5, "units": 5} for name in "abc"], "colour": None, "gain": None}
    card |= {"majority": 0.3, "labels_sha256": {}, "versions": {}, "figures": dict.fromkeys(names, figure)}
    card["seen"] = {"tile": 32, "metres": None, "tolerates": 1.5, "bands": None, "quantity": "", "channels": 3}
    card["encoder"] = {"source": "colour", "identity": dict(ColourEncoder().identity)}
    card["head"] = {"kind": "linear", "sha256": digest, "dimensions": 21, "strength": "1", "temperature": 0.5}
    units = {"folds": 5, "unit": "outline", "units": 15, "inside": 0.5, "interval": "95 %", "left_out": {}}
    write_card(ProbeCard.model_validate(card | {"validation": units}), folder)
    return folder


def annotator(kind: str, **options: str) -> Callable[[Path], Annotator]:
    make: Any = load("limner.annotators", kind)
    return lambda path: make_plugin(make, {"checkpoint": str(path), **options}, kind)


@pytest.fixture
def kinds(
    zoo: ModuleType,
    zoo_folder: Callable[[str], Path],
    made_checkpoints: Path,
    made_vlms: Callable[[str], Path],
    made_4khd: Path,
    toy_card: Callable[..., Path],
    tmp_path: Path,
) -> Mapping[str, tuple[Callable[[], object], Callable[[Path], object]]]:
    """Kind of model → what makes its folder `made`, or names another, and what uses a copy of that."""
    made = tmp_path / "made"
    words = {"labels": "cat,dog"}
    asked = {"question": "What?", "answer": "classify", "labels": "ship,quay"}
    network, card = made / "n.onnx", toy_card(np.ones((2, 1, 1), np.float32), tile=32, halo=0)
    return {
        "card": (
            lambda: shutil.copytree(card.parent, made),
            lambda path: make_plugin(Segmenter, {"model": str(path / card.name)}),
        ),
        "segmentor": (lambda: zoo.segmentor(network), lambda path: annotator("deepness")(path / "n.onnx")),
        "detector": (lambda: zoo.detector(network, upright=True), lambda path: annotator("deepness")(path / "n.onnx")),
        "wsinfer": (lambda: zoo.wsinfer(made), annotator("wsinfer")),
        "openclip": (lambda: zoo.openclip(made, pickled=True), annotator("zero-shot", **words)),
        "probe": (lambda: make_probe(made), annotator("probe")),
        "clip": (lambda: made_checkpoints / "clip", annotator("zero-shot", **words)),
        "siglip": (lambda: made_checkpoints / "siglip", annotator("zero-shot", **words)),
        "encoder": (lambda: zoo_folder("convnext"), lambda path: find_encoder(str(path))),
        "4khd": (lambda: made_4khd, annotator("4khd", **asked)),
        "convert": (lambda: made_4khd, lambda path: convert(FourKhdFiles.find(str(path)), path / "out")),
        "build": (lambda: made_checkpoints / "clip", lambda path: make_vision_encoder(str(path))),
        "llava": (lambda: made_vlms("llava"), annotator("vlm", **asked | {"labels": "a,b"})),
        "vit": (lambda: zoo_folder("vit"), annotator("transformers")),
        "segformer": (lambda: zoo_folder("segformer"), annotator("transformers")),
        "detr": (lambda: zoo_folder("detr"), annotator("transformers")),
        "owlvit": (lambda: zoo_folder("owlvit"), annotator("transformers", labels="cat")),
    }


def places(content: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to every value in a JSON document."""
    inner: Any = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    return [one for key, value in list(inner)[:40] for one in ((*path, key), *places(value, (*path, key)))]


def change(chance: random.Random, path: Path) -> str:
    """Damage one file in one way. Returns the description."""
    how = chance.choice(("value", "value", "value", "value", "without", "deep", *DAMAGES))
    files = sorted(one for one in path.rglob("*") if one.is_file())
    documents = [one for one in files if one.suffix in {".json", ".yaml"}]
    if how in DAMAGES or not documents:
        target = chance.choice(files)
        DAMAGES.get(how, DAMAGES["bytes"])(chance, target, files)
        return f"{target.name} {how}"
    target = chance.choice(documents)
    if how == "deep":
        target.write_text(chance.choice(["[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000]))
        return f"{target.name} {how}"
    reading, writing = (json.loads, json.dumps) if target.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    holder = content = reading(target.read_text())
    *way, last = chance.choice(places(content))
    for key in way:
        holder = holder[key]
    value = chance.choice(VALUES)
    if how == "without":
        del holder[last]
    else:
        holder[last] = value
    target.write_text(writing(content))
    return f"{target.name} {how} {way} {last} {value!r}"


def flip(chance: random.Random, target: Path, files: list[Path]) -> None:
    """Change a few bytes, half of the times near the beginning."""
    del files
    content = bytearray(target.read_bytes())
    for _ in range(chance.choice([1, 1, 4, 40])):
        content[chance.randrange(chance.choice([len(content), min(200, len(content))]))] = chance.randrange(256)
    target.write_bytes(content)


def replace_by(make: Callable[[Path], object]) -> Callable[[random.Random, Path, list[Path]], None]:
    """Put something else in the place of a file."""

    def damage(chance: random.Random, target: Path, files: list[Path]) -> None:
        del chance, files
        target.unlink()
        make(target)

    return damage


DAMAGES: Mapping[str, Callable[[random.Random, Path, list[Path]], object]] = {
    "bytes": flip,
    "cut": lambda chance, target, _: os.truncate(target, chance.randrange(target.stat().st_size)),
    "swap": lambda chance, target, files: target.write_bytes(chance.choice(files).read_bytes()),
    "text": lambda chance, target, _: target.write_bytes(chance.choice(TEXTS)),
    "gone": replace_by(lambda _: None),
    "folder": replace_by(Path.mkdir),
    "pipe": replace_by(os.mkfifo),
}
TEXTS = [b"", b"\xff\xfe\x00", b"null", b"[]", b"{}", b'"a"', b"\x80\x04N.", b"PK\x03\x04", b"3"]
KINDS = (
    *("card", "segmentor", "detector", "wsinfer", "openclip", "probe", "clip", "siglip", "encoder", "4khd", "convert"),
    *("build", "llava", "vit", "segformer", "detr", "owlvit"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_damage_raises_a_limner_error(
    kind: str,
    kinds: Mapping[str, tuple[Callable[[], object], Callable[[Path], object]]],
    use: Callable[[object], None],
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    make, name = kinds[kind]
    if kind in {"segmentor", "detector", "openclip", "probe"}:
        (tmp_path / "made").mkdir()
    found = make()
    folder = tmp_path / "made" if (tmp_path / "made").is_dir() else found
    assert isinstance(folder, Path)
    chance = random.Random(kind)  # noqa: S311 - the same damage every time
    refused = 0
    for number in range(TRIES + 1):
        copy = tmp_path / f"{number}"
        shutil.copytree(folder, copy)
        done = change(chance, copy) if number else "as it is"
        try:
            use(name(copy))
        except (ModelError, RequestError) as error:
            if not number or not str(error).isprintable():
                raise
            refused += 1
        except BaseException as error:
            error.add_note(f"{kind}: {done}")
            raise
        shutil.rmtree(copy)
    assert refused > TRIES // 4
