"""Labels from a server: votes, and likelihoods of first tokens."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from limner.model.annotator import Answer, View
from limner.model.vlm.annotator import VlmAnnotator
from limner.model.vlm.server import EndpointAnnotator
from limner.readers.errors import ModelError
from limner.readers.options import make_plugin

Server = Any  # of conftest, which tests cannot import
Json = Any


def make(server: Server, **options: str) -> VlmAnnotator:
    return make_plugin(
        EndpointAnnotator, {"checkpoint": server.url, "served": "seer", "tile": "32", "fetch": "false", **options}
    )


def prompt(body: Json) -> str:
    """The words of a request."""
    return body["messages"][0]["content"][-1]["text"]


def only(answers: Any) -> Answer:
    [answer] = answers
    return answer


def test_votes(model_server: Server, views: list[View]) -> None:
    def say(body: Json) -> str:
        schema = body["response_format"]["json_schema"]["schema"]
        assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["label"], False)
        assert schema["properties"] == {"label": {"type": "string", "enum": ["Ship", "quay", "crane"]}}
        first = prompt(body).split("Options: ")[1].split(";")[0]
        return json.dumps({"label": "quay" if first == "Ship" else "Ship"})

    model_server.say = say
    annotator = make(model_server, labels="Ship,quay,crane", question="What is it?")
    answer = only(annotator.annotate(views[:1])[0])
    assert answer.label == "Ship"
    assert [answer.numbers[f"p.{label}"] for label in ("Ship", "quay", "crane")] == [0.6667, 0.3333, 0.0]
    assert answer.numbers["agreement"] == 0.6667
    assert len(model_server.questions) == 3
    assert "share of the orders" in annotator.identity["score"]


@pytest.mark.parametrize("said", ["quay", " QUAY\n", '"quay"'])
def test_a_vote_may_differ_in_case_and_spaces(model_server: Server, views: list[View], said: str) -> None:
    model_server.say = lambda _: said
    answer = only(make(model_server, labels="Ship,quay").annotate(views[:1])[0])
    assert (answer.score, answer.notes) == (1.0, {})


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("Quay.", "with punctuation"),
        ("**quay**", "with punctuation"),
        ("\u201cQuay\u201d!", "with punctuation"),
        ("Answer: **Quay**", "with punctuation"),
        ('```json\n{"label": "quay"}\n```', "with punctuation"),
        ("<answer> quay </answer>", "between marks"),
        ("<|begin_of_box|>quay<|end_of_box|>", "between marks"),
    ],
)
def test_a_vote_with_marks_around_it_is_understood_and_marked(
    model_server: Server, views: list[View], said: str, form: str
) -> None:
    model_server.say = lambda _: said
    answer = only(make(model_server, labels="Ship,quay").annotate(views[:1])[0])
    assert (answer.label, answer.notes) == ("quay", {"answer_form": form})


def test_labels_that_differ_only_in_marks_are_told_apart_or_refused(model_server: Server, views: list[View]) -> None:
    model_server.say = lambda _: "C."
    assert only(make(model_server, labels="C.,C").annotate(views[:1])[0]).label == "C."
    model_server.say = lambda _: "**C**"
    with pytest.raises(ModelError, match=r"one of C\., C"):
        make(model_server, labels="C.,C").annotate(views[:1])


@pytest.mark.parametrize(
    "said", ["a quay", "no quay.", "Ship, quay", "The quay, Dr Rossi", '{"a": "quay", "b": ""}', "[]"]
)
def test_other_texts_are_no_vote(model_server: Server, views: list[View], said: str) -> None:
    model_server.say = lambda _: said
    with pytest.raises(ModelError, match="one of Ship, quay") as caught:
        make(model_server, labels="Ship,quay", structured="none").annotate(views[:1])
    assert "Rossi" not in str(caught.value)
    assert all("response_format" not in body for body in model_server.questions)


def test_truncated_vote_is_refused(model_server: Server, views: list[View]) -> None:
    s = model_server
    s.script.extend([lambda h: s.send(h, 200, s.reply("Ship", finish_reason="length"))] * 4)
    with pytest.raises(ModelError, match="one of Ship, quay"):
        make(s, labels="Ship,quay").annotate(views[:1])


def test_labels_that_differ_in_case(model_server: Server, views: list[View]) -> None:
    model_server.say = lambda _: "us"
    assert only(make(model_server, labels="US,us").annotate(views[:1])[0]).label == "us"
    model_server.say = lambda _: "Us"
    with pytest.raises(ModelError):
        make(model_server, labels="US,us").annotate(views[:1])


def tokens(server: Server, *first: tuple[object, object]) -> Callable[[Any], None]:
    top = [{"token": token, "logprob": likelihood, "bytes": None} for token, likelihood in first]
    content = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": top}]}
    return lambda h: server.send(h, 200, server.reply("x", finish_reason="length", logprobs=content))


def test_first_token_likelihoods(model_server: Server, views: list[View]) -> None:
    s = model_server
    told = [(" ship", math.log(0.5)), ("Ship", math.log(0.1)), ("qu", math.log(0.2)), ("The", math.log(0.1))]
    s.script.extend([tokens(s, *told)] * 3)
    annotator = make(s, labels="ship,quay,crane", likelihood="first-token", margin="0")
    answer = only(annotator.annotate(views[:1])[0])
    assert [answer.numbers[f"p.{label}"] for label in ("ship", "quay", "crane")] == [0.75, 0.25, 0.0]
    for body in s.questions:
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)
        assert "response_format" not in body
    assert "first tokens" in annotator.identity["score"]


@pytest.mark.parametrize(
    ("first", "why"),
    [
        ([], "log-likelihoods of tokens"),
        ([("The", -0.1), ("", -1.0), (" ", -1.0)], "first word"),
        ([("s", -0.1), ("ship", -3.0)], "differ in their first tokens"),
        ([("ship", 0.5)], "must be a chat completion"),
        ([("ship", math.nan)], "NaN, which is no number"),
        ([("ship", "-1")], "must be a chat completion"),
        ([(7, -1.0)], "must be a chat completion"),
    ],
)
def test_invalid_first_tokens_are_refused(model_server: Server, views: list[View], first: Any, why: str) -> None:
    s = model_server
    s.script.extend([tokens(s, *first)] * 9)
    with pytest.raises(ModelError, match=why):
        make(s, labels="ship,shore", likelihood="first-token").annotate(views[:1])


def test_unlikely_shared_prefixes_are_ignored(model_server: Server, views: list[View]) -> None:
    s = model_server
    s.script.extend([tokens(s, ("ship", -0.1), ("s", -9.0), ("shore", -math.inf), ("sh", -(10**300)))] * 2)
    assert only(make(s, labels="ship,shore", likelihood="first-token").annotate(views[:1])[0]).score == 1.0
