"""JSON schemas: texts that obey and texts that do not, without any network access."""

import json
import socket

import pytest
from limner.model.vlm.schema import Schema
from limner.readers.errors import ModelError, RequestError

SHIPS = {
    "type": "object",
    "properties": {"ships": {"type": "integer", "minimum": 0}, "kind": {"$ref": "#/$defs/kind"}, "note": {}},
    "required": ["ships"],
    "$defs": {"kind": {"enum": ["ferry", "barge"]}},
}


def schema(content: object = SHIPS) -> Schema:
    return Schema.parse(json.dumps(content), of="tester")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"kind": "ferry", "ships": 2}', ""),
        (' {"ships":2,"kind":"ferry"}\n', ""),
        ('```json\n{"ships": 2, "kind": "ferry"}\n```', "in a fence"),
        ('```\n{"ships": 2, "kind": "ferry"}```\n', "in a fence"),
        ('<answer>{"ships": 2, "kind": "ferry"}</answer>', "between marks"),
        ('Here you are: {"ships": 2, "kind": "ferry"}', "within prose"),
        ('I see:\n```json\n{"ships": 2, "kind": "ferry"}\n``` Hope this helps, Dr Rossi!', "within prose"),
        ('Not {}, but {"ships": 2, "kind": "ferry"}, that is {"kind": "ferry", "ships": 2}.', "within prose"),
    ],
)
def test_valid_text_becomes_canonical_json(text: str, form: str) -> None:
    assert schema().read(text) == ('{"kind": "ferry", "ships": 2}', form)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("two ferries, says Dr Rossi", "not JSON"),
        ("", "not JSON"),
        ('{"ships": 2', "not JSON"),
        ('{"ships": 2} {"ships": 3}', "2 values that differ"),
        ('{"ships": 2} or {"ships": 3}, says Rossi', "2 values that differ"),
        ('Rossi: {"ships": -2}', "at ships not minimum"),
        ('Rossi: {"ships": 2', "not JSON"),
        ('{"ships": -1, "kind": "Rossi"}', "at kind not enum"),
        ('{"ships": "Rossi"}', 'at ships not type "integer"'),
        ('{"kind": "ferry"}', "not required"),
        ("[2]", 'not type "object"'),
        ('{"ships": 2, "ships": 3}', "given twice"),
        ('{"ships": 2, "note": NaN}', "NaN"),
        ('{"ships": 2, "note": -Infinity}', "Infinity"),
        ('{"ships": 2, "note": 1e999}', "too large"),
        ('{"ships": 1' + "0" * 400 + "}", "too large"),
        ('{"ships": 1' + "0" * 9000 + "}", "too large"),
        ('{"ships": 2, "note": "\\ud800"}', "not JSON"),
        ('{"ships": 2, "a\\u202eb": 1}', "unprintable"),
        ('{"ships": 2, "note": ' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON"),
    ],
)
def test_invalid_text_is_refused_and_not_quoted(text: str, why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        schema().read(text)
    assert "Rossi" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "content",
    [
        {"type": "objet"},
        {"type": "object", "properties": {"a": {"minimum": "low"}}},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": "object", "properties": {"a": {"$ref": "https://example.org/schema.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}},
        {"type": "object", "properties": {"a": [{"$dynamicRef": "#gone"}]}},
        {"type": "object", "properties": {"a": {"$id": "https://example.org/a", "$ref": "b"}}},
    ],
)
def test_invalid_schemas_are_refused(content: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("the network was touched"))
    with pytest.raises(RequestError, match="option 'json_schema' of tester"):
        schema(content)


def test_a_schema_may_refer_to_itself_and_to_anchors() -> None:
    tree = schema(
        {
            "type": "object",
            "properties": {"below": {"$ref": "#"}, "size": {"$ref": "#size"}},
            "$defs": {"s": {"$anchor": "size", "type": "number"}},
        }
    )
    assert tree.read('{"below": {"below": {"size": 1.5}}}') == ('{"below": {"below": {"size": 1.5}}}', "")
    with pytest.raises(ModelError, match="at below/below/size"):
        tree.read('{"below": {"below": {"size": "wide"}}}')


def test_an_older_draft_is_read_by_its_own_rules() -> None:
    draft4 = {"$schema": "http://json-schema.org/draft-04/schema#", "type": "object", "properties": {"a": {}}}
    strict = schema({**draft4, "properties": {"a": {"type": "number", "minimum": 1, "exclusiveMinimum": True}}})
    assert strict.read('{"a": 2}') == ('{"a": 2}', "")
    with pytest.raises(ModelError):
        strict.read('{"a": 1}')
