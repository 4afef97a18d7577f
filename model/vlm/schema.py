"""JSON schemas, and the check that a model's text obeys one."""

# jsonschema's types leave open what a schema holds:
# pyright: reportUnknownMemberType=false

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for

from ...readers import files
from ...readers.errors import ModelError, RequestError, excerpt
from .texts import unfence, unwrap

_MAX_STARTS = 64  # places in a text at which JSON may begin that are tried
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True, slots=True)
class Schema:
    """A JSON schema."""

    text: str
    content: Any
    """The parsed text."""

    @classmethod
    def parse(cls, text: str, *, of: str) -> Self:
        """A schema; `of` is the annotator in errors. Raises `RequestError` for an invalid one.

        References that lead out of the schema are refused, since nothing is fetched.
        """
        content: Any = json.loads(text)
        subject = f"option 'json_schema' of {of}"
        if any(True for one in content.values() for _ in _find(one, ("$id",))):
            raise RequestError(subject, "must be one schema", value="$id within it", remedy="Remove inner $id keys")
        try:
            _validator(content).check_schema(content)
        except SchemaError as error:
            value = excerpt(error.message)
            raise RequestError(subject, "must be a JSON schema", value=value, remedy="Correct it") from None
        outside = sorted(set(_find(content, _REFERENCES)) - {"#"} - set(_targets(content)))
        if outside:
            raise RequestError(
                subject,
                "must hold all that it refers to, since nothing is fetched",
                value=excerpt(outside[0]),
                remedy="Put that into its $defs, and refer to #/$defs/NAME",
            )
        return cls(text, content)

    def read(self, text: str) -> tuple[str, str]:
        """(a model's text as canonical JSON, in what form it was found: "" for JSON alone, as asked for).

        JSON may also stand between the marks of a family, in a fenced block or within prose, where it is the only one
        that obeys the schema. Raises `ModelError` with the place where it breaks the schema. The error never quotes the
        text, which may be about a patient.
        """
        try:
            return self._obey(text), ""
        except ModelError as error:
            refused = error
        inner = unwrap(text)
        plain = unfence(inner)
        if plain != text.strip():
            return self._obey(plain), "in a fence" if plain != inner.strip() else "between marks"
        found: list[str] = []
        errors: list[ModelError] = []
        for part in _json_parts(text):
            try:
                found.append(self._obey(part))
            except ModelError as error:
                errors.append(error)
        if len(set(found)) == 1:
            return found[0], "within prose"
        if found:
            raise _broken(f"not JSON alone, but {len(set(found))} values that differ")
        raise errors[0] if len(errors) == 1 else refused

    def _obey(self, text: str) -> str:
        """JSON as canonical text. Raises `ModelError` where it is none, or does not obey the schema."""
        try:
            value: Any = parse_json(text)
            canonical = json.dumps(value, ensure_ascii=False, sort_keys=True)
            canonical.encode()
        except (ValueError, RecursionError) as error:
            raise _broken(f"not JSON: {type(error).__name__}, {error}") from None
        try:
            errors = cast("list[ValidationError]", list(_validator(self.content)(self.content).iter_errors(value)))
        except RecursionError:
            raise _broken("nested too deeply") from None
        if errors:
            first = min(errors, key=lambda error: (list(map(str, error.absolute_path)), error.message))
            place = "/".join(map(str, first.absolute_path))
            problem = f"not {first.validator} {json.dumps(first.validator_value)}"
            raise _broken(f"at {place} {problem}" if place else problem)
        return canonical


def _json_parts(text: str) -> Iterator[str]:
    """The JSON objects in a text, in order, which do not lie in one another."""
    decoder, place = json.JSONDecoder(), 0
    for _ in range(_MAX_STARTS):
        place = text.find("{", place)
        if place < 0:
            return
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        yield text[place:end]
        place = end


def parse_json(text: str) -> Any:
    """The value of a JSON text whose names can all be names of columns, by the rules of `readers.files.parse_json`.

    Raises `ValueError` where it is not JSON, or a name holds unprintable characters.
    """
    value = files.parse_json(text)
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            members = cast("dict[str, Any]", part)
            if not all(name.isprintable() for name in members):
                msg = "a name holds unprintable characters"
                raise ValueError(msg)
            waiting.extend(members.values())
        elif isinstance(part, list):
            waiting.extend(cast("list[Any]", part))
    return value


def _validator(content: Any) -> Any:
    """The validator class of the schema's own draft."""
    return validator_for(content, default=Draft202012Validator)


def _broken(value: str) -> ModelError:
    remedy = "Ask in simpler words, or for less; a server without support for schemas seldom keeps to one"
    return ModelError("model's answer", "must obey the schema", value=excerpt(value), remedy=remedy)


def _find(content: Any, names: Sequence[str]) -> Iterator[str]:
    """Every text under one of the names, at any depth."""
    if isinstance(content, dict):
        parts = cast("dict[str, Any]", content)
        yield from (parts[name] for name in names if isinstance(parts.get(name), str))
        content = list(parts.values())
    if isinstance(content, list):
        for one in cast("list[Any]", content):
            yield from _find(one, names)


def _targets(content: Any) -> Iterator[str]:
    """Valid targets of references: definitions by their pointer, and anchors."""
    for key in ("$defs", "definitions"):
        yield from (f"#/{key}/{name}" for name in cast("dict[str, Any]", content.get(key, {})))
    yield from (f"#{anchor}" for anchor in _find(content, ("$anchor", "$dynamicAnchor")))
