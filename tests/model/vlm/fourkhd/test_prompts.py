"""Prompts equal the reference id for id; questions with special tokens are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from limner.model.vlm.fourkhd.tokenizer import SYSTEM, Tokenizer, build_prompt
from limner.readers.errors import ModelError, RequestError
from sentencepiece import sentencepiece_model_pb2

GOLDEN = Path(__file__).parents[3] / "golden" / "4khd"
TOLD = json.loads((GOLDEN / "prompt_tokens.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in TOLD["cases"]}
ASKED: dict[str, dict[str, Any]] = {
    "chat_with_system": {"question": "Illustrate the fine details present in the image"},
    "chat_no_system": {"question": "Please describe this image in detail.", "system": ""},
    "second_round": {
        "question": "what is the detailed explanation of the third part.",
        "earlier": [("Illustrate the fine details present in the image", "It is a chart.")],
    },
    "two_images": {
        "question": "First picture:<ImageHere>, second picture:<ImageHere>. "
        "Describe the subject of these two pictures?",
        "system": "",
    },
    "chinese": {"question": "请详细描述这张图片。", "system": ""},
    "vlmevalkit_vqa": {
        "question": "Answer the question using a single word or phrase.What is the total?",
        "layout": "benchmark",
    },
}


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A SentencePiece vocabulary of the released size, in which the pieces of the golden texts have their own ids.

    It knows no other words. What it says of these texts is what the released one says.
    """
    pieces = {int(i): piece for i, piece in json.loads((GOLDEN / "pieces.json").read_text(encoding="utf-8")).items()}
    ids = TOLD["special_ids"]
    marks = {ids["[UNUSED_TOKEN_145]"]: "[UNUSED_TOKEN_145]", ids["[UNUSED_TOKEN_146]"]: "[UNUSED_TOKEN_146]"}
    model: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue] - made when imported
    model.trainer_spec.model_type = 1
    model.trainer_spec.vocab_size = ids["vocab"]
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, 1, 2
    model.trainer_spec.pad_id = -1
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.remove_extra_whitespaces = False
    kinds = {"word": 1, "unknown": 2, "control": 3, "mark": 4, "unused": 5}
    for i in range(ids["vocab"]):
        piece = model.pieces.add()
        if i in pieces:
            piece.piece, piece.type, piece.score = pieces[i].replace(" ", "\u2581"), kinds["word"], -1.0
        elif i in marks:
            piece.piece, piece.type = marks[i], kinds["mark"]
        elif i < 3:
            piece.piece, piece.type = ["<unk>", "<s>", "</s>"][i], kinds["control" if i else "unknown"]
        else:
            piece.piece, piece.type = f"<none {i}>", kinds["unused"]
    path = tmp_path_factory.mktemp("released") / "tokenizer.model"
    path.write_bytes(model.SerializeToString())
    return Tokenizer(path, "released")


def test_every_golden_case_is_covered() -> None:
    assert set(ASKED) == set(CASES)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_prompt_ids_equal_the_reference(released: Tokenizer, name: str) -> None:
    prompt = build_prompt(released, **ASKED[name])
    assert [list(part) for part in prompt.parts] == [part["ids"] for part in CASES[name]["parts"]]
    assert prompt.pictures == len(CASES[name]["parts"]) - 1


def test_system_prompt_equals_the_reference(released: Tokenizer) -> None:
    first = CASES["chat_with_system"]["parts"][0]["text"]
    assert first == f"[UNUSED_TOKEN_146]system\n{SYSTEM}[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]user\n"
    assert (released.bos, released.eos, released.turn_end) == (1, 2, 92542)
    assert set(released.stop_tokens) == {2, 92542}


@pytest.mark.parametrize("mark", ["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"])
def test_turn_tokens_in_a_question_are_refused(released: Tokenizer, mark: str) -> None:
    with pytest.raises(RequestError, match="special tokens"):
        build_prompt(released, f"hello{mark}\nhello")
    with pytest.raises(RequestError, match="special tokens"):
        build_prompt(released, "hello", earlier=[("hello", mark)])


def test_every_byte_can_be_encoded(small_tokenizer: Path) -> None:
    tokenizer = Tokenizer(small_tokenizer, "small")
    pieces = tokenizer.token_bytes()
    text = "Locate ü 浦\t\n{}"
    assert b"".join(pieces[i] for i in tokenizer.encode(text)) == text.encode()
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert pieces[tokenizer.turn_end] == pieces[tokenizer.eos] == b""


def test_missing_damaged_and_foreign_tokenizers(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    with pytest.raises(ModelError, match=r"tokenizer\.model.*no such file"):
        Tokenizer(path, "here")
    path.write_bytes(b"\x00\x01 not a model")
    with pytest.raises(ModelError, match="SentencePiece"):
        Tokenizer(path, "here")
    model: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue] - made when imported
    model.trainer_spec.vocab_size = 4
    model.trainer_spec.pad_id = -1
    for text, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3), ("a", 1)):
        piece = model.pieces.add()
        piece.piece, piece.type = text, kind
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="UNUSED_TOKEN_146"):
        Tokenizer(path, "here")
