"""Servers of several kinds, each of which refuses what the real one refuses: limner finds out what they take."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from limner.model.annotator import Answer, View
from limner.model.vlm import dialect
from limner.model.vlm.annotator import VlmAnnotator
from limner.model.vlm.server import EndpointAnnotator
from limner.readers import servers
from limner.readers.errors import ModelError
from limner.readers.options import make_plugin

Server = Any  # of conftest, which tests cannot import
Json = Any
Refusal = Callable[[Json], Json]
"""What a server says when it refuses a request, None where it takes it."""

SHIPS = '{"type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}'
VALUES = '{"ships": 3}'


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds, and warnings that no other test has used up."""
    monkeypatch.setattr(servers, "BACKOFF", 0.01)
    dialect._warn.cache_clear()  # noqa: SLF001


def openai(body: Json) -> Json:
    """A reasoning model of OpenAI's, which takes strict schemas of objects without further properties."""

    def wrong(message: str, parameter: str) -> Json:
        return {
            "error": {"message": message, "type": "invalid_request_error", "param": parameter, "code": "unsupported"}
        }

    if "max_tokens" in body:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return wrong(said, "max_tokens")
    if body.get("temperature", 1) != 1:
        said = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is."
        return wrong(said, "temperature")
    stated = body.get("response_format", {}).get("json_schema", {})
    if stated.get("strict") and stated["schema"].get("additionalProperties") is not False:
        said = "Invalid schema for response_format 'answer': In context=(), additionalProperties must be false."
        return wrong(said, "response_format")
    return None


def vllm_012(body: Json) -> Json:
    """VLLM from 0.12 on, where a schema was asked for as before."""
    if "guided_json" in body:
        said = "guided_json was removed in v0.12.0: use structured_outputs instead."
        return {"error": {"message": said, "type": "BadRequestError", "param": None, "code": 400}}
    return None


def vllm_old(body: Json) -> Json:
    """An early vLLM: response_format has no schemas, and guided_json has."""
    if body.get("response_format", {}).get("type") == "json_schema":
        place = ["body", "response_format", "type"]
        said = "Input should be 'text' or 'json_object'"
        return {"object": "error", "message": str([{"type": "literal_error", "loc": place, "msg": said}]), "code": 400}
    if "structured_outputs" in body:
        return {"detail": [{"type": "extra_forbidden", "loc": ["body", "structured_outputs"], "msg": "Extra inputs"}]}
    return None


def llama_cpp(body: Json) -> Json:
    """An early llama.cpp, which takes a schema beside json_object."""
    kind = body.get("response_format", {}).get("type")
    if kind not in {None, "text", "json_object"}:
        said = f'response_format type must be one of "text" or "json_object", but got: {kind}'
        return {"error": {"code": 400, "message": said, "type": "invalid_request_error"}}
    return None


def transformers_serve(body: Json) -> Json:
    """`transformers serve`, which names what it does not take."""
    unused = {"response_format", "logprobs", "top_logprobs"} & set(body)
    return {"detail": f"Unsupported fields in the request: {unused}"} if unused else None


def fastapi(body: Json) -> Json:
    """A server that forbids every parameter that it does not know, in FastAPI's words."""
    known = {"model", "messages", "max_tokens", "temperature", "response_format"}
    extra = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"} for name in set(body) - known]
    return {"detail": extra} if extra else None


def serve(server: Server, refusal: Refusal, status: int = 400, text: str = VALUES, **changes: Any) -> None:
    """The server refuses by `refusal`, and says `text` to all else."""

    def one(handler: Any) -> None:
        why = refusal(server.questions[-1])
        server.send(handler, status if why else 200, why or server.reply(text, **changes))

    server.script.extend([one] * 99)


def make(server: Server, **options: str) -> VlmAnnotator:
    return make_plugin(
        EndpointAnnotator,
        {"checkpoint": server.url, "served": "seer", "tile": "32", "fetch": "false", "concurrency": "1", **options},
    )


def only(answers: Any) -> Answer:
    [answer] = answers
    return answer


def schema_in(body: Json) -> Json:
    """What a request states in place of a schema."""
    names = ("response_format", "structured_outputs", "guided_json")
    return {name: body[name] for name in names if name in body}


@pytest.mark.parametrize(
    ("refusal", "status", "owner", "options", "stated"),
    [
        (lambda _: None, 400, "library", {}, "json_schema"),  # Ollama
        (openai, 400, "system", {}, "json_schema"),
        (vllm_012, 400, "vllm", {"structured": "guided_json"}, "structured_outputs"),
        (vllm_old, 400, "vllm", {}, "guided_json"),
        (llama_cpp, 400, "llamacpp", {}, "json_object"),
        (transformers_serve, 422, "transformers", {}, ""),
        (fastapi, 422, "nobody", {}, "json_schema"),
    ],
    ids=["ollama", "openai", "vllm 0.12", "vllm before", "llama.cpp", "transformers serve", "fastapi"],
)
def test_a_server_is_asked_in_the_form_that_it_takes(
    model_server: Server, views: list[View], refusal: Refusal, status: int, owner: str, options: Any, stated: str
) -> None:
    model_server.models[0]["owned_by"] = owner
    serve(model_server, refusal, status)
    annotator = make(model_server, json_schema=SHIPS, **options)
    annotator.check([])
    assert [only(one).numbers["ships"] for one in annotator.annotate(views)] == [3] * len(views)
    before = len(model_server.questions)
    annotator.annotate([view for view in views for _ in range(2)])
    taken = [body for body in model_server.questions if not refusal(body)]
    assert len(model_server.questions) == before  # cached: nothing was asked again
    assert len(taken) == len(views)
    assert len(model_server.questions) - len(taken) <= 4
    assert model_server.questions[-len(views) :] == taken  # once the form is known it is kept
    schema = schema_in(taken[-1])
    kind = schema.get("response_format", {}).get("type") or next(iter(schema), "")
    assert kind == stated
    assert not stated or json.dumps(json.loads(SHIPS), sort_keys=True) in json.dumps(schema, sort_keys=True)


