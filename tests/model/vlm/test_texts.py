"""Texts as models write them: thought and answer, and what is said where there is no answer."""

import pytest
from limner.model.vlm.box_format import BoxFormat
from limner.model.vlm.chat_completions import match_option
from limner.model.vlm.schema import Schema
from limner.model.vlm.texts import CUT, MAX_TOKENS, GeneratedText, split_thought, unwrap
from limner.readers.errors import ModelError


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("A ship.", "", "A ship."),
        ("<think>Hmm.</think>\n\nA ship.", "Hmm.", "A ship."),
        ("<think>\n\n</think>\n\nA ship.", "", "A ship."),
        ("Hmm.\n</think>\nA ship.", "Hmm.", "A ship."),
        ("<think>Hmm, wa", "Hmm, wa", ""),
        ("<think>One.</think>A <think>Two.</think>ship.", "One.\nTwo.", "A ship."),
        ("◁think▷Hmm.◁/think▷A ship.", "Hmm.", "A ship."),
        ("[THINK]Hmm.[/THINK]A ship.", "Hmm.", "A ship."),
        ("<unused94>thought\nHmm.<unused95>A ship.", "thought\nHmm.", "A ship."),
        ("I think a ship.", "", "I think a ship."),
    ],
)
def test_thought_and_answer(text: str, thought: str, answer: str) -> None:
    found = split_thought(text)
    assert (found[0], found[1].strip()) == (thought, answer)


def test_a_thought_that_a_server_tells_apart_comes_first() -> None:
    assert GeneratedText.read("<think>Two.</think>A ship.", thought="One.") == GeneratedText(
        "A ship.", thought="One.\nTwo."
    )


def test_a_cut_text_is_marked() -> None:
    assert GeneratedText(" A long", cut=True).marked == "A long" + CUT
    assert GeneratedText("A ship. \n").marked == "A ship."


@pytest.mark.parametrize(
    ("text", "limit", "why"),
    [
        (
            GeneratedText("", thought="Hmm."),
            512,
            r"only thought, 4 characters\). Raise --set .*max_tokens=NUMBER above 512",
        ),
        (GeneratedText("", thought="Hmm.", cut=True), MAX_TOKENS, r"only thought, 4 characters\). Ask for less"),
        (GeneratedText(" ", cut=True), 1, r"must hold a text \(found: none\). Raise"),
        (GeneratedText(""), 512, r"must hold a text \(found: none\). Ask in other words"),
    ],
)
def test_no_answer_is_an_error_with_advice_that_can_be_followed(text: GeneratedText, limit: int, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        text.check(limit)
    answered = GeneratedText("A ship.", thought="Hmm.")
    assert answered.check(limit) is answered


@pytest.mark.parametrize(
    "part", ["<think>", "</think>", "<answer>", "<box>", "<|det|>", "[", '"bbox_2d": [1,2,3,4] ', "{", " "]
)
@pytest.mark.slow
def test_an_endless_answer_takes_no_endless_time(part: str) -> None:
    """A server may send 8 MiB of it."""
    text = "```\n" + part * (2**20 // len(part))
    GeneratedText.read(text)
    unwrap(text)
    BoxFormat.of("pixels", (0.0, 0.0, 9.0, 9.0), (9, 9)).read(text)
    match_text = "must be one of a, b"
    with pytest.raises(ModelError, match=match_text):
        match_option(text, ["a", "b"])
    with pytest.raises(ModelError, match="must obey the schema"):
        Schema.parse('{"type": "object"}', of="tester").read(text)


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("<answer> quay </answer>", "quay"),
        ("So: <|begin_of_box|>quay<|end_of_box|>", "quay"),
        ("<answer>a</answer> <answer>b</answer>", "<answer>a</answer> <answer>b</answer>"),
        ("quay", "quay"),
    ],
)
def test_marks_around_an_answer(text: str, inner: str) -> None:
    assert unwrap(text) == inner
