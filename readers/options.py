"""Options of readers, annotators and writers: one pydantic model each, checked before anything runs.

A plug-in declares `class Options(limner.readers.options.Options)` with a description for every field, and gets an
instance of it. A plug-in without `Options` takes none. The same declaration is what `limner plugins`, `limner models
show` and the documents list.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from .errors import RequestError, did_you_mean, excerpt

if TYPE_CHECKING:
    from .image import ImageInfo

NEUTRAL: Final[Any] = {"neutral": True}
"""`json_schema_extra` of an option that cannot change an answer: a run may go on with another value of it."""


class Options(BaseModel):
    """Options of one plug-in; this base has none. Frozen, and unknown names are refused.

    Texts, as a command line gives them, become the fields' types: "0.5" a float, "true" a bool, "a, b" a tuple (a field
    with `json_schema_extra={"separator": ";"}` is cut there). An empty text is the default of a field that is no text.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _cut_texts(cls, value: object, about: ValidationInfo) -> object:
        field = cls.model_fields[about.field_name or ""]
        if isinstance(value, str) and field.annotation is bool and value not in {"true", "false"}:
            msg = "it is true or false"
            raise ValueError(msg)
        if not isinstance(value, str) or not _is_tuple(field):
            return value
        return tuple(part.strip() for part in value.split(_separator(field)) if part.strip())

    def texts(self) -> dict[str, str]:
        """Every option that is not at its default, as a text that `parse_options` reads back; sorted by name."""
        found: dict[str, str] = {}
        for name, field in sorted(type(self).model_fields.items()):
            value = cast("object", getattr(self, name))
            if value is not None and (field.is_required() or value != field.default):
                found[name] = _text(value, _separator(field))
        return found

    @classmethod
    def neutral(cls) -> frozenset[str]:
        """Names of the options that cannot change an answer."""
        return frozenset(name for name, field in cls.model_fields.items() if _extra(field).get("neutral"))


