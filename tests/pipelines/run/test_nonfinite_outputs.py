"""Networks whose outputs are NaN or infinite give failed regions and no findings."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
Folder = Callable[[str], Path]

SCHEMA = {
    "type": "object",
    "properties": {"ships": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["ships"],
    "additionalProperties": False,
}
ASKED = {
    "describe": ("--ask", "what does it show", "--set", "model_options.max_tokens=5"),
    "classify": ("--labels", "cat,dog,water"),
    "locate": ("--labels", "cat", "--answer", "locate", "--set", "model_options.max_tokens=300"),
    "extract": ("--answer", "extract"),
}


def spoil(folder: Path, to: Path, name: str, value: float) -> Path:
    """A copy of a checkpoint in which one number of a tensor is another."""
    shutil.copytree(folder, to)
    tensors = {key: tensor.copy() for key, tensor in load_file(to / "model.safetensors").items()}
    tensors[name].reshape(-1)[tensors[name].size // 2] = value
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture in colour, 70 × 60 pixels."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def nothing(tmp_path: Path, photo: Path, limner: Limner) -> Callable[..., None]:
    """`nothing(model, *words)`: a run ends with failed regions that say why, and without a finding."""

    def check(*words: object) -> None:
        out = tmp_path / "out"
        output = limner("run", photo, *words, "--hd-num", 1, "--out", out)
        assert output.code == 3, output.out + output.err  # no region was analysed
        results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        assert results
        for one in results:
            assert one["status"] == "failed"
            assert "must have finite " in one["error"], one["error"]
        with (out / "findings.csv").open(encoding="utf-8", newline="") as file:
            assert not list(csv.DictReader(file))

    return check


@pytest.mark.parametrize(
    ("kind", "value"), [*((kind, math.nan) for kind in ASKED), ("extract", math.inf), ("classify", -math.inf)]
)
def test_4khd(tmp_path: Path, made_4khd: Path, nothing: Callable[..., None], kind: str, value: float) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    schema = ("--schema-file", tmp_path / "schema.json") if kind == "extract" else ()
    model = spoil(made_4khd, tmp_path / "spoilt", "output.weight", value)
    nothing("--model", f"4khd:{model}", *ASKED[kind], *schema)


def test_4khd_with_a_damaged_projector(tmp_path: Path, made_4khd: Path, nothing: Callable[..., None]) -> None:
    model = spoil(made_4khd, tmp_path / "spoilt", "vision_proj.2.weight", math.nan)
    nothing("--model", f"4khd:{model}", *ASKED["classify"])


@pytest.mark.parametrize("kind", ASKED)
def test_vlm(tmp_path: Path, made_vlms: Folder, nothing: Callable[..., None], kind: str) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    schema = ("--schema-file", tmp_path / "schema.json") if kind == "extract" else ()
    boxes = ("--set", "model_options.boxes=unit") if kind == "locate" else ()
    model = spoil(made_vlms("qwen2_vl"), tmp_path / "spoilt", "lm_head.weight", math.inf)
    nothing("--model", f"vlm:{model}", *ASKED[kind], *schema, *boxes)


@pytest.mark.parametrize(
    ("family", "tensor", "value"),
    [
        ("clip", "vision_model.post_layernorm.weight", math.nan),
        ("clip", "logit_scale", math.inf),
        ("siglip", "logit_scale", math.inf),  # its sigmoids would be 0 and 1
        ("siglip", "logit_bias", -math.inf),
        ("siglip", "vision_model.head.layernorm.bias", math.inf),
    ],
)
def test_zero_shot(
    tmp_path: Path, made_checkpoints: Path, nothing: Callable[..., None], family: str, tensor: str, value: float
) -> None:
    model = spoil(made_checkpoints / family, tmp_path / "spoilt", tensor, value)
    nothing("--model", f"zero-shot:{model}", "--labels", "cat,dog")


@pytest.mark.parametrize("fusion", ["off", "attention"])
def test_fused_features(tmp_path: Path, made_checkpoints: Path, nothing: Callable[..., None], fusion: str) -> None:
    model = spoil(made_checkpoints / "clip", tmp_path / "spoilt", "visual_projection.weight", math.inf)
    nothing("--model", f"zero-shot:{model}", "--labels", "cat,dog", "--set", f"model_options.fusion={fusion}")


def test_nonfinite_text_features_stop_the_run(
    tmp_path: Path, photo: Path, made_checkpoints: Path, limner: Limner
) -> None:
    model = spoil(made_checkpoints / "clip", tmp_path / "spoilt", "text_projection.weight", math.nan)
    output = limner("run", photo, "--model", f"zero-shot:{model}", "--labels", "cat,dog", "--out", tmp_path / "out")
    assert output.code == 2
    assert "must have finite features of the labels" in output.err


@pytest.mark.parametrize(
    ("name", "tensor", "value"),
    [
        ("vit", "classifier.weight", math.inf),
        ("vit", "classifier.bias", math.nan),
        ("segformer", "decode_head.classifier.bias", math.nan),
        ("segformer", "decode_head.classifier.bias", math.inf),
        ("mask2former", "class_predictor.bias", math.inf),
        ("detr", "class_labels_classifier.bias", math.inf),
        ("detr", "bbox_predictor.layers.2.bias", math.nan),
        ("owlvit", "box_head.dense2.bias", math.nan),
        ("grounding-dino", "model.level_embed", math.nan),
    ],
)
def test_transformers(
    tmp_path: Path, zoo_folder: Folder, nothing: Callable[..., None], name: str, tensor: str, value: float
) -> None:
    model = spoil(zoo_folder(name), tmp_path / "spoilt", tensor, value)
    labels = ("--labels", "ship,water") if name in {"owlvit", "grounding-dino"} else ()
    nothing("--model", f"transformers:{model}", *labels)


def test_equal_scores_of_all_classes_are_refused(
    tmp_path: Path, photo: Path, zoo_folder: Folder, limner: Limner
) -> None:
    model = tmp_path / "spoilt"
    shutil.copytree(zoo_folder("vit"), model)
    tensors = load_file(model / "model.safetensors")
    dead = {key: np.zeros_like(one) if key.startswith("classifier.") else one for key, one in tensors.items()}
    save_file(dead, model / "model.safetensors", metadata={"format": "pt"})
    output = limner("run", photo, "--model", f"transformers:{model}", "--out", tmp_path / "out")
    assert output.code == 3
    assert "must tell the classes apart" in (tmp_path / "out" / "results.jsonl").read_text()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_server(tmp_path: Path, photo: Path, model_server: object, limner: Limner, number: str) -> None:
    server: object = model_server
    body = json.dumps(server.reply("cat")).replace('"index": 0', f'"index": {number}').encode()  # type: ignore[attr-defined]
    server.script.extend([lambda handler: server.send(handler, 200, body)] * 20)  # type: ignore[attr-defined]
    words = ("--model", f"endpoint:{server.url}", "--set", "model_options.served=seer")  # type: ignore[attr-defined]
    output = limner("run", photo, *words, "--ask", "what is it", "--hd-num", 1, "--out", tmp_path / "out")
    assert output.code == 3, output.err
    assert "is no number in JSON" in (tmp_path / "out" / "results.jsonl").read_text()
