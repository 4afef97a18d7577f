"""What is learnt of a conversation: the vectors of the released fine-tuning, and our own conversations."""

from pathlib import Path

import pytest
from limner.model.training.targets import IGNORED, conversation, opening, targets
from limner.model.vlm.fourkhd.tokenizer import TURN_END, TURN_START, Tokenizer, build_prompt
from limner.readers.errors import RequestError

SAID = [92543, 525, 11353, 364]
HI = [1, 92543, 1008, 364, 6176, 92542, 364, *SAID]


def released(ids: list[int]) -> list[int]:
    return targets(ids, end=92542, eos=2, opening=5)


def test_a_conversation_with_a_picture() -> None:
    # the released tokenizer's ids of two turns about a picture of one tile
    first = [1272, 505, 410, 2044, 446, 410, 5718, 92542, 364, *SAID]
    second = [364, 92543, 1008, 364, 677, 629, 2866, 345, 92542, 364, *SAID]
    answers = [[406, 505, 14018, 281, 92542], [9828, 92542]]
    ids = [1, 92543, 1008, 364, *[IGNORED] * 313, *first, *answers[0], *second, *answers[1], 2]
    silent = [IGNORED] * (4 + 313 + len(first))
    assert released(ids) == [*silent, *answers[0], *[IGNORED] * len(second), *answers[1], 2]


def test_a_conversation_cut_in_a_question() -> None:
    ids = [*HI, 15115, 92542, 364, 92543, 1008, 364, 12706, 505]
    assert released(ids) == [*[IGNORED] * 11, 15115, 92542, 364, *[IGNORED] * 5]


def test_a_conversation_cut_in_an_answer() -> None:
    assert released([*HI, 15115, 410]) == [*[IGNORED] * 11, 15115, 410]


def test_nothing_after_the_end_is_learnt() -> None:
    assert released([*HI, 15115, 92542, 2, 7, 8]) == [*[IGNORED] * 11, 15115, 92542, 2, IGNORED, IGNORED]


@pytest.mark.parametrize("layout", ["chat", "benchmark", "training"])
def test_our_conversations_are_what_is_asked_and_then_the_answer(base: Path, layout: str) -> None:
    words = Tokenizer(base / "tokenizer.model", "x")
    before, after = conversation(words, "What is it?", "a red picture", layout)  # type: ignore[arg-type]
    asked = build_prompt(words, "What is it?", layout=layout, system="")  # type: ignore[arg-type]
    answer = (*words.encode("a red picture"), words.turn_end, words.eos)
    assert before == asked.parts[0]
    assert after == (*asked.parts[1], *answer)
    learnt = targets([*before, IGNORED, IGNORED, *after], end=words.turn_end, eos=words.eos, opening=opening(words))
    assert learnt == [*[IGNORED] * (len(before) + 2 + len(asked.parts[1])), *answer]


def test_texts_with_marks_of_turns_are_refused(base: Path) -> None:
    words = Tokenizer(base / "tokenizer.model", "x")
    for question, answer in ((f"a{TURN_END}", "b"), ("a", f"b{TURN_START}")):
        with pytest.raises(RequestError, match="marks"):
            conversation(words, question, answer, "training")


@pytest.mark.parametrize(("question", "answer"), [("<ImageHere> and <ImageHere>", "a"), ("what", "an <ImageHere>")])
def test_one_picture_a_sample(base: Path, question: str, answer: str) -> None:
    words = Tokenizer(base / "tokenizer.model", "x")
    with pytest.raises(RequestError, match="one picture"):
        conversation(words, question, answer, "chat")
