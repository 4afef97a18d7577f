"""Invalid questions are refused by `limner plan` and `limner run` before any pixel is read."""

import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from limner.model.vlm.fourkhd import runtime
from limner.model.vlm.fourkhd.generator import Generator
from limner.model.vlm.question import SPECIAL_TOKEN
from limner.readers import plugins
from limner.readers.raster.raster_image import RasterImage
from PIL import Image

pytestmark = pytest.mark.slow

Limner = Callable[..., Any]  # returns the class CommandOutput of conftest, which tests cannot import
Made = Callable[[str], Path]
Refused = Callable[..., None]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture in colour, 70 × 60 pixels."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def models(made_4khd: Path, made_vlms: Made, model_server: Any) -> dict[str, tuple[str, ...]]:
    """How each vision-language model is named."""
    return {
        "4khd": ("--model", f"4khd:{made_4khd}"),
        "vlm": ("--model", f"vlm:{made_vlms('qwen2_vl')}"),
        "endpoint": ("--model", f"endpoint:{model_server.url}", "--set", "model_options.served=seer"),
    }


@pytest.fixture
def refused(tmp_path: Path, photo: Path, limner: Limner, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """`refused(*words, say=…)`: plan and run end with 2 and say that, without a pixel read and a network loaded."""
    reads: list[object] = []
    real = RasterImage.read

    def read(self: RasterImage, *words: Any) -> Any:
        reads.append(words)
        return real(self, *words)

    monkeypatch.setattr(RasterImage, "read", read)
    monkeypatch.setattr(Generator, "__init__", lambda *_, **__: reads.append("a network"))

    def check(*words: object, say: str) -> None:
        for command in (("plan", photo), ("run", photo, "--out", tmp_path / "out")):
            output = limner(*command, *words)
            assert output.code == 2, output.out + output.err
            assert say in output.err
            assert not reads

    return check


@pytest.mark.parametrize("family", ["4khd", "vlm", "endpoint"])
@pytest.mark.parametrize(
    "mark", ["<ImageHere>", "[UNUSED_TOKEN_145]", "<|im_end|>", "</s>", "<start_of_turn>", "[INST]"]
)
def test_special_tokens_in_a_question(
    models: dict[str, tuple[str, ...]], refused: Refused, family: str, mark: str
) -> None:
    refused(*models[family], "--ask", f"a {mark} and {mark} b", say="must not hold the special tokens")


@pytest.mark.parametrize("family", ["4khd", "vlm", "endpoint"])
def test_special_tokens_in_labels_and_schemas(
    tmp_path: Path, models: dict[str, tuple[str, ...]], refused: Refused, family: str
) -> None:
    refused(*models[family], "--labels", "a ship,<image>", say="option 'labels'")
    for place in (
        {"a": {"type": "string", "description": "like <|endoftext|>"}},
        {"<image>": {"type": "string"}},
        {"a": {"enum": ["x", "[INST]"]}},
    ):
        file = tmp_path / "schema.json"
        file.write_text(json.dumps({"type": "object", "properties": place}))
        refused(*models[family], "--answer", "extract", "--schema-file", file, say="option 'json_schema'")


def test_special_tokens_of_the_checkpoint(
    models: dict[str, tuple[str, ...]], made_vlms: Made, refused: Refused
) -> None:
    assert not SPECIAL_TOKEN.search("<turn>")
    refused(
        "--model", f"vlm:{made_vlms('gemma3')}", "--ask", "what <turn> is it", say="must not hold the special tokens"
    )
    refused(*models["4khd"], "--set", "model_options.system=You are <s>", "--ask", "what", say="option 'system'")


@pytest.mark.parametrize(
    "text", ["a < b and b > c", "Is x<y?", "[see below]", "ships | boats", "C</p>", "100 <m> wide", "in [brackets]"]
)
def test_plain_words_are_no_special_tokens(text: str) -> None:
    assert not SPECIAL_TOKEN.search(text)


@pytest.mark.parametrize(
    "mark", ["<|im_start|>", "<image>", "<img>", "<IMG_CONTEXT>", "<end_of_turn>", "<eos>", "<<SYS>>"]
)
def test_known_special_tokens(mark: str) -> None:
    assert SPECIAL_TOKEN.search(f"a {mark} b")


@pytest.mark.parametrize("family", ["4khd", "vlm"])
@pytest.mark.parametrize(
    ("properties", "say"),
    [
        ({"n": {"type": "integer", "minimum": 5, "maximum": 1}}, "nsatisfiable"),
        ({"n": {"enum": []}}, "nsatisfiable"),
        ({"n": {"type": "string", "pattern": "("}}, "regex"),
        ({"n": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"n": {"$ref": "http://example.org/x"}}, "not present"),
        ({"a": {"type": "string"}, "n": {"$ref": "#"}}, "contains itself"),
    ],
)
def test_schemas_that_cannot_be_decoded(
    tmp_path: Path,
    models: dict[str, tuple[str, ...]],
    refused: Refused,
    family: str,
    properties: dict[str, Any],
    say: str,
) -> None:
    file = tmp_path / "schema.json"
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    file.write_text(json.dumps(schema))
    refused(*models[family], "--answer", "extract", "--schema-file", file, say=say)


@pytest.mark.parametrize(
    ("text", "say"),
    [
        ('{"type": "object", "properties": {"n": {"type": "number", "minimum": NaN}}}', "NaN is no number"),
        ('{"type": "object", "properties": {"n": {"maximum": 1e999}}}', "too large"),
        ('{"type": "object", "properties": {"n": {}, "n": {}}}', "given twice"),
        ('{"type": "object", "description": "' + "x" * 70000 + '"}', "at most 65536 characters"),
        ('{"a":' * 100000, "nested more than 64 levels deep"),
        ('{"type": "object", "properties": {"n": {"enum": ["\\ud800"]}}}', "option 'json_schema'"),
    ],
    ids=["nan", "large", "twice", "long", "deep", "half a character"],
)
def test_invalid_schemas(
    tmp_path: Path, models: dict[str, tuple[str, ...]], refused: Refused, text: str, say: str
) -> None:
    file = tmp_path / "schema.json"
    file.write_text(text)
    for words in models.values():
        refused(*words, "--answer", "extract", "--schema-file", file, say=say)


def test_contradictory_options_of_a_server(
    tmp_path: Path, models: dict[str, tuple[str, ...]], refused: Refused
) -> None:
    file = tmp_path / "schema.json"
    wrong = {"n": {"type": "integer", "minimum": 5, "maximum": 1}}
    file.write_text(json.dumps({"type": "object", "properties": wrong, "required": ["n"]}))
    refused(*models["endpoint"], "--answer", "extract", "--schema-file", file, say="must allow at least one answer")


def test_labels(models: dict[str, tuple[str, ...]], refused: Refused) -> None:
    many = ",".join(f"label {i}" for i in range(300))
    for words in models.values():
        refused(*words, "--labels", many, say="at most 256")
        refused(*words, "--labels", "a,b,a", say="once")
        refused(*words, "--labels", "a\u0007b,c", say="one line")
    first = ("--set", "model_options.likelihood=first-token")
    refused(*models["endpoint"], *first, "--labels", "car,cargo ship", say="car begins cargo ship")


@pytest.mark.parametrize("family", ["4khd", "vlm"])
def test_questions_that_do_not_fit(models: dict[str, tuple[str, ...]], refused: Refused, family: str) -> None:
    refused(*models[family], "--ask", "what is it " * 3000, say="model's 4096 tokens")
    tokens = ("--set", "model_options.max_tokens=5000")
    refused(*models[family], "--ask", "what is it", *tokens, say="model's 4096 tokens")
    refused(*models[family], "--ask", "what", "--set", "model_options.max_tokens=0", say="from 1 to")


def test_a_checkpoint_that_is_not_on_this_machine(
    models: dict[str, tuple[str, ...]], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    asked = ("--labels", "cat,dog", "--set")
    monkeypatch.setattr(runtime.torch.cuda, "device_count", lambda: 0)
    refused(*models["4khd"], *asked, "model_options.device=cuda:0", say="must name a GPU")
    refused(*models["4khd"], *asked, "model_options.dtype=float8", say="option 'dtype'")
    refused(*models["4khd"], *asked, "model_options.attention=magic", say="option 'attention'")
    refused(*models["vlm"], *asked, "model_options.device=cuda:9", say="device cuda:9")
    monkeypatch.setattr(plugins, "version", version)
    refused(*models["4khd"], *asked, "model_options.quantize=4bit", say="pip install 'bitsandbytes>=0.46'")


def test_special_tokens_in_labels_of_zero_shot(made_checkpoints: Path, refused: Refused) -> None:
    words = ("--model", f"zero-shot:{made_checkpoints / 'clip'}", "--labels")
    refused(*words, "cat,<|endoftext|>", say="option 'labels' of zero-shot")
    refused(*words, "cat,dog", "--set", "model_options.templates=a <image> of {}", say="option 'templates'")
