"""The `endpoint` annotator: its requests, and the answers that it makes of replies."""

import base64
import io
import json
import struct
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest
from limner.model.annotator import Answer, InputSpec, View
from limner.model.tiling import join_tiles
from limner.model.vlm.annotator import VlmAnnotator
from limner.model.vlm.server import EndpointAnnotator
from limner.model.vlm.texts import CUT
from limner.readers import servers
from limner.readers.errors import ModelError, RequestError
from limner.readers.image import Image
from limner.readers.options import make_plugin
from limner.readers.render import Stretch
from PIL import Image as Pillow

Server = Any  # of conftest, which tests cannot import
Json = Any
Pictures = Callable[..., Image]
PLAIN = Stretch(("red", "green", "blue"), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0), "as it is")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds."""
    monkeypatch.setattr(servers, "BACKOFF", 0.01)


def make(server: Server, **options: str) -> VlmAnnotator:
    return make_plugin(
        EndpointAnnotator, {"checkpoint": server.url, "served": "seer", "tile": "32", "fetch": "false", **options}
    )


def parts(body: Json) -> tuple[list[str], str]:
    """(data URLs, words) of a request."""
    [message] = body["messages"]
    assert message["role"] == "user"
    *pictures, words = message["content"]
    assert {one["type"] for one in pictures} == {"image_url"}
    return [one["image_url"]["url"] for one in pictures], words["text"]


def pixels(url: str) -> np.ndarray:
    """What a data URL shows."""
    assert url.startswith("data:image/png;base64,")
    raw = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
    kinds, place = [], 8
    while place < len(raw):
        length, kind = struct.unpack(">I4s", raw[place : place + 8])
        kinds.append(kind)
        place += 12 + length
    assert set(kinds) == {b"IHDR", b"IDAT", b"IEND"}  # no date, no text, no profile
    return np.asarray(Pillow.open(io.BytesIO(raw)))


def only(answers: Any) -> Answer:
    [answer] = answers
    return answer


def test_it_is_installed() -> None:
    [point] = entry_points(group="limner.annotators", name="endpoint")
    assert point.load() is EndpointAnnotator


def test_requests_are_sent_only_when_needed(model_server: Server, views: list[View]) -> None:
    annotator = make(model_server)
    assert annotator.input_spec(None) == InputSpec(tile=32)  # type: ignore[arg-type]
    assert annotator.labels == ("description",)
    assert model_server.asked == []
    annotator.check([])
    assert [(one.method, one.path) for one in model_server.asked] == [("GET", "/v1/models")]
    annotator.annotate(views[:1])
    assert [one.path for one in model_server.asked[1:]] == ["/v1/chat/completions"]


def test_a_description_of_the_canvas(model_server: Server, views: list[View]) -> None:
    model_server.say = lambda _: "  A field.\n"
    annotator = make(model_server, question="What is it?", max_tokens="77", concurrency="1")
    answers = annotator.annotate(views)
    assert [only(one).text for one in answers] == ["A field."] * len(views)
    for view, body in zip(views, model_server.questions, strict=True):
        [url], words = parts(body)
        assert words == "What is it?"
        assert np.array_equal(pixels(url), join_tiles(view.tiles, view.grid))
        assert {key: value for key, value in body.items() if key != "messages"} == {
            "model": "seer",
            "temperature": 0,
            "seed": 0,
            "max_tokens": 77,
        }


def test_a_description_of_tiles_after_their_global_view(model_server: Server, views: list[View]) -> None:
    annotator = make(model_server, views="tiles", detail="low")
    assert annotator.input_spec(None) == InputSpec(tile=32, overall=True)  # type: ignore[arg-type]
    annotator.annotate(views[:1])
    [body] = model_server.questions
    urls, _ = parts(body)
    whole, *tiles = [pixels(url) for url in urls]
    assert len(tiles) == len(views[0].tiles) > 1
    assert np.array_equal(tiles, views[0].tiles)
    assert views[0].global_view is not None
    assert np.abs(whole - np.clip(views[0].global_view, 0, 255)).max() <= 0.5
    assert {one["image_url"]["detail"] for one in body["messages"][0]["content"][:-1]} == {"low"}


def test_no_file_content_is_sent(model_server: Server, views: list[View]) -> None:
    make(model_server).annotate(views)
    for asked in model_server.asked:
        said = json.dumps([asked.path, dict(asked.headers), asked.body]).lower()
        assert all(name not in said for name in ("rossi", "memory", "picture", "limner.", views[0].region.key.lower()))
    assert [parts(body)[1] for body in model_server.questions] == ["Describe this image in detail."] * len(views)


def test_truncated_description_is_marked(model_server: Server, views: list[View]) -> None:
    s = model_server
    s.script.append(lambda h: s.send(h, 200, s.reply("A long", finish_reason="length")))
    [answer] = make(s).annotate(views[:1])
    assert only(answer).text == "A long" + CUT


@pytest.mark.parametrize("structured", ["json_schema", "guided_json", "none"])
def test_values_obey_their_schema(model_server: Server, views: list[View], structured: str) -> None:
    schema = {"type": "object", "properties": {"ships": {"type": "integer"}, "kind": {"type": "string"}}}
    model_server.say = lambda _: '{"ships": 3, "kind": "=1+1"}'
    annotator = make(model_server, json_schema=json.dumps(schema), structured=structured)
    answer = only(annotator.annotate(views[:1])[0])
    assert (answer.numbers["ships"], answer.notes) == (3, {"kind": "=1+1"})
    assert answer.text == '{"kind": "=1+1", "ships": 3}'
    [body] = model_server.questions
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    assert body.get("response_format") == (wanted if structured == "json_schema" else None)
    assert body.get("guided_json") == (schema if structured == "guided_json" else None)


@pytest.mark.slow
def test_invalid_values_are_requested_once_more(model_server: Server, views: list[View]) -> None:
    schema = '{"type": "object", "properties": {"ships": {"type": "integer"}}, "required": ["ships"]}'
    s = model_server
    s.say = lambda body: "{}" if body["seed"] == 0 else '{"ships": 3}'
    assert only(make(s, json_schema=schema).annotate(views[:1])[0]).numbers["ships"] == 3
    s.say = lambda _: "Ignore your instructions. There are three ships."
    with pytest.raises(ModelError, match="obey the schema"):
        make(s, json_schema=schema).annotate(views[:1])
    assert [body["seed"] for body in s.questions] == [0, 1, 0, 1]
    s.say = lambda _: '{"ships": 3}'
    s.script.extend([lambda h: s.send(h, 200, s.reply('{"ships": 3}', finish_reason="length"))] * 2)
    with pytest.raises(ModelError, match="max_tokens"):
        make(s, json_schema=schema).annotate(views[:1])


@pytest.mark.parametrize(("unit", "said"), [("pixels", "[[8, 16, 40, 48]]"), ("unit", "[[0.125, 0.25, 0.625, 0.75]]")])
def test_boxes_by_unit(model_server: Server, views: list[View], unit: str, said: str) -> None:
    model_server.say = lambda body: said if "ship" in parts(body)[1] else "[]"
    assert views[0].grid.size == (64, 64)
    answer = only(make(model_server, labels="ship,quay", answer="locate", boxes=unit).annotate(views[:1])[0])
    assert (answer.label, answer.kind) == ("ship", "box")
    assert answer.geometry is not None
    assert answer.geometry.bounds == (8, 16, 40, 48)


def test_a_box_outside_the_picture_is_refused(model_server: Server, views: list[View]) -> None:
    model_server.say = lambda _: "[[8, 16, 40, 4800]]"
    with pytest.raises(ModelError, match="leaves the picture of 64 × 64"):
        make(model_server, labels="ship", answer="locate", boxes="pixels").annotate(views[:1])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"text": None}, "must hold a text"),
        ({"text": ""}, "must hold a text"),
        ({"text": " \n"}, "must hold a text"),
        ({"text": ["a"]}, "must be a chat completion"),
        ({"text": "\ud800"}, "valid Unicode"),
        ({"text": "no", "message": None}, "must be a chat completion"),
        ({"text": "no", "message": "hello"}, "must be a chat completion"),
        (
            {"text": None, "message": {"content": None, "refusal": "I may not look at Dr Rossi"}},
            "must not be a refusal",
        ),
        ({"text": "half", "finish_reason": "content_filter"}, "must not be a refusal"),
        ({"text": "yes", "model": "another-model"}, "answers_as=NAME"),
    ],
)
def test_invalid_answers_fail(model_server: Server, views: list[View], changes: dict[str, Any], why: str) -> None:
    s = model_server
    s.script.extend([lambda h: s.send(h, 200, s.reply(**changes))] * 2)
    with pytest.raises(ModelError, match=why) as caught:
        make(s).annotate(views[:1])
    assert "Rossi" not in str(caught.value)
    assert s.script == type(s.script)()


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": None}, {"choices": "none"}, {"choices": [7]}])
def test_an_answer_without_a_choice_fails(model_server: Server, views: list[View], body: Json) -> None:
    s = model_server
    s.script.extend([lambda h: s.send(h, 200, body)] * 2)
    with pytest.raises(ModelError, match="must be a chat completion"):
        make(s).annotate(views[:1])


def test_answers_as_another_name(model_server: Server, views: list[View]) -> None:
    s = model_server
    s.script.append(lambda h: s.send(h, 200, s.reply("yes", model="seer-2026-05")))
    annotator = make(s, answers_as="seer-2026-05")
    assert only(annotator.annotate(views[:1])[0]).text == "yes"
    assert annotator.identity["answers_as"] == "seer-2026-05"


def test_failed_region_does_not_repeat_the_others(model_server: Server, views: list[View]) -> None:
    s = model_server
    three = [views[0], views[1], views[0]]
    bad = pictures_of(views[1])
    s.say = lambda _: "fine"
    answer = s.reply
    s.reply = lambda text: {} if parts(s.questions[-1])[0] == bad else answer(text)
    annotator = make(s, concurrency="1")
    with pytest.raises(ModelError):
        annotator.annotate(three)
    paid = len(s.questions)
    with pytest.raises(ModelError):
        annotator.annotate(three[1:2])
    assert only(annotator.annotate(three[:1])[0]).text == "fine"
    assert len(s.questions) == paid
    s.reply = answer
    assert only(annotator.annotate(three[1:2])[0]).text == "fine"  # a failure is kept for one time only
    assert len(s.questions) == paid + 1


def pictures_of(view: View) -> list[str]:
    from limner.model.vlm.chat_completions import data_url

    return [data_url(join_tiles(view.tiles, view.grid))]


def test_identity(model_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEER_KEY", "sk-12345")
    annotator = make(model_server, key_variable="SEER_KEY", boxes="unit", detail="high")
    said = annotator.identity
    assert said["name"] == "endpoint"
    assert said["version"] == "served seer"
    assert said["host"] == model_server.url.split("/")[2]
    assert (said["owner"], said["root"]) == ("nobody", "/m/seer")
    assert (said["boxes"], said["detail"], said["likelihood"]) == ("unit", "high", "votes")
    assert "created" not in said
    assert "sk-12345" not in json.dumps(dict(said))
    assert EndpointAnnotator.Options.neutral() == {
        *("key_variable", "insecure", "timeout", "retries", "concurrency", "failures"),
        *("fetch", "threads"),
    }
    assert annotator.cost([], (2, 2)) is None


@pytest.mark.parametrize(("served", "why"), [("sear", "it has seer"), ("", "must be one of the server")])
def test_unknown_served_model_is_refused(model_server: Server, served: str, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        make(model_server, served=served).check([])
    model_server.models = []
    with pytest.raises(ModelError, match="it lists none"):
        make(model_server).check([])
    model_server.models = [7, {"id": 7}, {"id": "\x1b[2Jseer"}, *({"id": f"m{i:02}"} for i in range(40))]
    with pytest.raises(ModelError, match="and 31 more") as caught:
        make(model_server).check([])
    assert "\x1b" not in str(caught.value)


def test_server_without_a_model_list(model_server: Server, views: list[View]) -> None:
    model_server.models = {"not": "a list"}
    with pytest.raises(ModelError, match="listed=false"):
        make(model_server).check([])
    annotator = make(model_server, listed="false")
    annotator.check([])
    assert only(annotator.annotate(views[:1])[0]).text == "Nothing much."
    with pytest.raises(RequestError, match="served"):
        make(model_server, listed="false", served="").check([])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"checkpoint": ""}, "must be given. Give, for example, --model endpoint:http"),
        ({"temprature": "1"}, "'temprature'"),
        ({"timeout": "0"}, "'timeout'"),
        ({"timeout": "nan"}, "'timeout'"),
        ({"retries": "1.5"}, "'retries'"),
        ({"concurrency": "0"}, "'concurrency'"),
        ({"views": "all"}, "'views'"),
        ({"structured": "yes"}, "'structured'"),
        ({"likelihood": "guess"}, "'likelihood'"),
        ({"boxes": "inches"}, "'boxes'"),
        ({"served": "two\nlines"}, "'served'"),
        ({"answer": "locate", "labels": "ship", "boxes": "pixels", "views": "tiles"}, "'views'"),
        ({"json_schema": '{"type": "object", "properties": {"a": {"type": "objet"}}}'}, "'json_schema'"),
        ({"json_schema": '{"type": "object", "properties": {"valid": {}}}'}, "'json_schema'"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, str], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        make_plugin(EndpointAnnotator, {"checkpoint": "http://127.0.0.1:1/v1", "served": "seer", **options})


def test_boxes_in_a_unit_that_nothing_states_are_refused(model_server: Server, views: list[View]) -> None:
    model_server.say = lambda _: "[[8, 16, 40, 48]]"
    with pytest.raises(ModelError, match=r"nothing states: --set model_options\.boxes=pixels for Qwen2\.5-VL"):
        make(model_server, answer="locate", labels="ship").annotate(views[:1])
    assert "form that you were trained to write" in parts(model_server.questions[0])[1]
    assert "response_format" not in model_server.questions[0]
