"""JSON schemas: what a model's text must obey before anything is made of it."""

# jsonschema's types leave open what a schema holds:
# pyright: reportUnknownMemberType=false

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for

from ...readers.errors import ModelError, RequestError, excerpt
from .strict_json import parse_json

_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema, as its text. `content` is the same, read."""

    text: str
    content: Any

    @classmethod
    def parse(cls, text: str, *, of: str) -> Self:
        """A schema; `of` names the annotator in errors. Raises `RequestError` where it is none.

        It must say everything itself: a reference that leads out of it is refused, since nothing is fetched.
        """
        content: Any = json.loads(text)
        if any(True for one in content.values() for _ in _named(one, ("$id",))):
            raise RequestError(
                f"option 'json_schema' of {of}",
                "it is one schema",
                value="$id within it",
                remedy="Leave out what is not at the top",
            )
        kind = cast("Any", validator_for(content, default=Draft202012Validator))
        try:
            kind.check_schema(content)
        except SchemaError as error:
            raise RequestError(
                f"option 'json_schema' of {of}",
                "it must be a JSON schema",
                value=excerpt(error.message),
                remedy="Correct it",
            ) from None
        outside = sorted(set(_named(content, _REFERENCES)) - {"#"} - set(_places(content)))
        if outside:
            raise RequestError(
                f"option 'json_schema' of {of}",
                "it must hold what it refers to, since nothing is fetched",
                value=excerpt(outside[0]),
                remedy="Put that into its $defs, and refer to #/$defs/NAME",
            )
        return cls(text, content)

    def read(self, text: str) -> str:
        """A model's text as canonical JSON, where it obeys the schema. Raises `ModelError` that says where it does not.

        The whole text must be one JSON value, alone or in one fenced block. What JSON does not define is refused: a
        name given twice or that cannot be seen, numbers that are not finite or too large for a column, halves of a
        character. The error never quotes the text, which may be of a patient.
        """
        fenced = _FENCED.fullmatch(text)
        try:
            value: Any = parse_json(fenced[1] if fenced else text)
            canonical = json.dumps(value, ensure_ascii=False, sort_keys=True)
            canonical.encode()
        except (ValueError, RecursionError) as error:
            raise _refused(f"it is not JSON: {type(error).__name__}, {error}") from None
        kind = cast("Any", validator_for(self.content, default=Draft202012Validator))
        try:
            wrong = cast("list[ValidationError]", list(kind(self.content).iter_errors(value)))
        except RecursionError:
            raise _refused("it is nested too deeply") from None
        if wrong:
            first = min(wrong, key=lambda error: (list(map(str, error.absolute_path)), error.message))
            place = "/".join(map(str, first.absolute_path))
            raise _refused(
                f"{f'at {place} ' if place else ''}not {first.validator} {json.dumps(first.validator_value)}"
            )
        return canonical


def _refused(why: str) -> ModelError:
    return ModelError(
        "model's answer",
        "it must obey the schema",
        value=excerpt(why),
        remedy="Ask in simpler words, or for less; a server that knows no schemas seldom keeps to one",
    )


def _named(content: Any, names: Sequence[str]) -> Iterator[str]:
    """Every text that one of the names has, anywhere."""
    if isinstance(content, dict):
        parts = cast("dict[str, Any]", content)
        yield from (parts[name] for name in names if isinstance(parts.get(name), str))
        content = list(parts.values())
    if isinstance(content, list):
        for one in cast("list[Any]", content):
            yield from _named(one, names)


def _places(content: Any) -> Iterator[str]:
    """What can be referred to: definitions by their pointer, and whatever has an anchor."""
    for key in ("$defs", "definitions"):
        yield from (f"#/{key}/{name}" for name in cast("dict[str, Any]", content.get(key, {})))
    yield from (f"#{anchor}" for anchor in _named(content, ("$anchor", "$dynamicAnchor")))
