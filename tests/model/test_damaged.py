"""Every way to name a model, on folders that somebody damaged: one error of ours, and nothing else.

Seeded. `LIMNER_DAMAGED=1000` tries that many mutations of each kind of model instead of a few.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from limner.model.annotator import Annotator
from limner.model.fourkhd.convert import convert
from limner.model.fourkhd.files import Files
from limner.model.probe.annotator import Probe
from limner.model.probe.card import CARD, HEAD, ProbeCard, write_card
from limner.model.probe.encoders import ColourEncoder, find_encoder
from limner.model.probe.head import Head
from limner.model.views import look
from limner.readers.errors import ModelError, RequestError
from limner.readers.image import Image
from limner.readers.plugins import load
from limner.readers.regions import Grid, cut
from limner.readers.render import Stretch

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
PLAIN = Stretch(("red", "green", "blue"), (0.0,) * 3, (255.0,) * 3, "as it is")
PIXELS = np.random.default_rng(5).integers(0, 256, size=(96, 96, 3), dtype=np.uint8)

Use = Callable[[Path], object]


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
    return lambda path: make({"checkpoint": str(path), **options})


@pytest.fixture(scope="session")
def kinds(
    zoo: ModuleType,
    zoo_folder: Callable[[str], Path],
    made_checkpoints: Path,
    made_vlms: Callable[[str], Path],
    made_4khd: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Path, Callable[[Path], object]]]:
    """A folder of a kind of model, and what uses a copy of it."""
    root = tmp_path_factory.mktemp("kinds")

    def find(kind: str) -> tuple[Path, Callable[[Path], object]]:
        folder = root / kind
        if kind == "segmentor":
            folder.mkdir()
            zoo.segmentor(folder / "n.onnx")
            return folder, lambda path: annotator("deepness")(path / "n.onnx")
        if kind == "detector":
            folder.mkdir()
            zoo.detector(folder / "n.onnx", upright=True)
            return folder, lambda path: annotator("deepness")(path / "n.onnx")
        if kind == "wsinfer":
            return zoo.wsinfer(folder), annotator("wsinfer")
        if kind == "openclip":
            folder.mkdir()
            zoo.openclip(folder, pickled=True)
            return folder, annotator("zero-shot", labels="cat,dog")
        if kind == "probe":
            folder.mkdir()
            return make_probe(folder), lambda path: Probe({"checkpoint": str(path)})
        if kind in {"clip", "siglip"}:
            return made_checkpoints / kind, annotator("zero-shot", labels="cat,dog")
        if kind == "encoder":
            return zoo_folder("convnext"), lambda path: find_encoder(str(path))
        if kind == "4khd":
            return made_4khd, annotator("4khd", question="What?", answer="classify", labels="ship,quay")
        if kind == "convert":
            return made_4khd, lambda path: convert(Files.find(str(path)), path / "out")
        if kind in {"llava", "qwen2_vl"}:
            return made_vlms(kind), annotator("vlm", question="What?", answer="classify", labels="a,b")
        return zoo_folder(kind), annotator("transformers", **({"labels": "cat"} if kind == "owlvit" else {}))

    return find


def places(content: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to every value in a JSON document."""
    inner: Any = (
        content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    )
    return [one for key, value in list(inner)[:40] for one in ((*path, key), *places(value, (*path, key)))]


def change(chance: random.Random, path: Path) -> str:
    """Damage one file in one way; says how."""
    how = chance.choice(
        [
            "bytes",
            "cut",
            "value",
            "value",
            "value",
            "value",
            "without",
            "swap",
            "empty",
            "gone",
            "folder",
            "pipe",
            "deep",
            "text",
        ]
    )
    files = sorted(one for one in path.rglob("*") if one.is_file())
    target = chance.choice(files)
    documents = [one for one in files if one.suffix in {".json", ".yaml"}]
    if how in {"value", "without", "deep"} and documents:
        target = chance.choice(documents)
        reading, writing = (json.loads, json.dumps) if target.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
        if how == "deep":
            target.write_text("[" * 3000 + "]" * 3000 if chance.random() < 0.5 else '{"a":' * 3000 + "1" + "}" * 3000)
            return f"{target.name} {how}"
        content = reading(target.read_text())
        way = chance.choice(places(content))
        holder = content
        for key in way[:-1]:
            holder = holder[key]
        value = chance.choice(VALUES)
        if how == "without":
            del holder[way[-1]]
        else:
            holder[way[-1]] = value
        target.write_text(writing(content))
        return f"{target.name} {how} {way} {value!r}"
    content = bytearray(target.read_bytes())
    if how == "bytes":
        for _ in range(chance.choice([1, 1, 4, 40])):
            content[chance.randrange(chance.choice([len(content), min(200, len(content))]))] = chance.randrange(256)
        target.write_bytes(content)
    elif how == "cut":
        target.write_bytes(content[: chance.randrange(len(content))])
    elif how == "swap":
        target.write_bytes(chance.choice(files).read_bytes())
    elif how == "empty":
        target.write_bytes(b"")
    elif how == "text":
        target.write_bytes(
            chance.choice([b"\xff\xfe\x00", b"null", b"[]", b"{}", b'"a"', b"\x80\x04N.", b"PK\x03\x04", b"3"])
        )
    else:
        target.unlink()
        if how == "folder":
            target.mkdir()
        elif how == "pipe":
            os.mkfifo(target)
    return f"{target.name} {how}"


KINDS = (
    "segmentor",
    "detector",
    "wsinfer",
    "openclip",
    "probe",
    "clip",
    "siglip",
    "encoder",
    "4khd",
    "convert",
    "llava",
    "vit",
    "segformer",
    "detr",
    "owlvit",
)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_of_ours(
    kind: str,
    kinds: Callable[[str], tuple[Path, Use]],
    use: Callable[[object], None],
    tmp_path: Path,
) -> None:
    torch.set_num_threads(1)
    folder, make = kinds(kind)
    chance = random.Random(kind)
    refused = 0
    for number in range(TRIES + 1):
        copy = tmp_path / f"{number}"
        shutil.copytree(folder, copy)
        done = change(chance, copy) if number else "as it is"
        try:
            use(make(copy))
        except (ModelError, RequestError) as error:
            refused += 1
            assert number, f"{kind} must work before it is damaged: {error}"
            assert str(error).isprintable(), done
        except BaseException as error:
            error.add_note(f"{kind}: {done}")
            if os.environ.get("HUNT"):
                import traceback

                with open("/tmp/hunt.txt", "a") as f:
                    tb = traceback.extract_tb(error.__traceback__)
                    ours = [x for x in tb if "/wt-models/" in x.filename][-1]
                    f.write(
                        f"{kind} | {done} | {type(error).__name__}: {str(error)[:100]} | {ours.filename.split('wt-models/')[-1]}:{ours.lineno} {ours.line[:60]}\n"
                    )
            else:
                raise
        shutil.rmtree(copy)
    assert refused > TRIES // 4