def test_what_is_lost_is_said_once(model_server: Server, views: list[View], caplog: pytest.LogCaptureFixture) -> None:
    serve(model_server, openai)
    make(model_server, json_schema=SHIPS).annotate(views)
    [warning] = caplog.messages
    assert "takes no temperature, so that its answers may differ" in warning
    assert model_server.questions[-1]["max_completion_tokens"] == 512


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 512. This model supports at most 256 completion tokens.",
        "This model's maximum context length is 4096 tokens. Please reduce the length of the messages.",
        "The picture shows a schema of a person",
    ],
)
def test_other_refusals_are_final(model_server: Server, views: list[View], message: str) -> None:
    serve(model_server, lambda _: {"error": {"message": message}})
    with pytest.raises(ModelError, match="HTTP 400"):
        make(model_server).annotate(views[:1])
    assert len(model_server.questions) == 1


def test_a_server_that_refuses_every_form_is_asked_a_bounded_number_of_times(
    model_server: Server, views: list[View]
) -> None:
    said = "max_tokens: use max_completion_tokens; temperature, seed, response_format: bad schema"
    serve(model_server, lambda _: {"error": {"message": said}})
    with pytest.raises(ModelError, match="HTTP 400"):
        make(model_server, json_schema=SHIPS).annotate(views[:1])
    assert len(model_server.questions) < 10


@pytest.mark.parametrize("name", ["seer@main", "seer-2026-05-01"])
def test_the_first_longer_name_holds_for_the_run(model_server: Server, views: list[View], name: str) -> None:
    serve(model_server, lambda _: None, text="A harbour.", model=name)
    annotator = make(model_server)
    assert only(annotator.annotate(views[:1])[0]).text == "A harbour."
    model_server.script.clear()
    serve(model_server, lambda _: None, text="A harbour.", model="seer@other")
    with pytest.raises(ModelError, match=f"must come from the model seer or {name}"):
        annotator.annotate(views[1:2])


def test_a_key_that_is_refused_is_not_asked_for_again(
    model_server: Server, views: list[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(model_server, lambda _: {"error": "no"}, 401)
    with pytest.raises(ModelError, match=r"--set model_options\.key_variable=NAME"):
        make(model_server).annotate(views[:1])
    monkeypatch.setenv("SEER_KEY", "sk-123456789012")
    with pytest.raises(ModelError, match="Check the key in the environment variable SEER_KEY"):
        make(model_server, key_variable="SEER_KEY").annotate(views[:1])


def test_a_list_of_models_that_fails_is_not_retried_for_long(model_server: Server, views: list[View]) -> None:
    def fail(handler: Any) -> None:
        model_server.asked.append(None)
        model_server.send(handler, 500, {"error": "internal"})

    model_server.http.RequestHandlerClass.do_GET = fail
    annotator = make(model_server, failures="1")
    annotator.check([])
    assert len(model_server.asked) <= 2
    model_server.asked.clear()
    assert only(annotator.annotate(views[:1])[0]).text == "Nothing much."
    with pytest.raises(ModelError, match="HTTP 500"):
        make(model_server, served="").check([])


def test_a_thinking_model_gets_room_to_choose_a_label(model_server: Server, views: list[View]) -> None:
    """At first a label gets few tokens; a model that thinks needs more, and is given them from then on."""

    def one(handler: Any) -> None:
        short = model_server.questions[-1]["max_tokens"] < 300
        message = {"content": None if short else "quay", "reasoning": "Hmm."}
        answer = model_server.reply(None, message=message, finish_reason="length" if short else "stop")
        model_server.send(handler, 200, answer)

    model_server.script.extend([one] * 99)
    annotator = make(model_server, labels="ship,quay", max_tokens="300")
    assert [only(one).label for one in annotator.annotate(views)] == ["quay"] * len(views)
    short = [body for body in model_server.questions if body["max_tokens"] < 300]
    assert len(short) <= 2 * len(views)


def test_a_label_that_is_never_reached_is_told_with_the_flag(model_server: Server, views: list[View]) -> None:
    serve(model_server, lambda _: None, text="<think>Hmm, a", finish_reason="length")
    with pytest.raises(ModelError, match=r"only thought.*Raise --set model_options\.max_tokens=NUMBER above 300"):
        make(model_server, labels="ship,quay", max_tokens="300").annotate(views[:1])
    with pytest.raises(ModelError, match=r"only thought, \d+ characters\)\. Ask for less"):
        make(model_server, labels="ship,quay", max_tokens="32768").annotate(views[:1])


def test_parts_of_thinking_in_the_content(model_server: Server, views: list[View]) -> None:
    """As Mistral's reasoning models answer."""
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hmm."}]},
        {"type": "text", "text": "A harbour."},
    ]
    serve(model_server, lambda _: None, message={"content": content})
    answer = only(make(model_server).annotate(views[:1])[0])
    assert (answer.text, answer.notes["answer_thought"]) == ("A harbour.", "Hmm.")
