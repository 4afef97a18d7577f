"""Options of readers, annotators and writers: one pydantic model each, validated before anything runs.

A plug-in declares `class Options(limner.readers.options.Options)` with a description for every field, and receives an
instance of it; without `Options` it takes none. `limner plugins`, `limner models show` and docs/plugins.md list them.
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
"""`json_schema_extra` of an option that cannot change results: a run can be resumed with another value of it."""


class Options(BaseModel):
    """Base class of a plug-in's options: frozen, and unknown names are errors.

    Text is converted to a field's type: "0.5" to a float, "true" to a bool, "a, b" to a tuple (split at the separator
    in `json_schema_extra={"separator": ";"}`). Empty text means the default, except for a text field.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
        defer_build=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _split_text(cls, value: object, about: ValidationInfo) -> object:
        field = cls.model_fields[about.field_name or ""]
        if isinstance(value, str) and field.annotation is bool and value not in {"true", "false"}:
            msg = "must be true or false"
            raise ValueError(msg)
        if not isinstance(value, str) or not _is_tuple(field):
            return value
        return tuple(part.strip() for part in value.split(_separator(field)) if part.strip())

    def texts(self) -> dict[str, str]:
        """The options that are not at their defaults, as text for `parse_options`, sorted by name."""
        found: dict[str, str] = {}
        for name, field in sorted(type(self).model_fields.items()):
            value = cast("object", getattr(self, name))
            if value is not None and (field.is_required() or value != field.default):
                found[name] = _text(value, _separator(field))
        return found

    @classmethod
    def neutral(cls) -> frozenset[str]:
        """Names of the options that cannot change results."""
        return frozenset(name for name, field in cls.model_fields.items() if _extra(field).get("neutral"))


P = TypeVar("P")
O = TypeVar("O", bound=Options)  # noqa: E741 - O for Options


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option as lists and documentation show it."""

    name: str
    type: str
    default: str
    """"" where the option is required or has no default."""
    description: str
    neutral: bool = False
    """Whether it cannot change results."""


def options_of(plugin: object) -> type[Options]:
    """The options class of a plug-in. Raises `RequestError` where it is no subclass of `Options`."""
    found = getattr(plugin, "Options", Options)
    if not (isinstance(found, type) and issubclass(found, Options)):
        name = getattr(plugin, "__qualname__", type(plugin).__qualname__)
        rule = "must be a subclass of limner.readers.options.Options"
        remedy = "Correct the plug-in, or uninstall its package"
        raise RequestError(f"the class Options of the plug-in {name}", rule, remedy=remedy)
    return found


def parse_options(model: type[O], given: Mapping[str, object], owner: str) -> O:
    """Validate options of `owner`, which errors name, such as "reader 'raster'".

    Raises `RequestError` for an unknown name, with the closest known one, and for an invalid value.
    """
    known = model.model_fields
    for name in given:
        if name not in known:
            raise unknown_option(name, list(known), owner)
    try:
        return model.model_validate({name: value for name, value in given.items() if not _is_unset(known[name], value)})
    except ValidationError as error:
        raise _as_request(error, model, owner) from None


def make_plugin(maker: Callable[..., P], given: Mapping[str, object], owner: str = "plug-in") -> P:
    """Construct an annotator or writer, with its options if it declares any. Raises `RequestError`."""
    model = options_of(maker)
    options = parse_options(model, given, owner)
    return maker() if model is Options else maker(options)


def scan_options(model: type[O], info: "ImageInfo") -> O:
    """The options that an image was scanned with, to open it the same way."""
    return parse_options(model, dict(info.options), f"reader {info.reader!r}")


def unknown_option(name: str, known: Sequence[str], owner: str) -> RequestError:
    """The error about an option that does not exist."""
    rule = f"must be one of {', '.join(known)}" if known else "must not be given, since there are none"
    remedy = f"{did_you_mean(name, known)}Correct its name or leave it out"
    return RequestError(f"option {name!r} of {owner}", rule, remedy=remedy)


def invalid_option(name: str, owner: str, rule: str, *, value: str = "", remedy: str = "Correct it") -> RequestError:
    """The error about an option whose value turns out to be wrong after validation."""
    return RequestError(f"option {name!r} of {owner}", rule, value=excerpt(value), remedy=remedy)


def list_options(model: type[Options]) -> list[OptionRow]:
    """List the options in the order of declaration."""
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
    """The options as a Markdown table, or a sentence that there are none."""
    rows = list_options(model)
    if not rows:
        return "It takes no options.\n"
    cells = [(f"`{row.name}`", row.type, f"`{row.default}`" if row.default else "", row.description) for row in rows]
    lines = [("option", "value", "default", "what it does"), ("---",) * 4, *cells]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _is_unset(field: FieldInfo, value: object) -> bool:
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
    """Describe the values of a JSON schema: "a whole number from 0 to 9"."""
    several = [_kind(one, separator) for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if several:
        return " or ".join(several)
    if "enum" in schema:
        choices = [str(choice) or "nothing" for choice in schema["enum"]]
        return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]
    if "const" in schema:
        return str(schema["const"])
    kind = str(schema.get("type"))
    if kind == "array":
        inner = schema.get("prefixItems") or [schema.get("items", {})]
        items = {"number": "numbers", "integer": "whole numbers"}.get(inner[0].get("type", ""), "texts")
        items += _bounds(inner[0])
        least = f"at least {schema['minItems']} " if schema.get("minItems", 0) > 1 else ""
        count = f"{len(inner)} " if "prefixItems" in schema else least
        return f"{count}{items} separated by {'commas' if separator == ',' else repr(separator)}"
    if kind in {"integer", "number"}:
        return f"a {'whole ' if kind == 'integer' else ''}number{_bounds(schema)}"
    return {"boolean": "true or false", "string": "text"}.get(kind, "a value")


def _bounds(schema: Mapping[str, Any]) -> str:
    words = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below"))
    return "".join(f" {word} {schema[key]:g}" for key, word in words if key in schema)


def _as_request(error: ValidationError, model: type[Options], owner: str) -> RequestError:
    """Convert the first error of pydantic."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    field = model.model_fields.get(name)
    subject = f"option {name!r} of {owner}" if name else f"the options of {owner}"
    remedy = f"Give, for example, {field.examples[0]}" if field and field.examples else "Correct it"
    if first["type"] in {"missing", "string_too_short"} and len(first["loc"]) == 1:
        return RequestError(subject, "must be given", remedy=remedy.replace("Correct", "Give"))
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        rule = str(cause) if str(cause).startswith("must ") else f"must be valid: {cause}"
    elif field is not None:
        properties = cast("dict[str, Any]", model.model_json_schema()["properties"])
        rule = f"must be {_kind(properties[name], _separator(field))}"
    else:
        rule = f"must be valid: {first['msg'][0].lower()}{first['msg'][1:]}"
    value = cast("object", first["input"])
    found = "" if isinstance(value, Mapping) else value if isinstance(value, str) else _text(value, ", ")
    return RequestError(subject, rule, value=excerpt(found), remedy=remedy)