P = TypeVar("P")
O = TypeVar("O", bound=Options)  # noqa: E741 - the options' own type


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option as lists and documents show it; `default` is "" where it must be given or has none."""

    name: str
    type: str
    default: str
    description: str
    neutral: bool = False


def options_of(plugin: object) -> type[Options]:
    """The options that a reader, annotator or writer declares; none where it declares none. Raises `RequestError`."""
    found = getattr(plugin, "Options", Options)
    if not (isinstance(found, type) and issubclass(found, Options)):
        raise RequestError(
            f"plug-in {getattr(plugin, '__qualname__', type(plugin).__qualname__)}",
            "its Options must be a subclass of limner.readers.options.Options",
            remedy="Correct the plug-in, or uninstall the package that brings it",
        )
    return found


def parse_options(model: type[O], given: Mapping[str, object], owner: str) -> O:
    """The validated options of `owner`, such as "reader 'raster'", who is named in errors.

    Raises `RequestError` for an unknown name, with the nearest known one, and for a value that does not fit.
    """
    known = model.model_fields
    for name in given:
        if name not in known:
            raise unknown_option(name, list(known), owner)
    try:
        return model.model_validate(
            {name: value for name, value in given.items() if not _left_open(known[name], value)}
        )
    except ValidationError as error:
        raise _as_request(error, model, owner) from None


def make_plugin(maker: Callable[..., P], given: Mapping[str, object], owner: str = "plug-in") -> P:
    """An annotator or writer: one that declares `Options` is called with its own, another with nothing.

    Raises `RequestError` as `parse_options` does.
    """
    model = options_of(maker)
    options = parse_options(model, given, owner)
    return maker() if model is Options else maker(options)


def scan_options(model: type[O], info: "ImageInfo") -> O:
    """The options with which an image was scanned, to open it the same way."""
    return parse_options(model, dict(info.options), f"reader {info.reader!r}")


def unknown_option(name: str, known: Sequence[str], owner: str) -> RequestError:
    """The error about an option that does not exist."""
    listed = f"Its options: {', '.join(known)}" if known else "It takes none"
    return RequestError(
        f"option {name!r} of {owner}", "there is no such option", remedy=did_you_mean(name, known) + listed
    )


def invalid_option(name: str, owner: str, rule: str, *, value: str = "", remedy: str = "Correct it") -> RequestError:
    """The error about an option whose value turns out later not to fit."""
    return RequestError(f"option {name!r} of {owner}", rule, value=excerpt(value), remedy=remedy)


def list_options(model: type[Options]) -> list[OptionRow]:
    """A row for each option, in the order of declaration."""
    properties = cast("dict[str, Any]", model.model_json_schema().get("properties", {}))
    return [
        OptionRow(
            name,
            _kind(properties[name], _separator(field)),
            ""
            if field.is_required() or field.default is None
            else excerpt(_text(field.default, _separator(field)), 40),
            " ".join((field.description or "").split()),
            neutral=bool(_extra(field).get("neutral")),
        )
        for name, field in model.model_fields.items()
    ]


def options_table(model: type[Options]) -> str:
    """The options as a table in Markdown; a sentence where there are none."""
    rows = list_options(model)
    if not rows:
        return "It takes no options.\n"
    cells = [(f"`{row.name}`", row.type, f"`{row.default}`" if row.default else "", row.description) for row in rows]
    lines = [("option", "value", "default", "what it does"), ("---",) * 4, *cells]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _left_open(field: FieldInfo, value: object) -> bool:
    """Whether nothing is said: an empty text, for an option that is no text."""
    return value is None or (value == "" and field.annotation is not str)


def _is_tuple(field: FieldInfo) -> bool:
    return any(get_origin(kind) is tuple for kind in (field.annotation, *get_args(field.annotation)))


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra: object = field.json_schema_extra  # pyright: ignore[reportUnknownMemberType] - pydantic leaves it open
    return cast("dict[str, Any]", extra) if isinstance(extra, dict) else {}


def _separator(field: FieldInfo) -> str:
    return str(_extra(field).get("separator", ","))


def _text(value: object, separator: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return separator.join(_text(one, separator) for one in cast("tuple[object, ...]", value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def _kind(schema: Mapping[str, Any], separator: str) -> str:
    """What a value is, in words, from its JSON schema: "a whole number from 0 to 9"."""
    several = [_kind(one, separator) for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if several:
        return " or ".join(several)
    if "enum" in schema:
        choices = [str(choice) or "nothing" for choice in schema["enum"]]
        return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        cut = "commas" if separator == "," else f"{separator!r}"
        inner = schema.get("prefixItems") or [schema.get("items", {})]
        what = {"number": "numbers", "integer": "whole numbers"}.get(inner[0].get("type", ""), "texts")
        count = f"{len(inner)} " if "prefixItems" in schema else ""
        count = f"at least {schema['minItems']} " if not count and schema.get("minItems", 0) > 1 else count
        return f"{count}{what} with {cut} between"
    if schema.get("type") in {"integer", "number"}:
        return f"a {'whole ' if schema['type'] == 'integer' else ''}number{_bounds(schema)}"
    return {"boolean": "true or false", "string": "text"}.get(str(schema.get("type")), "a value")


def _bounds(schema: Mapping[str, Any]) -> str:
    words = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    return "".join(f" {word} {schema[key]:g}" for key, word in words if key in schema)


def _as_request(error: ValidationError, model: type[Options], owner: str) -> RequestError:
    """The first of pydantic's complaints as one of ours."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    field = model.model_fields.get(name)
    subject = f"option {name!r} of {owner}" if name else f"options of {owner}"
    cause = first.get("ctx", {}).get("error")
    example = f"For example {field.examples[0]}" if field and field.examples else ""
    if first["type"] in {"missing", "string_too_short"} and len(first["loc"]) == 1:
        return RequestError(subject, "it must be given", remedy=example or "Give it")
    if isinstance(cause, ValueError):
        rule = str(cause)
    elif field is not None:
        properties = cast("dict[str, Any]", model.model_json_schema()["properties"])
        rule = f"it is {_kind(properties[name], _separator(field))}"
    else:
        rule = first["msg"][0].lower() + first["msg"][1:]
    value = cast("object", first["input"])
    found = "" if isinstance(value, Mapping) else value if isinstance(value, str) else _text(value, ", ")
    return RequestError(subject, rule, value=excerpt(found), remedy=example or "Correct it")
