"""Texts generated under a grammar obey its schema, whatever the logits are."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest
from limner.model.vlm.box_format import BoxFormat
from limner.model.vlm.decoding import Constraint, Vocabulary, check_schema
from limner.readers.errors import ModelError, RequestError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROAD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "lanes": {"type": "integer", "minimum": 0, "maximum": 12},
        "width": {"type": "number", "minimum": 0, "maximum": 50},
        "surface": {"enum": ["asphalt", "gravel", "größer"]},
        "seen": {"type": "boolean"},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
        "end": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"x": {"const": 3}}, "required": ["x"]}]},
    },
    "required": ["lanes", "surface", "seen", "end"],
    "additionalProperties": False,
}
BOXES: dict[str, Any] = json.loads(BoxFormat.of("thousandths", (0, 0, 10, 10), (10, 10)).schema)
UNITS: dict[str, Any] = json.loads(BoxFormat.of("unit", (0, 0, 10, 10), (10, 10)).schema)
LIMIT = 4000  # tokens; no text of these schemas is as long as that, unless chance writes digits for ever


MARKS = {"eos_token": "<|end|>"}
UNKNOWN = {"unk_token": "<unk>"}


def byte_level() -> Vocabulary:
    reader = Tokenizer(models.BPE())
    reader.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=["<|end|>", "<|over|>"], show_progress=False
    )
    reader.train_from_iterator(['{"lanes": 3, "surface": "asphalt", "seen": true, "end": null}'] * 4, trainer)
    reader.enable_truncation(4)
    return Vocabulary.of_fast(PreTrainedTokenizerFast(tokenizer_object=reader, **MARKS), ends=[0, 1])


def sentencepiece() -> Vocabulary:
    pieces = ["<unk>", "<s>", "</s>", " ", '"', "{", "[", " null", "alt", '": ', "gr", "1", "2", "]]", "ö"]
    tokens = [piece.encode() for piece in pieces] + [bytes([byte]) for byte in range(256)]
    return Vocabulary.of_tokens(tokens, ends=[2], special=[0, 1, 2])


def write(vocabulary: Vocabulary, schema: dict[str, Any], seed: int) -> Constraint:
    """What comes of logits that are noise."""
    noise = np.random.default_rng(seed)
    constraint = Constraint(vocabulary, json.dumps(schema))
    for _ in range(LIMIT):
        if constraint.finished:
            break
        logits = noise.normal(size=vocabulary.size)
        logits[~constraint.mask()] = -np.inf
        constraint.advance(int(logits.argmax()))
    return constraint


@pytest.mark.parametrize("schema", [ROAD, BOXES, UNITS], ids=["road", "boxes", "units"])
@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_random_logits_become_valid_json(make: Callable[[], Vocabulary], schema: dict[str, Any]) -> None:
    vocabulary = make()
    texts = set[str]()
    for seed in range(12):
        constraint = write(vocabulary, schema, seed)
        assert constraint.finished
        jsonschema.validate(json.loads(constraint.text), schema)
        texts.add(constraint.text)
    assert len(texts) > 6  # the grammar leaves a choice


def test_complete_text_may_only_end() -> None:
    vocabulary = byte_level()
    constraint = write(vocabulary, {"enum": [[]]}, 0)
    assert constraint.text == "[]"
    assert [*np.flatnonzero(constraint.mask())] == [0, 1]
    constraint.advance(1)
    assert (constraint.finished, constraint.text) == (True, "[]")


def test_disallowed_token_is_refused() -> None:
    vocabulary = sentencepiece()
    constraint = Constraint(vocabulary, json.dumps(ROAD))
    first = int(np.flatnonzero(~constraint.mask())[0])
    with pytest.raises(ModelError, match="must obey its schema"):
        constraint.advance(first)


def test_boxes_stay_within_their_format() -> None:
    ruler = BoxFormat.of("pixels", (0, 0, 60, 60), (60, 60))
    vocabulary = sentencepiece()
    texts = [write(vocabulary, json.loads(ruler.schema), seed).text for seed in range(20)]
    numbers = [number for text in texts for box in json.loads(text) for number in box]
    assert numbers
    assert 0 <= min(numbers) < max(numbers) <= 60


@pytest.mark.parametrize("schema", ['{"not": {"type": "number"}}', '{"type": "objec"}', '{"$ref": "#/nowhere"}'])
def test_unsupported_schema_is_refused(schema: str) -> None:
    with pytest.raises(RequestError, match=r"option 'schema'.*can be held to"):
        check_schema(schema, subject="option 'schema'")
    with pytest.raises(ModelError, match="must obey its schema"):
        Constraint(sentencepiece(), schema)


def test_supported_schema_is_accepted() -> None:
    check_schema(json.dumps(ROAD), subject="option 'schema'")


def test_a_tokenizer_without_bytes_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "cat": 1}, **UNKNOWN))
    with pytest.raises(ModelError, match="known as bytes"):
        Vocabulary.of_fast(PreTrainedTokenizerFast(tokenizer_object=words, **UNKNOWN), ends=[0])
    with pytest.raises(ModelError, match=r"known as bytes.*backend_tokenizer"):
        Vocabulary.of_fast(object(), ends=[0])


def test_rust_panic_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As Rust's panics, no `Exception`."""

    def panic(*_: object, **__: object) -> None:
        raise PanicException

    monkeypatch.setattr("limner.model.vlm.decoding.LLTokenizer", panic)
    with pytest.raises(ModelError, match="known as bytes"):
        Vocabulary.of_fast(
            PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a"))), ends=[0]
        )
